//! revwallet: a wallet backend with exact money, double entry and full observability.
//!
//! Begin reading at [`app`], which combines all modules. `docs/architecture.md` maps the modules and their floors
//! (layers): a module may use only modules of lower floors.

// Floor 8: the command line.
pub mod cli;

// Floor 7: the composition root, and the commands that talk to a server.
pub mod app;
pub mod client;

// Floor 6: slices that use wallets and users.
pub mod exchange;
pub mod games;
pub mod play;
pub mod webhook;

// Floor 5: users and API keys, which authenticate callers.
pub mod api_keys;
pub mod users;

// Floor 4: wallets, and services that the slices of higher floors share.
pub mod audit_log;
pub mod grpc;
pub mod ops;
pub mod realtime;
pub mod saga;
pub mod wallet;

// Floor 3: the ledger and HTTP.
pub mod http;
pub mod ledger;

// Floor 2: modules that the ledger and HTTP use.
pub mod auth;
pub mod combiner;
pub mod db;
pub mod idempotency_key;
pub mod jobs;

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
pub mod throttle;
pub mod web;
