//! revwallet: a wallet backend you can see through.
//!
//! Start reading at [`app`]: it puts everything together. `docs/architecture.md` has the map and the floors.

// Floor 8: the command line.
pub mod cli;

// Floor 7: the composition root, and the commands for a server.
pub mod app;
pub mod client;

// Floor 6: slices that stand on wallets and users.
pub mod exchange;
pub mod games;
pub mod play;
pub mod webhook;

// Floor 5: who signs in.
pub mod api_keys;
pub mod users;

// Floor 4: wallets, and what the slices show themselves through.
pub mod audit_log;
pub mod grpc;
pub mod ops;
pub mod realtime;
pub mod saga;
pub mod wallet;

// Floor 3: the book and the wire.
pub mod http;
pub mod ledger;

// Floor 2: the ground that both stand on.
pub mod auth;
pub mod combiner;
pub mod db;
pub mod idempotency;
pub mod jobs;

// Floor 1: modules that need no other.
pub mod cache;
pub mod error;
pub mod ids;
pub mod output;
pub mod secret;
pub mod settings;
pub mod striped_lock;
pub mod tasks;
pub mod telemetry;
pub mod throttle;
pub mod web;
