//! The end of a session: its reason, its close frame, and the position from which the client can continue.

use axum::extract::ws::WebSocket;

use super::Session;
use super::socket::close;
use crate::realtime::credential::Credential;
use crate::realtime::position::BookPosition;

/// Close code of a client that is too slow.
const CODE_SLOW: u16 = 4008;
/// Close codes of RFC 6455.
const CODE_GOING_AWAY: u16 = 1001;
const CODE_TOO_LARGE: u16 = 1009;
const CODE_TRY_AGAIN_LATER: u16 = 1013;

/// Reason for which a session ends.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum End {
    /// The client closed the connection, or violated the protocol.
    Closed,
    /// The connection broke, so no close frame can be sent.
    Broken,
    SlowConsumer,
    PingTimeout,
    FrameTooLarge,
    /// The database cannot be reached, so a revocation of the credential would be missed.
    Unavailable,
    Shutdown,
}

impl Session {
    /// Ends every subscription and closes the connection.
    pub(super) async fn finish(mut self, socket: &mut WebSocket, end: End) {
        let position = self.resume_position();
        self.end_subscriptions().await;
        let dropped = &self.realtime.metrics.wallet_ws_dropped_total;
        let reason = position.map(|position| position.to_string()).unwrap_or_default();
        let stopping = self.realtime.tasks.stopping();
        match end {
            End::Broken => {}
            End::Closed => close(socket, stopping, None).await,
            End::SlowConsumer => {
                dropped.with(["slow_consumer"]).increment(1);
                close(socket, stopping, Some((CODE_SLOW, &reason))).await;
            }
            End::PingTimeout => dropped.with(["ping_timeout"]).increment(1),
            End::FrameTooLarge => {
                dropped.with(["frame_too_large"]).increment(1);
                close(socket, stopping, Some((CODE_TOO_LARGE, "the frame is too large"))).await;
            }
            End::Unavailable => {
                dropped.with(["unavailable"]).increment(1);
                close(socket, stopping, Some((CODE_TRY_AGAIN_LATER, "try again later"))).await;
            }
            End::Shutdown => {
                dropped.with(["shutdown"]).increment(1);
                close(socket, stopping, Some((CODE_GOING_AWAY, &reason))).await;
            }
        }
    }

    async fn end_subscriptions(&mut self) {
        // Thousands of connections may end at once, and requests must not wait until all of them have ended.
        let _permit = self.realtime.endings.acquire().await;
        for own in std::mem::take(&mut self.subscriptions) {
            self.realtime.hub.unsubscribe(&own.topic.name, &self.outbox, own.id).await;
            self.realtime.metrics.wallet_ws_subscriptions.decrement(1.0);
        }
        if let Some(credential) = Credential::of(&self.caller) {
            self.realtime.hub.forget_credential(&credential, &self.outbox).await;
        }
    }

    /// Position from which the client can continue all of its subscriptions without missing anything.
    fn resume_position(&self) -> Option<BookPosition> {
        let unsent = self.outbox.close();
        let lacking = self.subscriptions.iter().filter_map(|own| {
            let has_unsent = unsent.contains(&own.id);
            if has_unsent { own.sent.or(own.behind) } else { own.behind }
        });
        lacking.reduce(BookPosition::meet).or(self.last_sent)
    }
}
