//! Memory budget: limits the memory that request and response bodies take, across all connections of a listener.
//!
//! | charged | total | per address |
//! |---|---|---|
//! | large request bodies, and lists built from them | 48 MiB | 12 MiB |
//! | responses that their clients have not read | 32 MiB | 8 MiB |
//!
//! A request that exceeds the budget fails with the problem `overloaded`, and the client can retry it. The limit per
//! address keeps a single client from using up the budget; trusted proxies have only the total limit.

use std::sync::Arc;

use bytes::Bytes;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

use crate::error::{Error, Result};

/// Budget for request bodies, in bytes: enough for five of the largest transfer batches and the values that are built
/// from them.
const REQUEST_BYTES_MAX: usize = 48 * 1024 * 1024;

/// Budget for responses that their clients have not read yet, in bytes.
const RESPONSE_BYTES_MAX: usize = 32 * 1024 * 1024;

/// Number of equal shares into which the budget is divided. Each client address may use one share.
const SHARES: usize = 4;

/// Largest body, in bytes, that is not charged to the budget. The limit on concurrent requests bounds the memory of
/// these small bodies.
pub(super) const UNCHARGED_BYTES: usize = 4 * 1024;

/// Response extension that exempts a response from the memory budget, because its bytes are shared with other
/// responses.
#[derive(Debug, Clone, Copy)]
pub struct SharedBytes;

/// Memory budget of a whole listener, or the part of it that one client address may use.
#[derive(Debug)]
pub struct MemoryBudget {
    requests: Arc<Semaphore>,
    responses: Arc<Semaphore>,
}

impl MemoryBudget {
    /// Creates the budget of a whole listener.
    pub fn whole() -> Self {
        Self::of_parts(1)
    }

    /// Creates the part of the budget that one address may use.
    pub fn share() -> Self {
        Self::of_parts(SHARES)
    }

    fn of_parts(parts: usize) -> Self {
        Self {
            requests: Arc::new(Semaphore::new(REQUEST_BYTES_MAX / parts)),
            responses: Arc::new(Semaphore::new(RESPONSE_BYTES_MAX / parts)),
        }
    }
}

/// The budgets from which a request takes its memory.
#[derive(Debug, Clone, Copy)]
pub struct MemoryAccount<'a> {
    pub(super) whole: &'a MemoryBudget,
    /// Budget of the client's address; `None` for a trusted proxy, and for requests in tests, which have no connection.
    pub(super) share: Option<&'a MemoryBudget>,
}

impl MemoryAccount<'_> {
    /// Reserves memory for a request body, or for values built from it. Dropping the returned [`MemoryCharge`] ends the
    /// reservation.
    pub fn charge_request(&self, bytes: usize) -> Result<MemoryCharge> {
        self.charge(bytes, |budget| &budget.requests)
    }

    /// Takes memory for a response body until the returned charge is dropped.
    pub(super) fn charge_response(&self, bytes: usize) -> Result<MemoryCharge> {
        self.charge(bytes, |budget| &budget.responses)
    }

    fn charge(
        &self,
        bytes: usize,
        pick: impl Fn(&MemoryBudget) -> &Arc<Semaphore>,
    ) -> Result<MemoryCharge> {
        let permits = u32::try_from(bytes).map_err(|_| Error::Overloaded)?;
        let take = |budget: &MemoryBudget| {
            Arc::clone(pick(budget)).try_acquire_many_owned(permits).map_err(|_| Error::Overloaded)
        };
        let share = self.share.map(take).transpose()?;
        Ok(MemoryCharge { whole: Some(take(self.whole)?), share })
    }
}

/// Memory that was taken from a budget. Dropping the charge returns the memory to the budget.
#[derive(Debug, Default)]
pub struct MemoryCharge {
    whole: Option<OwnedSemaphorePermit>,
    share: Option<OwnedSemaphorePermit>,
}

impl MemoryCharge {
    /// Merges another charge of the same [`MemoryAccount`] and of the same kind (request or response) into this charge.
    pub(super) fn merge(&mut self, other: Self) {
        for (mine, more) in [(&mut self.whole, other.whole), (&mut self.share, other.share)] {
            match (mine.as_mut(), more) {
                (Some(mine), Some(more)) => mine.merge(more),
                (None, more) => *mine = more,
                (Some(_), None) => {}
            }
        }
    }

    /// Ties the charge to the bytes, so that the memory is returned when the last reference to the bytes is dropped.
    pub(super) fn hold(self, bytes: Bytes) -> Bytes {
        Bytes::from_owner(Charged { bytes, _charge: self })
    }
}

struct Charged {
    bytes: Bytes,
    _charge: MemoryCharge,
}

impl AsRef<[u8]> for Charged {
    fn as_ref(&self) -> &[u8] {
        &self.bytes
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MIB: usize = 1024 * 1024;

    #[test]
    fn one_address_cannot_exhaust_the_budget() {
        let whole = MemoryBudget::whole();
        let [one, other] = [MemoryBudget::share(), MemoryBudget::share()];
        let [one, other] =
            [&one, &other].map(|share| MemoryAccount { whole: &whole, share: Some(share) });

        let held = one.charge_request(12 * MIB).unwrap();

        assert!(matches!(one.charge_request(1), Err(Error::Overloaded)));
        assert!(other.charge_request(12 * MIB).is_ok());
        drop(held);
        assert!(one.charge_request(12 * MIB).is_ok());
    }

    #[test]
    fn a_failed_charge_takes_nothing() {
        let (whole, share) = (MemoryBudget::whole(), MemoryBudget::share());
        let account = MemoryAccount { whole: &whole, share: Some(&share) };

        for _ in 0..100 {
            assert!(account.charge_response(9 * MIB).is_err());
        }

        assert!(account.charge_response(8 * MIB).is_ok());
    }

    #[test]
    fn bytes_are_charged_until_the_last_part_of_them_is_dropped() {
        let whole = MemoryBudget::whole();
        let account = MemoryAccount { whole: &whole, share: None };
        let charge = account.charge_response(RESPONSE_BYTES_MAX).unwrap();
        let mut bytes = charge.hold(Bytes::from_static(b"a response"));

        let part = bytes.split_to(2);
        drop(bytes);
        assert!(account.charge_response(1).is_err());

        drop(part);
        assert!(account.charge_response(1).is_ok());
    }
}
