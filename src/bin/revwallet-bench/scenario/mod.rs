//! The scenarios of the benchmark. Each scenario measures one aspect of the server, verifies its ledger, and returns a
//! section of the report.
//!
//! | scenario | measures | relative to |
//! |---|---|---|
//! | [`deposits`] | deposits over HTTP | `pgbench` calling a stored procedure that deposits in the conventional way |
//! | [`bulk`] | postings of many transfers, in-process | postings of one transfer |
//! | [`companions`] | postings that insert a row of another module, in-process | postings that do not |
//! | [`grpc`] | balances read over gRPC | the same over HTTP |
//! | [`holds`] | holds and captures over HTTP | transfers over HTTP |
//! | [`nginx`] | deposits through nginx | deposits sent to the server directly |
//! | [`observability`] | deposits with metrics, logs and traces | deposits without any |
//! | [`scrape`] | rendering ten thousand series for Prometheus | |
//! | [`logins`] | balances read during a thousand logins | balances read from an idle server |
//! | [`books`] | deposits and transfers on a server with two books | the same on a server with one book |
//! | [`failover`] | deposits on four servers whose leader is killed every five seconds | |
//! | [`multi_process`] | four servers that share a ledger | one server |
//! | [`old_snapshot`] | deposits while a transaction holds an old snapshot, as a dump does | deposits without an old snapshot |
//! | [`realtime`] | memory of idle WebSocket connections, deliveries to many subscribers, deposits while clients reconnect | |
//! | [`leaderboard`] | pages, ranks and neighbors on a leaderboard with a million entries, during 500 submissions per second | |
//! | [`exchange`] | exchange orders, from placement to completion | |
//! | [`store`] | game lists and purchases over HTTP | an axum handler that returns the same bytes, and transfers over HTTP |
//! | [`large_book`] | deposits and reads on a large ledger | the same on a small ledger |
//! | [`compare`] | deposits on one build of the server | deposits on another build |

mod books;
mod bulk;
mod companions;
pub(crate) mod compare;
mod deposits;
mod exchange;
mod failover;
mod grpc;
mod holds;
mod large_book;
mod leaderboard;
mod logins;
mod multi_process;
mod nginx;
mod observability;
mod old_snapshot;
mod post_stream;
mod realtime;
mod scrape;
mod store;

use crate::context::BenchContext;
use crate::report::ReportSection;

/// A benchmark scenario, which the option `--scenarios` can select.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
pub(crate) enum Scenario {
    /// Deposits over HTTP, compared with pgbench and with a bare axum server.
    Deposits,
    /// Postings of many transfers, compared with postings of one transfer.
    Bulk,
    /// Postings that also insert a row of another module, compared with postings that do not.
    Companions,
    /// Balances read over gRPC, compared with HTTP.
    Grpc,
    /// Holds and captures, compared with transfers.
    Holds,
    /// Deposits through nginx, compared with deposits sent to the server directly.
    Nginx,
    /// Deposits with metrics, logs and traces, compared with deposits without them.
    Observability,
    /// Rendering of ten thousand metric series for Prometheus.
    Scrape,
    /// Reads of balances during a thousand logins, compared with an idle server.
    Logins,
    /// Four servers that share a ledger, compared with one server.
    MultiProcess,
    /// A server with two books, compared with a server with one book.
    Books,
    /// Four servers that share a ledger, whose leader is killed repeatedly.
    Failover,
    /// Deposits while a transaction holds an old snapshot.
    OldSnapshot,
    /// WebSocket connections: memory of idle connections, deliveries of events, and clients that reconnect.
    Realtime,
    /// Reads of a leaderboard with a million entries, during score submissions.
    Leaderboard,
    /// Game lists, compared with a bare handler, and purchases, compared with transfers.
    Store,
    /// Exchange orders, from placement to completion.
    Exchange,
    /// Deposits and reads on a large ledger, compared with a small ledger.
    LargeBook,
}

impl Scenario {
    /// Scenarios that run by default: all except `large-book`, which takes minutes.
    pub(crate) const DEFAULT: [Self; 17] = [
        Self::Deposits,
        Self::Bulk,
        Self::Companions,
        Self::Grpc,
        Self::Holds,
        Self::Nginx,
        Self::Observability,
        Self::Scrape,
        Self::Logins,
        Self::MultiProcess,
        Self::Books,
        Self::Failover,
        Self::OldSnapshot,
        Self::Realtime,
        Self::Leaderboard,
        Self::Store,
        Self::Exchange,
    ];

    pub(crate) async fn measure(self, context: &BenchContext) -> anyhow::Result<ReportSection> {
        match self {
            Self::Deposits => deposits::measure(context).await,
            Self::Bulk => bulk::measure(context).await,
            Self::Companions => companions::measure(context).await,
            Self::Grpc => grpc::measure(context).await,
            Self::Holds => holds::measure(context).await,
            Self::Nginx => nginx::measure(context).await,
            Self::Observability => observability::measure(context).await,
            Self::Scrape => scrape::measure().await,
            Self::Logins => logins::measure(context).await,
            Self::MultiProcess => multi_process::measure(context).await,
            Self::Books => books::measure(context).await,
            Self::Failover => failover::measure(context).await,
            Self::OldSnapshot => old_snapshot::measure(context).await,
            Self::Realtime => realtime::measure(context).await,
            Self::Leaderboard => leaderboard::measure(context).await,
            Self::Store => store::measure(context).await,
            Self::Exchange => exchange::measure(context).await,
            Self::LargeBook => large_book::measure(context).await,
        }
    }
}
