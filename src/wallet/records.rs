//! Wallet records, which hold the immutable data of wallets, and their cache.

use std::collections::HashMap;
use std::sync::Arc;

use super::{Wallets, sql};
use crate::error::{Error, Result};
use crate::ids::{UserId, WalletId};
use crate::ledger::account::AccountId;
use crate::ledger::currency::Currency;

/// The immutable data of a wallet.
#[derive(Debug)]
pub struct WalletRecord {
    pub currency: Currency,
    /// Label of the owner, which the client chose.
    pub owner: String,
    /// The user that the wallet belongs to, if any.
    pub user: Option<UserId>,
}

/// Converts the id of a wallet into the id of its ledger account. Both ids are the same number.
impl From<WalletId> for AccountId {
    fn from(id: WalletId) -> Self {
        Self(id.0)
    }
}

impl Wallets {
    /// Returns the record of a wallet, or a 404 error if the wallet does not exist.
    pub(crate) async fn record(&self, id: WalletId) -> Result<Arc<WalletRecord>> {
        match self.records.get(&id) {
            Some(record) => Ok(record),
            // Boxed: a cache miss is rare, and its future would enlarge the future of every request.
            None => Box::pin(self.load_record(id)).await,
        }
    }

    async fn load_record(&self, id: WalletId) -> Result<Arc<WalletRecord>> {
        let found = sql::find(&mut *self.db.acquire("wallet.find").await?, id).await?;
        let row = found.ok_or_else(|| Error::NotFound("wallet").of_wallet(id.0))?;
        let record = self.record_from(&row.currency, row.owner, row.app_user)?;
        self.records.insert(id, Arc::clone(&record));
        Ok(record)
    }

    /// Returns the records of these wallets. Omits wallets that do not exist.
    pub(crate) async fn find_records(
        &self,
        ids: impl Iterator<Item = WalletId>,
    ) -> Result<HashMap<WalletId, Arc<WalletRecord>>> {
        let mut records = HashMap::new();
        let mut missing = Vec::new();
        for id in ids {
            match self.records.get(&id) {
                Some(record) => drop(records.insert(id, record)),
                None => missing.push(id.0),
            }
        }
        if !missing.is_empty() {
            let mut db = self.db.acquire("wallet.find_many").await?;
            for row in sql::find_many(&mut db, &missing).await? {
                let record = self.record_from(&row.currency, row.owner, row.app_user)?;
                self.records.insert(row.id, Arc::clone(&record));
                records.insert(row.id, record);
            }
        }
        Ok(records)
    }

    pub(super) fn record_from(
        &self,
        code: &str,
        owner: String,
        user: Option<UserId>,
    ) -> Result<Arc<WalletRecord>> {
        let currency = self.currencies.find(code).ok_or_else(|| {
            Error::Internal(anyhow::anyhow!(
                "the currency {code} is no longer listed in --currency"
            ))
        })?;
        Ok(Arc::new(WalletRecord { currency, owner, user }))
    }
}
