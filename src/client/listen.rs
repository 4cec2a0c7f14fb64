//! `revwallet webhook listen`: a receiver of webhooks on this machine.
//!
//! | step | what happens |
//! |---|---|
//! | register | the command opens a local HTTP listener, and creates a webhook for it on the server |
//! | receive | the command verifies, prints and forwards each delivery; it responds with the status that it got for the forwarded request, so that the server retries a delivery whose forwarding failed |
//! | stop | on SIGINT or SIGTERM, the command deletes the webhook |
//!
//! A delivery that arrives while the command stops is lost: the server does not retry it, because the webhook no longer
//! exists.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, anyhow};
use axum::Router;
use axum::extract::{DefaultBodyLimit, State};
use http::{HeaderMap, HeaderName, Method, StatusCode, header};
use reqwest::redirect::Policy;
use serde::{Deserialize, Serialize};
use serde_json::json;
use serde_json::value::RawValue;
use time::OffsetDateTime;
use tokio::net::TcpListener;
use tokio::signal::unix::{Signal, SignalKind, signal};
use url::Url;

use super::api::Api;
use crate::output::{OutputArgs, print_text};
use crate::secret::Secret;
use crate::webhook::signature::{self, SignedMessage};

/// Longest time that forwarding a delivery may take: shorter than the time that the server waits for the response to
/// the delivery.
const FORWARD_TIMEOUT: Duration = Duration::from_secs(8);

/// Largest delivery that is accepted, in bytes. The server's deliveries are far smaller.
const BODY_BYTES_MAX: usize = 1024 * 1024;

/// Hop-by-hop headers, which concern a single connection and are therefore not forwarded.
const HOP_HEADERS: [HeaderName; 4] =
    [header::HOST, header::CONTENT_LENGTH, header::CONNECTION, header::TRANSFER_ENCODING];

/// Options of `revwallet webhook listen`: where deliveries come from, and where they are forwarded to.
#[derive(Debug, Clone, clap::Args)]
pub struct ListenArgs {
    /// URL that each verified delivery is forwarded to; without it, deliveries are only printed.
    #[arg(long, value_name = "URL")]
    forward_to: Option<Url>,
    /// Events to receive, separated by commas.
    #[arg(long, value_delimiter = ',', default_value = "*")]
    events: Vec<String>,
    /// Address to receive deliveries on; with port 0, the operating system chooses a free port.
    #[arg(long, value_name = "ADDRESS", default_value = "127.0.0.1:0")]
    receive_on: SocketAddr,
    /// URL at which the server reaches this receiver, such as the URL of a tunnel [default: http:// and the address of
    /// --receive-on].
    #[arg(long, value_name = "URL")]
    receive_url: Option<Url>,
}

/// The webhook that the server created.
#[derive(Deserialize)]
struct Registered {
    id: String,
    secret: Secret,
}

/// A delivery, as it is printed with `--json`.
#[derive(Serialize)]
struct ReceivedBody<'a> {
    id: &'a str,
    /// Status of the response to the forwarded request; `None` if the delivery was not forwarded or got no response.
    forwarded_status: Option<u16>,
    event: &'a RawValue,
}

/// The type of the event in a delivery.
#[derive(Deserialize)]
struct EventKind {
    #[serde(rename = "type")]
    kind: String,
}

/// State that the handler of deliveries needs.
struct Receiver {
    http: reqwest::Client,
    secret: Secret,
    forward_to: Option<Url>,
    output: OutputArgs,
}

/// Registers a webhook with the server, and receives its deliveries until SIGINT or SIGTERM arrives.
pub(super) async fn run(api: &Api, args: &ListenArgs, output: OutputArgs) -> anyhow::Result<()> {
    let mut signals = [SignalKind::interrupt(), SignalKind::terminate()].map(signal);
    let [Ok(interrupt), Ok(terminate)] = &mut signals else {
        return Err(anyhow!("signals cannot be received"));
    };
    let socket = TcpListener::bind(args.receive_on).await;
    let socket =
        socket.with_context(|| format!("cannot receive on --receive-on {}", args.receive_on))?;
    let url = match &args.receive_url {
        Some(url) => url.clone(),
        None => Url::parse(&format!("http://{}/", socket.local_addr()?))?,
    };
    let Registered { id, secret } = register(api, &url, args).await?;
    let receiver = Receiver::new(secret, args.forward_to.clone(), output)?;
    report(&format!("webhook {id} delivers to {url}; Ctrl-C deletes it"));
    let served = tokio::select! {
        served = axum::serve(socket, receiver.into_router()) => served.context("cannot receive"),
        () = either(interrupt, terminate) => Ok(()),
    };
    let deleted = api.change(Method::DELETE, &format!("wallet/webhook/{id}"), None).await;
    deleted.with_context(|| {
        format!("webhook {id} was not deleted: run revwallet webhook delete {id}")
    })?;
    report(&format!("webhook {id} is deleted"));
    served
}

