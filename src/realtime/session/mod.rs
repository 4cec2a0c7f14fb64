//! A WebSocket connection: its subscriptions, its credential, and the loop that reads requests and sends the frames of
//! the outbox.

mod action;
mod credential;
mod end;
mod handle;
mod socket;

use std::sync::Arc;
use std::time::Duration;

use axum::extract::ws::WebSocket;
use time::OffsetDateTime;
use tokio::time::Instant;

use super::Realtime;
use super::credential::Credential;
use super::delivery::FrameFormat;
use super::feed::Topic;
use super::limits::Permit;
use super::message::Viewer;
use super::outbox::{Outbox, Outgoing, SubscriptionId};
use super::position::BookPosition;
use super::replay::Progress;
use crate::auth::{Access, Caller, PresentedCredential, Principal};
use crate::error::{Error, Result};

use self::action::Dialect;
use self::end::End;
use self::socket::{Step, next_step};

/// Time after which a client that has sent no frame gets the default subscription.
const DEFAULT_DELAY: Duration = Duration::from_millis(200);

/// Interval at which each client is pinged. If a client sends nothing for two intervals, its connection is closed.
const PING_INTERVAL: Duration = Duration::from_secs(20);

/// Number of bytes of frames that are written to the socket before a flush.
const BATCH_BYTES: usize = 8 * 1024;

/// Interval at which a connection checks whether its client reads too slowly, while data waits to be sent. Also the
/// pause before a failed replay is retried.
const STALL_POLL: Duration = Duration::from_millis(500);

/// A subscription of this connection to a topic.
#[derive(Debug)]
struct Subscription {
    id: SubscriptionId,
    topic: Topic,
    format: FrameFormat,
    viewer: Viewer,
    player: Option<Arc<str>>,
    /// Position of the subscription after the last event that was sent to the client.
    sent: Option<BookPosition>,
    /// Position from which the subscription must catch up; `None` if it is up to date.
    behind: Option<BookPosition>,
}

/// Subscription that the URL of the upgrade request asks for.
#[derive(Debug)]
pub(super) struct Request {
    pub topic: String,
    pub player: Option<String>,
    /// Position after which the subscription begins, read before the response to the upgrade request is sent. No frame
    /// acknowledges the subscription, so the client expects all events that happen after the response.
    pub after: BookPosition,
}

/// The credential of the upgrade request, and the subscription that its URL asks for.
pub(super) struct UpgradeRequest {
    pub presented: Option<PresentedCredential>,
    pub subscription: Option<Request>,
}

/// A WebSocket connection. Thousands of connections wait at the same time, so the future of a connection must be small:
/// the futures of rare operations are boxed.
pub(super) struct Session {
    realtime: Realtime,
    outbox: Arc<Outbox>,
    caller: Caller,
    dialect: Dialect,
    subscriptions: Vec<Subscription>,
    next_id: u32,
    /// Time at which the default subscription begins, unless the client sends a frame first.
    default_at: Option<Instant>,
    next_ping: Instant,
    heard: Instant,
    /// Position after the last event that was sent to the client, in any of its subscriptions.
    last_sent: Option<BookPosition>,
    _permit: Permit,
}

/// Frames that were written to the buffer of the socket and are being flushed to the client.
struct Flight {
    since: Instant,
    events: u64,
    replies: u64,
    /// Commit time of the oldest live event among the frames; events from a replay do not count.
    oldest: Option<OffsetDateTime>,
}

impl Flight {
    fn begin() -> Self {
        Self { since: Instant::now(), events: 0, replies: 0, oldest: None }
    }
}

impl Session {
    pub(super) fn new(realtime: Realtime, caller: Caller, permit: Permit) -> Self {
        let bytes_max = realtime.args.realtime_queue_bytes;
        let outbox = Outbox::new(bytes_max, Arc::clone(&realtime.queued_bytes));
        let now = Instant::now();
        let jitter = PING_INTERVAL.mul_f64(fastrand::f64() / 2.0);
        let is_closed = caller.policy().access == Access::Closed;
        let has_default = !is_closed || Credential::of(&caller).is_some();
        Self {
            realtime,
            outbox: Arc::new(outbox),
            caller,
            dialect: Dialect::Undecided,
            subscriptions: Vec::new(),
            next_id: 0,
            default_at: has_default.then(|| now + DEFAULT_DELAY),
            next_ping: now + PING_INTERVAL / 2 + jitter,
            heard: now,
            last_sent: None,
            _permit: permit,
        }
    }

