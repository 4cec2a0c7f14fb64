//! Scenario `logins`: reads of balances during a thousand logins, relative to reads of balances from an idle server.

use crate::book::BenchBook;
use crate::context::BenchContext;
use crate::load::{LoadOperation, LoadSpec, LoadTarget};
use crate::report::{ReportSection, TargetBound};
use crate::samples::{LoadSample, PairedSamples};

const WALLETS: u32 = 1_000;

const READERS: usize = 8;

/// Number of logins in flight; each waits until the server has hashed its password.
const LOGINS: usize = 1_000;

/// Number of rounds. The report contains the median of each measurement.
const TURNS: u32 = 3;

/// Settings of the server: it trusts the `X-Forwarded-For` header, so that each login can use its own address and
/// limits per address do not apply, and it lets all logins wait instead of refusing some of them.
const SETTINGS: [&str; 3] =
    ["--trusted-proxies=127.0.0.1", "--password-waiting-max=2000", "--http-timeout=10m"];

pub(super) async fn measure(context: &BenchContext) -> anyhow::Result<ReportSection> {
    let book = BenchBook::create(&context.postgres, "logins").await?;
    let server = context.start_server_with(&book, &SETTINGS).await?;
    let target = LoadTarget::open(&server.address, WALLETS).await?;
    let monitor = context.monitor(&[server.id()]);
    let spec = |operation, connections| LoadSpec {
        address: server.address.clone(),
        operation,
        connections,
        wallets: WALLETS as usize,
        duration: context.args.duration,
    };
    let reads = || spec(LoadOperation::Balance, READERS);
    let mut samples = PairedSamples::default();
    for turn in 1..=TURNS {
        tracing::info!(
            "measuring reads of balances, without logins and during logins, round {turn} of {TURNS}"
        );
        let idle = target.run(&monitor, reads()).await?;
        let loads = [reads(), spec(LoadOperation::Login, LOGINS)];
        let ([result, _logins], usage) = target.run_all(&monitor, loads).await?;
        samples.push(idle, LoadSample { result, usage });
    }
    server.kill().await?;
    let mut section = ReportSection::default();
    let label = "p99 of balances during 1,000 logins, relative to an idle server";
    section.add_target(label, samples.median_ratio(LoadSample::p99_ms), TargetBound::AtMost(5.0));
    let labels = ["balances over HTTP", "balances over HTTP during 1,000 logins"];
    section.measurements.extend(samples.into_measurements(labels, READERS)?);
    Ok(section)
}
