//! Routing of the edge: paths that reach the API, paths that do not, and forwarding headers.

use std::process::Command;

use reqwest::Method;
use serde_json::{Value, json};
use tokio::io::{AsyncReadExt, AsyncWriteExt};

use crate::harness::newman::newman;
use crate::harness::{TestApp, eventually};
use crate::nginx::{Edge, nginx_versions, run_behind_nginx};
use crate::stub;

/// Sends a request through the edge, waits until the API logs it, and returns the log line.
async fn request_via_edge(
    app: &TestApp,
    edge: &Edge,
    host: &str,
    method: Method,
    path: &str,
) -> Value {
    let response = edge.public.send(edge.request_to(host, method, path)).await;
    let id = response.header("x-request-id").to_owned();
    let mut found = None;
    eventually(&format!("{host}{path} reaches the API"), async || {
        let mut lines = app.logs.lines().into_iter();
        found =
            lines.find(|line| line["event"] == "http.request" && line["request_id"] == id.as_str());
        found.is_some()
    })
    .await;
    found.unwrap()
}

#[tokio::test]
async fn every_route_of_the_document_reaches_the_api() {
    run_behind_nginx(&[], &[], async |app, edge| {
        let document = app.get("/openapi.json").await.json();
        let paths = document["paths"].as_object().unwrap();
        assert!(paths.len() > 20);
        for (path, methods) in paths {
            for method in methods.as_object().unwrap().keys() {
                let method: Method = method.to_uppercase().parse().unwrap();
                let mut filled = path.clone();
                while let (Some(from), Some(to)) = (filled.find('{'), filled.find('}')) {
                    filled.replace_range(from..=to, "1");
                }
                let line = request_via_edge(app, edge, "revwallet.com", method, &filled).await;
                assert_eq!(line["http.route"], path.as_str());
            }
        }
    })
    .await;
}

#[tokio::test]
async fn pages_and_reserved_paths_reach_the_api() {
    run_behind_nginx(&[], &[], async |app, edge| {
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
            "/store",
            "/exchange",
        ] {
            request_via_edge(app, edge, "revwallet.com", Method::GET, path).await;
            let (direct, proxied) = (app.get(path).await, edge.public.get(path).await);
            assert_eq!(proxied.status, direct.status, "{path}");
            for header in ["content-type", "cache-control", "content-security-policy"] {
                assert_eq!(proxied.header(header), direct.header(header), "{path}: {header}");
            }
            if direct.status == 200 {
                assert_eq!(proxied.text, direct.text, "{path}");
            }
        }
    })
    .await;
}

#[tokio::test]
async fn other_paths_do_not_reach_the_api() {
    run_behind_nginx(&[], &[], async |app, edge| {
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
        ] {
            let request =
                format!("GET {path} HTTP/1.1\r\nhost: revwallet.com\r\nconnection: close\r\n\r\n");
            let response = edge.raw(&request).await;
            assert!(response.starts_with("HTTP/1.1 404 "), "{path}: {response}");
            assert!(response.contains("Content-Type: application/problem+json\r\n"), "{path}");
            let body: Value =
                serde_json::from_str(response.split("\r\n\r\n").nth(1).unwrap()).unwrap();
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
    for nginx in nginx_versions() {
        let echo = stub::echo().await;
        let edge = Edge::start(&nginx, &echo.to_string(), &[]).await;
        for (requested, forwarded) in [
            ("/register", "/exchange/register"),
            ("/wallet/2/deposit", "/exchange/wallet/2/deposit"),
            ("/orders/2?limit=5", "/exchange/orders/2?limit=5"),
            ("/exchange/orders/2", "/exchange/orders/2"),
            ("/exchange", "/exchange"),
            ("/api/orders?limit=5", "/api/orders?limit=5"),
            ("/ws", "/ws"),
            ("/apiary", "/exchange/apiary"),
            ("/problems/invalid", "/problems/invalid"),
            ("/metrics", "/exchange/metrics"),
            ("/grafana/", "/exchange/grafana/"),
        ] {
            for key in [None, Some("a key")] {
                let request = edge.request_to("exchange.revwallet.com", Method::POST, requested);
                let request = key
                    .into_iter()
                    .fold(request, |request, key| request.header("idempotency-key", key));
                let response = edge.public.send(request).await.json();
                assert_eq!(response["path"], forwarded, "{response}");
                assert_eq!(response["method"], "POST");
            }
        }
        edge.stop().await;
    }
}

#[tokio::test]
async fn the_postman_collection_passes_at_the_host_of_the_exchange() {
    run_behind_nginx(&[], &[], async |_, edge| {
        let port = edge.public.address.port();
        let base = format!("http://exchange.localhost:{port}");
        let output = newman(&base, &[]).await;
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stdout));
    })
    .await;
}

