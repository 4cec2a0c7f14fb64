//! The runtime of the WebSocket connections, so that thousands that have work at once do not stand before requests in one queue:
//! the operating system shares the cores between the threads of both.

use std::sync::OnceLock;

use tokio::runtime::{Builder, Handle, Runtime};

/// Runtime of the whole process: database connections that were opened on it outlive the server that opened them.
static SOCKETS: OnceLock<Runtime> = OnceLock::new();

/// The runtime of WebSocket connections and of the hub that feeds them.
pub fn sockets_runtime() -> &'static Handle {
    let start = || {
        let runtime = Builder::new_multi_thread().thread_name("sockets").enable_all().build();
        runtime.expect("threads can be started")
    };
    SOCKETS.get_or_init(start).handle()
}
