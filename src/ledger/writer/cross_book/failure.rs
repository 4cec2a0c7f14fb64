//! Recovery from a failed transaction on several books: reconnects, and either replies to the postings or retries them.

use time::OffsetDateTime;
use tokio_util::sync::CancellationToken;
use uuid::Uuid;

use super::connection::{CrossBookConnection, Failure};
use super::plan::CrossBookPlan;
use super::{CrossBookWriter, Postings};
use crate::ledger::decide::Refusal;
use crate::ledger::writer::WriterStop;
use crate::ledger::writer::batch::BookHead;
use crate::ledger::writer::queue::{PostError, QueuedPosting};
use crate::ledger::writer::recover::{
    BACKOFF_MAX, BACKOFF_MIN, CONNECT_TIMEOUT, SHUTDOWN_ATTEMPTS_MAX,
};
use crate::ledger::writer::steps::ErrorDetail;
use crate::ledger::writer::verdict::BatchVerdict;

impl CrossBookWriter {
    /// Handles the failure of a transaction that was not committed. Returns the postings to retry.
    pub(super) async fn settle_failure(
        &mut self,
        items: Vec<QueuedPosting>,
        failure: Failure,
        token: &CancellationToken,
    ) -> Result<Vec<QueuedPosting>, WriterStop> {
        let (error, kind) = match failure {
            Failure::Lost => return self.reconnect(items, token).await,
            Failure::Refused(error) => (error, None),
            Failure::Companions(kind, error) => (error, Some(kind)),
        };
        if self.connection.roll_back().await.is_err() {
            return self.reconnect(items, token).await;
        }
        let postings: Vec<_> = items.iter().map(|item| &item.posting).collect();
        let verdict = BatchVerdict::from_error(error, kind, &postings);
        self.metrics.wallet_ledger_batches_total.with([verdict.name()]).increment(1);
        Ok(settle(items, verdict))
    }

    /// Finds out whether a transaction was committed, after its commit got no reply. Returns the postings to retry.
    pub(super) async fn settle_unknown(
        &mut self,
        plan: CrossBookPlan,
        postings: Postings,
        sealed_at: Vec<OffsetDateTime>,
        token: &CancellationToken,
    ) -> Result<Vec<QueuedPosting>, WriterStop> {
        let part = plan.parts.first().expect("a transaction seals at least one book");
        let (book, prev, id) = (part.book, part.prev, part.id);
        let (mut backoff, mut attempts_in_shutdown) = (BACKOFF_MIN, 0);
        loop {
            match self.batch_after(book, prev).await {
                Some(batch) if batch == Some(id) => {
                    self.record(&plan);
                    return Ok(postings.answer(&plan, &sealed_at));
                }
                Some(_) => return Ok(postings.into_items()),
                None => self.fail_queued(),
            }
            attempts_in_shutdown += u32::from(token.is_cancelled());
            if attempts_in_shutdown >= SHUTDOWN_ATTEMPTS_MAX {
                for item in postings.into_items() {
                    item.answer(Err(PostError::Unknown));
                }
                return Err(WriterStop::GaveUp);
            }
            tokio::time::sleep(backoff).await;
            backoff = (backoff * 2).min(BACKOFF_MAX);
        }
    }

    /// Reconnects, and finds the batch that follows `head`, the newest batch of the book before the transaction.
    /// Returns `Some(None)` if no batch follows, and `None` if the lookup fails. A successful lookup is final, because
    /// it first waits until the old transaction has ended and released its lock.
    async fn batch_after(&mut self, book: i32, head: BookHead) -> Option<Option<Uuid>> {
        if !self.try_open().await {
            return None;
        }
        match self.connection.seal_after(book, head).await {
            Ok(batch) => Some(batch),
            Err(Failure::Refused(error) | Failure::Companions(_, error)) => {
                tracing::warn!(
                    error.message = %ErrorDetail(&error),
                    "the ledger's writer could not find out whether its last commit to several books succeeded; it will check again"
                );
                None
            }
            Err(Failure::Lost) => None,
        }
    }

