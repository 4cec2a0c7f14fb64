//! `revwallet bench`: how fast is it here, beside what Postgres does when it is called directly.
//!
//! Everything runs on this machine in one go: a private Postgres with durable commits, `pgbench` calling a
//! stored procedure that does a deposit the usual way, and this program serving the same deposits over HTTP.
//! Machines differ and drift, so the ratios are what counts.

mod load;
mod meter;
mod pgbench;
mod plot;
mod report;

use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::Duration;

use anyhow::{Context, bail};
use serde_json::Value;
use tokio::io::{AsyncBufReadExt, BufReader};
use tokio::process::{Child, Command};

use crate::config::duration;
use crate::db::embedded::{Embedded, EmbeddedArgs};
use meter::Meter;
use report::{Figure, Report};

/// Accounts that deposits are spread over.
const ACCOUNTS: u32 = 10_000;

/// What is measured, and for how long.
#[derive(Debug, Clone, clap::Args)]
pub struct BenchArgs {
    /// How long each figure is measured.
    #[arg(long, default_value = "5s", value_parser = duration)]
    pub each: Duration,
    /// Also write the report and its plot into this folder.
    #[arg(long)]
    pub write: Option<PathBuf>,
}

/// One thing to measure.
#[derive(Debug, Clone, Copy)]
struct Case {
    system: System,
    clients: usize,
    accounts: u32,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum System {
    Pgbench,
    Http,
}

const CASES: &[Case] = &[
    case(System::Pgbench, 1, ACCOUNTS),
    case(System::Http, 1, ACCOUNTS),
    case(System::Pgbench, 8, ACCOUNTS),
    case(System::Http, 8, ACCOUNTS),
    case(System::Pgbench, 64, ACCOUNTS),
    case(System::Http, 64, ACCOUNTS),
    case(System::Http, 256, ACCOUNTS),
    case(System::Pgbench, 1, 1),
    case(System::Pgbench, 8, 1),
    case(System::Pgbench, 64, 1),
    case(System::Http, 64, 1),
    case(System::Http, 256, 1),
];

const fn case(system: System, clients: usize, accounts: u32) -> Case {
    Case { system, clients, accounts }
}

/// Measures everything and prints the report.
pub async fn run(args: BenchArgs) -> anyhow::Result<String> {
    let folder = std::env::temp_dir().join(format!("revwallet-bench-{}", std::process::id()));
    std::fs::create_dir_all(&folder)
        .with_context(|| format!("cannot write {}", folder.display()))?;
    let embedded =
        Embedded::start(&EmbeddedArgs { data_dir: folder.clone(), postgres_bin: None }).await?;
    let outcome = measure(&args, &embedded, &folder).await;
    embedded.stop().await;
    // The report is worth more than a clean temporary folder.
    let _left_behind = std::fs::remove_dir_all(&folder);
    let report = outcome?;
    if let Some(target) = &args.write {
        std::fs::write(target.join("benchmarks.md"), report.markdown())?;
        std::fs::write(target.join("benchmarks.svg"), plot::draw(&report))?;
    }
    Ok(report.text())
}

async fn measure(args: &BenchArgs, embedded: &Embedded, folder: &Path) -> anyhow::Result<Report> {
    let baseline = pgbench::Baseline::prepare(embedded, folder, ACCOUNTS).await?;
    let (mut server, address) = serve(embedded).await?;
    let target = load::Target::prepare(&address, ACCOUNTS).await?;
    let meter = Meter::new(server.id().unwrap_or_default(), folder);
    let mut figures = Vec::new();
    for (number, case) in CASES.iter().enumerate() {
        tracing::info!("{} of {}: {case:?}", number + 1, CASES.len());
        let before = meter.read();
        let run = match case.system {
            System::Pgbench => baseline.run(case.clients, case.accounts, args.each).await?,
            System::Http => target.deposits(case.clients, case.accounts, args.each).await?,
        };
        figures.push(Figure { case: *case, run, used: meter.read().since(&before) });
    }
    server.start_kill()?;
    server.wait().await?;
    Ok(Report { figures, postgres: embedded.version().to_owned() })
}

/// This very program, serving on a free port.
async fn serve(embedded: &Embedded) -> anyhow::Result<(Child, String)> {
    let url = format!(
        "postgres://{}@localhost/{}?host={}",
        embedded.user(),
        embedded.database(),
        embedded.socket_dir().display()
    );
    let mut child = Command::new(std::env::current_exe()?)
        .args(["serve", "--listen=127.0.0.1:0", "--internal-listen=127.0.0.1:0"])
        .args([
            "--log-format=json",
            "--log-success-ratio=0",
            "--access=open",
            "--database-url",
            &url,
        ])
        .stdout(Stdio::piped())
        .kill_on_drop(true)
        .spawn()?;
    let mut lines = BufReader::new(child.stdout.take().context("it was asked for")?).lines();
    while let Some(line) = lines.next_line().await? {
        let line: Value = serde_json::from_str(&line)?;
        if line["event"] == "serve.listening" {
            let address = line["address"].as_str().unwrap_or_default().to_owned();
            #[expect(clippy::disallowed_methods, reason = "ends with the program it reads from")]
            tokio::spawn(async move { while let Ok(Some(_)) = lines.next_line().await {} });
            return Ok((child, address));
        }
    }
    bail!("the program that should be measured did not start")
}
