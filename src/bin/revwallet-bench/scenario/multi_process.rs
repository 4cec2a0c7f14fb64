//! Scenario `multi-process`: four servers that share a ledger, relative to one server, with the same number of
//! connections in total.

use anyhow::Context;

use crate::book::BenchBook;
use crate::context::{ACCOUNTS, BenchContext};
use crate::load::{LoadOperation, LoadSpec, LoadTarget};
use crate::report::{ReportSection, TargetBound};
use crate::samples::{LoadResult, LoadSample, PairedSamples};
use crate::server_process::ServerProcess;
use crate::verification::verify_deposits;

const PROCESSES: usize = 4;

/// Total number of connections to all servers.
const CONNECTIONS: usize = 256;

/// Number of rounds. The report contains the median of each measurement.
const TURNS: u32 = 3;

pub(super) async fn measure(context: &BenchContext) -> anyhow::Result<ReportSection> {
    let book = BenchBook::create(&context.postgres, "multi_process").await?;
    let mut servers = Vec::new();
    for _ in 0..PROCESSES {
        servers.push(context.start_server(&book).await?);
    }
    let target = LoadTarget::open(&servers[0].address, ACCOUNTS).await?;
    let ids: Vec<u32> = servers.iter().map(ServerProcess::id).collect();
    let (one_monitor, monitor) = (context.monitor(&ids[..1]), context.monitor(&ids));
    let spec = |server: usize, connections| LoadSpec {
        address: servers[server].address.clone(),
        operation: LoadOperation::Deposit,
        connections,
        wallets: ACCOUNTS as usize,
        duration: context.args.duration,
    };
    // Warms up the caches of every server, so that the comparison does not include cold caches.
    for server in 0..PROCESSES {
        target.run(&one_monitor, spec(server, CONNECTIONS)).await?;
    }
    let (mut samples, mut smallest_share) = (PairedSamples::default(), f64::INFINITY);
    for turn in 1..=TURNS {
        tracing::info!(
            "measuring one server, then four servers that share a ledger, round {turn} of {TURNS}"
        );
        let one = target.run(&one_monitor, spec(0, CONNECTIONS)).await?;
        let specs = std::array::from_fn::<_, PROCESSES, _>(|n| spec(n, CONNECTIONS / PROCESSES));
        let (results, usage) = target.run_all(&monitor, specs).await?;
        let (result, share) = combine(&results).context("no server was measured")?;
        smallest_share = smallest_share.min(share);
        samples.push(one, LoadSample { result, usage });
    }
    for server in servers {
        server.kill().await?;
    }
    let mut section = ReportSection::default();
    let ratio = samples.median_ratio(LoadSample::rate);
    section.add_target(
        "four servers on one book, relative to one",
        ratio,
        TargetBound::AtLeast(0.7),
    );
    let label = "slowest of the four servers, relative to an equal share";
    section.add_target(label, smallest_share, TargetBound::AtLeast(0.5));
    let labels = ["one server on a book", "four servers on one book, in total"];
    section.measurements.extend(samples.into_measurements(labels, CONNECTIONS)?);
    section.add_note(format!("Four servers: {}.", verify_deposits(&book, &target).await?));
    Ok(section)
}

/// Returns the combined result of all servers, and the rate of the slowest server relative to an equal share of the
/// total rate.
fn combine(results: &[LoadResult; PROCESSES]) -> Option<(LoadResult, f64)> {
    let rate: f64 = results.iter().map(|result| result.rate).sum();
    let slowest = results.iter().map(|result| result.rate).min_by(f64::total_cmp)?;
    let latencies = results.iter().map(|result| result.latencies.clone()).sum();
    let count = f64::from(u32::try_from(PROCESSES).ok()?);
    Some((LoadResult { rate, latencies }, slowest * count / rate))
}
