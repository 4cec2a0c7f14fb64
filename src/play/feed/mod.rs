//! Realtime topics about wallets, games and leaderboards, to which clients can subscribe.

mod balance;
mod named;
pub(in crate::play) mod players;
mod progress;
pub(in crate::play) mod raise;
mod sql;
mod wallet;

use std::sync::Arc;

use crate::realtime::feed::Feed;
use crate::wallet::Wallets;

pub(in crate::play) use self::balance::{BalanceData, balance_topic};
pub use self::players::Players;

use self::balance::Balances;
use self::named::NamedTopics;
use self::progress::GameProgress;
use self::wallet::WalletTopics;

/// Returns the feeds that together serve every topic of this module.
pub fn feeds(wallets: &Wallets, players: &Players) -> Vec<Arc<dyn Feed>> {
    let (wallets, players) = (wallets.clone(), players.clone());
    vec![
        Arc::new(WalletTopics::new(wallets.clone())),
        Arc::new(Balances { players: players.clone() }),
        Arc::new(GameProgress { wallets, players }),
        Arc::new(NamedTopics),
    ]
}
