//! A running nginx, started by `nginx/start`, and its log.

use std::io::{BufRead, BufReader, Read};
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::{Arc, Mutex, OnceLock};

use reqwest::Method;
use serde_json::Value;
use tokio::io::{AsyncReadExt, AsyncWriteExt};

use crate::files::root;
use crate::harness::program::{Folder, signal};
use crate::harness::{Client, TestApp, check, eventually, free_address, run_with};

/// Flag that makes the API trust the forwarding headers of the edge.
pub const TRUSTED_PROXIES: &str = "--trusted-proxies=127.0.0.1";

/// Returns the path of a tool that `edge_tools` downloads, if it is available.
pub fn tool(name: &str) -> Option<PathBuf> {
    static FOLDER: OnceLock<PathBuf> = OnceLock::new();
    let folder = FOLDER.get_or_init(|| {
        let script = "source scripts/lib/edge.sh && edge_tools";
        let output =
            Command::new("bash").args(["-c", script]).current_dir(root()).output().unwrap();
        let stderr = String::from_utf8_lossy(&output.stderr).into_owned();
        assert!(output.status.success(), "nginx is not available: {stderr}");
        PathBuf::from(String::from_utf8(output.stdout).unwrap().trim())
    });
    Some(folder.join(name)).filter(|path| path.exists())
}

/// Returns every available nginx: the installed one and the newest one.
pub fn nginx_versions() -> impl Iterator<Item = PathBuf> {
    ["nginx", "nginx-next"].into_iter().filter_map(tool)
}

/// Returns the newest nginx, or prints a notice if it is not available.
pub fn newest_nginx() -> Option<PathBuf> {
    let found = tool("nginx-next");
    if found.is_none() {
        drop(std::io::Write::write_all(
            &mut std::io::stderr(),
            b"skipped: the newest nginx is not available\n",
        ));
    }
    found
}

/// Runs a test against the app behind each available nginx, with the given flags and settings.
pub async fn run_behind_nginx(
    app: &[&str],
    edge: &[(&str, &str)],
    test: impl AsyncFn(&TestApp, &Edge),
) {
    for nginx in nginx_versions() {
        run_with(&[&[TRUSTED_PROXIES], app].concat(), async |app| {
            let edge = Edge::start(&nginx, &app.address.to_string(), edge).await;
            test(app, &edge).await;
            edge.stop().await;
        })
        .await;
    }
}

/// A running nginx.
pub struct Edge {
    child: Child,
    /// Client of the public listener.
    pub public: Client,
    /// Client of the listener for health and status.
    pub status: Client,
    /// Address of the TLS listener.
    pub tls: SocketAddr,
    output: Arc<Mutex<Vec<String>>>,
    _folder: Folder,
}

impl Edge {
    /// Starts nginx in front of the given API addresses, separated by spaces.
    pub async fn start(nginx: &Path, api: &str, settings: &[(&str, &str)]) -> Self {
        let (public, status, tls) = (free_address(), free_address(), free_address());
        let folder = Folder::new();
        let users = folder.0.join("secret");
        std::fs::write(&users, "# users\nadmin:admin\nada:test:secret $1\n").unwrap();
        let mut command = Command::new("sh");
        command
            .arg(root().join("nginx/start"))
            .env_clear()
            .env("PATH", std::env::var_os("PATH").unwrap())
            .env("EDGE_NGINX", nginx)
            .env("EDGE_RUN", folder.0.join("run"))
            .env("EDGE_API", api)
            .env("EDGE_GRAFANA", "off")
            .env("EDGE_PROMETHEUS", "off")
            .env("EDGE_RUNBOOKS", "off")
            .env("EDGE_USERS_FILE", users)
            .env("EDGE_LISTEN", public.to_string())
            .env("EDGE_LISTEN_TLS", tls.to_string())
            .env("EDGE_LISTEN_STATUS", status.to_string())
            .env("EDGE_ENVIRONMENT", "test")
            .env("EDGE_WORKERS", "2")
            .envs(settings.iter().copied());
        let mut child = command
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        let output = Arc::new(Mutex::new(Vec::new()));
        collect_lines(child.stdout.take().unwrap(), &output);
        collect_lines(child.stderr.take().unwrap(), &output);
        let edge = Self {
            child,
            public: Client::new(public),
            status: Client::new(status),
            tls,
            output,
            _folder: folder,
        };
        eventually("nginx is healthy", async || {
            edge.status.try_status("/healthz").await == Some(200)
        })
        .await;
        edge
    }

