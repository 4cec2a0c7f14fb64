//! The edge: nginx as it is configured here, run for real before the running program, and the compose file around it.
//!
//! Everything is tried with nginx as this system has it, and with the newest one where that can be had.
//! `BLESS=1 cargo test --test edge` writes the files that are made from the code.

#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]
#![expect(unreachable_pub, reason = "nothing is outside of a test binary")]
#![expect(clippy::disallowed_methods, reason = "a test sees for itself that its tasks end")]

#[path = "../e2e/harness/mod.rs"]
#[expect(dead_code, unused_imports, reason = "the other tests use the rest of it")]
mod harness;

mod compose;
mod consoles;
mod database;
mod encrypted;
mod failures;
mod files;
mod names;
mod nginx;
mod pages;
mod replicas;
mod routes;
mod stub;
