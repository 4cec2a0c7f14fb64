//! Scenario `failover`: four servers share a ledger, and the leader, which writes the ledger for all of them, is killed
//! every few seconds.

use std::time::Duration;

use anyhow::Context;

use crate::book::BenchBook;
use crate::context::{ACCOUNTS, BenchContext};
use crate::load::LoadTarget;
use crate::load::failover::{FailoverSpec, ServerList};
use crate::report::{Measurement, ReportSection, TargetBound};
use crate::samples::LoadSample;
use crate::server_process::ServerProcess;
use crate::sql;
use crate::verification::verify_deposits;

const SERVERS: usize = 4;

/// Total number of connections to all servers.
const CONNECTIONS: usize = 256;

/// Total number of deposits per second to all servers: few enough that the servers can catch up after a kill.
const DEPOSITS: u32 = 3_000;

/// Number of times that the leader is killed.
const KILLS: u32 = 5;

/// Time before each kill of the leader.
const KILL_INTERVAL: Duration = Duration::from_secs(5);

/// Upper bound for the 99th percentile of deposit latencies, in milliseconds. Deposits whose connection ended do not
/// count.
const P99_MAX_MS: f64 = 500.0;

pub(super) async fn measure(context: &BenchContext) -> anyhow::Result<ReportSection> {
    let book = BenchBook::create(&context.postgres, "failover").await?;
    let (list, mut servers) = (ServerList::default(), Vec::new());
    for _ in 0..SERVERS {
        servers.push(start_server(context, &book, &list).await?);
    }
    let target = LoadTarget::open(&servers[0].address, ACCOUNTS).await?;
    let monitor = context.monitor(&[]);
    let duration = KILL_INTERVAL * (KILLS + 1);
    let spec = FailoverSpec { connections: CONNECTIONS, rate: DEPOSITS, duration };
    let load = target.deposit_with_failover(&list, spec);
    let kills = Box::pin(kill_leaders(context, &book, &list, servers));
    let (outcome, usage) = monitor.measure(async { tokio::try_join!(load, kills) }).await?;
    let (deposits, servers) = outcome;
    for server in servers {
        server.kill().await?;
    }
    let mut section = ReportSection::default();
    let sample = LoadSample { result: deposits.served, usage };
    let label = format!(
        "p99 of deposits while the leader of {SERVERS} servers is killed every {} s, ms",
        KILL_INTERVAL.as_secs()
    );
    section.add_target(label, sample.p99_ms(), TargetBound::AtMost(P99_MAX_MS));
    let label = "deposits while the leader is killed, without those whose connection ended";
    section.measurements.push(Measurement::new(label, CONNECTIONS, sample));
    section.add_note(format!(
        "{KILLS} leaders killed: {} deposits lost their connection, the slowest acknowledged after {:.0} ms; {}.",
        deposits.cut_off.len(),
        deposits.cut_off.quantile_ms(1.0),
        verify_deposits(&book, &target).await?
    ));
    Ok(section)
}

async fn start_server(
    context: &BenchContext,
    book: &BenchBook,
    list: &ServerList,
) -> anyhow::Result<ServerProcess> {
    let server = context.start_server(book).await?;
    list.add(&server.address);
    Ok(server)
}

/// Kills the leader at regular intervals, and starts a new server after each kill. Returns the servers that are running
/// at the end.
async fn kill_leaders(
    context: &BenchContext,
    book: &BenchBook,
    list: &ServerList,
    mut servers: Vec<ServerProcess>,
) -> anyhow::Result<Vec<ServerProcess>> {
    let mut db = book.connect().await?;
    let mut times = tokio::time::interval(KILL_INTERVAL);
    times.tick().await;
    for kill in 1..=KILLS {
        times.tick().await;
        tracing::info!("killing the ledger's leader, kill {kill} of {KILLS}");
        let leader = sql::leader(&mut db).await?;
        let index = servers.iter().position(|server| server.internal_address == leader);
        let leader = servers.swap_remove(index.context("the leader is none of the servers")?);
        list.remove(&leader.address);
        leader.kill().await?;
        servers.push(start_server(context, book, list).await?);
    }
    Ok(servers)
}
