//! Routes that return the statement of a publisher as JSON or CSV, and pay out the balance of a publisher.

use axum::Extension;
use axum::extract::{FromRef, State};
use axum::response::Response;
use futures_util::stream;
use http::HeaderMap;
use serde::{Deserialize, Serialize};
use utoipa::{IntoParams, ToSchema};
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

use crate::auth::{Authenticated, Authenticator};
use crate::error::{Error, Result};
use crate::games::Games;
use crate::games::publisher::statement::EntryKind;
use crate::games::publisher::statement::{PublisherStatement, StatementEntry};
use crate::http::body::OptionalJsonBody;
use crate::http::context::RequestContext;
use crate::http::decimal::JsonDecimal;
use crate::http::document::{DocumentFormat, to_json};
use crate::http::extract::{Path, Query, RawField, Validator};
use crate::http::fields::{moment, parse_moment, string};
use crate::http::problem::{ArchiveProblem, Problems};
use crate::http::replay::Replayable;
use crate::idempotency_key::IdempotencyKey;
use crate::ids::PublisherId;
use crate::ledger::currency::Currency;
use crate::ledger::money::Minor;
use crate::wallet::http::body::{number, request_meta};

pub(super) fn routes<S>() -> OpenApiRouter<S>
where
    Games: FromRef<S>,
    Authenticator: FromRef<S>,
    S: Clone + Send + Sync + 'static,
{
    OpenApiRouter::new().routes(routes!(get_publisher_statement)).routes(routes!(pay_publisher))
}

#[derive(Deserialize, IntoParams)]
struct PublisherStatementQuery {
    /// Code of the currency; the default currency if absent.
    #[param(example = "EUR")]
    currency: Option<String>,
    /// Beginning of the statement, as an RFC 3339 timestamp; the first sale if absent.
    #[param(example = "2026-01-01T00:00:00Z")]
    from: Option<String>,
    /// End of the statement, as an RFC 3339 timestamp; now if absent. If transfers from before this moment may still be
    /// uncommitted, the statement ends earlier: at `as_of_at` in JSON, or at the time of the closing line in CSV.
    #[param(example = "2026-02-01T00:00:00Z")]
    to: Option<String>,
}

/// The statement of a publisher, without its entries.
#[derive(Serialize, ToSchema)]
struct StatementHead {
    #[schema(example = "1")]
    publisher: String,
    #[schema(example = "EUR")]
    currency: String,
    /// End of the statement; present if the request specifies an end. It is earlier than the requested end if transfers
    /// from before that time may still be uncommitted.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(example = "2026-02-01T00:00:00Z", format = DateTime)]
    as_of_at: Option<String>,
    #[schema(value_type = f64, example = 0.00)]
    opening_balance: JsonDecimal,
    #[schema(value_type = f64, example = 19.99)]
    sales: JsonDecimal,
    #[schema(value_type = f64, example = 0.00)]
    refunds: JsonDecimal,
    #[schema(value_type = f64, example = 3.19)]
    tax: JsonDecimal,
    #[schema(value_type = f64, example = 5.04)]
    fees: JsonDecimal,
    #[schema(value_type = f64, example = 0.00)]
    payouts: JsonDecimal,
    #[schema(value_type = f64, example = 11.76)]
    closing_balance: JsonDecimal,
}

/// The statement of a publisher, which the server streams page by page.
#[derive(Serialize, ToSchema)]
#[schema(as = PublisherStatement)]
struct StatementBody {
    #[serde(flatten)]
    head: StatementHead,
    entries: Vec<StatementEntryBody>,
}

/// An entry of a publisher's statement: a change to the balance of the publisher.
#[derive(Serialize, ToSchema)]
#[schema(as = PublisherStatementEntry)]
struct StatementEntryBody {
    #[schema(example = "2026-01-31T12:00:00.123456Z", format = DateTime)]
    at: String,
    #[schema(example = "17")]
    transfer: String,
    #[schema(value_type = EntryKind)]
    kind: &'static str,
    #[schema(required, example = 1)]
    game: Option<i64>,
    /// Amount of the entry; negative if the entry lowers the balance.
    #[schema(value_type = f64, example = 19.99)]
    amount: JsonDecimal,
    /// Balance of the publisher after the entry.
    #[schema(value_type = f64, example = 19.99)]
    balance: JsonDecimal,
}

/// Get the statement of a publisher
///
/// Returns sales, refunds, tax, fees and payouts, oldest first, with the opening and closing balance. A negative
/// balance is a debt. The sums of tax and fees exclude refunded amounts. The header `Accept: text/csv` selects CSV.
/// Requires the scope `games:write`, unless the caller is the publisher.
#[utoipa::path(
    get, path = "/api/publishers/{id}/statement", tag = "games", security(("bearer" = [])),
    params(("id" = String, Path, description = "The publisher", example = "1"), PublisherStatementQuery),
    responses(
        (status = 200, description = "The statement", content(
            (StatementBody = "application/json"),
            (String = "text/csv"),
        )),
        Problems,
        ArchiveProblem,
    ),
)]
async fn get_publisher_statement(
    State(games): State<Games>,
    Authenticated(caller): Authenticated,
    Path(id): Path<PublisherId>,
    Query(query): Query<PublisherStatementQuery>,
    headers: HeaderMap,
) -> Result<Response> {
    let currency = query.currency.as_deref().map(|code| games.currencies().supported(code));
    let currency = currency.transpose().map_err(|detail| Error::field("?currency", detail))?;
    let range =
        (parse_moment("?from", query.from.as_deref())?, parse_moment("?to", query.to.as_deref())?);
    let statement = games.publisher_statement(id, currency, range, &caller).await?;
    let format = DocumentFormat::accepted(&headers);
    let (head, tail) = (head(&statement, format)?, tail(&statement, format)?);
    let entries =
        stream::try_unfold((statement, true), move |(mut statement, mut is_first)| async move {
            let Some(entries) = statement.next_page().await? else { return Ok(None) };
            let mut text = String::new();
            for entry in &entries {
                if format == DocumentFormat::Json && !std::mem::take(&mut is_first) {
                    text.push(',');
                }
                text.push_str(&entry_text(entry, format, statement.currency)?);
            }
            Ok(Some((text, (statement, is_first))))
        });
    Ok(format.respond(head, entries, tail))
}

