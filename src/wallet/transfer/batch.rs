//! Many transfers in one request: all or none, or each by itself.

use futures_util::{StreamExt, stream};

use super::{Order, Transfer};
use crate::error::{Error, Result};
use crate::ledger::read;
use crate::ledger::transfer::{Kind, Leg, Posted, Posting};
use crate::ledger::{PostError, Refusal};
use crate::wallet::refused::refused;
use crate::wallet::{Asked, BOOK, Wallets};

/// Most transfers of one request. With a fee each they still fit one posting.
pub const TRANSFERS_MAX: usize = 10_000;

/// Most transfers of one request that wait to be written at once: others want to get a word in.
const WAITING_MAX: usize = 2_048;

/// Why not even one was done, and which one it was.
#[derive(Debug)]
pub struct Refused {
    pub place: Option<usize>,
    pub error: Error,
}

impl Wallets {
    /// All of these transfers in one posting.
    pub async fn transfer_all(
        &self,
        orders: Vec<Order>,
        asked: Asked<'_>,
    ) -> Result<Vec<Transfer>, Refused> {
        let whole = |error| Refused { place: None, error };
        let content: Vec<String> = orders.iter().flat_map(Order::content).collect();
        let content: Vec<&str> = content.iter().map(String::as_str).collect();
        let legs: Result<Vec<Vec<Leg>>> = orders.iter().map(Order::legs).collect();
        let legs = legs.map_err(whole)?;
        let starts: Vec<usize> = legs
            .iter()
            .scan(0, |next, legs| Some(std::mem::replace(next, *next + legs.len())))
            .collect();
        let posting = asked.posting("batch", &content, legs.concat());
        let posted = self.ledger.post(posting).await.map_err(|error| {
            let place = match &error {
                PostError::Refused(Refusal::InLeg { leg, .. }) => {
                    Some(starts.partition_point(|start| start <= leg) - 1)
                }
                _ => None,
            };
            let currency = place.or(Some(0)).and_then(|place| orders.get(place));
            Refused { place, error: refused(&error, currency.map(|order| order.currency)) }
        })?;
        if posted.replayed {
            return self.replayed_batch(&posted).await.map_err(whole);
        }
        for order in &orders {
            self.count_moved(order.currency, Kind::Transfer, order.amount);
            self.count_moved(order.currency, Kind::Fee, order.fee.unwrap_or_default());
        }
        let seqs = starts.iter().map(|start| posted.first_seq + seq_offset(*start));
        let transfers = orders.into_iter().zip(seqs);
        Ok(transfers.map(|(order, id)| order.posted(id, posted.at, asked.trace)).collect())
    }

    /// Each of these transfers by itself, in their order as far as they meet.
    pub async fn transfer_each(
        &self,
        orders: Vec<Result<Order>>,
        asked: Asked<'_>,
    ) -> Vec<Result<Transfer>> {
        let transfers = orders.into_iter().enumerate().map(|(place, order)| async move {
            let order = order?;
            let content = order.content();
            // Each has a key of its own, so a repeated request does only what is missing.
            let posting: Posting = asked.posting(
                &format!("batch.{place}"),
                &content.each_ref().map(String::as_str),
                order.legs()?,
            );
            let posted = self.ledger.post(posting).await;
            let posted = posted.map_err(|error| refused(&error, Some(order.currency)))?;
            self.posted_transfer(order, &posted, asked.trace).await
        });
        stream::iter(transfers).buffered(WAITING_MAX).collect().await
    }

    async fn replayed_batch(&self, posted: &Posted) -> Result<Vec<Transfer>> {
        let mut db = self.db.acquire("wallet.replayed_batch").await?;
        let (after, last) = (posted.first_seq - 1, posted.last_seq);
        let lines = read::lines(&mut db, BOOK, after, last, i64::MAX).await?;
        drop(db);
        let mut transfers = Vec::new();
        for lines in lines.chunk_by(|_, next| next.leg > 0) {
            let transfer = self.transfer_of(lines, None).await?;
            transfers.push(Transfer { replayed: true, ..transfer });
        }
        Ok(transfers)
    }
}

fn seq_offset(place: usize) -> i64 {
    i64::try_from(place).expect("a batch is small")
}
