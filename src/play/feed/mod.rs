//! Topics of the realtime hub, about wallets, games and leaderboards.

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

/// The feeds of every topic.
pub fn feeds(wallets: &Wallets, players: &Players) -> Vec<Arc<dyn Feed>> {
    let (wallets, players) = (wallets.clone(), players.clone());
    vec![
        Arc::new(WalletTopics::new(wallets.clone())),
        Arc::new(Balances { players: players.clone() }),
        Arc::new(GameProgress { wallets, players }),
        Arc::new(NamedTopics),
    ]
}
