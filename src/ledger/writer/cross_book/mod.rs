//! Postings to several books: one transaction writes a batch to each book.
//!
//! The transaction locks the books in ascending order, after their batches in progress have ended. Then it reads the
//! accounts and idempotency keys of the postings, and writes a batch to each book. The writer of each book then finds
//! an unknown batch in its book, and reads the new transfers, as it does after a batch of another process. A refusal is
//! final, because it is based on committed data and on postings of the same transaction, and because the idempotency
//! keys of refused postings are looked up again.
//!
//! If the connection breaks before the commit is sent, nothing is written, and the postings are retried. If it breaks
//! later, the batch that follows the former head of a book shows whether the transaction was committed.

mod connection;
mod failure;
mod plan;

use std::collections::{BTreeMap, HashMap, HashSet};
use std::sync::Arc;

use time::OffsetDateTime;
use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;
use uuid::Uuid;

use self::connection::{CompanionRows, CrossBookConnection, Failure, LockedBooks};
use self::plan::{CrossBookPlan, PlannedPosting, accounts_by_book};
use super::failpoint::{Failpoints, InjectedFault, WriterStage};
use super::idempotency::{StoredKey, replay_reply};
use super::pipeline::companion_rows;
use super::queue::{Admission, PostOutcome, QueuedPosting};
use super::{Settings, WriterStop, columns::PostColumns};
use crate::db::Pipelined;
use crate::ledger::LedgerOptions;
use crate::ledger::book::Placement;
use crate::ledger::companion::CompanionKind;
use crate::ledger::decide::{Decision, Refusal, Rules};
use crate::ledger::metrics;
use crate::telemetry::Metrics;

pub(super) use self::plan::BookPart;

/// The task that writes the postings that touch several books.
pub(in crate::ledger) struct CrossBookWriter {
    database: Pipelined,
    settings: Settings,
    rules: Rules,
    companions: Vec<&'static CompanionKind>,
    failpoints: Failpoints,
    queue: mpsc::Receiver<QueuedPosting>,
    connection: CrossBookConnection,
    decision: Decision,
    metrics: Arc<Metrics>,
    admission: Admission,
}

/// The postings of a transaction: accepted, refused, or postponed to the next transaction.
#[derive(Default)]
struct Postings {
    accepted: Vec<(QueuedPosting, PlannedPosting)>,
    refused: Vec<(QueuedPosting, Refusal)>,
    /// Postings that have to wait for the next transaction, because another posting of this transaction has the same
    /// idempotency key.
    next: Vec<QueuedPosting>,
}

impl Postings {
    /// Replies to the postings of a committed transaction. Returns the postings that have to wait for the next
    /// transaction.
    fn answer(self, plan: &CrossBookPlan, sealed_at: &[OffsetDateTime]) -> Vec<QueuedPosting> {
        for (item, planned) in self.accepted {
            item.answer(Ok(PostOutcome::Posted(planned.posted(plan, sealed_at))));
        }
        for (item, refusal) in self.refused {
            item.answer(Err(refusal.into()));
        }
        self.next
    }

    fn refused_keys(&self) -> Vec<Uuid> {
        let keys = self.refused.iter().filter_map(|(item, _)| item.posting.key);
        keys.map(|key| key.hash).collect()
    }

    /// Replies to the refused postings that an earlier request with the same idempotency key has written.
    fn replay(&mut self, stored: &HashMap<Uuid, StoredKey>) {
        for (item, refusal) in std::mem::take(&mut self.refused) {
            let stored = item.posting.key.and_then(|key| Some((key, stored.get(&key.hash)?)));
            match stored {
                Some((key, stored)) => item.answer(replay_reply(key, *stored)),
                None => self.refused.push((item, refusal)),
            }
        }
    }

    /// All postings, in the order in which they are retried.
    fn into_items(self) -> Vec<QueuedPosting> {
        let accepted = self.accepted.into_iter().map(|(item, _)| item);
        let refused = self.refused.into_iter().map(|(item, _)| item);
        accepted.chain(refused).chain(self.next).collect()
    }
}

