//! `revwallet-bench` measures throughput and latency on this machine, with Postgres called directly as the baseline.
//!
//! Everything runs on one machine, on a private Postgres with durable commits, and the load generator shares it.
//! Machines differ and drift, so ratios count more than rates: alternatives run in alternation.
//! Servers under test are child processes of the `revwallet` binary; [`scenario`] lists what is measured.
//!
//! After each scenario, its book is verified from end to end and checked against what clients were acknowledged.

mod args;
mod book;
mod context;
mod load;
mod otlp_collector;
mod pgbench;
mod report;
mod resource_usage;
mod samples;
mod scenario;
mod server_process;
mod sql;
mod subscribers;
mod verification;

use std::io::Write;
use std::process::ExitCode;

use anyhow::Context;
use clap::Parser;
use tracing_subscriber::EnvFilter;

use args::BenchArgs;

/// The server's allocator: two scenarios run the ledger in this process.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

/// Progress of the benchmark, and warnings of everything it uses.
const LOG_FILTER: &str = "warn,revwallet_bench=info";

fn main() -> ExitCode {
    let args = BenchArgs::parse();
    let log = tracing_subscriber::fmt().with_writer(std::io::stderr).with_target(false);
    log.with_env_filter(EnvFilter::new(LOG_FILTER)).init();
    match measure_and_print(args) {
        Ok(()) => ExitCode::SUCCESS,
        Err(cause) => {
            // Standard error may be closed, and then nothing is left to report to.
            let _unread = writeln!(std::io::stderr(), "revwallet-bench: {cause:#}");
            ExitCode::FAILURE
        }
    }
}

#[tokio::main]
async fn measure_and_print(args: BenchArgs) -> anyhow::Result<()> {
    let report = Box::pin(context::run(args)).await?;
    writeln!(std::io::stdout(), "{}", report.tables()).context("cannot write the report")
}
