//! The writer's steps: admit, send, and what becomes of a batch.

use std::mem;
use std::time::{Duration, Instant};

use time::OffsetDateTime;
use tokio_postgres::Error;
use tokio_util::sync::CancellationToken;
use uuid::Uuid;

use super::batch::{Batch, Lookup, plan};
use super::failpoint::{Fault, Stage};
use super::idempotency::StoredKey;
use super::pipeline::{Layout, Replies, Work};
use super::queue::{Answer, Outcome, PostError, QueuedPosting};
use super::verdict::{Verdict, judge};
use super::{Mode, Stop, Writer};
use crate::ledger::decide::Refusal;
use crate::ledger::metrics;
use crate::ledger::transfer::Posted;

/// After a lost race, this many batches are sent under the book's lock.
pub(super) const TURNS_LOCKED: u32 = 16;

/// Pause before a batch is sent again whose earlier attempt may still be under way.
const UNSETTLED_PAUSE: Duration = Duration::from_millis(200);

impl Writer {
    /// Takes an item in, unless its key answers it at once or is being worked on.
    pub(super) fn admit(&mut self, item: QueuedPosting) {
        // Behind, what the keys stand for may be lost: the book is asked first.
        let is_sure = matches!(self.mode, Mode::Free | Mode::Holding);
        if let Some(key) = item.posting.key
            && is_sure
            && let Some(known) = self.keys.find(key.hash)
        {
            return item.answer(replay(key.content, known));
        }
        if let Some(item) = self.keys.admit(item) {
            self.intake.push_back(item);
        }
    }

    /// Sends whatever can be sent now.
    pub(super) async fn send_more(&mut self, token: &CancellationToken) -> Result<(), Stop> {
        while self.link.len() < self.settings.pipe_max {
            if self.mode == Mode::Behind && !self.has_work() {
                return Ok(());
            }
            match self.mode {
                Mode::CatchingUp => return Ok(()),
                Mode::Behind => {
                    let lock = self.turns_locked > 0;
                    self.link.catch_up(
                        self.settings.book,
                        self.head.seq,
                        self.settings.catch_up_max,
                        lock,
                    );
                    self.mode = Mode::CatchingUp;
                    return Ok(());
                }
                Mode::Free | Mode::Holding => {}
            }
            if !self.has_work() {
                if self.mode == Mode::Holding && self.link.len() == 0 {
                    self.link.release();
                    self.mode = Mode::Free;
                }
                return Ok(());
            }
            if self.gathers() {
                return Ok(());
            }
            if self.mode == Mode::Free && self.turns_locked > 0 {
                if self.link.len() > 0 {
                    return Ok(());
                }
                self.mode = Mode::Behind;
                continue;
            }
            self.send_batch(token).await?;
        }
        Ok(())
    }

    /// Fills the intake for one batch without waiting, and tells whether anything is in it.
    fn has_work(&mut self) -> bool {
        while self.intake.len() < self.settings.batch_legs_max {
            match self.queue.try_recv() {
                Ok(item) => self.admit(item),
                Err(_) => break,
            }
        }
        !self.intake.is_empty()
    }

    /// Decides on the intake and sends what comes of it.
    async fn send_batch(&mut self, token: &CancellationToken) -> Result<(), Stop> {
        let legs_max = self.settings.batch_legs_max;
        let planned = plan(
            &mut self.intake,
            &mut self.cache,
            &mut self.decision,
            &self.rules,
            self.tail,
            legs_max,
        );
        let holding = self.mode == Mode::Holding;
        if let Some(mut batch) = planned.batch {
            batch.seal(self.settings.book);
            batch.trace();
            self.tail = batch.head();
            let cut = self.fail(Stage::BeforeSend).await?;
            self.link.post(self.settings.book, batch, holding);
            if holding {
                self.mode = Mode::Free;
                self.turns_locked = self.turns_locked.saturating_sub(1);
            }
            if cut || self.fail(Stage::AfterSend).await? {
                // Whatever waits for an answer of the batch is asked on the new connection.
                self.put_back(planned.ask.into_items());
                return self.reconnect(Vec::new(), token).await;
            }
        } else if holding && planned.ask.waiting.is_empty() {
            self.link.release();
            self.mode = Mode::Free;
        }
        if !planned.ask.is_empty() {
            self.link.send_ask(self.settings.book, planned.ask);
        }
        Ok(())
    }

