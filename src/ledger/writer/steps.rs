//! The writer's steps: admit postings, send batches, and process the outcome of a batch.

use std::mem;
use std::time::{Duration, Instant};

use time::OffsetDateTime;
use tokio_postgres::Error;
use tokio_util::sync::CancellationToken;

use super::batch::{Batch, Lookup, plan};
use super::failpoint::{InjectedFault, WriterStage};
use super::idempotency::{StoredKey, replay_reply};
use super::pipeline::{InFlightRequest, Replies, ReplyLayout};
use super::queue::{PostError, PostOutcome, PostReply, QueuedPosting};
use super::verdict::BatchVerdict;
use super::{Writer, WriterMode, WriterStop};
use crate::ledger::decide::Refusal;
use crate::ledger::metrics;
use crate::ledger::transfer::Posted;

/// Number of batches that a writer sends under the book's lock after another process has committed a batch first.
pub(super) const LOCKED_BATCHES: u32 = 16;

/// Delay before a batch is resent while an earlier attempt may still be in progress.
const UNSETTLED_DELAY: Duration = Duration::from_millis(200);

impl Writer {
    /// Adds a posting to the postings that are waiting for the next batch. If its idempotency key has a cached reply,
    /// the posting gets this reply instead. If another posting with this key is in progress, the new posting waits
    /// until that posting has its reply.
    pub(super) fn admit(&mut self, item: QueuedPosting) {
        // Until the writer has read the newest transfers of other processes, its cached keys may be outdated.
        let is_cache_current = matches!(self.mode, WriterMode::Free | WriterMode::HoldsLock);
        if let Some(key) = item.posting.key
            && is_cache_current
            && let Some(stored) = self.keys.find(key.hash)
        {
            return item.answer(replay_reply(key, stored));
        }
        if let Some(item) = self.keys.admit(item) {
            self.intake.push_back(item);
        }
    }

    /// Sends every request that can be sent now.
    pub(super) async fn send_all(&mut self, token: &CancellationToken) -> Result<(), WriterStop> {
        while self.pipeline.len() < self.settings.pipe_max {
            if self.mode == WriterMode::Behind && !self.fill_intake() {
                return Ok(());
            }
            match self.mode {
                WriterMode::CatchingUp => return Ok(()),
                WriterMode::Behind => {
                    let lock = self.locked_batches_left > 0;
                    self.pipeline.send_catch_up(
                        self.book,
                        self.head.seq,
                        self.settings.catch_up_max,
                        lock,
                    );
                    self.mode = WriterMode::CatchingUp;
                    return Ok(());
                }
                WriterMode::Free | WriterMode::HoldsLock => {}
            }
            if !self.fill_intake() {
                if self.mode == WriterMode::HoldsLock && self.pipeline.len() == 0 {
                    self.pipeline.release_lock();
                    self.mode = WriterMode::Free;
                }
                return Ok(());
            }
            if self.is_gathering() {
                return Ok(());
            }
            if self.mode == WriterMode::Free && self.locked_batches_left > 0 {
                if self.pipeline.len() > 0 {
                    return Ok(());
                }
                self.mode = WriterMode::Behind;
                continue;
            }
            self.send_batch(token).await?;
        }
        Ok(())
    }

    /// Takes postings for one batch from the queue without waiting. Returns whether any posting is waiting to be
    /// accepted or refused.
    fn fill_intake(&mut self) -> bool {
        while self.intake.len() < self.settings.batch_legs_max {
            match self.queue.try_recv() {
                Ok(item) => self.admit(item),
                Err(_) => break,
            }
        }
        !self.intake.is_empty()
    }

    /// Accepts or refuses the waiting postings. Sends the batch of accepted postings, and a query for the accounts and
    /// idempotency keys that are still unknown.
    async fn send_batch(&mut self, token: &CancellationToken) -> Result<(), WriterStop> {
        let legs_max = self.settings.batch_legs_max;
        let planned = plan(
            &mut self.intake,
            &mut self.cache,
            &mut self.decision,
            &self.rules,
            self.tail,
            legs_max,
        );
        let holds_lock = self.mode == WriterMode::HoldsLock;
        if let Some(mut batch) = planned.batch {
            batch.seal(self.book);
            batch.open_span();
            self.tail = batch.head();
            let is_cut = self.hit_failpoint(WriterStage::BeforeSend).await?;
            self.pipeline.send_batch(self.book, batch, holds_lock);
            if holds_lock {
                self.mode = WriterMode::Free;
                self.locked_batches_left = self.locked_batches_left.saturating_sub(1);
            }
            if is_cut || self.hit_failpoint(WriterStage::AfterSend).await? {
                // The lookup is planned again and sent over the new connection.
                self.put_back(planned.lookup.into_items());
                return self.reconnect(Vec::new(), token).await;
            }
        } else if holds_lock && planned.lookup.waiting.is_empty() {
            self.pipeline.release_lock();
            self.mode = WriterMode::Free;
        }
        if !planned.lookup.is_empty() {
            self.pipeline.send_lookup(self.book, planned.lookup);
        }
        Ok(())
    }

