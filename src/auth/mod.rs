//! Authentication and authorization: credentials, principals, scopes, and the access policy.
//!
//! A credential is checked once, when a handler asks for a [`Caller`] ([`authenticator`]). Permissions are checked at
//! the beginning of each operation by a `require_...` function: those for scopes are in `scope.rs`, those for wallets
//! in `wallet/access.rs`.

mod access_mode;
pub mod authenticator;
mod caller;
mod network;
mod scope;
mod trusted_proxies;

pub use self::access_mode::{Access, AccessArgs, Policy};
pub use self::authenticator::{
    Authenticate, Authenticated, Authenticator, CREDENTIAL_CACHED_FOR, PresentedCredential, bearer,
};
pub use self::caller::{ApiKeyGrant, Caller, Principal, SignedIn};
pub use self::network::client_network;
pub use self::scope::Scope;
pub use self::trusted_proxies::{TrustedProxies, client_address};
