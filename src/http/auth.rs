//! Who calls, and whether they may.

use axum::extract::FromRequestParts;
use http::request::Parts;

use crate::app::App;
use crate::error::{Error, Result};

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
}

/// Somebody who may use wallets.
#[derive(Debug)]
pub struct Caller(());

impl Caller {
    /// Keeps one caller's idempotency keys apart from another's.
    pub fn name(&self) -> &'static str {
        "anybody"
    }
}

impl FromRequestParts<App> for Caller {
    type Rejection = Error;

    async fn from_request_parts(_: &mut Parts, app: &App) -> Result<Self> {
        match app.access {
            Access::Open => Ok(Self(())),
            Access::Closed => Err(Error::Unauthenticated),
        }
    }
}
