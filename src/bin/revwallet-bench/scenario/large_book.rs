//! Scenario `large-book`: deposits and reads on a ledger with many transfers, relative to a ledger with few transfers.

use std::time::{Duration, Instant};

use indicatif::{ProgressBar, ProgressStyle};
use tokio::task::JoinSet;

use super::bulk::BATCH_LEGS_MAX;
use crate::book::{BenchBook, deposit_posting};
use crate::context::{ACCOUNTS, BenchContext};
use crate::load::{LoadOperation, LoadSpec, LoadTarget};
use crate::report::{ReportSection, TargetBound};
use crate::samples::{LoadSample, PairedSamples};
use crate::server_process::ServerProcess;
use crate::sql;
use crate::verification::verify_deposits;

/// Number of transfers in the small ledger.
const SMALL_TRANSFERS: i64 = 100_000;

/// Number of transfers in each posting that fills a ledger.
const FILL_LEGS: i64 = 2_000;

/// Maximum number of postings in flight while a ledger is filled.
const FILL_POSTINGS: usize = 6;

/// Number of rounds. The report contains the median of each measurement.
const TURNS: u32 = 3;

/// Interval at which the benchmark polls the progress of the auditor, which checks the ledger in the background.
const AUDIT_POLL: Duration = Duration::from_millis(200);

/// Operations that are measured on the small and the large ledger, each with its number of connections and its label.
const OPERATIONS: [(LoadOperation, usize, &str); 3] = [
    (LoadOperation::Deposit, 64, "deposits"),
    (LoadOperation::Balance, 16, "balances"),
    (LoadOperation::History, 16, "histories"),
];

/// A ledger of a given size, and the server that runs on it.
struct FilledBook {
    label: String,
    book: BenchBook,
    target: LoadTarget,
    server: ServerProcess,
}

pub(super) async fn measure(context: &BenchContext) -> anyhow::Result<ReportSection> {
    let small = FilledBook::create(context, "small", SMALL_TRANSFERS).await?;
    let large = FilledBook::create(context, "large", context.args.large_book_transfers).await?;
    let duration = context.args.duration;
    let mut section = ReportSection::default();
    for (operation, connections, name) in OPERATIONS {
        let mut samples = PairedSamples::default();
        for turn in 1..=TURNS {
            tracing::info!(
                "measuring {name} on a small and a large ledger, round {turn} of {TURNS}"
            );
            let on_small = small.load(context, operation, connections, duration).await?;
            let on_large = large.load(context, operation, connections, duration).await?;
            samples.push(on_small, on_large);
        }
        let cost = samples.median_ratio(|sample| 1.0 / sample.rate());
        let label =
            format!("cost of {name} on the {}, relative to the {}", large.label, small.label);
        section.add_target(label, cost, TargetBound::AtMost(1.3));
        let labels = [&small, &large].map(|book| format!("{name}, {}", book.label));
        let labels = labels.each_ref().map(String::as_str);
        section.measurements.extend(samples.into_measurements(labels, connections)?);
    }
    for filled in [small, large] {
        filled.server.kill().await?;
        let verified = verify_deposits(&filled.book, &filled.target).await?;
        section.add_note(format!("{}: {verified}.", filled.label));
    }
    Ok(section)
}

impl FilledBook {
    /// Opens wallets over HTTP, fills the ledger with large postings, and waits until the auditor has checked the whole
    /// ledger.
    async fn create(context: &BenchContext, name: &str, transfers: i64) -> anyhow::Result<Self> {
        let book = BenchBook::create(&context.postgres, name).await?;
        let server = context.start_server(&book).await?;
        let target = LoadTarget::open(&server.address, ACCOUNTS).await?;
        server.kill().await?;
        fill(&book, &target, transfers - i64::from(ACCOUNTS)).await?;
        sql::vacuum_and_checkpoint(&mut book.connect().await?).await?;
        let server = context.start_server(&book).await?;
        wait_for_auditor(&book, transfers).await?;
        let filled =
            Self { label: format!("{name} book of {transfers} transfers"), book, target, server };
        // Warms up the caches. Also, Postgres writes each changed page in full to its WAL once after a checkpoint; this
        // cost should not be measured.
        filled.load(context, LoadOperation::Deposit, 64, 2 * context.args.duration).await?;
        Ok(filled)
    }

    async fn load(
        &self,
        context: &BenchContext,
        operation: LoadOperation,
        connections: usize,
        duration: Duration,
    ) -> anyhow::Result<LoadSample> {
        let spec = LoadSpec {
            address: self.server.address.clone(),
            operation,
            connections,
            wallets: ACCOUNTS as usize,
            duration,
        };
        self.target.run(&context.monitor(&[self.server.id()]), spec).await
    }
}

/// Fills a ledger with deposits into random wallets.
async fn fill(book: &BenchBook, target: &LoadTarget, transfers: i64) -> anyhow::Result<()> {
    let bar = progress_bar("filling", transfers)?;
    let writer = book.start_writer(Vec::new(), BATCH_LEGS_MAX).await?;
    let wallets: Vec<i64> = target.wallet_ids().collect();
    let mut rng = fastrand::Rng::with_seed(7);
    let mut tasks: JoinSet<anyhow::Result<u64>> = JoinSet::new();
    let (mut left, began) = (transfers, Instant::now());
    while left > 0 || !tasks.is_empty() {
        if left > 0 && tasks.len() < FILL_POSTINGS {
            let legs = left.min(FILL_LEGS);
            left -= legs;
            let mut chosen = Vec::new();
            for _ in 0..legs {
                let index = rng.usize(..wallets.len());
                target.count_deposits(index, 1);
                chosen.push(wallets[index]);
            }
            let ledger = writer.ledger.clone();
            tasks.spawn(async move {
                ledger.post(deposit_posting(chosen.into_iter())).await?;
                Ok(legs.unsigned_abs())
            });
        } else if let Some(written) = tasks.join_next().await {
            bar.inc(written??);
        }
    }
    bar.finish_and_clear();
    tracing::info!(
        "filled a ledger with {transfers} transfers in {:.0} s",
        began.elapsed().as_secs_f64()
    );
    writer.stop().await
}

/// Waits until the auditor, which checks the ledger in the background, has checked the whole ledger, so that the
/// auditor's work does not distort the measurements.
async fn wait_for_auditor(book: &BenchBook, transfers: i64) -> anyhow::Result<()> {
    let bar = progress_bar("auditing", transfers)?;
    let mut db = book.connect().await?;
    loop {
        let audited = sql::audited_until(&mut db).await?;
        bar.set_position(audited.unsigned_abs());
        if transfers <= audited {
            bar.finish_and_clear();
            return Ok(());
        }
        tokio::time::sleep(AUDIT_POLL).await;
    }
}

fn progress_bar(activity: &str, transfers: i64) -> anyhow::Result<ProgressBar> {
    let bar = ProgressBar::new(transfers.unsigned_abs());
    bar.set_style(ProgressStyle::with_template(&format!(
        "{activity} {{bar:40}} {{pos}}/{{len}} transfers, {{per_sec}}, {{eta}} left"
    ))?);
    Ok(bar)
}
