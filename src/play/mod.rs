//! Play: what game servers and players call. `/api/wallet` speaks integer minor units and names wallets by their player.
//!
//! The operations on main wallets are those of `wallet/main_wallet`. [`leaderboards`] ranks scores and pays prizes.

pub mod http;
pub mod leaderboards;
