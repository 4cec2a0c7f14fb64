//! Looking at wallets: one, many, as they were, and what happened to them.

use std::sync::Arc;

use time::OffsetDateTime;

use super::access::Sight;
use super::{BOOK, Facts, WalletId, Wallets, sql};
use crate::error::{Error, Result};
use crate::ledger::account::AccountId;
use crate::ledger::account::State;
use crate::ledger::money::Minor;
use crate::ledger::read::{self, Entry, Span};

pub use super::sql::Wanted;

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

    /// Wallets that are seen from there, in the order of their ids.
    pub async fn list(&self, wanted: Wanted<'_>, sight: Sight) -> Result<Vec<Holdings>> {
        let mut db = self.db.acquire("wallet.list").await?;
        let seen = match sight {
            Sight::Everything => None,
            Sight::Of { user, of_nobody } => Some((user, of_nobody)),
        };
        let rows = match (wanted.owner, seen) {
            (Some(owner), _) => sql::list_of(&mut db, owner, seen, wanted).await?,
            (None, Some((user, of_nobody))) => {
                sql::list_seen(&mut db, user, of_nobody, wanted).await?
            }
            (None, None) => sql::list(&mut db, wanted).await?,
        };
        let accounts = rows.iter().map(|row| AccountId(row.id));
        let holds = accounts.clone().map(|account| account.hold().unwrap_or(account));
        let accounts: Vec<AccountId> = accounts.chain(holds).collect();
        let balances = read::balances(&mut db, BOOK, &accounts, read::END).await?;
        let (available, held) = balances.split_at(rows.len());
        let wallets =
            rows.into_iter().zip(available.iter().zip(held)).map(|(row, (available, held))| {
                let facts = self.facts_of(&row.currency, row.owner, row.app_user)?;
                Ok(Holdings { id: row.id, facts, available: *available, held: *held, as_of: None })
            });
        wallets.collect()
    }

    /// What else there is to know of a wallet.
    pub async fn detail(&self, id: WalletId) -> Result<Detail> {
        let mut db = self.db.acquire("wallet.detail").await?;
        let found = sql::detail(&mut db, id).await?.ok_or(Error::NotFound("wallet"))?;
        let state = read::state(&mut db, BOOK, AccountId(id)).await?;
        Ok(Detail {
            state,
            created_at: found.created_at,
            closed_at: found.closed_at,
            label: found.label,
            metadata: found.metadata,
        })
    }

    /// What happened to a wallet.
    pub async fn history(&self, id: WalletId, span: Span) -> Result<Vec<Entry>> {
        let mut db = self.db.acquire("wallet.history").await?;
        read::history(&mut db, BOOK, AccountId(id), span).await
    }

    /// The part of the book between two moments: the first seq of it and the first behind it.
    pub async fn between(
        &self,
        from: Option<OffsetDateTime>,
        to: Option<OffsetDateTime>,
    ) -> Result<(i64, i64)> {
        let mut db = self.db.acquire("wallet.between").await?;
        let from = match from {
            Some(from) => read::seq_before(&mut db, BOOK, from).await? + 1,
            None => 0,
        };
        let before = match to {
            Some(to) => read::seq_before(&mut db, BOOK, to).await? + 1,
            None => read::head(&mut db, BOOK).await?.0 + 1,
        };
        Ok((from, before))
    }

    /// What a wallet had after the transfer with this seq.
    pub async fn holdings_at(
        &self,
        id: WalletId,
        facts: &Arc<Facts>,
        seq: i64,
    ) -> Result<Holdings> {
        let mut db = self.db.acquire("wallet.holdings_at").await?;
        let account = AccountId(id);
        let accounts = [account, account.hold().unwrap_or(account)];
        let balances = read::balances(&mut db, BOOK, &accounts, seq).await?;
        let [available, held] = balances[..] else { return Err(super::nothing_posted()) };
        Ok(Holdings { id, facts: Arc::clone(facts), available, held, as_of: Some(seq) })
    }
}

/// What a detail view tells besides.
#[derive(Debug)]
pub struct Detail {
    pub state: State,
    pub created_at: OffsetDateTime,
    pub closed_at: Option<OffsetDateTime>,
    pub label: Option<String>,
    pub metadata: Option<String>,
}
