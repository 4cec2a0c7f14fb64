//! Grafana and Prometheus behind the edge: for listed users, and read-only.

use std::process::{Child, Command, Stdio};
use std::time::Duration;

use reqwest::Method;
use serde_json::json;
use tokio::io::{AsyncReadExt, AsyncWriteExt};

use crate::files::root;
use crate::harness::program::Folder;
use crate::harness::{Client, Response, eventually, eventually_within, free_address};
use crate::nginx::{Edge, nginx_versions, tool};
use crate::stub;

/// Sends a GET request, with Basic authentication if credentials are given.
async fn get_as(edge: &Edge, path: &str, credentials: Option<(&str, &str)>) -> Response {
    let request = edge.public.request(Method::GET, path);
    let request = match credentials {
        Some((name, password)) => request.basic_auth(name, Some(password)),
        None => request,
    };
    edge.public.send(request).await
}

#[tokio::test]
async fn grafana_requires_sign_in_and_receives_the_user_name() {
    for nginx in nginx_versions() {
        let echo = stub::echo().await.to_string();
        let edge = Edge::start(&nginx, "127.0.0.1:1", &[("EDGE_GRAFANA", &echo)]).await;
        for credentials in [
            None,
            Some(("admin", "")),
            Some(("admin", "wrong")),
            Some(("", "admin")),
            Some(("eve", "admin")),
            Some(("ada", "test")),
        ] {
            for path in ["/grafana/", "/grafana/d/revwallet-overview", "/grafana/api/live/ws"] {
                let response = get_as(&edge, path, credentials).await;
                response.problem(401, "unauthenticated");
                assert_eq!(response.header("www-authenticate"), "Basic realm=\"revwallet\"");
            }
        }
        for (name, password) in [("admin", "admin"), ("ada", "test:secret $1")] {
            let path = "/grafana/api/search?query=a%20b";
            let request = edge.public.request(Method::GET, path).basic_auth(name, Some(password));
            let request =
                request.header("x-webauth-user", "root").header("x-forwarded-for", "6.6.6.6");
            let received = edge.public.send(request).await.json();
            assert_eq!(received["path"], path);
            let headers = &received["headers"];
            assert_eq!(headers["x-webauth-user"], json!([name]));
            assert_eq!(headers["x-forwarded-for"], json!(["127.0.0.1"]));
            assert!(headers["authorization"].is_null(), "the password was forwarded");
        }
        let page = edge.public.request(Method::GET, "/grafana/").header("accept", "text/html");
        let page = edge.public.send(page).await;
        assert_eq!((page.status, page.header("content-type")), (401, "text/html"));
        assert!(page.text.contains("Sign-in required"));
        let redirected =
            Client::try_send(edge.public.request(Method::GET, "/grafana")).await.unwrap();
        assert_eq!(redirected.status, 401, "/grafana redirects to /grafana/");
        assert_eq!(
            get_as(&edge, "/prometheus/", Some(("admin", "admin"))).await.status,
            404,
            "Prometheus is disabled"
        );
        edge.stop().await;
    }
}

#[tokio::test]
async fn grafana_live_gets_a_websocket() {
    for nginx in nginx_versions() {
        let websocket = stub::websocket_echo().await.to_string();
        let edge = Edge::start(&nginx, "127.0.0.1:1", &[("EDGE_GRAFANA", &websocket)]).await;
        let mut stream = tokio::net::TcpStream::connect(edge.public.address).await.unwrap();
        let request = "GET /grafana/api/live/ws HTTP/1.1\r\nhost: a\r\nauthorization: Basic YWRtaW46YWRtaW4=\r\n\
                       connection: upgrade\r\nupgrade: websocket\r\n\r\n";
        stream.write_all(request.as_bytes()).await.unwrap();
        let mut response = Vec::new();
        eventually("the connection is upgraded", async || {
            let mut part = [0; 4096];
            let count = stream.read(&mut part).await.unwrap();
            response.extend_from_slice(&part[..count]);
            response.ends_with(b"\r\n\r\n")
        })
        .await;
        assert!(response.starts_with(b"HTTP/1.1 101 "), "{}", String::from_utf8_lossy(&response));
        stream.write_all(b"hello").await.unwrap();
        let mut echoed = [0; 5];
        stream.read_exact(&mut echoed).await.unwrap();
        assert_eq!(&echoed, b"hello");
        drop(stream);
        edge.stop().await;
    }
}

#[tokio::test]
async fn without_a_users_file_the_consoles_are_disabled() {
    for nginx in nginx_versions() {
        let echo = stub::echo().await.to_string();
        let settings = [
            ("EDGE_GRAFANA", echo.as_str()),
            ("EDGE_PROMETHEUS", echo.as_str()),
            ("EDGE_RUNBOOKS", echo.as_str()),
            ("EDGE_USERS_FILE", "/nowhere"),
        ];
        let mut edge = Edge::start(&nginx, "127.0.0.1:1", &settings).await;
        for path in ["/grafana/", "/prometheus/", "/runbooks"] {
            get_as(&edge, path, Some(("admin", "admin"))).await.problem(404, "not-found");
        }
        edge.expect_message("start: /nowhere does not exist");
        edge.stop().await;
    }
}