    /// Applies the fault that a test injects at this stage. Returns whether to cut the connection.
    pub(super) async fn hit_failpoint(&mut self, stage: WriterStage) -> Result<bool, WriterStop> {
        match self.failpoints.hit(stage).await {
            None => Ok(false),
            Some(InjectedFault::CutConnection) => Ok(true),
            Some(InjectedFault::KillWriter) => Err(WriterStop::Killed),
        }
    }

    /// Puts postings back at the front of the postings that are waiting for the next batch, in their original order.
    pub(super) fn put_back(&mut self, items: impl Iterator<Item = QueuedPosting>) {
        let items: Vec<QueuedPosting> = items.collect();
        for item in items.into_iter().rev() {
            self.intake.push_front(item);
        }
    }

    /// Processes the replies to the oldest request in flight.
    pub(super) async fn finish_request(
        &mut self,
        request: InFlightRequest,
        replies: Replies,
        token: &CancellationToken,
    ) -> Result<(), WriterStop> {
        match request {
            InFlightRequest::Post(batch, layout) => {
                if self.hit_failpoint(WriterStage::AfterReply).await? {
                    return self.reconnect(vec![batch], token).await;
                }
                self.finish_batch(batch, &layout, replies, token).await?;
            }
            InFlightRequest::Lookup(lookup) => self.finish_lookup(lookup, replies),
            InFlightRequest::CatchUp { after, lock } => {
                self.finish_catch_up(after, lock, replies);
            }
            InFlightRequest::ReleaseLock | InFlightRequest::Notify | InFlightRequest::Discarded => {
            }
        }
        Ok(())
    }

    async fn finish_batch(
        &mut self,
        batch: Batch,
        layout: &ReplyLayout,
        replies: Replies,
        token: &CancellationToken,
    ) -> Result<(), WriterStop> {
        let verdict = BatchVerdict::from_replies(&batch, layout, replies);
        let is_unsettled = match verdict {
            BatchVerdict::Sealed(_) | BatchVerdict::Stale => false,
            BatchVerdict::Unsettled(_) => true,
            _ => batch.resent && !self.old_backends.is_empty(),
        };
        let outcome = if is_unsettled { "unsettled" } else { verdict.name() };
        self.metrics.wallet_ledger_batches_total.with([outcome]).increment(1);
        batch.span.record("outcome", outcome);
        if is_unsettled {
            // An earlier attempt may still commit, so no posting may be reported as not written.
            tracing::warn!(
                outcome = verdict.name(),
                error.message = verdict.error().map(|error| ErrorDetail(error).to_string()),
                "could not write a batch of postings, but an earlier attempt may still succeed; the ledger's writer is sending the batch again"
            );
            tokio::time::sleep(UNSETTLED_DELAY).await;
            return self.reconnect(vec![batch], token).await;
        }
        if let BatchVerdict::Sealed(at) = verdict {
            if self.hit_failpoint(WriterStage::BeforeAnswer).await? {
                return self.reconnect(vec![batch], token).await;
            }
            self.confirm(batch, at);
            return Ok(());
        }
        self.roll_back(batch, verdict);
        Ok(())
    }

    /// Marks a batch as committed in the writer's state, and sends the replies to its postings.
    fn confirm(&mut self, mut batch: Batch, at: OffsetDateTime) {
        let written = Instant::now();
        self.head = batch.head();
        metrics::record_sealed_batch(&self.metrics, batch.rows.len(), self.book, self.head.seq);
        if self.locked_batches_left > 0 {
            self.metrics.wallet_ledger_head_races_total.with(["won"]).increment(1);
        }
        for undo in mem::take(&mut batch.undo) {
            self.cache.confirm(undo);
        }
        let accepted = mem::take(&mut batch.accepted);
        for mut accepted in accepted {
            let posted = batch.posted(&mut accepted, at);
            self.finish(accepted.item, Ok(PostOutcome::Posted(posted)));
        }
        for (item, refusal) in batch.refused {
            self.finish(item, Err(refusal.into()));
        }
        batch.timer.finish(&self.metrics, written);
    }

    /// Rolls back the in-memory effects of a batch that was not committed, and of the later batches in flight, which
    /// are based on it. `verdict` says why the batch failed. Replies to the postings whose outcome is now certain; the
    /// writer decides on the others again.
    fn roll_back(&mut self, mut batch: Batch, verdict: BatchVerdict) {
        let later_requests = self.pipeline.discard_in_flight();
        let mut again = Vec::new();
        let mut undos = mem::take(&mut batch.undo);
        for request in later_requests {
            match request {
                InFlightRequest::Post(mut later, _) => {
                    undos.append(&mut later.undo);
                    again.extend(later.into_items());
                }
                InFlightRequest::Lookup(lookup) => again.extend(lookup.into_items()),
                InFlightRequest::CatchUp { .. }
                | InFlightRequest::ReleaseLock
                | InFlightRequest::Notify
                | InFlightRequest::Discarded => {}
            }
        }
        for undo in undos.into_iter().rev() {
            self.cache.roll_back(undo);
        }
        self.tail = self.head;
        self.put_back(again.into_iter());
        self.settle(batch, verdict);
    }

