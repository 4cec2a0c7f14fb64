//! WebSocket subscribers that count the events that they receive. They must use little CPU time, because they share the
//! machine with the server.
//!
//! All subscribers run on the thread of [`on_one_thread`](crate::load::on_one_thread), so they share their counters
//! without locks.

mod client;

use std::cell::{Cell, RefCell};
use std::rc::Rc;
use std::time::{Duration, Instant};

use anyhow::{Context, ensure};
use time::OffsetDateTime;
use time::format_description::well_known::Rfc3339;
use tokio::task::JoinSet;

use crate::load::latency::LatencyHistogram;
use client::WebSocketClient;

/// Interval at which the counts of received events are checked.
const POLL: Duration = Duration::from_millis(1);

/// Longest time that the benchmark waits for missing subscription acknowledgments or missing events.
const WAIT_MAX: Duration = Duration::from_mins(1);

/// Number, topics and timing of subscribers.
#[derive(Debug, Clone)]
pub(crate) struct SubscriberSpec {
    pub address: String,
    pub count: usize,
    /// Topics of the subscribers. Subscriber `n` takes topic `n`, modulo the number of topics.
    pub topics: Vec<String>,
    /// Position in the ledger after which the subscribers resume; `None` for new events only.
    pub after: Option<String>,
    /// Time over which the subscribers connect, one after the other.
    pub within: Duration,
}

/// Running subscribers. Dropping the value closes their connections.
pub(crate) struct Subscribers {
    tally: Rc<Tally>,
    tasks: JoinSet<anyhow::Result<()>>,
}

/// Counters and latencies of the events that the subscribers have received.
struct Tally {
    /// Number of subscriptions that the server has acknowledged.
    subscribed: Cell<usize>,
    /// Number of events that each subscriber has received.
    counts: Vec<Cell<u64>>,
    total: Cell<u64>,
    /// Time from the commit of each event until a subscriber received it.
    latencies: RefCell<LatencyHistogram>,
    /// Last parsed commit time, as text and as value. It is cached because many subscribers receive the same event.
    last_commit: RefCell<(Vec<u8>, OffsetDateTime)>,
}

impl Subscribers {
    /// Starts subscribers, which connect in the background.
    pub(crate) fn start(spec: &SubscriberSpec) -> Self {
        let tally = Rc::new(Tally {
            subscribed: Cell::new(0),
            counts: vec![Cell::new(0); spec.count],
            total: Cell::new(0),
            latencies: RefCell::default(),
            last_commit: RefCell::new((Vec::new(), OffsetDateTime::UNIX_EPOCH)),
        });
        let began = Instant::now();
        let mut tasks = JoinSet::new();
        for number in 0..spec.count {
            let share = u32::try_from(number).unwrap_or(u32::MAX);
            let count = u32::try_from(spec.count).unwrap_or(u32::MAX);
            let connect_at = began + spec.within * share / count;
            let (address, after) = (spec.address.clone(), spec.after.clone());
            let topic = spec.topics[number % spec.topics.len()].clone();
            let tally = Rc::clone(&tally);
            tasks.spawn_local(async move {
                tokio::time::sleep_until(connect_at.into()).await;
                let mut client = WebSocketClient::open(&address).await?;
                client.subscribe(&topic, after.as_deref()).await?;
                tally.subscribed.set(tally.subscribed.get() + 1);
                tally.count_events(number, client).await
            });
        }
        Self { tally, tasks }
    }

    /// Waits until the server has acknowledged every subscription.
    pub(crate) async fn wait_until_subscribed(&mut self) -> anyhow::Result<()> {
        let count = self.tally.counts.len();
        self.wait_until("subscriptions", |tally| tally.subscribed.get() == count).await
    }

    /// Waits until each subscriber has received the expected number of events. Fails if a subscriber has received more.
    pub(crate) async fn wait_until_each_has(
        &mut self,
        expected: impl Fn(usize) -> u64,
    ) -> anyhow::Result<()> {
        let lacks = |(number, count): (usize, &Cell<u64>)| count.get() < expected(number);
        self.wait_until("events", |tally| !tally.counts.iter().enumerate().any(lacks)).await?;
        for (number, count) in self.tally.counts.iter().enumerate() {
            let (count, expected) = (count.get(), expected(number));
            ensure!(count == expected, "subscriber {number} got {count} of {expected} events");
        }
        Ok(())
    }

    async fn wait_until(
        &mut self,
        missing: &str,
        is_done: impl Fn(&Tally) -> bool,
    ) -> anyhow::Result<()> {
        let began = Instant::now();
        while !is_done(&self.tally) {
            if let Some(ended) = self.tasks.try_join_next() {
                ended?.context("a subscriber failed")?;
            }
            ensure!(began.elapsed() < WAIT_MAX, "{missing} are missing after {WAIT_MAX:?}");
            tokio::time::sleep(POLL).await;
        }
        Ok(())
    }

    /// Returns the total number of events that the subscribers have received.
    pub(crate) fn delivered(&self) -> u64 {
        self.tally.total.get()
    }

    /// Returns the latencies of all received events, each from the commit of the event until a subscriber received it.
    pub(crate) fn latencies(&self) -> LatencyHistogram {
        self.tally.latencies.borrow().clone()
    }
}

impl Tally {
    async fn count_events(&self, number: usize, mut client: WebSocketClient) -> anyhow::Result<()> {
        loop {
            let received_at = OffsetDateTime::now_utc();
            while let Some(event) = client.next_text()? {
                self.count(number, client.payload(event), received_at)?;
            }
            client.read().await?;
        }
    }

    fn count(
        &self,
        number: usize,
        event: &[u8],
        received_at: OffsetDateTime,
    ) -> anyhow::Result<()> {
        self.counts[number].set(self.counts[number].get() + 1);
        self.total.set(self.total.get() + 1);
        let latency = received_at - self.commit_of(event)?;
        // The database uses the clock of the same machine, but reads it on another core, so the difference may be
        // negative.
        let latency = Duration::try_from(latency).unwrap_or_default();
        self.latencies.borrow_mut().record(latency);
        Ok(())
    }

    /// Returns the commit time of an event. Parses only the last member of the JSON object, which is this time.
    fn commit_of(&self, event: &[u8]) -> anyhow::Result<OffsetDateTime> {
        let text =
            event.strip_suffix(b"\"}").and_then(|rest| rest.rsplit(|byte| *byte == b'"').next());
        let text = text.context("an event has no time")?;
        let mut last = self.last_commit.borrow_mut();
        if last.0 != text {
            let parsed = OffsetDateTime::parse(std::str::from_utf8(text)?, &Rfc3339);
            *last = (text.to_vec(), parsed.context("an event has no time")?);
        }
        Ok(last.1)
    }
}
