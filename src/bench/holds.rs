//! Holds and captures, whose state moves with their money, beside plain transfers.

use super::book::Book;
use super::load::{Ask, Load, Target};
use super::meter::Meter;
use super::report::{Figure, Part, Wanted, median, middle};
use super::server::Server;
use super::{Bench, check};

/// Few enough to be funded, many enough not to meet.
const WALLETS: u32 = 1_000;

/// In each of them at the start.
const EUROS: u32 = 1_000_000;

const CONNECTIONS: usize = 64;

/// How often each is measured: the middle counts.
const TURNS: u32 = 3;

pub(super) async fn measure(bench: &Bench) -> anyhow::Result<Part> {
    let book = Book::create(&bench.embedded, "holds").await?;
    let server = Server::start(&book).await?;
    let target = Target::prepare_with(&server.address, WALLETS, EUROS).await?;
    let meter = Meter::new(&[server.id()], &bench.folder);
    let load = |ask| Load {
        address: &server.address,
        ask,
        connections: CONNECTIONS,
        accounts: WALLETS as usize,
        time: bench.args.each,
    };
    let (mut transfers, mut holds, mut ratios) = (Vec::new(), Vec::new(), Vec::new());
    for turn in 1..=TURNS {
        tracing::info!("transfers, and holds with captures, turn {turn} of {TURNS}");
        let plain = target.load(&meter, load(Ask::Transfer)).await?;
        let held = target.load(&meter, load(Ask::HoldAndCapture)).await?;
        ratios.push(held.0.rate / plain.0.rate);
        transfers.push(plain);
        holds.push(held);
    }
    server.kill().await?;
    let mut part = Part::default();
    for (what, runs) in
        [("transfers over HTTP", transfers), ("holds and captures over HTTP", holds)]
    {
        let (run, used) = middle(runs)?;
        part.figures.push(Figure { what: what.to_owned(), clients: CONNECTIONS, run, used });
    }
    let what = "holds and captures, against transfers";
    part.goal(what, median(ratios), Wanted::AtLeast(0.5));
    part.notes.push(format!("Holds: {}.", check::verified(&book).await?));
    Ok(part)
}
