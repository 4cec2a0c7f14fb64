//! Histories and statements of wallets.

use std::sync::Arc;

use sqlx::PgConnection;
use time::OffsetDateTime;

use super::read::{WalletBalance, balance_at};
use super::{WalletRecord, Wallets};
use crate::auth::Caller;
use crate::error::Result;
use crate::ids::WalletId;
use crate::ledger::read::{self, HistoryEntry, HistoryPage, HistoryRange};

/// Query for a page of a wallet's history, newest first.
#[derive(Debug, Clone, Copy)]
pub struct HistoryQuery {
    /// Start of the history, inclusive.
    pub from: Option<OffsetDateTime>,
    /// End of the history, exclusive.
    pub to: Option<OffsetDateTime>,
    /// Sequence number of the last entry of the previous page. The requested page contains only older entries.
    pub before_seq: Option<i64>,
    pub limit: i64,
}

impl Wallets {
    /// Returns a page of a wallet's history, and the wallet's record.
    pub async fn history(
        &self,
        caller: &Caller,
        id: WalletId,
        query: HistoryQuery,
    ) -> Result<(Arc<WalletRecord>, HistoryPage)> {
        let record = self.visible_record(caller, id).await?;
        let mut db = self.db.snapshot("wallet.history").await?;
        let (from, before) = match (query.from, query.to) {
            (None, None) => (0, read::END),
            (from, to) => seqs_between(&mut db, id, from, to).await?,
        };
        let before = query.before_seq.map_or(before, |last| last.min(before));
        let range = HistoryRange { from, before, oldest_first: false, limit: query.limit };
        Ok((record, read::history(&mut db, id.into(), range).await?))
    }

    /// Returns the statement of a wallet for a period. The entries are read later, page by page.
    pub async fn statement(
        &self,
        caller: &Caller,
        id: WalletId,
        from: Option<OffsetDateTime>,
        to: Option<OffsetDateTime>,
    ) -> Result<Statement> {
        let record = self.visible_record(caller, id).await?;
        let to = match to {
            Some(to) => Some(to.min(self.settled_until(id).await?)),
            None => None,
        };
        let mut db = self.db.fresh_snapshot("wallet.statement").await?;
        let (from, before) = seqs_between(&mut db, id, from, to).await?;
        let opening = balance_at(&mut db, id, Arc::clone(&record), from - 1).await?;
        let closing = balance_at(&mut db, id, Arc::clone(&record), before.max(from) - 1).await?;
        drop(db);
        let range = HistoryRange { from, before, oldest_first: true, limit: read::PAGE_MAX };
        let wallets = self.clone();
        let until = to;
        Ok(Statement { id, record, opening, closing, until, range, wallets, is_complete: false })
    }
}

/// A statement that is read page by page, oldest entry first, so that its length does not affect memory use.
pub struct Statement {
    pub id: WalletId,
    pub record: Arc<WalletRecord>,
    pub opening: WalletBalance,
    pub closing: WalletBalance,
    /// End of the statement, if the caller specified one. The statement ends earlier than requested if the ledger may
    /// still commit transfers that are dated before the requested end.
    pub until: Option<OffsetDateTime>,
    range: HistoryRange,
    wallets: Wallets,
    is_complete: bool,
}

impl Statement {
    /// Returns the next entries, or `None` when the statement is complete.
    pub async fn next_page(&mut self) -> Result<Option<Vec<HistoryEntry>>> {
        if self.is_complete {
            return Ok(None);
        }
        let mut db = self.wallets.db.acquire("wallet.history").await?;
        let HistoryPage { entries, archived_before } =
            read::history(&mut db, self.id.into(), self.range).await?;
        if archived_before.is_some() {
            // Entries were archived after the statement began. If they belong to it, the balances would not add up
            // without them.
            read::require_history(&mut db, self.id.into(), self.range.from).await?;
        }
        match entries.last() {
            Some(last) if i64::try_from(entries.len()) == Ok(self.range.limit) => {
                self.range.from = last.seq + 1;
            }
            _ => self.is_complete = true,
        }
        Ok(Some(entries))
    }
}

/// Returns the range of sequence numbers of a period, in the wallet's part (book) of the ledger: the first number in
/// the range, and the first number after the range.
async fn seqs_between(
    db: &mut PgConnection,
    id: WalletId,
    from: Option<OffsetDateTime>,
    to: Option<OffsetDateTime>,
) -> Result<(i64, i64)> {
    let from = match from {
        Some(from) => read::seq_before(db, id.into(), from).await? + 1,
        None => 0,
    };
    let before = match to {
        Some(to) => read::seq_before(db, id.into(), to).await? + 1,
        None => read::head_for(db, id.into()).await? + 1,
    };
    Ok((from, before))
}
