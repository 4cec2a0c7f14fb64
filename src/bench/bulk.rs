//! Many transfers in each posting, through the ledger itself: what an atomic batch comes down to.

use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::Context;
use tokio::task::JoinSet;

use super::book::{Book, Dice, Writing, deposits};
use super::histogram::Histogram;
use super::meter::{Meter, Used};
use super::report::{Figure, Part, Run, Wanted};
use super::{ACCOUNTS, Bench, check};

/// Transfers of a batch of the writer, wide enough for a large posting.
pub(super) const LEGS_MAX: usize = 8_192;

/// Postings in flight, and transfers of each.
const LARGE: (usize, usize) = (4, 1_000);
const SINGLE: (usize, usize) = (4_096, 1);

pub(super) async fn measure(bench: &Bench) -> anyhow::Result<Part> {
    let book = Book::create(&bench.embedded, "bulk").await?;
    let writing = book.write(Vec::new(), LEGS_MAX).await?;
    let accounts = writing.open(&mut book.connect().await?, ACCOUNTS).await?;
    let meter = Meter::new(&[std::process::id()], &bench.folder);
    let mut part = Part::default();
    for (what, (callers, legs)) in [
        ("bulk: postings of 1,000 transfers, in-process", LARGE),
        ("bulk: postings of one transfer, in-process", SINGLE),
    ] {
        tracing::info!("{what}");
        let before = meter.read();
        let run = run(&writing, &accounts, callers, legs, bench.args.each).await?;
        let used: Used = meter.read().since(&before);
        part.figures.push(Figure { what: what.to_owned(), clients: callers, run, used });
    }
    writing.stop().await?;
    let rate = part.figures.first().context("it was measured")?.run.rate;
    part.goal("bulk, transfers a second", rate, Wanted::AtLeast(60_000.0));
    part.notes.push(format!("Bulk: {}.", check::verified(&book).await?));
    Ok(part)
}

/// So many callers post one after the other.
pub(super) async fn run(
    writing: &Writing,
    accounts: &[i64],
    callers: usize,
    legs: usize,
    time: Duration,
) -> anyhow::Result<Run> {
    let began = Instant::now();
    let end = began + time;
    let accounts: Arc<[i64]> = accounts.into();
    let mut tasks = JoinSet::new();
    for caller in 0..callers {
        let (ledger, accounts) = (writing.ledger.clone(), Arc::clone(&accounts));
        tasks.spawn(async move {
            let mut dice = Dice::new(caller as u64 + 1);
            let mut latencies = Histogram::default();
            let mut sent = Instant::now();
            while sent < end {
                let some = (0..legs).map(|_| accounts[dice.below(accounts.len())]);
                ledger.post(deposits(some)).await?;
                let answered = Instant::now();
                latencies.record(answered - sent);
                sent = answered;
            }
            anyhow::Ok(latencies)
        });
    }
    let mut latencies = Histogram::default();
    while let Some(part) = tasks.join_next().await {
        latencies.add(&part??);
    }
    let each = f64::from(u32::try_from(legs)?);
    Ok(Run::new(latencies, each, began.elapsed()))
}
