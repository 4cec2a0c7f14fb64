//! Batches: many transfers in one request. In an atomic batch, all transfers take effect or none; in other batches,
//! each transfer succeeds or fails by itself.
//!
//! The idempotency key covers the whole request. Each transfer of a non-atomic batch also has a key of its own, so that
//! a repeated request posts only the transfers that are not posted yet.

use std::str::FromStr;

use futures_util::{StreamExt, stream};

use rust_decimal::Decimal;
use serde::Serialize;
use uuid::Uuid;

use super::{ResolvedTransfer, Transfer, TransferRequest, sql};
use crate::error::{Error, Result};
use crate::idempotency_key::HashedKey;
use crate::ledger::companion::Companion;
use crate::ledger::transfer::{Leg, TransferKind};
use crate::ledger::{PostError, Refusal};
use crate::wallet::{RequestMeta, Wallets, companion, from_post_error};

/// Maximum number of transfers in a request. Even if each transfer has a fee, a single posting can contain all of them.
pub const TRANSFERS_MAX: usize = 10_000;

/// Maximum number of transfers of one request that may be waiting for the ledger writer. Without the limit, a large
/// batch would block other requests.
const WAITING_MAX: usize = 2_048;

/// Refusal of a transfer whose idempotency key belongs to another batch.
pub(in crate::wallet) const KEY_CLAIMED: &str = "the key belongs to another batch";

/// Mode of a batch: its transfers take effect together, or independently of each other.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum BatchMode {
    Atomic,
    Each,
}

/// Row that the companion [`BATCH_CLAIMED`](sql::BATCH_CLAIMED) inserts: it claims an idempotency key for the
/// batch with the given hash.
#[derive(Serialize)]
struct BatchClaim {
    key_hash: Uuid,
    content_hash: Uuid,
}

impl BatchClaim {
    fn companion(key: HashedKey) -> Result<Companion> {
        let claim = Self { key_hash: key.hash, content_hash: key.content };
        companion(&sql::BATCH_CLAIMED, &claim, KEY_CLAIMED)
    }
}

impl Wallets {
    /// Posts all of these transfers together, or none of them.
    pub async fn transfer_all(
        &self,
        requests: Vec<Result<TransferRequest<'_>>>,
        meta: RequestMeta<'_>,
    ) -> Result<Vec<Transfer>> {
        let key = batch_key(BatchMode::Atomic, &requests, meta);
        self.require_unclaimed(key).await?;
        let transfers = all_valid(self.resolve_all(requests, meta).await?)?;
        let content: Vec<String> = transfers.iter().flat_map(ResolvedTransfer::content).collect();
        let content: Vec<&str> = content.iter().map(String::as_str).collect();
        let legs: Vec<Vec<Leg>> =
            transfers.iter().map(ResolvedTransfer::legs).collect::<Result<_>>()?;
        let starts: Vec<usize> = legs
            .iter()
            .scan(0, |next, legs| Some(std::mem::replace(next, *next + legs.len())))
            .collect();
        let mut posting = meta.posting("batch", &content, legs.concat());
        posting.companions.extend(key.map(BatchClaim::companion).transpose()?);
        let posted = self.ledger.post(posting).await;
        let posted = posted.map_err(|error| batch_error(&error, &starts, &transfers))?;
        if posted.replayed {
            return self.replayed_batch(&posted).await;
        }
        for transfer in &transfers {
            let ResolvedTransfer { currency, amount, fee, .. } = transfer;
            self.count_moved(*currency, TransferKind::Transfer, *amount);
            self.count_moved(*currency, TransferKind::Fee, fee.unwrap_or_default());
        }
        let seqs = starts.iter().map(|start| posted.first_seq + offset(*start));
        let transfers = transfers.into_iter().zip(seqs);
        Ok(transfers.map(|(one, seq)| one.into_posted(seq, posted.at, meta.trace)).collect())
    }

    /// Posts each of these transfers independently. They are enqueued in the order of the request, but may be posted in
    /// another order: a transfer may wait until the ledger writer has looked up its accounts, and a ledger writer in
    /// another process may receive the transfers in another order.
    pub async fn transfer_each(
        &self,
        requests: Vec<Result<TransferRequest<'_>>>,
        meta: RequestMeta<'_>,
    ) -> Result<Vec<Result<Transfer>>> {
        let key = batch_key(BatchMode::Each, &requests, meta);
        self.require_unclaimed(key).await?;
        let transfers = self.resolve_all(requests, meta).await?;
        let posts = transfers.into_iter().enumerate().map(|(place, transfer)| async move {
            let claim = key.map(BatchClaim::companion).transpose()?;
            let transfer = transfer?;
            let pointers = transfer.pointers(&format!("/transfers/{place}"));
            let posted = self.post_transfer(&format!("batch.{place}"), transfer, claim, meta).await;
            posted.map_err(|error| error.with_pointer(pointers))
        });
        let outcomes: Vec<Result<Transfer>> =
            stream::iter(posts).buffered(WAITING_MAX).collect().await;
        let is_reused = |outcome: &Result<_>| matches!(outcome, Err(Error::IdempotencyKeyReused));
        if outcomes.iter().any(is_reused) {
            return Err(Error::IdempotencyKeyReused);
        }
        if outcomes.iter().flatten().any(|transfer| transfer.replayed) {
            // Another request with the same key may have posted its first transfer earlier.
            self.require_unclaimed(key).await?;
        }
        Ok(outcomes)
    }