impl CrossBookWriter {
    pub(in crate::ledger) async fn connect(
        options: LedgerOptions,
        queue: mpsc::Receiver<QueuedPosting>,
        admission: Admission,
    ) -> Result<Self, tokio_postgres::Error> {
        let LedgerOptions { database, settings, rules, companions, failpoints, metrics, .. } =
            options;
        let connection =
            CrossBookConnection::open(&database, &companions, settings.reply_max, None).await?;
        Ok(Self {
            database,
            settings,
            rules,
            companions,
            failpoints,
            queue,
            connection,
            decision: Decision::default(),
            metrics,
            admission,
        })
    }

    /// Writes postings until the token is canceled and every queued posting has its reply.
    pub(in crate::ledger) async fn run(mut self, token: CancellationToken) {
        let mut arrived = Vec::new();
        loop {
            tokio::select! {
                () = token.cancelled(), if !self.queue.is_closed() => self.queue.close(),
                count = self.queue.recv_many(&mut arrived, self.settings.batch_legs_max) => {
                    if count == 0 {
                        return;
                    }
                    let mut items = std::mem::take(&mut arrived);
                    while !items.is_empty() {
                        self.admission.set_oldest(items.iter().map(|item| item.queued).min());
                        let later = self.split_off(&mut items);
                        let again = match self.write(items, &token).await {
                            Ok(again) => again,
                            Err(WriterStop::Killed) => return,
                            Err(WriterStop::GaveUp) => {
                                tracing::error!(
                                    "the ledger is stopping without knowing whether its last postings to several books were committed; clients that retry with the same idempotency key will learn the outcome"
                                );
                                return;
                            }
                        };
                        items = again.into_iter().chain(later).collect();
                    }
                    self.admission.set_oldest(None);
                }
            }
        }
    }

    /// Removes from `items` the postings that do not fit into the next transaction, and returns these postings. A
    /// posting that may be faulty, because the database rejected a transaction that contained it, gets a transaction of
    /// its own.
    fn split_off(&self, items: &mut Vec<QueuedPosting>) -> Vec<QueuedPosting> {
        let mut legs = 0;
        let fits = items.iter().enumerate().take_while(|(n, item)| {
            legs += item.posting.legs.len();
            *n == 0 || (legs <= self.settings.batch_legs_max && !item.alone)
        });
        let count = if items[0].alone { 1 } else { fits.count() };
        items.split_off(count)
    }

    /// Tries to write these postings in one transaction. Returns the postings to retry.
    async fn write(
        &mut self,
        items: Vec<QueuedPosting>,
        token: &CancellationToken,
    ) -> Result<Vec<QueuedPosting>, WriterStop> {
        let locked = match self.lock(&items).await {
            Ok(locked) => locked,
            Err(failure) => return self.settle_failure(items, failure, token).await,
        };
        let mut postings = Postings::default();
        let mut plan = self.plan(items, locked, &mut postings);
        if self.hit(WriterStage::BooksLocked).await? {
            return self.reconnect(postings.into_items(), token).await;
        }
        if !postings.refused.is_empty() {
            let books = plan.parts.iter().map(|part| part.book).collect();
            match self.connection.late_keys(books, postings.refused_keys()).await {
                Ok(Some(keys)) => postings.replay(&keys),
                Ok(None) => return self.retry(postings, token).await,
                Err(failure) => {
                    return self.settle_failure(postings.into_items(), failure, token).await;
                }
            }
        }
        if postings.accepted.is_empty() {
            if let Err(failure) = self.connection.roll_back().await {
                return self.settle_failure(postings.into_items(), failure, token).await;
            }
            return Ok(postings.answer(&plan, &[]));
        }
        let sealed_at = match self.post(&mut plan, &postings).await {
            Ok(sealed_at) => sealed_at,
            Err(failure) => {
                return self.settle_failure(postings.into_items(), failure, token).await;
            }
        };
        if self.hit(WriterStage::BooksPosted).await? {
            return self.reconnect(postings.into_items(), token).await;
        }
        let mut committed = self.connection.commit().await;
        if self.hit(WriterStage::BooksCommitted).await? {
            committed = Err(Failure::Lost);
        }
        match committed {
            Ok(()) => {
                self.record(&plan);
                Ok(postings.answer(&plan, &sealed_at))
            }
            Err(Failure::Lost) => self.settle_unknown(plan, postings, sealed_at, token).await,
            // The database has rolled back.
            Err(failure) => self.settle_failure(postings.into_items(), failure, token).await,
        }
    }

