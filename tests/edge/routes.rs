//! What reaches the API, what does not, and what it is told of where a request comes from.

use std::process::Command;

use reqwest::Method;
use serde_json::{Value, json};
use tokio::io::{AsyncReadExt, AsyncWriteExt};

use crate::harness::{TestApp, eventually};
use crate::nginx::{Edge, behind, each};
use crate::stub;

/// Asks by the edge, and asserts that the API itself has answered.
async fn reaches(app: &TestApp, edge: &Edge, host: &str, method: Method, path: &str) -> Value {
    let answer = edge.public.send(edge.at(host, method, path)).await;
    let id = answer.header("x-request-id").to_owned();
    let mut found = None;
    eventually(&format!("{host}{path} reaches the API"), async || {
        let mut told = app.logs.lines().into_iter();
        found =
            told.find(|line| line["event"] == "http.request" && line["request_id"] == id.as_str());
        found.is_some()
    })
    .await;
    found.unwrap()
}

#[tokio::test]
async fn every_route_of_the_document_reaches_the_api() {
    behind(&[], &[], async |app, edge| {
        let document = app.get("/openapi.json").await.json();
        let paths = document["paths"].as_object().unwrap();
        assert!(paths.len() > 20);
        for (path, methods) in paths {
            for method in methods.as_object().unwrap().keys() {
                let method: Method = method.to_uppercase().parse().unwrap();
                let mut asked = path.clone();
                while let (Some(from), Some(to)) = (asked.find('{'), asked.find('}')) {
                    asked.replace_range(from..=to, "1");
                }
                let line = reaches(app, edge, "revwallet.com", method, &asked).await;
                assert_eq!(line["http_route"], path.as_str());
            }
        }
    })
    .await;
}

#[tokio::test]
async fn pages_and_what_is_to_come_reach_the_api() {
    behind(&[], &[], async |app, edge| {
        for path in [
            "/",
            "/assets/wallets.js",
            "/wallet",
            "/wallet/",
            "/wallet/1/history/",
            "/docs",
            "/docs/",
            "/docs/swagger-ui.css",
            "/openapi.json",
            "/problems/invalid",
            "/exchange/login",
            "/exchange/",
            "/ws",
            "/ws/",
            "/live",
        ] {
            reaches(app, edge, "revwallet.com", Method::GET, path).await;
            let (direct, through) = (app.get(path).await, edge.public.get(path).await);
            assert_eq!(through.status, direct.status, "{path}");
            for header in ["content-type", "cache-control", "content-security-policy"] {
                assert_eq!(through.header(header), direct.header(header), "{path}: {header}");
            }
            if direct.status == 200 {
                assert_eq!(through.text, direct.text, "{path}");
            }
        }
    })
    .await;
}

#[tokio::test]
async fn nothing_else_is_there() {
    behind(&[], &[], async |app, edge| {
        for path in [
            "/metrics",
            "/metrics/",
            "//metrics",
            "/%6detrics",
            "/wallet/../metrics",
            "/wallet/%2e%2e/metrics",
            "/livez",
            "/readyz",
            "/internal/user/1",
            "/internal/alerts/pager",
            "/internal",
            "/status",
            "/healthz",
            "/nginx_status",
            "/grafana/",
            "/prometheus/",
            "/walletx",
            "/.env",
            "/edge/",
            "/edge/not_found.html",
            "/pages/style.css",
            "/grpc.health.v1.Health/Check",
        ] {
            let request =
                format!("GET {path} HTTP/1.1\r\nhost: revwallet.com\r\nconnection: close\r\n\r\n");
            let answer = edge.raw(&request).await;
            assert!(answer.starts_with("HTTP/1.1 404 "), "{path}: {answer}");
            assert!(answer.contains("Content-Type: application/problem+json\r\n"), "{path}");
            let body: Value =
                serde_json::from_str(answer.split("\r\n\r\n").nth(1).unwrap()).unwrap();
            assert_eq!(body["type"], "/problems/not-found");
            assert!(
                app.logs.find("trace_id", body["trace_id"].clone()).is_none(),
                "{path} reached the API"
            );
        }
    })
    .await;
}

