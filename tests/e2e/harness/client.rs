//! A client of the API, with answers that are easy to assert on.

use std::net::SocketAddr;

use reqwest::header::HeaderMap;
use reqwest::{Method, RequestBuilder};
use serde_json::Value;

#[derive(Clone)]
pub struct Client {
    pub address: SocketAddr,
    http: reqwest::Client,
    /// Who it says it is.
    credential: Option<String>,
}

/// What came back.
#[derive(Debug)]
pub struct Answer {
    pub status: u16,
    pub headers: HeaderMap,
    pub text: String,
}

impl Client {
    pub fn new(address: SocketAddr) -> Self {
        // Whoever is first makes it the process's own; nothing here speaks TLS.
        let _installed = rustls::crypto::ring::default_provider().install_default();
        Self { address, http: reqwest::Client::new(), credential: None }
    }

    /// The same client with a token or a key.
    pub fn with(&self, credential: &str) -> Self {
        Self { credential: Some(credential.to_owned()), ..self.clone() }
    }

    /// What it says who it is with.
    pub fn credential(&self) -> &str {
        self.credential.as_deref().unwrap_or_default()
    }

    pub fn request(&self, method: Method, path: &str) -> RequestBuilder {
        let request = self.http.request(method, format!("http://{}{path}", self.address));
        match &self.credential {
            Some(credential) => request.bearer_auth(credential),
            None => request,
        }
    }

    pub async fn get(&self, path: &str) -> Answer {
        self.send(self.request(Method::GET, path)).await
    }

    pub async fn post(&self, path: &str, body: Value) -> Answer {
        self.send(self.request(Method::POST, path).json(&body)).await
    }

    /// The same with an idempotency key.
    pub async fn keyed(&self, path: &str, key: &str, body: Value) -> Answer {
        let request = self.request(Method::POST, path).json(&body);
        self.send(request.header("idempotency-key", key)).await
    }

    pub async fn send(&self, request: RequestBuilder) -> Answer {
        Self::try_send(request).await.unwrap()
    }

    /// The status, or nothing when nobody answers.
    pub async fn try_status(&self, path: &str) -> Option<u16> {
        Self::try_send(self.request(Method::GET, path)).await.ok().map(|answer| answer.status)
    }

    pub async fn try_send(request: RequestBuilder) -> reqwest::Result<Answer> {
        let response = request.send().await?;
        let (status, headers) = (response.status().as_u16(), response.headers().clone());
        Ok(Answer { status, headers, text: response.text().await? })
    }
}

impl Answer {
    pub fn json(&self) -> Value {
        serde_json::from_str(&self.text).unwrap_or_else(|_| panic!("no JSON: {}", self.text))
    }

    pub fn header(&self, name: &str) -> &str {
        self.headers.get(name).map_or("", |value| value.to_str().unwrap())
    }

    /// Asserts that this is the problem of that name; returns its body.
    pub fn problem(&self, status: u16, slug: &str) -> Value {
        assert_eq!(self.status, status, "{}", self.text);
        assert_eq!(self.header("content-type"), "application/problem+json");
        let body = self.json();
        assert_eq!(body["type"], format!("/problems/{slug}"), "{body}");
        assert_eq!(body["status"], status);
        assert_eq!(
            self.headers.contains_key("retry-after"),
            [429, 502, 503, 504].contains(&status)
        );
        body
    }
}
