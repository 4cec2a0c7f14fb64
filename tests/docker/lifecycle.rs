//! A container of the image without privileges or writable files: start, health check, stop.

use serde_json::Value;

use crate::engine::{IMAGE, docker, inspect};
use crate::network::TestNetwork;

/// Returns the log lines of an event.
fn events(log: &str, event: &str) -> Vec<Value> {
    let lines = log.lines().map(|line| serde_json::from_str::<Value>(line).unwrap());
    lines.filter(|line| line["event"] == event).collect()
}

#[test]
fn the_health_check_follows_the_database() {
    let network = TestNetwork::new();

    network.start_server("api-1");
    docker(&["stop", &network.container("db")]).unwrap();
    network.wait_for_health("api-1", "unhealthy");
    docker(&["start", &network.container("db")]).unwrap();

    network.wait_for_health("api-1", "healthy");
}

#[test]
fn docker_stop_shuts_down_gracefully() {
    let network = TestNetwork::new();
    network.start_server("api-1");

    docker(&["stop", "--time=30", &network.container("api-1")]).unwrap();

    assert_eq!(inspect(&network.container("api-1"), "{{.State.ExitCode}}"), "0");
    assert_eq!(
        events(&network.log("api-1"), "serve.stopped").len(),
        1,
        "the shutdown was not graceful"
    );
}

#[test]
fn without_a_database_url_the_error_names_the_setting() {
    let error = docker(&["run", "--rm", "--read-only", IMAGE]).unwrap_err();

    assert!(error.starts_with("revwallet: ") && error.contains("DATABASE_URL"), "{error}");
    assert_eq!(error.lines().count(), 1, "{error}");
}

#[test]
fn the_program_exposes_the_revision_of_the_label() {
    let network = TestNetwork::new();
    network.start_server("api-1");
    let label = inspect(IMAGE, "{{index .Config.Labels \"org.opencontainers.image.revision\"}}");

    let metrics = network.fetch("http://api-1:9000/metrics");

    let info = metrics.lines().find(|line| line.starts_with("wallet_build_info{")).unwrap();
    assert!(info.contains(&format!("revision=\"{label}\"")), "{info}");
}
