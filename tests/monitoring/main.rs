//! What watches the program: rules, alerts and dashboards, written from one source, and the proof that they work.
//!
//! `BLESS=1 cargo test --test monitoring` writes the files anew.

#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]
#![expect(unreachable_pub, reason = "nothing is outside of a test binary")]
#![expect(clippy::disallowed_methods, reason = "a test sees for itself that its tasks end")]

#[path = "../e2e/harness/mod.rs"]
#[expect(dead_code, unused_imports, reason = "the other tests use the rest of it")]
mod harness;

mod configs;
mod files;
mod lint;
mod proof;
mod source;
mod tables;
mod tools;
mod units;
