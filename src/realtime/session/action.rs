//! Parses the frames that a client sends, in either of two dialects.

use std::borrow::Cow;

use serde::Deserialize;

/// Largest frame, in bytes, that a client may send.
pub(super) const FRAME_BYTES_MAX: usize = 16 * 1024;

/// Dialect of a client's frames. The first frame that the client sends determines the dialect.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Dialect {
    /// The client has not sent a frame yet.
    Undecided,
    /// Frames such as `{"type":"change_game",...}`. The connection has a single subscription, and errors get no reply.
    Types,
    /// Frames such as `{"action":"subscribe",...}`.
    Actions,
}

/// A frame of the dialect [`Dialect::Actions`].
#[derive(Debug, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct ActionFrame<'a> {
    #[serde(borrow)]
    pub action: Cow<'a, str>,
    #[serde(borrow)]
    pub topic: Option<Cow<'a, str>>,
    #[serde(borrow)]
    pub after: Option<Cow<'a, str>>,
    #[serde(borrow)]
    pub token: Option<Cow<'a, str>>,
}

/// A frame of the dialect [`Dialect::Types`].
#[derive(Debug, PartialEq, Eq, Deserialize)]
pub(super) struct TypeFrame<'a> {
    #[serde(rename = "type", borrow)]
    pub kind: Cow<'a, str>,
    #[serde(borrow, default)]
    pub payload: TypePayload<'a>,
}

#[derive(Debug, Default, PartialEq, Eq, Deserialize)]
pub(super) struct TypePayload<'a> {
    #[serde(borrow)]
    pub name: Option<Cow<'a, str>>,
    #[serde(borrow)]
    pub message: Option<Cow<'a, str>>,
}

/// A parsed frame of a client.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum ClientFrame<'a> {
    Action(ActionFrame<'a>),
    Type(TypeFrame<'a>),
}

/// Reason why a frame is rejected: the short name (slug) of the problem, and details for the client.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct RefusedFrame(pub &'static str, pub String);

/// The member `action`, which only frames of the dialect [`Dialect::Actions`] have.
#[derive(Deserialize)]
struct Head<'a> {
    #[serde(borrow)]
    action: Option<&'a serde_json::value::RawValue>,
}

/// Parses a frame of a client, and recognizes its dialect.
pub(super) fn read(text: &str) -> Result<ClientFrame<'_>, RefusedFrame> {
    if text.len() > FRAME_BYTES_MAX {
        let details = format!("a frame has at most {FRAME_BYTES_MAX} bytes");
        return Err(RefusedFrame("frame-too-large", details));
    }
    let malformed = |error: serde_json::Error| RefusedFrame("malformed-json", error.to_string());
    let invalid = |error: serde_json::Error| RefusedFrame("invalid", error.to_string());
    let is_object = text.trim_start().starts_with('{');
    match serde_json::from_str::<Head<'_>>(text) {
        Ok(_) if !is_object => {
            Err(RefusedFrame("invalid", "a frame must be a JSON object".to_owned()))
        }
        Ok(Head { action: Some(_) }) => {
            serde_json::from_str(text).map(ClientFrame::Action).map_err(invalid)
        }
        Ok(Head { action: None }) => serde_json::from_str(text)
            .map(ClientFrame::Type)
            .map_err(|_| RefusedFrame("invalid", "a frame must have the member action".to_owned())),
        Err(error) if error.is_data() && !is_object => {
            Err(RefusedFrame("invalid", "a frame must be a JSON object".to_owned()))
        }
        Err(error) => Err(malformed(error)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn slug(text: &str) -> &'static str {
        read(text).map_or_else(|refused| refused.0, |_| "")
    }

    #[test]
    fn frames_are_told_apart_by_their_members() {
        let Ok(ClientFrame::Action(action)) = read(r#"{"action":"subscribe","topic":"a\u0062"}"#)
        else {
            panic!("an action")
        };
        assert_eq!((action.action.as_ref(), action.topic.as_deref()), ("subscribe", Some("ab")));
        let Ok(ClientFrame::Type(frame)) = read(r#"{"type":"change_game","payload":{"name":"x"}}"#)
        else {
            panic!("a type")
        };
        assert_eq!(
            (frame.kind.as_ref(), frame.payload.name.as_deref()),
            ("change_game", Some("x"))
        );
    }

    #[test]
    fn refused_frames_say_why() {
        for text in ["", "{", "x", r#"{"action":"a"} x"#] {
            assert_eq!(slug(text), "malformed-json", "{text}");
        }
        for text in ["[]", "7", "null", "{}", r#"{"action":7}"#, r#"{"action":"a","other":1}"#] {
            assert_eq!(slug(text), "invalid", "{text}");
        }
        assert_eq!(slug(&" ".repeat(FRAME_BYTES_MAX + 1)), "frame-too-large");
    }
}
