//! The whole program, from the outside: one binary, one Postgres, one database a test.

#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]
#![expect(unreachable_pub, reason = "nothing is outside of a test binary")]
#![expect(clippy::disallowed_methods, reason = "a test sees for itself that its tasks end")]

mod harness;

mod backup;
mod canary;
mod crash;
mod history;
mod http;
mod ledger;
mod lifecycle;
mod loki;
mod observer;
mod openapi;
mod outage;
mod page;
mod startup;
mod tail;
mod telemetry;
mod tls;
mod traces;
mod users;
mod verify;
mod wallet;
mod webhook;
