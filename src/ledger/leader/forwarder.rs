//! The forwarder: sends the postings of a follower to the leader, in batches over one stream.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use tokio::sync::{mpsc, watch};
use tokio::time::{Instant, sleep};
use tokio_util::sync::CancellationToken;
use uuid::Uuid;

use super::connection::{Answered, Connection, ConnectionEnd, Sent};
use super::doubt::Doubts;
use super::proto::PostReply;
use super::wire::{self, LeaderReply};
use super::{LeaderAddress, Leadership, OwnWriter};
use crate::cache::Cache;
use crate::ledger::writer::{PostError, QueuedPosting};
use crate::telemetry::Metrics;

/// Maximum number of postings in a request to the leader.
const POSTINGS_MAX: usize = 256;

/// Maximum number of legs in a request to the leader. The limit bounds the size of the request, because each leg may
/// have 4 KiB of metadata.
const REQUEST_LEGS_MAX: usize = 1_024;

/// Maximum number of requests that await a response. Later postings are collected for the next request.
const REQUESTS_MAX: usize = 3;

/// Longest time that new postings wait for this process's own writer to reply to all earlier postings. Only after these
/// replies may the new postings be sent to the leader. If the time runs out, this process's own writer gets the new
/// postings, too.
const OWN_WRITER_TIMEOUT: Duration = Duration::from_millis(250);

/// Interval at which the forwarder checks whether this process's own writer has replied to all postings.
const OWN_WRITER_INTERVAL: Duration = Duration::from_millis(1);

/// First pause before another attempt to reach the leader; it doubles with each attempt.
const RETRY_PAUSE_MIN: Duration = Duration::from_millis(500);
/// Longest pause before another attempt to reach the leader.
const RETRY_PAUSE_MAX: Duration = Duration::from_secs(16);

/// Number of failed attempts to reach the leader after which a warning is logged.
const FAILURES_BEFORE_WARNING: u32 = 4;

/// The task that sends postings to the leader.
pub(super) struct Forwarder {
    pub(super) queue: mpsc::Receiver<QueuedPosting>,
    pub(super) own_writer: OwnWriter,
    /// Keys of postings that the leader did not write, and that went to this process's own writer instead.
    pub(super) handed_over: Cache<Uuid, ()>,
    pub(super) leadership: watch::Receiver<Leadership>,
    pub(super) is_forwarding: Arc<AtomicBool>,
    pub(super) doubts: Arc<Doubts>,
    pub(super) metrics: Arc<Metrics>,
}

/// Role of this process among the processes that share the ledger.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Role {
    Leader,
    Follower,
    /// The process writes its own postings, although another process may lead.
    Alone,
}

impl Role {
    const ALL: [Self; 3] = [Self::Leader, Self::Follower, Self::Alone];

    const fn name(self) -> &'static str {
        match self {
            Self::Leader => "leader",
            Self::Follower => "follower",
            Self::Alone => "alone",
        }
    }
}

pub(super) fn preregister(metrics: &Metrics) {
    for outcome in ["answered", "unsupported", "in_doubt"] {
        metrics.wallet_ledger_forwarded_total.preregister([outcome]);
    }
}

impl Forwarder {
    /// Sends postings until the token is canceled. Ends when every posting has its reply or was handed to this
    /// process's own writer.
    pub(super) async fn run(mut self, token: CancellationToken) -> anyhow::Result<()> {
        // Consecutive failures to get a response from the leader, and consecutive timeouts of this process's own
        // writer.
        let (mut failures, mut delays) = (0_u32, 0_u32);
        while !token.is_cancelled() {
            let (role, leader) = match &*self.leadership.borrow_and_update() {
                Leadership::Leads { .. } => (Role::Leader, None),
                Leadership::Follows(leader) => (Role::Alone, Some(leader.clone())),
                Leadership::Unknown => (Role::Alone, None),
            };
            self.set_role(role);
            let Some(leader) = leader else {
                self.idle(&token, None).await;
                continue;
            };
            match Connection::open(&leader).await {
                Ok(connection) => {
                    if let Some(waiting) = self.wait_for_own_writer(&token).await {
                        delays = 0;
                        self.set_role(Role::Follower);
                        let has_answered = self.serve(connection, waiting, &leader, &token).await;
                        failures = if has_answered { 0 } else { failures + 1 };
                        self.set_role(Role::Alone);
                    } else {
                        delays += 1;
                    }
                }
                Err(cause) => {
                    failures += 1;
                    // A leader that is shutting down is often unreachable for a moment, so the first failures are not
                    // logged.
                    if failures == FAILURES_BEFORE_WARNING {
                        tracing::warn!(
                            event = "ledger.leader_unreachable",
                            error.message = cause.to_string(),
                            leader = leader.address,
                            "the ledger's leader at {} does not respond; this process will write its own postings",
                            leader.address
                        );
                    }
                }
            }
            let attempts = failures.max(delays).min(8);
            let pause = RETRY_PAUSE_MIN * 2_u32.saturating_pow(attempts.saturating_sub(1));
            self.idle(&token, Some(pause.min(RETRY_PAUSE_MAX))).await;
        }
        self.queue.close();
        while let Some(item) = self.queue.recv().await {
            self.hand_over_unsent(item);
        }
        Ok(())
    }