    /// Handles the postings of a failed batch; `verdict` says why it failed. Replies to the postings whose outcome is
    /// now certain; the writer decides on the others again.
    fn settle(&mut self, batch: Batch, verdict: BatchVerdict) {
        match verdict {
            BatchVerdict::Sealed(_) => unreachable!("a sealed batch is confirmed"),
            BatchVerdict::Unsettled(_) => unreachable!("an unsettled batch is resent"),
            BatchVerdict::Stale => {
                self.metrics.wallet_ledger_head_races_total.with(["lost"]).increment(1);
                self.put_back(batch.into_items());
                self.locked_batches_left = LOCKED_BATCHES;
                self.mode = WriterMode::Behind;
            }
            BatchVerdict::KeyTaken => {
                let (suspects, others): (Vec<_>, Vec<_>) =
                    batch.into_items().partition(|item| item.posting.key.is_some());
                self.put_back(others.into_iter());
                let lookup = Lookup { suspects, ..Lookup::default() };
                self.pipeline.send_lookup(self.book, lookup);
            }
            BatchVerdict::CompanionsRefused(refused) => self.settle_companions(batch, &refused),
            BatchVerdict::Unavailable(error) => {
                tracing::warn!(
                    error.message = %ErrorDetail(&error),
                    "the database cannot write a batch of postings now; the clients that sent them get an error and may retry"
                );
                for item in batch.into_items() {
                    self.finish(item, Err(PostError::Unavailable));
                }
            }
            BatchVerdict::Faulty(error) => {
                let mut items: Vec<_> = batch.into_items().collect();
                if items.len() == 1 {
                    tracing::error!(
                        error.message = %ErrorDetail(&error),
                        "the database rejected a posting because of a bug in this program; the client gets an internal error"
                    );
                    return self.finish(items.remove(0), Err(PostError::Internal));
                }
                tracing::warn!(
                    error.message = %ErrorDetail(&error),
                    "the database rejected a batch of postings; the ledger's writer will send each posting alone to find the faulty posting"
                );
                self.put_back(items.into_iter().map(QueuedPosting::into_alone));
            }
        }
    }

    /// Refuses the postings whose companions (rows of other modules) did not take effect. The writer decides on the
    /// other postings again.
    fn settle_companions(&mut self, batch: Batch, refused: &[(usize, &'static str)]) {
        let mut lookup = Lookup::default();
        let mut again = Vec::new();
        for (index, item) in batch.into_items().enumerate() {
            match refused.iter().find(|(refused, _)| *refused == index) {
                None => again.push(item),
                // An earlier attempt may have written the posting. The companion then conflicts with the row that this
                // attempt wrote.
                Some((_, refusal)) if item.posting.key.is_some() => {
                    lookup.refused.push((item, Refusal::Companion(refusal)));
                }
                Some((_, refusal)) => self.finish(item, Err(Refusal::Companion(refusal).into())),
            }
        }
        self.put_back(again.into_iter());
        if !lookup.is_empty() {
            self.pipeline.send_lookup(self.book, lookup);
        }
    }

    /// Replies to a posting, and to the postings with the same idempotency key that waited for the outcome.
    pub(super) fn finish(&mut self, item: QueuedPosting, reply: PostReply) {
        let Some(key) = item.posting.key else { return item.answer(reply) };
        let reply = item.certain(reply);
        if let Ok(PostOutcome::Posted(Posted { first_seq, last_seq, .. })) = reply {
            self.keys.remember(key.hash, StoredKey { content: key.content, first_seq, last_seq });
        }
        for waiting in self.keys.end(key) {
            let is_same = waiting.posting.key.is_some_and(|other| key.has_content(other.content));
            match (&reply, is_same) {
                (Ok(PostOutcome::Posted(posted)), true) => {
                    let posted = Posted { replayed: true, ..posted.clone() };
                    waiting.answer(Ok(PostOutcome::Posted(posted)));
                }
                (_, true) => waiting.answer(reply.clone()),
                (Ok(_), false) => waiting.answer(Err(Refusal::KeyReused.into())),
                // A different request with the same key, which has been neither accepted nor refused yet.
                (Err(_), false) => self.admit(waiting),
            }
        }
        item.answer(reply);
    }
}

/// Displays an error. For a database error, shows its code and message, because the driver's own text only says that a
/// database error occurred.
pub(super) struct ErrorDetail<'a>(pub(super) &'a Error);

impl std::fmt::Display for ErrorDetail<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self.0.as_db_error() {
            Some(db) => write!(f, "{} {}", db.code().code(), db.message()),
            None => write!(f, "{}", self.0),
        }
    }
}
