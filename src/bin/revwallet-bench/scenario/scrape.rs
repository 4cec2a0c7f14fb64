//! Scenario `scrape`: the time to render ten thousand series for a scrape by Prometheus.

use std::time::{Duration, Instant};

use revwallet::telemetry::{Exposition, ExpositionFormat, Metrics};

use crate::report::{ReportSection, TargetBound};
use crate::samples::median;

/// Number of series to render: the maximum that a process may have.
const SERIES: usize = 10_000;

/// Number of rounds. The report contains the median.
const TURNS: u32 = 51;

/// Number of routes that are added between two counts of the series. Counting is slow, because it renders all series.
const ROUTES_PER_COUNT: u64 = 50;

pub(super) async fn measure() -> anyhow::Result<ReportSection> {
    let metrics = Metrics::new();
    let exposition = Exposition::new(metrics.clone(), []);
    let series = record_series(&metrics, &exposition);
    let times_ms = tokio::task::spawn_blocking(move || {
        let mut times_ms = Vec::new();
        for _ in 0..TURNS {
            let began = Instant::now();
            let _text = exposition.render(ExpositionFormat::OpenMetrics);
            times_ms.push(began.elapsed().as_secs_f64() * 1e3);
        }
        times_ms
    });
    let mut section = ReportSection::default();
    let label = format!("time to render {series} series for Prometheus, ms");
    section.add_target(label, median(times_ms.await?), TargetBound::AtMost(30.0));
    Ok(section)
}

/// Records requests to many routes in the metrics until a scrape has enough series. Returns the number of series.
fn record_series(metrics: &Metrics, exposition: &Exposition) -> usize {
    let mut series = 0;
    for n in 0.. {
        let route = format!("/route/{n}");
        for status in ["200", "400", "500"] {
            let labels = ["POST", &route, status];
            let seconds = Duration::from_millis(n % 500).as_secs_f64();
            metrics.http_server_request_duration_seconds.with(labels).record(seconds);
        }
        if n % ROUTES_PER_COUNT == 0 {
            let text = exposition.render(ExpositionFormat::OpenMetrics);
            series = text.lines().filter(|line| !line.starts_with('#')).count();
            if series >= SERIES {
                break;
            }
        }
    }
    series
}
