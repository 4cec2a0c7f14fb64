//! Four programs that write one book, beside one that writes it alone, with as many connections in all.

use anyhow::Context;

use super::book::Book;
use super::histogram::Histogram;
use super::load::{Ask, Load, Target};
use super::meter::{Meter, Used};
use super::report::{Figure, Part, Run, Wanted, median, middle};
use super::server::Server;
use super::{ACCOUNTS, Bench, check};

const PROCESSES: usize = 4;

/// In all, whoever they go to.
const CONNECTIONS: usize = 256;

/// How often each is measured: the middle counts.
const TURNS: u32 = 3;

pub(super) async fn measure(bench: &Bench) -> anyhow::Result<Part> {
    let book = Book::create(&bench.embedded, "processes").await?;
    let mut servers = Vec::new();
    for _ in 0..PROCESSES {
        servers.push(Server::start(&book).await?);
    }
    let servers: [Server; PROCESSES] =
        servers.try_into().map_err(|_| anyhow::anyhow!("as many as were started"))?;
    let target = Target::prepare(&servers[0].address, ACCOUNTS).await?;
    let ids = servers.each_ref().map(Server::id);
    let (one_meter, meter) =
        (Meter::new(&ids[..1], &bench.folder), Meter::new(&ids, &bench.folder));
    let load = |server: usize, connections| Load {
        address: &servers[server].address,
        ask: Ask::Deposit,
        connections,
        accounts: ACCOUNTS as usize,
        time: bench.args.each,
    };
    // Each of them meets every wallet first: filling caches is not what is compared.
    for server in 0..PROCESSES {
        target.load(&one_meter, load(server, CONNECTIONS)).await?;
    }
    let (mut alone, mut together, mut ratios, mut shares) =
        (Vec::new(), Vec::new(), Vec::new(), Vec::new());
    for turn in 1..=TURNS {
        tracing::info!("one process and four on one book, turn {turn} of {TURNS}");
        let (run, used) = target.load(&one_meter, load(0, CONNECTIONS)).await?;
        let rate = run.rate;
        alone.push((run, used));
        let loads = std::array::from_fn::<_, PROCESSES, _>(|n| load(n, CONNECTIONS / PROCESSES));
        let (runs, used) = target.loads(&meter, loads).await?;
        let (all, share) = sum(&runs).context("there are four")?;
        ratios.push(all.rate / rate);
        shares.push(share);
        together.push((all, used));
    }
    for server in servers {
        server.kill().await?;
    }
    let mut part = Part::default();
    figure(&mut part, "one process on a book", alone)?;
    figure(&mut part, "four processes on one book, together", together)?;
    part.goal("four processes on one book, against one", median(ratios), Wanted::AtLeast(0.7));
    let least = shares.into_iter().fold(f64::INFINITY, f64::min);
    part.goal("the slowest of the four, against its fair share", least, Wanted::AtLeast(0.5));
    part.notes.push(format!("Four processes: {}.", check::deposits(&book, &target).await?));
    Ok(part)
}

fn figure(part: &mut Part, what: &str, runs: Vec<(Run, Used)>) -> anyhow::Result<()> {
    let (run, used) = middle(runs)?;
    part.figures.push(Figure { what: what.to_owned(), clients: CONNECTIONS, run, used });
    Ok(())
}

/// All of them, and the slowest as a part of the average.
fn sum(runs: &[Run; PROCESSES]) -> Option<(Run, f64)> {
    let rate: f64 = runs.iter().map(|run| run.rate).sum();
    let least = runs.iter().map(|run| run.rate).min_by(f64::total_cmp)?;
    let mut latencies = Histogram::default();
    for run in runs {
        latencies.add(&run.latencies);
    }
    let count = f64::from(u32::try_from(PROCESSES).ok()?);
    Some((Run { rate, latencies }, least * count / rate))
}
