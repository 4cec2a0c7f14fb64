//! The auditor: a reader of the book that checks each new seal as it passes, and says in metrics what it found.
//!
//! It is a durable reader, so over all processes each seal is checked once, from the first on. What it finds is an
//! error in the log and a count that an alert watches; the money is not stopped. Once a minute it logs the head, so
//! every archive of logs holds anchors for `revwallet verify`.

use std::sync::Arc;
use std::time::{Duration, Instant};

use sqlx::PgConnection;
use time::OffsetDateTime;

use super::tail::{Channel, Effect, Position, Reader, Segment, Source, Start, Tail};
use super::verify::{Check, Checker, Chunk};
use crate::error::Result;
use crate::tasks::Tasks;
use crate::telemetry::Metrics;

/// How often the head is logged while the book grows.
const ANCHOR_INTERVAL: Duration = Duration::from_mins(1);

const READER: Reader = Reader {
    name: "auditor",
    start: Start::Beginning,
    items_max: 1,
    // Reading in larger stretches costs less than reading each batch behind its notification.
    pause: Duration::from_millis(500),
};

/// Audits a book until the tasks stop.
pub fn start(tail: &Tail, book: i32, metrics: &Arc<Metrics>, tasks: &Tasks) {
    for check in Check::ALL {
        for outcome in ["ok", "violated"] {
            metrics.wallet_ledger_invariant_checks_total.preregister([check.name(), outcome]);
        }
    }
    let metrics = Arc::clone(metrics);
    let auditor = Auditor { book, checker: None, anchored: None, metrics };
    tail.follow::<Seals>(READER, auditor, tasks);
}

/// The book a stretch of seals at a time.
struct Seals;

impl Source for Seals {
    type Item = Chunk;

    const CHANNEL: Channel = Channel::Book;

    async fn read(
        db: &mut PgConnection,
        book: i32,
        after: Position,
        _: i64,
    ) -> sqlx::Result<Segment<Chunk>> {
        let items = Vec::from_iter(Chunk::read(db, book, after.seq, i64::MAX).await?);
        let until = items.last().map_or(after, Self::position_of);
        Ok(Segment { after, until, items })
    }

    async fn end(db: &mut PgConnection, book: i32) -> sqlx::Result<Position> {
        super::tail::Transfers::end(db, book).await
    }

    async fn behind(db: &mut PgConnection, book: i32, position: Position) -> sqlx::Result<i64> {
        super::tail::Transfers::behind(db, book, position).await
    }

    fn position_of(chunk: &Chunk) -> Position {
        Position::behind(chunk.end())
    }

    fn is_full(chunks: &[Chunk], _: i64) -> bool {
        chunks.iter().any(|chunk| chunk.is_full)
    }
}

struct Auditor {
    book: i32,
    /// What it knows after the seals so far; gone when another process went on meanwhile.
    checker: Option<Checker>,
    /// When the head was logged.
    anchored: Option<Instant>,
    metrics: Arc<Metrics>,
}

impl Effect<Seals> for Auditor {
    async fn apply(&mut self, db: &mut PgConnection, stretch: &Segment<Chunk>) -> Result<()> {
        let known = self.checker.take().filter(|known| known.reached() == stretch.after.seq);
        let mut checker = match known {
            Some(known) => known,
            None => Checker::resume(db, self.book, stretch.after.seq).await?,
        };
        for chunk in &stretch.items {
            checker.prepare(db, chunk).await?;
            checker.chunk(chunk);
            self.tell(&mut checker, chunk);
        }
        self.anchor(&checker);
        self.checker = Some(checker);
        Ok(())
    }
}

impl Auditor {
    fn tell(&self, checker: &mut Checker, chunk: &Chunk) {
        let faults = checker.take_faults();
        for check in [Check::Gap, Check::RunningBalance, Check::Floor, Check::Shape, Check::Chain] {
            let held =
                if check == Check::Chain { chunk.seals.len() } else { chunk.transfers.len() };
            let violated = faults.iter().filter(|fault| fault.check == check).count();
            self.count(check, "ok", held.saturating_sub(violated));
            self.count(check, "violated", violated);
        }
        for fault in &faults {
            tracing::error!(
                event = "ledger.violation",
                check = fault.check.name(),
                "the book is not as it must be: {fault}; stop paying out and run `revwallet verify`"
            );
        }
        for account in &chunk.accounts {
            self.metrics
                .wallet_ledger_imbalance_minor_units
                .with([&account.currency])
                .increment(0.0);
        }
        for (currency, off) in checker.take_imbalances() {
            #[expect(
                clippy::cast_precision_loss,
                reason = "for an alert, which asks whether it is 0"
            )]
            let off = off as f64;
            self.metrics.wallet_ledger_imbalance_minor_units.with([&currency]).increment(off);
        }
        let now = OffsetDateTime::now_utc().unix_timestamp();
        let now = crate::telemetry::gauge_value(now);
        self.metrics.wallet_ledger_last_check_timestamp_seconds.set(now);
    }

    fn count(&self, check: Check, outcome: &'static str, count: usize) {
        let count = u64::try_from(count).unwrap_or(u64::MAX);
        let checks = &self.metrics.wallet_ledger_invariant_checks_total;
        checks.with([check.name(), outcome]).increment(count);
    }

    fn anchor(&mut self, checker: &Checker) {
        if self.anchored.is_none_or(|at| at.elapsed() >= ANCHOR_INTERVAL) {
            self.anchored = Some(Instant::now());
            let head = checker.head();
            tracing::info!(event = "ledger.anchor", anchor = %head, "audited up to {head}");
        }
    }
}
