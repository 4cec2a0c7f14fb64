//! A large book beside a small one: what a transfer and what a read costs.

use std::time::{Duration, Instant};

use indicatif::{ProgressBar, ProgressStyle};
use tokio::task::JoinSet;

use super::book::{Book, Dice, deposits, unsigned};
use super::bulk::LEGS_MAX;
use super::load::{Ask, Load, Target};
use super::meter::Meter;
use super::report::{Figure, Part, Wanted, median, middle};
use super::server::Server;
use super::{ACCOUNTS, Bench, check, sql};

const SMALL: i64 = 100_000;

/// Transfers of a posting while filling, and how many wait at once.
const LEGS: i64 = 2_000;
const FILLING: usize = 6;

/// How often each is measured: the middle counts.
const TURNS: u32 = 3;

/// What is asked of both books, with how many connections and the name it has in the table.
const ASKED: [(Ask, usize, &str); 3] =
    [(Ask::Deposit, 64, "deposits"), (Ask::Balance, 16, "balance"), (Ask::History, 16, "history")];

/// A book of some size and a program that serves it.
struct Grown {
    name: String,
    book: Book,
    target: Target,
    server: Server,
}

pub(super) async fn measure(bench: &Bench) -> anyhow::Result<Part> {
    let small = Grown::create(bench, "small", SMALL).await?;
    let large = Grown::create(bench, "large", bench.args.grow_to).await?;
    let mut part = Part::default();
    for (ask, connections, what) in ASKED {
        let (mut runs, mut ratios) = ([Vec::new(), Vec::new()], Vec::new());
        for turn in 1..=TURNS {
            tracing::info!("{what} with a small and a large book, turn {turn} of {TURNS}");
            for (grown, runs) in [&small, &large].into_iter().zip(&mut runs) {
                let meter = Meter::new(&[grown.server.id()], &bench.folder);
                let load = Load {
                    address: &grown.server.address,
                    ask,
                    connections,
                    accounts: ACCOUNTS as usize,
                    time: bench.args.each,
                };
                runs.push(grown.target.load(&meter, load).await?);
            }
            if let [Some((small, _)), Some((large, _))] = [runs[0].last(), runs[1].last()] {
                ratios.push(small.rate / large.rate);
            }
        }
        for (grown, runs) in [&small, &large].into_iter().zip(runs) {
            let (run, used) = middle(runs)?;
            let what = format!("{what}, {}", grown.name);
            part.figures.push(Figure { what, clients: connections, run, used });
        }
        let what = format!("{what}: cost with {}, against {}", large.name, small.name);
        part.goal(what, median(ratios), Wanted::AtMost(1.3));
    }
    for grown in [small, large] {
        grown.server.kill().await?;
        let checked = check::deposits(&grown.book, &grown.target).await?;
        part.notes.push(format!("{}: {checked}.", grown.name));
    }
    Ok(part)
}

impl Grown {
    /// Opens wallets over HTTP, as anybody would, and fills the book with large postings.
    async fn create(bench: &Bench, name: &str, transfers: i64) -> anyhow::Result<Self> {
        let book = Book::create(&bench.embedded, name).await?;
        let server = Server::start(&book).await?;
        let target = Target::prepare(&server.address, ACCOUNTS).await?;
        server.kill().await?;
        fill(&book, &target, transfers - i64::from(ACCOUNTS)).await?;
        sql::settle(&mut book.connect().await?).await?;
        let server = Server::start(&book).await?;
        audited(&book, transfers).await?;
        // What is done once is not what a transfer costs: caches are filled, and after a checkpoint each page that is
        // touched goes to the log whole.
        let load = Load {
            address: &server.address,
            ask: Ask::Deposit,
            connections: 64,
            accounts: ACCOUNTS as usize,
            time: 2 * bench.args.each,
        };
        target.load(&Meter::new(&[server.id()], &bench.folder), load).await?;
        Ok(Self { name: format!("{name} book of {transfers}"), book, target, server })
    }
}

/// Waits until the auditor has read what was written without it: otherwise it would be measured too.
async fn audited(book: &Book, transfers: i64) -> anyhow::Result<()> {
    let bar = bar("auditing", transfers)?;
    let mut db = book.connect().await?;
    loop {
        let reached = sql::audited(&mut db).await?;
        bar.set_position(unsigned(reached)?);
        if reached >= transfers {
            bar.finish_and_clear();
            return Ok(());
        }
        tokio::time::sleep(Duration::from_millis(200)).await;
    }
}

fn bar(doing: &str, transfers: i64) -> anyhow::Result<ProgressBar> {
    let bar = ProgressBar::new(unsigned(transfers)?);
    bar.set_style(ProgressStyle::with_template(&format!(
        "{doing} {{bar:40}} {{pos}}/{{len}} transfers, {{per_sec}}, {{eta}} left"
    ))?);
    Ok(bar)
}

async fn fill(book: &Book, target: &Target, transfers: i64) -> anyhow::Result<()> {
    let bar = bar("filling", transfers)?;
    let writing = book.write(Vec::new(), LEGS_MAX).await?;
    let accounts: Vec<i64> = target.wallets().collect();
    let mut dice = Dice::new(7);
    let mut tasks: JoinSet<anyhow::Result<u64>> = JoinSet::new();
    let (mut left, began) = (transfers, Instant::now());
    while left > 0 || !tasks.is_empty() {
        if left > 0 && tasks.len() < FILLING {
            let legs = left.min(LEGS);
            left -= legs;
            let mut chosen = Vec::with_capacity(accounts.len().min(1 << 12));
            for _ in 0..legs {
                let place = dice.below(accounts.len());
                target.note(place, 1);
                chosen.push(accounts[place]);
            }
            let ledger = writing.ledger.clone();
            tasks.spawn(async move {
                ledger.post(deposits(chosen.into_iter())).await?;
                unsigned(legs)
            });
        } else if let Some(done) = tasks.join_next().await {
            bar.inc(done??);
        }
    }
    bar.finish_and_clear();
    tracing::info!("{transfers} transfers written in {:.0} s", began.elapsed().as_secs_f64());
    writing.stop().await
}
