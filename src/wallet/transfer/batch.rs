//! Many transfers in one request: all or none, or each by itself.

use futures_util::{StreamExt, stream};

use super::{ResolvedTransfer, Transfer, TransferRequest};
use crate::error::{Error, Result};
use crate::ledger::transfer::{Leg, TransferKind};
use crate::ledger::{PostError, Refusal};
use crate::wallet::{RequestMeta, Wallets, from_post_error};

/// Most transfers of one request. With a fee each they still fit one posting.
pub const TRANSFERS_MAX: usize = 10_000;

/// Most transfers of one request that wait for the writer at once, so that other requests get their turn.
const WAITING_MAX: usize = 2_048;

impl Wallets {
    /// Posts all of these transfers together, or none of them.
    pub async fn transfer_all(
        &self,
        requests: Vec<Result<TransferRequest<'_>>>,
        meta: RequestMeta<'_>,
    ) -> Result<Vec<Transfer>> {
        let transfers = all_valid(self.resolve_all(requests, meta).await?)?;
        let content: Vec<String> = transfers.iter().flat_map(ResolvedTransfer::content).collect();
        let content: Vec<&str> = content.iter().map(String::as_str).collect();
        let legs: Vec<Vec<Leg>> =
            transfers.iter().map(ResolvedTransfer::legs).collect::<Result<_>>()?;
        let starts: Vec<usize> = legs
            .iter()
            .scan(0, |next, legs| Some(std::mem::replace(next, *next + legs.len())))
            .collect();
        let posting = meta.posting("batch", &content, legs.concat());
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

    /// Posts each of these transfers by itself, in their order where they share a wallet.
    pub async fn transfer_each(
        &self,
        requests: Vec<Result<TransferRequest<'_>>>,
        meta: RequestMeta<'_>,
    ) -> Result<Vec<Result<Transfer>>> {
        let transfers = self.resolve_all(requests, meta).await?;
        // Each has a key of its own, so a repeated request posts only the missing ones.
        let posts = transfers.into_iter().enumerate().map(|(place, transfer)| async move {
            self.post_transfer(&format!("batch.{place}"), transfer?, meta).await
        });
        Ok(stream::iter(posts).buffered(WAITING_MAX).collect().await)
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

/// All transfers, or every field error of all of them.
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

/// The error of the whole batch, which names the transfer that was refused.
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
        Some(place) => Error::InBatch { place, error: Box::new(error) },
        None => error,
    }
}

fn offset(place: usize) -> i64 {
    i64::try_from(place).expect("a batch is small")
}
