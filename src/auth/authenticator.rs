//! Authentication: turns the credential of a request into a [`Caller`].

use std::sync::Arc;
use std::time::{Duration, Instant};

use axum::extract::{FromRef, FromRequestParts};
use futures_util::future::BoxFuture;
use http::request::Parts;
use http::{HeaderMap, header};

use super::{Access, Caller, Policy};
use crate::error::{CredentialFault, Error, Result};
use crate::secret::Secret;
use crate::telemetry::record_caller;

/// Longest time that a checked credential is cached. A revocation takes effect on every process within this time.
pub const CREDENTIAL_CACHED_FOR: Duration = Duration::from_secs(1);

/// Credential that a client presented when it opened a long-lived connection. It must stay valid while the connection
/// is open.
#[derive(Debug, Clone)]
pub struct PresentedCredential {
    pub token: Secret,
    /// Time just before the credential was checked.
    pub checked_at: Instant,
}

/// Checks credentials: the tokens of users, and API keys.
pub trait Authenticate: Send + Sync {
    /// Returns the caller that the credential belongs to; fails with [`Error::Unauthenticated`] if the credential is
    /// unknown, expired or revoked.
    fn authenticate<'a>(&'a self, credential: &'a Secret) -> BoxFuture<'a, Result<Caller>>;

    /// Checks a credential like [`Self::authenticate`], but ignores cache entries older than `not_before`, so that the
    /// check sees every revocation that was committed before that time.
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

    /// Returns the caller that the credential belongs to. Without a credential, the caller is anonymous, even if access
    /// is closed.
    pub async fn identify(&self, credential: Option<&Secret>) -> Result<Caller> {
        match credential {
            Some(credential) => self.backend.authenticate(credential).await,
            None => Ok(Caller::anonymous(self.policy)),
        }
    }

    /// Returns the caller of a request with these headers. A request without a credential is anonymous if access is
    /// open, and refused otherwise. Records the caller's name, so that every later log line of the request contains it.
    pub async fn identify_request(&self, headers: &HeaderMap) -> Result<Caller> {
        let caller = match bearer(headers)? {
            Some(credential) => self.backend.authenticate(&credential).await?,
            None if self.policy.access == Access::Open => Caller::anonymous(self.policy),
            None => return Err(Error::Unauthenticated(CredentialFault::Missing)),
        };
        record_caller(caller.name.clone());
        Ok(caller)
    }

    /// Returns the caller that the credential belongs to. The check sees every revocation that was committed before
    /// `not_before`.
    pub async fn confirm(&self, credential: &Secret, not_before: Instant) -> Result<Caller> {
        self.backend.confirm(credential, not_before).await
    }
}

/// Extracts the caller of a request. A request without a credential is anonymous if access is open, and refused
/// otherwise.
impl<S: Send + Sync> FromRequestParts<S> for Caller
where
    Authenticator: FromRef<S>,
{
    type Rejection = Error;

    async fn from_request_parts(parts: &mut Parts, state: &S) -> Result<Self> {
        Authenticator::from_ref(state).identify_request(&parts.headers).await
    }
}

/// Extractor for handlers that require a credential, even if access is open.
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

/// Returns the bearer credential in the `Authorization` header, if the request has this header. Returns an error if the
/// header contains anything else.
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
