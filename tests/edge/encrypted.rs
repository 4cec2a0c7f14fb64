//! The edge with TLS, and gRPC over HTTP/2.

use http_body_util::BodyExt;
use reqwest::{Client, Method, Version};

use crate::harness::{eventually, free_address};
use crate::nginx::{Edge, newest_nginx, run_behind_nginx};
use crate::stub;

/// Writes a self-signed certificate for revwallet.com and its key.
fn certificate(folder: &std::path::Path) -> rcgen::Certificate {
    let key = rcgen::KeyPair::generate().unwrap();
    let names = vec!["revwallet.com".to_owned(), "exchange.revwallet.com".to_owned()];
    let certificate = rcgen::CertificateParams::new(names).unwrap().self_signed(&key).unwrap();
    std::fs::write(folder.join("certificate.pem"), certificate.pem()).unwrap();
    std::fs::write(folder.join("key.pem"), key.serialize_pem()).unwrap();
    certificate
}

#[tokio::test]
async fn with_a_certificate_everything_is_encrypted() {
    let folder = crate::harness::program::Folder::new();
    let certificate = certificate(&folder.0);
    let path = |name: &str| folder.0.join(name).display().to_string();
    let (crt, key) = (path("certificate.pem"), path("key.pem"));
    let settings = [("EDGE_TLS_CERTIFICATE", crt.as_str()), ("EDGE_TLS_KEY", key.as_str())];
    run_behind_nginx(&[], &settings, async |app, edge| {
        let root = reqwest::Certificate::from_der(certificate.der()).unwrap();
        let client = Client::builder()
            .tls_certs_only([root])
            .resolve("revwallet.com", edge.tls)
            .resolve("exchange.revwallet.com", edge.tls)
            .build()
            .unwrap();
        let url = |host: &str, path: &str| format!("https://{host}:{}{path}", edge.tls.port());
        for host in ["revwallet.com", "exchange.revwallet.com"] {
            let response = client.get(url(host, "/problems/invalid")).send().await.unwrap();
            assert_eq!(response.status(), 200);
            assert_eq!(response.version(), Version::HTTP_2);
            assert_eq!(response.headers()["strict-transport-security"], "max-age=31536000");
        }
        let id = "over-tls";
        let response = client.get(url("revwallet.com", "/wallet")).header("x-request-id", id);
        assert_eq!(response.send().await.unwrap().text().await.unwrap(), "[]");
        // The answer arrives before its line: a line says how long the whole answer took.
        eventually("the program logs the request", async || {
            app.logs.find("request_id", id).is_some()
        })
        .await;
        assert!(edge.line(id).await["tls"].as_str().unwrap().starts_with("TLSv1."));

        let response = edge
            .raw("POST /wallet?a=b HTTP/1.1\r\nhost: revwallet.com\r\nconnection: close\r\n\r\n")
            .await;
        assert!(response.starts_with("HTTP/1.1 308 "), "{response}");
        assert!(
            response.contains("\r\nLocation: https://revwallet.com/wallet?a=b\r\n"),
            "{response}"
        );
    })
    .await;
}

/// Returns a client that uses HTTP/2 without negotiation, as a gRPC client does.
fn http2_client() -> Client {
    Client::builder().http2_prior_knowledge().build().unwrap()
}

#[tokio::test]
async fn grpc_reaches_the_api_with_its_path_and_trailers() {
    let Some(nginx) = newest_nginx() else { return };
    let upstream = stub::grpc_echo().await;
    let edge = Edge::start(&nginx, &upstream.to_string(), &[]).await;
    let path = "/revwallet.v1.WalletService/GetBalance";
    let url = format!("http://{}{path}", edge.public.address);
    let request =
        http2_client().request(Method::POST, url).header("content-type", "application/grpc");
    let response = request.header("te", "trailers").body("request").send().await.unwrap();
    assert_eq!(response.status(), 200);
    let response: http::Response<reqwest::Body> = response.into();
    let body = response.into_body().collect().await.unwrap();
    let trailers = body.trailers().expect("the response has trailers").clone();
    assert_eq!(body.to_bytes(), "request");
    let trailer = |name: &str| trailers[name].to_str().unwrap().to_owned();
    assert_eq!(trailer("grpc-status"), "0");
    assert_eq!(trailer("received-forwarded-for"), "127.0.0.1");
    assert_eq!(trailer("received-traceparent").len(), 55);
    let mut line = None;
    eventually("the request is logged", async || {
        line = edge.lines().into_iter().find(|line| line["path"] == path);
        line.is_some()
    })
    .await;
    assert_eq!(line.unwrap()["protocol"], "HTTP/2.0");

    // Other requests on the same port are not affected.
    let response =
        http2_client().get(format!("http://{}/metrics", edge.public.address)).send().await.unwrap();
    assert_eq!(response.status(), 404);
    assert_eq!(response.headers()["content-type"], "application/problem+json");
    edge.stop().await;
}

#[tokio::test]
async fn an_unreachable_api_is_a_grpc_status_for_grpc_clients() {
    let Some(nginx) = newest_nginx() else { return };
    let edge = Edge::start(&nginx, &free_address().to_string(), &[]).await;
    let url = format!("http://{}/revwallet.v1.WalletService/GetBalance", edge.public.address);
    let request =
        http2_client().request(Method::POST, url).header("content-type", "application/grpc");
    let response = request.header("te", "trailers").body("x").send().await.unwrap();
    assert_eq!(response.status(), 200);
    assert_eq!(response.headers()["content-type"], "application/grpc");
    assert_eq!(response.headers()["grpc-status"], "14");
    assert_eq!(response.text().await.unwrap(), "");
    edge.stop().await;
}
