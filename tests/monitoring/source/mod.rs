//! The source of everything that is generated.

pub mod alerts;
pub mod dashboards;
pub mod grafana;
pub mod promql;
pub mod rules;
pub mod slos;

/// Where runbooks are read.
pub const RUNBOOKS: &str = "/docs/runbooks";
