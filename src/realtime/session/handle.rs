//! Handles the requests that a WebSocket client sends: subscribe, unsubscribe, authenticate, and the frames of the
//! dialect [`Dialect::Types`].

use std::sync::Arc;

use axum::extract::ws::Message;
use serde::Serialize;
use serde_json::json;
use serde_json::value::to_raw_value;

use super::super::delivery::{FrameFormat, encode};
use super::super::event::{NewEvent, publish};
use super::super::message::{Audience, Viewer};
use super::super::outbox::SubscriptionId;
use super::super::position::BookPosition;
use super::action::{ActionFrame, ClientFrame, Dialect, RefusedFrame, TypeFrame, read};
use super::{Request, Session, Subscription};
use crate::auth::Scope;
use crate::error::{Error, Result};
use crate::secret::Secret;

/// Topic of the default subscription, which begins if a client sends no frame soon after it has connected.
const DEFAULT_TOPIC: &str = "gameprogress-event";

#[derive(Serialize)]
struct Reply<'a> {
    message: &'a str,
}

#[derive(Serialize)]
pub(super) struct ErrorReply<'a> {
    pub error: &'a str,
    pub details: &'a str,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub position: Option<&'a str>,
}

impl Session {
    pub(super) async fn receive(&mut self, message: Message) {
        let text = match message {
            Message::Text(text) => text,
            Message::Binary(_) => {
                let details = "send text frames that contain JSON".to_owned();
                return self.refuse(&RefusedFrame("invalid", details));
            }
            // The WebSocket library itself responds to pings and close frames.
            Message::Ping(_) | Message::Pong(_) | Message::Close(_) => return,
        };
        let frame = read(&text);
        let is_type = matches!(frame, Ok(ClientFrame::Type(_)));
        self.default_at = None;
        if self.dialect == Dialect::Undecided {
            self.dialect = if is_type { Dialect::Types } else { Dialect::Actions };
        }
        match frame {
            Ok(ClientFrame::Action(frame)) => {
                if self.dialect == Dialect::Types {
                    self.dialect = Dialect::Actions;
                    self.end_all().await;
                }
                self.count_in("action");
                self.act(frame).await;
            }
            Ok(ClientFrame::Type(frame)) if self.dialect == Dialect::Types => {
                self.count_in("action");
                // This dialect has no error replies.
                let _refused = self.act_on_type(frame).await;
            }
            Ok(ClientFrame::Type(_)) => {
                let details = "a frame must have the member action".to_owned();
                self.refuse(&RefusedFrame("invalid", details));
            }
            Err(refused) => self.refuse(&refused),
        }
    }

    fn count_in(&self, kind: &'static str) {
        self.realtime.metrics.wallet_ws_messages_total.with(["in", kind]).increment(1);
    }

    pub(super) fn reply(&self, message: &str) {
        self.outbox.reply(encode(&Reply { message }));
    }

    fn refuse(&self, RefusedFrame(error, details): &RefusedFrame) {
        self.count_in("invalid");
        if self.dialect != Dialect::Types {
            self.outbox.reply(encode(&ErrorReply { error, details, position: None }));
        }
    }

    fn reply_error(&self, error: &Error) {
        if let Some(cause) = error.cause() {
            tracing::warn!(
                error.message = format!("{cause:#}"),
                "a request from a WebSocket client failed; the client can safely repeat it"
            );
        }
        let position = match error {
            Error::Unrecoverable { position, .. } => Some(position.as_str()),
            _ => None,
        };
        let details = error.to_string();
        let error = error.problem().slug;
        self.outbox.reply(encode(&ErrorReply { error, details: &details, position }));
    }

    async fn act(&mut self, frame: ActionFrame<'_>) {
        let ActionFrame { action, topic, after, token } = frame;
        let outcome = match (action.as_ref(), topic, after, token) {
            ("subscribe", Some(topic), after, None) => {
                self.subscribe(&topic, after.as_deref()).await
            }
            ("unsubscribe", Some(topic), None, None) => self.unsubscribe(&topic).await,
            ("authenticate", None, None, Some(token)) => {
                self.authenticate(&Secret::from(token.into_owned())).await
            }
            ("subscribe" | "unsubscribe", None, ..) => Err(Error::field("/topic", "is required")),
            ("authenticate", _, _, None) => Err(Error::field("/token", "is required")),
            ("subscribe" | "unsubscribe" | "authenticate", ..) => {
                Err(Error::field("", "has a member that this action does not have"))
            }
            _ => Err(Error::field("/action", "is not subscribe, unsubscribe or authenticate")),
        };
        if let Err(error) = outcome {
            self.reply_error(&error);
        }
    }

    async fn act_on_type(&mut self, frame: TypeFrame<'_>) -> Result<()> {
        match (frame.kind.as_ref(), frame.payload.name, frame.payload.message) {
            ("change_game", Some(name), _) => self.change_game(&name).await,
            ("send_message", _, Some(message)) => self.send_message(&message).await,
            _ => Ok(()),
        }
    }

