//! `/wallet/{id}/statement`: the transfers between two moments with opening and closing balance, as JSON or CSV.
//!
//! It is streamed one page at a time, so its length costs no memory.

use axum::body::Body;
use axum::extract::{FromRef, State};
use axum::response::{IntoResponse, Response};
use futures_util::stream;
use http::{HeaderMap, header};
use serde::Deserialize;
use utoipa::IntoParams;
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

use super::body::number;
use super::history::HistoryEntryBody;
use crate::auth::{Authenticator, Caller};
use crate::error::{Error, Result};
use crate::http::extract::{Path, Query};
use crate::http::fields::{moment, parse_moment};
use crate::http::problem::Problems;
use crate::ids::WalletId;
use crate::wallet::Wallets;
use crate::wallet::read::Statement;

pub(super) fn routes<S>() -> OpenApiRouter<S>
where
    Wallets: FromRef<S>,
    Authenticator: FromRef<S>,
    S: Clone + Send + Sync + 'static,
{
    OpenApiRouter::new().routes(routes!(get_statement))
}

#[derive(Deserialize, IntoParams)]
struct StatementQuery {
    /// Beginning of the statement, as RFC 3339; the opening of the wallet if absent.
    #[param(example = "2026-01-01T00:00:00Z")]
    from: Option<String>,
    /// End of the statement, as RFC 3339; now if absent. The statement ends earlier if its end is not final yet: at
    /// `as_of_at`, which is the time of the closing line in CSV.
    #[param(example = "2026-02-01T00:00:00Z")]
    to: Option<String>,
}

/// Get a statement
///
/// The oldest entry comes first. `Accept: text/csv` selects CSV, whose first and last line are the opening and the closing
/// balance.
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
        Problems,
    ),
)]
async fn get_statement(
    State(wallets): State<Wallets>,
    caller: Caller,
    Path(id): Path<WalletId>,
    Query(query): Query<StatementQuery>,
    headers: HeaderMap,
) -> Result<Response> {
    let (from, to) = (parse_moment("?from", query.from)?, parse_moment("?to", query.to)?);
    let statement = wallets.statement(&caller, id, from, to).await?;
    let accept = headers.get(header::ACCEPT).and_then(|value| value.to_str().ok());
    let format = if accept.is_some_and(|accept| accept.contains("text/csv")) {
        StatementFormat::Csv
    } else {
        StatementFormat::Json
    };
    let currency = statement.record.currency;
    let opening = number(statement.opening.total()?, currency)?;
    let closing = number(statement.closing.total()?, currency)?;
    let until = statement.until.map(moment).transpose()?;
    let head = format.head(id, currency.code(), opening.get(), until.as_deref());
    let tail = format.tail(closing.get(), until.as_deref());
    let part = NextPart::Head(head);
    let stream = StatementStream { statement, format, part, tail, is_first: true };
    let body = Body::from_stream(stream::try_unfold(stream, StatementStream::next));
    Ok(([(header::CONTENT_TYPE, format.content_type())], body).into_response())
}

#[derive(Debug, Clone, Copy)]
enum StatementFormat {
    Json,
    Csv,
}

/// The part of the document that is written next.
enum NextPart {
    Head(String),
    Entries,
    End,
}

/// A statement on its way to the client.
struct StatementStream {
    statement: Statement,
    format: StatementFormat,
    part: NextPart,
    tail: String,
    /// Whether no entry has been written yet.
    is_first: bool,
}

impl StatementStream {
    async fn next(mut self) -> Result<Option<(String, Self)>> {
        match std::mem::replace(&mut self.part, NextPart::Entries) {
            NextPart::Head(head) => Ok(Some((head, self))),
            NextPart::Entries => {
                let Some(entries) = self.statement.next_page().await? else {
                    self.part = NextPart::End;
                    return Ok(Some((std::mem::take(&mut self.tail), self)));
                };
                let (id, currency) = (self.statement.id, self.statement.record.currency);
                let mut text = String::new();
                for entry in &entries {
                    let body = HistoryEntryBody::new(entry, id, currency)?;
                    let is_first = std::mem::take(&mut self.is_first);
                    self.format.entry(&body, is_first, &mut text)?;
                }
                Ok(Some((text, self)))
            }
            NextPart::End => Ok(None),
        }
    }
}

impl StatementFormat {
    const fn content_type(self) -> &'static str {
        match self {
            Self::Json => "application/json",
            Self::Csv => "text/csv; charset=utf-8; header=present",
        }
    }

    fn head(self, id: WalletId, currency: &str, opening: &str, until: Option<&str>) -> String {
        match self {
            Self::Json => format!(
                r#"{{"wallet":"{id}","currency":"{currency}",{}"opening_balance":{opening},"entries":["#,
                until.map_or_else(String::new, |until| format!(r#""as_of_at":"{until}","#))
            ),
            Self::Csv => format!(
                "at,transfer,kind,direction,counterparty,amount,balance,available,currency,memo,trace_id\r\n\
                 ,,opening,,,,{opening},,{currency},,\r\n"
            ),
        }
    }

    fn entry(self, entry: &HistoryEntryBody, is_first: bool, text: &mut String) -> Result<()> {
        match self {
            Self::Json => {
                let json =
                    serde_json::to_string(entry).map_err(|cause| Error::Internal(cause.into()))?;
                text.push_str(if is_first { "" } else { "," });
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

    fn tail(self, closing: &str, until: Option<&str>) -> String {
        match self {
            Self::Json => format!(r#"],"closing_balance":{closing}}}"#),
            Self::Csv => format!("{},,closing,,,,{closing},,,,\r\n", until.unwrap_or_default()),
        }
    }
}

/// A text as a CSV cell: quoted, and never a formula to a spreadsheet.
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