    /// Returns an error if the idempotency key belongs to a different batch.
    async fn require_unclaimed(&self, key: Option<HashedKey>) -> Result<()> {
        let Some(key) = key else { return Ok(()) };
        let mut db = self.db.acquire("wallet.batch_claim").await?;
        match sql::claimed_content(&mut db, key.hash).await? {
            None => Ok(()),
            content => key.require_same_content(content),
        }
    }

    async fn resolve_all(
        &self,
        requests: Vec<Result<TransferRequest<'_>>>,
        meta: RequestMeta<'_>,
    ) -> Result<Vec<Result<ResolvedTransfer>>> {
        let wallets = requests.iter().flatten().flat_map(|request| [request.from, request.to]);
        let records = self.find_records(wallets).await?;
        let resolved = requests.into_iter().enumerate().map(|(place, request)| {
            request?.resolve(&format!("/transfers/{place}"), &records, meta.caller)
        });
        Ok(resolved.collect())
    }
}

/// Returns the idempotency key of the whole request.
fn batch_key(
    mode: BatchMode,
    requests: &[Result<TransferRequest<'_>>],
    meta: RequestMeta<'_>,
) -> Option<HashedKey> {
    let content = batch_content(mode, requests);
    let content: Vec<&str> = content.iter().map(String::as_str).collect();
    meta.key.hashed(meta.caller.name(), "batch.request", &content)
}

/// Returns the request as text, to detect an idempotency key that is reused for a different request. The text must not
/// depend on which wallets exist, because a wallet that is missing now may exist when the request is repeated.
fn batch_content(mode: BatchMode, requests: &[Result<TransferRequest<'_>>]) -> Vec<String> {
    let mode = match mode {
        BatchMode::Atomic => "atomic",
        BatchMode::Each => "each",
    };
    let mut content = vec![mode.to_owned()];
    for request in requests {
        match request {
            Ok(TransferRequest { from, to, amount, fee, note }) => content.extend([
                from.to_string(),
                to.to_string(),
                normalized(amount),
                fee.map_or_else(String::new, normalized),
                note.memo.clone().unwrap_or_default(),
                note.metadata.as_ref().map_or_else(String::new, |raw| raw.get().to_owned()),
            ]),
            Err(error) => content.push(error.to_string()),
        }
    }
    content
}

/// Returns a decimal in its shortest spelling, so that `100` and `100.00` become the same text.
fn normalized(text: &str) -> String {
    let decimal = Decimal::from_str(text).or_else(|_| Decimal::from_scientific(text));
    decimal.map_or_else(|_| text.to_owned(), |decimal| decimal.normalize().to_string())
}

/// Returns the transfers if all of them are valid. Otherwise, returns the first error that is not about invalid fields,
/// or, if there is none, a single error that lists the invalid fields of all transfers.
fn all_valid(transfers: Vec<Result<ResolvedTransfer>>) -> Result<Vec<ResolvedTransfer>> {
    let mut valid = Vec::with_capacity(transfers.len());
    let mut fields = Vec::new();
    for (place, transfer) in transfers.into_iter().enumerate() {
        match transfer {
            Ok(transfer) => valid.push(transfer),
            Err(Error::Invalid(more)) => fields.extend(more),
            Err(error) => return Err(Error::InBatch { place, error: Box::new(error) }),
        }
    }
    if fields.is_empty() { Ok(valid) } else { Err(Error::Invalid(fields)) }
}

/// Converts the error of a posting into the error of the whole batch, which names the refused transfer, if any.
fn batch_error(error: &PostError, starts: &[usize], transfers: &[ResolvedTransfer]) -> Error {
    let place = match error {
        PostError::Refused(Refusal::InLeg { leg, .. }) => {
            Some(starts.partition_point(|start| start <= leg) - 1)
        }
        _ => None,
    };
    let currency = transfers.get(place.unwrap_or(0)).map(|transfer| transfer.currency);
    let error = from_post_error(error, currency);
    match place {
        Some(place) => {
            let error = match transfers.get(place) {
                Some(transfer) => {
                    error.with_pointer(transfer.pointers(&format!("/transfers/{place}")))
                }
                None => error,
            };
            Error::InBatch { place, error: Box::new(error) }
        }
        None => error,
    }
}

fn offset(place: usize) -> i64 {
    i64::try_from(place).expect("a batch is small")
}
