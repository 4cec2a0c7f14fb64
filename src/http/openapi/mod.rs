//! The OpenAPI document, and Swagger UI for trying the API in a browser. All files of Swagger UI come from this server.

mod complete;
mod example;
mod money;

use std::borrow::Cow;
use std::collections::HashMap;
use std::io::{self, Read};
use std::sync::{Arc, LazyLock, Mutex, PoisonError};

use axum::extract::Path;
use axum::response::{Html, IntoResponse, Response};
use axum::routing::get;
use axum::{Extension, Router};
use bytes::Bytes;
use flate2::read::GzDecoder;
use http::{HeaderMap, HeaderName, header};
use utoipa::openapi::security::{HttpAuthScheme, HttpBuilder, SecurityScheme};
use utoipa::{Modify, OpenApi};
use utoipa_swagger_ui::SwaggerFile;

use super::compression;
use super::memory::SharedBytes;
use super::problem::ProblemBody;
use crate::error::Error;

pub use self::complete::complete;

/// Content security policy for the Swagger UI page, which writes `style` attributes and inlines its icons. The browser
/// runs only scripts from this server.
const EXPLORER_POLICY: [(HeaderName, &str); 1] = [(
    header::CONTENT_SECURITY_POLICY,
    "default-src 'self'; style-src 'self' 'unsafe-inline'; img-src 'self' data:; frame-ancestors 'none'",
)];

#[derive(OpenApi)]
#[openapi(
    info(
        title = "revwallet",
        description = "A wallet backend with exact money, double entry and full observability.\n\n\
            Every failed request gets a response with the type `application/problem+json`. Its member `type` links to \
            a page of this server that explains the problem.\n\n\
            Decimals are exact, with as many decimal places as their currency has. Clients whose JSON parser converts \
            them to floating-point numbers should send `Prefer: money=string`; `/openapi.json?money=string` describes \
            the API for these clients.",
    ),
    servers((url = "/", description = "The server that serves this document")),
    components(schemas(ProblemBody<'static>)),
    modifiers(&Credentials),
    security((), ("bearer" = [])),
    tags(
        (name = "wallet", description = "Wallets, and the money in them: deposits, transfers, holds, refunds, statements"),
        (name = "webhook", description = "Events sent to your server, and alerts on balances"),
        (name = "users", description = "User accounts: registration, sign-in, profile"),
        (name = "keys", description = "API keys for programs, and the audit log"),
        (name = "play", description = "Players' balances in minor units, game events, leaderboards with prizes"),
        (name = "games", description = "The games store: catalog, purchases, libraries, publishers"),
        (name = "exchange", description = "Buying and selling crypto: quotes, orders, and commands for operators"),
        (name = "realtime", description = "Live events on a WebSocket"),
        (name = "about", description = "Information about the service, and this document"),
    ),
)]
struct Frame;

/// The security scheme of the API: a bearer token, which is either the token of a login or an API key.
struct Credentials;

impl Modify for Credentials {
    fn modify(&self, document: &mut utoipa::openapi::OpenApi) {
        let bearer = HttpBuilder::new()
            .scheme(HttpAuthScheme::Bearer)
            .description(Some("The token of a login, or an API key (`rwk_...`)."))
            .build();
        let components = document.components.get_or_insert_default();
        components.add_security_scheme("bearer", SecurityScheme::Http(bearer));
    }
}

/// Returns the OpenAPI document without operations. Each module adds its own operations to the document.
pub fn frame() -> utoipa::openapi::OpenApi {
    Frame::openapi()
}

/// Returns the routes of Swagger UI.
pub fn explorer<S: Clone + Send + Sync + 'static>() -> Router<S> {
    Router::new().route("/docs", get(page)).route("/docs/{file}", get(file))
}

async fn page() -> impl IntoResponse {
    (EXPLORER_POLICY, Html(include_str!("explorer.html")))
}

async fn file(Path(name): Path<String>, request: HeaderMap) -> Response {
    if name == "explorer.js" {
        let script = include_str!("explorer.js");
        return ([(header::CONTENT_TYPE, "text/javascript; charset=utf-8")], script)
            .into_response();
    }
    let config = Arc::new(utoipa_swagger_ui::Config::from("/openapi.json"));
    match utoipa_swagger_ui::serve(&name, config) {
        Ok(Some(file)) => asset(&name, file, compression::is_wanted(&request)),
        Ok(None) => Error::NotFound("path").into_response(),
        Err(cause) => Error::Internal(anyhow::anyhow!("{cause}")).into_response(),
    }
}

/// Returns a file of Swagger UI. The binary contains compressed files, which are decompressed for clients that do not
/// accept gzip.
fn asset(name: &str, file: SwaggerFile<'static>, accepts_gzip: bool) -> Response {
    let headers = [
        (header::CONTENT_TYPE, file.content_type),
        (header::CACHE_CONTROL, "public, max-age=86400".to_owned()),
        (header::VARY, "accept-encoding".to_owned()),
    ];
    let bytes = match file.bytes {
        Cow::Borrowed(bytes) => Bytes::from_static(bytes),
        Cow::Owned(bytes) => bytes.into(),
    };
    if !file.gzpipped {
        return (headers, bytes).into_response();
    }
    if accepts_gzip {
        let encoding = [(header::CONTENT_ENCODING, "gzip")];
        return (Extension(SharedBytes), headers, encoding, bytes).into_response();
    }
    match decompressed(name, &bytes) {
        Ok(bytes) => (Extension(SharedBytes), headers, bytes).into_response(),
        Err(cause) => Error::Internal(cause.into()).into_response(),
    }
}

/// Decompresses a file of Swagger UI. The result is cached, because decompressing a file for each request would take
/// more CPU time than any other route.
fn decompressed(name: &str, compressed: &[u8]) -> io::Result<Bytes> {
    static CACHE: LazyLock<Mutex<HashMap<String, Bytes>>> = LazyLock::new(Mutex::default);
    let mut cache = CACHE.lock().unwrap_or_else(PoisonError::into_inner);
    if let Some(bytes) = cache.get(name) {
        return Ok(bytes.clone());
    }
    let mut bytes = Vec::new();
    GzDecoder::new(compressed).read_to_end(&mut bytes)?;
    let bytes = Bytes::from(bytes);
    cache.insert(name.to_owned(), bytes.clone());
    Ok(bytes)
}