    /// What a test wants to happen here: whether the connection is to be cut.
    pub(super) async fn fail(&mut self, stage: Stage) -> Result<bool, Stop> {
        match self.failpoints.hit(stage).await {
            None => Ok(false),
            Some(Fault::Cut) => Ok(true),
            Some(Fault::Die) => Err(Stop::Killed),
        }
    }

    /// Puts items back to where they came from, in their order.
    pub(super) fn put_back(&mut self, items: impl Iterator<Item = QueuedPosting>) {
        let items: Vec<QueuedPosting> = items.collect();
        for item in items.into_iter().rev() {
            self.intake.push_front(item);
        }
    }

    /// Acts on the answer to the oldest work in flight.
    pub(super) async fn finish_work(
        &mut self,
        work: Work,
        replies: Replies,
        token: &CancellationToken,
    ) -> Result<(), Stop> {
        match work {
            Work::Post(batch, layout) => {
                if self.fail(Stage::AfterReply).await? {
                    return self.reconnect(vec![batch], token).await;
                }
                self.finish_batch(batch, &layout, replies, token).await?;
            }
            Work::Lookup(ask) => self.finish_ask(ask, replies),
            Work::CatchUp { after, lock } => self.finish_catch_up(after, lock, replies),
            Work::Release | Work::Notify | Work::Doomed => {}
        }
        Ok(())
    }

    async fn finish_batch(
        &mut self,
        batch: Batch,
        layout: &Layout,
        replies: Replies,
        token: &CancellationToken,
    ) -> Result<(), Stop> {
        let verdict = judge(&batch, layout, replies);
        self.metrics.wallet_ledger_batches_total.with([verdict.name()]).increment(1);
        batch.span.record("outcome", verdict.name());
        let settled = matches!(verdict, Verdict::Sealed(_) | Verdict::Stale);
        if batch.resent && !settled && !self.alone_on_server {
            // An earlier attempt may still be on its way: nobody may be told that nothing was written.
            tracing::warn!("a batch failed while an earlier attempt may be under way: {verdict:?}");
            tokio::time::sleep(UNSETTLED_PAUSE).await;
            return self.reconnect(vec![batch], token).await;
        }
        if let Verdict::Sealed(at) = verdict {
            if self.fail(Stage::BeforeAnswer).await? {
                return self.reconnect(vec![batch], token).await;
            }
            self.confirm(batch, at);
            return Ok(());
        }
        self.take_back(batch, verdict);
        Ok(())
    }

    /// A batch is in the book.
    fn confirm(&mut self, mut batch: Batch, at: OffsetDateTime) {
        let written = Instant::now();
        self.head = batch.head();
        metrics::sealed(&self.metrics, batch.rows.len(), self.head.seq);
        if self.turns_locked > 0 {
            self.metrics.wallet_ledger_head_races_total.with(["won"]).increment(1);
        }
        for undo in mem::take(&mut batch.undo) {
            self.cache.confirm(undo);
        }
        let accepted = mem::take(&mut batch.accepted);
        for mut accepted in accepted {
            let posted = batch.posted(&mut accepted, at);
            self.finish(accepted.item, Ok(Outcome::Posted(posted)));
        }
        for (item, refusal) in batch.refused {
            self.finish(item, Err(refusal.into()));
        }
        batch.stages.end(&self.metrics, written);
    }

    /// A batch is not in the book: neither are those behind it. Everything in them is decided again,
    /// but for what the verdict settles.
    fn take_back(&mut self, mut batch: Batch, verdict: Verdict) {
        let behind = self.link.doom();
        let mut again = Vec::new();
        let mut undos = mem::take(&mut batch.undo);
        for work in behind {
            match work {
                Work::Post(mut later, _) => {
                    undos.append(&mut later.undo);
                    again.extend(later.into_items());
                }
                Work::Lookup(ask) => again.extend(ask.into_items()),
                Work::CatchUp { .. } | Work::Release | Work::Notify | Work::Doomed => {}
            }
        }
        for undo in undos.into_iter().rev() {
            self.cache.take_back(undo);
        }
        self.tail = self.head;
        self.put_back(again.into_iter());
        self.settle(batch, verdict);
    }

