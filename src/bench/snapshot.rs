//! With an old snapshot held open, as a dump or a long report does, and without.

use super::book::Book;
use super::load::{Ask, Load, Target};
use super::meter::Meter;
use super::report::{Figure, Part, Wanted, middle};
use super::server::Server;
use super::{ACCOUNTS, Bench, check, sql};

const CONNECTIONS: usize = 64;

/// The snapshot is taken at the second and held to the last but one: what drifts meets both.
const HELD: [bool; 6] = [false, true, true, true, false, false];

pub(super) async fn measure(bench: &Bench) -> anyhow::Result<Part> {
    let book = Book::create(&bench.embedded, "snapshot").await?;
    let server = Server::start(&book).await?;
    let target = Target::prepare(&server.address, ACCOUNTS).await?;
    let meter = Meter::new(&[server.id()], &bench.folder);
    let mut db = book.connect().await?;
    let mut is_held = false;
    let (mut with, mut without) = (Vec::new(), Vec::new());
    for (turn, held) in HELD.into_iter().enumerate() {
        tracing::info!("old snapshot {held}, {} of {}", turn + 1, HELD.len());
        match (is_held, held) {
            (false, true) => drop(sql::hold_snapshot(&mut db).await?),
            (true, false) => sql::release_snapshot(&mut db).await?,
            _ => {}
        }
        is_held = held;
        let load = Load {
            address: &server.address,
            ask: Ask::Deposit,
            connections: CONNECTIONS,
            accounts: ACCOUNTS as usize,
            time: bench.args.each,
        };
        let measured = target.load(&meter, load).await?;
        if held { &mut with } else { &mut without }.push(measured);
    }
    server.kill().await?;
    let mut part = Part::default();
    for (what, runs) in
        [("without an old snapshot", without), ("with an old snapshot held open", with)]
    {
        let (run, used) = middle(runs)?;
        part.figures.push(Figure { what: what.to_owned(), clients: CONNECTIONS, run, used });
    }
    let ratio = part.figures[1].run.rate / part.figures[0].run.rate;
    part.goal("with an old snapshot held open, against without", ratio, Wanted::AtLeast(0.8));
    part.notes.push(format!("Old snapshot: {}.", check::deposits(&book, &target).await?));
    Ok(part)
}
