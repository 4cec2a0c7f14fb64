//! The edge: a real nginx with the committed configuration in front of the real program, and the compose files.
//!
//! Tests run with the installed nginx, and with the newest version if it can be downloaded.
//! `BLESS=1 cargo test --test edge files` regenerates the files that come from the code.

#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]
#![expect(unreachable_pub, reason = "a test binary has no public interface")]
#![expect(clippy::disallowed_methods, reason = "each test checks itself that its tasks end")]

#[path = "../e2e/harness/mod.rs"]
#[expect(dead_code, unused_imports, reason = "other test binaries use the rest")]
mod harness;

mod compose;
mod consoles;
mod database;
mod dns;
mod encrypted;
mod failures;
mod files;
mod grpc;
mod nginx;
mod pages;
mod replicas;
mod routes;
mod runbooks;
mod stub;
mod websocket;
