//! The topics of the realtime hub: of wallets, of games, of leaderboards.

mod named;
pub(in crate::play) mod players;
mod progress;
mod sql;
mod wallet;

use std::sync::Arc;

use crate::realtime::feed::Feed;
use crate::wallet::Wallets;

pub use self::players::Players;

use self::named::NamedTopics;
use self::progress::GameProgress;
use self::wallet::WalletTopics;

/// The feeds of every topic.
pub fn feeds(wallets: &Wallets, players: &Players) -> Vec<Arc<dyn Feed>> {
    let (wallets, players) = (wallets.clone(), players.clone());
    vec![
        Arc::new(WalletTopics::new(wallets.clone())),
        Arc::new(GameProgress { wallets, players }),
        Arc::new(NamedTopics),
    ]
}