    /// Reconnects after the connection broke before the commit was sent; no posting was written. Returns the postings
    /// to retry. If the first attempt to reconnect fails, returns no postings: all of them fail with a "ledger
    /// unavailable" error.
    pub(super) async fn reconnect(
        &mut self,
        items: Vec<QueuedPosting>,
        token: &CancellationToken,
    ) -> Result<Vec<QueuedPosting>, WriterStop> {
        let mut unanswered = items;
        let mut backoff = BACKOFF_MIN;
        while !self.try_open().await {
            fail(std::mem::take(&mut unanswered));
            self.fail_queued();
            if token.run_until_cancelled(tokio::time::sleep(backoff)).await.is_none() {
                break;
            }
            backoff = (backoff * 2).min(BACKOFF_MAX);
        }
        Ok(unanswered)
    }

    /// Rejects the queued postings with a "ledger unavailable" error, because they cannot be written soon.
    fn fail_queued(&mut self) {
        while let Ok(item) = self.queue.try_recv() {
            fail(vec![item]);
        }
    }

    /// Opens a new connection. Returns whether that succeeded.
    async fn try_open(&mut self) -> bool {
        self.metrics.wallet_ledger_reconnects_total.increment(1);
        let previous = Some(self.connection.backend);
        let reply_max = self.settings.reply_max;
        let opening =
            CrossBookConnection::open(&self.database, &self.companions, reply_max, previous);
        let failed = match tokio::time::timeout(CONNECT_TIMEOUT, opening).await {
            Ok(Ok(connection)) => {
                self.connection = connection;
                return true;
            }
            Ok(Err(error)) => ErrorDetail(&error).to_string(),
            Err(_) => format!("no reply within {CONNECT_TIMEOUT:?}"),
        };
        tracing::warn!(
            error.message = failed,
            "the ledger's writer for postings to several books cannot connect to the database; retrying"
        );
        false
    }
}

/// Rejects unwritten postings with a "ledger unavailable" error.
fn fail(items: Vec<QueuedPosting>) {
    for item in items {
        item.answer(Err(PostError::Unavailable));
    }
}

/// Handles the postings of a failed transaction; `verdict` says why it failed. Replies to the postings whose outcome is
/// now certain, and returns the others for a retry.
fn settle(mut items: Vec<QueuedPosting>, verdict: BatchVerdict) -> Vec<QueuedPosting> {
    match verdict {
        // The next transaction reads the head, or the key, under its lock.
        BatchVerdict::Sealed(_)
        | BatchVerdict::Stale
        | BatchVerdict::KeyTaken
        | BatchVerdict::Unsettled(_) => items,
        BatchVerdict::CompanionsRefused(refused) => {
            let mut again = Vec::new();
            for (index, item) in items.into_iter().enumerate() {
                match refused.iter().find(|(refused, _)| *refused == index) {
                    Some((_, refusal)) => {
                        item.answer(Err(Refusal::Companion(refusal).into()));
                    }
                    None => again.push(item),
                }
            }
            again
        }
        BatchVerdict::Unavailable(error) => {
            tracing::warn!(
                error.message = %ErrorDetail(&error),
                "the database cannot write postings to several books now; the clients that sent them get an error and may retry"
            );
            fail(items);
            Vec::new()
        }
        BatchVerdict::Faulty(error) => {
            tracing::error!(
                error.message = %ErrorDetail(&error),
                "the database rejected a batch of postings to several books because of a bug in this program; each posting will be retried alone, and the client of a posting that is rejected again will get an internal error"
            );
            if items.len() == 1 {
                items.remove(0).answer(Err(PostError::Internal));
            }
            items.into_iter().map(QueuedPosting::into_alone).collect()
        }
    }
}
