//! `revwallet-bench` measures throughput and latency on this machine, with Postgres called directly as the baseline.
//!
//! The servers, a private Postgres with durable commits, and the load generator share one machine. Machines differ, and
//! their speed varies over time. So ratios matter more than rates, and two alternatives are compared by measuring them
//! alternately. Servers under test are child processes that run the `revwallet` binary; [`scenario`] lists what is
//! measured.
//!
//! After each scenario, the benchmark verifies the whole ledger, and compares it with the deposits that the server
//! acknowledged to clients.

mod args;
mod bare_server;
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

/// Allocator, the same as the server's, because some scenarios run the ledger in this process.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

/// Log filter that selects the progress messages of the benchmark, and the warnings of all other code.
const LOG_FILTER: &str = "warn,revwallet_bench=info";

fn main() -> ExitCode {
    let args = BenchArgs::parse();
    let log = tracing_subscriber::fmt().with_writer(std::io::stderr).with_target(false);
    log.with_env_filter(EnvFilter::new(LOG_FILTER)).init();
    match measure_and_print(args) {
        Ok(()) => ExitCode::SUCCESS,
        Err(cause) => {
            // If standard error is closed, the error cannot be reported.
            let _unread = writeln!(std::io::stderr(), "revwallet-bench: {cause:#}");
            ExitCode::FAILURE
        }
    }
}

#[tokio::main]
async fn measure_and_print(args: BenchArgs) -> anyhow::Result<()> {
    if args.serve_bare {
        return bare_server::serve().await;
    }
    let report = Box::pin(context::run(args)).await?;
    writeln!(std::io::stdout(), "{}", report.tables()).context("cannot write the report")
}
