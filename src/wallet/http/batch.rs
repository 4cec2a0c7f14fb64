//! `/wallet/batch`: many transfers in one request.

use axum::Extension;
use axum::extract::{FromRef, State};
use http::StatusCode;
use serde::{Deserialize, Serialize};
use serde_json::value::{RawValue, to_raw_value};
use utoipa::ToSchema;
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

use super::body::request_meta;
use super::transfer::{CreateTransfer, TransferBody};
use crate::auth::{Authenticator, Caller};
use crate::error::{Error, Result};
use crate::http::body::{BoundedList, JsonBody};
use crate::http::context::RequestContext;
use crate::http::json::Object;
use crate::http::problem::{ProblemBody, Problems};
use crate::http::replay::Replayable;
use crate::idempotency_key::IdempotencyKey;
use crate::wallet::Wallets;
use crate::wallet::transfer::{TRANSFERS_MAX, Transfer};

/// Maximum size of a request body in bytes, enough for 10,000 transfers that each have a memo.
const BATCH_BYTES_MAX: usize = 4 * 1024 * 1024;

/// Memory, in bytes, that each transfer of a batch takes until the response is complete.
const TRANSFER_BYTES: usize = 512;

pub(super) fn routes<S>() -> OpenApiRouter<S>
where
    Wallets: FromRef<S>,
    Authenticator: FromRef<S>,
    S: Clone + Send + Sync + 'static,
{
    OpenApiRouter::new().routes(routes!(create_batch))
}

#[derive(Deserialize, ToSchema)]
struct CreateBatch<'a> {
    /// If true, either all transfers take effect or none. If false, each transfer succeeds or fails by itself.
    #[serde(default)]
    atomic: bool,
    /// The transfers, at most 10,000.
    #[serde(borrow)]
    #[schema(required, value_type = Vec<CreateTransfer<'static>>)]
    transfers: BoundedList<Object<CreateTransfer<'a>>, TRANSFERS_MAX>,
}

/// Results of the transfers, in the order of the request.
#[derive(Serialize, ToSchema)]
#[schema(as = Batch)]
struct BatchBody {
    results: Vec<BatchResultBody>,
}

/// Result of one transfer.
#[derive(Serialize, ToSchema)]
#[schema(as = BatchResult)]
struct BatchResultBody {
    /// HTTP status that a request with only this transfer would have received.
    #[schema(example = 201)]
    status: u16,
    #[serde(skip_serializing_if = "Option::is_none")]
    transfer: Option<TransferBody>,
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<ProblemBody<'static>>)]
    problem: Option<Box<RawValue>>,
}

impl BatchResultBody {
    fn done(transfer: Transfer) -> Result<Self> {
        let transfer = Some(TransferBody::try_from(transfer)?);
        Ok(Self { status: StatusCode::CREATED.as_u16(), transfer, problem: None })
    }

    fn refused(error: &Error, trace_id: &str) -> Result<Self> {
        // The problem is serialized directly, because a `serde_json::Value` would turn exact amounts into floats.
        let problem = to_raw_value(&ProblemBody::new(error, trace_id));
        Ok(Self {
            status: error.problem().status.as_u16(),
            transfer: None,
            problem: Some(problem.map_err(|cause| Error::Internal(cause.into()))?),
        })
    }
}

/// Create many transfers
///
/// If `atomic` is true, either all transfers take effect or none: the response has the status 201, or is the error of
/// the first refused transfer. If `atomic` is false, each transfer succeeds or fails by itself, and a later transfer
/// may be posted before an earlier transfer. If some transfers fail, you can repeat the request with the same
/// `Idempotency-Key`: the server posts only the transfers that are not posted yet.
#[utoipa::path(
    post, path = "/wallet/batch", tag = "wallet",
    params(IdempotencyKey),
    request_body = CreateBatch<'static>,
    responses(
        (status = 201, description = "All transfers took effect", body = BatchBody),
        (status = 200, description = "Each transfer has a status of its own", body = BatchBody),
        Problems,
    ),
)]
async fn create_batch(
    State(wallets): State<Wallets>,
    caller: Caller,
    key: IdempotencyKey,
    Extension(context): Extension<RequestContext>,
    body: JsonBody<BATCH_BYTES_MAX>,
) -> Result<Replayable<BatchBody>> {
    let CreateBatch { atomic, transfers } = body.read()?;
    let transfers = transfers.within().filter(|transfers| !transfers.is_empty());
    let transfers = transfers
        .ok_or_else(|| Error::field("/transfers", format!("must be 1 to {TRANSFERS_MAX}")))?;
    let _charge = body.charge(transfers.len() * TRANSFER_BYTES)?;
    let requests = transfers.iter().enumerate();
    let requests =
        requests.map(|(n, Object(body))| body.validate(&format!("/transfers/{n}"))).collect();
    let meta = request_meta(&caller, &key, &context);
    if atomic {
        let transfers = wallets.transfer_all(requests, meta).await?;
        let replayed = transfers.first().is_some_and(|transfer| transfer.replayed);
        let results = transfers.into_iter().map(BatchResultBody::done).collect::<Result<_>>()?;
        return Ok(Replayable::created(BatchBody { results }, None, replayed));
    }
    let outcomes = wallets.transfer_each(requests, meta).await?;
    let (mut any_done, mut all_replayed) = (false, true);
    let results = outcomes.into_iter().map(|outcome| match outcome {
        Ok(transfer) => {
            any_done = true;
            all_replayed &= transfer.replayed;
            BatchResultBody::done(transfer)
        }
        Err(error) => BatchResultBody::refused(&error, context.trace_id()),
    });
    let results = results.collect::<Result<_>>()?;
    Ok(Replayable::ok(BatchBody { results }, any_done && all_replayed))
}
