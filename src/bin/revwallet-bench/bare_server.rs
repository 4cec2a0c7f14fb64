//! A bare axum server in a separate process, which shows the cost of HTTP alone. It parses each deposit, responds with
//! a recorded response of the server under test, and does nothing else.

use std::io::Write;
use std::process::Stdio;
use std::sync::Arc;

use anyhow::{Context, ensure};
use axum::Router;
use axum::body::Bytes;
use axum::extract::State;
use axum::http::{HeaderMap, HeaderName, HeaderValue, StatusCode};
use axum::routing::post;
use serde::{Deserialize, Serialize};
use tokio::io::{AsyncBufReadExt, AsyncWriteExt, BufReader};
use tokio::net::TcpListener;
use tokio::process::{Child, Command};

/// Headers that axum adds to each response, and that are therefore not copied from the recorded response.
const OWN_HEADERS: [&str; 2] = ["content-length", "date"];

/// A response of the server under test to a deposit.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct RecordedResponse {
    /// Names of the headers in lower case, and their values.
    pub headers: Vec<(String, String)>,
    pub body: String,
}

/// A running bare server, killed when dropped.
pub(crate) struct BareServer {
    child: Child,
    pub address: String,
}

/// The recorded response, converted to the types that axum sends.
struct PreparedResponse {
    headers: HeaderMap,
    body: Bytes,
}

/// Request body of a deposit.
#[derive(Deserialize)]
struct DepositBody<'a> {
    id: &'a str,
    amount: &'a str,
}

impl BareServer {
    /// Starts this program again, as a bare server.
    pub(crate) async fn start(response: &RecordedResponse) -> anyhow::Result<Self> {
        let mut child = Command::new(std::env::current_exe()?)
            .arg("--serve-bare")
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .kill_on_drop(true)
            .spawn()
            .context("cannot start the bare server")?;
        let mut input = child.stdin.take().context("standard input is piped")?;
        input.write_all(&serde_json::to_vec(response)?).await?;
        drop(input);
        let output = child.stdout.take().context("standard output is piped")?;
        let mut address = String::new();
        BufReader::new(output).read_line(&mut address).await?;
        ensure!(!address.is_empty(), "the bare server exited before it listened");
        Ok(Self { child, address: address.trim().to_owned() })
    }

    pub(crate) fn id(&self) -> u32 {
        self.child.id().unwrap_or_default()
    }
}

/// Reads a recorded response from standard input, writes the address of the server to standard output, and serves until
/// the process is killed.
pub(crate) async fn serve() -> anyhow::Result<()> {
    let recorded: RecordedResponse = serde_json::from_reader(std::io::stdin())?;
    let response = Arc::new(PreparedResponse::try_from(recorded)?);
    let router = Router::new().route("/wallet/deposit", post(deposit)).with_state(response);
    let socket = TcpListener::bind("127.0.0.1:0").await?;
    writeln!(std::io::stdout(), "{}", socket.local_addr()?)?;
    axum::serve(socket, router).await.context("the bare server failed")
}

async fn deposit(
    State(response): State<Arc<PreparedResponse>>,
    body: Bytes,
) -> (StatusCode, HeaderMap, Bytes) {
    match serde_json::from_slice(&body) {
        Ok(DepositBody { id, amount }) if !id.is_empty() && !amount.is_empty() => {
            (StatusCode::OK, response.headers.clone(), response.body.clone())
        }
        _ => (StatusCode::BAD_REQUEST, HeaderMap::new(), Bytes::new()),
    }
}

impl TryFrom<RecordedResponse> for PreparedResponse {
    type Error = anyhow::Error;

    fn try_from(recorded: RecordedResponse) -> anyhow::Result<Self> {
        let headers = recorded.headers.iter();
        let headers = headers.filter(|(name, _)| !OWN_HEADERS.contains(&name.as_str()));
        let headers = headers
            .map(|(name, value)| Ok((name.parse::<HeaderName>()?, HeaderValue::from_str(value)?)));
        Ok(Self { headers: headers.collect::<anyhow::Result<_>>()?, body: recorded.body.into() })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_recorded_response_is_sent_without_the_headers_that_the_server_writes() {
        let headers = [("date", "now"), ("content-length", "2"), ("book-position", "p1")];
        let headers = headers.map(|(name, value)| (name.to_owned(), value.to_owned()));
        let recorded = RecordedResponse { headers: headers.to_vec(), body: "{}".into() };

        let prepared = PreparedResponse::try_from(recorded).unwrap();

        assert_eq!(prepared.headers.len(), 1);
        assert_eq!(prepared.headers["book-position"], "p1");
        assert_eq!(prepared.body, "{}");
    }
}
