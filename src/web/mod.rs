//! Pages for a browser: plain HTML, style sheets and ES modules, served as they are, without a build step.

use std::fmt::Write;

use axum::Router;
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use http::{HeaderMap, StatusCode, header};
use sha2::{Digest, Sha256};

/// Content security policy of the pages: the browser loads files only from this server, and runs no inline scripts or
/// styles.
pub const POLICY: &str = "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self'; \
     connect-src 'self'; form-action 'none'; base-uri 'none'; frame-ancestors 'none'";

const HTML: &str = "text/html; charset=utf-8";
const CSS: &str = "text/css; charset=utf-8";
const JAVASCRIPT: &str = "text/javascript; charset=utf-8";

/// Files of the pages, each with its URL path, content type and content.
const FILES: [(&str, &str, &str); 30] = [
    ("/", HTML, include_str!("wallets.html")),
    ("/live", HTML, include_str!("live.html")),
    ("/store", HTML, include_str!("store.html")),
    ("/exchange", HTML, include_str!("exchange.html")),
    ("/assets/style.css", CSS, include_str!("style.css")),
    ("/assets/wallets.css", CSS, include_str!("wallets.css")),
    ("/assets/live.css", CSS, include_str!("live.css")),
    ("/assets/views.css", CSS, include_str!("views.css")),
    ("/assets/store.css", CSS, include_str!("store.css")),
    ("/assets/exchange.css", CSS, include_str!("exchange.css")),
    ("/assets/api.js", JAVASCRIPT, include_str!("api.js")),
    ("/assets/page.js", JAVASCRIPT, include_str!("page.js")),
    ("/assets/views.js", JAVASCRIPT, include_str!("views.js")),
    ("/assets/account.js", JAVASCRIPT, include_str!("account.js")),
    ("/assets/socket.js", JAVASCRIPT, include_str!("socket.js")),
    ("/assets/wallets.js", JAVASCRIPT, include_str!("wallets.js")),
    ("/assets/wallet-history.js", JAVASCRIPT, include_str!("wallet-history.js")),
    ("/assets/wallet-holds.js", JAVASCRIPT, include_str!("wallet-holds.js")),
    ("/assets/wallet-statement.js", JAVASCRIPT, include_str!("wallet-statement.js")),
    ("/assets/live.js", JAVASCRIPT, include_str!("live.js")),
    ("/assets/store.js", JAVASCRIPT, include_str!("store.js")),
    ("/assets/store-balance.js", JAVASCRIPT, include_str!("store-balance.js")),
    ("/assets/store-game.js", JAVASCRIPT, include_str!("store-game.js")),
    ("/assets/store-library.js", JAVASCRIPT, include_str!("store-library.js")),
    ("/assets/store-admin.js", JAVASCRIPT, include_str!("store-admin.js")),
    ("/assets/exchange.js", JAVASCRIPT, include_str!("exchange.js")),
    ("/assets/exchange-trade.js", JAVASCRIPT, include_str!("exchange-trade.js")),
    ("/assets/exchange-order.js", JAVASCRIPT, include_str!("exchange-order.js")),
    ("/assets/exchange-admin.js", JAVASCRIPT, include_str!("exchange-admin.js")),
    ("/assets/icon.svg", "image/svg+xml", include_str!("icon.svg")),
];

pub fn routes<S: Clone + Send + Sync + 'static>() -> Router<S> {
    FILES.into_iter().fold(Router::new(), |router, (path, content_type, body)| {
        router.route(path, get(async move |headers: HeaderMap| file(&headers, content_type, body)))
    })
}

/// Returns a complete HTML page that shows `article`, which must be safe HTML.
pub fn page(title: &str, article: &str) -> String {
    format!(
        "<!doctype html><html lang=\"en\"><head><meta charset=\"utf-8\">\
         <meta name=\"viewport\" content=\"width=device-width, initial-scale=1\">\
         <title>{title} - revwallet</title><link rel=\"icon\" href=\"/assets/icon.svg\">\
         <link rel=\"stylesheet\" href=\"/assets/style.css\"></head>\
         <body><main>{article}</main></body></html>"
    )
}

/// Returns a file for the browser to cache. Before each use, the browser asks whether the file has changed.
fn file(headers: &HeaderMap, content_type: &'static str, body: &'static str) -> Response {
    let digest = Sha256::digest(body.as_bytes());
    let tag = digest[..8].iter().fold(String::from("\""), |mut tag, byte| {
        // Writing to a String cannot fail.
        let _written = write!(tag, "{byte:02x}");
        tag
    }) + "\"";
    let known = headers.get(header::IF_NONE_MATCH).and_then(|value| value.to_str().ok());
    // The comparison ignores the prefix `W/`, which nginx adds to the tag when it compresses the file.
    let is_same = |known: &str| known.trim().trim_start_matches("W/") == tag;
    let unchanged = known.is_some_and(|known| known.split(',').any(is_same));
    let common = [(header::ETAG, tag), (header::CACHE_CONTROL, "no-cache".to_owned())];
    if unchanged {
        return (StatusCode::NOT_MODIFIED, common).into_response();
    }
    let own = [(header::CONTENT_TYPE, content_type), (header::CONTENT_SECURITY_POLICY, POLICY)];
    (common, own, body).into_response()
}
