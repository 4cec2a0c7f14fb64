//! Cache of the accounts that the writer works with. Its values include the effects of batches in flight (sent and not
//! yet confirmed), so the values are predictions until these batches are committed.
//!
//! Two generations bound the size: an account in use moves to the young generation; when the young generation reaches
//! half of the maximum size, it replaces the old generation, which is evicted. Accounts of a batch in flight are
//! pinned: if such an account were evicted and read again while its batch is pending, a later batch could be committed
//! with an outdated balance.

use foldhash::HashMap;

use crate::ledger::account::{Account, AccountId};

/// A cache entry.
#[derive(Debug, Clone, Copy)]
struct CacheEntry {
    /// `None` means that the account does not exist.
    account: Option<Account>,
    /// Number of changes by batches in flight. While it is above 0, the account is not evicted.
    pins: u32,
}

/// State of an account before a change, kept to roll the change back.
#[derive(Debug, Clone, Copy)]
pub(super) struct AccountUndo {
    id: AccountId,
    before: Option<Account>,
}

#[derive(Debug)]
pub(super) struct AccountCache {
    young: HashMap<AccountId, CacheEntry>,
    old: HashMap<AccountId, CacheEntry>,
    generation_max: usize,
}

impl AccountCache {
    pub(super) fn new(accounts_max: usize) -> Self {
        Self {
            young: HashMap::default(),
            old: HashMap::default(),
            generation_max: (accounts_max / 2).max(1),
        }
    }

    /// Returns whether the account is cached. If it is, moves it to the young generation, which delays its eviction.
    pub(super) fn touch(&mut self, id: AccountId) -> bool {
        if self.young.contains_key(&id) {
            return true;
        }
        match self.old.remove(&id) {
            Some(entry) => {
                self.young.insert(id, entry);
                true
            }
            None => false,
        }
    }

    /// The account after all changes in flight. Call [`Self::touch`] first, because `None` can also mean that the
    /// account is not cached.
    pub(super) fn get(&self, id: AccountId) -> Option<Account> {
        self.young.get(&id).and_then(|entry| entry.account)
    }

    /// Changes a cached account, and pins it until the change is confirmed or rolled back.
    pub(super) fn apply(&mut self, id: AccountId, after: Account) -> AccountUndo {
        let entry = self.young.get_mut(&id).expect("only touched accounts are changed");
        entry.pins += 1;
        AccountUndo { id, before: entry.account.replace(after) }
    }

    /// Confirms a change whose batch was committed, and removes its pin from the account.
    pub(super) fn confirm(&mut self, undo: AccountUndo) {
        let entry = self.find_mut(undo.id).expect("a pinned account is not evicted");
        entry.pins -= 1;
    }

    /// Rolls back a change whose batch was not committed. The latest change must be rolled back first.
    pub(super) fn roll_back(&mut self, undo: AccountUndo) {
        let entry = self.find_mut(undo.id).expect("a pinned account is not evicted");
        entry.pins -= 1;
        entry.account = undo.before;
    }

    /// Inserts an account that was read from the database. If the account is already cached, keeps the cached value,
    /// which is newer.
    pub(super) fn warm(&mut self, id: AccountId, account: Option<Account>) {
        if !self.touch(id) {
            self.young.insert(id, CacheEntry { account, pins: 0 });
        }
    }

    /// Applies a change of another process, if the account is cached.
    pub(super) fn update_if_cached(&mut self, id: AccountId, change: impl FnOnce(&mut Account)) {
        let Some(entry) = self.find_mut(id) else { return };
        match &mut entry.account {
            Some(account) => change(account),
            // Another process created the account: the whole account must be read from the database.
            None => self.remove(id),
        }
    }

    /// Removes all accounts. No change may be in flight.
    pub(super) fn clear(&mut self) {
        self.young.clear();
        self.old.clear();
    }

    /// Evicts the old generation if the young generation is full. Must not be called between [`Self::touch`] and the
    /// acceptance or refusal of a posting, which needs the touched accounts.
    pub(super) fn evict(&mut self) {
        if self.young.len() < self.generation_max {
            return;
        }
        let evicted = std::mem::replace(&mut self.old, std::mem::take(&mut self.young));
        self.young.extend(evicted.into_iter().filter(|(_, entry)| entry.pins > 0));
    }

    #[cfg(test)]
    fn len(&self) -> usize {
        self.young.len() + self.old.len()
    }

    fn find_mut(&mut self, id: AccountId) -> Option<&mut CacheEntry> {
        self.young.get_mut(&id).or_else(|| self.old.get_mut(&id))
    }

    fn remove(&mut self, id: AccountId) {
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
    fn a_pinned_account_is_never_evicted() {
        let mut cache = AccountCache::new(8);
        cache.warm(AccountId(1), Some(account(10)));
        let undo = cache.apply(AccountId(1), account(3));

        for id in 2..1000 {
            cache.warm(AccountId(id), None);
            cache.evict();
        }

        assert!(cache.len() <= 9);
        assert!(cache.touch(AccountId(1)));
        assert_eq!(cache.get(AccountId(1)), Some(account(3)));
        cache.roll_back(undo);
        assert_eq!(cache.get(AccountId(1)), Some(account(10)));
    }

    #[test]
    fn changes_are_rolled_back_latest_first() {
        let mut cache = AccountCache::new(8);
        cache.warm(AccountId(1), None);
        let first = cache.apply(AccountId(1), account(1));
        let second = cache.apply(AccountId(1), account(2));

        cache.roll_back(second);
        assert_eq!(cache.get(AccountId(1)), Some(account(1)));
        cache.roll_back(first);
        assert_eq!(cache.get(AccountId(1)), None);
        assert!(cache.touch(AccountId(1)));
    }

    #[test]
    fn warming_does_not_overwrite_a_cached_account() {
        let mut cache = AccountCache::new(8);
        cache.warm(AccountId(1), Some(account(1)));
        let undo = cache.apply(AccountId(1), account(2));

        cache.warm(AccountId(1), Some(account(1)));

        assert_eq!(cache.get(AccountId(1)), Some(account(2)));
        cache.confirm(undo);
    }
}