#[tokio::test]
async fn the_documented_curl_commands_work_unchanged() {
    run_behind_nginx(&[], &[], async |_, edge| {
        let target = format!("revwallet.com:80:{}", edge.public.address);
        let curl = async |arguments: &[&str]| {
            let mut command = tokio::process::Command::new("curl");
            let output = command
                .args(["-sS", "--connect-to", &target])
                .args(arguments)
                .output()
                .await
                .unwrap();
            assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
            serde_json::from_slice::<Value>(&output.stdout).unwrap()
        };
        let wallet = json!({ "balance": 999.0, "currency": "EUR", "id": "1", "owner": "test2" });

        let empty = curl(&["-X", "GET", "http://revwallet.com/wallet/"]).await;
        let body = r#"{"owner": "test2", "initial_balance": "999.00", "currency": "EUR"}"#;
        let json = "Content-Type: application/json";
        let created =
            curl(&["-X", "POST", "http://revwallet.com/wallet/", "-d", body, "-H", json]).await;
        let found = curl(&["-X", "GET", "http://revwallet.com/wallet/balance/1"]).await;
        let all = curl(&["-X", "GET", "http://revwallet.com/wallet/"]).await;

        assert_eq!(empty, json!([]));
        assert_eq!((created, found), (wallet.clone(), wallet.clone()));
        assert_eq!(all, json!([wallet]));
    })
    .await;
}

#[tokio::test]
async fn clients_cannot_forge_their_address() {
    for nginx in nginx_versions() {
        let echo = stub::echo().await;
        let edge = Edge::start(&nginx, &echo.to_string(), &[]).await;
        for path in ["/wallet", "/", "/docs", "/api/users"] {
            let mut request = edge.request_to("revwallet.com", Method::GET, path);
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
            let received = edge.public.send(request).await.json();

            let headers = &received["headers"];
            assert_eq!(headers["x-forwarded-for"], json!(["127.0.0.1"]));
            assert_eq!(headers["x-real-ip"], json!(["127.0.0.1"]));
            assert_eq!(headers["x-forwarded-proto"], json!(["http"]));
            assert_eq!(headers["host"], json!(["revwallet.com"]));
            for removed in ["x-forwarded-host", "forwarded", "upgrade"] {
                assert_eq!(headers[removed], Value::Null, "{removed} was forwarded");
            }
        }
        edge.stop().await;

        // Of a trusted proxy in front of the edge, only the last untrusted address is accepted.
        let trusted = [("EDGE_TRUSTED_PROXIES", "127.0.0.0/8,10.0.0.0/8")];
        let edge = Edge::start(&nginx, &echo.to_string(), &trusted).await;
        let request = edge.request_to("revwallet.com", Method::GET, "/wallet");
        let request = request.header("x-forwarded-for", "6.6.6.6, 9.9.9.9, 10.1.2.3");
        let received = edge.public.send(request).await.json();
        assert_eq!(received["headers"]["x-forwarded-for"], json!(["9.9.9.9"]));
        edge.stop().await;
    }
}

