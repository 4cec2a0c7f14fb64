//! The realtime topic `gameprogress-event`, which announces deposits and withdrawals of players. The messages have the
//! exact wording that older clients expect.

use std::sync::Arc;

use futures_util::FutureExt;
use futures_util::future::BoxFuture;
use serde::Serialize;
use serde_json::value::{RawValue, to_raw_value};

use super::named::{NamedTopics, PROGRESS};
use super::players::{PlayerWallet, Players};
use crate::auth::Caller;
use crate::error::{Error, Result};
use crate::ids::WalletId;
use crate::ledger::account::AccountId;
use crate::ledger::currency::Currency;
use crate::ledger::money::Minor;
use crate::ledger::read::BookRow;
use crate::ledger::tail::SealedRow;
use crate::ledger::transfer::TransferKind;
use crate::realtime::Message;
use crate::realtime::feed::{Feed, Topic, TopicTransfers, Wanted};
use crate::wallet::Wallets;
use crate::wallet::transfer::{wallet_of, wallets_of};

/// Feed of the topic `gameprogress-event`.
pub(super) struct GameProgress {
    pub(super) wallets: Wallets,
    pub(super) players: Players,
}

/// Kind of change to a player's balance.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Movement {
    /// The first deposit of the player, which opened the wallet.
    Initialized,
    Added,
    Withdrew,
}

#[derive(Serialize)]
struct ProgressData<'a> {
    player: &'a str,
    wallet: String,
    currency: &'a str,
    transfer: String,
    amount: Box<RawValue>,
    balance: Box<RawValue>,
    message: &'a str,
}

impl GameProgress {
    async fn read(&self, rows: &[SealedRow]) -> Result<Vec<(usize, Message)>> {
        let moved: Vec<(usize, Movement, WalletId, i64)> = rows
            .iter()
            .enumerate()
            .filter_map(|(index, SealedRow { row, .. })| {
                let opens = index.checked_sub(1).and_then(|before| rows.get(before));
                let (movement, account, available) = movement(opens.map(|one| &one.row), row)?;
                let wallet =
                    wallet_of(account).filter(|wallet| wallets_of(row).contains(wallet))?;
                Some((index, movement, wallet, available))
            })
            .collect();
        let players = self.players.find(moved.iter().map(|(_, _, wallet, _)| *wallet)).await?;
        let moved: Vec<_> =
            moved.into_iter().filter(|(_, _, wallet, _)| players.contains_key(wallet)).collect();
        let records = self.wallets.find_records(moved.iter().map(|one| one.2)).await?;
        let after: Vec<_> =
            moved.iter().map(|(index, _, wallet, _)| (*wallet, rows[*index].row.seq)).collect();
        let held = self.players.held(&after).await?;
        let messages = moved.into_iter().zip(held).filter_map(|(one, held)| {
            let (index, movement, wallet, available) = one;
            let (player, record) = (players.get(&wallet)?, records.get(&wallet)?);
            let balance = Minor(available.saturating_add(held.0));
            let row = &rows[index].row;
            let message = self.message(row, movement, wallet, player, record.currency, balance);
            Some(message.map(|message| (index, message)))
        });
        messages.collect()
    }

    fn message(
        &self,
        row: &BookRow,
        movement: Movement,
        wallet: WalletId,
        player: &Arc<PlayerWallet>,
        currency: Currency,
        balance: Minor,
    ) -> Result<Message> {
        let [amount, balance] =
            [Minor(row.amount), balance].map(|minor| minor.exact(currency).to_string());
        let id = &player.player;
        let text = match movement {
            Movement::Initialized => format!(
                "User {id} initialized a wallet with {amount} amount. Current wallet balance is {balance}"
            ),
            Movement::Added => format!(
                "User {id} added {amount} amount to wallet. Current wallet balance is {balance}"
            ),
            Movement::Withdrew => format!(
                "User {id} withdrew {amount} amount to wallet. Current wallet balance is {balance}"
            ),
        };
        let raw = |text| RawValue::from_string(text).map_err(|cause| Error::Internal(cause.into()));
        let data = ProgressData {
            player: id,
            wallet: wallet.to_string(),
            currency: currency.code(),
            transfer: row.transfer_id().to_string(),
            amount: raw(amount)?,
            balance: raw(balance)?,
            message: &text,
        };
        let kind = match movement {
            Movement::Initialized => "wallet.initialized",
            Movement::Added => "wallet.deposit",
            Movement::Withdrew => "wallet.withdrawal",
        };
        Ok(Message {
            topic: PROGRESS.into(),
            kind: kind.into(),
            data: to_raw_value(&data).map_err(|cause| Error::Internal(cause.into()))?,
            text: Some(text),
            player: Some(id.clone()),
            audience: self.players.audience(player),
            at: row.at,
        })
    }
}

/// Returns whether a ledger row is a first deposit, another deposit or a withdrawal, with the wallet's account and its
/// available balance after the row. Returns `None` for all other rows. `before` is the preceding row of the ledger,
/// which shows whether a deposit opened the wallet.
fn movement(before: Option<&BookRow>, row: &BookRow) -> Option<(Movement, AccountId, i64)> {
    match TransferKind::from_code(row.kind)? {
        TransferKind::Deposit => {
            let opens = before.is_some_and(|before| {
                before.seq + 1 == row.seq
                    && before.at == row.at
                    && before.kind == TransferKind::Open.code()
                    && before.credit == row.credit
            });
            let movement = if opens { Movement::Initialized } else { Movement::Added };
            Some((movement, AccountId(row.credit), row.credit_balance))
        }
        TransferKind::Withdrawal => {
            Some((Movement::Withdrew, AccountId(row.debit), row.debit_balance))
        }
        _ => None,
    }
}

impl Feed for GameProgress {
    fn topic(&self, name: &str) -> Option<Topic> {
        (name == PROGRESS).then(|| Topic { name: name.into(), transfers: TopicTransfers::Any })
    }

    fn authorize<'a>(&'a self, caller: &'a Caller, topic: &'a Topic) -> BoxFuture<'a, Result<()>> {
        NamedTopics.authorize(caller, topic)
    }

    fn messages<'a>(
        &'a self,
        rows: &'a [SealedRow],
        wanted: &'a Wanted,
    ) -> BoxFuture<'a, Result<Vec<(usize, Message)>>> {
        async move {
            if wanted.contains(PROGRESS) { self.read(rows).await } else { Ok(Vec::new()) }
        }
        .boxed()
    }
}
