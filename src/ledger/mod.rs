//! The ledger: an append-only book of transfers, written by group commit. It knows accounts, amounts and a few rules.
//!
//! Nothing is ever updated: each transfer carries both balances after it, so the last transfer that touched an account
//! tells its balance, and any earlier one tells what it was then.
//!
//! Start reading at [`transfer`] (what goes in and comes out) and [`decide`] (the rules); then [`writer`], which turns
//! what many callers post into batches, each of them one commit that stands on the one before.
//!
//! What a caller can rely on: an answer is given after the commit; a refusal is certain; the same key with the same
//! content is answered the same; whatever is killed, each acknowledged posting is in the book once.

#![deny(clippy::float_arithmetic)]

mod args;
pub mod currency;
pub mod money;

pub mod account;
pub mod transfer;

pub mod decide;

pub mod companion;
mod encode;

pub mod read;
pub mod verify;

pub mod auditor;
pub mod tail;

mod connect;
mod metrics;
mod sql;
mod trace;
mod writer;

use std::sync::Arc;

use sqlx::PgPool;
use tokio::sync::mpsc;
use tracing::Span;

use crate::db::Pipelined;
use crate::tasks::Tasks;
use crate::telemetry::Metrics;

use self::account::AccountId;
use self::companion::CompanionKind;
use self::decide::Rules;
use self::metrics::{PostingTimer, to_gauge};
use self::transfer::{Posted, Posting};
use self::writer::{Admission, Outcome, QueuedPosting, Writer};
use crate::idempotency::HashedKey;

pub use self::args::LedgerArgs;
pub use self::connect::{StartError, Unsafe};
pub use self::decide::Refusal;
pub use self::writer::{Failpoints, Fault, PostError, Settings, Stage};

/// What the ledger needs to start.
#[derive(Clone)]
pub struct LedgerOptions {
    /// For the writer's own connection.
    pub database: Pipelined,
    /// For reads.
    pub pool: PgPool,
    pub settings: Settings,
    pub rules: Rules,
    /// Every statement that may move with the money.
    pub companions: Vec<&'static CompanionKind>,
    pub failpoints: Failpoints,
    pub metrics: Arc<Metrics>,
}

/// A book. Cheap to clone.
#[derive(Clone)]
pub struct Ledger {
    queue: mpsc::Sender<QueuedPosting>,
    gauge: Admission,
    pool: PgPool,
    book: i32,
    metrics: Arc<Metrics>,
}

impl Ledger {
    /// Connects and starts the writer, which ends when the token is cancelled and the queue is answered.
    pub async fn start(options: LedgerOptions, tasks: &Tasks) -> Result<Self, StartError> {
        let (settings, metrics) = (&options.settings, Arc::clone(&options.metrics));
        metrics.wallet_ledger_queue_capacity.set(to_gauge(settings.queue_legs_max));
        metrics::preregister(&metrics);
        let (queue, items) = mpsc::channel(settings.queue_max);
        let gauge = Admission::new(settings.queue_legs_max);
        let (book, pool) = (settings.book, options.pool.clone());
        let writer = Writer::connect(options, items, gauge.clone()).await?;
        let stopping = tasks.stopping().clone();
        tasks.spawn("ledger-writer", async move {
            writer.run(stopping).await;
            Ok(())
        });
        Ok(Self { queue, gauge, pool, book, metrics })
    }

    /// Writes a posting, and answers when it is durable. The posting goes ahead even if nobody waits for the answer.
    pub async fn post(&self, posting: Posting) -> Result<Posted, PostError> {
        let (measured, span) = (PostingTimer::begin(&posting), trace::of_posting(&posting));
        let answer = self.post_unmeasured(posting, span).await;
        measured.end(&self.metrics, &answer);
        answer
    }

    async fn post_unmeasured(&self, posting: Posting, span: Span) -> Result<Posted, PostError> {
        let key = posting.key;
        let (item, answer) = self.gauge.admit(posting, span.clone())?;
        self.queue.try_send(item).map_err(|error| match error {
            mpsc::error::TrySendError::Full(_) => PostError::Overloaded,
            mpsc::error::TrySendError::Closed(_) => PostError::Unavailable,
        })?;
        match answer.await {
            Ok(Ok(Outcome::Posted(posted))) => Ok(posted),
            Ok(Ok(Outcome::Replay { first_seq, last_seq })) => {
                self.replay(key, first_seq, last_seq).await
            }
            Ok(Err(error)) => Err(error),
            Err(_) => Err(PostError::Unknown),
        }
    }

    /// The posting that was written under this key, as it was answered then.
    pub async fn find(&self, key: HashedKey) -> Result<Option<Posted>, PostError> {
        let read = async {
            let mut db = self.pool.acquire().await?;
            sql::keyed(&mut db, self.book, key.hash).await
        };
        match read.await {
            Ok(None) => Ok(None),
            Ok(Some((content, ..))) if content != key.content => Err(Refusal::KeyReused.into()),
            Ok(Some((_, first_seq, last_seq))) => {
                self.replay(Some(key), first_seq, last_seq).await.map(Some)
            }
            Err(error) => {
                tracing::warn!(error = %error, "a key cannot be looked up");
                Err(PostError::Unavailable)
            }
        }
    }

    /// Notes in the metrics how much waits to be written.
    pub fn sample(&self) {
        self.metrics.wallet_ledger_queue_depth.set(to_gauge(self.gauge.legs()));
        self.metrics.wallet_ledger_oldest_queued_seconds.set(self.gauge.oldest().as_secs_f64());
    }

    /// The first answer again, as long as the book has it.
    async fn replay(
        &self,
        key: Option<HashedKey>,
        first_seq: i64,
        last_seq: i64,
    ) -> Result<Posted, PostError> {
        let Some(key) = key else { return Err(PostError::Internal) };
        let read = async {
            let mut db = self.pool.acquire().await?;
            let Some(mut posted) =
                sql::posted(&mut db, self.book, key.hash, first_seq, last_seq).await?
            else {
                return Ok(None);
            };
            let touched = posted.rows.iter().flat_map(|row| [row.debit, row.credit]);
            let owners = touched.filter_map(|id| id.held_for().or(id.hold().and(Some(id))));
            let owners: Vec<AccountId> = owners.collect();
            let holds: Vec<AccountId> = owners.iter().filter_map(|id| id.hold()).collect();
            let held = read::balances(&mut db, self.book, &holds, last_seq).await?;
            posted.held = owners.into_iter().zip(held).filter(|(_, held)| held.0 > 0).collect();
            Ok(Some(posted))
        };
        let read: crate::error::Result<Option<Posted>> = read.await;
        match read {
            Ok(Some(posted)) => Ok(posted),
            Ok(None) => {
                // The writer forgets it as well when it meets the server that has lost it.
                tracing::warn!(first_seq, last_seq, "what a key stands for is not in the book");
                Err(PostError::Unavailable)
            }
            Err(error) => {
                tracing::warn!(error = %error, "a replay cannot be read");
                Err(PostError::Unavailable)
            }
        }
    }
}
