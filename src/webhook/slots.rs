//! Slots, which limit how many deliveries of each owner this process sends at the same time. The process runs up to 256
//! jobs at the same time.
//!
//! | webhook | limit on the slots of its owner | limit on the slots of all owners |
//! |---|---|---|
//! | prompt: its last successful delivery was quick, and no attempt has been slow since | a slot for each queue of the owner ([`lanes`]) | a slot for every job |
//! | not prompt, or not tried yet | [`UNPROVEN_OF_OWNER_MAX`] | [`UNPROVEN_MAX`] |
//!
//! If many slots are taken ([`PRESSURE_MIN`], [`UNPROVEN_PRESSURE_MIN`]), each owner gets only one slot, so that the
//! last free slots go to owners that have none. A job that gets no slot does not wait in its worker, but is enqueued
//! again.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

/// Maximum number of simultaneous deliveries to the webhooks of a user.
const LANES_OF_USER: i64 = 8;

/// Maximum number of simultaneous deliveries to the webhooks of an API key. The same limit applies to all anonymous
/// callers together.
const LANES_OF_OTHERS: i64 = 32;

/// Maximum number of simultaneous deliveries of an owner to webhooks that are not prompt.
const UNPROVEN_OF_OWNER_MAX: usize = 4;

/// Maximum number of simultaneous deliveries of all owners to webhooks that are not prompt.
const UNPROVEN_MAX: usize = 192;

/// Number of simultaneous deliveries to webhooks that are not prompt. Once this number is reached, each owner gets only
/// one slot for these webhooks.
const UNPROVEN_PRESSURE_MIN: usize = 96;

/// Number of simultaneous deliveries of all owners. Once this number is reached, each owner gets only one slot.
const PRESSURE_MIN: usize = 224;

/// Shortest delay until a job that got no slot is retried.
const DEFERRAL_MIN: Duration = Duration::from_secs(1);

/// Pause between the deferred jobs of an owner, so that they are not all retried at the same time.
const DEFERRAL_SPACING: Duration = Duration::from_millis(100);

/// Longest delay until a job that got no slot is retried.
const DEFERRAL_MAX: Duration = Duration::from_mins(1);

/// Number of owners in memory at which those without running or deferred deliveries are removed.
const OWNERS_KEPT: usize = 1_000;

/// Returns the number of queues of an owner. Jobs of the same queue run one after another, even in different processes.
pub(super) fn lanes(owner: &str) -> i64 {
    if owner.starts_with("user:") { LANES_OF_USER } else { LANES_OF_OTHERS }
}

/// The slots of this process. Each delivery occupies a slot while it runs. Cheap to clone.
#[derive(Debug, Clone, Default)]
pub(super) struct Slots(Arc<Mutex<Occupied>>);

#[derive(Debug, Default)]
struct Occupied {
    total: usize,
    unproven: usize,
    owners: HashMap<String, OwnerSlots>,
}

#[derive(Debug, Default)]
struct OwnerSlots {
    total: usize,
    unproven: usize,
    /// Time at which the owner's last deferred job will run again.
    deferred_until: Option<Instant>,
}

/// A slot that a running delivery occupies. Dropping it makes the slot free again.
#[derive(Debug)]
pub(super) struct Slot {
    slots: Slots,
    owner: String,
    is_prompt: bool,
}

impl Slots {
    /// Takes a slot for a delivery of this owner, or returns the delay after which the job should run again.
    pub(super) fn take(&self, owner: &str, is_prompt: bool) -> Result<Slot, Duration> {
        let now = Instant::now();
        let mut occupied = self.lock();
        let Occupied { total, unproven, owners } = &mut *occupied;
        if owners.len() >= OWNERS_KEPT {
            owners.retain(|_, of_owner| !of_owner.is_idle(now));
        }
        let of_owner = owners.entry(owner.to_owned()).or_default();
        let lanes = usize::try_from(lanes(owner)).unwrap_or(1);
        let owner_max = if *total >= PRESSURE_MIN { 1 } else { lanes };
        let unproven_max =
            if *unproven >= UNPROVEN_PRESSURE_MIN { 1 } else { UNPROVEN_OF_OWNER_MAX };
        let is_refused = of_owner.total >= owner_max
            || (!is_prompt && (of_owner.unproven >= unproven_max || *unproven >= UNPROVEN_MAX));
        if is_refused {
            return Err(of_owner.defer(now));
        }
        of_owner.total += 1;
        *total += 1;
        if !is_prompt {
            of_owner.unproven += 1;
            *unproven += 1;
        }
        drop(occupied);
        Ok(Slot { slots: self.clone(), owner: owner.to_owned(), is_prompt })
    }

