//! Monitoring as code: recording rules, alerts and dashboards generated from one source, and tests that they work.
//!
//! `BLESS=1 cargo test --test monitoring` regenerates the files.

#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]
#![expect(unreachable_pub, reason = "a test binary has no public interface")]
#![expect(clippy::disallowed_methods, reason = "each test checks itself that its tasks end")]

#[path = "../e2e/harness/mod.rs"]
#[expect(dead_code, unused_imports, reason = "other test binaries use the rest")]
mod harness;

mod configs;
mod doc_tables;
mod exporters;
mod generated_files;
mod lint;
mod pager;
mod proof;
mod rule_tests;
mod runbooks;
mod source;
mod tools;
