//! The origin of a request: the client's IP address and the trace id, for rate limits and the audit log.

use std::net::IpAddr;

use axum::extract::{FromRef, FromRequestParts};
use http::request::Parts;
use uuid::Uuid;

use super::context::RequestContext;
use crate::auth::{TrustedProxies, client_address};
use crate::error::Error;

/// IP address of the client that sent a request, and the trace id of the request.
#[derive(Debug, Clone, Copy)]
pub struct Origin {
    pub address: Option<IpAddr>,
    pub trace: Uuid,
}

impl<S: Send + Sync> FromRequestParts<S> for Origin
where
    TrustedProxies: FromRef<S>,
{
    type Rejection = Error;

    async fn from_request_parts(parts: &mut Parts, state: &S) -> Result<Self, Error> {
        let proxies = TrustedProxies::from_ref(state);
        let context = parts.extensions.get::<RequestContext>();
        let trace = context.map(RequestContext::stored_trace);
        let peer = context.and_then(RequestContext::peer);
        let address = peer.map(|peer| client_address(peer, &parts.headers, &proxies));
        Ok(Self { address, trace: trace.unwrap_or_default() })
    }
}
