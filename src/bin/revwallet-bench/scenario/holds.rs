//! Scenario `holds`: holds and captures over HTTP, relative to transfers.

use crate::book::BenchBook;
use crate::context::BenchContext;
use crate::load::{LoadOperation, LoadSpec, LoadTarget};
use crate::report::{ReportSection, TargetBound};
use crate::samples::{LoadSample, PairedSamples};
use crate::verification::verify_book;

/// Number of wallets: few enough to fund each of them, but enough that concurrent requests rarely use the same wallet.
const WALLETS: u32 = 1_000;

/// Initial balance of each wallet, more than a run can spend.
const EUROS: u32 = 1_000_000;

const CONNECTIONS: usize = 64;

/// Number of rounds. The report contains the median of each measurement.
const TURNS: u32 = 3;

pub(super) async fn measure(context: &BenchContext) -> anyhow::Result<ReportSection> {
    let book = BenchBook::create(&context.postgres, "holds").await?;
    let server = context.start_server(&book).await?;
    let target = LoadTarget::open_with_balance(&server.address, WALLETS, EUROS).await?;
    let monitor = context.monitor(&[server.id()]);
    let spec = |operation| LoadSpec {
        address: server.address.clone(),
        operation,
        connections: CONNECTIONS,
        wallets: WALLETS as usize,
        duration: context.args.duration,
    };
    let mut samples = PairedSamples::default();
    for turn in 1..=TURNS {
        tracing::info!("measuring transfers, then holds with captures, round {turn} of {TURNS}");
        let transfers = target.run(&monitor, spec(LoadOperation::Transfer)).await?;
        let holds = target.run(&monitor, spec(LoadOperation::HoldAndCapture)).await?;
        samples.push(transfers, holds);
    }
    server.kill().await?;
    let mut section = ReportSection::default();
    let ratio = samples.median_ratio(LoadSample::rate);
    section.add_target(
        "holds and captures, relative to transfers",
        ratio,
        TargetBound::AtLeast(0.5),
    );
    let labels = ["transfers over HTTP", "holds and captures over HTTP"];
    section.measurements.extend(samples.into_measurements(labels, CONNECTIONS)?);
    section.add_note(format!("Holds: {}.", verify_book(&book).await?));
    Ok(section)
}
