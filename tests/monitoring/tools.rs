//! Prometheus and Alertmanager with their tools, downloaded once into the target folder.

use std::path::PathBuf;
use std::process::Command;
use std::sync::OnceLock;

use crate::generated_files::root;

/// Path of `prometheus`, `promtool`, `prometheus-alertmanager` or `amtool`.
pub fn tool(name: &str) -> PathBuf {
    static FOLDER: OnceLock<PathBuf> = OnceLock::new();
    let folder = FOLDER.get_or_init(|| {
        let script = "source scripts/lib/setup.sh && prometheus_tools";
        let output =
            Command::new("bash").args(["-c", script]).current_dir(root()).output().unwrap();
        let errors = String::from_utf8_lossy(&output.stderr).into_owned();
        assert!(output.status.success(), "Prometheus is not available: {errors}");
        PathBuf::from(String::from_utf8(output.stdout).unwrap().trim())
    });
    folder.join(name)
}

/// Runs a tool in the root of the repository; returns its output, as an error if it failed.
pub fn run(name: &str, arguments: &[&str]) -> Result<String, String> {
    let output = Command::new(tool(name)).args(arguments).current_dir(root()).output().unwrap();
    let text = format!(
        "{}{}",
        String::from_utf8_lossy(&output.stdout),
        String::from_utf8_lossy(&output.stderr)
    );
    if output.status.success() { Ok(text) } else { Err(text) }
}

#[test]
fn prometheus_accepts_its_configuration_and_rules() {
    let output = run("promtool", &["check", "config", "prometheus/prometheus.yml"]).unwrap();
    assert!(output.contains("SUCCESS"), "{output}");
    run(
        "promtool",
        &["check", "rules", "prometheus/rules/slos.yml", "prometheus/rules/alerts.yml"],
    )
    .unwrap();
}

#[test]
fn every_alert_fires_in_its_unit_test_and_none_in_a_healthy_system() {
    let output = run(
        "promtool",
        &["test", "rules", "prometheus/tests/alerts.yml", "prometheus/tests/slos.yml"],
    );
    assert!(output.is_ok(), "{}", output.unwrap_err());
}

#[test]
fn alertmanager_accepts_its_configuration() {
    let output = run("amtool", &["check-config", "alertmanager/alertmanager.yml"]).unwrap();
    assert!(output.contains("SUCCESS"), "{output}");
}

#[test]
fn every_alert_is_routed_to_its_receiver() {
    let receiver = |labels: &[&str]| {
        let arguments =
            [&["config", "routes", "test", "--config.file=alertmanager/alertmanager.yml"], labels]
                .concat();
        // The receiver is the first line; warnings follow.
        run("amtool", &arguments).unwrap().lines().next().unwrap_or_default().to_owned()
    };
    assert_eq!(receiver(&["alertname=Watchdog", "severity=none"]), "watchdog");
    assert_eq!(receiver(&["alertname=LedgerWriterStalled", "severity=page"]), "pager");
    assert_eq!(receiver(&["alertname=DeadLetters", "severity=ticket"]), "tickets");
    assert_eq!(
        receiver(&["alertname=SomethingNew"]),
        "tickets",
        "an alert without a route of its own still opens a ticket"
    );
    for alert in crate::source::alerts::all() {
        let expected = if alert.severity == "page" { "pager" } else { "tickets" };
        let (name, severity) =
            (format!("alertname={}", alert.name), format!("severity={}", alert.severity));
        assert_eq!(receiver(&[&name, &severity]), expected, "{}", alert.name);
    }
}
