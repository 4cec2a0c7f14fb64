//! The trail: who did what around users and keys, when, from where, and how it ended. It only grows.

pub mod cli;
pub mod http;
mod sql;

use sqlx::PgConnection;
use time::OffsetDateTime;
use tracing::info;
use uuid::Uuid;

use crate::error::Result;
use crate::http::auth::Origin;
use crate::telemetry::Metrics;

/// What can happen.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Action {
    Registered,
    SignedIn,
    SignedOut,
    /// Too many attempts: the next one has to wait.
    Locked,
    ProfileChanged,
    PasswordChanged,
    RoleChanged,
    KeyCreated,
    KeyRotated,
    KeyRevoked,
    JwtRotated,
    /// The database was put back to an earlier moment.
    Restored,
}

impl Action {
    pub const ALL: [Self; 12] = [
        Self::Registered,
        Self::SignedIn,
        Self::SignedOut,
        Self::Locked,
        Self::ProfileChanged,
        Self::PasswordChanged,
        Self::RoleChanged,
        Self::KeyCreated,
        Self::KeyRotated,
        Self::KeyRevoked,
        Self::JwtRotated,
        Self::Restored,
    ];

    pub const fn name(self) -> &'static str {
        match self {
            Self::Registered => "user.registered",
            Self::SignedIn => "user.signed_in",
            Self::SignedOut => "user.signed_out",
            Self::Locked => "user.locked",
            Self::ProfileChanged => "user.profile_changed",
            Self::PasswordChanged => "user.password_changed",
            Self::RoleChanged => "user.role_changed",
            Self::KeyCreated => "key.created",
            Self::KeyRotated => "key.rotated",
            Self::KeyRevoked => "key.revoked",
            Self::JwtRotated => "jwt.rotated",
            Self::Restored => "database.restored",
        }
    }
}

/// Who wanted it, and from where.
#[derive(Debug, Clone, Copy)]
pub struct By<'a> {
    pub actor: &'a str,
    pub origin: Option<Origin>,
}

impl By<'static> {
    /// Somebody at the command line of the server.
    pub const OPERATOR: Self = Self { actor: "operator", origin: None };
}

/// A line of the trail.
#[derive(Debug)]
pub struct Entry {
    pub id: i64,
    pub at: OffsetDateTime,
    pub actor: String,
    pub action: String,
    pub subject: Option<String>,
    pub outcome: String,
    pub address: Option<String>,
    pub trace_id: Option<Uuid>,
}

/// Adds a line; within a transaction it is there if what it tells is.
pub async fn note(
    db: &mut PgConnection,
    metrics: &Metrics,
    by: By<'_>,
    action: Action,
    subject: Option<&str>,
    done: bool,
) -> Result<()> {
    let outcome = if done { "done" } else { "refused" };
    let id = sql::add(db, by, action.name(), subject, outcome).await?;
    metrics.wallet_trail_entries_total.with([action.name(), outcome]).increment(1);
    // The log names the line; who it was about is in the database only.
    info!(event = "trail", trail_id = id, action = action.name(), outcome, "{}", action.name());
    Ok(())
}

/// Every action is there from the start, so that its rate is known at the first one.
pub fn announce(metrics: &Metrics) {
    for action in Action::ALL {
        metrics.wallet_trail_entries_total.announce([action.name(), "done"]);
    }
    metrics.wallet_trail_entries_total.announce([Action::SignedIn.name(), "refused"]);
}
