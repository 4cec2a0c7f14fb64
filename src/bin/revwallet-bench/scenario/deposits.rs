//! Scenario `deposits`: deposits over HTTP, compared with deposits by `pgbench`, and with a bare axum server that only
//! responds. Each deposit has an idempotency key, and is durable before the server acknowledges it.

use crate::bare_server::BareServer;
use crate::book::BenchBook;
use crate::context::{ACCOUNTS, BenchContext};
use crate::load::{LoadOperation, LoadSpec, LoadTarget};
use crate::pgbench::PgbenchBaseline;
use crate::report::{Measurement, ReportSection, TargetBound};
use crate::samples::LoadSample;
use crate::verification::verify_deposits;

/// A measurement: the system under test, its number of clients, and the number of accounts.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct DepositCase {
    system: DepositSystem,
    clients: usize,
    accounts: u32,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum DepositSystem {
    Pgbench,
    Http,
    BareAxum,
}

const CASES: &[DepositCase] = &[
    case(DepositSystem::Pgbench, 1, ACCOUNTS),
    case(DepositSystem::Http, 1, ACCOUNTS),
    case(DepositSystem::Pgbench, 8, ACCOUNTS),
    case(DepositSystem::Http, 8, ACCOUNTS),
    case(DepositSystem::Pgbench, 64, ACCOUNTS),
    case(DepositSystem::Http, 64, ACCOUNTS),
    case(DepositSystem::Http, 256, ACCOUNTS),
    case(DepositSystem::BareAxum, 256, ACCOUNTS),
    case(DepositSystem::Pgbench, 1, 1),
    case(DepositSystem::Pgbench, 8, 1),
    case(DepositSystem::Pgbench, 64, 1),
    case(DepositSystem::Http, 64, 1),
    case(DepositSystem::Http, 256, 1),
];

const fn case(system: DepositSystem, clients: usize, accounts: u32) -> DepositCase {
    DepositCase { system, clients, accounts }
}

impl DepositCase {
    fn label(self) -> String {
        let system = match self.system {
            DepositSystem::Pgbench => "pgbench",
            DepositSystem::Http => "revwallet over HTTP",
            DepositSystem::BareAxum => "bare axum server with the same response",
        };
        let accounts = if self.accounts == 1 { "one account" } else { "10,000 accounts" };
        format!("{system}, {accounts}")
    }
}

pub(super) async fn measure(context: &BenchContext) -> anyhow::Result<ReportSection> {
    let baseline =
        PgbenchBaseline::prepare(&context.postgres, &context.scratch_dir, ACCOUNTS).await?;
    let book = BenchBook::create(&context.postgres, "deposits").await?;
    let server = context.start_server(&book).await?;
    let target = LoadTarget::open(&server.address, ACCOUNTS).await?;
    let monitor = context.monitor(&[server.id()]);
    let bare = BareServer::start(&target.record_deposit(&server.address).await?).await?;
    let duration = context.args.duration;
    let spec = |case: &DepositCase, address: &str| LoadSpec {
        address: address.to_owned(),
        operation: LoadOperation::Deposit,
        connections: case.clients,
        wallets: case.accounts as usize,
        duration,
    };
    let mut section = ReportSection::default();
    for (number, case) in CASES.iter().enumerate() {
        tracing::info!(
            "measuring deposits, case {} of {}: {}",
            number + 1,
            CASES.len(),
            case.label()
        );
        let sample: LoadSample = match case.system {
            DepositSystem::Pgbench => {
                let run = baseline.run(case.clients, case.accounts, duration);
                monitor.measure(run).await?.into()
            }
            DepositSystem::Http => target.run(&monitor, spec(case, &server.address)).await?,
            DepositSystem::BareAxum => {
                let target = target.with_separate_counts();
                target.run(&context.monitor(&[bare.id()]), spec(case, &bare.address)).await?
            }
        };
        section.measurements.push(Measurement::new(case.label(), case.clients, sample));
    }
    server.kill().await?;
    add_targets(&mut section);
    section.add_note(format!("Deposits: {}.", verify_deposits(&book, &target).await?));
    Ok(section)
}

fn add_targets(section: &mut ReportSection) {
    let find = |system, clients, accounts| {
        let index = CASES.iter().position(|other| *other == case(system, clients, accounts));
        index.map(|index| &section.measurements[index])
    };
    let pgbench = |clients, accounts| {
        find(DepositSystem::Pgbench, clients, accounts).map_or(f64::NAN, |found| found.result.rate)
    };
    let http = |clients, accounts| {
        find(DepositSystem::Http, clients, accounts).map_or(f64::NAN, |found| found.result.rate)
    };
    let pgbench_best =
        [1, 8, 64].map(|clients| pgbench(clients, ACCOUNTS)).into_iter().fold(0.0, f64::max);
    let http_at_256 = find(DepositSystem::Http, 256, ACCOUNTS);
    let program_us = http_at_256.map_or(f64::NAN, Measurement::process_us);
    let postgres_us = http_at_256.map_or(f64::NAN, Measurement::postgres_us);
    let bare_us =
        find(DepositSystem::BareAxum, 256, ACCOUNTS).map_or(f64::NAN, Measurement::process_us);
    let pgbench_us = [1, 8, 64]
        .into_iter()
        .filter_map(|clients| find(DepositSystem::Pgbench, clients, ACCOUNTS))
        .max_by(|one, other| one.result.rate.total_cmp(&other.result.rate))
        .map_or(f64::NAN, Measurement::postgres_us);
    let memory_bytes = section.measurements.iter().map(|found| found.usage.memory_bytes).max();
    let memory_mb = u32::try_from(memory_bytes.unwrap_or(0) / 1_000_000).unwrap_or(u32::MAX);
    let p99_ms = find(DepositSystem::Http, 64, ACCOUNTS)
        .map_or(f64::NAN, |found| found.result.latencies.quantile_ms(0.99));
    let targets = [
        (
            "64 connections, relative to the best rate of pgbench",
            http(64, ACCOUNTS) / pgbench_best,
            TargetBound::AtLeast(3.0),
        ),
        (
            "256 connections, relative to the best rate of pgbench",
            http(256, ACCOUNTS) / pgbench_best,
            TargetBound::AtLeast(4.0),
        ),
        (
            "256 connections on one account, relative to pgbench with 64 clients",
            http(256, 1) / pgbench(64, 1),
            TargetBound::AtLeast(25.0),
        ),
        (
            "1 connection, relative to pgbench with 1 client",
            http(1, ACCOUNTS) / pgbench(1, ACCOUNTS),
            TargetBound::AtLeast(0.5),
        ),
        (
            "CPU time of the server at 256 connections, relative to a bare axum server",
            program_us / bare_us,
            TargetBound::AtMost(1.8),
        ),
        (
            "CPU time of server and Postgres at 256 connections, relative to Postgres at pgbench's best rate",
            (program_us + postgres_us) / pgbench_us,
            TargetBound::AtMost(0.32),
        ),
        ("p99 at 64 connections, ms", p99_ms, TargetBound::AtMost(10.0)),
        ("memory of the server, MB", f64::from(memory_mb), TargetBound::AtMost(120.0)),
    ];
    for (label, measured, bound) in targets {
        section.add_target(label, measured, bound);
    }
}
