//! Scenario `old-snapshot`: deposits while a transaction holds an old snapshot, as a dump or a long report does,
//! relative to deposits without an old snapshot.

use crate::book::BenchBook;
use crate::context::{ACCOUNTS, BenchContext};
use crate::load::{LoadOperation, LoadSpec, LoadTarget};
use crate::report::{Measurement, ReportSection, TargetBound};
use crate::samples::median_sample;
use crate::sql;
use crate::verification::verify_deposits;

const CONNECTIONS: usize = 64;

/// Whether a transaction holds an old snapshot, for each round. One snapshot is held for three consecutive rounds, so
/// that it ages; the rounds before and after run without it.
const HELD: [bool; 6] = [false, true, true, true, false, false];

pub(super) async fn measure(context: &BenchContext) -> anyhow::Result<ReportSection> {
    let book = BenchBook::create(&context.postgres, "old_snapshot").await?;
    let server = context.start_server(&book).await?;
    let target = LoadTarget::open(&server.address, ACCOUNTS).await?;
    let monitor = context.monitor(&[server.id()]);
    let mut db = book.connect().await?;
    let (mut with, mut without) = (Vec::new(), Vec::new());
    let mut is_held = false;
    for (turn, held) in HELD.into_iter().enumerate() {
        tracing::info!(
            "measuring deposits {} an old snapshot, round {} of {}",
            if held { "with" } else { "without" },
            turn + 1,
            HELD.len()
        );
        match (is_held, held) {
            (false, true) => sql::hold_snapshot(&mut db).await?,
            (true, false) => sql::release_snapshot(&mut db).await?,
            _ => {}
        }
        is_held = held;
        let spec = LoadSpec {
            address: server.address.clone(),
            operation: LoadOperation::Deposit,
            connections: CONNECTIONS,
            wallets: ACCOUNTS as usize,
            duration: context.args.duration,
        };
        let sample = target.run(&monitor, spec).await?;
        if held { &mut with } else { &mut without }.push(sample);
    }
    server.kill().await?;
    let (without, with) = (median_sample(without)?, median_sample(with)?);
    let mut section = ReportSection::default();
    let label = "deposits with an old snapshot, relative to deposits without";
    section.add_target(label, with.rate() / without.rate(), TargetBound::AtLeast(0.8));
    section.measurements.extend([
        Measurement::new("deposits without an old snapshot", CONNECTIONS, without),
        Measurement::new("deposits with an old snapshot", CONNECTIONS, with),
    ]);
    section.add_note(format!("Old snapshot: {}.", verify_deposits(&book, &target).await?));
    Ok(section)
}
