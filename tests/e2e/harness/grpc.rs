//! A stock gRPC client of another language (`tests/e2e/grpc/client.py`), which knows the service through reflection.

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::sync::OnceLock;

use serde_json::{Value, json};
use tokio::io::{AsyncBufReadExt, AsyncWriteExt, BufReader, Lines};
use tokio::process::{Child, ChildStdin, ChildStdout, Command};
use tokio::sync::Mutex;

/// Returns a Python that has clients of both protocols; it is installed once.
pub fn python() -> &'static Path {
    static PYTHON: OnceLock<PathBuf> = OnceLock::new();
    PYTHON.get_or_init(|| super::program::tool_folder("python_client_tools").join("bin/python"))
}

/// A connected client.
pub struct GrpcClient {
    pipes: Mutex<(ChildStdin, Lines<BufReader<ChildStdout>>)>,
    _child: Child,
}

impl GrpcClient {
    pub fn connect(address: SocketAddr) -> Self {
        let mut child = Command::new(python())
            .args(["tests/e2e/grpc/client.py", &address.to_string()])
            .current_dir(env!("CARGO_MANIFEST_DIR"))
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .kill_on_drop(true)
            .spawn()
            .unwrap();
        let output = BufReader::new(child.stdout.take().unwrap()).lines();
        Self { pipes: Mutex::new((child.stdin.take().unwrap(), output)), _child: child }
    }

    /// Sends one request to the client and returns its response.
    pub async fn request(&self, request: Value) -> Value {
        let mut pipes = self.pipes.lock().await;
        pipes.0.write_all(format!("{request}\n").as_bytes()).await.unwrap();
        let line = pipes.1.next_line().await.unwrap().expect("the client runs");
        serde_json::from_str(&line).unwrap()
    }

    /// Calls a method without metadata.
    pub async fn call(&self, method: &str, message: Value) -> Value {
        self.request(json!({ "method": method, "message": message })).await
    }

    /// Calls a method with metadata.
    pub async fn call_with(&self, method: &str, message: Value, metadata: Value) -> Value {
        self.request(json!({ "method": method, "message": message, "metadata": metadata })).await
    }
}

/// A stream that the client reads.
pub struct GrpcStream<'a> {
    client: &'a GrpcClient,
    name: String,
}

impl GrpcClient {
    /// Begins a stream; further members of the request are metadata and a timeout.
    pub async fn open(&self, method: &str, message: Value, rest: Value) -> GrpcStream<'_> {
        let name = format!("{method} {message} {}", fastrand::u64(..));
        let mut request = json!({ "open": name, "method": method, "message": message });
        for (key, value) in rest.as_object().into_iter().flatten() {
            request[key] = value.clone();
        }
        self.request(request).await;
        GrpcStream { client: self, name }
    }
}

impl GrpcStream<'_> {
    /// Waits for the next message, or for the status that ends the stream.
    pub async fn next(&self) -> Value {
        self.client.request(json!({ "next": self.name })).await
    }

    /// Sends a message on a stream in both directions.
    pub async fn send(&self, message: Value) {
        self.client.request(json!({ "send": self.name, "message": message })).await;
    }

    /// Ends the messages of the client.
    pub async fn finish(&self) {
        self.client.request(json!({ "finish": self.name })).await;
    }

    pub async fn cancel(self) {
        self.client.request(json!({ "cancel": self.name })).await;
    }
}

/// Asserts that a response is the given failure, with the slug of its problem, and returns its details.
pub fn assert_failure(response: &Value, code: &str, slug: &str) -> Value {
    assert_eq!(response["code"], code, "{response}");
    assert_eq!(response["rich"]["ErrorInfo"]["reason"], slug, "{response}");
    assert_eq!(response["rich"]["ErrorInfo"]["domain"], "revwallet", "{response}");
    response["rich"].clone()
}
