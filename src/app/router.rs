//! The routes of the program. Each module defines its own routes, and this file combines them.

use std::sync::{Arc, LazyLock};

use axum::response::{IntoResponse, Response};
use axum::{Extension, Router};
use bytes::Bytes;
use http::header;
use serde::Deserialize;
use utoipa::{IntoParams, OpenApi};
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

use super::state::App;
use crate::http::extract::Query;
use crate::http::memory::SharedBytes;
use crate::http::query::KnownParametersLayer;
use crate::http::{MoneyFormat, finish, openapi, problem_pages};
use crate::ledger::PostingService;
use crate::ops::{alertmanager, health, runbooks, status};
use crate::{api_keys, audit_log, exchange, games, grpc};
use crate::{play, realtime, users, wallet, web, webhook};

/// Routes of the public API, with their OpenAPI documentation.
fn api() -> OpenApiRouter<App> {
    OpenApiRouter::with_openapi(openapi::frame())
        .routes(routes!(get_openapi))
        .merge(status::routes())
        .merge(problem_pages::routes())
        .merge(wallet::http::routes())
        .merge(webhook::http::routes())
        .merge(play::http::routes())
        .merge(play::leaderboards::http::routes())
        .merge(games::http::routes())
        .merge(exchange::http::routes())
        .merge(users::http::routes())
        .merge(api_keys::http::routes())
        .merge(audit_log::http::routes())
        .merge(realtime::http::routes())
        .merge(play::events::routes())
}

/// Returns the routes of the public gRPC services.
fn services(app: &App) -> anyhow::Result<Router> {
    let wallet = play::grpc::WalletRpc {
        wallets: app.wallets.clone(),
        realtime: app.realtime.clone(),
        authenticator: app.authenticator.clone(),
        trusted_proxies: app.trusted_proxies.clone(),
        metrics: Arc::clone(&app.metrics),
        stream_limit: play::grpc::StreamLimit::default(),
    };
    Ok(grpc::routes(&app.rpc_health)?.merge(grpc::service(wallet.service())))
}

/// Returns the router of the public listener, which serves clients.
pub fn public(app: App) -> anyhow::Result<Router> {
    let services = services(&app)?;
    let (api, document) = api().split_for_parts();
    let known_parameters = KnownParametersLayer::new(&document);
    let all = api.merge(openapi::explorer()).merge(web::routes()).merge(services.with_state(()));
    Ok(finish(all, known_parameters).with_state(app))
}

/// Returns the router of the internal listener, which serves probes, operators and the other processes of the program.
pub fn internal(app: App) -> Router {
    let routes = health::routes()
        .merge(alertmanager::routes())
        .merge(runbooks::routes())
        .merge(users::http::internal())
        .merge(exchange::http::internal());
    let postings = PostingService::new(app.wallets.ledger()).map(grpc::service);
    let postings = postings.unwrap_or_default();
    // The internal routes are not documented.
    let known_parameters = KnownParametersLayer::default();
    finish(routes.merge(postings.with_state(())), known_parameters).with_state(app)
}

/// Returns the OpenAPI document of the public API, for a server whose responses contain amounts in the format `money`.
pub fn document(money: MoneyFormat) -> serde_json::Value {
    let mut document = api().into_openapi();
    document.merge(webhook::http::Payloads::openapi());
    openapi::complete(document, webhook::http::webhooks(), money)
}

#[derive(Deserialize, IntoParams)]
struct DocumentQuery {
    /// Format of decimal numbers in the responses that the OpenAPI document describes. Defaults to the format that the
    /// server uses.
    #[param(inline)]
    money: Option<MoneyFormat>,
}

/// Get the OpenAPI document
#[utoipa::path(
    get, path = "/openapi.json", tag = "about",
    params(DocumentQuery),
    responses((status = 200, description = "OpenAPI 3.1", body = serde_json::Value)),
)]
async fn get_openapi(Query(query): Query<DocumentQuery>) -> Response {
    static NUMBERS: LazyLock<Bytes> =
        LazyLock::new(|| document(MoneyFormat::Number).to_string().into());
    static STRINGS: LazyLock<Bytes> =
        LazyLock::new(|| document(MoneyFormat::String).to_string().into());
    let document = match query.money.unwrap_or_else(MoneyFormat::current) {
        MoneyFormat::Number => &NUMBERS,
        MoneyFormat::String => &STRINGS,
    };
    let headers = [(header::CONTENT_TYPE, "application/json")];
    (Extension(SharedBytes), headers, (*document).clone()).into_response()
}
