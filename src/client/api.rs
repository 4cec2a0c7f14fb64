//! Sends HTTP requests with a credential and idempotency keys to a server, and turns the problem documents of failed
//! requests into error messages.

use std::time::Duration;

use anyhow::{Context, anyhow, bail};
use http::header::{AUTHORIZATION, CONTENT_TYPE, LINK};
use http::{HeaderMap, Method, StatusCode};
use reqwest::redirect::Policy;
use serde::Deserialize;
use serde_json::Value;
use serde_json::value::RawValue;
use url::Url;
use uuid::Uuid;

use super::document::{Document, table};
use super::server::Server;
use crate::output::OutputArgs;

/// Longest time that a response may take. By default, the server gives up on a request before this.
const TIMEOUT: Duration = Duration::from_mins(1);

/// Maximum number of entries that the server returns in a page of a list.
const PAGE_MAX: usize = 1_000;

/// Maximum number of characters that an error message quotes from a response without a problem document.
const UNKNOWN_BODY_MAX: usize = 200;

/// A client of one server.
pub(super) struct Api {
    http: reqwest::Client,
    server: Server,
}

/// A problem document, which describes an error in a response of the server.
#[derive(Deserialize)]
struct Problem {
    detail: String,
}

impl Api {
    pub(super) fn new(server: Server) -> anyhow::Result<Self> {
        // Installation fails if a provider is already installed, which is harmless because it is the same provider.
        let _installed = rustls::crypto::ring::default_provider().install_default();
        let http = reqwest::Client::builder()
            .user_agent(concat!("revwallet/", env!("CARGO_PKG_VERSION")))
            .timeout(TIMEOUT)
            .redirect(Policy::none())
            .build()?;
        Ok(Self { http, server })
    }

    /// Gets a JSON object.
    pub(super) async fn get(&self, path: &str) -> anyhow::Result<Box<RawValue>> {
        let (_, body) = self.send(Method::GET, self.url(path)?, None, None).await?;
        parse(&body)
    }

    /// Gets a list that the server returns in a single response, without pagination.
    pub(super) async fn get_list(&self, path: &str) -> anyhow::Result<Vec<Box<RawValue>>> {
        let (_, body) = self.send(Method::GET, self.url(path)?, None, None).await?;
        serde_json::from_str(&body).context("the response of the server is not a list")
    }

    /// Gets at most `limit` entries of a list, page by page.
    pub(super) async fn list(
        &self,
        path: &str,
        query: &[(&str, String)],
        limit: usize,
    ) -> anyhow::Result<Vec<Box<RawValue>>> {
        let mut url = self.url(path)?;
        url.query_pairs_mut().append_pair("limit", &limit.min(PAGE_MAX).to_string());
        for (name, value) in query {
            url.query_pairs_mut().append_pair(name, value);
        }
        let mut entries: Vec<Box<RawValue>> = Vec::new();
        loop {
            let (headers, body) = self.send(Method::GET, url, None, None).await?;
            let page: Vec<Box<RawValue>> =
                serde_json::from_str(&body).context("the response of the server is not a list")?;
            entries.extend(page);
            match next_page(&headers) {
                Some(next) if entries.len() < limit => url = self.url(&next)?,
                _ => break,
            }
        }
        entries.truncate(limit);
        Ok(entries)
    }

    /// Sends a request that is safe to repeat, because a repetition has no further effect.
    pub(super) async fn change(
        &self,
        method: Method,
        path: &str,
        body: Option<&Value>,
    ) -> anyhow::Result<String> {
        Ok(self.send(method, self.url(path)?, body, None).await?.1)
    }

    /// Sends a request that takes effect only once for each idempotency key. If a retry may succeed, the error contains
    /// the key, so that the user can repeat the command with this key.
    pub(super) async fn post_once(
        &self,
        path: &str,
        body: &Value,
        key: Option<String>,
    ) -> anyhow::Result<Box<RawValue>> {
        let key = key.unwrap_or_else(|| Uuid::new_v4().to_string());
        let sent = self.send(Method::POST, self.url(path)?, Some(body), Some(&key)).await;
        let (_, body) = sent.map_err(|cause| match cause.downcast() {
            Ok(Refused(why)) => anyhow!(why),
            Err(cause) => anyhow!("{cause:#}; to repeat the request, add --idempotency-key {key}"),
        })?;
        parse(&body)
    }

    fn url(&self, path: &str) -> anyhow::Result<Url> {
        Ok(self.server.url.join(path.trim_start_matches('/'))?)
    }

