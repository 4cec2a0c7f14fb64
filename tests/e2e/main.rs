//! End-to-end tests of the whole program: one test binary, one Postgres server, one database per test.

#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]
#![expect(unreachable_pub, reason = "a test binary has no public interface")]
#![expect(clippy::disallowed_methods, reason = "each test checks itself that its tasks end")]

mod harness;

mod authorization;
mod backup;
mod books;
mod canary;
mod client;
mod command_line;
mod compression;
mod cors;
mod crash;
mod documents;
mod exchange;
mod games;
mod grpc;
mod history;
mod http;
mod http_limits;
mod idle;
mod installations;
mod leaderboards;
mod ledger;
mod lifecycle;
mod live_page;
mod loki;
mod money_format;
mod observer;
mod openapi;
mod outage;
mod page;
mod partitions;
mod play;
mod positions;
mod realtime;
mod replica;
mod runbooks;
mod startup;
mod strictness;
mod tail;
mod telemetry;
mod tls;
mod traces;
mod users;
mod verify;
mod wallet;
mod webhook;