fn head(statement: &PublisherStatement, format: DocumentFormat) -> Result<String> {
    let currency = statement.currency;
    if format == DocumentFormat::Csv {
        let opening = statement.opening.exact(currency);
        return Ok(format!(
            "at,transfer,kind,game,amount,balance,currency\r\n,,opening,,,{opening},{currency}\r\n"
        ));
    }
    let sums = statement.sums;
    let exact = |amount: i64| number(Minor(amount), currency);
    let head = StatementHead {
        publisher: statement.publisher.to_string(),
        currency: currency.code().to_owned(),
        as_of_at: statement.until.map(moment).transpose()?,
        opening_balance: number(statement.opening, currency)?,
        sales: exact(sums.sales)?,
        refunds: exact(sums.refunds)?,
        tax: exact(sums.tax)?,
        fees: exact(sums.fees)?,
        payouts: exact(sums.payouts)?,
        closing_balance: number(statement.closing, currency)?,
    };
    let mut text = to_json(&head)?;
    // Removes the closing brace, because the list of entries follows as the last field of the object.
    text.pop();
    text.push_str(r#","entries":["#);
    Ok(text)
}

fn tail(statement: &PublisherStatement, format: DocumentFormat) -> Result<String> {
    if format == DocumentFormat::Json {
        return Ok("]}".to_owned());
    }
    let at = statement.until.map(moment).transpose()?.unwrap_or_default();
    let closing = statement.closing.exact(statement.currency);
    Ok(format!("{at},,closing,,,{closing},{}\r\n", statement.currency))
}

fn entry_text(
    entry: &StatementEntry,
    format: DocumentFormat,
    currency: Currency,
) -> Result<String> {
    let (at, kind) = (moment(entry.at)?, entry.kind.name());
    if format == DocumentFormat::Csv {
        let game = entry.game.map(|game| game.to_string()).unwrap_or_default();
        let (amount, balance) = (entry.amount.exact(currency), entry.balance.exact(currency));
        let transfer = entry.transfer;
        return Ok(format!("{at},{transfer},{kind},{game},{amount},{balance},{currency}\r\n"));
    }
    to_json(&StatementEntryBody {
        at,
        transfer: entry.transfer.to_string(),
        kind,
        game: entry.game,
        amount: number(entry.amount, currency)?,
        balance: number(entry.balance, currency)?,
    })
}

#[derive(Deserialize, ToSchema)]
struct PayPublisher<'a> {
    /// Code of the currency; the default currency if absent.
    #[serde(borrow, default)]
    #[schema(value_type = Option<String>, example = "EUR")]
    currency: RawField<'a>,
}

/// A payout to a publisher.
#[derive(Serialize, ToSchema)]
#[schema(as = PublisherPayout)]
#[serde(rename_all = "camelCase")]
struct PayoutBody {
    #[schema(example = "1")]
    publisher: String,
    #[schema(value_type = f64, example = 11.76)]
    amount: JsonDecimal,
    #[schema(example = "EUR")]
    currency: String,
    #[schema(example = "19")]
    transfer_id: String,
}

/// Pay a publisher
///
/// Moves the balance of the publisher's account to the publisher's main wallet. Requires the scope `games:write`,
/// unless the caller is the publisher.
#[utoipa::path(
    post, path = "/api/publishers/{id}/payout", tag = "games", security(("bearer" = [])),
    params(("id" = String, Path, description = "The publisher", example = "1"), IdempotencyKey),
    request_body(content = Option<PayPublisher<'static>>),
    responses((status = 200, description = "Paid", body = PayoutBody), Problems),
)]
async fn pay_publisher(
    State(games): State<Games>,
    Authenticated(caller): Authenticated,
    Path(id): Path<PublisherId>,
    key: IdempotencyKey,
    Extension(context): Extension<RequestContext>,
    body: OptionalJsonBody,
) -> Result<Replayable<PayoutBody>> {
    let PayPublisher { currency } = body.read()?;
    let mut validator = Validator::default();
    let currency = validator
        .optional("/currency", &currency, |raw| games.currencies().supported(&string(raw)?));
    validator.finish(Some(()))?;
    let paid = games.pay_publisher(id, currency, request_meta(&caller, &key, &context)).await?;
    let body = PayoutBody {
        publisher: id.to_string(),
        amount: number(paid.amount, paid.currency)?,
        currency: paid.currency.code().to_owned(),
        transfer_id: paid.transfer.to_string(),
    };
    Ok(Replayable::ok(body, paid.replayed))
}
