//! The API for game servers and players. Its routes under `/api/wallet` take amounts in minor units, such as cents, and
//! identify a wallet by the id of its player.
//!
//! The operations on main wallets are in `wallet/main_wallet`. [`leaderboards`] ranks scores and pays prizes, [`feed`]
//! serves realtime topics, [`leader`] announces the player that has reached the highest balance ever, and [`events`]
//! accepts events that game servers send.

pub mod events;
pub mod feed;
pub mod grpc;
pub mod http;
pub mod leader;
pub mod leaderboards;
