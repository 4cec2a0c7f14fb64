//! The leader of the game: the player with the highest balance ever, announced on `leaderboard-game-event`.
//!
//! A durable reader of the book: the leader, the announcement and the position commit together, so each new leader is
//! announced once, whichever processes run or are killed.

mod sql;

use std::time::Duration;

use serde_json::json;
use serde_json::value::{RawValue, to_raw_value};
use sqlx::PgConnection;

use super::feed::players::{PlayerWallet, Players};
use crate::error::{Error, Result};
use crate::ids::WalletId;
use crate::ledger::account::AccountId;
use crate::ledger::currency::Currency;
use crate::ledger::money::Minor;
use crate::ledger::read::BookRow;
use crate::ledger::tail::{ReaderOptions, Segment, SegmentHandler, StartPosition, Tail, Transfers};
use crate::ledger::transfer::TransferKind;
use crate::realtime::{Audience, NewEvent, publish};
use crate::tasks::Tasks;
use crate::wallet::Wallets;
use crate::wallet::transfer::wallet_of;

const READER: ReaderOptions = ReaderOptions {
    name: "leaders",
    start: StartPosition::Beginning,
    items_max: 500,
    pause: Duration::from_millis(20),
};

const TOPIC: &str = "leaderboard-game-event";

/// Starts to follow the book, until the tasks stop.
pub fn start(tail: &Tail, wallets: Wallets, players: Players, tasks: &Tasks) {
    tail.follow::<Transfers>(READER, Leaders { wallets, players }, tasks);
}

struct Leaders {
    wallets: Wallets,
    players: Players,
}

/// A higher balance of a player.
struct Rise<'a> {
    player: &'a PlayerWallet,
    balance: Minor,
    is_leader_already: bool,
}

impl SegmentHandler<Transfers> for Leaders {
    async fn apply(&mut self, db: &mut PgConnection, segment: &Segment<BookRow>) -> Result<()> {
        let currency = self.wallets.default_currency();
        let raised: Vec<(&BookRow, WalletId)> =
            segment.items.iter().filter_map(|row| Some((row, raised_wallet(row)?))).collect();
        let players = self.players.find(raised.iter().map(|(_, wallet)| *wallet)).await?;
        let records = self.wallets.find_records(players.keys().copied()).await?;
        let raised: Vec<_> = raised
            .into_iter()
            .filter(|(_, wallet)| {
                records.get(wallet).is_some_and(|record| record.currency == currency)
            })
            .collect();
        let after: Vec<_> = raised.iter().map(|(row, wallet)| (*wallet, row.seq)).collect();
        let held = self.players.held(&after).await?;
        let mut leader = sql::leader(db).await?;
        let mut has_changed = false;
        for ((row, wallet), held) in raised.into_iter().zip(held) {
            let balance = Minor(row.credit_balance.saturating_add(held.0));
            let Some(player) = players.get(&wallet).filter(|_| balance.0 > leader.balance) else {
                continue;
            };
            let is_leader_already = leader.player.as_ref() == Some(&player.player);
            if row.seq > leader.since {
                let rise = Rise { player, balance, is_leader_already };
                self.announce(db, row, &rise, currency).await?;
            }
            leader.player = Some(player.player.clone());
            leader.balance = balance.0;
            has_changed = true;
        }
        if let Some(player) = leader.player.filter(|_| has_changed) {
            sql::set_leader(db, &player, leader.balance).await?;
        }
        Ok(())
    }
}

/// The wallet whose balance a row raises; money that a hold gives back does not.
fn raised_wallet(row: &BookRow) -> Option<WalletId> {
    let account = AccountId(row.credit);
    let moves = TransferKind::from_code(row.kind)?.moves_money();
    let is_own_hold = AccountId(row.debit).held_for() == Some(account);
    (moves && account.0 > 0 && !is_own_hold).then(|| wallet_of(account)).flatten()
}

impl Leaders {
    /// Publishes the message for those who may see the balance, and one without it for the others.
    async fn announce(
        &self,
        db: &mut PgConnection,
        row: &BookRow,
        rise: &Rise<'_>,
        currency: Currency,
    ) -> Result<()> {
        let Rise { player, balance, is_leader_already } = rise;
        let (id, amount) = (&player.player, balance.exact(currency).to_string());
        let text = if *is_leader_already {
            format!(
                "User {id} is still leading the game with {amount} amount in the wallet. Well done!"
            )
        } else {
            format!("User {id} is leading the game with {amount} amount in the wallet.")
        };
        let raw = |text: String| {
            RawValue::from_string(text).map_err(|cause| Error::Internal(cause.into()))
        };
        let full = json(&json!({
            "player": id, "currency": currency.code(), "balance": raw(amount)?,
            "transfer": row.transfer_id().to_string(), "still": is_leader_already,
            "message": text,
        }))?;
        let audience = self.players.audience(player);
        let event = |text, data, audience| NewEvent {
            topic: TOPIC,
            kind: "leader.changed",
            data,
            text: Some(text),
            player: Some(id),
            audience,
            trace: row.trace_id,
        };
        publish(db, &event(&text, &full, audience)).await?;
        if let Audience::Owner(user) = audience {
            let text = if *is_leader_already {
                format!("User {id} is still leading the game. Well done!")
            } else {
                format!("User {id} is leading the game.")
            };
            let reduced =
                json(&json!({ "player": id, "still": is_leader_already, "message": text }))?;
            publish(db, &event(&text, &reduced, Audience::Others(user))).await?;
        }
        Ok(())
    }
}

fn json(value: &serde_json::Value) -> Result<Box<RawValue>> {
    to_raw_value(value).map_err(|cause| Error::Internal(cause.into()))
}
