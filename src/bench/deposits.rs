//! Deposits over HTTP, each with a key and durable when it is answered, beside `pgbench` doing the same.

use super::book::Book;
use super::load::{Ask, Load, Target};
use super::meter::Meter;
use super::report::{Figure, Part, Wanted};
use super::server::Server;
use super::{ACCOUNTS, Bench, check, pgbench};

/// One thing to measure.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
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

impl Case {
    fn name(self) -> String {
        let system = match self.system {
            System::Pgbench => "pgbench",
            System::Http => "revwallet over HTTP",
        };
        let accounts = if self.accounts == 1 { "one account" } else { "10,000 accounts" };
        format!("{system}, {accounts}")
    }
}

pub(super) async fn measure(bench: &Bench) -> anyhow::Result<Part> {
    let baseline = pgbench::Baseline::prepare(&bench.embedded, &bench.folder, ACCOUNTS).await?;
    let book = Book::create(&bench.embedded, "deposits").await?;
    let server = Server::start(&book).await?;
    let target = Target::prepare(&server.address, ACCOUNTS).await?;
    let meter = Meter::new(&[server.id()], &bench.folder);
    let mut part = Part::default();
    for (number, case) in CASES.iter().enumerate() {
        tracing::info!("deposits, {} of {}: {}", number + 1, CASES.len(), case.name());
        let (clients, each) = (case.clients, bench.args.each);
        let (run, used) = match case.system {
            System::Pgbench => {
                let before = meter.read();
                let run = baseline.run(clients, case.accounts, each).await?;
                (run, meter.read().since(&before))
            }
            System::Http => {
                let load = Load {
                    address: &server.address,
                    ask: Ask::Deposit,
                    connections: clients,
                    accounts: case.accounts as usize,
                    time: each,
                };
                target.load(&meter, load).await?
            }
        };
        part.figures.push(Figure { what: case.name(), clients, run, used });
    }
    server.kill().await?;
    goals(&mut part);
    part.notes.push(format!("Deposits: {}.", check::deposits(&book, &target).await?));
    Ok(part)
}

fn goals(part: &mut Part) {
    let find = |system, clients, accounts| {
        let place = CASES.iter().position(|other| *other == case(system, clients, accounts));
        place.map(|place| &part.figures[place])
    };
    let rate = |system, clients, accounts| {
        find(system, clients, accounts).map_or(f64::NAN, |figure| figure.run.rate)
    };
    let best = [1, 8, 64].map(|clients| rate(System::Pgbench, clients, ACCOUNTS));
    let best = best.into_iter().fold(0.0, f64::max);
    let memory = part.figures.iter().map(|figure| figure.used.memory_bytes).max();
    let p99 = find(System::Http, 64, ACCOUNTS).map(|figure| figure.run.latencies.quantile(0.99));
    let goals = [
        (
            "64 connections, against pgbench's best",
            rate(System::Http, 64, ACCOUNTS) / best,
            Wanted::AtLeast(2.0),
        ),
        (
            "256 connections, against pgbench's best",
            rate(System::Http, 256, ACCOUNTS) / best,
            Wanted::AtLeast(2.5),
        ),
        (
            "256 connections on one account, against pgbench with 64 clients",
            rate(System::Http, 256, 1) / rate(System::Pgbench, 64, 1),
            Wanted::AtLeast(10.0),
        ),
        (
            "1 connection, against pgbench with 1 client",
            rate(System::Http, 1, ACCOUNTS) / rate(System::Pgbench, 1, ACCOUNTS),
            Wanted::AtLeast(0.35),
        ),
        ("p99 at 64 connections, ms", p99.unwrap_or(f64::NAN), Wanted::AtMost(10.0)),
        (
            "memory of the program, MB",
            f64::from(u32::try_from(memory.unwrap_or(0) / 1_000_000).unwrap_or(u32::MAX)),
            Wanted::AtMost(150.0),
        ),
    ];
    for (what, here, wanted) in goals {
        part.goal(what, here, wanted);
    }
}
