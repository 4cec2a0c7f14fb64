//! Finds the players that own main wallets, and caches them. Also reads the balances of wallets at given rows of the
//! ledger.

use std::collections::HashMap;
use std::sync::Arc;

use super::sql;
use crate::auth::Access;
use crate::cache::Cache;
use crate::db::Database;
use crate::error::Result;
use crate::ids::{UserId, WalletId};
use crate::ledger::account::AccountId;
use crate::ledger::money::Minor;
use crate::ledger::read;
use crate::realtime::Audience;

/// Maximum number of wallets whose owner is cached.
const PLAYERS_MAX: usize = 100_000;

/// The player that owns a main wallet.
#[derive(Debug)]
pub(in crate::play) struct PlayerWallet {
    pub player: String,
    /// Code of the wallet's currency.
    pub currency: String,
    /// Registered user behind the player; `None` for a guest.
    pub user: Option<UserId>,
}

/// Finds the players that own wallets. Cheap to clone.
#[derive(Clone)]
pub struct Players {
    db: Database,
    access: Access,
    /// Cached players, keyed by wallet; `None` for a wallet that is not the main wallet of a player.
    cache: Arc<Cache<WalletId, Option<Arc<PlayerWallet>>>>,
}

impl Players {
    pub fn new(db: Database, access: Access) -> Self {
        Self { db, access, cache: Arc::new(Cache::new(PLAYERS_MAX)) }
    }

    /// Finds the players that own the given wallets. Leaves out wallets that are not main wallets.
    pub(in crate::play) async fn find(
        &self,
        wallets: impl Iterator<Item = WalletId>,
    ) -> Result<HashMap<WalletId, Arc<PlayerWallet>>> {
        let mut found = HashMap::new();
        let mut missing = Vec::new();
        for wallet in wallets {
            match self.cache.get(&wallet) {
                Some(Some(player)) => drop(found.insert(wallet, player)),
                Some(None) => {}
                None => missing.push(wallet.0),
            }
        }
        if missing.is_empty() {
            return Ok(found);
        }
        missing.sort_unstable();
        missing.dedup();
        let mut db = self.db.acquire("play.players").await?;
        for row in sql::players(&mut db, &missing).await? {
            let sql::PlayerRow { wallet, player, currency, app_user, is_registered } = row;
            let user = app_user.filter(|_| is_registered);
            let player = Arc::new(PlayerWallet { player, currency, user });
            // A user without a password is not cached, because such a user counts as registered after setting a
            // password.
            if app_user.is_none() || is_registered {
                self.cache.insert(wallet, Some(Arc::clone(&player)));
            }
            found.insert(wallet, player);
        }
        for wallet in missing.into_iter().map(WalletId) {
            if !found.contains_key(&wallet) {
                self.cache.insert(wallet, None);
            }
        }
        Ok(found)
    }

    /// Returns the reserved (held) amount of each wallet right after a ledger row. Each element of `after` is a wallet
    /// and the sequence number of its ledger row.
    pub(in crate::play) async fn held(&self, after: &[(WalletId, i64)]) -> Result<Vec<Minor>> {
        if after.is_empty() {
            return Ok(Vec::new());
        }
        let holds: Vec<(AccountId, i64)> = after
            .iter()
            .map(|(wallet, seq)| {
                let account = AccountId::from(*wallet);
                (account.hold().unwrap_or(account), *seq)
            })
            .collect();
        let mut db = self.db.acquire("play.held").await?;
        read::balances_after(&mut db, &holds).await
    }

    /// Returns the total balance of each wallet, including held money, right after a ledger row. Each element of
    /// `after` is a wallet and the sequence number of its ledger row.
    pub(in crate::play) async fn total_balances_after(
        &self,
        after: &[(WalletId, i64)],
    ) -> Result<Vec<Minor>> {
        if after.is_empty() {
            return Ok(Vec::new());
        }
        let available: Vec<(AccountId, i64)> =
            after.iter().map(|(wallet, seq)| (AccountId::from(*wallet), *seq)).collect();
        let mut db = self.db.acquire("play.total").await?;
        let available = read::balances_after(&mut db, &available).await?;
        drop(db);
        let held = self.held(after).await?;
        Ok(available
            .into_iter()
            .zip(held)
            .map(|(available, held)| Minor(available.0 + held.0))
            .collect())
    }

    /// Returns the ledger accounts of a player's main wallets in a currency, including closed wallets.
    pub(in crate::play) async fn accounts(
        &self,
        player: &str,
        currency: &str,
    ) -> Result<Vec<AccountId>> {
        let mut db = self.db.acquire("play.main_wallets").await?;
        let wallets = sql::main_wallets(&mut db, player, currency).await?;
        let accounts = wallets.into_iter().map(AccountId::from);
        Ok(accounts.flat_map(|account| [Some(account), account.hold()]).flatten().collect())
    }

    /// Returns the callers that may see the balance of a player, as the audience of a message.
    pub(in crate::play) fn audience(&self, player: &PlayerWallet) -> Audience {
        match player.user {
            Some(user) => Audience::Owner(user),
            None if self.access == Access::Open => Audience::Everyone,
            None => Audience::Privileged,
        }
    }
}
