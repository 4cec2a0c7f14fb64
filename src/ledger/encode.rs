//! The canonical form of a batch, whose digest the seal's hash covers.
//!
//! A byte for the version, then one record each, told apart by their first byte and each of them self-delimiting:
//! the transfers by seq, the postings that have a key by first seq, the new accounts by (seq, account).
//! Numbers are big-endian. A stored book is only ever verified with the version it was written with:
//! a change here is a new version beside this one.

use sha2::{Digest, Sha256};
use uuid::Uuid;

use super::account::AccountId;
use super::transfer::TransferRow;
use crate::idempotency::HashedKey;

const VERSION: u8 = 1;

/// Digests a batch record by record.
#[derive(Debug)]
pub(super) struct Encoder {
    hasher: Sha256,
    /// Small records are gathered, because feeding the hasher piece by piece costs more than hashing.
    buffer: Vec<u8>,
}

/// What a transfer has beyond its [`TransferRow`].
#[derive(Debug, Clone, Copy)]
pub(super) struct Attached<'a> {
    pub(super) trace_id: Option<Uuid>,
    pub(super) linked: Option<i64>,
    pub(super) metadata: Option<&'a str>,
}

impl Encoder {
    /// A batch of this book, behind this seq.
    pub(super) fn new(book: i32, prev_seq: i64) -> Self {
        let mut encoder = Self { hasher: Sha256::new(), buffer: Vec::with_capacity(8192) };
        encoder.buffer.push(VERSION);
        encoder.buffer.extend(book.to_be_bytes());
        encoder.buffer.extend(prev_seq.to_be_bytes());
        encoder
    }

    /// The next transfer. Its seq is its place.
    pub(super) fn transfer(&mut self, row: &TransferRow, attached: Attached<'_>) {
        let buffer = &mut self.buffer;
        buffer.push(b'T');
        for small in [row.kind.code(), row.leg, row.legs] {
            buffer.extend(small.to_be_bytes());
        }
        for large in
            [row.debit.0, row.credit.0, row.amount.0, row.debit_balance.0, row.credit_balance.0]
        {
            buffer.extend(large.to_be_bytes());
        }
        // No transfer has the seq 0, so it can stand for none.
        buffer.extend(attached.linked.unwrap_or(0).to_be_bytes());
        buffer.push(u8::from(attached.trace_id.is_some()));
        buffer.extend(attached.trace_id.unwrap_or_default().as_bytes());
        match attached.metadata {
            Some(metadata) => {
                buffer.push(1);
                buffer.extend((metadata.len() as u64).to_be_bytes());
                buffer.extend(metadata.as_bytes());
            }
            None => buffer.push(0),
        }
        self.drain_at(4096);
    }

    /// A posting that came with a key.
    pub(super) fn posting(&mut self, key: HashedKey, first_seq: i64, last_seq: i64) {
        self.buffer.push(b'P');
        self.buffer.extend(first_seq.to_be_bytes());
        self.buffer.extend(last_seq.to_be_bytes());
        self.buffer.extend(key.hash.as_bytes());
        self.buffer.extend(key.content.as_bytes());
        self.drain_at(4096);
    }

    /// An account that came to be with the transfer at `seq`.
    pub(super) fn account(&mut self, account: AccountId, seq: i64, decimals: u8, currency: &str) {
        self.buffer.push(b'A');
        self.buffer.extend(account.0.to_be_bytes());
        self.buffer.extend(seq.to_be_bytes());
        self.buffer.push(decimals);
        self.buffer.extend((currency.len() as u64).to_be_bytes());
        self.buffer.extend(currency.as_bytes());
        self.drain_at(4096);
    }

    /// The digest of all of it.
    pub(super) fn finish(mut self) -> [u8; 32] {
        self.drain_at(0);
        self.hasher.finalize().into()
    }

    fn drain_at(&mut self, len: usize) {
        if self.buffer.len() >= len {
            self.hasher.update(&self.buffer);
            self.buffer.clear();
        }
    }
}