    /// Serves the connection until it ends.
    pub(super) async fn run(mut self, mut socket: WebSocket, opening: Box<UpgradeRequest>) {
        let metrics = Arc::clone(&self.realtime.metrics);
        let kind =
            if Credential::of(&self.caller).is_some() { "authenticated" } else { "anonymous" };
        let open = metrics.wallet_ws_connections.with([kind]);
        open.increment(1.0);
        let end = match Box::pin(self.open(opening)).await {
            Ok(()) => self.serve(&mut socket).await,
            Err(end) => end,
        };
        Box::pin(self.finish(&mut socket, end)).await;
        open.decrement(1.0);
    }

    /// Registers the credential with the hub, and begins the subscription that the upgrade request asked for.
    async fn open(&mut self, opening: Box<UpgradeRequest>) -> Result<(), End> {
        let UpgradeRequest { presented, subscription } = *opening;
        if let Some(presented) = presented {
            let realtime = &self.realtime;
            match realtime.register_credential(&self.outbox, &self.caller, &presented).await {
                Ok(caller) => self.caller = caller,
                Err(Error::Unauthenticated(_)) => self.end_credential().await,
                Err(error) => {
                    tracing::warn!(
                        error.message = %error,
                        "could not check whether the credential of a WebSocket connection is still valid; \
                         closing the connection, and the client may reconnect"
                    );
                    return Err(End::Unavailable);
                }
            }
        }
        if let Some(request) = subscription {
            self.dialect = Dialect::Actions;
            self.default_at = None;
            self.begin(request).await;
        }
        Ok(())
    }

    async fn serve(&mut self, socket: &mut WebSocket) -> End {
        let realtime = self.realtime.clone();
        let stopping = realtime.tasks.stopping();
        let outbox = Arc::clone(&self.outbox);
        let mut timer = std::pin::pin!(tokio::time::sleep(DEFAULT_DELAY));
        let mut batch = Vec::new();
        let mut flight = None;
        loop {
            if self.take_notes() {
                Box::pin(self.end_credential()).await;
            }
            if flight.is_none() {
                outbox.take(BATCH_BYTES, &mut batch);
                if batch.is_empty() {
                    batch.shrink_to(0);
                    if self.is_behind() && Box::pin(self.catch_up()).await {
                        continue;
                    }
                } else {
                    match self.write(socket, &mut batch) {
                        Some(written) => flight = Some(written),
                        None => return End::Broken,
                    }
                }
            }
            // Resetting the timer for each batch would cost more than letting it fire too early.
            let deadline = self.deadline(flight.is_some());
            if deadline < timer.deadline() || timer.is_elapsed() {
                timer.as_mut().reset(deadline);
            }
            tokio::select! {
                biased;
                () = stopping.cancelled() => return End::Shutdown,
                step = next_step(socket, flight.is_some(), outbox.has_room()) => match step {
                    Step::Flushed => {
                        if let Some(flight) = flight.take() {
                            self.record(&flight);
                        }
                    }
                    Step::Received(message) => {
                        self.heard = Instant::now();
                        Box::pin(self.receive(message)).await;
                    }
                    Step::TooLarge => return End::FrameTooLarge,
                    Step::Closed => return End::Closed,
                    Step::Broken => return End::Broken,
                },
                () = outbox.woken(), if flight.is_none() => {}
                () = &mut timer => match Box::pin(self.tick(socket, flight.as_ref())).await {
                    Ok(true) => {
                        flight.get_or_insert(Flight::begin());
                    }
                    Ok(false) => {}
                    Err(end) => return end,
                },
            }
        }
    }

    /// Returns the time at which the next action of [`Self::tick`] is due, such as sending a ping.
    fn deadline(&self, is_flushing: bool) -> Instant {
        let mut deadline = self.next_ping;
        if let Some(at) = self.default_at {
            deadline = deadline.min(at);
        }
        if let Principal::User(user) = self.caller.principal() {
            let left = user.expires_at - OffsetDateTime::now_utc();
            let left = Duration::try_from(left).unwrap_or_default();
            deadline = deadline.min(Instant::now() + left);
        }
        if is_flushing {
            deadline = deadline.min(Instant::now() + STALL_POLL);
        }
        deadline
    }

