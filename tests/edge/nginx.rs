//! A running nginx, started by `nginx/start` with its settings, and everything that it has said.

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

/// What the API must be told, so that it believes the edge.
const BELIEVED: &str = "--trusted-proxies=127.0.0.1";

/// One of the tools that `edge_tools` fetches, if it could be had.
pub fn tool(name: &str) -> Option<PathBuf> {
    static FOLDER: OnceLock<PathBuf> = OnceLock::new();
    let folder = FOLDER.get_or_init(|| {
        let script = "source scripts/lib/edge.sh && edge_tools";
        let output =
            Command::new("bash").args(["-c", script]).current_dir(root()).output().unwrap();
        let said = String::from_utf8_lossy(&output.stderr).into_owned();
        assert!(output.status.success(), "nginx cannot be had: {said}");
        PathBuf::from(String::from_utf8(output.stdout).unwrap().trim())
    });
    Some(folder.join(name)).filter(|path| path.exists())
}

/// Every nginx that could be had: that of this system, and the newest.
pub fn each() -> impl Iterator<Item = PathBuf> {
    ["nginx", "nginx-next"].into_iter().filter_map(tool)
}

/// The newest one, if it could be had; said aloud if not.
pub fn newest() -> Option<PathBuf> {
    let found = tool("nginx-next");
    if found.is_none() {
        drop(std::io::Write::write_all(
            &mut std::io::stderr(),
            b"not tried: the newest nginx cannot be had here\n",
        ));
    }
    found
}

/// Runs a test against the app behind each nginx.
pub async fn behind(app: &[&str], edge: &[(&str, &str)], test: impl AsyncFn(&TestApp, &Edge)) {
    for nginx in each() {
        run_with(&[&[BELIEVED], app].concat(), async |app| {
            let edge = Edge::start(&nginx, &app.address.to_string(), edge).await;
            test(app, &edge).await;
            edge.stop().await;
        })
        .await;
    }
}

pub struct Edge {
    child: Child,
    /// What strangers reach.
    pub public: Client,
    /// Where it tells how it is.
    pub status: Client,
    pub tls: SocketAddr,
    said: Arc<Mutex<Vec<String>>>,
    _folder: Folder,
}

impl Edge {
    /// Before these processes of the API, separated by spaces.
    pub async fn start(nginx: &Path, api: &str, settings: &[(&str, &str)]) -> Self {
        let (public, status, tls) = (free_address(), free_address(), free_address());
        let folder = Folder::new();
        let users = folder.0.join("secret");
        std::fs::write(&users, "# who may look\nadmin:admin\nada:pla:nted $1\n").unwrap();
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
        let said = Arc::new(Mutex::new(Vec::new()));
        hear(child.stdout.take().unwrap(), &said);
        hear(child.stderr.take().unwrap(), &said);
        let edge = Self {
            child,
            public: Client::new(public),
            status: Client::new(status),
            tls,
            said,
            _folder: folder,
        };
        eventually("nginx answers", async || edge.status.try_status("/healthz").await == Some(200))
            .await;
        edge
    }

    /// Every line so far, of the access log and of complaints; each must be JSON.
    pub fn lines(&self) -> Vec<Value> {
        let said = self.said.lock().unwrap();
        let parse = |line: &String| {
            serde_json::from_str(line).unwrap_or_else(|_| panic!("no JSON: {line}"))
        };
        said.iter().map(parse).collect()
    }

    /// The line of the request with that id; it may come a little behind the answer.
    pub async fn line(&self, request_id: &str) -> Value {
        let mut found = None;
        eventually("the access log tells of it", async || {
            found = self.lines().into_iter().find(|line| line["request_id"] == request_id);
            found.is_some()
        })
        .await;
        found.unwrap()
    }

    /// Sends bytes as they are, and gives what comes back until the connection ends.
    pub async fn raw(&self, request: &str) -> String {
        let mut stream = tokio::net::TcpStream::connect(self.public.address).await.unwrap();
        stream.write_all(request.as_bytes()).await.unwrap();
        let mut answer = Vec::new();
        stream.read_to_end(&mut answer).await.unwrap();
        String::from_utf8_lossy(&answer).into_owned()
    }

    /// Takes note of a line of `start` itself, which is no JSON.
    pub fn forget(&mut self, beginning: &str) {
        let mut said = self.said.lock().unwrap();
        let before = said.len();
        said.retain(|line| !line.starts_with(beginning));
        assert_eq!(said.len() + 1, before, "it says so once");
    }

    /// A request to one of its hosts.
    pub fn at(&self, host: &str, method: Method, path: &str) -> reqwest::RequestBuilder {
        self.public.request(method, path).header("host", host)
    }

    pub fn signal(&self, name: &str) {
        signal(self.child.id(), name);
    }

    /// Ends it in good order, and looks at all that it has said.
    pub async fn stop(mut self) {
        self.signal("QUIT");
        eventually("nginx has ended", async || self.child.try_wait().unwrap().is_some()).await;
        assert!(self.child.wait().unwrap().success());
        for line in self.lines() {
            schema(&line);
        }
    }
}

impl Drop for Edge {
    fn drop(&mut self) {
        if self.child.try_wait().unwrap().is_none() {
            // Its workers end with it.
            signal(self.child.id(), "TERM");
            let _ended = self.child.wait();
        }
    }
}

/// Writes down each line from now on.
fn hear(output: impl Read + Send + 'static, said: &Arc<Mutex<Vec<String>>>) {
    let said = Arc::clone(said);
    std::thread::spawn(move || {
        for line in BufReader::new(output).lines().map_while(Result::ok) {
            said.lock().unwrap().push(line);
        }
    });
}

/// What holds for every line of the edge.
fn schema(line: &Value) {
    let text =
        |key: &str| line[key].as_str().unwrap_or_else(|| panic!("no {key}: {line}")).to_owned();
    let whole = line.to_string();
    check::no_secret(&whole);
    assert!(!whole.contains('?'), "a query string is in the log: {line}");
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
