//! Grafana and Prometheus behind the edge: for those who are named, and only to look at.

use std::process::{Child, Command, Stdio};
use std::time::Duration;

use reqwest::Method;
use serde_json::json;
use tokio::io::{AsyncReadExt, AsyncWriteExt};

use crate::files::root;
use crate::harness::program::Folder;
use crate::harness::{Answer, Client, eventually, eventually_within, free_address};
use crate::nginx::{Edge, each, tool};
use crate::stub;

/// Asks as somebody.
async fn ask(edge: &Edge, path: &str, who: Option<(&str, &str)>) -> Answer {
    let request = edge.public.request(Method::GET, path);
    let request = match who {
        Some((name, password)) => request.basic_auth(name, Some(password)),
        None => request,
    };
    edge.public.send(request).await
}

#[tokio::test]
async fn grafana_is_shown_to_those_who_are_named_and_told_who_they_are() {
    for nginx in each() {
        let mirror = stub::mirror().await.to_string();
        let edge = Edge::start(&nginx, "127.0.0.1:1", &[("EDGE_GRAFANA", &mirror)]).await;
        for nobody in [
            None,
            Some(("admin", "")),
            Some(("admin", "wrong")),
            Some(("", "admin")),
            Some(("eve", "admin")),
            Some(("ada", "pla")),
        ] {
            for path in ["/grafana/", "/grafana/d/revwallet-overview", "/grafana/api/live/ws"] {
                let answer = ask(&edge, path, nobody).await;
                answer.problem(401, "unauthenticated");
                assert_eq!(answer.header("www-authenticate"), "Basic realm=\"revwallet\"");
            }
        }
        for (name, password) in [("admin", "admin"), ("ada", "pla:nted $1")] {
            let path = "/grafana/api/search?query=a%20b";
            let request = edge.public.request(Method::GET, path).basic_auth(name, Some(password));
            let request =
                request.header("x-webauth-user", "root").header("x-forwarded-for", "6.6.6.6");
            let seen = edge.public.send(request).await.json();
            assert_eq!(seen["path"], path);
            let headers = &seen["headers"];
            assert_eq!(headers["x-webauth-user"], json!([name]));
            assert_eq!(headers["x-forwarded-for"], json!(["127.0.0.1"]));
            assert!(headers["authorization"].is_null(), "the password went on");
        }
        let page = edge.public.request(Method::GET, "/grafana/").header("accept", "text/html");
        let page = edge.public.send(page).await;
        assert_eq!((page.status, page.header("content-type")), (401, "text/html"));
        assert!(page.text.contains("Sign-in required"));
        let short = Client::try_send(edge.public.request(Method::GET, "/grafana")).await.unwrap();
        assert_eq!(short.status, 401, "sent on to /grafana/ by itself");
        assert_eq!(
            ask(&edge, "/prometheus/", Some(("admin", "admin"))).await.status,
            404,
            "it is off"
        );
        edge.stop().await;
    }
}

#[tokio::test]
async fn grafana_live_gets_its_socket() {
    for nginx in each() {
        let upgrading = stub::upgrading().await.to_string();
        let edge = Edge::start(&nginx, "127.0.0.1:1", &[("EDGE_GRAFANA", &upgrading)]).await;
        let mut stream = tokio::net::TcpStream::connect(edge.public.address).await.unwrap();
        let request = "GET /grafana/api/live/ws HTTP/1.1\r\nhost: a\r\nauthorization: Basic YWRtaW46YWRtaW4=\r\n\
                       connection: upgrade\r\nupgrade: websocket\r\n\r\n";
        stream.write_all(request.as_bytes()).await.unwrap();
        let mut answer = Vec::new();
        eventually("the other side agrees", async || {
            let mut part = [0; 4096];
            let count = stream.read(&mut part).await.unwrap();
            answer.extend_from_slice(&part[..count]);
            answer.ends_with(b"\r\n\r\n")
        })
        .await;
        assert!(answer.starts_with(b"HTTP/1.1 101 "), "{}", String::from_utf8_lossy(&answer));
        stream.write_all(b"hello").await.unwrap();
        let mut back = [0; 5];
        stream.read_exact(&mut back).await.unwrap();
        assert_eq!(&back, b"hello");
        drop(stream);
        edge.stop().await;
    }
}

