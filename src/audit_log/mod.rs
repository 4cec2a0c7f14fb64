//! The audit log: an append-only record of security-relevant actions, such as logins and changes to API keys, each with
//! its actor, origin and outcome.

pub mod cli;
pub mod http;
mod sql;

use sqlx::PgConnection;
use time::OffsetDateTime;
use tracing::info;
use uuid::Uuid;

use crate::auth::{Caller, Scope};
use crate::db::Database;
use crate::error::Result;
use crate::http::origin::Origin;
use crate::telemetry::Metrics;

/// Kind of action that the audit log records.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum AuditAction {
    Registered,
    SignedIn,
    SignedOut,
    /// Logins to an account were throttled after too many failed attempts.
    Locked,
    ProfileChanged,
    PasswordChanged,
    RoleChanged,
    KeyCreated,
    KeyRotated,
    KeyRevoked,
    JwtRotated,
    /// The database was restored to an earlier state.
    Restored,
    OrderApproved,
    OrderRetried,
    OrderSkipped,
    OrderAborted,
    OrderResolved,
    /// Money was deposited into a hot wallet of the exchange, or withdrawn from it.
    HotWalletFunded,
}

impl AuditAction {
    pub const ALL: [Self; 18] = [
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
        Self::OrderApproved,
        Self::OrderRetried,
        Self::OrderSkipped,
        Self::OrderAborted,
        Self::OrderResolved,
        Self::HotWalletFunded,
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
            Self::OrderApproved => "order.approved",
            Self::OrderRetried => "order.retried",
            Self::OrderSkipped => "order.skipped",
            Self::OrderAborted => "order.aborted",
            Self::OrderResolved => "order.resolved",
            Self::HotWalletFunded => "hot_wallet.funded",
        }
    }
}

/// Outcome of a recorded action.
#[derive(Debug, Clone, Copy, PartialEq, Eq, utoipa::ToSchema)]
#[schema(as = AuditOutcome, rename_all = "snake_case")]
pub enum Outcome {
    Done,
    Refused,
}

impl Outcome {
    const fn name(self) -> &'static str {
        match self {
            Self::Done => "done",
            Self::Refused => "refused",
        }
    }
}

/// The actor that performs an action, and the origin of the request: client address and trace id.
#[derive(Debug, Clone, Copy)]
pub struct Actor<'a> {
    pub name: &'a str,
    pub origin: Option<Origin>,
}

impl Actor<'static> {
    /// Actor of the commands that an operator runs on the server.
    pub const OPERATOR: Self = Self { name: "operator", origin: None };
}

/// Reads the audit log. Cheap to clone.
#[derive(Clone)]
pub struct AuditLog(Database);

impl AuditLog {
    pub fn new(db: Database) -> Self {
        Self(db)
    }

    /// Returns at most `limit` entries with an id below `before`, newest first. If `subject` is given, returns only
    /// entries about it.
    pub async fn list(
        &self,
        caller: &Caller,
        subject: Option<&str>,
        before: i64,
        limit: i64,
    ) -> Result<Vec<AuditEntry>> {
        caller.require_scope(Scope::Admin)?;
        sql::list(&mut *self.0.snapshot("audit_log.list").await?, subject, before, limit).await
    }
}

/// An entry of the audit log.
#[derive(Debug)]
pub struct AuditEntry {
    pub id: i64,
    pub at: OffsetDateTime,
    pub actor: String,
    pub action: String,
    pub subject: Option<String>,
    pub outcome: String,
    pub address: Option<String>,
    pub trace_id: Option<Uuid>,
    /// Reason that an operator gave for the action.
    pub reason: Option<String>,
}

/// An entry to append to the audit log.
#[derive(Debug, Clone, Copy)]
pub struct NewEntry<'a> {
    pub action: AuditAction,
    pub subject: Option<&'a str>,
    pub outcome: Outcome,
    pub reason: Option<&'a str>,
}

/// Appends an entry without a reason. The caller passes the transaction that performs the action, so that the action
/// and the entry are committed together or not at all.
pub async fn append(
    db: &mut PgConnection,
    metrics: &Metrics,
    actor: Actor<'_>,
    action: AuditAction,
    subject: Option<&str>,
    outcome: Outcome,
) -> Result<()> {
    append_entry(db, metrics, actor, &NewEntry { action, subject, outcome, reason: None }).await
}

/// Appends an entry. The caller passes the transaction that performs the action, so that the action and the entry are
/// committed together or not at all.
pub async fn append_entry(
    db: &mut PgConnection,
    metrics: &Metrics,
    actor: Actor<'_>,
    entry: &NewEntry<'_>,
) -> Result<()> {
    let (action, outcome) = (entry.action, entry.outcome.name());
    let id = sql::append(db, actor, entry).await?;
    metrics.wallet_trail_entries_total.with([action.name(), outcome]).increment(1);
    // The log line contains only the id of the entry. The subject, such as a user, stays in the database.
    info!(event = "trail", trail_id = id, action = action.name(), outcome, "{}", action.name());
    Ok(())
}

/// Registers the counter of each action with the value zero, so that Prometheus sees the first entry as an increase.
pub fn preregister(metrics: &Metrics) {
    for action in AuditAction::ALL {
        metrics.wallet_trail_entries_total.preregister([action.name(), "done"]);
    }
    metrics.wallet_trail_entries_total.preregister([AuditAction::SignedIn.name(), "refused"]);
}
