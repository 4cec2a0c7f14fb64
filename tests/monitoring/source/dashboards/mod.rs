//! All dashboards, one file for each group of them.

mod business;
mod ledger;
mod operations;
mod overview;
mod platform;

use super::grafana::Dashboard;

pub fn all() -> Vec<Dashboard> {
    vec![
        overview::overview(),
        overview::slo(),
        overview::http(),
        ledger::ledger(),
        business::business(),
        business::transfers(),
        operations::jobs(),
        operations::security(),
        platform::postgres(),
        platform::edge(),
        platform::runtime(),
        platform::logs(),
        platform::telemetry(),
    ]
}

/// Errors are answers of 500 and above.
const FAILED: &str = r#"http_response_status_code=~"5..""#;
