//! `/wallet/{id}/statement`: what happened between two moments, with the balance before and after, as JSON or CSV.
//!
//! It is written while it is read, a page at a time, so its length costs no memory.

use std::sync::Arc;

use axum::body::Body;
use axum::extract::State;
use axum::response::{IntoResponse, Response};
use futures_util::stream;
use http::{HeaderMap, header};
use serde::Deserialize;
use utoipa::IntoParams;
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

use super::body::{number, parse_moment};
use super::history::EntryBody;
use crate::app::App;
use crate::error::{Error, Result};
use crate::http::auth::Caller;
use crate::http::extract::{Path, Query};
use crate::http::problem::ProblemBody;
use crate::ledger::read::{self, Span};
use crate::wallet::{Facts, WalletId};

pub(super) fn routes() -> OpenApiRouter<App> {
    OpenApiRouter::new().routes(routes!(get_statement))
}

#[derive(Deserialize, IntoParams)]
struct StatementQuery {
    /// Not before this moment, as RFC 3339; from the beginning when absent.
    #[param(example = "2026-01-01T00:00:00Z")]
    from: Option<String>,
    /// Before this moment, as RFC 3339; until now when absent.
    #[param(example = "2026-02-01T00:00:00Z")]
    to: Option<String>,
}

/// The statement of a wallet, oldest first
///
/// `Accept: text/csv` makes it a table; its first and last line are the opening and the closing balance.
#[utoipa::path(
    get, path = "/wallet/{id}/statement", tag = "wallet",
    params(("id" = String, Path, description = "The wallet", example = "1"), StatementQuery),
    responses(
        (status = 200, description = "The statement", content(
            (serde_json::Value = "application/json", example = json!({
                "wallet": "1", "currency": "EUR", "opening_balance": 0.00,
                "entries": [], "closing_balance": 999.00
            })),
            (String = "text/csv"),
        )),
        (status = "4XX", description = "Not done", body = ProblemBody<'static>, content_type = "application/problem+json"),
    ),
)]
async fn get_statement(
    State(app): State<App>,
    caller: Caller,
    Path(id): Path<WalletId>,
    Query(query): Query<StatementQuery>,
    headers: HeaderMap,
) -> Result<Response> {
    let (from, to) = (parse_moment("?from", query.from)?, parse_moment("?to", query.to)?);
    let facts = app.wallets.seen_by(&caller, id).await?;
    let (from, before) = app.wallets.between(from, to).await?;
    let opening = app.wallets.holdings_at(id, &facts, from - 1).await?;
    let closing = app.wallets.holdings_at(id, &facts, before.max(from) - 1).await?;
    let accept = headers.get(header::ACCEPT).and_then(|value| value.to_str().ok());
    let form = if accept.is_some_and(|accept| accept.contains("text/csv")) {
        Form::Csv
    } else {
        Form::Json
    };
    let opening = number(opening.balance()?, facts.currency)?;
    let closing = number(closing.balance()?, facts.currency)?;
    let head = form.head(id, &facts, opening.get());
    let writing = Writing {
        span: Span { from, before, oldest_first: true, limit: read::PAGE_MAX },
        tail: form.tail(closing.get()),
        step: Step::Head(head),
        first: true,
        app,
        id,
        facts,
        form,
    };
    let body = Body::from_stream(stream::try_unfold(writing, Writing::next));
    Ok(([(header::CONTENT_TYPE, form.content_type())], body).into_response())
}

#[derive(Debug, Clone, Copy)]
enum Form {
    Json,
    Csv,
}

/// What is written next.
enum Step {
    Head(String),
    Entries,
    Tail,
    End,
}

struct Writing {
    app: App,
    id: WalletId,
    facts: Arc<Facts>,
    form: Form,
    span: Span,
    step: Step,
    tail: String,
    first: bool,
}

impl Writing {
    async fn next(mut self) -> Result<Option<(String, Self)>> {
        match std::mem::replace(&mut self.step, Step::Entries) {
            Step::Head(head) => Ok(Some((head, self))),
            Step::Entries => {
                let entries = self.app.wallets.history(self.id, self.span).await?;
                let mut text = String::new();
                for entry in &entries {
                    let body = EntryBody::of(entry, self.id, self.facts.currency)?;
                    let first = std::mem::take(&mut self.first);
                    self.form.entry(&body, first, &mut text)?;
                }
                match entries.last() {
                    Some(last) if i64::try_from(entries.len()) == Ok(self.span.limit) => {
                        self.span.from = last.seq + 1;
                    }
                    _ => self.step = Step::Tail,
                }
                Ok(Some((text, self)))
            }
            Step::Tail => {
                self.step = Step::End;
                Ok(Some((std::mem::take(&mut self.tail), self)))
            }
            Step::End => Ok(None),
        }
    }
}

impl Form {
    const fn content_type(self) -> &'static str {
        match self {
            Self::Json => "application/json",
            Self::Csv => "text/csv; charset=utf-8; header=present",
        }
    }

    fn head(self, id: WalletId, facts: &Facts, opening: &str) -> String {
        let currency = facts.currency.code();
        match self {
            Self::Json => format!(
                r#"{{"wallet":"{id}","currency":"{currency}","opening_balance":{opening},"entries":["#
            ),
            Self::Csv => format!(
                "at,transfer,kind,direction,counterparty,amount,balance,available,currency,memo,trace_id\r\n\
                 ,,opening,,,,{opening},,{currency},,\r\n"
            ),
        }
    }

    fn entry(self, entry: &EntryBody, first: bool, text: &mut String) -> Result<()> {
        match self {
            Self::Json => {
                let json =
                    serde_json::to_string(entry).map_err(|cause| Error::Internal(cause.into()))?;
                text.push_str(if first { "" } else { "," });
                text.push_str(&json);
            }
            Self::Csv => {
                let memo = entry.memo.as_deref().map(cell).unwrap_or_default();
                let cells = [
                    entry.at.as_str(),
                    &entry.id,
                    entry.kind,
                    entry.direction,
                    entry.counterparty.as_deref().unwrap_or_default(),
                    entry.amount.get(),
                    entry.balance.get(),
                    entry.available.get(),
                    "",
                    &memo,
                    entry.trace_id.as_deref().unwrap_or_default(),
                ];
                text.push_str(&cells.join(","));
                text.push_str("\r\n");
            }
        }
        Ok(())
    }

    fn tail(self, closing: &str) -> String {
        match self {
            Self::Json => format!(r#"],"closing_balance":{closing}}}"#),
            Self::Csv => format!(",,closing,,,,{closing},,,,\r\n"),
        }
    }
}

/// A text that somebody wrote: quoted, and never a formula to a spreadsheet.
fn cell(text: &str) -> String {
    let guard = if text.starts_with(['=', '+', '-', '@', '\t', '\r']) { "'" } else { "" };
    format!("\"{guard}{}\"", text.replace('"', "\"\""))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_memo_is_a_text_to_every_spreadsheet() {
        assert_eq!(cell("a \"b\", c"), r#""a ""b"", c""#);
        assert_eq!(cell("=1+1"), r#""'=1+1""#);
    }
}
