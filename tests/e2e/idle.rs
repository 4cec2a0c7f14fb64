//! Cost of a program without requests for its database.

use std::path::Path;
use std::time::{Duration, Instant};

use crate::harness::program::Program;
use crate::harness::server::Cluster;

/// Maximum number of statements a second of an idle program, of which about four and a half were measured.
const STATEMENTS_MAX: f64 = 5.0;

/// Time of the measurement: it contains all that happens every 15 s as often as any other minute does.
const MEASURED_FOR: Duration = Duration::from_secs(30);

/// Number of statements in the log of the server.
fn statements(log: &Path) -> usize {
    let text = std::fs::read_to_string(log).unwrap_or_default();
    text.lines().filter(|line| line.contains(" execute ") || line.contains(" statement: ")).count()
}

#[tokio::test]
async fn an_idle_program_sends_few_statements() {
    let cluster = Cluster::init(&["-U", "revwallet", "--auth=trust"]);
    let log = cluster.path("cluster/log/statements");
    let settings = ["log_statement=all", "logging_collector=on", "log_filename=statements"];
    let server = cluster.start(&settings).await;
    let url = format!("--database-url=postgres://revwallet@{}/postgres", server.address);
    let program = Program::start(&[&url, "--access=open", "--allow-unsafe-server"]).await;
    // The start is not idle.
    tokio::time::sleep(Duration::from_secs(5)).await;
    let (before, started) = (statements(&log), Instant::now());
    assert!(before > 100, "the log has the statements of the start");

    tokio::time::sleep(MEASURED_FOR).await;

    #[expect(clippy::cast_precision_loss, reason = "a count for a rate")]
    let rate = (statements(&log) - before) as f64 / started.elapsed().as_secs_f64();
    assert!(rate <= STATEMENTS_MAX, "{rate:.1} statements a second");
    assert!(program.stop().await.success());
}
