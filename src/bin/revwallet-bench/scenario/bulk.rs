//! Scenario `bulk`: postings of many transfers, made in the benchmark's process without HTTP.

use std::sync::Arc;
use std::time::{Duration, Instant};

use tokio::task::JoinSet;

use crate::book::{BenchBook, InProcessWriter, deposit_posting};
use crate::context::{ACCOUNTS, BenchContext};
use crate::load::latency::LatencyHistogram;
use crate::report::{Measurement, ReportSection, TargetBound};
use crate::samples::LoadResult;
use crate::verification::verify_book;

/// Maximum number of legs (movements of money and changes to accounts) in a batch of the ledger writer, enough for
/// several large postings.
pub(super) const BATCH_LEGS_MAX: usize = 8_192;

/// A load: the number of callers that post concurrently, and the number of transfers in each posting.
#[derive(Debug, Clone, Copy)]
struct BulkLoad {
    label: &'static str,
    callers: usize,
    transfers: usize,
}

const LARGE_POSTINGS: BulkLoad =
    BulkLoad { label: "postings of 1,000 transfers, in-process", callers: 4, transfers: 1_000 };
const SINGLE_TRANSFERS: BulkLoad =
    BulkLoad { label: "postings of one transfer, in-process", callers: 4_096, transfers: 1 };

pub(super) async fn measure(context: &BenchContext) -> anyhow::Result<ReportSection> {
    let book = BenchBook::create(&context.postgres, "bulk").await?;
    let writer = book.start_writer(Vec::new(), BATCH_LEGS_MAX).await?;
    let accounts = writer.open_accounts(&mut book.connect().await?, ACCOUNTS).await?;
    let monitor = context.monitor(&[std::process::id()]);
    let mut section = ReportSection::default();
    for load in [LARGE_POSTINGS, SINGLE_TRANSFERS] {
        tracing::info!("measuring {}", load.label);
        let run = load.run(&writer, &accounts, context.args.duration);
        let sample = monitor.measure(run).await?;
        section.measurements.push(Measurement::new(load.label, load.callers, sample.into()));
    }
    writer.stop().await?;
    let rate = section.measurements[0].result.rate;
    section.add_target("transfers per second in large postings", rate, TargetBound::AtLeast(60e3));
    section.add_note(format!("Bulk: {}.", verify_book(&book).await?));
    Ok(section)
}

impl BulkLoad {
    async fn run(
        self,
        writer: &InProcessWriter,
        accounts: &[i64],
        duration: Duration,
    ) -> anyhow::Result<LoadResult> {
        let began = Instant::now();
        let end = began + duration;
        let accounts: Arc<[i64]> = accounts.into();
        let mut tasks = JoinSet::new();
        for caller in 0..self.callers {
            let (ledger, accounts) = (writer.ledger.clone(), Arc::clone(&accounts));
            tasks.spawn(async move {
                let mut rng = fastrand::Rng::with_seed(caller as u64);
                let mut latencies = LatencyHistogram::default();
                let mut sent_at = Instant::now();
                while sent_at < end {
                    let chosen = (0..self.transfers).map(|_| accounts[rng.usize(..accounts.len())]);
                    ledger.post(deposit_posting(chosen)).await?;
                    let answered_at = Instant::now();
                    latencies.record(answered_at - sent_at);
                    sent_at = answered_at;
                }
                anyhow::Ok(latencies)
            });
        }
        LoadResult::join(tasks, began, f64::from(u32::try_from(self.transfers)?)).await
    }
}
