//! Realtime topics that announce changes to players' balances. Only gRPC streams use these topics; WebSocket clients
//! cannot subscribe to them.

use std::collections::HashMap;
use std::sync::Arc;

use futures_util::FutureExt;
use futures_util::future::BoxFuture;
use serde::{Deserialize, Serialize};

use super::players::{PlayerWallet, Players};
use crate::auth::Caller;
use crate::error::{Error, Result};
use crate::ids::{PlayerId, TransferId, WalletId};
use crate::ledger::account::AccountId;
use crate::ledger::currency::Currency;
use crate::ledger::money::Minor;
use crate::ledger::read::BookRow;
use crate::ledger::tail::SealedRow;
use crate::realtime::Message;
use crate::realtime::feed::{Feed, Topic, TopicTransfers, Wanted};
use crate::wallet::transfer::{wallet_of, wallets_of};

const PREFIX: &str = "balance:";

/// Feed of the topics that announce changes to players' balances.
pub(super) struct Balances {
    pub(super) players: Players,
}

/// The balance of a player after a transfer, with the id of the transfer.
#[derive(Debug, Serialize, Deserialize)]
pub(in crate::play) struct BalanceData {
    /// Balance in minor units, such as cents.
    pub balance: i64,
    pub transfer: TransferId,
}

/// Returns the name of the topic for a player's balance in a currency.
pub(in crate::play) fn balance_topic(player: &PlayerId, currency: Currency) -> String {
    name_of(player.as_str(), currency.code())
}

fn name_of(player: &str, currency: &str) -> String {
    format!("{PREFIX}{currency}:{player}")
}

/// A row of the ledger that changes the total balance of a wallet.
struct Change<'a> {
    index: usize,
    row: &'a BookRow,
    wallet: WalletId,
}

impl Balances {
    async fn read(&self, rows: &[SealedRow], wanted: &Wanted) -> Result<Vec<(usize, Message)>> {
        let changes: Vec<Change<'_>> = rows
            .iter()
            .enumerate()
            .flat_map(|(index, SealedRow { row, .. })| {
                changed_wallets(row).map(move |wallet| Change { index, row, wallet })
            })
            .collect();
        let players = self.players.find(changes.iter().map(|change| change.wallet)).await?;
        let topics: HashMap<WalletId, (&Arc<str>, &Arc<PlayerWallet>)> = players
            .iter()
            .filter_map(|(wallet, player)| {
                let topic = wanted.get(name_of(&player.player, &player.currency).as_str())?;
                Some((*wallet, (topic, player)))
            })
            .collect();
        let changes = changes.into_iter().filter(|change| topics.contains_key(&change.wallet));
        let mut changes: Vec<Change<'_>> = changes.collect();
        // A transfer can have several rows (legs), such as a fee. The balance after the transfer is the balance after
        // its last row.
        let last: HashMap<(WalletId, i64), usize> = changes
            .iter()
            .map(|change| ((change.wallet, change.row.transfer_id()), change.index))
            .collect();
        changes.retain(|change| last[&(change.wallet, change.row.transfer_id())] == change.index);
        let after: Vec<_> = changes.iter().map(|change| (change.wallet, change.row.seq)).collect();
        let totals = self.players.total_balances_after(&after).await?;
        let messages = changes.iter().zip(totals).filter_map(|(change, balance)| {
            let (topic, player) = topics.get(&change.wallet)?;
            let message = self.message(change.row, balance, topic, player);
            Some(message.map(|message| (change.index, message)))
        });
        messages.collect()
    }

    fn message(
        &self,
        row: &BookRow,
        balance: Minor,
        topic: &Arc<str>,
        player: &PlayerWallet,
    ) -> Result<Message> {
        let data = BalanceData { balance: balance.0, transfer: TransferId(row.transfer_id()) };
        let data = serde_json::value::to_raw_value(&data);
        Ok(Message {
            topic: topic.to_string().into(),
            kind: "balance".into(),
            data: data.map_err(|cause| Error::Internal(cause.into()))?,
            text: None,
            player: None,
            audience: self.players.audience(player),
            at: row.at,
        })
    }
}

/// Returns the wallets whose total balance a row of the ledger changes. A hold changes no total balance, because it
/// only reserves money within a wallet.
fn changed_wallets(row: &BookRow) -> impl Iterator<Item = WalletId> + use<> {
    let [debit, credit] = [row.debit, row.credit].map(|id| wallet_of(AccountId(id)));
    let changes = debit != credit && row.amount != 0;
    wallets_of(row).into_iter().filter(move |_| changes)
}

impl Feed for Balances {
    fn topic(&self, name: &str) -> Option<Topic> {
        let (_currency, _player) = name.strip_prefix(PREFIX)?.split_once(':')?;
        Some(Topic { name: name.into(), transfers: TopicTransfers::OfFoundAccounts })
    }

    /// Refuses all WebSocket clients. Only gRPC streams may use the topics of balances, and a gRPC stream authorizes
    /// its caller before it subscribes.
    fn authorize<'a>(&'a self, _: &'a Caller, _: &'a Topic) -> BoxFuture<'a, Result<()>> {
        async { Err(Error::NotFound("topic")) }.boxed()
    }

    fn accounts<'a>(&'a self, topic: &'a Topic) -> BoxFuture<'a, Result<Vec<AccountId>>> {
        async move {
            let parts = topic.name.strip_prefix(PREFIX).and_then(|rest| rest.split_once(':'));
            let (currency, player) = parts.ok_or(Error::NotFound("topic"))?;
            self.players.accounts(player, currency).await
        }
        .boxed()
    }

    fn messages<'a>(
        &'a self,
        rows: &'a [SealedRow],
        wanted: &'a Wanted,
    ) -> BoxFuture<'a, Result<Vec<(usize, Message)>>> {
        async move {
            let is_wanted = wanted.iter().any(|topic| topic.starts_with(PREFIX));
            if is_wanted { self.read(rows, wanted).await } else { Ok(Vec::new()) }
        }
        .boxed()
    }
}