    /// Sets the role. Only a follower sends its postings to the leader.
    fn set_role(&self, role: Role) {
        self.is_forwarding.store(role == Role::Follower, Ordering::SeqCst);
        for other in Role::ALL {
            let value = if other == role { 1.0 } else { 0.0 };
            self.metrics.wallet_ledger_role.with([other.name()]).set(value);
        }
    }

    /// Waits until the leader changes, `pause` (if any) has passed, or the program stops. Meanwhile, hands postings
    /// that still arrive in the queue to this process's own writer.
    async fn idle(&mut self, token: &CancellationToken, pause: Option<Duration>) {
        let mut pause = std::pin::pin!(async {
            match pause {
                Some(pause) => sleep(pause).await,
                None => std::future::pending().await,
            }
        });
        loop {
            tokio::select! {
                biased;
                Some(item) = self.queue.recv() => self.hand_over_unsent(item),
                () = token.cancelled() => return,
                () = &mut pause => return,
                changed = self.leadership.changed() => {
                    if changed.is_err() {
                        // The election task has ended, because the program stops.
                        token.cancelled().await;
                    }
                    return;
                }
            }
        }
    }

    /// Collects new postings until this process's own writer has replied to all earlier postings, and returns the
    /// collected postings. If that writer is too slow, it gets the collected postings too, and `None` is returned.
    ///
    /// Without this wait, a client might repeat a request whose first posting is still at this process's own writer. If
    /// the leader refused the second posting, the client would be told that no money moves, although that writer could
    /// still write the first.
    async fn wait_for_own_writer(
        &mut self,
        token: &CancellationToken,
    ) -> Option<Vec<QueuedPosting>> {
        // Postings that are still in the queue go to this process's own writer, like the postings before them.
        self.give_up_following();
        self.is_forwarding.store(true, Ordering::SeqCst);
        let deadline = Instant::now() + OWN_WRITER_TIMEOUT;
        let (mut waiting, mut legs) = (Vec::new(), 0);
        while Instant::now() < deadline && !token.is_cancelled() {
            while let Ok(item) = self.queue.try_recv() {
                legs += item.posting.legs.len();
                waiting.push(item);
            }
            if self.own_writer.admission.queued_legs() == legs {
                return Some(waiting);
            }
            sleep(OWN_WRITER_INTERVAL).await;
        }
        // Must happen before this process's own writer gets more postings, because these may repeat a request whose
        // first posting is in `waiting`.
        for item in waiting {
            self.hand_over_unsent(item);
        }
        self.give_up_following();
        None
    }

    /// Sends postings to one leader, beginning with `waiting`, until the connection ends, another process leads, or
    /// the program stops; then waits until all requests have ended. Returns whether the leader responded to a request.
    async fn serve(
        &mut self,
        mut connection: Connection,
        waiting: Vec<QueuedPosting>,
        leader: &LeaderAddress,
        token: &CancellationToken,
    ) -> bool {
        let mut has_answered = false;
        let mut is_over = false;
        self.send(&mut connection, waiting);
        while !is_over || !connection.sent.is_empty() {
            let mut items = Vec::new();
            tokio::select! {
                biased;
                response = connection.response() => match response {
                    Ok(answered) => {
                        has_answered = true;
                        self.settle(answered);
                    }
                    Err(end) => {
                        self.end(connection, &end);
                        return has_answered;
                    }
                },
                changed = self.leadership.changed(), if !is_over => {
                    let current = self.leadership.borrow_and_update();
                    is_over = changed.is_err()
                        || !matches!(&*current, Leadership::Follows(current) if current == leader);
                }
                () = token.cancelled(), if !is_over => is_over = true,
                count = self.queue.recv_many(&mut items, POSTINGS_MAX),
                    if !is_over && connection.sent.len() < REQUESTS_MAX =>
                {
                    if count == 0 {
                        is_over = true;
                    } else {
                        self.send(&mut connection, items);
                    }
                }
            }
            if is_over {
                // From now on, new postings go to this process's own writer, and so do the postings in the queue.
                self.give_up_following();
            }
        }
        has_answered
    }

    fn send(&self, connection: &mut Connection, items: Vec<QueuedPosting>) {
        for items in split(items) {
            self.doubts.send(keys(&items));
            connection.send(items);
        }
    }

    /// Stops sending postings to the leader: this process's own writer gets the queued postings and all later postings.
    fn give_up_following(&mut self) {
        self.hand_over_queue();
        self.set_role(Role::Alone);
        // Postings that were queued before the role changed.
        self.hand_over_queue();
    }

    fn hand_over_queue(&mut self) {
        while let Ok(item) = self.queue.try_recv() {
            self.hand_over_unsent(item);
        }
    }

