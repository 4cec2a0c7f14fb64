//! HTTP routes of the games store: games, purchases, offers, activation keys, publishers and libraries.

mod activation_keys;
pub(super) mod body;
mod games;
mod library;
mod offers;
mod publishers;
mod purchases;
mod statement;

use axum::extract::FromRef;
use utoipa_axum::router::OpenApiRouter;

use super::Games;
use crate::auth::{Authenticator, TrustedProxies};

pub fn routes<S>() -> OpenApiRouter<S>
where
    Games: FromRef<S>,
    Authenticator: FromRef<S>,
    TrustedProxies: FromRef<S>,
    S: Clone + Send + Sync + 'static,
{
    OpenApiRouter::new()
        .merge(games::routes())
        .merge(purchases::routes())
        .merge(offers::routes())
        .merge(activation_keys::routes())
        .merge(statement::routes())
        .merge(publishers::routes())
        .merge(library::routes())
}