    /// Parses every line of the access and error log so far; panics unless each is JSON.
    pub fn lines(&self) -> Vec<Value> {
        let output = self.output.lock().unwrap();
        let parse = |line: &String| {
            serde_json::from_str(line).unwrap_or_else(|_| panic!("not JSON: {line}"))
        };
        output.iter().map(parse).collect()
    }

    /// Waits for the access log line of a request, which may be written after the response.
    pub async fn line(&self, request_id: &str) -> Value {
        let mut found = None;
        eventually("the request is logged", async || {
            found = self.lines().into_iter().find(|line| line["request_id"] == request_id);
            found.is_some()
        })
        .await;
        found.unwrap()
    }

    /// Sends a raw request and returns everything until the connection is closed.
    pub async fn raw(&self, request: &str) -> String {
        let mut stream = tokio::net::TcpStream::connect(self.public.address).await.unwrap();
        stream.write_all(request.as_bytes()).await.unwrap();
        let mut response = Vec::new();
        stream.read_to_end(&mut response).await.unwrap();
        String::from_utf8_lossy(&response).into_owned()
    }

    /// Asserts that `nginx/start` printed a message once, and removes it: it is not JSON.
    pub fn expect_message(&mut self, beginning: &str) {
        let mut output = self.output.lock().unwrap();
        let before = output.len();
        output.retain(|line| !line.starts_with(beginning));
        assert_eq!(output.len() + 1, before, "the message is not printed exactly once");
    }

    /// Builds a request with a `Host` header.
    pub fn request_to(&self, host: &str, method: Method, path: &str) -> reqwest::RequestBuilder {
        self.public.request(method, path).header("host", host)
    }

    pub fn signal(&self, name: &str) {
        signal(self.child.id(), name);
    }

    /// Returns whether workers from before a reload still serve their connections.
    pub fn has_old_workers(&self) -> bool {
        let id = self.child.id();
        let children = std::fs::read_to_string(format!("/proc/{id}/task/{id}/children")).unwrap();
        children.split_whitespace().any(|child| {
            std::fs::read_to_string(format!("/proc/{child}/cmdline"))
                .is_ok_and(|title| title.contains("shutting down"))
        })
    }

    /// Stops nginx gracefully and checks every line of its log.
    pub async fn stop(mut self) {
        self.signal("QUIT");
        eventually("nginx has exited", async || self.child.try_wait().unwrap().is_some()).await;
        assert!(self.child.wait().unwrap().success());
        for line in self.lines() {
            schema(&line);
        }
    }
}

impl Drop for Edge {
    fn drop(&mut self) {
        if self.child.try_wait().unwrap().is_none() {
            // The workers exit with the main process.
            signal(self.child.id(), "TERM");
            let _ended = self.child.wait();
        }
    }
}

/// Collects each line of a stream in the background.
fn collect_lines(stream: impl Read + Send + 'static, lines: &Arc<Mutex<Vec<String>>>) {
    let lines = Arc::clone(lines);
    std::thread::spawn(move || {
        for line in BufReader::new(stream).lines().map_while(Result::ok) {
            lines.lock().unwrap().push(line);
        }
    });
}

/// Checks a log line of the edge against its schema.
fn schema(line: &Value) {
    let text =
        |key: &str| line[key].as_str().unwrap_or_else(|| panic!("no {key}: {line}")).to_owned();
    let text_line = line.to_string();
    check::no_secret(&text_line);
    assert!(!text_line.contains('?'), "the line contains a query string: {line}");
    assert_eq!((text("service"), text("env")), ("edge".to_owned(), "test".to_owned()));
    assert!(["INFO", "WARN"].contains(&text("level").as_str()), "{line}");
    assert!(!text("message").is_empty() && text("ts").len() >= 20, "{line}");
    if line["event"] == "http.request" {
        assert_eq!(text("trace_id").len(), 32, "{line}");
        assert_eq!(text("span_id").len(), 16, "{line}");
        assert!(line["status"].is_u64() && line["request_time"].is_number(), "{line}");
        let seconds = text("upstream_response_time");
        assert!(seconds.is_empty() || seconds.parse::<f64>().is_ok(), "{line}");
    } else {
        assert_eq!(text("event"), "nginx.error", "{line}");
    }
}
