//! The accounts that the writer has in memory: a guess that every seal confirms, never an authority.
//!
//! Bounded by two generations: who is used moves to the young one; when that is half of the bound, the old one is
//! forgotten. Accounts of a batch in flight are pinned: one that was forgotten and read again behind its own
//! pending batch would come back with an old balance under a valid seal.

use foldhash::HashMap;

use crate::ledger::account::{Account, AccountId};

/// What is known of an account.
#[derive(Debug, Clone, Copy)]
struct Slot {
    /// `None`: it is known that there is no such account.
    account: Option<Account>,
    /// How many changes in flight rest on it.
    pins: u32,
}

/// An account before a change, to take the change back.
#[derive(Debug, Clone, Copy)]
pub(super) struct Undo {
    id: AccountId,
    before: Option<Account>,
}

#[derive(Debug)]
pub(super) struct Cache {
    young: HashMap<AccountId, Slot>,
    old: HashMap<AccountId, Slot>,
    generation_max: usize,
}

impl Cache {
    pub(super) fn new(accounts_max: usize) -> Self {
        Self {
            young: HashMap::default(),
            old: HashMap::default(),
            generation_max: (accounts_max / 2).max(1),
        }
    }

    /// Whether anything is known about it; if so it stays for at least a generation.
    pub(super) fn touch(&mut self, id: AccountId) -> bool {
        if self.young.contains_key(&id) {
            return true;
        }
        match self.old.remove(&id) {
            Some(slot) => {
                self.young.insert(id, slot);
                true
            }
            None => false,
        }
    }

    /// The account as it is after everything in flight. Only after [`Self::touch`] said that it is known.
    pub(super) fn get(&self, id: AccountId) -> Option<Account> {
        self.young.get(&id).and_then(|slot| slot.account)
    }

    /// Changes an account that is known, and pins it until the change is confirmed or taken back.
    pub(super) fn apply(&mut self, id: AccountId, after: Account) -> Undo {
        let slot = self.young.get_mut(&id).expect("only what was touched is changed");
        slot.pins += 1;
        Undo { id, before: slot.account.replace(after) }
    }

    /// The change is in the book.
    pub(super) fn confirm(&mut self, undo: Undo) {
        let slot = self.find_mut(undo.id).expect("what is pinned stays");
        slot.pins -= 1;
    }

    /// The change did not happen. The youngest change must be taken back first.
    pub(super) fn take_back(&mut self, undo: Undo) {
        let slot = self.find_mut(undo.id).expect("what is pinned stays");
        slot.pins -= 1;
        slot.account = undo.before;
    }

    /// What was read from the database, unless something is known already: that is newer.
    pub(super) fn warm(&mut self, id: AccountId, account: Option<Account>) {
        if !self.touch(id) {
            self.young.insert(id, Slot { account, pins: 0 });
        }
    }

    /// What another process did to an account, if we know it.
    pub(super) fn patch(&mut self, id: AccountId, change: impl FnOnce(&mut Account)) {
        let Some(slot) = self.find_mut(id) else { return };
        match &mut slot.account {
            Some(account) => change(account),
            // It has come to be: what else there is to know must be read.
            None => self.forget(id),
        }
    }

    /// Drops everything. Nothing may be in flight.
    pub(super) fn clear(&mut self) {
        self.young.clear();
        self.old.clear();
    }

    /// Forgets the old generation when the young one is full. Not between touching and deciding.
    pub(super) fn age(&mut self) {
        if self.young.len() < self.generation_max {
            return;
        }
        let forgotten = std::mem::replace(&mut self.old, std::mem::take(&mut self.young));
        self.young.extend(forgotten.into_iter().filter(|(_, slot)| slot.pins > 0));
    }

    #[cfg(test)]
    fn len(&self) -> usize {
        self.young.len() + self.old.len()
    }

    fn find_mut(&mut self, id: AccountId) -> Option<&mut Slot> {
        self.young.get_mut(&id).or_else(|| self.old.get_mut(&id))
    }

    fn forget(&mut self, id: AccountId) {
        self.young.remove(&id);
        self.old.remove(&id);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ledger::currency::Currency;
    use crate::ledger::money::Minor;

    fn account(balance: i64) -> Account {
        Account { balance: Minor(balance), ..Account::empty(Currency::new("EUR", 2).unwrap()) }
    }

    #[test]
    fn a_pinned_account_outlives_any_number_of_others() {
        let mut cache = Cache::new(8);
        cache.warm(AccountId(1), Some(account(10)));
        let undo = cache.apply(AccountId(1), account(3));

        for id in 2..1000 {
            cache.warm(AccountId(id), None);
            cache.age();
        }

        assert!(cache.len() <= 9);
        assert!(cache.touch(AccountId(1)));
        assert_eq!(cache.get(AccountId(1)), Some(account(3)));
        cache.take_back(undo);
        assert_eq!(cache.get(AccountId(1)), Some(account(10)));
    }

    #[test]
    fn changes_are_taken_back_from_the_youngest() {
        let mut cache = Cache::new(8);
        cache.warm(AccountId(1), None);
        let first = cache.apply(AccountId(1), account(1));
        let second = cache.apply(AccountId(1), account(2));

        cache.take_back(second);
        assert_eq!(cache.get(AccountId(1)), Some(account(1)));
        cache.take_back(first);
        assert_eq!(cache.get(AccountId(1)), None);
        assert!(cache.touch(AccountId(1)));
    }

    #[test]
    fn what_is_known_is_not_overwritten_by_what_is_read() {
        let mut cache = Cache::new(8);
        cache.warm(AccountId(1), Some(account(1)));
        let undo = cache.apply(AccountId(1), account(2));

        cache.warm(AccountId(1), Some(account(1)));

        assert_eq!(cache.get(AccountId(1)), Some(account(2)));
        cache.confirm(undo);
    }
}
