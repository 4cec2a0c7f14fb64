//! `/wallet/batch`: many transfers in one request.

use axum::Extension;
use axum::extract::{DefaultBodyLimit, State};
use axum::response::Response;
use http::StatusCode;
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

use super::body::{asked, replayable};
use super::transfer::{Draft, OrderBody, TransferBody};
use crate::app::App;
use crate::error::{Error, Result};
use crate::http::auth::Caller;
use crate::http::context::RequestContext;
use crate::http::extract::JsonBody;
use crate::http::idempotency::IdempotencyKey;
use crate::http::problem::ProblemBody;
use crate::wallet::transfer::batch::{Refused, TRANSFERS_MAX};
use crate::wallet::transfer::{Order, Transfer};

/// Largest body: 10,000 transfers with a memo.
const BATCH_BYTES_MAX: usize = 4 * 1024 * 1024;

pub(super) fn routes() -> OpenApiRouter<App> {
    OpenApiRouter::new().routes(routes!(create_batch)).layer(DefaultBodyLimit::max(BATCH_BYTES_MAX))
}

#[derive(Deserialize, ToSchema)]
struct CreateBatch<'a> {
    /// All or none of them; otherwise each by itself.
    #[serde(default)]
    atomic: bool,
    /// At most 10,000.
    #[serde(borrow)]
    #[schema(value_type = Vec<OrderBody<'static>>)]
    transfers: Vec<OrderBody<'a>>,
}

/// What became of the transfers, in their order.
#[derive(Serialize, ToSchema)]
#[schema(as = Batch)]
struct BatchBody {
    results: Vec<ResultBody>,
}

/// What became of one of them.
#[derive(Serialize, ToSchema)]
#[schema(as = BatchResult)]
struct ResultBody {
    /// As if it had been asked for by itself.
    #[schema(example = 201)]
    status: u16,
    #[serde(skip_serializing_if = "Option::is_none")]
    transfer: Option<TransferBody>,
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<ProblemBody<'static>>)]
    problem: Option<serde_json::Value>,
}

impl ResultBody {
    fn done(transfer: Transfer) -> Result<Self> {
        let transfer = Some(TransferBody::of(transfer)?);
        Ok(Self { status: StatusCode::CREATED.as_u16(), transfer, problem: None })
    }

    fn refused(error: &Error, trace_id: &str) -> Result<Self> {
        let problem = serde_json::to_value(ProblemBody::of(error, trace_id));
        Ok(Self {
            status: error.problem().status.as_u16(),
            transfer: None,
            problem: Some(problem.map_err(|cause| Error::Internal(cause.into()))?),
        })
    }
}

/// Move money many times in one request
///
/// `atomic`: all or none, answered with 201 or with the problem of the first transfer that cannot be done.
/// Otherwise each stands for itself; a repetition with the same `Idempotency-Key` does only those that are missing.
#[utoipa::path(
    post, path = "/wallet/batch", tag = "wallet",
    params(("Idempotency-Key" = Option<String>, Header, description = "Done once for the same key and body")),
    request_body = CreateBatch<'static>,
    responses(
        (status = 201, description = "All done", body = BatchBody),
        (status = 200, description = "Each done or not done, as its status says", body = BatchBody),
        (status = "4XX", description = "Nothing done", body = ProblemBody<'static>, content_type = "application/problem+json"),
    ),
)]
async fn create_batch(
    State(app): State<App>,
    caller: Caller,
    key: IdempotencyKey,
    Extension(context): Extension<RequestContext>,
    body: JsonBody<BATCH_BYTES_MAX>,
) -> Result<Response> {
    let CreateBatch { atomic, transfers } = body.read()?;
    if transfers.is_empty() || transfers.len() > TRANSFERS_MAX {
        return Err(Error::field("/transfers", format!("must be 1 to {TRANSFERS_MAX}")));
    }
    let place = |n: usize| format!("/transfers/{n}");
    let drafts: Vec<Result<Draft<'_>>> =
        transfers.iter().enumerate().map(|(n, body)| body.draft(&place(n))).collect();
    let wallets = drafts.iter().flatten().flat_map(|draft| [draft.from, draft.to]);
    let known = app.wallets.facts_of_many(wallets).await?;
    let orders =
        drafts.into_iter().enumerate().map(|(n, draft)| draft?.order(&place(n), &known, &caller));
    let asked = asked(&caller, &key, &context);
    if atomic {
        let orders = whole(orders)?;
        let done = app.wallets.transfer_all(orders, asked).await.map_err(in_batch)?;
        let replayed = done.first().is_some_and(|transfer| transfer.replayed);
        let results = done.into_iter().map(ResultBody::done).collect::<Result<_>>()?;
        return Ok(replayable(StatusCode::CREATED, &BatchBody { results }, replayed));
    }
    let done = app.wallets.transfer_each(orders.collect(), asked).await;
    let mut replayed = true;
    let results = done.into_iter().map(|outcome| match outcome {
        Ok(transfer) => {
            replayed &= transfer.replayed;
            ResultBody::done(transfer)
        }
        Err(error) => ResultBody::refused(&error, context.trace_id()),
    });
    let results: Vec<_> = results.collect::<Result<_>>()?;
    let replayed = replayed && results.iter().any(|result| result.transfer.is_some());
    Ok(replayable(StatusCode::OK, &BatchBody { results }, replayed))
}

/// All orders, or everything that is wrong with them.
fn whole(orders: impl Iterator<Item = Result<Order>>) -> Result<Vec<Order>> {
    let mut good = Vec::new();
    let mut fields = Vec::new();
    for (place, order) in orders.enumerate() {
        match order {
            Ok(order) => good.push(order),
            Err(Error::Invalid(more)) => fields.extend(more),
            Err(error) => return Err(Error::InBatch { place, error: Box::new(error) }),
        }
    }
    if fields.is_empty() { Ok(good) } else { Err(Error::Invalid(fields)) }
}

fn in_batch(refused: Refused) -> Error {
    match refused {
        Refused { place: Some(place), error } => Error::InBatch { place, error: Box::new(error) },
        Refused { place: None, error } => error,
    }
}