    fn lock(&self) -> MutexGuard<'_, Occupied> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl OwnerSlots {
    /// Returns the delay until a job that got no slot is retried. The jobs of an owner are not all retried at once.
    fn defer(&mut self, now: Instant) -> Duration {
        let earliest = now + DEFERRAL_MIN;
        let next =
            self.deferred_until.map_or(earliest, |last| earliest.max(last + DEFERRAL_SPACING));
        let next = next.min(now + DEFERRAL_MAX);
        self.deferred_until = Some(next);
        next - now
    }

    fn is_idle(&self, now: Instant) -> bool {
        self.total == 0 && self.deferred_until.is_none_or(|until| until <= now)
    }
}

impl Drop for Slot {
    fn drop(&mut self) {
        let now = Instant::now();
        let mut occupied = self.slots.lock();
        let Occupied { total, unproven, owners } = &mut *occupied;
        *total -= 1;
        *unproven -= usize::from(!self.is_prompt);
        let Some(of_owner) = owners.get_mut(&self.owner) else { return };
        of_owner.total -= 1;
        of_owner.unproven -= usize::from(!self.is_prompt);
        if of_owner.is_idle(now) {
            owners.remove(&self.owner);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn take_all(slots: &Slots, owner: &str, is_prompt: bool) -> Vec<Slot> {
        std::iter::from_fn(|| slots.take(owner, is_prompt).ok()).collect()
    }

    #[test]
    fn an_owner_gets_a_bounded_number_of_slots() {
        let slots = Slots::default();

        let (unproven, prompt) =
            (take_all(&slots, "user:1", false), take_all(&slots, "user:1", true));

        assert_eq!((unproven.len(), prompt.len()), (4, 4));
        assert_eq!(take_all(&slots, "key:1", true).len(), 32);
        drop(unproven);
        assert_eq!(take_all(&slots, "user:1", true).len(), 4, "a slot that is free is given again");
    }

    #[test]
    fn owners_that_hang_leave_slots_to_others() {
        let slots = Slots::default();
        let hanging: Vec<Slot> =
            (0..1_000).flat_map(|n| take_all(&slots, &format!("user:{n}"), false)).collect();

        assert_eq!(hanging.len(), UNPROVEN_MAX);
        let owners: std::collections::BTreeSet<&str> =
            hanging.iter().map(|slot| slot.owner.as_str()).collect();
        assert_eq!(owners.len(), 24 + 96, "under pressure an owner gets one slot");
        assert_eq!(take_all(&slots, "user:2000", true).len(), 8);
    }

    #[test]
    fn under_pressure_an_owner_gets_one_slot() {
        let slots = Slots::default();
        let busy: Vec<Slot> =
            (0..28).flat_map(|n| take_all(&slots, &format!("user:{n}"), true)).collect();

        assert_eq!(busy.len(), PRESSURE_MIN);
        assert_eq!(take_all(&slots, "user:100", true).len(), 1);
        assert!(slots.take("user:1", true).is_err());
    }

    #[test]
    fn deferred_jobs_of_one_owner_come_back_one_after_another() {
        let (mut owner, now) = (OwnerSlots::default(), Instant::now());

        let delays: Vec<u128> = (0..3).map(|_| owner.defer(now).as_millis()).collect();

        assert_eq!(delays, [1_000, 1_100, 1_200]);
        let last = (0..10_000).map(|_| owner.defer(now)).last();
        assert_eq!(last, Some(DEFERRAL_MAX));
    }

    #[test]
    fn owners_without_deliveries_are_forgotten() {
        let slots = Slots::default();
        drop((0..100).map(|n| slots.take(&format!("user:{n}"), true)).collect::<Vec<_>>());

        assert!(slots.lock().owners.is_empty());
    }
}
