//! What the ledger tells about itself.

use std::time::Instant;

use super::PostError;
use super::transfer::{Posted, Posting, TransferKind};
use crate::telemetry::{Metrics, gauge_value};

/// One posting on its way.
pub(super) struct PostingTimer {
    since: Instant,
    kind: TransferKind,
    keyed: bool,
}

impl PostingTimer {
    pub(super) fn begin(posting: &Posting) -> Self {
        // A posting is named after its last leg that moves money, or after its first.
        let kinds = posting.legs.iter().map(|leg| leg.action.kind());
        let kind = kinds.clone().rfind(|kind| kind.moves_money() && *kind != TransferKind::Fee);
        let kind = kind.or_else(|| kinds.clone().next()).unwrap_or(TransferKind::Transfer);
        Self { since: Instant::now(), kind, keyed: posting.key.is_some() }
    }

    pub(super) fn end(self, metrics: &Metrics, answer: &Result<Posted, PostError>) {
        let (outcome, key) = match answer {
            Ok(Posted { replayed: true, .. }) => ("replayed", Some("replayed")),
            Ok(_) => {
                let seconds = self.since.elapsed().as_secs_f64();
                metrics.wallet_ledger_commit_duration_seconds.record(seconds);
                ("committed", Some("new"))
            }
            Err(PostError::Refused(refusal)) => {
                metrics.wallet_ledger_rejections_total.with([refusal.reason()]).increment(1);
                let conflict = refusal.reason() == "duplicate";
                ("rejected", conflict.then_some("conflict"))
            }
            Err(_) => ("error", None),
        };
        metrics.wallet_ledger_transfers_total.with([self.kind.name(), outcome]).increment(1);
        if let Some(key) = key.filter(|_| self.keyed) {
            metrics.wallet_idempotency_total.with([key]).increment(1);
        }
    }
}

/// When a batch passed its stages.
#[derive(Debug, Clone, Copy)]
pub(super) struct Stages {
    /// When the oldest of its postings was queued.
    queued: Instant,
    taken: Instant,
    sent: Instant,
}

impl Stages {
    pub(super) fn begin(queued: Option<Instant>) -> Self {
        let taken = Instant::now();
        Self { queued: queued.unwrap_or(taken), taken, sent: taken }
    }

    /// It is decided and goes out.
    pub(super) fn decided(&mut self) {
        self.sent = Instant::now();
    }

    /// It is in the book since `written`, and everybody has an answer.
    pub(super) fn end(self, metrics: &Metrics, written: Instant) {
        let stages = [
            ("queue", self.taken - self.queued),
            ("validate", self.sent - self.taken),
            ("write", written - self.sent),
            ("ack", written.elapsed()),
        ];
        for (stage, time) in stages {
            metrics.wallet_ledger_stage_duration_seconds.with([stage]).record(time.as_secs_f64());
        }
    }
}

/// A batch is in the book.
pub(super) fn sealed(metrics: &Metrics, transfers: usize, head_seq: i64) {
    metrics.wallet_ledger_batch_size.record(to_gauge(transfers));
    metrics.wallet_ledger_head_seq.set(gauge_value(head_seq));
}

/// What alerts divide by must be there before it happens.
pub(super) fn preregister(metrics: &Metrics) {
    for kind in [TransferKind::Deposit, TransferKind::Withdrawal, TransferKind::Transfer] {
        for outcome in ["committed", "rejected", "error"] {
            metrics.wallet_ledger_transfers_total.preregister([kind.name(), outcome]);
        }
    }
    for outcome in ["sealed", "stale", "unavailable", "faulty"] {
        metrics.wallet_ledger_batches_total.preregister([outcome]);
    }
    for outcome in ["won", "lost"] {
        metrics.wallet_ledger_head_races_total.preregister([outcome]);
    }
}

#[expect(clippy::cast_precision_loss, reason = "a count for a metric, not money")]
pub(super) fn to_gauge(count: usize) -> f64 {
    count as f64
}
