//! `revwallet bench`: how fast is it here, beside what Postgres does when it is called directly.
//!
//! Everything runs on this machine in one go, on a private Postgres with durable commits, the load included.
//! Machines differ and drift, so the ratios are what counts; what is compared runs by turns.
//!
//! | part | what is compared |
//! |---|---|
//! | [`deposits`] | deposits over HTTP with `pgbench` calling a stored procedure that does the same the usual way |
//! | [`bulk`] | many transfers in each posting, through the ledger itself |
//! | [`companion`] | a posting that brings a row of another slice with one that does not |
//! | [`holds`] | holds and captures with plain transfers, over HTTP |
//! | [`edge`] | deposits through nginx with the same to the program itself |
//! | [`logins`] | reading balances beside a thousand logins with reading them in peace |
//! | [`processes`] | four programs that write one book with one program |
//! | [`snapshot`] | with an old snapshot held open, as a dump does, and without |
//! | [`grow`] | a large book with a small one |
//! | [`beside`] | another build of this program with this one |
//!
//! After each part its book is read from end to end and held against what was acknowledged.

mod beside;
mod book;
mod bulk;
mod check;
pub mod collector;
mod companion;
mod connection;
mod deposits;
mod edge;
mod grow;
mod histogram;
mod holds;
mod load;
mod logins;
mod meter;
mod overhead;
mod pgbench;
mod plot;
mod processes;
mod report;
mod scrape;
mod server;
mod snapshot;
mod sql;

use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::Context;

use crate::db::embedded::{Embedded, EmbeddedArgs};
use report::Report;

/// Accounts that deposits are spread over.
const ACCOUNTS: u32 = 10_000;

/// What is measured, and for how long.
#[derive(Debug, Clone, clap::Args)]
pub struct BenchArgs {
    /// How long each figure is measured.
    #[arg(long, default_value = "5s", value_parser = humantime::parse_duration)]
    pub each: Duration,
    /// What is measured, separated by commas.
    #[arg(long, value_enum, value_delimiter = ',', default_values_t = Mode::SHORT)]
    pub parts: Vec<Mode>,
    /// Measure a large book too: takes minutes and gigabytes.
    #[arg(long)]
    pub grow: bool,
    /// Transfers of the large book.
    #[arg(long, default_value_t = 10_000_000)]
    pub grow_to: i64,
    /// Also write the report and its plot into this folder.
    #[arg(long)]
    pub write: Option<PathBuf>,
    /// Nginx, when it is not to be searched for.
    #[arg(long, default_value = "nginx")]
    pub nginx: PathBuf,
    /// Folder of its configuration.
    #[arg(long, default_value = "nginx")]
    pub nginx_folder: PathBuf,
    /// Another build of this program to measure beside this one, and nothing else.
    #[arg(long)]
    pub beside: Option<PathBuf>,
}

/// A part of the benchmark.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
pub enum Mode {
    /// Deposits over HTTP beside pgbench.
    Deposits,
    /// Many transfers in each posting.
    Bulk,
    /// Postings that bring a row of another slice.
    Companion,
    /// Holds and captures beside transfers.
    Holds,
    /// Deposits through nginx.
    Edge,
    /// Deposits with metrics, logs and traces, beside those without.
    Overhead,
    /// Ten thousand series, written for Prometheus.
    Scrape,
    /// Reading beside a thousand logins.
    Logins,
    /// Four programs on one book.
    Processes,
    /// An old snapshot held open.
    Snapshot,
    /// A large book beside a small one.
    Grow,
}

impl Mode {
    /// Everything that takes seconds.
    const SHORT: [Self; 10] = [
        Self::Deposits,
        Self::Bulk,
        Self::Companion,
        Self::Holds,
        Self::Edge,
        Self::Overhead,
        Self::Scrape,
        Self::Logins,
        Self::Processes,
        Self::Snapshot,
    ];
}

/// What every part needs.
struct Bench {
    args: BenchArgs,
    embedded: Embedded,
    folder: PathBuf,
}

/// Measures everything and gives the report.
pub async fn run(args: BenchArgs) -> anyhow::Result<String> {
    let folder = std::env::temp_dir().join(format!("revwallet-bench-{}", std::process::id()));
    std::fs::create_dir_all(&folder)
        .with_context(|| format!("cannot write {}", folder.display()))?;
    let embedded =
        Embedded::start(&EmbeddedArgs { data_dir: folder.clone(), postgres_bin: None }).await?;
    let bench = Bench { args, embedded, folder };
    let outcome = bench.measure().await;
    bench.embedded.stop().await;
    // The report is worth more than a clean temporary folder.
    let _left_behind = std::fs::remove_dir_all(&bench.folder);
    let report = outcome?;
    bench.write(&report)?;
    Ok(report.tables())
}

impl Bench {
    async fn measure(&self) -> anyhow::Result<Report> {
        if let Some(other) = &self.args.beside {
            let parts = vec![beside::measure(self, other).await?];
            return Ok(Report { parts, postgres: self.embedded.version().to_owned() });
        }
        let mut modes = self.args.parts.clone();
        if self.args.grow && !modes.contains(&Mode::Grow) {
            modes.push(Mode::Grow);
        }
        let mut parts = Vec::new();
        for mode in modes {
            let part = match mode {
                Mode::Deposits => deposits::measure(self).await,
                Mode::Bulk => bulk::measure(self).await,
                Mode::Companion => companion::measure(self).await,
                Mode::Holds => holds::measure(self).await,
                Mode::Edge => edge::measure(self).await,
                Mode::Overhead => overhead::measure(self).await,
                Mode::Scrape => scrape::measure(self).await,
                Mode::Logins => logins::measure(self).await,
                Mode::Processes => processes::measure(self).await,
                Mode::Snapshot => snapshot::measure(self).await,
                Mode::Grow => grow::measure(self).await,
            };
            parts.push(part.with_context(|| format!("{mode:?} could not be measured"))?);
        }
        Ok(Report { parts, postgres: self.embedded.version().to_owned() })
    }

    fn write(&self, report: &Report) -> anyhow::Result<()> {
        let save = |path: &Path, text: String| {
            std::fs::write(path, text).with_context(|| format!("cannot write {}", path.display()))
        };
        if let Some(folder) = &self.args.write {
            save(&folder.join("benchmarks.md"), report.markdown())?;
            save(&folder.join("benchmarks.svg"), plot::draw(report))?;
        }
        Ok(())
    }
}
