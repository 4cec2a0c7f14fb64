//! Measures how fast the events of one topic reach many subscribers, which are connected to the process that publishes
//! the events or to another process.

use std::cell::Cell;
use std::time::{Duration, Instant};

use super::{CONNECTS_PER_SECOND, SETTINGS, TURNS, topics};
use crate::book::BenchBook;
use crate::context::BenchContext;
use crate::load::{LoadOperation, LoadSpec, LoadTarget, at_fixed_times, on_one_thread};
use crate::report::{Measurement, ReportSection, TargetBound};
use crate::resource_usage::ResourceMonitor;
use crate::samples::{LoadResult, LoadSample, median, median_sample};
use crate::server_process::ServerProcess;
use crate::subscribers::{SubscriberSpec, Subscribers};

/// Number of connections that publish events. Each event is a deposit into the wallet of the topic.
const PUBLISHERS: usize = 32;

/// Interval at which publishers check whether the subscribers have caught up.
const CATCH_UP_POLL: Duration = Duration::from_millis(1);

/// Number of subscribers to one topic, and the pace of its events.
#[derive(Debug, Clone, Copy)]
struct FanOut {
    label: &'static str,
    subscribers: u32,
    pace: EventPace,
}

/// Pace at which events are published.
#[derive(Debug, Clone, Copy)]
enum EventPace {
    PerSecond(u32),
    /// Publishes as fast as possible, but pauses while the subscribers are this many events behind.
    Ahead(u64),
}

const THROUGHPUT: FanOut = FanOut {
    label: "deliveries of one topic, as fast as its subscribers take them",
    subscribers: 1_000,
    pace: EventPace::Ahead(64),
};

const LATENCY: FanOut = FanOut {
    label: "deliveries of 1,000 events per second",
    subscribers: 100,
    pace: EventPace::PerSecond(1_000),
};

const OTHER_PROCESS: FanOut = FanOut {
    label: "deliveries of 100 events per second, from one process to another",
    subscribers: 10,
    pace: EventPace::PerSecond(100),
};

/// The server that publishes events, and the server that delivers them to the subscribers. They may be the same.
struct ServerPair<'a> {
    publishing: &'a ServerProcess,
    delivering: &'a ServerProcess,
}

impl ServerPair<'_> {
    fn processes(&self) -> Vec<u32> {
        let mut processes = vec![self.publishing.id(), self.delivering.id()];
        processes.dedup();
        processes
    }
}

pub(super) async fn measure(
    context: &BenchContext,
    book: &BenchBook,
    target: &LoadTarget,
    section: &mut ReportSection,
) -> anyhow::Result<()> {
    let first = context.start_server_with(book, &SETTINGS).await?;
    let same = ServerPair { publishing: &first, delivering: &first };
    let samples = THROUGHPUT.measure(context, target, &same).await?;
    let rate = median(samples.iter().map(LoadSample::rate).collect());
    let label = "deliveries per second to 1,000 subscribers of one topic";
    section.add_target(label, rate, TargetBound::AtLeast(200e3));
    THROUGHPUT.report(samples, section)?;

    let samples = LATENCY.measure(context, target, &same).await?;
    let p99 = median(samples.iter().map(LoadSample::p99_ms).collect());
    let label = "p99 from commit to receipt at 1,000 events per second to 100 subscribers, ms";
    section.add_target(label, p99, TargetBound::AtMost(100.0));
    LATENCY.report(samples, section)?;

    let second = context.start_server_with(book, &SETTINGS).await?;
    let other = ServerPair { publishing: &first, delivering: &second };
    let samples = OTHER_PROCESS.measure(context, target, &other).await?;
    let p50 = |sample: &LoadSample| sample.result.latencies.quantile_ms(0.5);
    let p50 = median(samples.iter().map(p50).collect());
    let label = "median from commit on one process to receipt on another, ms";
    section.add_target(label, p50, TargetBound::AtMost(100.0));
    OTHER_PROCESS.report(samples, section)?;
    first.kill().await?;
    second.kill().await
}

impl FanOut {
    async fn measure(
        self,
        context: &BenchContext,
        target: &LoadTarget,
        servers: &ServerPair<'_>,
    ) -> anyhow::Result<Vec<LoadSample>> {
        let mut samples = Vec::new();
        for turn in 1..=TURNS {
            tracing::info!("measuring {}, round {turn} of {TURNS}", self.label);
            let subscribers = SubscriberSpec {
                address: servers.delivering.address.clone(),
                count: self.subscribers as usize,
                topics: topics(target, 1),
                after: None,
                within: Duration::from_secs(1) * self.subscribers / CONNECTS_PER_SECOND,
            };
            let publishers = LoadSpec {
                address: servers.publishing.address.clone(),
                operation: LoadOperation::Deposit,
                connections: PUBLISHERS,
                wallets: 1,
                duration: context.args.duration,
            };
            let monitor = context.monitor(&servers.processes());
            let target = target.clone();
            samples.push(
                on_one_thread(async move || {
                    self.run(&target, publishers, &subscribers, &monitor).await
                })
                .await?,
            );
        }
        Ok(samples)
    }

    /// Publishes events for the duration of the load, and then waits until each subscriber has received every event.
    async fn run(
        self,
        target: &LoadTarget,
        publishers: LoadSpec,
        subscribers: &SubscriberSpec,
        monitor: &ResourceMonitor,
    ) -> anyhow::Result<LoadSample> {
        let mut subscribers = Subscribers::start(subscribers);
        subscribers.wait_until_subscribed().await?;
        let load = async {
            let began = Instant::now();
            let published = self.publish(target, publishers, &subscribers).await?;
            let events = published.latencies.len();
            subscribers.wait_until_each_has(|_| events).await?;
            Ok(LoadResult::since(began, subscribers.latencies()))
        };
        Ok(monitor.measure(load).await?.into())
    }

    async fn publish(
        self,
        target: &LoadTarget,
        spec: LoadSpec,
        subscribers: &Subscribers,
    ) -> anyhow::Result<LoadResult> {
        let load = target.connect_paced(&spec).await?;
        let end = Instant::now() + spec.duration;
        match self.pace {
            EventPace::PerSecond(rate) => {
                let connections = spec.connections;
                let is_over = |due| end <= due;
                let pace = |number| at_fixed_times(rate, connections, number, is_over);
                load.run(pace).await
            }
            EventPace::Ahead(ahead) => {
                let published = Cell::new(0);
                let is_over = || end <= Instant::now();
                let lag_max = ahead * u64::from(self.subscribers);
                let pace = |_| {
                    async || {
                        let needed = || published.get() * u64::from(self.subscribers);
                        while !is_over() && subscribers.delivered() + lag_max <= needed() {
                            tokio::time::sleep(CATCH_UP_POLL).await;
                        }
                        published.set(published.get() + 1);
                        (!is_over()).then(Instant::now)
                    }
                };
                load.run(pace).await
            }
        }
    }

    /// Adds the median sample to the report.
    fn report(self, samples: Vec<LoadSample>, section: &mut ReportSection) -> anyhow::Result<()> {
        let sample = median_sample(samples)?;
        section.measurements.push(Measurement::new(self.label, self.subscribers as usize, sample));
        Ok(())
    }
}
