//! Roles of users.

use std::str::FromStr;

use crate::error::{Error, Result};

/// Role of a user.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
pub enum UserRole {
    User,
    /// Every permission.
    Admin,
}

impl UserRole {
    pub const fn name(self) -> &'static str {
        match self {
            Self::User => "user",
            Self::Admin => "admin",
        }
    }
}

impl FromStr for UserRole {
    type Err = Error;

    fn from_str(name: &str) -> Result<Self> {
        [Self::User, Self::Admin]
            .into_iter()
            .find(|role| role.name() == name)
            .ok_or_else(|| Error::Internal(anyhow::anyhow!("unknown role of a user: {name}")))
    }
}