    /// Begins the subscription that the URL of the upgrade request asked for.
    pub(super) async fn begin(&mut self, request: Request) {
        let player = request.player.map(Arc::from);
        let format = FrameFormat::Event;
        if let Err(error) =
            self.add(&request.topic, format, player, Some(request.after), None).await
        {
            self.reply_error(&error);
        }
    }

    /// Begins the default subscription, for a client that has not sent a frame.
    pub(super) async fn begin_default(&mut self) {
        self.default_at = None;
        self.dialect = Dialect::Types;
        if let Err(error) = self.change_game(DEFAULT_TOPIC).await {
            tracing::debug!(
                error.message = %error,
                "the default subscription of a WebSocket client was rejected; its connection stays open without it"
            );
        }
    }

    async fn change_game(&mut self, name: &str) -> Result<()> {
        let topic = self.authorized(name).await?;
        if self.subscriptions.iter().any(|own| own.topic.name == topic.name) {
            return Ok(());
        }
        self.end_all().await;
        self.add(name, FrameFormat::NewMessage, None, None, None).await
    }

    /// Publishes a text to all subscribers of the topic to which the client is subscribed.
    async fn send_message(&mut self, message: &str) -> Result<()> {
        self.caller.require_scope(Scope::EventsWrite)?;
        let Some(own) = self.subscriptions.first() else { return Ok(()) };
        let data = to_raw_value(&json!({ "message": message }));
        let data = data.map_err(|cause| Error::Internal(cause.into()))?;
        let event = NewEvent {
            topic: &own.topic.name,
            kind: "message",
            data: &data,
            text: Some(message),
            player: None,
            audience: Audience::Everyone,
            trace: None,
        };
        let mut db = Box::pin(self.realtime.hub.tail().pool().acquire()).await?;
        publish(&mut db, &event).await
    }

    async fn subscribe(&mut self, name: &str, after: Option<&str>) -> Result<()> {
        self.authorized(name).await?;
        let message = format!("Subscribed to {name}");
        let after = match after {
            None => None,
            Some(text) => Some(self.realtime.hub.continuation(text).await?),
        };
        self.add(name, FrameFormat::Event, None, after, Some(&message)).await
    }

    /// Returns the topic with this name, or an error if the caller may not read it.
    async fn authorized(&self, name: &str) -> Result<super::Topic> {
        let (topic, feed) = self.realtime.hub.topic(name).ok_or(Error::NotFound("topic"))?;
        feed.authorize(&self.caller, &topic).await?;
        Ok(topic)
    }

    /// Adds a subscription. An existing subscription to the same topic ends.
    async fn add(
        &mut self,
        name: &str,
        format: FrameFormat,
        player: Option<Arc<str>>,
        after: Option<BookPosition>,
        acknowledgment: Option<&str>,
    ) -> Result<()> {
        let topic = self.authorized(name).await?;
        self.end_topic(&topic.name).await;
        let max = self.realtime.args.realtime_subscriptions_max;
        if self.subscriptions.len() >= max {
            return Err(Error::TooManySubscriptions(max));
        }
        let id = SubscriptionId(self.next_id);
        self.next_id += 1;
        let viewer = Viewer::new(&self.caller);
        let own =
            Subscription { id, topic, format, viewer, player, sent: after.clone(), behind: after };
        let subscriber = own.subscriber(&self.outbox);
        let acknowledge = |outbox: &super::Outbox| {
            if let Some(message) = acknowledgment {
                outbox.reply(encode(&Reply { message }));
            }
        };
        let after = own.behind.as_ref();
        self.realtime.hub.subscribe(&own.topic, subscriber, after, acknowledge).await?;
        self.realtime.metrics.wallet_ws_subscriptions.increment(1.0);
        // Most connections have only one subscription, so no room is reserved for more.
        self.subscriptions.reserve_exact(1);
        self.subscriptions.push(own);
        Ok(())
    }

    async fn unsubscribe(&mut self, name: &str) -> Result<()> {
        let (topic, _) = self.realtime.hub.topic(name).ok_or(Error::NotFound("topic"))?;
        if !self.end_topic(&topic.name).await {
            return Err(Error::field("/topic", "is not subscribed to"));
        }
        self.reply(&format!("Unsubscribed from {name}"));
        Ok(())
    }

    /// Ends the subscription to a topic. Returns whether the client was subscribed to the topic.
    pub(super) async fn end_topic(&mut self, topic: &str) -> bool {
        let index = self.subscriptions.iter().position(|own| &*own.topic.name == topic);
        let Some(index) = index else { return false };
        let own = self.subscriptions.remove(index);
        self.realtime.hub.unsubscribe(&own.topic.name, &self.outbox, own.id).await;
        self.realtime.metrics.wallet_ws_subscriptions.decrement(1.0);
        true
    }

    pub(super) async fn end_all(&mut self) {
        while let Some(own) = self.subscriptions.first() {
            let name = Arc::clone(&own.topic.name);
            self.end_topic(&name).await;
        }
    }
}