    /// What a failed batch's own items are told, if anything.
    fn settle(&mut self, batch: Batch, verdict: Verdict) {
        match verdict {
            Verdict::Sealed(_) => unreachable!("a sealed batch is confirmed"),
            Verdict::Stale => {
                self.metrics.wallet_ledger_head_races_total.with(["lost"]).increment(1);
                self.put_back(batch.into_items());
                self.turns_locked = TURNS_LOCKED;
                self.mode = Mode::Behind;
            }
            Verdict::KeyTaken => {
                let (keyed, others): (Vec<_>, Vec<_>) =
                    batch.into_items().partition(|item| item.posting.key.is_some());
                self.put_back(others.into_iter());
                self.link
                    .send_ask(self.settings.book, Lookup { suspects: keyed, ..Lookup::default() });
            }
            Verdict::Missed(missed) => self.settle_missed(batch, &missed),
            Verdict::Unavailable(error) => {
                tracing::warn!(error = %Detail(&error), "the database does not take a batch");
                for item in batch.into_items() {
                    self.finish(item, Err(PostError::Unavailable));
                }
            }
            Verdict::Faulty(error) => {
                let mut items: Vec<_> = batch.into_items().collect();
                if items.len() == 1 {
                    tracing::error!(error = %Detail(&error), "the database refuses a posting");
                    return self.finish(items.remove(0), Err(PostError::Internal));
                }
                tracing::warn!(error = %Detail(&error), "the database refuses a batch; its postings are sent one by one");
                self.put_back(items.into_iter().map(QueuedPosting::sent_alone));
            }
        }
    }

    /// Takes the postings out whose companions did not take effect.
    fn settle_missed(&mut self, batch: Batch, missed: &[(usize, &'static str)]) {
        let mut ask = Lookup::default();
        let mut again = Vec::new();
        for (place, item) in batch.into_items().enumerate() {
            match missed.iter().find(|(missed, _)| *missed == place) {
                None => again.push(item),
                // The first attempt may have succeeded: then its own rows are in the way.
                Some((_, refusal)) if item.posting.key.is_some() => {
                    ask.refused.push((item, Refusal::Companion(refusal)));
                }
                Some((_, refusal)) => self.finish(item, Err(Refusal::Companion(refusal).into())),
            }
        }
        self.put_back(again.into_iter());
        if !ask.is_empty() {
            self.link.send_ask(self.settings.book, ask);
        }
    }

    /// Answers an item, and those that waited for the same key.
    pub(super) fn finish(&mut self, item: QueuedPosting, answer: Answer) {
        let Some(key) = item.posting.key else { return item.answer(answer) };
        if let Ok(Outcome::Posted(Posted { first_seq, last_seq, .. })) = answer {
            self.keys.remember(key.hash, StoredKey { content: key.content, first_seq, last_seq });
        }
        for waiting in self.keys.end(key) {
            let same = waiting.posting.key.is_some_and(|other| other.content == key.content);
            match (&answer, same) {
                (Ok(Outcome::Posted(posted)), true) => {
                    waiting
                        .answer(Ok(Outcome::Posted(Posted { replayed: true, ..posted.clone() })));
                }
                (_, true) => waiting.answer(answer.clone()),
                (Ok(_), false) => waiting.answer(Err(Refusal::KeyReused.into())),
                // Another request: it was never decided on.
                (Err(_), false) => self.admit(waiting),
            }
        }
        item.answer(answer);
    }
}

/// What a key that is in the book answers to a request.
pub(super) fn replay(content: Uuid, known: StoredKey) -> Answer {
    if content == known.content {
        Ok(Outcome::Replay { first_seq: known.first_seq, last_seq: known.last_seq })
    } else {
        Err(Refusal::KeyReused.into())
    }
}

/// An error with its cause: the driver's own text says only that there was one.
pub(super) struct Detail<'a>(pub(super) &'a Error);

impl std::fmt::Display for Detail<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self.0.as_db_error() {
            Some(db) => write!(f, "{} {}", db.code().code(), db.message()),
            None => write!(f, "{}", self.0),
        }
    }
}
