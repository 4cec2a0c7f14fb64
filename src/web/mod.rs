//! Pages for a browser: plain HTML, one style sheet, no build step.

use axum::Router;
use axum::response::IntoResponse;
use axum::routing::get;
use http::header;

use crate::app::App;

/// Everything comes from this server, and nothing is inline.
pub const POLICY: &str = "default-src 'self'; base-uri 'none'; frame-ancestors 'none'";

pub fn routes() -> Router<App> {
    Router::new().route("/assets/style.css", get(style))
}

/// A whole page around `article`, which is HTML.
pub fn page(title: &str, article: &str) -> String {
    format!(
        "<!doctype html><html lang=\"en\"><head><meta charset=\"utf-8\">\
         <meta name=\"viewport\" content=\"width=device-width, initial-scale=1\">\
         <title>{title} - revwallet</title><link rel=\"stylesheet\" href=\"/assets/style.css\"></head>\
         <body><main>{article}</main></body></html>"
    )
}

async fn style() -> impl IntoResponse {
    let headers = [
        (header::CONTENT_TYPE, "text/css; charset=utf-8"),
        (header::CACHE_CONTROL, "public, max-age=3600"),
    ];
    (headers, include_str!("style.css"))
}
