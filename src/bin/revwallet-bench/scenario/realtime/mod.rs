//! Scenario `realtime`, on WebSocket connections: memory of idle connections, deliveries to many subscribers, and
//! clients that reconnect all at once.
//!
//! | part | measures |
//! |---|---|
//! | [`idle`] | resident memory of the server for each idle connection |
//! | [`fan_out`] | deliveries per second, and the time from a commit until a subscriber has the event, also on another process |
//! | [`reconnect`] | deposits while thousands of clients reconnect and resume |
//!
//! Each subscriber must receive each event of its topic exactly once. The commit time of an event comes from its batch:
//! the database reads the clock just before it commits the batch.

mod fan_out;
mod idle;
mod reconnect;

use crate::book::BenchBook;
use crate::context::{ACCOUNTS, BenchContext};
use crate::load::LoadTarget;
use crate::report::ReportSection;
use crate::verification::verify_deposits;

/// Settings of the server: it admits all clients although they share an address, and does not close connections that
/// are waiting for a load to begin.
const SETTINGS: [&str; 3] = [
    "--realtime-connections-max=100000",
    "--realtime-connections-per-address=100000",
    "--http-header-timeout=2m",
];

/// Number of new connections per second while many connections are opened.
const CONNECTS_PER_SECOND: u32 = 5_000;

/// Number of rounds. The report contains the median of each measurement.
const TURNS: u32 = 3;

pub(super) async fn measure(context: &BenchContext) -> anyhow::Result<ReportSection> {
    let book = BenchBook::create(&context.postgres, "realtime").await?;
    let server = context.start_server_with(&book, &SETTINGS).await?;
    let target = LoadTarget::open(&server.address, ACCOUNTS).await?;
    server.kill().await?;
    let mut section = ReportSection::default();
    idle::measure(context, &book, &target, &mut section).await?;
    fan_out::measure(context, &book, &target, &mut section).await?;
    reconnect::measure(context, &book, &target, &mut section).await?;
    section.add_note(format!("Realtime: {}.", verify_deposits(&book, &target).await?));
    Ok(section)
}

/// Returns the topics of the first `count` wallets.
fn topics(target: &LoadTarget, count: usize) -> Vec<String> {
    target.wallet_ids().take(count).map(|id| format!("wallet:{id}")).collect()
}
