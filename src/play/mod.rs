//! Play: what game servers and players call. `/api/wallet` speaks integer minor units and names wallets by their player.
//!
//! The operations on main wallets are those of `wallet/main_wallet`. [`leaderboards`] ranks scores and pays prizes.
//! [`feed`] has the topics of the realtime hub, [`leader`] announces the leader of the game, [`events`] takes the events of
//! game servers.

pub mod events;
pub mod feed;
pub mod grpc;
pub mod http;
pub mod leader;
pub mod leaderboards;
