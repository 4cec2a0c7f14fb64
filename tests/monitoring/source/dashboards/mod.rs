//! Every dashboard, one file per group.

mod business;
mod exchange;
mod ledger;
mod operations;
mod overview;
mod platform;
mod play;
mod realtime;
mod store;

use super::grafana::Dashboard;

pub fn all() -> Vec<Dashboard> {
    vec![
        overview::overview(),
        overview::slo(),
        overview::http(),
        ledger::ledger(),
        business::business(),
        business::transfers(),
        play::play(),
        store::store(),
        exchange::exchange(),
        realtime::realtime(),
        operations::jobs(),
        operations::security(),
        platform::postgres(),
        platform::edge(),
        platform::runtime(),
        platform::logs(),
        platform::telemetry(),
    ]
}

/// Label matcher of server errors: responses with status 500 and above.
const SERVER_ERROR: &str = r#"http_response_status_code=~"5..""#;