#[tokio::test]
async fn the_api_trusts_the_client_address_from_the_edge() {
    run_behind_nginx(
        &["--registrations-max=1"],
        &[("EDGE_TRUSTED_PROXIES", "127.0.0.1")],
        async |_, edge| {
            let register = async |name: &str, from: &str| {
                let email = format!("{name}@example.com");
                let body =
                    json!({ "username": name, "email": email, "password": "test-secret twice" });
                let request = edge.public.request(Method::POST, "/api/users/register").json(&body);
                edge.public.send(request.header("x-forwarded-for", from)).await.status
            };

            let mut limited = None;
            for name in ["ada", "bob", "cleo", "dora", "emil"] {
                limited = limited.or((register(name, "9.9.9.1").await == 429).then_some(name));
            }
            assert!(limited.is_some(), "registrations from one address are not limited");
            assert_eq!(
                register("zoe", "9.9.9.2").await,
                200,
                "another address has a limit of its own"
            );
        },
    )
    .await;
}

#[tokio::test]
async fn requests_without_a_trace_are_sampled_at_the_configured_rate() {
    for (percent, flags) in [("0", "00"), ("100", "01")] {
        let echo = stub::echo().await;
        let settings = [("EDGE_TRACE_PERCENT", percent)];
        let nginx = nginx_versions().next().unwrap();
        let edge = Edge::start(&nginx, &echo.to_string(), &settings).await;
        let received = edge.public.get("/wallet").await.json();
        let traceparent = received["headers"]["traceparent"][0].as_str().unwrap().to_owned();
        assert!(traceparent.ends_with(&format!("-{flags}")), "{traceparent}");
        let (trace, span) = (&traceparent[3..35], &traceparent[36..52]);
        assert_eq!(span, &trace[..16], "webhook spans derive their parent from the trace id");
        edge.stop().await;
    }
}

#[tokio::test]
async fn websocket_paths_are_upgraded_and_others_are_not() {
    let upgrade = |path: &str| {
        format!(
            "GET {path} HTTP/1.1\r\nhost: revwallet.com\r\nconnection: Upgrade\r\nupgrade: WebSocket\r\n\
             sec-websocket-key: dGhlIHNhbXBsZSBub25jZQ==\r\nsec-websocket-version: 13\r\n\r\n"
        )
    };
    for nginx in nginx_versions() {
        let upstream = stub::websocket_echo().await;
        let edge = Edge::start(&nginx, &upstream.to_string(), &[]).await;
        for path in ["/ws", "/ws?event_type=game-outcomes&userID=2"] {
            let mut stream = tokio::net::TcpStream::connect(edge.public.address).await.unwrap();
            stream.write_all(upgrade(path).as_bytes()).await.unwrap();
            let mut response = String::new();
            eventually("the connection is upgraded", async || {
                let mut part = [0; 4096];
                let count = stream.read(&mut part).await.unwrap();
                response.push_str(&String::from_utf8_lossy(&part[..count]));
                response.ends_with("\r\n\r\n")
            })
            .await;
            assert!(response.starts_with("HTTP/1.1 101 "), "{response}");

            let frame = [0x81, 0x02, b'h', b'i', 0xff, 0x00];
            stream.write_all(&frame).await.unwrap();
            let mut echoed = [0; 6];
            stream.read_exact(&mut echoed).await.unwrap();
            assert_eq!(echoed, frame, "bytes are changed on their way");
        }
        // On other paths the upgrade is not forwarded.
        let mut plain = upgrade("/wallet");
        plain.truncate(plain.len() - 2);
        let response = edge
            .raw(
                &format!("{plain}content-length: 0\r\n\r\n")
                    .replace("connection: Upgrade", "connection: close, Upgrade"),
            )
            .await;
        assert!(response.starts_with("HTTP/1.1 426 "), "{response}");
        edge.stop().await;
    }
}

#[test]
fn every_setting_of_nginx_start_is_documented_in_it() {
    let text = crate::files::read("nginx/start");
    let mut settings: Vec<&str> = text
        .split(|c: char| !c.is_ascii_uppercase() && c != '_')
        .filter(|word| word.starts_with("EDGE_"))
        .collect();
    settings.sort_unstable();
    settings.dedup();
    assert!(settings.len() > 15);
    for setting in settings {
        assert!(text.contains(&format!("\n#   {setting} ")), "{setting} is not documented");
    }
    let mut syntax_check = Command::new("sh");
    syntax_check.args(["-n", "nginx/start"]).current_dir(crate::files::root());
    assert!(syntax_check.status().unwrap().success());
}
