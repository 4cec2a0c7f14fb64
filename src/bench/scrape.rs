//! What a scrape costs: ten thousand series, written as Prometheus asks for them.

use std::time::{Duration, Instant};

use tokio::runtime::Handle;

use super::Bench;
use super::report::{Part, Wanted, median};
use crate::telemetry::{Exposition, ExpositionFormat, Metrics};

/// What a process may have at most.
const SERIES: usize = 10_000;

/// How often it is written: the middle counts.
const TURNS: u32 = 51;

pub(super) async fn measure(_: &Bench) -> anyhow::Result<Part> {
    let metrics = Metrics::new();
    let exposition = Exposition::new(metrics.clone());
    let mut series = 0;
    for n in 0.. {
        let route = format!("/route/{n}");
        for status in ["200", "400", "500"] {
            let labels = ["POST", &route, status];
            let seconds = Duration::from_millis(n % 500).as_secs_f64();
            metrics.http_server_request_duration_seconds.with(labels).record(seconds);
        }
        if n % 50 == 0 {
            let text = exposition.render(&Handle::current(), ExpositionFormat::OpenMetrics);
            series = text.lines().filter(|line| !line.starts_with('#')).count();
            if series >= SERIES {
                break;
            }
        }
    }
    let runtime = Handle::current();
    let times = tokio::task::spawn_blocking(move || {
        let mut times = Vec::new();
        for _ in 0..TURNS {
            let began = Instant::now();
            let _text = exposition.render(&runtime, ExpositionFormat::OpenMetrics);
            times.push(began.elapsed().as_secs_f64() * 1e3);
        }
        times
    });
    let mut part = Part::default();
    let what = format!("writing {series} series for Prometheus, ms");
    part.goal(what, median(times.await?), Wanted::AtMost(30.0));
    Ok(part)
}
