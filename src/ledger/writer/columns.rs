//! A batch as the arrays that `ledger.post` takes.

use tokio_postgres::types::ToSql;
use uuid::Uuid;

use super::batch::Batch;

/// One array for each column.
#[derive(Debug, Default)]
pub(super) struct Columns {
    book: i32,
    prev_seq: i64,
    prev_batch: Uuid,
    batch: Uuid,
    content: Vec<u8>,
    strict: bool,
    notify: bool,
    debit: Vec<i64>,
    credit: Vec<i64>,
    amount: Vec<i64>,
    debit_balance: Vec<i64>,
    credit_balance: Vec<i64>,
    kind: Vec<i16>,
    leg: Vec<i16>,
    legs: Vec<i16>,
    trace: Vec<Option<Uuid>>,
    linked: Vec<Option<i64>>,
    metadata: Vec<Option<String>>,
    key: Vec<Uuid>,
    key_content: Vec<Uuid>,
    key_first: Vec<i64>,
    key_last: Vec<i64>,
    account: Vec<i64>,
    account_currency: Vec<String>,
    account_decimals: Vec<i16>,
    account_seq: Vec<i64>,
}

impl Columns {
    /// `strict` makes a stale head an error, for a batch that is part of a larger transaction.
    /// `notify` wakes who follows the book.
    pub(super) fn new(book: i32, batch: &Batch, strict: bool, notify: bool) -> Self {
        let rows = &batch.rows;
        let mut columns = Self {
            book,
            prev_seq: batch.prev.seq,
            prev_batch: batch.prev.batch,
            batch: batch.id,
            content: batch.content.to_vec(),
            strict,
            notify,
            debit: rows.iter().map(|row| row.debit.0).collect(),
            credit: rows.iter().map(|row| row.credit.0).collect(),
            amount: rows.iter().map(|row| row.amount.0).collect(),
            debit_balance: rows.iter().map(|row| row.debit_balance.0).collect(),
            credit_balance: rows.iter().map(|row| row.credit_balance.0).collect(),
            kind: rows.iter().map(|row| row.kind.code()).collect(),
            leg: rows.iter().map(|row| row.leg).collect(),
            legs: rows.iter().map(|row| row.legs).collect(),
            trace: Vec::with_capacity(rows.len()),
            ..Self::default()
        };
        for accepted in &batch.accepted {
            columns.attach(batch, accepted.start, &accepted.item.posting);
            if let Some(key) = accepted.item.posting.key {
                columns.key.push(key.hash);
                columns.key_content.push(key.content);
                columns.key_first.push(batch.seq_of(accepted.start));
                columns.key_last.push(batch.seq_of(accepted.end) - 1);
            }
        }
        for born in &batch.born {
            columns.account.push(born.account.0);
            columns.account_currency.push(born.currency.code().to_owned());
            columns.account_decimals.push(i16::from(born.currency.decimals()));
            columns.account_seq.push(born.seq);
        }
        columns
    }

    /// What the legs of a posting have beyond their rows. The two rare columns end with their last value.
    fn attach(&mut self, batch: &Batch, start: usize, posting: &crate::ledger::transfer::Posting) {
        for (leg, place) in posting.legs.iter().zip(start..) {
            debug_assert_eq!(place, self.trace.len(), "rows of {} are in order", batch.id);
            self.trace.push(posting.trace_id);
            if leg.linked.is_some() {
                self.linked.resize(place, None);
                self.linked.push(leg.linked);
            }
            if let Some(metadata) = &leg.metadata {
                self.metadata.resize(place, None);
                self.metadata.push(Some(metadata.get().to_owned()));
            }
        }
    }

    /// In the order of the function's parameters.
    pub(super) fn params(&self) -> [&(dyn ToSql + Sync); 26] {
        [
            &self.book,
            &self.prev_seq,
            &self.prev_batch,
            &self.batch,
            &self.content,
            &self.strict,
            &self.notify,
            &self.debit,
            &self.credit,
            &self.amount,
            &self.debit_balance,
            &self.credit_balance,
            &self.kind,
            &self.leg,
            &self.legs,
            &self.trace,
            &self.linked,
            &self.metadata,
            &self.key,
            &self.key_content,
            &self.key_first,
            &self.key_last,
            &self.account,
            &self.account_currency,
            &self.account_decimals,
            &self.account_seq,
        ]
    }
}
