//! Who calls, and what they may do.
//!
//! A credential is looked at once, when a handler asks for a [`Caller`]. What a caller may do with a thing is asked
//! where the thing is: [`Caller::needs`] for a scope, [`crate::wallet::access`] for wallets.

mod address;

use std::borrow::Cow;
use std::net::IpAddr;

use axum::extract::FromRequestParts;
use http::request::Parts;
use http::{HeaderMap, header};
use uuid::Uuid;

use crate::app::App;
use crate::error::{Error, Result};
use crate::http::context::RequestContext;
use crate::secret::Secret;

pub use self::address::{TrustedProxies, client_address};

/// Who may use wallets that belong to no user.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
pub enum Access {
    /// Anybody who reaches the port.
    Open,
    /// Nobody without a credential.
    Closed,
}

#[derive(Debug, Clone, clap::Args)]
#[command(next_help_heading = "Access")]
pub struct AccessArgs {
    /// Who may use wallets that belong to no user [default: open with the embedded database, else closed].
    #[arg(long, env = "REVWALLET_ACCESS", global = true, value_enum)]
    pub access: Option<Access>,
    /// Whether users may deposit to themselves [default: true with open access, else false].
    #[arg(long, env = "REVWALLET_SELF_SERVICE_FUNDING", global = true, num_args = 0..=1, default_missing_value = "true")]
    pub self_service_funding: Option<bool>,
    /// Proxies whose `X-Forwarded-For` is believed, as networks: `10.0.0.0/8,192.168.1.7/32`.
    #[arg(
        long,
        env = "REVWALLET_TRUSTED_PROXIES",
        global = true,
        default_value = "",
        hide_default_value = true
    )]
    pub trusted_proxies: TrustedProxies,
}

/// What holds for everybody who calls.
#[derive(Debug, Clone, Copy)]
pub struct Policy {
    pub access: Access,
    pub self_service_funding: bool,
}

impl Policy {
    pub fn new(args: &AccessArgs, default: Access) -> Self {
        let access = args.access.unwrap_or(default);
        let self_service_funding = args.self_service_funding.unwrap_or(access == Access::Open);
        Self { access, self_service_funding }
    }
}

/// What an API key may be used for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
pub enum Scope {
    #[value(name = "wallet:read")]
    WalletRead,
    #[value(name = "wallet:write")]
    WalletWrite,
    #[value(name = "users:read")]
    UsersRead,
    #[value(name = "games:write")]
    GamesWrite,
    #[value(name = "events:write")]
    EventsWrite,
    /// Everything.
    #[value(name = "admin")]
    Admin,
}

impl Scope {
    pub const ALL: [Self; 6] = [
        Self::WalletRead,
        Self::WalletWrite,
        Self::UsersRead,
        Self::GamesWrite,
        Self::EventsWrite,
        Self::Admin,
    ];

    pub const fn name(self) -> &'static str {
        match self {
            Self::WalletRead => "wallet:read",
            Self::WalletWrite => "wallet:write",
            Self::UsersRead => "users:read",
            Self::GamesWrite => "games:write",
            Self::EventsWrite => "events:write",
            Self::Admin => "admin",
        }
    }

    pub fn of_name(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|scope| scope.name() == name)
    }
}

/// A user who is signed in.
#[derive(Debug, Clone)]
pub struct SignedIn {
    pub id: i64,
    pub is_admin: bool,
    pub session: Uuid,
}

/// Who it is.
#[derive(Debug, Clone)]
pub enum Who {
    /// Nobody that is known: only where access is open.
    Anybody,
    User(SignedIn),
    /// A program, with what its key is good for.
    Key(Vec<Scope>),
}

/// Somebody who calls.
#[derive(Debug, Clone)]
pub struct Caller {
    name: Cow<'static, str>,
    who: Who,
    policy: Policy,
}

impl Caller {
    pub fn anybody(policy: Policy) -> Self {
        Self { name: Cow::Borrowed("anybody"), who: Who::Anybody, policy }
    }

    pub fn user(user: SignedIn, policy: Policy) -> Self {
        Self { name: Cow::Owned(format!("user:{}", user.id)), who: Who::User(user), policy }
    }

