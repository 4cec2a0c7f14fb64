//! A separate runtime for the WebSocket connections. If thousands of connections have work at once, requests do not
//! wait behind them in the same queue, because the operating system shares the cores between the threads of both
//! runtimes.

use std::sync::OnceLock;

use tokio::runtime::{Builder, Handle, Runtime};

/// The runtime lives as long as the process, because database connections that were opened on it outlive the server
/// that opened them.
static SOCKETS: OnceLock<Runtime> = OnceLock::new();

/// The runtime of WebSocket connections and of the hub that feeds them.
pub fn sockets_runtime() -> &'static Handle {
    let start = || {
        let runtime = Builder::new_multi_thread().thread_name("sockets").enable_all().build();
        runtime.expect("threads can be started")
    };
    SOCKETS.get_or_init(start).handle()
}
