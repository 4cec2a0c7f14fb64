//! The route `/ws`, which upgrades a request to a WebSocket connection.

use std::time::Instant;

use axum::extract::ws::WebSocketUpgrade;
use axum::extract::ws::rejection::WebSocketUpgradeRejection;
use axum::extract::{FromRef, State};
use axum::response::Response;
use http::{HeaderMap, header};
use serde::Deserialize;
use url::Url;
use utoipa::IntoParams;
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

use super::session::{Request, Session, UpgradeRequest};
use super::{Realtime, runtime};
use crate::auth::{Access, Caller, PresentedCredential, TrustedProxies, bearer};
use crate::error::{Error, Result};
use crate::http::extract::Query;
use crate::http::origin::Origin;
use crate::http::problem::Problems;

/// Size of the read buffer of each connection. Most frames are far smaller. A larger frame is read in several parts.
const READ_BUFFER_BYTES: usize = 1024;

/// Number of bytes in the write buffer at which the buffer is sent without waiting for a flush.
const WRITE_BUFFER_BYTES: usize = 16 * 1024;

/// Maximum number of bytes in the write buffer. It is larger than the largest event.
const WRITE_BUFFER_BYTES_MAX: usize = 256 * 1024;

/// Largest message that the WebSocket library accepts. The program itself accepts only frames up to 16 KiB. Because the
/// library accepts more, the program can reject a frame with a reply instead of closing the connection.
const MESSAGE_BYTES_MAX: usize = 64 * 1024;

pub fn routes<S>() -> OpenApiRouter<S>
where
    Realtime: FromRef<S>,
    TrustedProxies: FromRef<S>,
    S: Clone + Send + Sync + 'static,
{
    OpenApiRouter::new().routes(routes!(open_websocket))
}

#[derive(Deserialize, IntoParams)]
#[serde(rename_all = "camelCase")]
struct ConnectQuery {
    /// Topic to subscribe to when the connection opens, such as `outcomes`, `game-outcomes` or `leaderboard-changes`.
    #[serde(rename = "event_type")]
    #[param(rename = "event_type", example = "outcomes")]
    event_type: Option<String>,
    /// Numeric id of a player. The client then receives only events about this player.
    #[serde(rename = "userID")]
    #[param(rename = "userID", example = "2")]
    user_id: Option<u64>,
}

/// Open a WebSocket
///
/// Frames are JSON texts. For example, `{"action":"subscribe","topic":"wallet:1","after":"<position>"}` subscribes to a
/// topic. The subscription begins after the position, which comes from the header `Book-Position` or from an event.
#[utoipa::path(
    get, path = "/ws", tag = "realtime", params(ConnectQuery),
    responses(
        (status = 101, description = "The connection becomes a WebSocket"),
        (
            status = 426, description = "The request does not ask for a WebSocket",
            content_type = "application/problem+json", body = ref("#/components/schemas/Problem"),
        ),
        Problems,
    ),
)]
async fn open_websocket(
    State(realtime): State<Realtime>,
    origin: Origin,
    headers: HeaderMap,
    Query(query): Query<ConnectQuery>,
    upgrade: Result<WebSocketUpgrade, WebSocketUpgradeRejection>,
) -> Result<Response> {
    let (credential, checked_at) = (bearer(&headers)?, Instant::now());
    let caller = realtime.authenticator.identify(credential.as_ref()).await?;
    require_known_origin(&realtime, &caller, &headers)?;
    let upgrade = upgrade.map_err(|_| Error::UpgradeRequired)?;
    let subscription = match query.event_type {
        None => None,
        Some(name) => {
            let topic = realtime.hub.topic(&name);
            let (topic, feed) =
                topic.ok_or_else(|| Error::field("?event_type", "is not a topic"))?;
            feed.authorize(&caller, &topic).await?;
            let player = query.user_id.map(|id| id.to_string());
            Some(Request { topic: name, player, after: realtime.hub.current_position().await? })
        }
    };
    let permit = realtime.admit(origin.address)?;
    let tasks = realtime.tasks.clone();
    let presented = credential.map(|token| PresentedCredential { token, checked_at });
    let opening = Box::new(UpgradeRequest { presented, subscription });
    let session = Session::new(realtime, caller, permit);
    let upgrade = upgrade
        .read_buffer_size(READ_BUFFER_BYTES)
        .write_buffer_size(WRITE_BUFFER_BYTES)
        .max_write_buffer_size(WRITE_BUFFER_BYTES_MAX)
        .max_message_size(MESSAGE_BYTES_MAX)
        .max_frame_size(MESSAGE_BYTES_MAX);
    Ok(upgrade.on_upgrade(async move |socket| {
        tasks.spawn_short_lived_on(runtime::sockets_runtime(), session.run(socket, opening));
    }))
}

/// Rejects connections from pages of other websites, unless `--access` is `open` or `--cors-origins` lists the website.
/// The check is necessary because browsers do not apply CORS to WebSocket connections.
fn require_known_origin(realtime: &Realtime, caller: &Caller, headers: &HeaderMap) -> Result<()> {
    let Some(origin) = headers.get(header::ORIGIN) else { return Ok(()) };
    if caller.policy().access == Access::Open || realtime.cors_origins.permit(origin) {
        return Ok(());
    }
    let host = headers.get(header::HOST).and_then(|host| host.to_str().ok());
    let own = origin.to_str().ok().and_then(|origin| Url::parse(origin).ok());
    let own = own.as_ref().map(|url| &url[url::Position::BeforeHost..url::Position::AfterPort]);
    if own.is_some() && own == host {
        return Ok(());
    }
    realtime.metrics.wallet_ws_refused_total.with(["origin"]).increment(1);
    Err(Error::Forbidden)
}
