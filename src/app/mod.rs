//! The composition root: the configuration, the state behind the routes, the listeners and the background work.
//!
//! Start at [`server`]: it starts every part in the order in which they depend on each other.

pub mod after_restore;
pub mod config;
pub mod router;
pub mod server;
pub mod signals;
mod state;
mod worker;

pub use self::server::Running;
pub use self::state::{App, open_exchange, open_game_importer, open_leaderboards};