    /// Rolls the transaction back, and returns its postings for a retry.
    async fn retry(
        &mut self,
        postings: Postings,
        token: &CancellationToken,
    ) -> Result<Vec<QueuedPosting>, WriterStop> {
        match self.connection.roll_back().await {
            Ok(()) => Ok(postings.into_items()),
            Err(failure) => self.settle_failure(postings.into_items(), failure, token).await,
        }
    }

    async fn lock(&mut self, items: &[QueuedPosting]) -> Result<LockedBooks, Failure> {
        let mut accounts: BTreeMap<i32, Vec<i64>> = BTreeMap::new();
        for item in items {
            let (home, books) = match self.place(item) {
                Placement::One(book) => (book, vec![book]),
                Placement::Several { home, books } => (home, books),
            };
            for (book, account) in accounts_by_book(&item.posting, home, &books) {
                accounts.entry(book).or_default().push(account.0);
            }
        }
        let mut accounts: Vec<(i32, Vec<i64>)> = accounts.into_iter().collect();
        for (_, accounts) in &mut accounts {
            accounts.sort_unstable();
            accounts.dedup();
        }
        let keys = items.iter().filter_map(|item| item.posting.key).map(|key| key.hash).collect();
        self.connection.lock(&accounts, keys).await
    }

    fn place(&self, item: &QueuedPosting) -> Placement {
        Placement::new(&item.posting, self.settings.books)
    }

    /// Replies to the postings whose idempotency key was used before, and accepts or refuses the others in order of
    /// arrival.
    fn plan(
        &mut self,
        items: Vec<QueuedPosting>,
        locked: LockedBooks,
        postings: &mut Postings,
    ) -> CrossBookPlan {
        let keys = locked.keys.clone();
        let mut plan = CrossBookPlan::new(locked);
        let mut planned_keys = HashSet::new();
        for item in items {
            if let Some(key) = item.posting.key {
                if let Some(stored) = keys.get(&key.hash) {
                    item.answer(replay_reply(key, *stored));
                    continue;
                }
                if !planned_keys.insert(key.hash) {
                    postings.next.push(item);
                    continue;
                }
            }
            let placement = self.place(&item);
            match plan.add(&item.posting, &placement, &self.rules, &mut self.decision) {
                Ok(planned) => postings.accepted.push((item, planned)),
                Err(refusal) => postings.refused.push((item, refusal)),
            }
        }
        plan
    }

    async fn post(
        &mut self,
        plan: &mut CrossBookPlan,
        postings: &Postings,
    ) -> Result<Vec<OffsetDateTime>, Failure> {
        plan.parts.retain(|part| !part.rows.is_empty());
        for part in &mut plan.parts {
            part.seal();
        }
        let parts: Vec<PostColumns> = plan.parts.iter().map(PostColumns::from_part).collect();
        let companions = self.companions.iter().filter_map(|kind| {
            let postings = postings.accepted.iter();
            let postings = postings.map(|(item, planned)| (&item.posting, planned.first_seq()));
            let (count, rows) = companion_rows(postings, kind)?;
            Some((*kind, count, rows))
        });
        let companions: Vec<CompanionRows> = companions.collect();
        self.connection.post(&parts, companions).await
    }

    fn record(&self, plan: &CrossBookPlan) {
        for part in &plan.parts {
            self.metrics.wallet_ledger_batches_total.with(["sealed"]).increment(1);
            metrics::record_sealed_batch(
                &self.metrics,
                part.rows.len(),
                part.book,
                part.last_seq(),
            );
        }
    }

    /// Applies the fault that a test injects at this stage. Returns whether to cut the connection.
    async fn hit(&mut self, stage: WriterStage) -> Result<bool, WriterStop> {
        match self.failpoints.hit(stage).await {
            None => Ok(false),
            Some(InjectedFault::CutConnection) => Ok(true),
            Some(InjectedFault::KillWriter) => Err(WriterStop::Killed),
        }
    }
}