    async fn send(
        &self,
        method: Method,
        url: Url,
        body: Option<&Value>,
        key: Option<&str>,
    ) -> anyhow::Result<(HeaderMap, String)> {
        let mut request = self.http.request(method, url);
        if let Some(credential) = &self.server.key {
            request = request.header(AUTHORIZATION, format!("Bearer {}", credential.reveal()));
        }
        if let Some(key) = key {
            request = request.header("idempotency-key", key);
        }
        if let Some(body) = body {
            request = request.header(CONTENT_TYPE, "application/json").body(body.to_string());
        }
        let server = self.server.url.as_str().trim_end_matches('/');
        let unreachable = || format!("the server at {server} does not respond");
        let response = request.send().await.map_err(reqwest::Error::without_url);
        let response = response.with_context(unreachable)?;
        let (status, headers) = (response.status(), response.headers().clone());
        let text = response.text().await.map_err(reqwest::Error::without_url);
        let text = text.with_context(unreachable)?;
        if status.is_client_error() && status != StatusCode::TOO_MANY_REQUESTS {
            return Err(Refused(problem(status, &text)).into());
        }
        if !status.is_success() {
            bail!("{}", problem(status, &text));
        }
        Ok((headers, text))
    }
}

/// Error for a request that the server refuses and would refuse again.
#[derive(Debug, thiserror::Error)]
#[error("{0}")]
struct Refused(String);

/// Prints an object.
pub(super) fn print_object(json: Box<RawValue>, output: OutputArgs) -> anyhow::Result<()> {
    output.print(json, Ok, |json| Ok(Document::parse(json)?.lines()))
}

/// Prints a list. The text output is a table with a column for each of the given members.
pub(super) fn print_list(
    entries: Vec<Box<RawValue>>,
    columns: &[&str],
    output: OutputArgs,
) -> anyhow::Result<()> {
    output.print(entries, Ok, |entries| {
        let rows = entries.iter().map(|entry| Document::parse(entry));
        Ok(table(&rows.collect::<anyhow::Result<Vec<_>>>()?, columns))
    })
}

fn parse(body: &str) -> anyhow::Result<Box<RawValue>> {
    serde_json::from_str(body).context("the response of the server is not JSON")
}

/// Returns an error message for a failed response: the status, and the detail of the problem document. If the response
/// has no problem document, the message quotes the beginning of its text instead.
fn problem(status: StatusCode, text: &str) -> String {
    if let Ok(problem) = serde_json::from_str::<Problem>(text) {
        return format!("the server responded with {}: {}", status.as_u16(), problem.detail);
    }
    let text: String = text.trim().chars().take(UNKNOWN_BODY_MAX).collect();
    format!("the server responded with {status}: {text}").trim_end_matches([':', ' ']).to_owned()
}

/// Returns the URL of the next page, from the `Link` header; `None` on the last page.
fn next_page(headers: &HeaderMap) -> Option<String> {
    let links = headers.get(LINK)?.to_str().ok()?;
    let next = links.split(", ").find(|link| link.contains("rel=\"next\""))?;
    Some(next.strip_prefix('<')?.split_once('>')?.0.to_owned())
}

/// Adds a member to a JSON body, if there is a value for the member.
pub(super) fn with_member(mut body: Value, name: &str, value: Option<String>) -> Value {
    if let (Some(members), Some(value)) = (body.as_object_mut(), value) {
        members.insert(name.to_owned(), Value::String(value));
    }
    body
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_problem_is_told_by_its_detail() {
        let json = r#"{"title":"Invalid request","detail":"/amount: must be more than zero"}"#;
        let status = StatusCode::UNPROCESSABLE_ENTITY;

        let expected = "the server responded with 422: /amount: must be more than zero";
        assert_eq!(problem(status, json), expected);
        let status = StatusCode::BAD_GATEWAY;
        assert_eq!(problem(status, ""), "the server responded with 502 Bad Gateway");
        assert_eq!(problem(status, "oops"), "the server responded with 502 Bad Gateway: oops");
    }

    #[test]
    fn the_next_page_is_the_one_of_the_link() {
        let mut headers = HeaderMap::new();
        assert_eq!(next_page(&headers), None);
        let link = "</wallet?limit=2&after=2>; rel=\"next\"";
        headers.insert(LINK, link.parse().expect("the header is valid"));

        assert_eq!(next_page(&headers).as_deref(), Some("/wallet?limit=2&after=2"));
    }
}
