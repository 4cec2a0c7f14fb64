//! Looking at wallets: one, many, as they were, and what happened to them.

use std::sync::Arc;

use time::OffsetDateTime;

use super::{Facts, WalletId, Wallets, sql};
use crate::error::{Error, Result};
use crate::ledger::account::AccountId;
use crate::ledger::money::Minor;
use crate::ledger::read::{self, Entry};

/// The book of all wallets.
const BOOK: i32 = 1;

/// A wallet and what is in it.
#[derive(Debug, Clone)]
pub struct Holdings {
    pub id: WalletId,
    pub facts: Arc<Facts>,
    pub available: Minor,
    pub held: Minor,
    /// The last transfer that the figures take into account, when a moment was asked for.
    pub as_of: Option<i64>,
}

impl Holdings {
    /// What the owner has, held or not.
    pub fn balance(&self) -> Result<Minor> {
        let sum = self.available.checked_add(self.held);
        sum.ok_or_else(|| Error::Internal(anyhow::anyhow!("wallet {} holds too much", self.id)))
    }
}

impl Wallets {
    /// One wallet, now or at a moment in the past.
    pub async fn get(&self, id: WalletId, moment: Option<OffsetDateTime>) -> Result<Holdings> {
        let facts = self.facts(id).await?;
        let mut db = self.db.acquire("wallet.get").await?;
        let as_of = match moment {
            None => None,
            Some(moment) if moment > OffsetDateTime::now_utc() => {
                return Err(Error::field("?at", "must not be in the future"));
            }
            Some(moment) => Some(read::seq_at(&mut db, BOOK, moment).await?),
        };
        let accounts = [Some(AccountId(id)), AccountId(id).hold()]
            .map(|account| account.unwrap_or(AccountId(id)));
        let balances = read::balances(&mut db, BOOK, &accounts, as_of.unwrap_or(read::END)).await?;
        let [available, held] = balances[..] else { return Err(super::nothing_posted()) };
        Ok(Holdings { id, facts, available, held, as_of })
    }

    /// Wallets with an id above `after`, in the order of their ids.
    pub async fn list(
        &self,
        owner: Option<&str>,
        currency: Option<&str>,
        after: WalletId,
        limit: i64,
    ) -> Result<Vec<Holdings>> {
        let mut db = self.db.acquire("wallet.list").await?;
        let rows = sql::list(&mut db, owner, currency, after, limit).await?;
        let accounts = rows.iter().map(|row| AccountId(row.id));
        let holds = accounts.clone().map(|account| account.hold().unwrap_or(account));
        let accounts: Vec<AccountId> = accounts.chain(holds).collect();
        let balances = read::balances(&mut db, BOOK, &accounts, read::END).await?;
        let (available, held) = balances.split_at(rows.len());
        let wallets =
            rows.into_iter().zip(available.iter().zip(held)).map(|(row, (available, held))| {
                let facts = self.facts_of(&row.currency, row.owner)?;
                Ok(Holdings { id: row.id, facts, available: *available, held: *held, as_of: None })
            });
        wallets.collect()
    }

    /// What happened to a wallet before `before`, newest first.
    pub async fn history(
        &self,
        id: WalletId,
        before: i64,
        limit: i64,
    ) -> Result<(Arc<Facts>, Vec<Entry>)> {
        let facts = self.facts(id).await?;
        let mut db = self.db.acquire("wallet.history").await?;
        let entries = read::history(&mut db, BOOK, AccountId(id), 0, before, limit).await?;
        Ok((facts, entries))
    }
}
