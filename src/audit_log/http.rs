//! `/api/audit`: the route through which admins read the audit log.

use axum::extract::{FromRef, State};
use percent_encoding::{NON_ALPHANUMERIC, utf8_percent_encode};
use serde::{Deserialize, Serialize};
use utoipa::{IntoParams, ToSchema};
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

use super::Outcome;
use super::{AuditEntry, AuditLog};
use crate::auth::{Authenticated, Authenticator};
use crate::error::{Error, Result};
use crate::http::extract::Query;
use crate::http::fields::moment;
use crate::http::pagination::{Page, last_of_full_page, page_limit};
use crate::http::problem::Problems;

pub fn routes<S>() -> OpenApiRouter<S>
where
    AuditLog: FromRef<S>,
    Authenticator: FromRef<S>,
    S: Clone + Send + Sync + 'static,
{
    OpenApiRouter::new().routes(routes!(list_audit_log))
}

/// A recorded action, such as a login or the creation of an API key.
#[derive(Serialize, ToSchema)]
#[schema(as = TrailEntry)]
pub(super) struct AuditEntryBody {
    #[schema(example = "12")]
    id: String,
    #[schema(example = "2026-01-31T12:00:00.123456Z", format = DateTime)]
    at: String,
    /// The actor, such as `user:5` or `key:2`. `operator` stands for a command that runs on the server itself, and
    /// `anybody` for a client that sent no credential.
    #[schema(example = "user:5")]
    actor: String,
    #[schema(example = "user.signed_in")]
    action: String,
    /// Subject of the action, such as a user or an API key; null for a failed login with an unknown name.
    #[schema(required, example = "user:5")]
    subject: Option<String>,
    #[schema(value_type = Outcome)]
    outcome: String,
    #[schema(required, example = "203.0.113.7")]
    address: Option<String>,
    #[schema(required, example = "0af7651916cd43dd8448eb211c80319c")]
    trace_id: Option<String>,
    /// Reason that an operator gave for the action.
    #[schema(required, example = "confirmed by the exchange")]
    reason: Option<String>,
}

impl TryFrom<AuditEntry> for AuditEntryBody {
    type Error = Error;

    fn try_from(entry: AuditEntry) -> Result<Self> {
        let AuditEntry { id, at, actor, action, subject, outcome, address, trace_id, reason } =
            entry;
        let trace_id = trace_id.map(|id| id.simple().to_string());
        Ok(Self {
            id: id.to_string(),
            at: moment(at)?,
            actor,
            action,
            subject,
            outcome,
            address,
            trace_id,
            reason,
        })
    }
}

#[derive(Deserialize, IntoParams)]
struct AuditLogQuery {
    /// Only entries about this subject, such as `user:5` or `key:2`.
    subject: Option<String>,
    /// Page size, 1 to 1000; 100 by default.
    limit: Option<i64>,
    /// Cursor after which the page begins. Take it from the `Link` header of the previous page.
    after: Option<i64>,
}

/// List the audit log
///
/// For admins. Returns the newest entries first. The log is append-only: not even the service itself changes or removes
/// an entry.
#[utoipa::path(
    get, path = "/api/audit", tag = "keys", params(AuditLogQuery), security(("bearer" = [])),
    responses(
        (status = 200, description = "A page of entries; the `Link` header has the URL of the next page", body = [AuditEntryBody]),
        Problems,
    ),
)]
async fn list_audit_log(
    State(log): State<AuditLog>,
    Authenticated(caller): Authenticated,
    Query(query): Query<AuditLogQuery>,
) -> Result<Page<AuditEntryBody>> {
    let limit = page_limit(query.limit)?;
    let subject = query.subject.as_deref();
    let entries = log.list(&caller, subject, query.after.unwrap_or(i64::MAX), limit).await?;
    let next = last_of_full_page(&entries, limit).map(|last| {
        let subject = subject
            .map(|subject| format!("&subject={}", utf8_percent_encode(subject, NON_ALPHANUMERIC)));
        format!("/api/audit?limit={limit}&after={}{}", last.id, subject.unwrap_or_default())
    });
    let bodies = entries.into_iter().map(AuditEntryBody::try_from).collect::<Result<_>>()?;
    Ok(Page::new(bodies, next))
}
