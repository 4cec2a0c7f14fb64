//! HTTP: the path of a request from the socket to its handler, and the common properties of all responses.
//!
//! A request passes these parts in order: [`listener`] accepts the connection and enforces limits, [`middleware`] runs
//! the layers that apply to all requests, the router picks the handler, and [`extract`] turns path, query and body into
//! types. A failure stays an [`Error`] until [`problem`] converts it to a response.

pub mod access_log;
mod admit;
pub mod body;
mod compression;
pub mod connection;
pub mod context;
mod cors;
pub mod decimal;
pub mod document;
pub mod extract;
pub mod fields;
pub mod json;
pub mod listener;
mod malformed;
pub mod memory;
pub mod middleware;
pub mod openapi;
pub mod origin;
pub mod pagination;
mod position;
pub mod problem;
pub mod problem_pages;
pub mod query;
pub mod replay;
mod response;
pub mod rpc;
#[cfg(test)]
mod tests;

use std::net::SocketAddr;
use std::time::Duration;

use axum::Router;
use http::Method;

use crate::error::Error;
use crate::settings;

use self::query::KnownParametersLayer;

pub use self::body::BODY_BYTES_MAX;
pub use self::cors::CorsOrigins;
pub use self::decimal::MoneyFormat;

/// Largest request head (request line and headers) in bytes. Also the size of hyper's buffers per HTTP/1.1 connection.
const HEAD_BYTES_MAX: usize = 16 * 1024;

/// Listeners, and the limits on connections and requests.
#[derive(Debug, Clone, clap::Args)]
#[command(next_help_heading = "HTTP")]
pub struct HttpArgs {
    /// Address of the public API; with port 0, the operating system chooses a free port.
    #[arg(long, env = "REVWALLET_LISTEN", global = true, default_value = "127.0.0.1:8080")]
    pub listen: SocketAddr,
    /// Address of the internal listener, which serves `/livez`, `/readyz`, `/metrics` and the internal routes. Never
    /// make it public.
    #[arg(
        long,
        env = "REVWALLET_INTERNAL_LISTEN",
        global = true,
        default_value = "127.0.0.1:9000"
    )]
    pub internal_listen: SocketAddr,
    /// Maximum number of open connections. At the limit, the server closes an idle connection, or the new connection
    /// waits.
    #[arg(long, env = "REVWALLET_HTTP_CONNECTIONS_MAX", global = true, default_value_t = 10_000, value_parser = settings::count())]
    pub http_connections_max: usize,
    /// Maximum number of connections, and of concurrent requests, from one address. Trusted proxies are exempt.
    #[arg(
        long,
        env = "REVWALLET_HTTP_CONNECTIONS_PER_ADDRESS",
        global = true,
        default_value_t = 1_000,
        value_parser = settings::count()
    )]
    pub http_connections_per_address: usize,
    /// Maximum number of concurrent requests. Further requests get 503 with Retry-After.
    #[arg(long, env = "REVWALLET_HTTP_REQUESTS_MAX", global = true, default_value_t = 4_096, value_parser = settings::count())]
    pub http_requests_max: usize,
    /// Longest time that a response may take.
    #[arg(long, env = "REVWALLET_HTTP_TIMEOUT", global = true, default_value = "30s", value_parser = settings::positive_duration)]
    pub http_timeout: Duration,
    /// Longest time that a client may take to send a request head, and longest time that it may leave a response
    /// unread.
    #[arg(long, env = "REVWALLET_HTTP_HEADER_TIMEOUT", global = true, default_value = "10s", value_parser = settings::positive_duration)]
    pub http_header_timeout: Duration,
    /// Origins whose pages may call the API from a browser, separated by commas, or `*` for all.
    #[arg(
        long,
        env = "REVWALLET_CORS_ORIGINS",
        global = true,
        default_value = "",
        hide_default_value = true
    )]
    pub cors_origins: CorsOrigins,
    /// Format of amounts in responses to clients that do not send `Prefer: money=...`: JSON numbers or strings.
    #[arg(long, env = "REVWALLET_MONEY", global = true, value_enum, default_value_t)]
    pub money: MoneyFormat,
}

/// Adds to a router the parts that all routes share: responses for unknown paths and methods, the record of the matched
/// route for metrics and logs, and the check of query parameters.
pub fn finish<S: Clone + Send + Sync + 'static>(
    router: Router<S>,
    known_parameters: KnownParametersLayer,
) -> Router<S> {
    router
        .fallback(async || Error::NotFound("path"))
        .method_not_allowed_fallback(async |method: Method| Error::MethodNotAllowed(method))
        // Both layers are added in one call to `layer`, because each call adds another box around the future of every
        // request.
        .layer((context::RecordRouteLayer, known_parameters))
}
