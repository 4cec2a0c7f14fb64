//! The edge with a certificate, and HTTP/2 with what needs it.

use http_body_util::BodyExt;
use reqwest::{Client, Method, Version};

use crate::harness::{eventually, free_address};
use crate::nginx::{Edge, behind, newest};
use crate::stub;

/// A certificate for revwallet.com that nobody else has signed, and its key.
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
    behind(&[], &settings, async |app, edge| {
        let root = reqwest::Certificate::from_der(certificate.der()).unwrap();
        let client = Client::builder()
            .tls_certs_only([root])
            .resolve("revwallet.com", edge.tls)
            .resolve("exchange.revwallet.com", edge.tls)
            .build()
            .unwrap();
        let url = |host: &str, path: &str| format!("https://{host}:{}{path}", edge.tls.port());
        for host in ["revwallet.com", "exchange.revwallet.com"] {
            let answer = client.get(url(host, "/problems/invalid")).send().await.unwrap();
            assert_eq!(answer.status(), 200);
            assert_eq!(answer.version(), Version::HTTP_2);
            assert_eq!(answer.headers()["strict-transport-security"], "max-age=31536000");
        }
        let id = "over-tls";
        let answer = client.get(url("revwallet.com", "/wallet")).header("x-request-id", id);
        assert_eq!(answer.send().await.unwrap().text().await.unwrap(), "[]");
        assert!(app.logs.find("request_id", id).is_some());
        assert!(edge.line(id).await["tls"].as_str().unwrap().starts_with("TLSv1."));

        let answer = edge
            .raw("POST /wallet?a=b HTTP/1.1\r\nhost: revwallet.com\r\nconnection: close\r\n\r\n")
            .await;
        assert!(answer.starts_with("HTTP/1.1 308 "), "{answer}");
        assert!(answer.contains("\r\nLocation: https://revwallet.com/wallet?a=b\r\n"), "{answer}");
    })
    .await;
}

/// Speaks HTTP/2 at once, as a gRPC client does.
fn prior() -> Client {
    Client::builder().http2_prior_knowledge().build().unwrap()
}

#[tokio::test]
async fn grpc_reaches_the_api_by_its_path_with_its_trailers() {
    let Some(nginx) = newest() else { return };
    let behind = stub::grpc().await;
    let edge = Edge::start(&nginx, &behind.to_string(), &[]).await;
    let path = "/revwallet.v1.WalletService/GetBalance";
    let url = format!("http://{}{path}", edge.public.address);
    let request = prior().request(Method::POST, url).header("content-type", "application/grpc");
    let answer = request.header("te", "trailers").body("question").send().await.unwrap();
    assert_eq!(answer.status(), 200);
    let answer: http::Response<reqwest::Body> = answer.into();
    let whole = answer.into_body().collect().await.unwrap();
    let trailers = whole.trailers().expect("they come through").clone();
    assert_eq!(whole.to_bytes(), "question");
    let trailer = |name: &str| trailers[name].to_str().unwrap().to_owned();
    assert_eq!(trailer("grpc-status"), "0");
    assert_eq!(trailer("seen-forwarded-for"), "127.0.0.1");
    assert_eq!(trailer("seen-traceparent").len(), 55);
    let mut line = None;
    eventually("the log tells of it", async || {
        line = edge.lines().into_iter().find(|line| line["path"] == path);
        line.is_some()
    })
    .await;
    assert_eq!(line.unwrap()["protocol"], "HTTP/2.0");

    // Anything else on the same port is what it was.
    let answer =
        prior().get(format!("http://{}/metrics", edge.public.address)).send().await.unwrap();
    assert_eq!(answer.status(), 404);
    assert_eq!(answer.headers()["content-type"], "application/problem+json");
    edge.stop().await;
}

#[tokio::test]
async fn grpc_is_told_in_its_own_words_that_nobody_is_there() {
    let Some(nginx) = newest() else { return };
    let edge = Edge::start(&nginx, &free_address().to_string(), &[]).await;
    let url = format!("http://{}/revwallet.v1.WalletService/GetBalance", edge.public.address);
    let request = prior().request(Method::POST, url).header("content-type", "application/grpc");
    let answer = request.header("te", "trailers").body("x").send().await.unwrap();
    assert_eq!(answer.status(), 200);
    assert_eq!(answer.headers()["content-type"], "application/grpc");
    assert_eq!(answer.headers()["grpc-status"], "14");
    assert_eq!(answer.text().await.unwrap(), "");
    edge.stop().await;
}
