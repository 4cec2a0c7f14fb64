//! Canonical encoding of a batch as bytes. Each batch ends with a seal, a row with a hash that covers the digest of
//! this encoding.
//!
//! The encoding starts with a version byte, the number of the book, and the last seq (sequence number) before the
//! batch. Then come self-delimiting records, whose first byte identifies their type: the transfers, ordered by seq (a
//! copy is followed by the seq of its original); the postings that have an idempotency key, ordered by first seq; and
//! the new accounts, ordered by seq and id. Numbers are big-endian. Each stored batch is verified with the version that
//! wrote it, so a change to the encoding needs a new version, and the old version must stay supported.

use sha2::{Digest, Sha256};
use uuid::Uuid;

use super::account::AccountId;
use super::transfer::TransferRow;
use crate::idempotency_key::HashedKey;

const VERSION: u8 = 1;

/// Number of bytes that the buffer collects before it is hashed.
const FLUSH_LEN: usize = 4096;

/// Computes the digest of a batch, record by record.
#[derive(Debug)]
pub(super) struct BatchEncoder {
    hasher: Sha256,
    /// Buffer that collects small records, because many small hash updates would cost more than the hashing itself.
    buffer: Vec<u8>,
}

/// Columns of a transfer that are not part of its [`TransferRow`].
#[derive(Debug, Clone, Copy)]
pub(super) struct TransferAttributes<'a> {
    pub(super) trace_id: Option<Uuid>,
    pub(super) linked: Option<i64>,
    pub(super) metadata: Option<&'a str>,
    /// Seq of the original leg, if this transfer is a copy of a leg that was posted in another book.
    pub(super) home: Option<i64>,
}

impl BatchEncoder {
    /// Starts the encoding of a batch. `prev_seq` is the last seq before the batch.
    pub(super) fn new(book: i32, prev_seq: i64) -> Self {
        let mut encoder = Self { hasher: Sha256::new(), buffer: Vec::with_capacity(2 * FLUSH_LEN) };
        encoder.buffer.push(VERSION);
        encoder.buffer.extend(book.to_be_bytes());
        encoder.buffer.extend(prev_seq.to_be_bytes());
        encoder
    }

    /// Adds the next transfer. Its seq follows from its position and is not encoded.
    pub(super) fn add_transfer(&mut self, row: &TransferRow, attributes: TransferAttributes<'_>) {
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
        // No transfer has the seq 0, so 0 encodes an absent link.
        buffer.extend(attributes.linked.unwrap_or(0).to_be_bytes());
        buffer.push(u8::from(attributes.trace_id.is_some()));
        buffer.extend(attributes.trace_id.unwrap_or_default().as_bytes());
        match attributes.metadata {
            Some(metadata) => {
                buffer.push(1);
                buffer.extend((metadata.len() as u64).to_be_bytes());
                buffer.extend(metadata.as_bytes());
            }
            None => buffer.push(0),
        }
        if let Some(home) = attributes.home {
            buffer.push(b'H');
            buffer.extend(home.to_be_bytes());
        }
        self.flush_if(FLUSH_LEN);
    }

    /// Adds a posting that has an idempotency key.
    pub(super) fn add_posting(&mut self, key: HashedKey, first_seq: i64, last_seq: i64) {
        self.buffer.push(b'P');
        self.buffer.extend(first_seq.to_be_bytes());
        self.buffer.extend(last_seq.to_be_bytes());
        self.buffer.extend(key.hash.as_bytes());
        self.buffer.extend(key.content.as_bytes());
        self.flush_if(FLUSH_LEN);
    }

    /// Adds an account that the transfer at `seq` created.
    pub(super) fn add_account(
        &mut self,
        account: AccountId,
        seq: i64,
        decimals: u8,
        currency: &str,
    ) {
        self.buffer.push(b'A');
        self.buffer.extend(account.0.to_be_bytes());
        self.buffer.extend(seq.to_be_bytes());
        self.buffer.push(decimals);
        self.buffer.extend((currency.len() as u64).to_be_bytes());
        self.buffer.extend(currency.as_bytes());
        self.flush_if(FLUSH_LEN);
    }

    /// Returns the digest of the whole batch.
    pub(super) fn finish(mut self) -> [u8; 32] {
        self.flush_if(0);
        self.hasher.finalize().into()
    }

    /// Hashes and empties the buffer if it has at least `len_min` bytes.
    fn flush_if(&mut self, len_min: usize) {
        if self.buffer.len() >= len_min {
            self.hasher.update(&self.buffer);
            self.buffer.clear();
        }
    }
}
