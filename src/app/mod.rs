//! The composition root, which combines the configuration, the shared state of the routes, the listeners and the
//! background work.
//!
//! Start reading at [`server`], which starts all parts in the order of their dependencies.

pub mod after_restore;
pub mod config;
pub mod router;
pub mod server;
pub mod signals;
mod state;
mod worker;

pub use self::server::Running;
pub use self::state::{App, open_exchange, open_game_importer, open_leaderboards};
