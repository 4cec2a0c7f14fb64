//! Scenario `companions`: postings with a companion (a row of another module, written in the same transaction),
//! compared with postings without a companion. All postings are made in the benchmark's process.
//!
//! Over HTTP, the relative difference would be smaller, because the rest of each request costs the same.

use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::ensure;
use revwallet::ledger::companion::Companion;
use serde::Serialize;
use tokio::task::JoinSet;

use crate::book::{BenchBook, InProcessWriter, deposit_posting};
use crate::context::{ACCOUNTS, BenchContext};
use crate::load::latency::LatencyHistogram;
use crate::report::{ReportSection, TargetBound};
use crate::samples::{LoadResult, LoadSample, PairedSamples};
use crate::sql;
use crate::verification::verify_book;

/// Number of rounds. The report contains the median of each measurement.
const TURNS: u32 = 3;

const CALLERS: usize = 64;

const BATCH_LEGS_MAX: usize = 1_024;

/// Whether each posting has a companion.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum PostingKind {
    Plain,
    WithCompanion,
}

/// Row that the companion of a posting inserts.
#[derive(Serialize)]
struct CompanionNote {
    account: i64,
}

pub(super) async fn measure(context: &BenchContext) -> anyhow::Result<ReportSection> {
    let book = BenchBook::create(&context.postgres, "companions").await?;
    let mut db = book.connect().await?;
    sql::create_notes(&mut db).await?;
    let writer = book.start_writer(vec![&sql::NOTE_COMPANION], BATCH_LEGS_MAX).await?;
    let accounts: Arc<[i64]> = writer.open_accounts(&mut db, ACCOUNTS).await?.into();
    let monitor = context.monitor(&[std::process::id()]);
    let duration = context.args.duration / 2;
    let mut samples = PairedSamples::default();
    let mut acknowledged = 0;
    for turn in 1..=TURNS {
        tracing::info!(
            "measuring postings without and with a companion (a row of another module), round {turn} of {TURNS}"
        );
        let plain = monitor.measure(run(&writer, &accounts, PostingKind::Plain, duration)).await?;
        let companions = run(&writer, &accounts, PostingKind::WithCompanion, duration);
        let companions: LoadSample = monitor.measure(companions).await?.into();
        acknowledged += companions.result.latencies.len();
        samples.push(plain.into(), companions);
    }
    writer.stop().await?;
    let mut section = ReportSection::default();
    let cost = samples.median_ratio(|sample| 1.0 / sample.rate());
    let label = "cost of a posting with a companion, relative to one without";
    section.add_target(label, cost, TargetBound::AtMost(1.6));
    let labels =
        ["postings without a companion, in-process", "postings with one companion, in-process"];
    section.measurements.extend(samples.into_measurements(labels, CALLERS)?);
    let written = u64::try_from(sql::count_notes(&mut db).await?)?;
    ensure!(
        written == acknowledged,
        "{acknowledged} companions were acknowledged, but {written} were written"
    );
    let verified = verify_book(&book).await?;
    let note = format!("{acknowledged} acknowledged, each written exactly once; {verified}");
    section.add_note(format!("Companions: {note}."));
    Ok(section)
}

async fn run(
    writer: &InProcessWriter,
    accounts: &Arc<[i64]>,
    kind: PostingKind,
    duration: Duration,
) -> anyhow::Result<LoadResult> {
    let began = Instant::now();
    let end = began + duration;
    let mut tasks = JoinSet::new();
    for caller in 0..CALLERS {
        let (ledger, accounts) = (writer.ledger.clone(), Arc::clone(accounts));
        tasks.spawn(async move {
            let mut rng = fastrand::Rng::with_seed(caller as u64);
            let mut latencies = LatencyHistogram::default();
            let mut sent_at = Instant::now();
            while sent_at < end {
                let account = accounts[rng.usize(..accounts.len())];
                let mut posting = deposit_posting([account].into_iter());
                if kind == PostingKind::WithCompanion {
                    let note = CompanionNote { account };
                    posting.companions.push(Companion::new(&sql::NOTE_COMPANION, &note, "noted")?);
                }
                ledger.post(posting).await?;
                let answered_at = Instant::now();
                latencies.record(answered_at - sent_at);
                sent_at = answered_at;
            }
            anyhow::Ok(latencies)
        });
    }
    LoadResult::join(tasks, began, 1.0).await
}
