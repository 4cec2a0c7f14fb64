//! Events of the event table, which move no money: publishing them, and converting them to messages for subscribers.

use std::borrow::Cow;

use serde::{Deserialize, Serialize};
use serde_json::value::{RawValue, to_raw_value};
use sqlx::PgConnection;
use uuid::Uuid;

use super::message::{Audience, Message};
use crate::error::{Error, Result};
use crate::ledger::tail::{self, BookEvent, EventToAppend};

/// An event that moves no money. It is published in the same transaction as the change that it reports.
#[derive(Debug, Serialize)]
pub struct NewEvent<'a> {
    #[serde(skip)]
    pub topic: &'a str,
    #[serde(rename = "type")]
    pub kind: &'a str,
    pub data: &'a RawValue,
    /// Text of the event for clients that receive `new_message` frames, which contain only text.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub text: Option<&'a str>,
    /// Id of the player that the event is about.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub player: Option<&'a str>,
    pub audience: Audience,
    #[serde(skip)]
    pub trace: Option<Uuid>,
}

/// Body of an event in the event table, as a JSON object. If a stored body has a different form, the whole body is the
/// data of the event, and the type of the event is derived from its topic.
#[derive(Deserialize)]
struct Envelope<'a> {
    #[serde(rename = "type", borrow)]
    kind: Cow<'a, str>,
    #[serde(borrow)]
    data: &'a RawValue,
    text: Option<String>,
    player: Option<String>,
    #[serde(default)]
    audience: Audience,
}

/// Publishes an event in the caller's transaction. Subscribers receive it after the transaction has committed.
pub async fn publish(db: &mut PgConnection, event: &NewEvent<'_>) -> Result<()> {
    publish_all(db, std::slice::from_ref(event)).await
}

/// Publishes several events in the caller's transaction. Subscribers receive them in the given order, after the
/// transaction has committed.
pub async fn publish_all(db: &mut PgConnection, events: &[NewEvent<'_>]) -> Result<()> {
    let bodies = events.iter().map(to_raw_value).collect::<Result<Vec<_>, _>>();
    let bodies = bodies.map_err(|cause| Error::Internal(cause.into()))?;
    let events = events.iter().zip(&bodies).map(|(event, body)| EventToAppend {
        topic: event.topic,
        body,
        trace_id: event.trace,
    });
    Ok(tail::append_events(db, &events.collect::<Vec<_>>()).await?)
}

/// Converts an event to a message. Returns `None` if the body is not JSON, which the database prevents.
pub fn message_of(event: &BookEvent) -> Option<Message> {
    let topic = Cow::Owned(event.topic.clone());
    let at = event.at;
    if let Ok(Envelope { kind, data, text, player, audience }) = serde_json::from_str(&event.body) {
        let (kind, data) = (Cow::Owned(kind.into_owned()), data.to_owned());
        return Some(Message { topic, kind, data, text, player, audience, at });
    }
    let data = RawValue::from_string(event.body.clone()).ok()?;
    let (kind, audience) = (default_kind(&event.topic), Audience::Everyone);
    Some(Message { topic, kind, data, text: None, player: None, audience, at })
}

/// Returns the type of an event that was stored without a type. It is derived from the topic: for example,
/// `leaderboard.changed` for the topics `leaderboard:weekly` and `leaderboard-changes`.
fn default_kind(topic: &str) -> Cow<'static, str> {
    let name = topic.split([':', '-']).next().unwrap_or(topic);
    Cow::Owned(format!("{name}.changed"))
}

#[cfg(test)]
mod tests {
    use time::OffsetDateTime;

    use super::*;

    fn read(topic: &str, body: &str) -> Message {
        message_of(&BookEvent {
            position: tail::Position::default(),
            at: OffsetDateTime::UNIX_EPOCH,
            trace_id: None,
            topic: topic.to_owned(),
            body: body.to_owned(),
        })
        .unwrap()
    }

    #[test]
    fn an_event_is_read_as_it_was_published() {
        let data = RawValue::from_string(r#"{"a":1}"#.to_owned()).unwrap();
        let audience = Audience::Owner(crate::ids::UserId(2));
        let (text, player) = (Some("hello"), Some("2"));
        let new =
            NewEvent { topic: "t", kind: "k", data: &data, text, player, audience, trace: None };

        let message = read("t", &serde_json::to_string(&new).unwrap());

        assert_eq!((message.kind.as_ref(), message.data.get()), ("k", r#"{"a":1}"#));
        assert_eq!((message.text.as_deref(), message.player.as_deref()), (text, player));
        assert_eq!(message.audience, audience);
    }

    #[test]
    fn a_bare_body_is_the_data() {
        let message = read("leaderboard:weekly", r#"{"rank":1}"#);

        assert_eq!(
            (message.kind.as_ref(), message.data.get()),
            ("leaderboard.changed", r#"{"rank":1}"#)
        );
    }
}