async fn either(first: &mut Signal, second: &mut Signal) {
    tokio::select! {
        _ = first.recv() => {}
        _ = second.recv() => {}
    }
}

async fn register(api: &Api, url: &Url, args: &ListenArgs) -> anyhow::Result<Registered> {
    let body = json!({ "url": url.as_str(), "events": args.events });
    let created = api.post_once("wallet/webhook", &body, None).await.map_err(|cause| {
        let is_refused = cause.to_string().contains("--webhook-allow-private");
        let hint = if is_refused {
            ". This server delivers to public addresses only: start it with --webhook-allow-private, or give the URL of a tunnel as --receive-url"
        } else {
            ""
        };
        anyhow!("the receiver cannot be registered: {cause:#}{hint}")
    })?;
    serde_json::from_str(created.get()).context("the response of the server is not a webhook")
}

/// Prints a message for the user on standard error. Standard output is only for deliveries.
fn report(text: &str) {
    use std::io::Write;

    // If standard error is closed, the text cannot be reported.
    let _ignored = writeln!(std::io::stderr(), "{text}");
}

impl Receiver {
    fn new(secret: Secret, forward_to: Option<Url>, output: OutputArgs) -> anyhow::Result<Self> {
        let http = reqwest::Client::builder()
            .timeout(FORWARD_TIMEOUT)
            .redirect(Policy::none())
            .no_proxy()
            .build()?;
        Ok(Self { http, secret, forward_to, output })
    }

    fn into_router(self) -> Router {
        Router::new()
            .fallback(receive)
            .layer(DefaultBodyLimit::max(BODY_BYTES_MAX))
            .with_state(Arc::new(self))
    }

    /// Forwards a delivery with its headers. Returns the status of the response, or `None` if there was no response.
    async fn forward(&self, url: &Url, mut headers: HeaderMap, body: String) -> Option<StatusCode> {
        for name in HOP_HEADERS {
            headers.remove(name);
        }
        let sent = self.http.post(url.clone()).headers(headers).body(body).send().await;
        match sent {
            Ok(response) => Some(response.status()),
            Err(cause) => {
                let cause = anyhow::Error::new(cause.without_url());
                report(&format!("{url} does not respond: {cause:#}"));
                None
            }
        }
    }

    fn print(&self, id: &str, status: Option<StatusCode>, body: &str) -> anyhow::Result<()> {
        if self.output.json {
            let event = serde_json::from_str(body)?;
            let forwarded_status = status.map(|status| status.as_u16());
            // Each delivery is one JSON document on one line.
            let received = ReceivedBody { id, forwarded_status, event };
            return print_text(&serde_json::to_string(&received)?);
        }
        let EventKind { kind } = serde_json::from_str(body)?;
        let status = status.map(|status| format!(" -> {}", status.as_u16())).unwrap_or_default();
        print_text(&format!("{id} {kind}{status}\n{body}"))
    }
}

/// Handles a delivery from the server. Responds with the status that the forwarded request got, so that the server
/// retries the delivery if forwarding failed.
async fn receive(
    State(receiver): State<Arc<Receiver>>,
    headers: HeaderMap,
    body: String,
) -> StatusCode {
    let header = |name: &str| headers.get(name)?.to_str().ok().map(str::to_owned);
    let id = header("webhook-id").unwrap_or_default();
    let message = SignedMessage {
        id: &id,
        timestamp: &header("webhook-timestamp").unwrap_or_default(),
        signatures: &header("webhook-signature").unwrap_or_default(),
        body: &body,
    };
    let now = OffsetDateTime::now_utc().unix_timestamp();
    if let Err(cause) = signature::verify(&message, &receiver.secret, now) {
        report(&format!("refused a request: {cause}"));
        return StatusCode::UNAUTHORIZED;
    }
    let (status, answer) = match &receiver.forward_to {
        None => (None, StatusCode::NO_CONTENT),
        Some(url) => {
            let status = receiver.forward(url, headers, body.clone()).await;
            (status, status.unwrap_or(StatusCode::BAD_GATEWAY))
        }
    };
    if let Err(cause) = receiver.print(&id, status, &body) {
        report(&format!("a delivery cannot be printed: {cause:#}"));
    }
    answer
}
