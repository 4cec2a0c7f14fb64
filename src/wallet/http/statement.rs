//! `/wallet/{id}/statement`: the transfers of a period, with the opening and closing balance, as JSON or CSV.

use axum::extract::{FromRef, State};
use axum::response::Response;
use futures_util::stream;
use http::HeaderMap;
use serde::Deserialize;
use utoipa::{IntoParams, ToSchema};
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

use super::body::number;
use super::history::HistoryEntryBody;
use crate::auth::{Authenticator, Caller};
use crate::error::Result;
use crate::http::decimal::JsonDecimal;
use crate::http::document::{DocumentFormat, to_json};
use crate::http::extract::{Path, Query};
use crate::http::fields::{moment, parse_moment};
use crate::http::problem::{ArchiveProblem, Problems};
use crate::ids::WalletId;
use crate::wallet::Wallets;

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
    /// End of the statement, as RFC 3339; now if absent. The statement ends earlier if the server may still commit
    /// transfers that are dated before this moment. The actual end is `as_of_at` in JSON, and the time of the closing
    /// line in CSV.
    #[param(example = "2026-02-01T00:00:00Z")]
    to: Option<String>,
}

/// The statement of a wallet. The server streams it, so that even a long statement needs little memory.
#[derive(ToSchema)]
#[schema(as = Statement)]
#[expect(dead_code, reason = "names the members for the document")]
struct StatementBody {
    #[schema(example = "1")]
    wallet: String,
    #[schema(example = "EUR")]
    currency: String,
    /// End of the statement, if the request specifies one. The end is earlier than requested if the server may still
    /// commit transfers that are dated before the requested end.
    #[schema(example = "2026-02-01T00:00:00Z", format = DateTime)]
    as_of_at: Option<String>,
    #[schema(value_type = f64, example = 999.00)]
    opening_balance: JsonDecimal,
    entries: Vec<HistoryEntryBody>,
    #[schema(value_type = f64, example = 1099.00)]
    closing_balance: JsonDecimal,
}

/// Get the statement of a wallet
///
/// The oldest entry comes first. `Accept: text/csv` selects CSV: the first line after the header is the opening
/// balance, and the last line is the closing balance.
#[utoipa::path(
    get, path = "/wallet/{id}/statement", tag = "wallet",
    params(("id" = String, Path, description = "Id of the wallet", example = "1"), StatementQuery),
    responses(
        (status = 200, description = "The statement", content(
            (StatementBody = "application/json"),
            (String = "text/csv"),
        )),
        Problems,
        ArchiveProblem,
    ),
)]
async fn get_statement(
    State(wallets): State<Wallets>,
    caller: Caller,
    Path(id): Path<WalletId>,
    Query(query): Query<StatementQuery>,
    headers: HeaderMap,
) -> Result<Response> {
    let (from, to) =
        (parse_moment("?from", query.from.as_deref())?, parse_moment("?to", query.to.as_deref())?);
    let statement = wallets.statement(&caller, id, from, to).await?;
    let format = DocumentFormat::accepted(&headers);
    let currency = statement.record.currency;
    let opening = number(statement.opening.total()?, currency)?;
    let closing = number(statement.closing.total()?, currency)?;
    let until = statement.until.map(moment).transpose()?;
    let head = head(format, id, currency.code(), &opening, until.as_deref())?;
    let tail = tail(format, &closing, until.as_deref())?;
    let entries =
        stream::try_unfold((statement, true), move |(mut statement, mut is_first)| async move {
            let Some(entries) = statement.next_page().await? else { return Ok(None) };
            let mut text = String::new();
            for entry in &entries {
                let body = HistoryEntryBody::new(entry, id, currency)?;
                write_entry(format, &body, std::mem::take(&mut is_first), &mut text)?;
            }
            Ok(Some((text, (statement, is_first))))
        });
    Ok(format.respond(head, entries, tail))
}

fn head(
    format: DocumentFormat,
    id: WalletId,
    currency: &str,
    opening: &JsonDecimal,
    until: Option<&str>,
) -> Result<String> {
    Ok(match format {
        DocumentFormat::Json => format!(
            r#"{{"wallet":"{id}","currency":"{currency}",{}"opening_balance":{},"entries":["#,
            until.map_or_else(String::new, |until| format!(r#""as_of_at":"{until}","#)),
            to_json(opening)?
        ),
        DocumentFormat::Csv => format!(
            "at,transfer,kind,direction,counterparty,amount,balance,available,currency,memo,trace_id\r\n\
             ,,opening,,,,{opening},,{currency},,\r\n"
        ),
    })
}

fn write_entry(
    format: DocumentFormat,
    entry: &HistoryEntryBody,
    is_first: bool,
    text: &mut String,
) -> Result<()> {
    match format {
        DocumentFormat::Json => {
            text.push_str(if is_first { "" } else { "," });
            text.push_str(&to_json(entry)?);
        }
        DocumentFormat::Csv => {
            let memo = entry.memo.as_deref().map(cell).unwrap_or_default();
            let cells = [
                entry.at.as_str(),
                &entry.id,
                entry.kind,
                entry.direction.name(),
                entry.counterparty.as_deref().unwrap_or_default(),
                &entry.amount.to_string(),
                &entry.balance.to_string(),
                &entry.available.to_string(),
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

fn tail(format: DocumentFormat, closing: &JsonDecimal, until: Option<&str>) -> Result<String> {
    Ok(match format {
        DocumentFormat::Json => format!(r#"],"closing_balance":{}}}"#, to_json(closing)?),
        DocumentFormat::Csv => {
            format!("{},,closing,,,,{closing},,,,\r\n", until.unwrap_or_default())
        }
    })
}

/// Quotes a text as a CSV cell. A text that a spreadsheet would read as a formula gets a leading `'`.
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
