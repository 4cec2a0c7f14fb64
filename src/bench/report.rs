//! Figures, their ratios, and how they are written down.

use std::fmt::Write;
use std::time::Duration;

use super::meter::Used;
use super::{Case, System};

/// Latencies in buckets that are two percent wide.
#[derive(Debug, Clone, Default)]
pub(super) struct Histogram {
    counts: Vec<u64>,
    total: u64,
}

/// Growth from one bucket to the next.
const BUCKET: f64 = 1.02;

impl Histogram {
    #[expect(
        clippy::cast_possible_truncation,
        clippy::cast_sign_loss,
        reason = "a logarithm of microseconds is small and positive"
    )]
    pub(super) fn record(&mut self, latency: Duration) {
        let microseconds = (latency.as_secs_f64() * 1e6).max(1.0);
        let bucket = microseconds.log(BUCKET) as usize;
        if self.counts.len() <= bucket {
            self.counts.resize(bucket + 1, 0);
        }
        self.counts[bucket] += 1;
        self.total += 1;
    }

    pub(super) fn add(&mut self, other: &Self) {
        if self.counts.len() < other.counts.len() {
            self.counts.resize(other.counts.len(), 0);
        }
        for (count, more) in self.counts.iter_mut().zip(&other.counts) {
            *count += more;
        }
        self.total += other.total;
    }

    /// In milliseconds.
    #[expect(
        clippy::cast_precision_loss,
        clippy::cast_possible_truncation,
        clippy::cast_possible_wrap,
        reason = "counts are far below 2^52 and buckets below 2^11"
    )]
    pub(super) fn quantile(&self, share: f64) -> f64 {
        let wanted = self.total as f64 * share;
        let mut seen = 0;
        let reached = self.counts.iter().position(|count| {
            seen += count;
            seen as f64 >= wanted
        });
        reached.map_or(0.0, |bucket| BUCKET.powi(bucket as i32 + 1) / 1e3)
    }
}

/// What one measurement gave.
#[derive(Debug, Clone)]
pub(super) struct Run {
    pub rate: f64,
    pub latencies: Histogram,
}

impl Run {
    #[expect(clippy::cast_precision_loss, reason = "counts are far below 2^52")]
    pub(super) fn new(latencies: Histogram, time: Duration) -> Self {
        Self { rate: latencies.total as f64 / time.as_secs_f64(), latencies }
    }
}

#[derive(Debug, Clone)]
pub(super) struct Figure {
    pub case: Case,
    pub run: Run,
    pub used: Used,
}

#[derive(Debug, Clone)]
pub(super) struct Report {
    pub figures: Vec<Figure>,
    pub postgres: String,
}

impl Report {
    fn rate(&self, system: System, clients: usize, spread: bool) -> f64 {
        let same = |case: &Case| {
            case.system == system && case.clients == clients && (case.accounts > 1) == spread
        };
        self.figures
            .iter()
            .find(|figure| same(&figure.case))
            .map_or(f64::NAN, |figure| figure.run.rate)
    }

    /// The best that `pgbench` reached with deposits spread over many accounts.
    fn best_baseline(&self) -> f64 {
        [1, 8, 64]
            .map(|clients| self.rate(System::Pgbench, clients, true))
            .into_iter()
            .fold(0.0, f64::max)
    }

    /// What is compared, the ratio, and what it should be at least.
    pub(super) fn ratios(&self) -> [(&'static str, f64, f64); 4] {
        let best = self.best_baseline();
        let one = self.rate(System::Http, 1, true) / self.rate(System::Pgbench, 1, true);
        let hot = self.rate(System::Http, 256, false) / self.rate(System::Pgbench, 64, false);
        [
            (
                "64 connections, against pgbench's best",
                self.rate(System::Http, 64, true) / best,
                2.0,
            ),
            (
                "256 connections, against pgbench's best",
                self.rate(System::Http, 256, true) / best,
                2.5,
            ),
            ("256 connections on one account, against pgbench with 64 clients", hot, 10.0),
            ("1 connection, against pgbench with 1 client", one, 0.35),
        ]
    }

    pub(super) fn text(&self) -> String {
        self.markdown()
    }

    pub(super) fn markdown(&self) -> String {
        let mut text = String::from(
            "# Benchmarks\n\nDeposits with an idempotency key and a durable commit, over HTTP, beside `pgbench` calling a stored procedure that does the same the usual way (a balance row under a row lock, an entry, a unique key, one commit each).\nEverything, the load included, shares one machine; `scripts/bench` measures it anew.\n\n![rates](benchmarks.svg)\n\n",
        );
        let cores = std::thread::available_parallelism().map_or(0, usize::from);
        let version = env!("CARGO_PKG_VERSION");
        // Writing to a String cannot fail.
        let _written = write!(
            text,
            "revwallet {version} ({}), PostgreSQL {}, {cores} cores, {}.\n\n| what | clients | accounts | a second | p50 ms | p99 ms | cores, program | cores, Postgres | MB, program |\n|---|---:|---:|---:|---:|---:|---:|---:|---:|\n",
            env!("REVWALLET_REVISION"),
            self.postgres,
            processor(),
        );
        for figure in &self.figures {
            let Figure { case, run, used } = figure;
            let name = match case.system {
                System::Pgbench => "pgbench",
                System::Http => "revwallet over HTTP",
            };
            let _written = writeln!(
                text,
                "| {name} | {} | {} | {:.0} | {:.2} | {:.2} | {:.2} | {:.2} | {} |",
                case.clients,
                case.accounts,
                run.rate,
                run.latencies.quantile(0.5),
                run.latencies.quantile(0.99),
                used.program_cores,
                used.postgres_cores,
                used.memory_bytes / 1_000_000,
            );
        }
        text.push_str("\n| ratio | here | at least |\n|---|---:|---:|\n");
        for (name, ratio, wanted) in self.ratios() {
            let _written = writeln!(text, "| {name} | {ratio:.2} | {wanted} |");
        }
        text
    }
}

/// What the processor calls itself.
fn processor() -> String {
    let text = std::fs::read_to_string("/proc/cpuinfo").unwrap_or_default();
    let name = text.lines().find_map(|line| line.strip_prefix("model name")?.split(": ").nth(1));
    name.unwrap_or("unknown processor").to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn quantiles_are_within_a_bucket_of_the_truth() {
        let mut histogram = Histogram::default();
        for milliseconds in 1..=100 {
            histogram.record(Duration::from_millis(milliseconds));
        }

        for (share, truth) in [(0.5, 50.0), (0.99, 99.0), (1.0, 100.0)] {
            let found = histogram.quantile(share);
            assert!((found / truth - 1.0).abs() < 0.03, "{share}: {found}");
        }
    }
}
