//! An HTTP client of the API, with responses that are easy to assert on.

use std::net::SocketAddr;
use std::time::Duration;

use reqwest::header::HeaderMap;
use reqwest::{Method, RequestBuilder};
use serde_json::Value;

use super::contract;

/// Time after which an idle connection is not used again: well before the server closes it, so that no request meets the
/// end of its connection.
const IDLE_MAX: Duration = Duration::from_secs(5);

#[derive(Clone)]
pub struct Client {
    pub address: SocketAddr,
    http: reqwest::Client,
    /// The bearer token or API key.
    credential: Option<String>,
}

/// A response with its body in memory.
#[derive(Debug)]
pub struct Response {
    pub status: u16,
    pub headers: HeaderMap,
    pub text: String,
}

impl Client {
    pub fn new(address: SocketAddr) -> Self {
        // The first call installs the provider for the process; no test client uses TLS through it.
        let _installed = rustls::crypto::ring::default_provider().install_default();
        let http = reqwest::Client::builder().pool_idle_timeout(IDLE_MAX).build().unwrap();
        Self { address, http, credential: None }
    }

    /// Returns a copy of this client that sends a token or an API key.
    pub fn with_credential(&self, credential: &str) -> Self {
        Self { credential: Some(credential.to_owned()), ..self.clone() }
    }

    /// Returns the token or API key, or an empty string.
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

    pub async fn get(&self, path: &str) -> Response {
        self.send(self.request(Method::GET, path)).await
    }

    pub async fn post(&self, path: &str, body: Value) -> Response {
        self.send(self.request(Method::POST, path).json(&body)).await
    }

    /// Posts with an idempotency key.
    pub async fn post_with_key(&self, path: &str, key: &str, body: Value) -> Response {
        let request = self.request(Method::POST, path).json(&body);
        self.send(request.header("idempotency-key", key)).await
    }

    pub async fn send(&self, request: RequestBuilder) -> Response {
        Self::try_send(request).await.unwrap()
    }

    /// Returns the status, or `None` if the server does not respond.
    pub async fn try_status(&self, path: &str) -> Option<u16> {
        Self::try_send(self.request(Method::GET, path)).await.ok().map(|response| response.status)
    }

    pub async fn try_send(request: RequestBuilder) -> reqwest::Result<Response> {
        let (client, request) = request.build_split();
        let request = request?;
        let (method, path) = (request.method().clone(), request.url().path().to_owned());
        let response = client.execute(request).await?;
        let (status, headers) = (response.status().as_u16(), response.headers().clone());
        let response = Response { status, headers, text: response.text().await? };
        contract::check(method.as_str(), &path, &response);
        Ok(response)
    }
}

impl Response {
    pub fn json(&self) -> Value {
        serde_json::from_str(&self.text).unwrap_or_else(|_| panic!("not JSON: {}", self.text))
    }

    pub fn header(&self, name: &str) -> &str {
        self.headers.get(name).map_or("", |value| value.to_str().unwrap())
    }

    /// Asserts that the response is the given problem, and returns its body.
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