/// A process that is killed at the end of the test.
struct ChildGuard(Child);

impl Drop for ChildGuard {
    fn drop(&mut self) {
        let _ended = self.0.kill().and_then(|()| self.0.wait());
    }
}

fn prometheus(folder: &Folder, listen: &str) -> ChildGuard {
    std::fs::write(folder.0.join("prometheus.yml"), "global: { scrape_interval: 1s }\n").unwrap();
    let script = "source scripts/lib/setup.sh && prometheus_tools";
    let output = Command::new("bash").args(["-c", script]).current_dir(root()).output().unwrap();
    let program = format!("{}/prometheus", String::from_utf8(output.stdout).unwrap().trim());
    // The flags of the compose file, except for paths; the address is added.
    let flags = crate::compose::prometheus_flags();
    let flags = flags.iter().filter(|flag| {
        !["--config.file", "--storage.tsdb.path"].iter().any(|path| flag.starts_with(path))
    });
    let child = Command::new(program)
        .args(["--config.file=prometheus.yml", "--storage.tsdb.path=tsdb"])
        .arg(format!("--web.listen-address={listen}"))
        .args(flags)
        .current_dir(&folder.0)
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn();
    ChildGuard(child.unwrap())
}

#[tokio::test]
async fn prometheus_can_be_queried_but_not_changed() {
    let (folder, listen) = (Folder::new(), free_address());
    let _prometheus = prometheus(&folder, &listen.to_string());
    for nginx in nginx_versions() {
        let address = listen.to_string();
        let edge = Edge::start(&nginx, "127.0.0.1:1", &[("EDGE_PROMETHEUS", &address)]).await;
        let admin = Some(("admin", "admin"));
        eventually_within(
            Duration::from_mins(1),
            "Prometheus responds through the edge",
            async || get_as(&edge, "/prometheus/api/v1/query?query=1", admin).await.status == 200,
        )
        .await;
        let response =
            get_as(&edge, "/prometheus/api/v1/query?query=vector(7)", admin).await.json();
        assert_eq!(response["data"]["result"][0]["value"][1], "7");
        // Prometheus redirects to its start page below its own path. (Debian's build lacks that page.)
        let response = edge
            .raw("GET /prometheus/ HTTP/1.1\r\nhost: revwallet.com\r\nconnection: close\r\nauthorization: Basic YWRtaW46YWRtaW4=\r\n\r\n")
            .await;
        assert!(response.starts_with("HTTP/1.1 302 "), "{response}");
        assert!(response.contains("\r\nLocation: /prometheus/"), "{response}");
        assert_eq!(get_as(&edge, "/prometheus/", None).await.status, 401);
        for path in [
            "/prometheus/-/quit",
            "/prometheus/-/reload",
            "/prometheus/metrics",
            "/prometheus/debug/pprof/",
            "/prometheus/api/v1/write",
            "/prometheus/api/v1/otlp/v1/metrics",
            "/prometheus/api/v1/admin/tsdb/snapshot",
        ] {
            for method in [Method::GET, Method::POST] {
                let request = edge.public.request(method, path).basic_auth("admin", Some("admin"));
                assert_eq!(edge.public.send(request).await.status, 404, "{path}");
            }
        }
        edge.stop().await;
    }
}

#[tokio::test]
async fn the_status_page_is_on_its_own_listener() {
    for nginx in nginx_versions() {
        let echo = stub::echo().await.to_string();
        let edge = Edge::start(&nginx, &echo, &[]).await;
        for _ in 0..3 {
            edge.public.get("/wallet").await;
        }
        let status = edge.status.get("/status").await.text;
        assert!(status.starts_with("Active connections: "), "{status}");
        assert_eq!(edge.status.get("/wallet").await.status, 404);
        if let Some(exporter) = tool("nginx-exporter") {
            let listen = free_address();
            let child = Command::new(exporter)
                .arg(format!("--nginx.scrape-uri=http://{}/status", edge.status.address))
                .arg(format!("--web.listen-address={listen}"))
                .stderr(Stdio::null())
                .spawn();
            let _exporter = ChildGuard(child.unwrap());
            let exporter = Client::new(listen);
            eventually("the exporter responds", async || {
                exporter.try_status("/metrics").await == Some(200)
            })
            .await;
            let metrics = exporter.get("/metrics").await.text;
            assert!(metrics.contains("\nnginx_up 1\n"), "{metrics}");
            // The dashboard uses these metrics.
            for name in ["active", "reading", "writing", "waiting"] {
                assert!(metrics.contains(&format!("\nnginx_connections_{name} ")), "{name}");
            }
        }
        edge.stop().await;
    }
}
