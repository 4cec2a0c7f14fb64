//! Scenario `observability`: deposits with metrics, logs and traces, relative to deposits without them.

use crate::book::BenchBook;
use crate::context::BenchContext;
use crate::load::{LoadOperation, LoadSpec, LoadTarget};
use crate::otlp_collector::start_collector;
use crate::report::{Measurement, ReportSection, TargetBound};
use crate::samples::{LoadSample, median, median_sample};
use crate::verification::verify_book;

const CONNECTIONS: usize = 64;

/// Number of wallets: few enough that a new server soon caches all of them.
const WALLETS: u32 = 1_000;

/// Number of rounds. The report contains the median of each measurement.
const TURNS: u32 = 9;

const NO_METRICS: &str = "--no-metrics";
/// Settings that turn off all logs except the line with the server's address, which the benchmark reads.
const NO_LOGS: [&str; 2] = ["--log-filter=off,revwallet::app=info", "--log-success-ratio=0"];
const ALL_LOGS: &str = "--log-success-ratio=1";

/// A level of observability, and the server settings for this level.
struct ObservabilityCase {
    name: &'static str,
    settings: Vec<String>,
    /// Largest share of the throughput that may be lost, relative to a server without observability; `None` if there is
    /// no limit.
    loss_max: Option<f64>,
}

fn cases(collector: &str) -> [ObservabilityCase; 5] {
    let case = |name, settings: &[&str], loss_max| ObservabilityCase {
        name,
        settings: settings.iter().map(|setting| (*setting).to_owned()).collect(),
        loss_max,
    };
    let traced = format!("--otlp-endpoint=http://{collector}");
    [
        case("no observability", &[&[NO_METRICS], &NO_LOGS[..]].concat(), None),
        case("metrics", &NO_LOGS, None),
        case("metrics and access log", &[ALL_LOGS], None),
        case(
            "metrics, access log, 10% of traces",
            &[ALL_LOGS, &traced, "--trace-ratio=0.1"],
            Some(0.15),
        ),
        case(
            "metrics, access log, all traces",
            &[ALL_LOGS, &traced, "--trace-ratio=1"],
            Some(0.25),
        ),
    ]
}

pub(super) async fn measure(context: &BenchContext) -> anyhow::Result<ReportSection> {
    let collector = start_collector(0, drop).await?.to_string();
    let book = BenchBook::create(&context.postgres, "observability").await?;
    let server = context.start_server(&book).await?;
    let target = LoadTarget::open(&server.address, WALLETS).await?;
    server.kill().await?;
    let cases = cases(&collector);
    let mut samples: Vec<Vec<LoadSample>> = cases.iter().map(|_| Vec::new()).collect();
    for turn in 1..=TURNS {
        for (case, samples) in cases.iter().zip(&mut samples) {
            tracing::info!("measuring deposits, round {turn} of {TURNS}: {}", case.name);
            samples.push(case.deposit(context, &book, &target).await?);
        }
    }
    let mut section = ReportSection::default();
    add_losses(&mut section, &cases, &samples);
    for (case, samples) in cases.iter().zip(samples) {
        let label = format!("deposits, {}", case.name);
        section.measurements.push(Measurement::new(label, CONNECTIONS, median_sample(samples)?));
    }
    section.add_note(format!("Observability: {}.", verify_book(&book).await?));
    Ok(section)
}

impl ObservabilityCase {
    /// Measures deposits on a new server with the settings of this case.
    async fn deposit(
        &self,
        context: &BenchContext,
        book: &BenchBook,
        target: &LoadTarget,
    ) -> anyhow::Result<LoadSample> {
        let settings: Vec<&str> = self.settings.iter().map(String::as_str).collect();
        let server = context.start_server_with(book, &settings).await?;
        let monitor = context.monitor(&[server.id()]);
        let spec = |duration| LoadSpec {
            address: server.address.clone(),
            operation: LoadOperation::Deposit,
            connections: CONNECTIONS,
            wallets: WALLETS as usize,
            duration,
        };
        // Warms up the account cache.
        target.run(&monitor, spec(context.args.duration / 2)).await?;
        let sample = target.run(&monitor, spec(context.args.duration)).await?;
        server.kill().await?;
        Ok(sample)
    }
}

/// Adds the throughput loss of each case to the report. Each case is compared with the first case of the same round,
/// which runs without observability.
fn add_losses(
    section: &mut ReportSection,
    cases: &[ObservabilityCase],
    samples: &[Vec<LoadSample>],
) {
    let mut losses = Vec::new();
    for (case, observed) in cases.iter().zip(samples).skip(1) {
        let turns = samples[0].iter().zip(observed);
        let loss = median(turns.map(|(off, on)| 1.0 - on.rate() / off.rate()).collect());
        losses.push(format!("{} {:.1}%", case.name, 100.0 * loss));
        if let Some(loss_max) = case.loss_max {
            let label = format!("share of throughput lost to {}", case.name);
            section.add_target(label, loss, TargetBound::AtMost(loss_max));
        }
    }
    let losses = losses.join("; ");
    section.add_note(format!("Throughput lost to observability, median of {TURNS}: {losses}."));
}