#[tokio::test]
async fn without_a_file_of_names_nobody_sees_them() {
    for nginx in each() {
        let mirror = stub::mirror().await.to_string();
        let settings = [
            ("EDGE_GRAFANA", mirror.as_str()),
            ("EDGE_PROMETHEUS", mirror.as_str()),
            ("EDGE_USERS_FILE", "/nowhere"),
        ];
        let mut edge = Edge::start(&nginx, "127.0.0.1:1", &settings).await;
        for path in ["/grafana/", "/prometheus/"] {
            ask(&edge, path, Some(("admin", "admin"))).await.problem(404, "not-found");
        }
        edge.forget("start: /nowhere does not exist");
        edge.stop().await;
    }
}

/// A process that ends with the test.
struct Running(Child);

impl Drop for Running {
    fn drop(&mut self) {
        let _ended = self.0.kill().and_then(|()| self.0.wait());
    }
}

fn prometheus(folder: &Folder, listen: &str) -> Running {
    std::fs::write(folder.0.join("prometheus.yml"), "global: { scrape_interval: 1s }\n").unwrap();
    let script = "source scripts/lib/setup.sh && prometheus_tools";
    let found = Command::new("bash").args(["-c", script]).current_dir(root()).output().unwrap();
    let program = format!("{}/prometheus", String::from_utf8(found.stdout).unwrap().trim());
    // As in the compose file, but for the address.
    let words = crate::compose::prometheus_words();
    let words = words.iter().filter(|word| {
        !["--config.file", "--storage.tsdb.path"].iter().any(|ours| word.starts_with(ours))
    });
    let child = Command::new(program)
        .args(["--config.file=prometheus.yml", "--storage.tsdb.path=tsdb"])
        .arg(format!("--web.listen-address={listen}"))
        .args(words)
        .current_dir(&folder.0)
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn();
    Running(child.unwrap())
}

#[tokio::test]
async fn prometheus_is_there_to_look_at_and_not_to_change() {
    let (folder, listen) = (Folder::new(), free_address());
    let _prometheus = prometheus(&folder, &listen.to_string());
    for nginx in each() {
        let there = listen.to_string();
        let edge = Edge::start(&nginx, "127.0.0.1:1", &[("EDGE_PROMETHEUS", &there)]).await;
        let admin = Some(("admin", "admin"));
        eventually_within(
            Duration::from_mins(1),
            "Prometheus answers through the edge",
            async || ask(&edge, "/prometheus/api/v1/query?query=1", admin).await.status == 200,
        )
        .await;
        let answer = ask(&edge, "/prometheus/api/v1/query?query=vector(7)", admin).await.json();
        assert_eq!(answer["data"]["result"][0]["value"][1], "7");
        // It sends on to its first page, below its own path. (Debian's has no page there.)
        let answer = edge
            .raw("GET /prometheus/ HTTP/1.1\r\nhost: revwallet.com\r\nconnection: close\r\nauthorization: Basic YWRtaW46YWRtaW4=\r\n\r\n")
            .await;
        assert!(answer.starts_with("HTTP/1.1 302 "), "{answer}");
        assert!(answer.contains("\r\nLocation: /prometheus/"), "{answer}");
        assert_eq!(ask(&edge, "/prometheus/", None).await.status, 401);
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
async fn the_edge_tells_how_it_is_where_nobody_else_listens() {
    for nginx in each() {
        let mirror = stub::mirror().await.to_string();
        let edge = Edge::start(&nginx, &mirror, &[]).await;
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
            let _running = Running(child.unwrap());
            let exporter = Client::new(listen);
            eventually("the exporter answers", async || {
                exporter.try_status("/metrics").await == Some(200)
            })
            .await;
            let metrics = exporter.get("/metrics").await.text;
            assert!(metrics.contains("\nnginx_up 1\n"), "{metrics}");
            // What the dashboard asks for.
            for name in ["active", "reading", "writing", "waiting"] {
                assert!(metrics.contains(&format!("\nnginx_connections_{name} ")), "{name}");
            }
        }
        edge.stop().await;
    }
}
