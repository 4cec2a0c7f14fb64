//! Reads of wallets: current and past balances, details and lists.

use std::sync::Arc;

use sqlx::PgConnection;
use time::OffsetDateTime;

use super::access::Visibility;
use super::{WalletRecord, Wallets, nothing_posted, sql};
use crate::auth::Caller;
use crate::db::position;
use crate::error::{Error, Result};
use crate::ids::WalletId;
use crate::ledger::account::{AccountId, AccountState};
use crate::ledger::money::Minor;
use crate::ledger::read;

pub use super::sql::WalletFilter;

/// A wallet with its current balance, or with its balance at a past moment.
#[derive(Debug, Clone)]
pub struct WalletBalance {
    pub id: WalletId,
    pub record: Arc<WalletRecord>,
    pub available: Minor,
    pub held: Minor,
    /// Position in the ledger and time of the balance, if the caller requested a past balance.
    pub as_of: Option<AsOf>,
}

/// The point in the past for which a balance is requested: a position in the ledger, and a time.
#[derive(Debug, Clone, Copy)]
pub struct AsOf {
    /// Sequence number of the last transfer that the balance includes.
    pub seq: i64,
    /// Time of the balance. It is earlier than the requested time if the ledger may still commit transfers that are
    /// dated before the requested time.
    pub at: OffsetDateTime,
}

impl WalletBalance {
    /// Sum of the available and the held amount.
    pub fn total(&self) -> Result<Minor> {
        let sum = self.available.checked_add(self.held);
        sum.ok_or_else(|| {
            Error::Internal(anyhow::anyhow!("the balance of wallet {} overflows", self.id))
        })
    }
}

/// Details of a wallet that lists of wallets omit, such as the label and the metadata.
#[derive(Debug)]
pub struct WalletDetail {
    pub state: AccountState,
    pub created_at: OffsetDateTime,
    pub closed_at: Option<OffsetDateTime>,
    pub label: Option<String>,
    pub metadata: Option<String>,
}

impl Wallets {
    /// Returns the record of a wallet, or an error if the caller may not see the wallet.
    pub async fn visible_record(&self, caller: &Caller, id: WalletId) -> Result<Arc<WalletRecord>> {
        let record = self.record(id).await?;
        caller.require_read(&record)?;
        Ok(record)
    }

    /// Returns the balance of a wallet, now or at a moment in the past.
    pub async fn balance(
        &self,
        caller: &Caller,
        id: WalletId,
        moment: Option<OffsetDateTime>,
    ) -> Result<WalletBalance> {
        let record = self.visible_record(caller, id).await?;
        let Some(moment) = moment else {
            let mut db = self.db.read("wallet.get").await?;
            return current_balance(&mut db, id, record).await;
        };
        if moment > OffsetDateTime::now_utc() {
            return Err(Error::field("?at", "must not be in the future"));
        }
        let at = moment.min(self.settled_until(id).await?);
        let mut db = self.db.fresh_snapshot("wallet.get").await?;
        let seq = read::seq_at(&mut db, id.into(), at).await?;
        let balance = balance_at(&mut db, id, record, seq).await?;
        Ok(WalletBalance { as_of: Some(AsOf { seq, at }), ..balance })
    }

    /// Returns a wallet with its balance and details.
    pub async fn detail(
        &self,
        caller: &Caller,
        id: WalletId,
    ) -> Result<(WalletBalance, WalletDetail)> {
        self.visible_record(caller, id).await?;
        self.find_detail(id).await
    }

    /// Returns the latest moment up to which the history of a wallet is final: the ledger can no longer commit
    /// transfers that are dated before the returned moment.
    ///
    /// The caller must take its snapshot of the database after this call, because an older snapshot may lack transfers
    /// that are dated before the returned moment.
    pub(super) async fn settled_until(&self, id: WalletId) -> Result<OffsetDateTime> {
        read::settled_until(&mut *self.db.acquire("wallet.settled").await?, id.into()).await
    }

    /// Returns a wallet with its balance and details, without checking whether the caller may see it.
    pub(super) async fn find_detail(&self, id: WalletId) -> Result<(WalletBalance, WalletDetail)> {
        let record = self.record(id).await?;
        let mut db = self.db.snapshot("wallet.detail").await?;
        let balance = balance_at(&mut db, id, record, read::END).await?;
        let row = sql::detail(&mut db, id)
            .await?
            .ok_or_else(|| Error::NotFound("wallet").of_wallet(id.0))?;
        let state = read::state(&mut db, id.into()).await?;
        let sql::DetailRow { created_at, closed_at, label, metadata } = row;
        Ok((balance, WalletDetail { state, created_at, closed_at, label, metadata }))
    }

    /// Returns the wallets that the caller may see and that match the filter, ordered by id.
    pub async fn list(
        &self,
        caller: &Caller,
        filter: WalletFilter<'_>,
    ) -> Result<Vec<WalletBalance>> {
        let visibility = caller.require_visibility()?;
        let mut db = self.db.snapshot("wallet.list").await?;
        let rows = match (filter.owner, filter.currency, visibility) {
            (Some(owner), _, _) => sql::list_of_owner(&mut db, owner, visibility, filter).await?,
            (None, None, Visibility::All) => sql::list(&mut db, filter).await?,
            (None, Some(currency), Visibility::All) => {
                sql::list_of_currency(&mut db, currency, filter).await?
            }
            (None, None, _) => sql::list_visible(&mut db, visibility, filter).await?,
            (None, Some(currency), _) => {
                sql::list_visible_of_currency(&mut db, currency, visibility, filter).await?
            }
        };
        let accounts = rows.iter().map(|row| AccountId::from(row.id));
        let holds = accounts.clone().map(|account| account.hold().unwrap_or(account));
        let accounts: Vec<AccountId> = accounts.chain(holds).collect();
        let balances = read::balances(&mut db, &accounts, read::END).await?;
        let (available, held) = balances.split_at(rows.len());
        let wallets = rows.into_iter().zip(available.iter().zip(held));
        let wallets = wallets.map(|(row, (available, held))| {
            let record = self.record_from(&row.currency, row.owner, row.app_user)?;
            Ok(WalletBalance {
                id: row.id,
                record,
                available: *available,
                held: *held,
                as_of: None,
            })
        });
        wallets.collect()
    }
}

/// Returns the current balance of a wallet. Also records the position in the ledger at which the balance was read, for
/// the `Book-Position` response header.
async fn current_balance(
    db: &mut PgConnection,
    id: WalletId,
    record: Arc<WalletRecord>,
) -> Result<WalletBalance> {
    let (balances, position) = read::current_balances(db, id.into()).await?;
    position::note_read(position);
    let [available, held] = balances;
    Ok(WalletBalance { id, record, available, held, as_of: None })
}

/// Returns the balance of a wallet after the transfer with this sequence number in the wallet's part (book) of the
/// ledger.
pub(super) async fn balance_at(
    db: &mut PgConnection,
    id: WalletId,
    record: Arc<WalletRecord>,
    seq: i64,
) -> Result<WalletBalance> {
    let account = AccountId::from(id);
    let accounts = [account, account.hold().unwrap_or(account)];
    let balances = read::balances(db, &accounts, seq).await?;
    let [available, held] = balances[..] else { return Err(nothing_posted()) };
    Ok(WalletBalance { id, record, available, held, as_of: None })
}
