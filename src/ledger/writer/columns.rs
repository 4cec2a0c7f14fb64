//! Converts a batch to the parameters of the SQL function `ledger.post`, which takes an array for each column.

use tokio_postgres::types::ToSql;
use uuid::Uuid;

use super::batch::{Batch, OpenedAccount};
use super::cross_book::BookPart;
use crate::idempotency_key::HashedKey;
use crate::ledger::transfer::Posting;

/// Parameters of the SQL function `ledger.post`, with an array for each column.
#[derive(Debug, Default)]
pub(super) struct PostColumns {
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
    home: Vec<Option<i64>>,
}

/// Options of the SQL function `ledger.post`.
#[derive(Debug, Clone, Copy)]
pub(super) struct PostOptions {
    /// Whether to raise an error if another batch already follows the batch's predecessor. The error rolls back
    /// everything that the transaction writes, not only this batch.
    pub(super) strict: bool,
    /// Whether to notify the tasks that are waiting for new transfers.
    pub(super) notify: bool,
}

impl PostColumns {
    pub(super) fn new(book: i32, batch: &Batch, options: PostOptions) -> Self {
        let PostOptions { strict, notify } = options;
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
        let mut keys = Vec::new();
        for accepted in &batch.accepted {
            columns.add_attributes(batch, accepted.start, &accepted.item.posting);
            if let Some(key) = accepted.item.posting.key {
                keys.push((key, batch.seq_of(accepted.start), batch.seq_of(accepted.end) - 1));
            }
        }
        columns.add_keys(keys);
        columns.add_accounts(&batch.opened);
        columns
    }

    /// Creates the columns for the batch of one book. The batch belongs to a transaction that writes to several books
    /// and fails as a whole.
    pub(super) fn from_part(part: &BookPart) -> Self {
        let rows = &part.rows;
        let mut columns = Self {
            book: part.book,
            prev_seq: part.prev.seq,
            prev_batch: part.prev.batch,
            batch: part.id,
            content: part.content.to_vec(),
            strict: true,
            notify: true,
            debit: rows.iter().map(|part| part.row.debit.0).collect(),
            credit: rows.iter().map(|part| part.row.credit.0).collect(),
            amount: rows.iter().map(|part| part.row.amount.0).collect(),
            debit_balance: rows.iter().map(|part| part.row.debit_balance.0).collect(),
            credit_balance: rows.iter().map(|part| part.row.credit_balance.0).collect(),
            kind: rows.iter().map(|part| part.row.kind.code()).collect(),
            leg: rows.iter().map(|part| part.row.leg).collect(),
            legs: rows.iter().map(|part| part.row.legs).collect(),
            trace: rows.iter().map(|part| part.trace_id).collect(),
            linked: rows.iter().map(|part| part.linked).collect(),
            metadata: rows.iter().map(|part| part.metadata.clone()).collect(),
            home: rows.iter().map(|part| part.home).collect(),
            ..Self::default()
        };
        columns.add_keys(part.keys.clone());
        columns.add_accounts(&part.opened);
        columns
    }

    /// Adds the idempotency keys in ascending order of their hashes, so that batches of different books that insert the
    /// same keys cannot deadlock.
    fn add_keys(&mut self, mut keys: Vec<(HashedKey, i64, i64)>) {
        keys.sort_unstable_by_key(|(key, ..)| key.hash);
        for (key, first, last) in keys {
            self.key.push(key.hash);
            self.key_content.push(key.content);
            self.key_first.push(first);
            self.key_last.push(last);
        }
    }

    fn add_accounts(&mut self, opened: &[OpenedAccount]) {
        for opened in opened {
            self.account.push(opened.account.0);
            self.account_currency.push(opened.currency.code().to_owned());
            self.account_decimals.push(i16::from(opened.currency.decimals()));
            self.account_seq.push(opened.seq);
        }
    }

    /// Adds the attributes of a posting's legs. The arrays of the sparse columns `linked` and `metadata` end at the
    /// last leg that has a value.
    fn add_attributes(&mut self, batch: &Batch, start: usize, posting: &Posting) {
        for (leg, index) in posting.legs.iter().zip(start..) {
            debug_assert_eq!(index, self.trace.len(), "rows of {} must be in order", batch.id);
            self.trace.push(posting.trace_id);
            if leg.linked.is_some() {
                self.linked.resize(index, None);
                self.linked.push(leg.linked);
            }
            if let Some(metadata) = &leg.metadata {
                self.metadata.resize(index, None);
                self.metadata.push(Some(metadata.get().to_owned()));
            }
        }
    }

    /// Returns the parameters in the order that `ledger.post` expects.
    pub(super) fn params(&self) -> [&(dyn ToSql + Sync); 27] {
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
            &self.home,
        ]
    }
}
