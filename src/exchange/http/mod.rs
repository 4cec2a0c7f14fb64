//! HTTP routes of the exchange: `/exchange` for traders, `/api/orders` and `/api/hot-wallets` for operators, and routes
//! on the internal listener for other services.

mod accounts;
pub(super) mod body;
mod info;
mod internal;
pub(super) mod operators;
mod orders;
mod wallets;

use axum::extract::FromRef;
use utoipa_axum::router::OpenApiRouter;

use super::Exchange;
use crate::auth::{Authenticator, TrustedProxies};
use crate::users::Users;

pub use self::internal::internal;

pub fn routes<S>() -> OpenApiRouter<S>
where
    Exchange: FromRef<S>,
    Users: FromRef<S>,
    Authenticator: FromRef<S>,
    TrustedProxies: FromRef<S>,
    S: Clone + Send + Sync + 'static,
{
    OpenApiRouter::new()
        .merge(accounts::routes())
        .merge(info::routes())
        .merge(wallets::routes())
        .merge(orders::routes())
        .merge(operators::routes())
}