    /// Performs the actions that are due, such as sending a ping. Returns whether a frame was written that must be
    /// flushed.
    async fn tick(&mut self, socket: &mut WebSocket, flight: Option<&Flight>) -> Result<bool, End> {
        let (now, is_flushing) = (Instant::now(), flight.is_some());
        // If a subscription is behind, the queue was full. A write that the client has not read then counts as a stall,
        // even if the queue is empty by now.
        let blocked = flight.filter(|_| self.is_behind()).map(|flight| flight.since);
        let stalled_since = self.outbox.full_since().into_iter().chain(blocked).min();
        let grace = self.realtime.args.realtime_grace;
        if stalled_since.is_some_and(|since| now - since > grace) {
            return Err(End::SlowConsumer);
        }
        if self.default_at.is_some_and(|at| at <= now) {
            self.begin_default().await;
        }
        if let Principal::User(user) = self.caller.principal()
            && user.expires_at <= OffsetDateTime::now_utc()
        {
            self.end_credential().await;
        }
        if self.next_ping > now {
            return Ok(false);
        }
        if now - self.heard > 2 * PING_INTERVAL {
            return Err(End::PingTimeout);
        }
        self.next_ping = now + PING_INTERVAL;
        // Data that waits to be sent to a slow client also serves as a ping.
        if !is_flushing && !socket::ping(socket) {
            return Err(End::Broken);
        }
        Ok(!is_flushing)
    }

    /// Marks the subscriptions that have fallen behind. Returns whether the credential was revoked.
    fn take_notes(&mut self) -> bool {
        let (behind, is_revoked) = self.outbox.take_notes();
        for (id, position) in behind {
            if let Some(own) = self.subscriptions.iter_mut().find(|own| own.id == id) {
                own.behind = Some(position);
            }
        }
        is_revoked
    }

    fn is_behind(&self) -> bool {
        self.subscriptions.iter().any(|own| own.behind.is_some())
    }

    /// Lets a subscription that is behind catch up. Returns false if no subscription is behind.
    async fn catch_up(&mut self) -> bool {
        let Some(index) = self.subscriptions.iter().position(|own| own.behind.is_some()) else {
            return false;
        };
        let own = &self.subscriptions[index];
        let Some(position) = own.behind.clone() else { return false };
        let subscriber = own.subscriber(&self.outbox);
        match self.realtime.hub.replay(&own.topic, subscriber, position).await {
            Ok(Progress::Live) => self.subscriptions[index].behind = None,
            Ok(Progress::Behind(position)) => self.subscriptions[index].behind = Some(position),
            Err(error) => {
                tracing::warn!(
                    error.message = %error,
                    "could not read the events that a WebSocket client has missed; retrying in {STALL_POLL:?}"
                );
                tokio::time::sleep(STALL_POLL).await;
            }
        }
        true
    }

    /// Writes a batch of frames to the buffer of the socket. Returns `None` if the connection is broken.
    fn write(&mut self, socket: &mut WebSocket, batch: &mut Vec<Outgoing>) -> Option<Flight> {
        let mut flight = Flight::begin();
        for Outgoing { frame, event } in batch.drain(..) {
            match event {
                Some(event) => {
                    flight.events += 1;
                    if event.is_live && flight.oldest.is_none() {
                        flight.oldest = Some(event.committed_at);
                    }
                    let id = event.subscription;
                    if let Some(own) = self.subscriptions.iter_mut().find(|own| own.id == id) {
                        own.sent = Some(event.position.clone());
                    }
                    self.last_sent = Some(event.position);
                }
                None => flight.replies += 1,
            }
            if !socket::write(socket, frame) {
                return None;
            }
        }
        Some(flight)
    }

    fn record(&self, flight: &Flight) {
        let metrics = &self.realtime.metrics;
        metrics.wallet_ws_messages_total.with(["out", "event"]).increment(flight.events);
        metrics.wallet_ws_messages_total.with(["out", "reply"]).increment(flight.replies);
        if let Some(committed_at) = flight.oldest {
            let lag = (OffsetDateTime::now_utc() - committed_at).as_seconds_f64().max(0.0);
            metrics.wallet_ws_fanout_lag_seconds.record(lag);
        }
    }
}

impl Subscription {
    fn subscriber(&self, outbox: &Arc<Outbox>) -> super::hub::NewSubscriber {
        super::hub::NewSubscriber {
            id: self.id,
            outbox: Arc::clone(outbox),
            format: self.format,
            viewer: self.viewer,
            player: self.player.clone(),
        }
    }
}
