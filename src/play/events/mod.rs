//! Route `POST /api/events`, with which game servers publish game outcomes and game progress.

pub mod retention;
mod sql;

use axum::Extension;
use axum::extract::{FromRef, State};
use http::StatusCode;
use serde::{Deserialize, Serialize};
use serde_json::value::{RawValue, to_raw_value};
use sqlx::Connection;
use utoipa::ToSchema;
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;
use uuid::Uuid;

use crate::auth::{Authenticator, Caller, Scope};
use crate::db::Database;
use crate::error::{Error, Result};
use crate::http::body::JsonBody;
use crate::http::context::RequestContext;
use crate::http::extract::{RawField, Validator};
use crate::http::fields::{string, text};
use crate::http::problem::Problems;
use crate::http::replay::Replayable;
use crate::idempotency_key::IdempotencyKey;
use crate::realtime::{Audience, NewEvent, publish};

/// Longest name of a game or a player in an event, in characters.
const NAME_MAX: usize = 64;

/// Largest payload of an event, in bytes. The limit ensures that an event fits into a single message to a subscriber.
const PAYLOAD_MAX: usize = 16 * 1024;

/// Publishes the events of game servers. Cheap to clone.
#[derive(Clone)]
pub struct GameEvents {
    db: Database,
}

/// Type of a game event.
#[derive(Debug, Clone, Copy, PartialEq, Eq, utoipa::ToSchema)]
#[schema(as = GameEventType)]
enum EventType {
    #[schema(rename = "game-outcome")]
    Outcome,
    #[schema(rename = "game-progress")]
    Progress,
}

impl EventType {
    fn parse(raw: &str) -> Result<Self, String> {
        match string(raw)?.as_str() {
            "game-outcome" => Ok(Self::Outcome),
            "game-progress" => Ok(Self::Progress),
            _ => Err("must be game-outcome or game-progress".to_owned()),
        }
    }

    const fn name(self) -> &'static str {
        match self {
            Self::Outcome => "game-outcome",
            Self::Progress => "game-progress",
        }
    }

    const fn topic(self) -> &'static str {
        match self {
            Self::Outcome => "game-outcomes",
            Self::Progress => "gameprogress-event",
        }
    }
}

#[derive(Serialize)]
struct GameEventData<'a> {
    game: &'a str,
    user: &'a str,
    payload: &'a RawValue,
}

/// An event that a game server publishes.
struct GameEvent<'a> {
    kind: EventType,
    game: &'a str,
    user: &'a str,
    payload: &'a RawValue,
}

impl GameEvents {
    pub fn new(db: Database) -> Self {
        Self { db }
    }

    /// Publishes an event of a game server. Returns whether an earlier request with the same idempotency key already
    /// published the event.
    async fn publish(
        &self,
        caller: &Caller,
        key: &IdempotencyKey,
        trace: Uuid,
        event: &GameEvent<'_>,
    ) -> Result<bool> {
        caller.require_scope(Scope::EventsWrite)?;
        let GameEvent { kind, game, user, payload } = event;
        let data = to_raw_value(&GameEventData { game, user, payload });
        let data = data.map_err(|cause| Error::Internal(cause.into()))?;
        let message = message_of(payload);
        let new = NewEvent {
            topic: kind.topic(),
            kind: kind.name(),
            data: &data,
            text: Some(&message),
            player: Some(user),
            audience: Audience::Everyone,
            trace: Some(trace),
        };
        let content = [kind.name(), game, user, payload.get()];
        let hashed = key.hashed(caller.name(), "event", &content);
        let mut db = self.db.acquire("play.event").await?;
        let mut tx = db.begin().await?;
        if let Some(hashed) = hashed
            && let Some(known) = sql::claim_key(&mut tx, hashed.hash, hashed.content).await?
        {
            hashed.require_same_content(Some(known))?;
            return Ok(true);
        }
        publish(&mut tx, &new).await?;
        tx.commit().await?;
        Ok(false)
    }
}

