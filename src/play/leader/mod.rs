//! The leader of the game: the player that reached the highest balance ever. The server announces new leaders on the
//! realtime topic `leaderboard-game-event`.
//!
//! A task reads the transfers of the ledger. A single transaction stores the new leader, the announcement, and the
//! task's position in the ledger. Each new leader is therefore announced exactly once, even if a process is killed.

mod sql;

use std::time::Duration;

use serde_json::json;
use serde_json::value::{RawValue, to_raw_value};
use sqlx::PgConnection;

use super::feed::players::{PlayerWallet, Players};
use super::feed::raise::{LeadingRaises, Raise};
use crate::error::{Error, Result};
use crate::ledger::currency::Currency;
use crate::ledger::money::Minor;
use crate::ledger::tail::{ReaderOptions, Segment, SegmentHandler, Tail};
use crate::realtime::{Audience, NewEvent, publish};
use crate::tasks::Tasks;
use crate::wallet::Wallets;

const READER: ReaderOptions = ReaderOptions {
    name: "leaders",
    items_max: 500,
    pause: Duration::from_millis(100),
    pause_steps: 0,
};

const TOPIC: &str = "leaderboard-game-event";

/// Starts the task that finds and announces new leaders until the process stops.
pub fn start(tail: &Tail, wallets: &Wallets, players: &Players, tasks: &Tasks) {
    let leaders = |_| Leaders { wallets: wallets.clone(), players: players.clone() };
    tail.follow::<LeadingRaises, _>(READER, leaders, tasks);
}

struct Leaders {
    wallets: Wallets,
    players: Players,
}

/// A new highest balance: the transfer that reached it, and the player. `is_leader_already` is true if the same player
/// was already the leader.
struct Record<'a> {
    raise: &'a Raise,
    player: &'a PlayerWallet,
    is_leader_already: bool,
}

impl SegmentHandler<LeadingRaises> for Leaders {
    async fn apply(&mut self, db: &mut PgConnection, segment: &Segment<Raise>) -> Result<()> {
        let currency = self.wallets.default_currency();
        let raises = segment.items.iter().filter(|raise| raise.currency == currency.code());
        let mut leader = sql::lock_leader(db).await?;
        let before = leader.balance;
        let records: Vec<&Raise> = raises.filter(|raise| raise.balance > before).collect();
        let players = self.players.find(records.iter().map(|raise| raise.wallet)).await?;
        for raise in records {
            let Some(player) = players.get(&raise.wallet) else { continue };
            if raise.balance <= leader.balance {
                continue;
            }
            if raise.seq > leader.since {
                let is_leader_already = leader.player.as_ref() == Some(&raise.player);
                let record = Record { raise, player, is_leader_already };
                self.announce(db, &record, currency).await?;
            }
            leader.player = Some(raise.player.clone());
            leader.balance = raise.balance;
        }
        if let Some(player) = leader.player.filter(|_| leader.balance > before) {
            sql::set_leader(db, &player, leader.balance).await?;
        }
        Ok(())
    }
}

impl Leaders {
    /// Publishes an announcement with the balance to the subscribers that may see the balance. If the player is a
    /// registered user, also publishes an announcement without the balance to all other subscribers.
    async fn announce(
        &self,
        db: &mut PgConnection,
        record: &Record<'_>,
        currency: Currency,
    ) -> Result<()> {
        let Record { raise, player, is_leader_already } = record;
        let (id, amount) = (&raise.player, Minor(raise.balance).exact(currency).to_string());
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
            "transfer": raise.transfer.to_string(), "still": is_leader_already,
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
            trace: raise.trace_id,
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
