//! The source of every generated file: alerts, recording rules, dashboards and the configuration of Prometheus.

pub mod alerts;
pub mod dashboards;
pub mod grafana;
pub mod promql;
pub mod rules;
pub mod slos;

/// Public URL of the system, as a template of a rule: Prometheus is published at `/prometheus` below it and knows its own
/// address (`--web.external-url`), so links in notifications need no setting of their own.
pub const PUBLIC_URL: &str = r#"{{ reReplaceAll "/prometheus$" "" $externalURL }}"#;
