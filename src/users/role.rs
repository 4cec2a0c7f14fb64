//! Roles of users.

use std::str::FromStr;

use crate::error::{Error, Result};

/// Role of a user.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum, utoipa::ToSchema)]
#[schema(rename_all = "snake_case")]
pub enum UserRole {
    User,
    /// An administrator, with every permission.
    Admin,
    /// The user that represents the operator of the server. It owns the hot wallets of the exchange, and cannot sign
    /// in.
    #[value(skip)]
    House,
}

impl UserRole {
    pub const fn name(self) -> &'static str {
        match self {
            Self::User => "user",
            Self::Admin => "admin",
            Self::House => "house",
        }
    }
}

impl FromStr for UserRole {
    type Err = Error;

    fn from_str(name: &str) -> Result<Self> {
        [Self::User, Self::Admin, Self::House]
            .into_iter()
            .find(|role| role.name() == name)
            .ok_or_else(|| Error::Internal(anyhow::anyhow!("unknown role of a user: {name}")))
    }
}
