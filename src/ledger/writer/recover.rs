//! Recovery after a broken connection: reconnects, and finds out whether the batches in flight were committed.
//!
//! The outcome of a batch in flight is unknown: the server process of the old connection may have committed it, may
//! have ended, or may not have begun. Therefore the same batch is resent, with the same id and the same predecessor. If
//! the database replies that the predecessor already has a successor, the id of this successor shows whether the first
//! attempt committed the batch. It is not enough to look for the batch without resending it: the first attempt could
//! still commit afterwards.

use std::mem;
use std::time::Duration;

use tokio_util::sync::CancellationToken;

use super::batch::Batch;
use super::failpoint::WriterStage;
use super::pipeline::{InFlightRequest, Pipeline};
use super::queue::PostError;
use super::steps::ErrorDetail;
use super::{Writer, WriterMode, WriterStop};

/// First backoff between two attempts to connect; it doubles with each attempt.
pub(super) const BACKOFF_MIN: Duration = Duration::from_millis(20);
/// Longest backoff between two attempts to connect.
pub(super) const BACKOFF_MAX: Duration = Duration::from_secs(1);

/// Longest time that an attempt to connect may take. The limit is needed because a suspended server accepts the
/// connection and never replies.
pub(super) const CONNECT_TIMEOUT: Duration = Duration::from_secs(10);

/// Maximum number of attempts to reach an unavailable database during shutdown, to learn the outcome of the last
/// batches.
pub(super) const SHUTDOWN_ATTEMPTS_MAX: u32 = 20;

impl Writer {
    /// Replaces the connection with a new connection, and resends the batches in flight. The batches in `first` were
    /// sent before the batches in the pipeline, so they are resent first.
    pub(super) async fn reconnect(
        &mut self,
        first: Vec<Batch>,
        token: &CancellationToken,
    ) -> Result<(), WriterStop> {
        let mut batches = first;
        let mut again = Vec::new();
        for request in self.pipeline.take_in_flight() {
            match request {
                InFlightRequest::Post(batch, _) => batches.push(batch),
                InFlightRequest::Lookup(lookup) => again.extend(lookup.into_items()),
                InFlightRequest::CatchUp { .. }
                | InFlightRequest::ReleaseLock
                | InFlightRequest::Notify
                | InFlightRequest::Discarded => {}
            }
        }
        self.put_back(again.into_iter());
        if self.mode != WriterMode::Free {
            self.mode = WriterMode::Behind;
        }
        self.old_backends.push(self.pipeline.backend);
        self.metrics.wallet_ledger_reconnects_total.increment(1);
        self.hit_failpoint(WriterStage::BeforeReconnect).await?;
        if let Err(stop) = self.open_pipeline(token).await {
            for item in batches.into_iter().flat_map(Batch::into_items) {
                self.finish(item, Err(PostError::Unknown));
            }
            return Err(stop);
        }
        self.hit_failpoint(WriterStage::BeforeResend).await?;
        if batches.is_empty() {
            // Other processes may have written to the book in the meantime, or another database server may have taken
            // over.
            self.mode = WriterMode::Behind;
        }
        for mut batch in batches {
            batch.resent = true;
            self.pipeline.send_batch(self.book, batch, false);
        }
        Ok(())
    }

    /// Tries to reconnect until an attempt succeeds; during shutdown, the number of attempts is limited. Meanwhile,
    /// unsent postings fail with a "ledger unavailable" error.
    async fn open_pipeline(&mut self, token: &CancellationToken) -> Result<(), WriterStop> {
        let mut backoff = BACKOFF_MIN;
        loop {
            // A batch whose outcome stays unknown makes the writer reconnect again and again.
            if token.is_cancelled() {
                self.connects_in_shutdown += 1;
                if self.connects_in_shutdown > SHUTDOWN_ATTEMPTS_MAX {
                    return Err(WriterStop::GaveUp);
                }
            }
            let opening =
                Pipeline::open(&self.database, &self.companions, self.book, &mut self.old_backends);
            match tokio::time::timeout(CONNECT_TIMEOUT, opening).await {
                Ok(Ok(pipeline)) => {
                    self.pipeline = pipeline;
                    tracing::info!(seq = self.head.seq, "the ledger's writer has reconnected");
                    return Ok(());
                }
                Ok(Err(error)) => {
                    tracing::warn!(
                        error.message = %ErrorDetail(&error),
                        "the ledger's writer cannot connect to the database; retrying in {backoff:?}"
                    );
                }
                Err(_) => tracing::warn!(
                    "the database did not accept a connection within {CONNECT_TIMEOUT:?}; retrying in {backoff:?}"
                ),
            }
            self.fail_unsent();
            tokio::time::sleep(backoff).await;
            backoff = (backoff * 2).min(BACKOFF_MAX);
        }
    }

    /// Rejects every unsent posting with a "ledger unavailable" error: these postings were not written, and cannot be
    /// written soon.
    fn fail_unsent(&mut self) {
        while let Ok(item) = self.queue.try_recv() {
            self.admit(item);
        }
        for item in mem::take(&mut self.intake) {
            self.finish(item, Err(PostError::Unavailable));
        }
    }
}
