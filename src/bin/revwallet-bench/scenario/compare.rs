//! The comparison of two builds of the server. In each round, deposits over HTTP are measured on both builds.

use std::path::Path;

use crate::book::BenchBook;
use crate::context::{ACCOUNTS, BenchContext};
use crate::load::{LoadOperation, LoadSpec, LoadTarget};
use crate::report::{ReportSection, TargetBound};
use crate::samples::{LoadSample, PairedSamples};
use crate::server_process::ServerProcess;

const CONNECTIONS: [usize; 3] = [1, 64, 256];

/// Number of rounds. The report contains the median of each measurement.
const TURNS: u32 = 7;

/// Divisor of `--duration` that yields the duration of each measurement. It is short because there are many rounds.
const TURNS_PER_DURATION: u32 = 4;

/// A running build of the server, with its own ledger.
struct ServerBuild {
    server: ServerProcess,
    target: LoadTarget,
}

/// Measures the server under test relative to the server binary `other`.
pub(crate) async fn measure(context: &BenchContext, other: &Path) -> anyhow::Result<ReportSection> {
    let this = ServerBuild::start(context, "this_build", &context.server_binary).await?;
    let other = ServerBuild::start(context, "other_build", other).await?;
    let mut section = ReportSection::default();
    for connections in CONNECTIONS {
        let mut samples = PairedSamples::default();
        for turn in 1..=TURNS {
            tracing::info!(
                "measuring both builds with {connections} connections, round {turn} of {TURNS}"
            );
            let this_sample = this.deposit(context, connections).await?;
            samples.push(other.deposit(context, connections).await?, this_sample);
        }
        let label = format!("deposits at {connections} connections, relative to the other build");
        section.add_target(
            label,
            samples.median_ratio(LoadSample::rate),
            TargetBound::AtLeast(1.0),
        );
        let measurements = samples.into_measurements(["other build", "this build"], connections)?;
        section.measurements.extend(measurements);
    }
    this.server.kill().await?;
    other.server.kill().await?;
    Ok(section)
}

impl ServerBuild {
    /// Starts a build on an empty database, which the build migrates to its own schema.
    async fn start(context: &BenchContext, name: &str, binary: &Path) -> anyhow::Result<Self> {
        let book = BenchBook::create_without_schema(&context.postgres, name).await?;
        let server = ServerProcess::start(binary, &book, &[]).await?;
        let target = LoadTarget::open(&server.address, ACCOUNTS).await?;
        Ok(Self { server, target })
    }

    async fn deposit(
        &self,
        context: &BenchContext,
        connections: usize,
    ) -> anyhow::Result<LoadSample> {
        let spec = LoadSpec {
            address: self.server.address.clone(),
            operation: LoadOperation::Deposit,
            connections,
            wallets: ACCOUNTS as usize,
            duration: context.args.duration / TURNS_PER_DURATION,
        };
        self.target.run(&context.monitor(&[self.server.id()]), spec).await
    }
}