    /// Processes the end of the connection: hands the postings that have no reply to this process's own writer.
    fn end(&mut self, connection: Connection, end: &ConnectionEnd) {
        // Must happen before this process's own writer gets more postings, because these may repeat a request whose
        // first posting is in `connection`.
        for Sent { items, .. } in connection.sent {
            let keys: Vec<Uuid> = keys(&items).collect();
            match end {
                ConnectionEnd::NotRead => {
                    for item in items {
                        self.hand_over(self.marked(item));
                    }
                }
                ConnectionEnd::Failed(cause) => self.leave_all_open(items, cause),
            }
            self.doubts.settle(keys.into_iter());
        }
        self.give_up_following();
    }

    fn leave_all_open(&self, items: Vec<QueuedPosting>, cause: &str) {
        tracing::warn!(
            event = "ledger.forward_failed",
            error.message = cause,
            postings = items.len(),
            "the ledger's leader did not respond to a request; this process will write the request's postings itself"
        );
        let count = items.len() as u64;
        self.metrics.wallet_ledger_forwarded_total.with(["in_doubt"]).increment(count);
        for item in items {
            self.leave_open(item);
        }
    }

    /// Processes the leader's replies to the postings of a request.
    fn settle(&self, answered: Answered) {
        let Answered { sent: Sent { items, at }, replies } = answered;
        self.metrics.wallet_ledger_forward_duration_seconds.record(at.elapsed().as_secs_f64());
        let keys: Vec<Uuid> = keys(&items).collect();
        for (item, reply) in items.into_iter().zip(replies) {
            self.answer(item, reply);
        }
        // Settled last, so that a posting to which the leader gave no definite reply is recorded as in doubt without a
        // gap.
        self.doubts.settle(keys.into_iter());
    }

    /// Passes the leader's reply to the caller, or hands the posting to this process's own writer if the leader did
    /// not decide on it.
    fn answer(&self, item: QueuedPosting, reply: PostReply) {
        let item = self.marked(item);
        let outcome = match wire::decode_reply(reply, &item.posting) {
            // This process's own writer may still write an earlier posting under the same key.
            LeaderReply::Decided(Err(_)) if self.was_handed_over(&item) => {
                self.hand_over(item);
                "answered"
            }
            LeaderReply::Decided(reply) => {
                item.answer(reply);
                "answered"
            }
            LeaderReply::NotWritten => {
                if let Some(key) = item.posting.key {
                    self.handed_over.insert(key.hash, ());
                }
                self.hand_over(item);
                "unsupported"
            }
            LeaderReply::Unknown => {
                self.leave_open(item);
                "in_doubt"
            }
        };
        self.metrics.wallet_ledger_forwarded_total.with([outcome]).increment(1);
    }

    /// Returns whether an earlier posting under the same key went to this process's own writer, because the leader did
    /// not write it.
    fn was_handed_over(&self, item: &QueuedPosting) -> bool {
        item.posting.key.is_some_and(|key| self.handed_over.get(&key.hash).is_some())
    }

    /// Marks the outcome of a posting as uncertain if the leader gave no clear reply to another posting under the same
    /// key.
    fn marked(&self, item: QueuedPosting) -> QueuedPosting {
        let key = item.posting.key;
        let is_in_doubt = key.is_some_and(|key| self.doubts.contain(key.hash, true));
        if is_in_doubt { item.in_doubt() } else { item }
    }

    /// Hands a posting to this process's own writer, and marks its outcome as uncertain, because the leader may have
    /// written the posting, or may still write it.
    fn leave_open(&self, item: QueuedPosting) {
        if let Some(key) = item.posting.key {
            self.doubts.leave_open(key.hash);
        }
        self.hand_over(item.in_doubt());
    }

    /// Hands a posting to this process's own writer without sending it to the leader. Marks its outcome as uncertain if
    /// the leader may still write an earlier posting under the same key.
    fn hand_over_unsent(&self, item: QueuedPosting) {
        let key = item.posting.key;
        let is_in_doubt = key.is_some_and(|key| self.doubts.contain(key.hash, false));
        self.hand_over(if is_in_doubt { item.in_doubt() } else { item });
    }

    /// Hands a posting to this process's own writer.
    fn hand_over(&self, item: QueuedPosting) {
        match self.own_writer.queues.queue_of(&item.posting).try_send(item) {
            Ok(()) => {}
            Err(mpsc::error::TrySendError::Full(item)) => item.answer(Err(PostError::Overloaded)),
            Err(mpsc::error::TrySendError::Closed(item)) => {
                item.answer(Err(PostError::Unavailable));
            }
        }
    }
}

/// Splits postings into requests of bounded size.
fn split(items: Vec<QueuedPosting>) -> Vec<Vec<QueuedPosting>> {
    let (mut requests, mut legs) = (Vec::<Vec<_>>::new(), 0);
    for item in items {
        legs += item.posting.legs.len();
        match requests.last_mut() {
            Some(request) if legs <= REQUEST_LEGS_MAX && request.len() < POSTINGS_MAX => {
                request.push(item);
            }
            _ => {
                legs = item.posting.legs.len();
                requests.push(vec![item]);
            }
        }
    }
    requests
}

fn keys(items: &[QueuedPosting]) -> impl Iterator<Item = Uuid> {
    items.iter().filter_map(|item| item.posting.key).map(|key| key.hash)
}
