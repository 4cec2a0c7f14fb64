//! A run of the benchmark: starts Postgres, runs the scenarios, writes the report.

use std::path::{Path, PathBuf};

use anyhow::{Context, ensure};
use revwallet::db::embedded::{Embedded, EmbeddedArgs};

use crate::args::BenchArgs;
use crate::book::BenchBook;
use crate::report::{BenchReport, chart};
use crate::resource_usage::ResourceMonitor;
use crate::scenario::compare;
use crate::server_process::ServerProcess;

/// Number of wallets or accounts over which a load is spread.
pub(crate) const ACCOUNTS: u32 = 10_000;

/// Resources that all scenarios of a run share.
pub(crate) struct BenchContext {
    pub args: BenchArgs,
    pub postgres: Embedded,
    /// Temporary folder with the data of Postgres, removed at the end.
    pub scratch_dir: PathBuf,
    pub server_binary: PathBuf,
}

/// Runs the selected scenarios, writes the report to `--output-dir`, and returns it.
pub(crate) async fn run(args: BenchArgs) -> anyhow::Result<BenchReport> {
    let server_binary = args.server_binary()?;
    for binary in [Some(&server_binary), args.compare.as_ref()].into_iter().flatten() {
        ensure!(binary.is_file(), "no server binary at {}; build it first", binary.display());
    }
    let scratch_dir = std::env::temp_dir().join(format!("revwallet-bench-{}", std::process::id()));
    std::fs::create_dir_all(&scratch_dir)
        .with_context(|| format!("cannot create {}", scratch_dir.display()))?;
    let embedded_args = EmbeddedArgs { data_dir: scratch_dir.clone(), postgres_bin: None };
    let postgres = Embedded::start(&embedded_args).await?;
    let context = BenchContext { args, postgres, scratch_dir, server_binary };
    let outcome = context.measure().await;
    context.postgres.stop().await;
    // If the folder cannot be removed, the report is still written.
    let _left_behind = std::fs::remove_dir_all(&context.scratch_dir);
    let report = outcome?;
    if let Some(folder) = &context.args.output_dir {
        save(&folder.join("benchmarks.md"), report.markdown())?;
        save(&folder.join("benchmarks.svg"), chart::draw(&report))?;
    }
    Ok(report)
}

fn save(path: &Path, text: String) -> anyhow::Result<()> {
    std::fs::write(path, text).with_context(|| format!("cannot write {}", path.display()))
}

impl BenchContext {
    async fn measure(&self) -> anyhow::Result<BenchReport> {
        let mut sections = Vec::new();
        if let Some(other) = &self.args.compare {
            sections.push(compare::measure(self, other).await?);
        } else {
            for scenario in self.args.selected_scenarios() {
                let section = scenario.measure(self).await;
                sections.push(section.with_context(|| format!("scenario {scenario:?} failed"))?);
            }
        }
        Ok(BenchReport { sections, postgres_version: self.postgres.version().to_owned() })
    }

    /// Starts the server under test on the ledger of a scenario.
    pub(crate) async fn start_server(&self, book: &BenchBook) -> anyhow::Result<ServerProcess> {
        self.start_server_with(book, &[]).await
    }

    /// Starts the server under test on the ledger of a scenario, with additional settings.
    pub(crate) async fn start_server_with(
        &self,
        book: &BenchBook,
        settings: &[&str],
    ) -> anyhow::Result<ServerProcess> {
        ServerProcess::start(&self.server_binary, book, settings).await
    }

    /// Returns a monitor of the resources that the given processes and the benchmark's own Postgres use.
    pub(crate) fn monitor(&self, processes: &[u32]) -> ResourceMonitor {
        ResourceMonitor::new(processes, &self.scratch_dir)
    }
}
