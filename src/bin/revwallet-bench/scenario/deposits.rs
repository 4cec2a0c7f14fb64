//! Scenario `deposits`: deposits over HTTP, compared with deposits by `pgbench`. Each deposit has an idempotency key,
//! and is durable before the server acknowledges it.

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
}

const CASES: &[DepositCase] = &[
    case(DepositSystem::Pgbench, 1, ACCOUNTS),
    case(DepositSystem::Http, 1, ACCOUNTS),
    case(DepositSystem::Pgbench, 8, ACCOUNTS),
    case(DepositSystem::Http, 8, ACCOUNTS),
    case(DepositSystem::Pgbench, 64, ACCOUNTS),
    case(DepositSystem::Http, 64, ACCOUNTS),
    case(DepositSystem::Http, 256, ACCOUNTS),
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
    let duration = context.args.duration;
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
            DepositSystem::Http => {
                let spec = LoadSpec {
                    address: server.address.clone(),
                    operation: LoadOperation::Deposit,
                    connections: case.clients,
                    wallets: case.accounts as usize,
                    duration,
                };
                target.run(&monitor, spec).await?
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
    let memory_bytes = section.measurements.iter().map(|found| found.usage.memory_bytes).max();
    let memory_mb = u32::try_from(memory_bytes.unwrap_or(0) / 1_000_000).unwrap_or(u32::MAX);
    let p99_ms = find(DepositSystem::Http, 64, ACCOUNTS)
        .map_or(f64::NAN, |found| found.result.latencies.quantile_ms(0.99));
    let targets = [
        (
            "64 connections, relative to the best rate of pgbench",
            http(64, ACCOUNTS) / pgbench_best,
            TargetBound::AtLeast(2.0),
        ),
        (
            "256 connections, relative to the best rate of pgbench",
            http(256, ACCOUNTS) / pgbench_best,
            TargetBound::AtLeast(2.5),
        ),
        (
            "256 connections on one account, relative to pgbench with 64 clients",
            http(256, 1) / pgbench(64, 1),
            TargetBound::AtLeast(10.0),
        ),
        (
            "1 connection, relative to pgbench with 1 client",
            http(1, ACCOUNTS) / pgbench(1, ACCOUNTS),
            TargetBound::AtLeast(0.35),
        ),
        ("p99 at 64 connections, ms", p99_ms, TargetBound::AtMost(10.0)),
        ("memory of the server, MB", f64::from(memory_mb), TargetBound::AtMost(150.0)),
    ];
    for (label, measured, bound) in targets {
        section.add_target(label, measured, bound);
    }
}
