//! revwallet: a wallet backend you can see through.
//!
//! Start reading at [`app`]: it puts everything together. `docs/architecture.md` has the map.

pub mod app;
pub mod bench;
pub mod config;
pub mod error;
pub mod recent;
pub mod restored;
pub mod secret;
pub mod signals;
pub mod tasks;
pub mod work;

pub mod db;
pub mod http;
pub mod jobs;
pub mod keys;
pub mod ledger;
pub mod probe;
pub mod telemetry;
pub mod trail;
pub mod users;
pub mod wallet;
pub mod web;
pub mod webhook;
