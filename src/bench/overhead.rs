//! What observing costs: deposits with metrics, logs and traces, beside the same with none of them.

use super::book::Book;
use super::load::{Ask, Load, Target};
use super::meter::Meter;
use super::report::{Figure, Part, Wanted, median, middle};
use super::server::Server;
use super::{Bench, check, collector};

const CONNECTIONS: usize = 64;

/// Few enough for a process that has just begun to know all of them soon.
const ACCOUNTS: u32 = 1_000;

/// How often each is measured: the middle counts.
const TURNS: u32 = 9;

const NO_METRICS: &str = "--no-metrics";
/// But for the line that says where the program listens.
const NO_LOGS: [&str; 2] = ["--log-filter=off,revwallet::app=info", "--log-success-ratio=0"];
const LOGS: &str = "--log-success-ratio=1";

/// A way to be watched.
struct Case {
    name: &'static str,
    settings: Vec<String>,
    /// Most that it may cost of the rate without.
    most: Option<f64>,
}

fn cases(collector: &str) -> [Case; 5] {
    let case = |name, settings: &[&str], most| Case {
        name,
        settings: settings.iter().map(|setting| (*setting).to_owned()).collect(),
        most,
    };
    let traced = format!("--otlp-endpoint=http://{collector}");
    [
        case("nothing is observed", &[&[NO_METRICS], &NO_LOGS[..]].concat(), None),
        case("metrics", &NO_LOGS, None),
        case("metrics and a log line for each request", &[LOGS], None),
        case(
            "metrics, logs, a tenth of the traces",
            &[LOGS, &traced, "--trace-ratio=0.1"],
            Some(0.15),
        ),
        case("metrics, logs, all traces", &[LOGS, &traced, "--trace-ratio=1"], Some(0.25)),
    ]
}

pub(super) async fn measure(bench: &Bench) -> anyhow::Result<Part> {
    let collector = collector::collect(0, drop).await?.to_string();
    let book = Book::create(&bench.embedded, "overhead").await?;
    let first = Server::start(&book).await?;
    let target = Target::prepare(&first.address, ACCOUNTS).await?;
    first.kill().await?;
    let cases = cases(&collector);
    let mut runs: Vec<Vec<_>> = cases.iter().map(|_| Vec::new()).collect();
    for turn in 1..=TURNS {
        for (case, runs) in cases.iter().zip(&mut runs) {
            tracing::info!("deposits, turn {turn} of {TURNS}: {}", case.name);
            let settings: Vec<&str> = case.settings.iter().map(String::as_str).collect();
            let server = Server::start_with(&book, &settings).await?;
            let meter = Meter::new(&[server.id()], &bench.folder);
            let load = |time| Load {
                address: &server.address,
                ask: Ask::Deposit,
                connections: CONNECTIONS,
                accounts: ACCOUNTS as usize,
                time,
            };
            // Until then it asks for each account.
            target.load(&meter, load(bench.args.each / 2)).await?;
            runs.push(target.load(&meter, load(bench.args.each)).await?);
            server.kill().await?;
        }
    }
    let mut part = Part::default();
    let mut costs = Vec::new();
    for (number, case) in cases.iter().enumerate().skip(1) {
        let pairs = runs[0].iter().zip(&runs[number]);
        let cost = median(pairs.map(|(off, on)| 1.0 - on.0.rate / off.0.rate).collect());
        costs.push(format!("{} {:.1} %", case.name, 100.0 * cost));
        if let Some(most) = case.most {
            let what = format!("what {} cost of the rate without", case.name);
            part.goal(what, cost, Wanted::AtMost(most));
        }
    }
    part.notes
        .push(format!("What observing costs, in the middle of {TURNS}: {}.", costs.join("; ")));
    for (case, runs) in cases.iter().zip(runs) {
        let (run, used) = middle(runs)?;
        let what = format!("deposits, {}", case.name);
        part.figures.push(Figure { what, clients: CONNECTIONS, run, used });
    }
    part.notes.push(format!("Overhead: {}.", check::verified(&book).await?));
    Ok(part)
}
