//! From a credential in the request to a [`Caller`].

use std::sync::Arc;
use std::time::{Duration, Instant};

use axum::extract::{FromRef, FromRequestParts};
use futures_util::future::BoxFuture;
use http::request::Parts;
use http::{HeaderMap, header};
use tracing::Span;

use super::{Access, Caller, Policy};
use crate::error::{CredentialFault, Error, Result};
use crate::secret::Secret;

/// How long a checked credential may be cached; a revocation takes effect on every process within it.
pub const CREDENTIAL_CACHED_FOR: Duration = Duration::from_secs(1);

/// A credential that a caller presented, for a connection that depends on it for longer than a request.
#[derive(Debug, Clone)]
pub struct PresentedCredential {
    pub token: Secret,
    /// Time before it was checked.
    pub checked_at: Instant,
}

/// Checks credentials. Implemented where users and API keys meet.
pub trait Authenticate: Send + Sync {
    /// The caller that the credential belongs to; [`Error::Unauthenticated`] when it is unknown, expired or revoked.
    fn authenticate<'a>(&'a self, credential: &'a Secret) -> BoxFuture<'a, Result<Caller>>;

    /// Checks a credential like [`Self::authenticate`], but never from a cache that was filled before `not_before`: a
    /// revocation that was committed by then is seen.
    fn confirm<'a>(
        &'a self,
        credential: &'a Secret,
        not_before: Instant,
    ) -> BoxFuture<'a, Result<Caller>>;
}

/// The state that the extractors [`Caller`] and [`Authenticated`] need. Cheap to clone.
#[derive(Clone)]
pub struct Authenticator {
    backend: Arc<dyn Authenticate>,
    policy: Policy,
}

impl Authenticator {
    pub fn new(backend: Arc<dyn Authenticate>, policy: Policy) -> Self {
        Self { backend, policy }
    }

    /// The caller behind a credential; without one an anonymous caller, also where access is closed.
    pub async fn identify(&self, credential: Option<&Secret>) -> Result<Caller> {
        match credential {
            Some(credential) => self.backend.authenticate(credential).await,
            None => Ok(Caller::anonymous(self.policy)),
        }
    }

    /// The caller of a request with these headers; anonymous only where access is open. The span of the request gets the
    /// name of the caller, and so does each of its log lines.
    pub async fn identify_request(&self, headers: &HeaderMap) -> Result<Caller> {
        let caller = match bearer(headers)? {
            Some(credential) => self.backend.authenticate(&credential).await?,
            None if self.policy.access == Access::Open => Caller::anonymous(self.policy),
            None => return Err(Error::Unauthenticated(CredentialFault::Missing)),
        };
        Span::current().record("caller", caller.name());
        Ok(caller)
    }

    /// The caller behind a credential, as of `not_before` or later.
    pub async fn confirm(&self, credential: &Secret, not_before: Instant) -> Result<Caller> {
        self.backend.confirm(credential, not_before).await
    }
}

/// The caller; anonymous only where access is open.
impl<S: Send + Sync> FromRequestParts<S> for Caller
where
    Authenticator: FromRef<S>,
{
    type Rejection = Error;

    async fn from_request_parts(parts: &mut Parts, state: &S) -> Result<Self> {
        Authenticator::from_ref(state).identify_request(&parts.headers).await
    }
}

/// A caller that has presented a credential, whatever the access mode.
#[derive(Debug)]
pub struct Authenticated(pub Caller);

impl<S: Send + Sync> FromRequestParts<S> for Authenticated
where
    Authenticator: FromRef<S>,
{
    type Rejection = Error;

    async fn from_request_parts(parts: &mut Parts, state: &S) -> Result<Self> {
        if bearer(&parts.headers)?.is_none() {
            return Err(Error::Unauthenticated(CredentialFault::Missing));
        }
        Authenticator::from_ref(state).identify_request(&parts.headers).await.map(Self)
    }
}

/// The bearer credential of the header `Authorization`; any other content is refused.
pub fn bearer(headers: &HeaderMap) -> Result<Option<Secret>> {
    let mut values = headers.get_all(header::AUTHORIZATION).iter();
    let Some(value) = values.next() else { return Ok(None) };
    let malformed = || Error::Unauthenticated(CredentialFault::Malformed);
    let text = value.to_str().map_err(|_| malformed())?;
    let (scheme, credential) = text.split_once(' ').ok_or_else(malformed)?;
    if !scheme.eq_ignore_ascii_case("bearer") || values.next().is_some() {
        return Err(malformed());
    }
    Ok(Some(Secret::from(credential.trim().to_owned())))
}