#[tokio::test]
async fn the_exchange_has_a_host_of_its_own() {
    for nginx in each() {
        let mirror = stub::mirror().await;
        let edge = Edge::start(&nginx, &mirror.to_string(), &[]).await;
        for (asked, arrives) in [
            ("/register", "/exchange/register"),
            ("/wallet/2/deposit", "/exchange/wallet/2/deposit"),
            ("/orders/2?limit=5", "/exchange/orders/2?limit=5"),
            ("/exchange/orders/2", "/exchange/orders/2"),
            ("/problems/invalid", "/problems/invalid"),
            ("/metrics", "/exchange/metrics"),
            ("/grafana/", "/exchange/grafana/"),
        ] {
            for key in [None, Some("a key")] {
                let request = edge.at("exchange.revwallet.com", Method::POST, asked);
                let request = key
                    .into_iter()
                    .fold(request, |request, key| request.header("idempotency-key", key));
                let answer = edge.public.send(request).await.json();
                assert_eq!(answer["path"], arrives, "{answer}");
                assert_eq!(answer["method"], "POST");
            }
        }
        edge.stop().await;
    }
}

#[tokio::test]
async fn the_commands_of_the_first_document_work_as_they_stand() {
    behind(&[], &[], async |_, edge| {
        let there = format!("revwallet.com:80:{}", edge.public.address);
        let curl = async |words: &[&str]| {
            let mut command = tokio::process::Command::new("curl");
            let output =
                command.args(["-sS", "--connect-to", &there]).args(words).output().await.unwrap();
            assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
            serde_json::from_slice::<Value>(&output.stdout).unwrap()
        };
        let wallet = json!({ "balance": 999.0, "currency": "EUR", "id": "1", "owner": "test2" });

        let none = curl(&["-X", "GET", "http://revwallet.com/wallet/"]).await;
        let body = r#"{"owner": "test2", "initial_balance": "999.00", "currency": "EUR"}"#;
        let json = "Content-Type: application/json";
        let made =
            curl(&["-X", "POST", "http://revwallet.com/wallet/", "-d", body, "-H", json]).await;
        let found = curl(&["-X", "GET", "http://revwallet.com/wallet/balance/1"]).await;
        let all = curl(&["-X", "GET", "http://revwallet.com/wallet/"]).await;

        assert_eq!(none, json!([]));
        assert_eq!((made, found), (wallet.clone(), wallet.clone()));
        assert_eq!(all, json!([wallet]));
    })
    .await;
}

#[tokio::test]
async fn nobody_can_say_that_they_come_from_elsewhere() {
    for nginx in each() {
        let mirror = stub::mirror().await;
        let edge = Edge::start(&nginx, &mirror.to_string(), &[]).await;
        for path in ["/wallet", "/", "/docs", "/api/users"] {
            let mut request = edge.at("revwallet.com", Method::GET, path);
            for (name, value) in [
                ("x-forwarded-for", "6.6.6.6"),
                ("x-real-ip", "6.6.6.6"),
                ("x-forwarded-proto", "https"),
                ("x-forwarded-host", "evil.example"),
                ("forwarded", "for=6.6.6.6"),
                ("upgrade", "websocket"),
            ] {
                request = request.header(name, value);
            }
            let seen = edge.public.send(request).await.json();

            let seen = &seen["headers"];
            assert_eq!(seen["x-forwarded-for"], json!(["127.0.0.1"]));
            assert_eq!(seen["x-real-ip"], json!(["127.0.0.1"]));
            assert_eq!(seen["x-forwarded-proto"], json!(["http"]));
            assert_eq!(seen["host"], json!(["revwallet.com"]));
            for gone in ["x-forwarded-host", "forwarded", "upgrade"] {
                assert_eq!(seen[gone], Value::Null, "{gone} came through");
            }
        }
        edge.stop().await;

        // Another proxy before this one is believed when its network is named, and only what it says last.
        let trusted = [("EDGE_TRUSTED_PROXIES", "127.0.0.0/8,10.0.0.0/8")];
        let edge = Edge::start(&nginx, &mirror.to_string(), &trusted).await;
        let request = edge.at("revwallet.com", Method::GET, "/wallet");
        let request = request.header("x-forwarded-for", "6.6.6.6, 9.9.9.9, 10.1.2.3");
        let seen = edge.public.send(request).await.json();
        assert_eq!(seen["headers"]["x-forwarded-for"], json!(["9.9.9.9"]));
        edge.stop().await;
    }
}

