//! Measures the resident memory that the server needs for each idle WebSocket connection.

use std::time::Duration;

use super::{CONNECTS_PER_SECOND, SETTINGS, topics};
use crate::book::BenchBook;
use crate::context::BenchContext;
use crate::load::{LoadTarget, on_one_thread};
use crate::report::{ReportSection, TargetBound};
use crate::subscribers::{SubscriberSpec, Subscribers};

const CONNECTIONS: u32 = 10_000;

/// Number of connections that are opened and closed before the first measurement, so that the first measurement already
/// includes the memory that a server allocates for its first connections and keeps.
const WARM_UP_CONNECTIONS: u32 = 100;

/// Pause before a measurement, in which the server releases the memory that it needs only to open connections.
const SETTLE: Duration = Duration::from_secs(2);

/// Target for the memory of each idle connection, in kibibytes.
const KIB_MAX: f64 = 12.0;

/// Measures connections that subscribe to different topics, because such connections take more memory than connections
/// that share a topic.
pub(super) async fn measure(
    context: &BenchContext,
    book: &BenchBook,
    target: &LoadTarget,
    section: &mut ReportSection,
) -> anyhow::Result<()> {
    tracing::info!("measuring the memory of {CONNECTIONS} idle connections");
    let server = context.start_server_with(book, &SETTINGS).await?;
    let monitor = context.monitor(&[server.id()]);
    let spec = |count| SubscriberSpec {
        address: server.address.clone(),
        count,
        topics: topics(target, CONNECTIONS as usize),
        after: None,
        within: Duration::from_secs(1) * CONNECTIONS / CONNECTS_PER_SECOND,
    };
    let (few, many) = (spec(WARM_UP_CONNECTIONS as usize), spec(CONNECTIONS as usize));
    let (before, after) = on_one_thread(async move || {
        Subscribers::start(&few).wait_until_subscribed().await?;
        tokio::time::sleep(SETTLE).await;
        let before = monitor.memory_bytes();
        let mut idle = Subscribers::start(&many);
        idle.wait_until_subscribed().await?;
        tokio::time::sleep(SETTLE).await;
        Ok((before, monitor.memory_bytes()))
    })
    .await?;
    server.kill().await?;
    let [before, after] = [before, after].map(kibibytes);
    let label = format!("memory of each of {CONNECTIONS} idle WebSocket connections, KiB");
    let each = (after - before) / f64::from(CONNECTIONS);
    section.add_target(label, each, TargetBound::AtMost(KIB_MAX));
    section.add_note(format!(
        "Idle WebSocket connections: each is subscribed to a topic of its own; the server grew from {before:.0} to {after:.0} KiB."
    ));
    Ok(())
}

fn kibibytes(bytes: u64) -> f64 {
    u32::try_from(bytes / 1024).map_or(f64::INFINITY, f64::from)
}
