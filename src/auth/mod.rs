//! Authentication and authorization: credentials, principals, scopes, and the access policy.
//!
//! A credential is checked once, when a handler asks for a [`Caller`] ([`authenticator`]). Whether the caller may do
//! something is decided in the operation, which begins with a `require_...`: scopes here, wallets in
//! `wallet/access.rs`.

pub mod authenticator;
mod caller;
mod network;
mod policy;
mod scope;
mod trusted_proxies;

pub use self::authenticator::{
    Authenticate, Authenticated, Authenticator, CREDENTIAL_CACHED_FOR, PresentedCredential, bearer,
};
pub use self::caller::{ApiKeyGrant, Caller, Principal, SignedIn};
pub use self::network::client_network;
pub use self::policy::{Access, AccessArgs, Policy};
pub use self::scope::Scope;
pub use self::trusted_proxies::{TrustedProxies, client_address};
