//! Figures, what they are held against, and how they are written down.

use std::fmt::Write;
use std::time::Duration;

use anyhow::Context;

use super::histogram::Histogram;
use super::meter::Used;

/// What one measurement gave.
#[derive(Debug, Clone)]
pub(super) struct Run {
    /// A second.
    pub rate: f64,
    pub latencies: Histogram,
}

impl Run {
    /// `each` of what was timed counts as that many.
    pub(super) fn new(latencies: Histogram, each: f64, time: Duration) -> Self {
        Self { rate: latencies.count() * each / time.as_secs_f64(), latencies }
    }
}

/// A line of the table.
#[derive(Debug, Clone)]
pub(super) struct Figure {
    pub what: String,
    pub clients: usize,
    pub run: Run,
    pub used: Used,
}

/// A figure or a ratio of figures, and what it should be.
#[derive(Debug, Clone)]
pub(super) struct Goal {
    pub what: String,
    pub here: f64,
    pub wanted: Wanted,
}

#[derive(Debug, Clone, Copy)]
pub(super) enum Wanted {
    AtLeast(f64),
    AtMost(f64),
}

/// One subject.
#[derive(Debug, Default)]
pub(super) struct Part {
    pub figures: Vec<Figure>,
    pub goals: Vec<Goal>,
    /// What was checked afterwards.
    pub notes: Vec<String>,
}

#[derive(Debug)]
pub(super) struct Report {
    pub parts: Vec<Part>,
    pub postgres: String,
}

impl Part {
    pub(super) fn goal(&mut self, what: impl Into<String>, here: f64, wanted: Wanted) {
        self.goals.push(Goal { what: what.into(), here, wanted });
    }
}

impl Goal {
    fn is_met(&self) -> bool {
        match self.wanted {
            Wanted::AtLeast(bound) => self.here >= bound,
            Wanted::AtMost(bound) => self.here <= bound,
        }
    }
}

/// The middle one.
pub(super) fn median(mut values: Vec<f64>) -> f64 {
    values.sort_by(f64::total_cmp);
    values.get(values.len() / 2).copied().unwrap_or(f64::NAN)
}

/// The run of the middle rate.
pub(super) fn middle(mut runs: Vec<(Run, Used)>) -> anyhow::Result<(Run, Used)> {
    runs.sort_by(|one, other| one.0.rate.total_cmp(&other.0.rate));
    let place = runs.len() / 2;
    runs.into_iter().nth(place).context("something was measured")
}

impl Report {
    pub(super) fn figures(&self) -> impl Iterator<Item = &Figure> {
        self.parts.iter().flat_map(|part| &part.figures)
    }

    /// What is shown on a terminal.
    pub(super) fn tables(&self) -> String {
        let mut text = self.header();
        text.push_str("\n| what | clients | a second | p50 ms | p99 ms | cores, program | cores, Postgres | MB, program |\n|---|---:|---:|---:|---:|---:|---:|---:|\n");
        for Figure { what, clients, run, used } in self.figures() {
            // Writing to a String cannot fail.
            let _written = writeln!(
                text,
                "| {what} | {clients} | {:.0} | {:.2} | {:.2} | {:.2} | {:.2} | {} |",
                run.rate,
                run.latencies.quantile(0.5),
                run.latencies.quantile(0.99),
                used.program_cores,
                used.postgres_cores,
                used.memory_bytes / 1_000_000,
            );
        }
        text.push_str("\n| what is wanted | here | wanted | |\n|---|---:|---:|---|\n");
        for goal in self.parts.iter().flat_map(|part| &part.goals) {
            let wanted = match goal.wanted {
                Wanted::AtLeast(bound) => format!("at least {bound}"),
                Wanted::AtMost(bound) => format!("at most {bound}"),
            };
            let met = if goal.is_met() { "met" } else { "missed" };
            let here = if goal.here < 1000.0 {
                format!("{:.2}", goal.here)
            } else {
                format!("{:.0}", goal.here)
            };
            let _written = writeln!(text, "| {} | {here} | {wanted} | {met} |", goal.what);
        }
        text.push('\n');
        for note in self.parts.iter().flat_map(|part| &part.notes) {
            let _written = writeln!(text, "- {note}");
        }
        text
    }

    pub(super) fn markdown(&self) -> String {
        format!(
            "# Benchmarks\n\n\
            Deposits with an idempotency key and a durable commit, over HTTP, beside `pgbench` calling a stored procedure that does the same the usual way (a balance row under a row lock, an entry, a unique key, one commit each).\n\
            Everything, the load included, shares one machine; `scripts/bench` measures it anew.\n\
            Machines differ and drift, so the ratios are what counts.\n\n\
            ![rates](benchmarks.svg)\n\n{}",
            self.tables()
        )
    }

    fn header(&self) -> String {
        let cores = std::thread::available_parallelism().map_or(0, usize::from);
        format!(
            "revwallet {} ({}), PostgreSQL {}, {cores} cores, {}.\n",
            env!("CARGO_PKG_VERSION"),
            env!("REVWALLET_REVISION"),
            self.postgres,
            processor(),
        )
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

    fn report(rate: f64) -> Report {
        let mut latencies = Histogram::default();
        latencies.record(Duration::from_millis(3));
        let run = Run { rate, latencies };
        let used = Used::default();
        let mut part = Part::default();
        part.figures.push(Figure { what: "deposits".into(), clients: 64, run, used });
        part.goal("rate", rate, Wanted::AtLeast(150.0));
        Report { parts: vec![part], postgres: "15".into() }
    }

    #[test]
    fn the_report_says_what_is_met_and_what_is_missed() {
        assert!(report(200.0).tables().contains("| rate | 200.00 | at least 150 | met |"));
        assert!(report(100.0).tables().contains("| rate | 100.00 | at least 150 | missed |"));
    }

    #[test]
    fn the_middle_is_neither_the_best_nor_the_worst() {
        assert!((median(vec![9.0, 1.0, 2.0]) - 2.0).abs() < f64::EPSILON);
        assert!(median(Vec::new()).is_nan());
    }
}
