//! The wire: what a request passes on its way in, and what every answer has in common.
//!
//! A request meets, in this order: [`serve`] (sockets and their limits), [`edge`] (the list of
//! everything that happens to each request), the router below, [`extract`] (body, path and query
//! into types), and the handler of a slice. A failure is an [`Error`] until
//! [`problem`] writes it.

pub mod access_log;
pub mod ask;
pub mod auth;
pub mod context;
pub mod edge;
pub mod extract;
pub mod health;
pub mod heard;
pub mod idempotency;
pub mod openapi;
pub mod problem;
pub mod problem_pages;
pub mod serve;
#[cfg(test)]
mod tests;

use std::net::SocketAddr;
use std::time::Duration;

use axum::Router;
use axum::extract::DefaultBodyLimit;
use http::Method;
use utoipa_axum::router::OpenApiRouter;

use crate::app::App;
use crate::config::duration;
use crate::error::Error;

/// Largest body of a request, unless its route says otherwise.
pub const BODY_BYTES_MAX: usize = 64 * 1024;

/// Who is listened to, and how much of each.
#[derive(Debug, Clone, clap::Args)]
#[command(next_help_heading = "HTTP")]
pub struct HttpArgs {
    /// Address of the public API; port 0 takes a free one.
    #[arg(long, env = "REVWALLET_LISTEN", global = true, default_value = "127.0.0.1:8080")]
    pub listen: SocketAddr,
    /// Address of `/livez`, `/readyz`, `/metrics` and the internal routes: never make it public.
    #[arg(
        long,
        env = "REVWALLET_INTERNAL_LISTEN",
        global = true,
        default_value = "127.0.0.1:9000"
    )]
    pub internal_listen: SocketAddr,
    /// Most connections that are open at once; others wait to be accepted.
    #[arg(long, env = "REVWALLET_HTTP_CONNECTIONS_MAX", global = true, default_value_t = 10_000)]
    pub http_connections_max: usize,
    /// Most requests that are answered at once; the next one is told to come back.
    #[arg(long, env = "REVWALLET_HTTP_REQUESTS_MAX", global = true, default_value_t = 4_096)]
    pub http_requests_max: usize,
    /// Longest that an answer may take.
    #[arg(long, env = "REVWALLET_HTTP_TIMEOUT", global = true, default_value = "30s", value_parser = duration)]
    pub http_timeout: Duration,
    /// Longest that the head of a request may take to arrive.
    #[arg(long, env = "REVWALLET_HTTP_HEADER_TIMEOUT", global = true, default_value = "10s", value_parser = duration)]
    pub http_header_timeout: Duration,
}

/// Every public route, with its part of the OpenAPI document: one line a slice.
pub fn api() -> OpenApiRouter<App> {
    OpenApiRouter::with_openapi(openapi::frame())
        .merge(openapi::routes())
        .merge(problem_pages::routes())
        .merge(crate::wallet::http::routes())
        .merge(crate::webhook::http::routes())
        .merge(crate::users::http::routes())
        .merge(crate::keys::http::routes())
        .merge(crate::trail::http::routes())
}

/// The public router.
pub fn public(app: App) -> Router {
    let (router, _document) = api().split_for_parts();
    dress(router.merge(openapi::explorer()).merge(crate::web::routes())).with_state(app)
}

/// The router of the internal listener.
pub fn internal(app: App) -> Router {
    let routes = health::routes().merge(heard::routes()).merge(crate::users::http::internal());
    dress(routes).with_state(app)
}

/// What every router needs: problems for unknown paths and methods, and the limit of bodies.
pub fn dress(router: Router<App>) -> Router<App> {
    router
        .fallback(async || Error::NotFound("path"))
        .method_not_allowed_fallback(async |method: Method| Error::MethodNotAllowed(method))
        // One layer of two: the router pays for each.
        .layer((context::NoteRoute, DefaultBodyLimit::max(BODY_BYTES_MAX)))
}
