//! Reading balances while a thousand wait to sign in, beside reading them in peace.

use super::Bench;
use super::book::Book;
use super::load::{Ask, Load, Target};
use super::meter::Meter;
use super::report::{Figure, Part, Wanted, median, middle};
use super::server::Server;

const WALLETS: u32 = 1_000;

const READERS: usize = 8;

/// Logins in flight: all of them wait for their turn to be hashed.
const LOGINS: usize = 1_000;

/// How often each is measured: the middle counts.
const TURNS: u32 = 3;

pub(super) async fn measure(bench: &Bench) -> anyhow::Result<Part> {
    let book = Book::create(&bench.embedded, "logins").await?;
    // They come from as many addresses, and all are let into the queue.
    let settings =
        ["--trusted-proxies=127.0.0.1", "--password-waiting-max=2000", "--http-timeout=10m"];
    let server = Server::start_with(&book, &settings).await?;
    let target = Target::prepare(&server.address, WALLETS).await?;
    let meter = Meter::new(&[server.id()], &bench.folder);
    let load = |ask, connections| Load {
        address: &server.address,
        ask,
        connections,
        accounts: WALLETS as usize,
        time: bench.args.each,
    };
    let (mut quiet, mut crowded, mut ratios) = (Vec::new(), Vec::new(), Vec::new());
    for turn in 1..=TURNS {
        tracing::info!("balances, in peace and beside logins, turn {turn} of {TURNS}");
        let alone = target.load(&meter, load(Ask::Balance, READERS)).await?;
        let both = [load(Ask::Balance, READERS), load(Ask::Login, LOGINS)];
        let ([beside, _logins], used) = target.loads(&meter, both).await?;
        ratios.push(beside.latencies.quantile(0.99) / alone.0.latencies.quantile(0.99));
        quiet.push(alone);
        crowded.push((beside, used));
    }
    server.kill().await?;
    let mut part = Part::default();
    for (what, runs) in [("balances over HTTP", quiet), ("the same beside 1,000 logins", crowded)] {
        let (run, used) = middle(runs)?;
        part.figures.push(Figure { what: what.to_owned(), clients: READERS, run, used });
    }
    let what = "p99 of balances beside 1,000 logins in flight, against in peace";
    part.goal(what, median(ratios), Wanted::AtMost(5.0));
    Ok(part)
}
