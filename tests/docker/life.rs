//! How the image lives: started with nothing that it could write to or become, asked how it is, stopped.

use serde_json::Value;

use crate::engine::{IMAGE, docker, fact};
use crate::network::Lab;

/// The lines of a log that tell of an event.
fn events(log: &str, event: &str) -> Vec<Value> {
    let lines = log.lines().map(|line| serde_json::from_str::<Value>(line).unwrap());
    lines.filter(|line| line["event"] == event).collect()
}

#[test]
fn its_health_follows_the_database() {
    let lab = Lab::new();

    lab.server("api-1");
    docker(&["stop", &lab.container("db")]).unwrap();
    lab.becomes("api-1", "unhealthy");
    docker(&["start", &lab.container("db")]).unwrap();

    lab.becomes("api-1", "healthy");
}

#[test]
fn it_ends_in_good_order_when_it_is_stopped() {
    let lab = Lab::new();
    lab.server("api-1");

    docker(&["stop", "--time=30", &lab.container("api-1")]).unwrap();

    assert_eq!(fact(&lab.container("api-1"), "{{.State.ExitCode}}"), "0");
    assert_eq!(events(&lab.log("api-1"), "serve.stopped").len(), 1, "it was not cut off");
}

#[test]
fn without_a_database_it_says_what_it_needs() {
    let said = docker(&["run", "--rm", "--read-only", IMAGE]).unwrap_err();

    assert!(said.starts_with("revwallet: ") && said.contains("DATABASE_URL"), "{said}");
    assert_eq!(said.lines().count(), 1, "{said}");
}

#[test]
fn it_knows_the_revision_that_its_label_names() {
    let lab = Lab::new();
    lab.server("api-1");
    let label = fact(IMAGE, "{{index .Config.Labels \"org.opencontainers.image.revision\"}}");

    let metrics = lab.fetch("http://api-1:9000/metrics");

    let info = metrics.lines().find(|line| line.starts_with("wallet_build_info{")).unwrap();
    assert!(info.contains(&format!("revision=\"{label}\"")), "{info}");
}
