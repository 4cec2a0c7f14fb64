//! Play: the API of game servers and players. `/api/wallet` uses integer minor units and identifies wallets by their
//! player.
//!
//! The operations on main wallets are in `wallet/main_wallet`. [`leaderboards`] ranks scores and pays prizes, [`feed`]
//! has the topics of the realtime hub, [`leader`] announces the leader of the game, and [`events`] accepts the events
//! of game servers.

pub mod events;
pub mod feed;
pub mod grpc;
pub mod http;
pub mod leader;
pub mod leaderboards;
