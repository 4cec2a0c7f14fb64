//! A separate asynchronous runtime for WebSocket connections. Even if thousands of connections have work at once, HTTP
//! requests do not queue behind this work, because the operating system divides the cores between the two runtimes.

use std::sync::OnceLock;

use tokio::runtime::{Builder, Handle, Runtime};

/// Runtime of the WebSocket connections. It is never stopped, because database connections that were opened on it can
/// outlive the server that opened them.
static SOCKETS: OnceLock<Runtime> = OnceLock::new();

/// Returns the runtime of the WebSocket connections and of the hub that sends them events.
pub fn sockets_runtime() -> &'static Handle {
    let start = || {
        let runtime = Builder::new_multi_thread().thread_name("sockets").enable_all().build();
        runtime.expect("threads can be started")
    };
    SOCKETS.get_or_init(start).handle()
}
