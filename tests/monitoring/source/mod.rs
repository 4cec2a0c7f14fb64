//! The source of every generated file: alerts, recording rules, dashboards and the configuration of Prometheus.

pub mod alerts;
pub mod dashboards;
pub mod grafana;
pub mod promql;
pub mod rules;
pub mod slos;

/// Path of the runbooks that alerts link to.
pub const RUNBOOKS: &str = "/docs/runbooks";
