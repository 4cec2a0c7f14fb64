//! The report of a benchmark run, as tables and as Markdown: measurements, performance targets, and notes.

pub(crate) mod chart;

use std::fmt::{self, Write};

use crate::resource_usage::ResourceUsage;
use crate::samples::{LoadResult, LoadSample};

/// A row of the measurements table.
#[derive(Debug, Clone)]
pub(crate) struct Measurement {
    pub label: String,
    pub clients: usize,
    pub result: LoadResult,
    pub usage: ResourceUsage,
}

/// A performance target: a measured value or ratio, and its upper or lower bound.
#[derive(Debug, Clone)]
struct PerformanceTarget {
    label: String,
    measured: f64,
    bound: TargetBound,
}

#[derive(Debug, Clone, Copy)]
pub(crate) enum TargetBound {
    AtLeast(f64),
    AtMost(f64),
}

/// Results of one scenario.
#[derive(Debug, Default)]
pub(crate) struct ReportSection {
    pub measurements: Vec<Measurement>,
    targets: Vec<PerformanceTarget>,
    notes: Vec<String>,
}

/// Results of a benchmark run.
#[derive(Debug)]
pub(crate) struct BenchReport {
    pub sections: Vec<ReportSection>,
    pub postgres_version: String,
}

impl Measurement {
    pub(crate) fn new(label: impl Into<String>, clients: usize, sample: LoadSample) -> Self {
        Self { label: label.into(), clients, result: sample.result, usage: sample.usage }
    }

    /// CPU time of the monitored processes per operation, in microseconds.
    pub(crate) fn process_us(&self) -> f64 {
        self.usage.process_cores / self.result.rate * 1e6
    }

    /// CPU time of Postgres per operation, in microseconds.
    pub(crate) fn postgres_us(&self) -> f64 {
        self.usage.postgres_cores / self.result.rate * 1e6
    }
}

impl ReportSection {
    pub(crate) fn add_target(
        &mut self,
        label: impl Into<String>,
        measured: f64,
        bound: TargetBound,
    ) {
        self.targets.push(PerformanceTarget { label: label.into(), measured, bound });
    }

    /// Adds a sentence to the list of notes below the tables.
    pub(crate) fn add_note(&mut self, note: impl Into<String>) {
        self.notes.push(note.into());
    }
}

impl TargetBound {
    fn is_kept_by(self, measured: f64) -> bool {
        match self {
            Self::AtLeast(bound) => measured >= bound,
            Self::AtMost(bound) => measured <= bound,
        }
    }
}

impl fmt::Display for TargetBound {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::AtLeast(bound) => write!(formatter, "at least {bound}"),
            Self::AtMost(bound) => write!(formatter, "at most {bound}"),
        }
    }
}

/// Formats a measurement as a row of a Markdown table.
impl fmt::Display for Measurement {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { label, clients, result, usage } = self;
        write!(
            formatter,
            "| {label} | {clients} | {:.0} | {:.2} | {:.2} | {:.2} | {:.2} | {:.1} | {:.1} | {} |",
            result.rate,
            result.latencies.quantile_ms(0.5),
            result.latencies.quantile_ms(0.99),
            usage.process_cores,
            usage.postgres_cores,
            self.process_us(),
            self.postgres_us(),
            usage.memory_bytes / 1_000_000,
        )
    }
}

/// Formats a performance target, and whether it was met, as a row of a Markdown table.
impl fmt::Display for PerformanceTarget {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { label, measured, bound } = self;
        let decimals = if *measured < 1000.0 { 2 } else { 0 };
        let outcome = if bound.is_kept_by(*measured) { "met" } else { "missed" };
        write!(formatter, "| {label} | {measured:.decimals$} | {bound} | {outcome} |")
    }
}

impl BenchReport {
    /// Formats the report as tables for a terminal.
    pub(crate) fn tables(&self) -> String {
        let mut text = format!(
            "{}\n\n| measurement | clients | per second | p50 ms | p99 ms | process cores | Postgres cores | process µs | Postgres µs | process MB |\n\
             |---|---:|---:|---:|---:|---:|---:|---:|---:|---:|\n",
            self.environment()
        );
        // Writing to a String cannot fail.
        for measurement in self.sections.iter().flat_map(|section| &section.measurements) {
            let _written = writeln!(text, "{measurement}");
        }
        text.push_str("\n| target | measured | bound | |\n|---|---:|---:|---|\n");
        for target in self.sections.iter().flat_map(|section| &section.targets) {
            let _written = writeln!(text, "{target}");
        }
        text.push('\n');
        for note in self.sections.iter().flat_map(|section| &section.notes) {
            let _written = writeln!(text, "- {note}");
        }
        text
    }

    /// Returns the content of `docs/benchmarks.md`.
    pub(crate) fn markdown(&self) -> String {
        format!(
            "# Benchmarks\n\n\
            Deposits over HTTP, each with an idempotency key and a durable commit, compared with `pgbench` calling a stored procedure that deposits in the conventional way (a balance row under a row lock, an entry, a unique key, one commit each).\n\
            The load generator, the servers and Postgres share one machine; `scripts/bench --optimized` repeats the run.\n\
            The columns with cores show how many cores were busy on average; the columns with µs show the CPU time per operation.\n\
            Machines differ, and their speed varies over time, so ratios matter more than rates.\n\n\
            ![Rate of each measurement](benchmarks.svg)\n\n{}",
            self.tables()
        )
    }

    fn environment(&self) -> String {
        let cores = std::thread::available_parallelism().map_or(0, usize::from);
        let profile = match option_env!("REVWALLET_PROFILED") {
            Some(_) => ", optimized with a profile",
            None => "",
        };
        format!(
            "revwallet {} ({}{profile}), PostgreSQL {}, {cores} cores, {}.",
            env!("CARGO_PKG_VERSION"),
            env!("REVWALLET_REVISION"),
            self.postgres_version,
            processor_model(),
        )
    }
}

fn processor_model() -> String {
    let text = std::fs::read_to_string("/proc/cpuinfo").unwrap_or_default();
    let model = text.lines().find_map(|line| line.strip_prefix("model name")?.split(": ").nth(1));
    model.unwrap_or("unknown processor").to_owned()
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use crate::load::latency::LatencyHistogram;

    use super::*;

    fn report(rate: f64) -> BenchReport {
        let mut latencies = LatencyHistogram::default();
        latencies.record(Duration::from_micros(2990));
        let usage = ResourceUsage { process_cores: 0.5, ..ResourceUsage::default() };
        let sample = LoadSample { result: LoadResult { rate, latencies }, usage };
        let mut section = ReportSection::default();
        section.measurements.push(Measurement::new("deposits", 64, sample));
        section.add_target("rate", rate, TargetBound::AtLeast(150.0));
        section.add_note("Verified.");
        BenchReport { sections: vec![section], postgres_version: "15".into() }
    }

    #[test]
    fn the_report_says_which_targets_are_met_and_which_are_missed() {
        assert!(report(200.0).tables().contains("| rate | 200.00 | at least 150 | met |\n"));
        assert!(report(100.0).tables().contains("| rate | 100.00 | at least 150 | missed |\n"));
    }

    #[test]
    fn the_report_has_measurements_and_notes() {
        let tables = report(4000.0).tables();

        assert!(
            tables.contains(
                "| deposits | 64 | 4000 | 3.00 | 3.00 | 0.50 | 0.00 | 125.0 | 0.0 | 0 |\n"
            )
        );
        assert!(tables.ends_with("\n- Verified.\n"), "{tables}");
    }
}
