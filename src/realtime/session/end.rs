//! The end of a WebSocket connection: its reason, its close frame, and the position from which the client can continue.

use axum::extract::ws::WebSocket;

use super::Session;
use super::socket::close;
use crate::realtime::credential::Credential;
use crate::realtime::position::BookPosition;

/// Close code for a client that reads too slowly.
const CODE_SLOW: u16 = 4008;
/// Close code for a client that must reconnect because the program stops.
const CODE_GOING_AWAY: u16 = 1001;
const CODE_TOO_LARGE: u16 = 1009;
const CODE_TRY_AGAIN_LATER: u16 = 1013;

/// Longest reason, in bytes, that RFC 6455 allows in a close frame. A position in many books can be longer and is then
/// omitted; the client continues from the position of the last event that it received.
const REASON_BYTES_MAX: usize = 123;

/// Reason why a WebSocket connection ends.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum End {
    /// The client closed the connection, or violated the WebSocket protocol.
    Closed,
    /// The connection broke, so no close frame can be sent.
    Broken,
    SlowConsumer,
    PingTimeout,
    FrameTooLarge,
    /// The database cannot be reached, so it is unknown whether the credential was revoked.
    Unavailable,
    Shutdown,
}

impl Session {
    /// Ends all subscriptions and closes the connection.
    pub(super) async fn finish(mut self, socket: &mut WebSocket, end: End) {
        let position = self.resume_position();
        self.end_subscriptions().await;
        let dropped = &self.realtime.metrics.wallet_ws_dropped_total;
        let reason = position.map(|position| position.to_string());
        let reason = reason.filter(|text| text.len() <= REASON_BYTES_MAX).unwrap_or_default();
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
        // If thousands of connections end at once, the limit lets requests run in between.
        let _permit = self.realtime.endings.acquire().await;
        for own in std::mem::take(&mut self.subscriptions) {
            self.realtime.hub.unsubscribe(&own.topic.name, &self.outbox, own.id).await;
            self.realtime.metrics.wallet_ws_subscriptions.decrement(1.0);
        }
        if let Some(credential) = Credential::of(&self.caller) {
            self.realtime.hub.forget_credential(&credential, &self.outbox).await;
        }
    }

    /// Returns a position from which the client can continue all its subscriptions without missing an event.
    fn resume_position(&self) -> Option<BookPosition> {
        let unsent = self.outbox.close();
        let lacking = self.subscriptions.iter().filter_map(|own| {
            let has_unsent = unsent.contains(&own.id);
            if has_unsent { own.sent.as_ref().or(own.behind.as_ref()) } else { own.behind.as_ref() }
        });
        let lacking = lacking.cloned().reduce(|one, other| one.meet(&other));
        lacking.or_else(|| self.last_sent.clone())
    }
}
