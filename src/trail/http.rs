//! `/api/audit`: the trail, for admins.

use axum::extract::State;
use axum::response::{IntoResponse, Response};
use serde::{Deserialize, Serialize};
use utoipa::{IntoParams, ToSchema};
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

use super::{Entry, sql};
use crate::app::App;
use crate::error::Result;
use crate::http::auth::{Known, Scope};
use crate::http::extract::Query;
use crate::http::problem::ProblemBody;
use crate::wallet::http::body::{link_next, moment, page_limit, percent};

pub fn routes() -> OpenApiRouter<App> {
    OpenApiRouter::new().routes(routes!(list_trail))
}

/// What happened around a user or a key.
#[derive(Serialize, ToSchema)]
#[schema(as = TrailEntry)]
struct EntryBody {
    #[schema(example = "12")]
    id: String,
    #[schema(example = "2026-01-31T12:00:00.123456Z")]
    at: String,
    /// Who did it: `user:5`, `key:2`, `operator` (the command line) or `anybody`.
    #[schema(example = "user:5")]
    actor: String,
    #[schema(example = "user.signed_in")]
    action: String,
    /// To what; null where nobody is known by the name that was tried.
    #[schema(example = "user:5")]
    subject: Option<String>,
    /// `done` or `refused`.
    #[schema(example = "done")]
    outcome: String,
    #[schema(example = "203.0.113.7")]
    address: Option<String>,
    #[schema(example = "0af7651916cd43dd8448eb211c80319c")]
    trace_id: Option<String>,
}

impl EntryBody {
    fn of(entry: Entry) -> Result<Self> {
        let Entry { id, at, actor, action, subject, outcome, address, trace_id } = entry;
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
        })
    }
}

#[derive(Deserialize, IntoParams)]
struct TrailQuery {
    /// Only what was done to this: `user:5`, `key:2`.
    subject: Option<String>,
    /// Most entries of the answer: 1 to 1000, by default 100.
    limit: Option<i64>,
    /// Where the last page ended; take it from the header `Link`.
    after: Option<i64>,
}

/// What happened around users and keys, newest first
///
/// For admins. It only grows: nobody changes or removes a line, not even the service itself.
#[utoipa::path(
    get, path = "/api/audit", tag = "keys", params(TrailQuery), security(("bearer" = [])),
    responses(
        (status = 200, description = "`Link` has the next page", body = [EntryBody]),
        (status = "4XX", description = "Not done", body = ProblemBody<'static>, content_type = "application/problem+json"),
    ),
)]
async fn list_trail(
    State(app): State<App>,
    Known(caller): Known,
    Query(query): Query<TrailQuery>,
) -> Result<Response> {
    caller.needs(Scope::Admin)?;
    let limit = page_limit(query.limit)?;
    let subject = query.subject.as_deref();
    let mut db = app.db.acquire("trail.list").await?;
    let entries = sql::list(&mut db, subject, query.after.unwrap_or(i64::MAX), limit).await?;
    drop(db);
    let next =
        entries.last().filter(|_| i64::try_from(entries.len()) == Ok(limit)).map(|last| last.id);
    let bodies = entries.into_iter().map(EntryBody::of).collect::<Result<Vec<_>>>()?;
    let mut response = axum::Json(bodies).into_response();
    if let Some(last) = next {
        let mut path = format!("/api/audit?limit={limit}&after={last}");
        if let Some(subject) = subject {
            path.extend(["&subject=", &percent(subject)]);
        }
        link_next(&mut response, &path);
    }
    Ok(response)
}
