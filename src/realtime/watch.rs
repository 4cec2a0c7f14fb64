//! Watches: subscriptions of gRPC streams. Each watch subscribes to a single topic.
//!
//! Like a WebSocket connection, a watch has an outbox. If the client does not read, the watch falls behind, and
//! continues from its position when the client reads again. So a slow client uses a bounded amount of memory.

use std::collections::VecDeque;
use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use axum::extract::ws::Utf8Bytes;
use time::OffsetDateTime;
use tokio_util::sync::CancellationToken;

use super::Realtime;
use super::credential::Credential;
use super::delivery::FrameFormat;
use super::feed::Topic;
use super::hub::NewSubscriber;
use super::limits::Permit;
use super::message::Viewer;
use super::outbox::{Outbox, Outgoing, SubscriptionId};
use super::position::BookPosition;
use super::replay::Progress;
use crate::auth::{Caller, PresentedCredential, Principal};
use crate::error::{CredentialFault, Error, Result};

/// Id of the only subscription of a watch.
const ONLY: SubscriptionId = SubscriptionId(0);

/// Number of bytes of events that are taken from the outbox at once.
const BATCH_BYTES: usize = 8 * 1024;

/// Maximum number of bytes that wait for the client of a watch. A small limit suffices, because a watch that falls
/// behind replays the events that it has missed.
const QUEUE_BYTES_MAX: usize = 16 * 1024;

/// Pause after a failed attempt to read missed events.
const RETRY_DELAY: Duration = Duration::from_millis(500);

/// The client that opens a watch (a subscription of a gRPC stream).
#[derive(Debug)]
pub struct Watcher {
    pub caller: Caller,
    /// The credential with which the client has opened the stream; the watch ends if the credential is revoked.
    pub presented: Option<PresentedCredential>,
    pub address: Option<IpAddr>,
    /// Token that is canceled when the client's connection is about to close.
    pub closing: CancellationToken,
}

/// An event of a watched topic: its position, and its data as JSON text.
#[derive(Debug)]
pub struct WatchedEvent {
    pub position: BookPosition,
    pub data: Utf8Bytes,
}

/// Subscription of a gRPC stream to a topic. The subscription ends when the watch is dropped.
pub struct Watch {
    realtime: Realtime,
    watcher: Watcher,
    topic: Topic,
    outbox: Arc<Outbox>,
    taken: VecDeque<Outgoing>,
    /// Position from which the watch must catch up; `None` if it is up to date.
    behind: Option<BookPosition>,
    _permit: Permit,
}

impl Realtime {
    /// Subscribes to a topic, beginning after a position. The caller must have been authorized for the topic before.
    pub async fn watch(&self, topic: &str, after: &str, watcher: Watcher) -> Result<Watch> {
        let after = self.hub.continuation(after).await?;
        let (topic, _) = self.hub.topic(topic).ok_or(Error::NotFound("topic"))?;
        let permit = self.admit(watcher.address)?;
        let bytes_max = self.args.realtime_queue_bytes.min(QUEUE_BYTES_MAX);
        let outbox = Outbox::new(bytes_max, Arc::clone(&self.queued_bytes));
        let watch = Watch {
            realtime: self.clone(),
            watcher,
            topic,
            outbox: Arc::new(outbox),
            taken: VecDeque::new(),
            behind: Some(after.clone()),
            _permit: permit,
        };
        self.metrics.wallet_ws_subscriptions.increment(1.0);
        // From here on, dropping `watch` ends the subscription, even if one of the next steps fails.
        if let Some(presented) = &watch.watcher.presented {
            let caller = &watch.watcher.caller;
            let now = self.register_credential(&watch.outbox, caller, presented).await?;
            if Viewer::new(&now) != Viewer::new(caller) {
                return Err(Error::Unauthenticated(CredentialFault::Invalid));
            }
        }
        let subscriber = watch.subscriber();
        self.hub.subscribe(&watch.topic, subscriber, Some(&after), |_outbox| {}).await?;
        Ok(watch)
    }
}

