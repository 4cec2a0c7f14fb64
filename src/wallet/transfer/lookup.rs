//! Reads transfers from the ledger.

use sqlx::PgConnection;

use super::{Note, Transfer, wallet_of};
use crate::auth::Caller;
use crate::error::{Error, Result};
use crate::ids::TransferId;
use crate::ledger::money::Minor;
use crate::ledger::read::{self, BookRow};
use crate::ledger::transfer::{Posted, TransferKind};
use crate::wallet::{RequestMeta, Wallets, from_post_error, nothing_posted, refund};

impl Wallets {
    /// Returns a transfer, and how much of it can still be refunded. A caller that may see neither of the two wallets
    /// gets 404.
    pub async fn get_transfer(
        &self,
        caller: &Caller,
        id: TransferId,
    ) -> Result<(Transfer, Option<Minor>)> {
        let mut db = self.db.snapshot("wallet.get_transfer").await?;
        let rows = rows_of(&mut db, id).await?;
        let refunded = refund::refunded(&mut db, id).await?;
        drop(db);
        let transfer = self.transfer_from(&rows).await?;
        for wallet in [transfer.debit, transfer.credit].into_iter().filter_map(wallet_of) {
            if caller.require_read(&*self.record(wallet).await?).is_ok() {
                let left = refund::left_of(&transfer, refunded);
                return Ok((transfer, left));
            }
        }
        Err(Error::NotFound("transfer"))
    }

    /// Returns a transfer, without checking whether the caller may see it.
    pub(in crate::wallet) async fn find_transfer(&self, id: TransferId) -> Result<Transfer> {
        let rows = rows_of(&mut *self.db.acquire("wallet.find_transfer").await?, id).await?;
        self.transfer_from(&rows).await
    }

    /// Returns the transfer that the first request with the same idempotency key made.
    pub(in crate::wallet) async fn replayed_transfer(&self, seq: i64) -> Result<Transfer> {
        Ok(Transfer { replayed: true, ..self.find_transfer(TransferId(seq)).await? })
    }

    /// Returns the transfers of an atomic batch that an earlier request with the same idempotency key has posted.
    pub(super) async fn replayed_batch(&self, posted: &Posted) -> Result<Vec<Transfer>> {
        let mut db = self.db.acquire("wallet.replayed_batch").await?;
        let Posted { first_seq, last_seq, .. } = *posted;
        let rows = read::rows_from(&mut db, first_seq, last_seq - first_seq).await?;
        drop(db);
        let mut transfers = Vec::new();
        for rows in rows.chunk_by(|_, next| next.leg > 0) {
            let transfer = self.transfer_from(rows).await?;
            transfers.push(Transfer { replayed: true, ..transfer });
        }
        Ok(transfers)
    }

    /// Returns the posting of an earlier request with the same idempotency key, if there is one. Returns an error if
    /// that request had different content.
    pub(in crate::wallet) async fn find_replay(
        &self,
        meta: RequestMeta<'_>,
        operation: &str,
        content: &[&str],
    ) -> Result<Option<Posted>> {
        let Some(key) = meta.key.hashed(meta.caller.name(), operation, content) else {
            return Ok(None);
        };
        self.ledger.find(key).await.map_err(|error| from_post_error(&error, None))
    }

    /// Builds a transfer from its rows in the ledger. Returns a 404 error if none of its accounts belongs to a wallet.
    async fn transfer_from(&self, rows: &[BookRow]) -> Result<Transfer> {
        let first = rows.first().and_then(BookRow::transfer_row).zip(rows.first());
        let Some((leg, row)) = first else { return Err(nothing_posted()) };
        let wallet = wallet_of(leg.debit).or_else(|| wallet_of(leg.credit));
        let wallet = wallet.ok_or(Error::NotFound("transfer"))?;
        let fee = TransferKind::Fee.code();
        // Only fees that the payer pays on top of the amount are counted. The seller pays the fee of a purchase.
        let fees =
            rows.iter().filter(|row| row.kind == fee && row.leg > 0 && row.debit == leg.debit.0);
        Ok(Transfer {
            id: TransferId(row.seq),
            kind: leg.kind,
            debit: leg.debit,
            credit: leg.credit,
            currency: self.record(wallet).await?.currency,
            amount: leg.amount,
            fee: Minor(fees.map(|row| row.amount).sum()),
            note: Note::from_stored(row.metadata.as_deref()),
            at: row.at,
            trace_id: row.trace_id,
            linked: row.linked.map(TransferId),
            replayed: false,
        })
    }
}

/// Returns the rows of a transfer, including the row of its fee, if it has a fee.
async fn rows_of(db: &mut PgConnection, id: TransferId) -> Result<Vec<BookRow>> {
    let TransferId(seq) = id;
    let first = read::rows_from(db, seq, 0).await?;
    let Some(first) = first.into_iter().next().filter(|row| row.leg == 0) else {
        read::require_in_book(db, seq).await?;
        return Err(Error::NotFound("transfer"));
    };
    let more = i64::from(first.legs) - 1;
    if more == 0 {
        return Ok(vec![first]);
    }
    let rows = read::rows_from(db, seq, more).await?;
    if i64::try_from(rows.len()) != Ok(more + 1) {
        read::require_in_book(db, seq).await?;
    }
    Ok(rows)
}