#[tokio::test]
async fn the_api_believes_the_edge_where_somebody_comes_from() {
    behind(
        &["--registrations-max=1"],
        &[("EDGE_TRUSTED_PROXIES", "127.0.0.1")],
        async |_, edge| {
            let register = async |name: &str, from: &str| {
                let email = format!("{name}@example.com");
                let body =
                    json!({ "username": name, "email": email, "password": "planted planted" });
                let request = edge.public.request(Method::POST, "/api/users/register").json(&body);
                edge.public.send(request.header("x-forwarded-for", from)).await.status
            };

            let mut waits = None;
            for name in ["ada", "bob", "cleo", "dora", "emil"] {
                waits = waits.or((register(name, "9.9.9.1").await == 429).then_some(name));
            }
            assert!(waits.is_some(), "one address has to wait at some time");
            assert_eq!(register("zoe", "9.9.9.2").await, 200, "another one has a limit of its own");
        },
    )
    .await;
}

#[tokio::test]
async fn a_share_of_requests_is_traced_when_the_caller_has_not_decided() {
    for (percent, flags) in [("0", "00"), ("100", "01")] {
        let mirror = stub::mirror().await;
        let settings = [("EDGE_TRACE_PERCENT", percent)];
        let nginx = each().next().unwrap();
        let edge = Edge::start(&nginx, &mirror.to_string(), &settings).await;
        let seen = edge.public.get("/wallet").await.json();
        let traceparent = seen["headers"]["traceparent"][0].as_str().unwrap().to_owned();
        assert!(traceparent.ends_with(&format!("-{flags}")), "{traceparent}");
        let (trace, span) = (&traceparent[3..35], &traceparent[36..52]);
        assert_eq!(span, &trace[..16], "what the program hangs on it later finds it there");
        edge.stop().await;
    }
}

#[tokio::test]
async fn a_connection_becomes_a_socket_where_that_is_meant() {
    let upgrade = |path: &str| {
        format!(
            "GET {path} HTTP/1.1\r\nhost: revwallet.com\r\nconnection: Upgrade\r\nupgrade: WebSocket\r\n\
             sec-websocket-key: dGhlIHNhbXBsZSBub25jZQ==\r\nsec-websocket-version: 13\r\n\r\n"
        )
    };
    for nginx in each() {
        let behind = stub::upgrading().await;
        let edge = Edge::start(&nginx, &behind.to_string(), &[]).await;
        for path in ["/ws", "/ws?event_type=game-outcomes&userID=2"] {
            let mut stream = tokio::net::TcpStream::connect(edge.public.address).await.unwrap();
            stream.write_all(upgrade(path).as_bytes()).await.unwrap();
            let mut answer = String::new();
            eventually("the other side agrees", async || {
                let mut part = [0; 4096];
                let count = stream.read(&mut part).await.unwrap();
                answer.push_str(&String::from_utf8_lossy(&part[..count]));
                answer.ends_with("\r\n\r\n")
            })
            .await;
            assert!(answer.starts_with("HTTP/1.1 101 "), "{answer}");

            let frame = [0x81, 0x02, b'h', b'i', 0xff, 0x00];
            stream.write_all(&frame).await.unwrap();
            let mut back = [0; 6];
            stream.read_exact(&mut back).await.unwrap();
            assert_eq!(back, frame, "bytes go through as they are, both ways");
        }
        // Elsewhere nobody is asked to change.
        let mut plain = upgrade("/wallet");
        plain.truncate(plain.len() - 2);
        let answer = edge
            .raw(
                &format!("{plain}content-length: 0\r\n\r\n")
                    .replace("connection: Upgrade", "connection: close, Upgrade"),
            )
            .await;
        assert!(answer.starts_with("HTTP/1.1 426 "), "{answer}");
        edge.stop().await;
    }
}

#[test]
fn every_setting_that_start_reads_is_told_of_in_it() {
    let text = crate::files::read("nginx/start");
    let mut words: Vec<&str> = text
        .split(|c: char| !c.is_ascii_uppercase() && c != '_')
        .filter(|word| word.starts_with("EDGE_"))
        .collect();
    words.sort_unstable();
    words.dedup();
    assert!(words.len() > 15);
    for word in words {
        assert!(text.contains(&format!("\n#   {word} ")), "{word} is not explained");
    }
    let mut checked = Command::new("sh");
    checked.args(["-n", "nginx/start"]).current_dir(crate::files::root());
    assert!(checked.status().unwrap().success());
}
