//! A posting that brings a row of another slice, beside one that does not: 64 callers of the ledger itself.
//!
//! Over HTTP the difference would be smaller, because everything else would be the same.

use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::ensure;
use serde::Serialize;
use tokio::task::JoinSet;

use super::book::{Book, Dice, Writing, deposits, unsigned};
use super::histogram::Histogram;
use super::meter::Meter;
use super::report::{Figure, Part, Run, Wanted, middle};
use super::{ACCOUNTS, Bench, check, sql};
use crate::ledger::companion::Companion;

/// How often each is measured: the middle counts.
const TURNS: u32 = 3;

const CALLERS: usize = 64;

#[derive(Serialize)]
struct Note {
    account: i64,
}

pub(super) async fn measure(bench: &Bench) -> anyhow::Result<Part> {
    let book = Book::create(&bench.embedded, "companion").await?;
    let mut db = book.connect().await?;
    sql::create_notes(&mut db).await?;
    let writing = book.write(vec![&sql::NOTED], 1024).await?;
    let accounts = writing.open(&mut db, ACCOUNTS).await?;
    let meter = Meter::new(&[std::process::id()], &bench.folder);
    let mut without = Vec::new();
    let mut with = Vec::new();
    let mut noted = 0;
    for turn in 1..=TURNS {
        for companions in [false, true] {
            tracing::info!("companions {companions}, turn {turn} of {TURNS}");
            let before = meter.read();
            let (run, count) = run(&writing, &accounts, companions, bench.args.each / 2).await?;
            let used = meter.read().since(&before);
            noted += if companions { count } else { 0 };
            if companions { &mut with } else { &mut without }.push((run, used));
        }
    }
    writing.stop().await?;
    let mut part = Part::default();
    for (what, runs) in [
        ("postings without a companion, in-process", without),
        ("postings with one companion, in-process", with),
    ] {
        let (run, used) = middle(runs)?;
        part.figures.push(Figure { what: what.to_owned(), clients: CALLERS, run, used });
    }
    let cost = part.figures[0].run.rate / part.figures[1].run.rate;
    part.goal("cost of a posting with a companion, against one without", cost, Wanted::AtMost(1.6));
    let written = unsigned(sql::count_notes(&mut db).await?)?;
    ensure!(written == noted, "{noted} companions were acknowledged, {written} were written");
    let verified = check::verified(&book).await?;
    part.notes.push(format!("Companions: {noted} acknowledged, each written once; {verified}."));
    Ok(part)
}

async fn run(
    writing: &Writing,
    accounts: &[i64],
    companions: bool,
    time: Duration,
) -> anyhow::Result<(Run, u64)> {
    let began = Instant::now();
    let end = began + time;
    let accounts: Arc<[i64]> = accounts.into();
    let mut tasks = JoinSet::new();
    for caller in 0..CALLERS {
        let (ledger, accounts) = (writing.ledger.clone(), Arc::clone(&accounts));
        tasks.spawn(async move {
            let mut dice = Dice::new(caller as u64 + 1);
            let mut latencies = Histogram::default();
            let mut count = 0;
            let mut sent = Instant::now();
            while sent < end {
                let account = accounts[dice.below(accounts.len())];
                let mut posting = deposits([account].into_iter());
                if companions {
                    let companion = Companion::new(&sql::NOTED, &Note { account }, "noted")?;
                    posting.companions.push(companion);
                }
                ledger.post(posting).await?;
                count += 1;
                let answered = Instant::now();
                latencies.record(answered - sent);
                sent = answered;
            }
            anyhow::Ok((latencies, count))
        });
    }
    let mut latencies = Histogram::default();
    let mut total = 0;
    while let Some(part) = tasks.join_next().await {
        let (part, count) = part??;
        latencies.add(&part);
        total += count;
    }
    Ok((Run::new(latencies, 1.0, began.elapsed()), total))
}