/// Returns the text of an event, for clients that can only display text: the field `message` of the payload or, without
/// this field, the whole payload.
fn message_of(payload: &RawValue) -> String {
    #[derive(Deserialize)]
    struct Message {
        message: String,
    }
    match serde_json::from_str::<Message>(payload.get()) {
        Ok(Message { message }) => message,
        Err(_) => payload.get().to_owned(),
    }
}

pub fn routes<S>() -> OpenApiRouter<S>
where
    GameEvents: FromRef<S>,
    Authenticator: FromRef<S>,
    S: Clone + Send + Sync + 'static,
{
    OpenApiRouter::new().routes(routes!(publish_event))
}

#[derive(Deserialize, ToSchema)]
#[schema(as = PublishEvent)]
struct PublishEventBody<'a> {
    #[serde(rename = "type", borrow, default)]
    #[schema(required, value_type = EventType)]
    kind: RawField<'a>,
    /// Name of the game, 1 to 64 characters.
    #[serde(borrow, default)]
    #[schema(required, value_type = String, example = "chess")]
    game: RawField<'a>,
    /// Id of the player, 1 to 64 characters.
    #[serde(borrow, default)]
    #[schema(required, value_type = String, example = "2")]
    user: RawField<'a>,
    /// JSON object with details of the event, at most 16 KiB. Clients that can only display text show its field
    /// `message`.
    #[serde(borrow, default)]
    #[schema(value_type = Option<Object>, example = json!({ "result": "won" }))]
    payload: RawField<'a>,
}

/// Response to a request that publishes an event.
#[derive(Serialize, ToSchema)]
struct Published {
    #[schema(example = "game-outcomes")]
    topic: &'static str,
}

/// Publish a game event
///
/// The server delivers an event of type `game-outcome` to all subscribers of the topic `game-outcomes`, and an event of
/// type `game-progress` to all subscribers of the topic `gameprogress-event`.
#[utoipa::path(
    post, path = "/api/events", tag = "play", security(("bearer" = [])),
    params(IdempotencyKey),
    request_body = PublishEventBody<'static>,
    responses(
        (status = 202, description = "The topic on which the event is delivered", body = Published),
        Problems,
    ),
)]
async fn publish_event(
    State(events): State<GameEvents>,
    caller: Caller,
    key: IdempotencyKey,
    Extension(context): Extension<RequestContext>,
    body: JsonBody,
) -> Result<Replayable<Published>> {
    let PublishEventBody { kind, game, user, payload } = body.read()?;
    let mut validator = Validator::default();
    let kind = validator.required("/type", &kind, EventType::parse);
    let game = validator.required("/game", &game, |raw| text(raw, NAME_MAX));
    let user = validator.required("/user", &user, player);
    let payload = validator.optional("/payload", &payload, object);
    let ((kind, game), user) = validator.finish(kind.zip(game).zip(user))?;
    let empty = RawValue::from_string("{}".to_owned());
    let payload = match payload {
        Some(payload) => payload,
        None => empty.map_err(|cause| Error::Internal(cause.into()))?,
    };
    let event = GameEvent { kind, game: &game, user: &user, payload: &payload };
    let replayed = events.publish(&caller, &key, context.stored_trace(), &event).await?;
    let body = Published { topic: kind.topic() };
    Ok(Replayable::with_status(StatusCode::ACCEPTED, body, replayed))
}

/// Parses the id of a player: a string or, from older clients, a whole number.
fn player(raw: &str) -> Result<String, String> {
    let is_number = raw.bytes().all(|byte| byte.is_ascii_digit());
    if is_number && raw.len() <= NAME_MAX { Ok(raw.to_owned()) } else { text(raw, NAME_MAX) }
}

/// Parses the payload of an event: a JSON object without NUL characters, which Postgres cannot store.
fn object(raw: &str) -> Result<Box<RawValue>, String> {
    if !raw.starts_with('{') {
        return Err("must be an object".to_owned());
    }
    if raw.len() > PAYLOAD_MAX {
        return Err(format!("must have at most {PAYLOAD_MAX} bytes"));
    }
    if raw.contains("\\u0000") {
        return Err("must not contain a NUL".to_owned());
    }
    RawValue::from_string(raw.to_owned()).map_err(|_| "must be an object".to_owned())
}
