//! Deliveries: messages with their positions in the ledger and the event table. A message is encoded once for each
//! frame format, not once for each subscriber.

use std::fmt::Write;
use std::sync::OnceLock;

use axum::extract::ws::Utf8Bytes;
use serde::Serialize;
use serde_json::value::RawValue;
use time::format_description::well_known::Rfc3339;

use super::message::{Message, Viewer};
use super::position::BookPosition;
use crate::ledger::book::book_of;

/// Format of the frames that a client receives.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum FrameFormat {
    /// JSON object with the members `topic`, `position`, `type`, `data` and `at`.
    Event,
    /// JSON object with the type `new_message`. Its `payload` has the members `message`, `gameEvent` and `sent`.
    NewMessage,
    /// Only the data of the message, for gRPC streams, which send the position separately.
    Data,
}

/// Source of a delivery: the ledger, or the table of events that move no money.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum DeliverySource {
    /// The ledger. Contains the sequence number of the transfer.
    Book(i64),
    Events,
}

/// A message and its position, shared by all subscribers that receive it.
#[derive(Debug)]
pub(super) struct Delivery {
    pub position: BookPosition,
    pub source: DeliverySource,
    pub message: Message,
    data: OnceLock<Utf8Bytes>,
    event: OnceLock<Utf8Bytes>,
    new_message: OnceLock<Option<Utf8Bytes>>,
}

#[derive(Serialize)]
struct EventFrame<'a> {
    topic: &'a str,
    position: String,
    r#type: &'a str,
    data: &'a RawValue,
    at: String,
}

#[derive(Serialize)]
struct NewMessageFrame<'a> {
    r#type: &'static str,
    payload: NewMessagePayload<'a>,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct NewMessagePayload<'a> {
    message: &'a str,
    game_event: &'a str,
    sent: String,
}

impl Delivery {
    pub(super) fn new(position: BookPosition, source: DeliverySource, message: Message) -> Self {
        let (data, event, new_message) = (OnceLock::new(), OnceLock::new(), OnceLock::new());
        Self { position, source, message, data, event, new_message }
    }

    /// Returns whether this delivery is new to a subscriber that has received everything up to `position`.
    pub(super) fn is_after(&self, position: &BookPosition) -> bool {
        match self.source {
            DeliverySource::Book(seq) => seq > position.seq(book_of(seq)),
            DeliverySource::Events => self.position.event > position.event,
        }
    }

    /// Returns whether a subscriber with the rights `viewer` may see the message. If the subscription is limited to a
    /// player, the message must also be about this player.
    pub(super) fn is_for(&self, viewer: Viewer, player: Option<&str>) -> bool {
        viewer.sees(self.message.audience)
            && player.is_none_or(|player| self.message.player.as_deref() == Some(player))
    }

    /// Returns the frame for a subscriber that has received everything up to `position`, and the subscriber's new
    /// position. The frame is `None` if `format` cannot express the message.
    pub(super) fn frame(
        &self,
        format: FrameFormat,
        position: &BookPosition,
    ) -> (BookPosition, Option<Utf8Bytes>) {
        let after = self.position.clone().join(position);
        let frame = match format {
            FrameFormat::NewMessage => {
                self.new_message.get_or_init(|| self.encode_new_message()).clone()
            }
            FrameFormat::Data => {
                let encode = || self.message.data.get().to_owned().into();
                Some(self.data.get_or_init(encode).clone())
            }
            FrameFormat::Event if after == self.position => {
                Some(self.event.get_or_init(|| self.encode_event(&after)).clone())
            }
            // The subscriber is ahead of this process in one of the two sources, because another process served it
            // before.
            FrameFormat::Event => Some(self.encode_event(&after)),
        };
        (after, frame)
    }

    /// Returns the approximate number of bytes that the delivery takes in memory.
    pub(super) fn bytes(&self) -> usize {
        let Message { topic, kind, data, text, .. } = &self.message;
        let text = text.as_ref().map_or(0, String::len);
        // The data is in memory twice: in the message and in the encoded frame.
        size_of::<Self>() + topic.len() + kind.len() + 2 * (data.get().len() + text) + 200
    }

    fn encode_event(&self, position: &BookPosition) -> Utf8Bytes {
        let frame = EventFrame {
            topic: &self.message.topic,
            position: position.to_string(),
            r#type: &self.message.kind,
            data: &self.message.data,
            at: self.message.at.format(&Rfc3339).unwrap_or_default(),
        };
        encode(&frame)
    }

    fn encode_new_message(&self) -> Option<Utf8Bytes> {
        let payload = NewMessagePayload {
            message: self.message.text.as_deref()?,
            game_event: &self.message.topic,
            sent: with_nanoseconds(self.message.at),
        };
        Some(encode(&NewMessageFrame { r#type: "new_message", payload }))
    }
}

/// Encodes a frame as JSON.
pub(super) fn encode(frame: &impl Serialize) -> Utf8Bytes {
    serde_json::to_string(frame).expect("a frame of names and texts always serializes").into()
}

/// Formats a time as RFC 3339 with nine digits after the second.
fn with_nanoseconds(at: time::OffsetDateTime) -> String {
    let at = at.to_offset(time::UtcOffset::UTC);
    let mut text = String::with_capacity(30);
    let (date, time) = (at.date(), at.time());
    let month = u8::from(date.month());
    // Writing to a String cannot fail.
    let _written = write!(
        text,
        "{:04}-{month:02}-{:02}T{:02}:{:02}:{:02}.{:09}Z",
        date.year(),
        date.day(),
        time.hour(),
        time.minute(),
        time.second(),
        time.nanosecond()
    );
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_moment_has_nanoseconds() {
        let at = time::macros::datetime!(2026-01-02 03:04:05.006 UTC);

        assert_eq!(with_nanoseconds(at), "2026-01-02T03:04:05.006000000Z");
    }
}
