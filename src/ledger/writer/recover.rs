//! After a broken connection: connect anew, and settle what was in flight.
//!
//! The fate of a batch in flight is open: the old backend may be done with it, dead, or yet to begin.
//! So the same batch is sent again, with the same id and at the same head. If it is told "stale", the seal at that
//! head says who won. Merely looking whether the batch is there would not do: the first attempt could land afterwards.

use std::mem;
use std::time::Duration;

use tokio_util::sync::CancellationToken;

use super::batch::Batch;
use super::failpoint::Stage;
use super::pipeline::{Pipeline, Work};
use super::queue::PostError;
use super::steps::Detail;
use super::{Mode, Stop, Writer};

/// First and longest pause between two attempts to connect.
const PAUSE_MIN: Duration = Duration::from_millis(20);
const PAUSE_MAX: Duration = Duration::from_secs(1);

/// Longest that one attempt may take: a server that is stopped takes the connection and says nothing.
const OPEN_MAX: Duration = Duration::from_secs(10);

/// When the program ends and the database is away, so often is tried to learn what became of the last batches.
const ATTEMPTS_AT_END_MAX: u32 = 20;

impl Writer {
    /// Gives the connection up and settles what was in flight over a new one. `first` came before all in the pipe.
    pub(super) async fn reconnect(
        &mut self,
        first: Vec<Batch>,
        token: &CancellationToken,
    ) -> Result<(), Stop> {
        let mut batches = first;
        let mut again = Vec::new();
        for work in self.link.take_works() {
            match work {
                Work::Post(batch, _) => batches.push(batch),
                Work::Lookup(ask) => again.extend(ask.into_items()),
                Work::CatchUp { .. } | Work::Release | Work::Notify | Work::Doomed => {}
            }
        }
        self.put_back(again.into_iter());
        if self.mode != Mode::Free {
            self.mode = Mode::Behind;
        }
        self.metrics.wallet_ledger_reconnects_total.increment(1);
        self.fail(Stage::BeforeReconnect).await?;
        if let Err(stop) = self.open_link(token).await {
            for item in batches.into_iter().flat_map(Batch::into_items) {
                self.finish(item, Err(PostError::Unknown));
            }
            return Err(stop);
        }
        self.fail(Stage::BeforeResend).await?;
        if batches.is_empty() {
            // Nothing to settle, but others may have written meanwhile, or the server may be another one.
            self.mode = Mode::Behind;
        }
        for mut batch in batches {
            batch.resent = true;
            self.link.post(self.settings.book, batch, false);
        }
        Ok(())
    }

    /// Connects, however long it takes. Who waits without being in flight is told so meanwhile.
    async fn open_link(&mut self, token: &CancellationToken) -> Result<(), Stop> {
        let mut pause = PAUSE_MIN;
        let mut attempts_at_end = 0;
        loop {
            let opening = Pipeline::open(&self.database, &self.companions, Some(self.link.backend));
            match tokio::time::timeout(OPEN_MAX, opening).await {
                Ok(Ok((link, gone))) => {
                    self.link = link;
                    self.alone_on_server = gone;
                    tracing::info!(seq = self.head.seq, "the ledger's writer is connected again");
                    return Ok(());
                }
                Ok(Err(error)) => {
                    tracing::warn!(error = %Detail(&error), "the ledger's writer cannot connect");
                }
                Err(_) => tracing::warn!(
                    "the database takes longer than {OPEN_MAX:?} to take a connection"
                ),
            }
            if token.is_cancelled() {
                attempts_at_end += 1;
                if attempts_at_end >= ATTEMPTS_AT_END_MAX {
                    return Err(Stop::GaveUp);
                }
            }
            self.turn_away();
            tokio::time::sleep(pause).await;
            pause = (pause * 2).min(PAUSE_MAX);
        }
    }

    /// Answers everybody whose posting was not sent: it is not written, and will not be soon.
    fn turn_away(&mut self) {
        while let Ok(item) = self.queue.try_recv() {
            self.admit(item);
        }
        for item in mem::take(&mut self.intake) {
            self.finish(item, Err(PostError::Unavailable));
        }
    }
}
