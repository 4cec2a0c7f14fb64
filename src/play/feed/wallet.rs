//! The realtime topic `wallet:{id}`, which announces every transfer of a wallet to callers that may read the wallet.

use futures_util::FutureExt;
use futures_util::future::BoxFuture;
use serde::Serialize;
use serde_json::value::RawValue;

use crate::auth::Caller;
use crate::error::{Error, Result};
use crate::ids::WalletId;
use crate::ledger::account::AccountId;
use crate::ledger::currency::Currency;
use crate::ledger::money::Minor;
use crate::ledger::read::BookRow;
use crate::ledger::tail::SealedRow;
use crate::ledger::transfer::TransferKind;
use crate::realtime::feed::{Feed, Topic, TopicTransfers, Wanted};
use crate::realtime::{Audience, Message};
use crate::wallet::transfer::{Note, wallet_of, wallets_of};
use crate::wallet::{WalletRecord, Wallets};

const PREFIX: &str = "wallet:";

/// Feed of the topics `wallet:{id}`.
pub(super) struct WalletTopics {
    wallets: Wallets,
}

#[derive(Serialize)]
struct TransferData<'a> {
    wallet: String,
    currency: &'a str,
    transfer: String,
    kind: &'a str,
    from: Option<String>,
    to: Option<String>,
    amount: Box<RawValue>,
    /// Part of the balance that can be spent; absent if the transfer did not change this part.
    #[serde(skip_serializing_if = "Option::is_none")]
    available: Option<Box<RawValue>>,
    /// Part of the balance that is reserved by holds; absent if the transfer did not change this part.
    #[serde(skip_serializing_if = "Option::is_none")]
    held: Option<Box<RawValue>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    linked: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    memo: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    metadata: Option<Box<RawValue>>,
    trace_id: Option<String>,
}

impl WalletTopics {
    pub(super) fn new(wallets: Wallets) -> Self {
        Self { wallets }
    }

    async fn messages(&self, rows: &[SealedRow], wanted: &Wanted) -> Result<Vec<(usize, Message)>> {
        // The topics are looked up for each row, because there may be far more topics than rows.
        let is_wanted = |wallet: &WalletId| wanted.contains(format!("{PREFIX}{wallet}").as_str());
        let concerned = rows.iter().enumerate().flat_map(|(index, SealedRow { row, .. })| {
            let mut wallets = wallets_of(row);
            wallets.retain(is_wanted);
            wallets.into_iter().map(move |wallet| (index, row, wallet))
        });
        let concerned: Vec<_> = concerned.collect();
        let ids = concerned.iter().map(|(_, _, wallet)| *wallet);
        let records = self.wallets.find_records(ids).await?;
        let messages = concerned.into_iter().filter_map(|(index, row, wallet)| {
            let record = records.get(&wallet)?;
            Some(message(row, wallet, record).map(|message| (index, message)))
        });
        messages.collect()
    }
}

impl Feed for WalletTopics {
    fn topic(&self, name: &str) -> Option<Topic> {
        let account = AccountId::from(wallet_id(name)?);
        let accounts = [Some(account), account.hold()].into_iter().flatten().collect();
        // The name is built from the parsed id, so that `wallet:007` and `wallet:7` are the same topic.
        let name = format!("{PREFIX}{}", account.0).into();
        Some(Topic { name, transfers: TopicTransfers::OfAccounts(accounts) })
    }

    fn authorize<'a>(&'a self, caller: &'a Caller, topic: &'a Topic) -> BoxFuture<'a, Result<()>> {
        async move {
            let id = wallet_id(&topic.name).ok_or(Error::NotFound("topic"))?;
            self.wallets.visible_record(caller, id).await?;
            Ok(())
        }
        .boxed()
    }

    fn messages<'a>(
        &'a self,
        rows: &'a [SealedRow],
        wanted: &'a Wanted,
    ) -> BoxFuture<'a, Result<Vec<(usize, Message)>>> {
        self.messages(rows, wanted).boxed()
    }
}

fn wallet_id(topic: &str) -> Option<WalletId> {
    let id = topic.strip_prefix(PREFIX)?;
    let is_number = !id.is_empty() && id.bytes().all(|byte| byte.is_ascii_digit());
    id.parse().ok().filter(|id| is_number && *id > 0).map(WalletId)
}

fn message(row: &BookRow, wallet: WalletId, record: &WalletRecord) -> Result<Message> {
    let currency = record.currency;
    let Note { memo, metadata } = Note::from_stored(row.metadata.as_deref());
    let account = AccountId::from(wallet);
    let side = |id| wallet_of(AccountId(id)).map(|wallet| wallet.to_string());
    let kind = TransferKind::from_code(row.kind);
    let data = TransferData {
        wallet: wallet.to_string(),
        currency: currency.code(),
        transfer: row.transfer_id().to_string(),
        kind: kind.map_or("unknown", TransferKind::name),
        from: side(row.debit),
        to: side(row.credit),
        amount: number(row.amount, currency)?,
        available: balance_of(row, account).map(|minor| number(minor, currency)).transpose()?,
        held: account
            .hold()
            .and_then(|hold| balance_of(row, hold))
            .map(|minor| number(minor, currency))
            .transpose()?,
        linked: row.linked.map(|id| id.to_string()),
        memo,
        metadata,
        trace_id: row.trace_id.map(|id| id.simple().to_string()),
    };
    let data = serde_json::value::to_raw_value(&data);
    Ok(Message {
        topic: format!("{PREFIX}{wallet}").into(),
        kind: event_name(kind).into(),
        data: data.map_err(|cause| Error::Internal(cause.into()))?,
        text: None,
        player: record.user.map(|user| user.to_string()),
        audience: Audience::Everyone,
        at: row.at,
    })
}

/// Returns the balance of an account after a row of the ledger; `None` if the row does not change the account.
fn balance_of(row: &BookRow, account: AccountId) -> Option<i64> {
    match account.0 {
        id if id == row.credit => Some(row.credit_balance),
        id if id == row.debit => Some(row.debit_balance),
        _ => None,
    }
}

fn number(minor: i64, currency: Currency) -> Result<Box<RawValue>> {
    let text = Minor(minor).exact(currency).to_string();
    RawValue::from_string(text).map_err(|cause| Error::Internal(cause.into()))
}

/// Returns the event type for a kind of transfer. Webhooks use the same event types.
fn event_name(kind: Option<TransferKind>) -> String {
    match kind {
        Some(TransferKind::Open) => "wallet.opened".to_owned(),
        Some(TransferKind::Close) => "wallet.closed".to_owned(),
        Some(TransferKind::Freeze) => "wallet.frozen".to_owned(),
        Some(TransferKind::Unfreeze) => "wallet.unfrozen".to_owned(),
        kind => format!("transfer.{}", kind.map_or("unknown", TransferKind::name)),
    }
}
