//! Scopes: the permissions of an API key.

use std::str::FromStr;

/// Permission of an API key.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum, utoipa::ToSchema)]
#[schema(as = ApiKeyScope)]
pub enum Scope {
    #[value(name = "wallet:read")]
    #[schema(rename = "wallet:read")]
    WalletRead,
    #[value(name = "wallet:write")]
    #[schema(rename = "wallet:write")]
    WalletWrite,
    #[value(name = "users:read")]
    #[schema(rename = "users:read")]
    UsersRead,
    #[value(name = "games:read")]
    #[schema(rename = "games:read")]
    GamesRead,
    #[value(name = "games:write")]
    #[schema(rename = "games:write")]
    GamesWrite,
    #[value(name = "events:write")]
    #[schema(rename = "events:write")]
    EventsWrite,
    /// Every permission.
    #[value(name = "admin")]
    #[schema(rename = "admin")]
    Admin,
}

impl Scope {
    pub const ALL: [Self; 7] = [
        Self::WalletRead,
        Self::WalletWrite,
        Self::UsersRead,
        Self::GamesRead,
        Self::GamesWrite,
        Self::EventsWrite,
        Self::Admin,
    ];

    pub const fn name(self) -> &'static str {
        match self {
            Self::WalletRead => "wallet:read",
            Self::WalletWrite => "wallet:write",
            Self::UsersRead => "users:read",
            Self::GamesRead => "games:read",
            Self::GamesWrite => "games:write",
            Self::EventsWrite => "events:write",
            Self::Admin => "admin",
        }
    }
}

/// The name is not that of a scope.
#[derive(Debug, thiserror::Error)]
#[error("unknown scope")]
pub struct UnknownScope;

impl FromStr for Scope {
    type Err = UnknownScope;

    fn from_str(name: &str) -> Result<Self, UnknownScope> {
        Self::ALL.into_iter().find(|scope| scope.name() == name).ok_or(UnknownScope)
    }
}