impl Watch {
    fn subscriber(&self) -> NewSubscriber {
        NewSubscriber {
            id: ONLY,
            outbox: Arc::clone(&self.outbox),
            format: FrameFormat::Data,
            viewer: Viewer::new(&self.watcher.caller),
            player: None,
        }
    }

    /// Waits for the next event.
    ///
    /// Fails with [`Error::Unauthenticated`] when the credential expires or is revoked. Fails with
    /// [`Error::Overloaded`] when the connection is about to close or the program stops; the client can then connect to
    /// another process and continue.
    pub async fn next(&mut self) -> Result<WatchedEvent> {
        let closing = self.watcher.closing.clone();
        let stopping = self.realtime.tasks.stopping().clone();
        let left = self.time_to_expiry();
        if left.is_some_and(|left| left.is_zero()) {
            return Err(Error::Unauthenticated(CredentialFault::Invalid));
        }
        tokio::select! {
            biased;
            () = closing.cancelled() => Err(Error::Overloaded),
            () = stopping.cancelled() => Err(Error::Overloaded),
            () = sleep(left) => Err(Error::Unauthenticated(CredentialFault::Invalid)),
            watched = self.take() => watched,
        }
    }

    /// Returns the time until the credential expires, or `None` if it does not expire.
    fn time_to_expiry(&self) -> Option<Duration> {
        let Principal::User(user) = self.watcher.caller.principal() else { return None };
        Some(Duration::try_from(user.expires_at - OffsetDateTime::now_utc()).unwrap_or_default())
    }

    async fn take(&mut self) -> Result<WatchedEvent> {
        loop {
            if let Some(outgoing) = self.taken.pop_front()
                && let Some(event) = outgoing.event
            {
                if event.is_live {
                    let lag = OffsetDateTime::now_utc() - event.committed_at;
                    let lag = lag.as_seconds_f64().max(0.0);
                    self.realtime.metrics.wallet_ws_fanout_lag_seconds.record(lag);
                }
                return Ok(WatchedEvent { position: event.position, data: outgoing.frame });
            }
            let (behind, is_revoked) = self.outbox.take_notes();
            if is_revoked {
                self.realtime.metrics.wallet_ws_dropped_total.with(["revoked"]).increment(1);
                return Err(Error::Unauthenticated(CredentialFault::Invalid));
            }
            if let Some((_, position)) = behind.into_iter().next_back() {
                self.behind = Some(position);
            }
            let mut batch = Vec::new();
            self.outbox.take(BATCH_BYTES, &mut batch);
            if !batch.is_empty() {
                self.taken.extend(batch);
            } else if let Some(position) = self.behind.clone() {
                self.catch_up(position).await;
            } else {
                self.outbox.woken().await;
            }
        }
    }

    async fn catch_up(&mut self, position: BookPosition) {
        match self.realtime.hub.replay(&self.topic, self.subscriber(), position).await {
            Ok(Progress::Live) => self.behind = None,
            Ok(Progress::Behind(position)) => self.behind = Some(position),
            Err(error) => {
                tracing::warn!(
                    error.message = %error,
                    "could not read the events that a gRPC client has missed; retrying in {RETRY_DELAY:?}"
                );
                tokio::time::sleep(RETRY_DELAY).await;
            }
        }
    }
}

async fn sleep(left: Option<Duration>) {
    match left {
        Some(left) => tokio::time::sleep(left).await,
        None => std::future::pending().await,
    }
}

impl Drop for Watch {
    fn drop(&mut self) {
        let _unsent = self.outbox.close();
        self.realtime.metrics.wallet_ws_subscriptions.decrement(1.0);
        let (realtime, outbox) = (self.realtime.clone(), Arc::clone(&self.outbox));
        let (topic, credential) =
            (Arc::clone(&self.topic.name), Credential::of(&self.watcher.caller));
        self.realtime.tasks.spawn_short_lived(async move {
            let _permit = realtime.endings.acquire().await;
            realtime.hub.unsubscribe(&topic, &outbox, ONLY).await;
            if let Some(credential) = credential {
                realtime.hub.forget_credential(&credential, &outbox).await;
            }
        });
    }
}
