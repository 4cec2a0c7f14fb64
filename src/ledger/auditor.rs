//! The auditor: a background task that checks each new batch of the ledger, and reports the results in metrics.
//!
//! Each batch, beginning with the first, is checked once, by one of the processes. An inconsistency is logged as an
//! error and counted in a metric that an alert watches; the auditor does not stop transfers. Once a minute, the auditor
//! logs an anchor: the seq and hash of the last checked batch. With an anchor from archived logs, `revwallet verify`
//! proves that no batch up to the anchor was rewritten.

use std::sync::Arc;
use std::time::{Duration, Instant};

use sqlx::PgConnection;
use time::OffsetDateTime;

use super::tail::{
    NotifyChannel, Position, ReaderOptions, Segment, SegmentHandler, Source, Tail, Transfers,
};
use super::verify::{BookChecker, BookChunk, CheckKind};
use crate::error::Result;
use crate::tasks::Tasks;
use crate::telemetry::Metrics;

/// Interval at which the auditor logs the last checked batch while the ledger grows.
const ANCHOR_INTERVAL: Duration = Duration::from_mins(1);

const READER: ReaderOptions = ReaderOptions {
    name: "auditor",
    items_max: 1,
    // Reading large chunks after a pause costs less than reading after each batch.
    pause: Duration::from_millis(500),
    pause_steps: 0,
};

/// Starts the auditors, one for each book, which run until the program stops.
pub fn start(tail: &Tail, metrics: &Arc<Metrics>, tasks: &Tasks) {
    for check in CheckKind::ALL {
        for outcome in ["ok", "violated"] {
            metrics.wallet_ledger_invariant_checks_total.preregister([check.name(), outcome]);
        }
    }
    let auditor = |book| {
        let metrics = Arc::clone(metrics);
        Auditor { book, checker: None, anchor_logged_at: None, metrics }
    };
    tail.follow::<SealedChunks, _>(READER, auditor, tasks);
}

/// Source that reads the ledger in chunks of whole batches.
struct SealedChunks;

impl Source for SealedChunks {
    type Item = BookChunk;

    const CHANNEL: NotifyChannel = NotifyChannel::Book;

    async fn read(
        db: &mut PgConnection,
        book: i32,
        after: Position,
        _: i64,
    ) -> sqlx::Result<Segment<BookChunk>> {
        let items = Vec::from_iter(BookChunk::read(db, book, after.seq, i64::MAX).await?);
        let until = items.last().map_or(after, Self::position_of);
        let is_full = items.iter().any(|chunk| chunk.is_full);
        Ok(Segment { after, until, items, is_full })
    }

    async fn end(db: &mut PgConnection, book: i32) -> sqlx::Result<Position> {
        Transfers::end(db, book).await
    }

    async fn lag(db: &mut PgConnection, book: i32, position: Position) -> sqlx::Result<i64> {
        Transfers::lag(db, book, position).await
    }

    fn position_of(chunk: &BookChunk) -> Position {
        Position::after(chunk.end())
    }
}

struct Auditor {
    book: i32,
    /// The checker, which continues after the last checked batch. It is dropped when it is outdated because another
    /// process has checked later batches.
    checker: Option<BookChecker>,
    anchor_logged_at: Option<Instant>,
    metrics: Arc<Metrics>,
}

impl SegmentHandler<SealedChunks> for Auditor {
    async fn apply(&mut self, db: &mut PgConnection, segment: &Segment<BookChunk>) -> Result<()> {
        let after = segment.after.seq;
        let current = self.checker.take().filter(|checker| checker.checked_seq() == after);
        let mut checker = match current {
            Some(checker) => checker,
            None => BookChecker::resume(db, self.book, after).await?,
        };
        for chunk in &segment.items {
            checker.load_accounts(db, chunk).await?;
            checker.check_chunk(chunk);
            checker.check_copies(db, chunk).await?;
            self.report(&mut checker, chunk);
        }
        self.log_anchor(&checker);
        self.checker = Some(checker);
        Ok(())
    }
}

impl Auditor {
    /// Reports the results of checking a chunk of the ledger in metrics and in the log.
    fn report(&self, checker: &mut BookChecker, chunk: &BookChunk) {
        let faults = checker.take_faults();
        for check in [
            CheckKind::Gap,
            CheckKind::RunningBalance,
            CheckKind::Floor,
            CheckKind::Shape,
            CheckKind::Chain,
            CheckKind::Copies,
        ] {
            let checked =
                if check == CheckKind::Chain { chunk.seals.len() } else { chunk.transfers.len() };
            let violated = faults.iter().filter(|fault| fault.check == check).count();
            self.count(check, "ok", checked.saturating_sub(violated));
            self.count(check, "violated", violated);
        }
        for fault in &faults {
            tracing::error!(
                event = "ledger.violation",
                check = fault.check.name(),
                "the audit found a fault in the ledger: {fault}; stop payouts and run `revwallet verify`"
            );
        }
        for account in &chunk.accounts {
            self.metrics
                .wallet_ledger_imbalance_minor_units
                .with([&account.currency])
                .increment(0.0);
        }
        for (currency, imbalance) in checker.take_imbalances() {
            #[expect(
                clippy::cast_precision_loss,
                reason = "the alert only compares the value with 0"
            )]
            let imbalance = imbalance as f64;
            let gauge = self.metrics.wallet_ledger_imbalance_minor_units.with([&currency]);
            gauge.increment(imbalance);
        }
        let now = OffsetDateTime::now_utc().unix_timestamp();
        let now = crate::telemetry::gauge_value(now);
        let book = self.book.to_string();
        self.metrics.wallet_ledger_last_check_timestamp_seconds.with([&book]).set(now);
    }

    fn count(&self, check: CheckKind, outcome: &'static str, count: usize) {
        let count = u64::try_from(count).unwrap_or(u64::MAX);
        let checks = &self.metrics.wallet_ledger_invariant_checks_total;
        checks.with([check.name(), outcome]).increment(count);
    }

    fn log_anchor(&mut self, checker: &BookChecker) {
        if self.anchor_logged_at.is_none_or(|at| at.elapsed() >= ANCHOR_INTERVAL) {
            self.anchor_logged_at = Some(Instant::now());
            let head = checker.head();
            tracing::info!(event = "ledger.anchor", anchor = %head, "the auditor has checked the ledger up to anchor {head}");
        }
    }
}
