//! revwallet: a wallet backend with exact money, double entry and full observability.
//!
//! Begin reading at [`app`], which combines all modules. The floors (layers) below are those of `docs/architecture.md`:
//! a module may use only modules of lower floors.

// Floor 9: the command line.
pub mod cli;

// Floor 8: the composition root, and the commands that talk to a server.
pub mod app;
pub mod client;

// Floor 7: slices (modules that each implement one feature) that use wallets and users.
pub mod exchange;
pub mod games;
pub mod play;
pub mod webhook;

// Floor 6: users and API keys, which authenticate callers.
pub mod api_keys;
pub mod users;

// Floor 5: wallets, and services that the slices share.
pub mod audit_log;
pub mod grpc;
pub mod ops;
pub mod realtime;
pub mod saga;
pub mod wallet;

// Floor 4: the ledger and HTTP.
pub mod http;
pub mod ledger;

// Floor 3: the job queue and the throttle.
pub mod jobs;
pub mod throttle;

// Floor 2: the base of the ledger and HTTP.
pub mod auth;
pub mod combiner;
pub mod db;
pub mod idempotency_key;

// Floor 1: modules that use no modules of other floors.
pub mod cache;
pub mod error;
pub mod ids;
pub mod output;
pub mod secret;
pub mod settings;
pub mod striped_lock;
pub mod tasks;
pub mod telemetry;
pub mod web;
