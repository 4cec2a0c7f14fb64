//! Another build of this program beside this one: deposits over HTTP, by turns, so that a machine that drifts meets both.

use std::path::Path;

use super::book::Book;
use super::load::{Ask, Load, Target};
use super::meter::Meter;
use super::report::{Figure, Part, Wanted, median, middle};
use super::server::Server;
use super::{ACCOUNTS, Bench};

const CONNECTIONS: [usize; 3] = [1, 64, 256];

/// How often each is measured: the middle counts.
const TURNS: u32 = 7;

pub(super) async fn measure(bench: &Bench, other: &Path) -> anyhow::Result<Part> {
    let here = Book::create(&bench.embedded, "here").await?;
    // The other program brings its own schema.
    let there = Book::empty(&bench.embedded, "there").await?;
    let servers = [Server::start(&here).await?, Server::run(other, &there, &[]).await?];
    let mut targets = Vec::new();
    for server in &servers {
        targets.push(Target::prepare(&server.address, ACCOUNTS).await?);
    }
    let mut part = Part::default();
    for connections in CONNECTIONS {
        let (mut runs, mut ratios) = ([Vec::new(), Vec::new()], Vec::new());
        for turn in 1..=TURNS {
            tracing::info!("{connections} connections, turn {turn} of {TURNS}");
            for ((server, target), runs) in servers.iter().zip(&targets).zip(&mut runs) {
                let load = Load {
                    address: &server.address,
                    ask: Ask::Deposit,
                    connections,
                    accounts: ACCOUNTS as usize,
                    time: bench.args.each / 4,
                };
                let meter = Meter::new(&[server.id()], &bench.folder);
                runs.push(target.load(&meter, load).await?);
            }
            if let [Some((here, _)), Some((there, _))] = [runs[0].last(), runs[1].last()] {
                ratios.push(here.rate / there.rate);
            }
        }
        for (what, runs) in ["this program", "the other program"].into_iter().zip(runs) {
            let (run, used) = middle(runs)?;
            part.figures.push(Figure { what: what.to_owned(), clients: connections, run, used });
        }
        let what = format!("{connections} connections, against the other program");
        part.goal(what, median(ratios), Wanted::AtLeast(1.0));
    }
    for server in servers {
        server.kill().await?;
    }
    Ok(part)
}