    pub fn key(id: i64, scopes: Vec<Scope>, policy: Policy) -> Self {
        Self { name: Cow::Owned(format!("key:{id}")), who: Who::Key(scopes), policy }
    }

    /// Keeps one caller's idempotency keys, holds and webhooks apart from another's.
    pub fn name(&self) -> &str {
        &self.name
    }

    pub fn who(&self) -> &Who {
        &self.who
    }

    pub fn policy(&self) -> Policy {
        self.policy
    }

    /// Whether this was granted, whatever it is done with.
    pub fn has(&self, scope: Scope) -> bool {
        match &self.who {
            Who::Anybody => false,
            Who::User(user) => user.is_admin,
            Who::Key(scopes) => scopes.contains(&scope) || scopes.contains(&Scope::Admin),
        }
    }

    /// Refuses who has not been granted this.
    pub fn needs(&self, scope: Scope) -> Result<()> {
        match self.who {
            _ if self.has(scope) => Ok(()),
            Who::Anybody => Err(Error::Unauthenticated),
            _ => Err(Error::Forbidden),
        }
    }

    /// Refuses everybody but this user and who has the scope.
    pub fn is_user_or_has(&self, user: i64, scope: Scope) -> Result<()> {
        match &self.who {
            Who::User(signed_in) if signed_in.id == user => Ok(()),
            _ => self.needs(scope),
        }
    }
}

/// Who calls, as far as their credential tells; nobody in particular only where access is open.
impl FromRequestParts<App> for Caller {
    type Rejection = Error;

    async fn from_request_parts(parts: &mut Parts, app: &App) -> Result<Self> {
        match bearer(&parts.headers)? {
            Some(credential) => identify(app, &credential).await,
            None if app.policy.access == Access::Open => Ok(Self::anybody(app.policy)),
            None => Err(Error::Unauthenticated),
        }
    }
}

/// Somebody with a credential, in either mode.
#[derive(Debug)]
pub struct Known(pub Caller);

impl FromRequestParts<App> for Known {
    type Rejection = Error;

    async fn from_request_parts(parts: &mut Parts, app: &App) -> Result<Self> {
        let credential = bearer(&parts.headers)?.ok_or(Error::Unauthenticated)?;
        identify(app, &credential).await.map(Self)
    }
}

async fn identify(app: &App, credential: &Secret) -> Result<Caller> {
    if crate::keys::is_key(credential) {
        let (id, scopes) = app.keys.identify(credential).await?;
        return Ok(Caller::key(id, scopes, app.policy));
    }
    Ok(Caller::user(app.users.identify(credential).await?, app.policy))
}

/// What the header `Authorization` brings. Anything but one bearer credential is a broken one.
pub fn bearer(headers: &HeaderMap) -> Result<Option<Secret>> {
    let mut values = headers.get_all(header::AUTHORIZATION).iter();
    let Some(value) = values.next() else { return Ok(None) };
    let text = value.to_str().map_err(|_| Error::Unauthenticated)?;
    let (scheme, credential) = text.split_once(' ').ok_or(Error::Unauthenticated)?;
    if !scheme.eq_ignore_ascii_case("bearer") || values.next().is_some() {
        return Err(Error::Unauthenticated);
    }
    Ok(Some(Secret::from(credential.trim().to_owned())))
}

/// From where, and in which request: for limits and for the trail.
#[derive(Debug, Clone, Copy)]
pub struct Origin {
    pub address: Option<IpAddr>,
    pub trace: Uuid,
}

impl FromRequestParts<App> for Origin {
    type Rejection = Error;

    async fn from_request_parts(parts: &mut Parts, app: &App) -> Result<Self> {
        let context = parts.extensions.get::<RequestContext>();
        let trace = context.map(|context| Uuid::from_bytes(context.trace().trace));
        let peer = context.and_then(RequestContext::peer);
        let address = peer.map(|peer| client_address(peer, &parts.headers, &app.trusted_proxies));
        Ok(Self { address, trace: trace.unwrap_or_default() })
    }
}
