//! Runbooks behind the edge: the links in alerts, for console users only.

use reqwest::Method;

use crate::harness::alerts::runbook_paths;
use crate::harness::{Response, run_with};
use crate::nginx::{Edge, TRUSTED_PROXIES, nginx_versions};

async fn get(edge: &Edge, path: &str, password: Option<&str>) -> Response {
    let request = edge.public.request(Method::GET, path).header("accept", "text/html");
    let request = match password {
        Some(password) => request.basic_auth("admin", Some(password)),
        None => request,
    };
    edge.public.send(request).await
}

#[tokio::test]
async fn every_alert_links_to_a_page_for_console_users() {
    for nginx in nginx_versions() {
        run_with(&[TRUSTED_PROXIES], async |app| {
            // The first process is down: the next one serves the page.
            let internal = format!("127.0.0.1:1 {}", app.internal.address);
            let edge =
                Edge::start(&nginx, &app.address.to_string(), &[("EDGE_RUNBOOKS", &internal)])
                    .await;
            let mut paths = runbook_paths();
            paths.extend(
                ["/runbooks", "/runbooks/operations", "/runbooks/style.css"].map(str::to_owned),
            );
            for path in &paths {
                for password in [None, Some("wrong")] {
                    let refused = get(&edge, path, password).await;
                    assert_eq!(refused.status, 401, "{path}");
                    assert_eq!(refused.header("www-authenticate"), "Basic realm=\"revwallet\"");
                }
                let page = get(&edge, path, Some("admin")).await;
                assert_eq!(page.status, 200, "{path}");
                let policy = page.header("content-security-policy");
                assert!(
                    path.ends_with("style.css") || policy.contains("default-src 'none'"),
                    "{path}"
                );
            }
            edge.stop().await;
        })
        .await;
    }
}

#[tokio::test]
async fn no_other_path_of_the_internal_listener_is_published() {
    for nginx in nginx_versions() {
        run_with(&[TRUSTED_PROXIES], async |app| {
            let internal = app.internal.address.to_string();
            assert_eq!(app.internal.get("/readyz").await.status, 200);
            let edge =
                Edge::start(&nginx, &app.address.to_string(), &[("EDGE_RUNBOOKS", &internal)]).await;
            for path in [
                "/metrics",
                "/readyz",
                "/runbooks/../metrics",
                "/runbooks/%2e%2e/metrics",
                "/runbooks/..%2freadyz",
                "/metrics/../runbooks",
                "/readyz?/runbooks",
                "/runbooks/NoSuchAlert",
            ] {
                let response = edge
                    .raw(&format!(
                        "GET {path} HTTP/1.1\r\nhost: a\r\nconnection: close\r\nauthorization: Basic YWRtaW46YWRtaW4=\r\n\r\n"
                    ))
                    .await;
                assert!(response.starts_with("HTTP/1.1 404 "), "{path}: {response}");
            }
            let post = edge.public.request(Method::POST, "/runbooks/DatabaseDown");
            let response = edge.public.send(post.basic_auth("admin", Some("admin"))).await;
            assert_eq!(response.status, 404);
            edge.stop().await;
        })
        .await;
    }
}
