//! Prometheus and Alertmanager with their tools: fetched once by the scripts, beside the build.

use std::path::PathBuf;
use std::process::Command;
use std::sync::OnceLock;

use crate::files::root;

/// One of `prometheus`, `promtool`, `prometheus-alertmanager` and `amtool`.
pub fn tool(name: &str) -> PathBuf {
    static FOLDER: OnceLock<PathBuf> = OnceLock::new();
    let folder = FOLDER.get_or_init(|| {
        let script = "source scripts/lib/setup.sh && prometheus_tools";
        let output =
            Command::new("bash").args(["-c", script]).current_dir(root()).output().unwrap();
        let said = String::from_utf8_lossy(&output.stderr).into_owned();
        assert!(output.status.success(), "Prometheus cannot be had: {said}");
        PathBuf::from(String::from_utf8(output.stdout).unwrap().trim())
    });
    folder.join(name)
}

/// Runs a tool in the project's folder: what it said, when it was content.
pub fn run(name: &str, words: &[&str]) -> Result<String, String> {
    let output = Command::new(tool(name)).args(words).current_dir(root()).output().unwrap();
    let said = format!(
        "{}{}",
        String::from_utf8_lossy(&output.stdout),
        String::from_utf8_lossy(&output.stderr)
    );
    if output.status.success() { Ok(said) } else { Err(said) }
}

#[test]
fn prometheus_takes_its_configuration_and_rules() {
    let said = run("promtool", &["check", "config", "prometheus/prometheus.yml"]).unwrap();
    assert!(said.contains("SUCCESS"), "{said}");
    run(
        "promtool",
        &["check", "rules", "prometheus/rules/slos.yml", "prometheus/rules/alerts.yml"],
    )
    .unwrap();
}

#[test]
fn every_alert_fires_in_its_unit_test_and_none_when_all_is_well() {
    let said = run(
        "promtool",
        &["test", "rules", "prometheus/tests/alerts.yml", "prometheus/tests/slos.yml"],
    );
    assert!(said.is_ok(), "{}", said.unwrap_err());
}

#[test]
fn alertmanager_takes_its_configuration() {
    let said = run("amtool", &["check-config", "alertmanager/alertmanager.yml"]).unwrap();
    assert!(said.contains("SUCCESS"), "{said}");
}

#[test]
fn every_alert_goes_to_who_should_hear_it() {
    let to = |labels: &[&str]| {
        let words =
            [&["config", "routes", "test", "--config.file=alertmanager/alertmanager.yml"], labels]
                .concat();
        // It warns of other settings behind the answer.
        run("amtool", &words).unwrap().lines().next().unwrap_or_default().to_owned()
    };
    assert_eq!(to(&["alertname=Watchdog", "severity=none"]), "watchdog");
    assert_eq!(to(&["alertname=LedgerWriterStalled", "severity=page"]), "pager");
    assert_eq!(to(&["alertname=DeadLetters", "severity=ticket"]), "tickets");
    assert_eq!(
        to(&["alertname=SomethingNew"]),
        "tickets",
        "what nobody thought of is heard as well"
    );
    for alert in crate::source::alerts::ALERTS {
        let expected = if alert.severity == "page" { "pager" } else { "tickets" };
        let (name, severity) =
            (format!("alertname={}", alert.name), format!("severity={}", alert.severity));
        assert_eq!(to(&[&name, &severity]), expected, "{}", alert.name);
    }
}
