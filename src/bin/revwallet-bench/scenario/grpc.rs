//! Scenario `grpc`: reads of a player's balance over gRPC, relative to the same reads over HTTP. Both clients use the
//! same library.

use std::time::Instant;

use anyhow::{Context, ensure};
use bytes::{BufMut, Bytes, BytesMut};
use http::{HeaderMap, Request, Response};
use http_body_util::{BodyExt, Full};
use hyper::body::Incoming;
use hyper::client::conn::{http1, http2};
use hyper_util::rt::{TokioExecutor, TokioIo};
use prost::Message;
use revwallet::grpc::proto::{GetBalanceRequest, GetBalanceResponse};
use tokio::net::TcpStream;
use tokio::task::JoinSet;

use super::post_stream;
use crate::book::BenchBook;
use crate::context::BenchContext;
use crate::load::latency::LatencyHistogram;
use crate::report::{ReportSection, TargetBound};
use crate::samples::{LoadResult, LoadSample, PairedSamples};
use crate::verification::verify_book;

const CONNECTIONS: usize = 64;

/// Number of players whose balance is read.
pub(super) const PLAYERS: usize = 1_000;

/// Number of rounds. The report contains the median of each measurement.
const TURNS: u32 = 5;

/// Number of bytes before each gRPC message: one for the compression flag, and four for the length.
pub(super) const PREFIX_BYTES: usize = 5;

/// Balance of each player, in minor units.
const BALANCE: i64 = 100;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Protocol {
    Http,
    Grpc,
}

/// A connection over either HTTP or gRPC.
enum Connection {
    Http(http1::SendRequest<Full<Bytes>>),
    Grpc(http2::SendRequest<Full<Bytes>>),
}

pub(super) async fn measure(context: &BenchContext) -> anyhow::Result<ReportSection> {
    let book = BenchBook::create(&context.postgres, "grpc").await?;
    let server = context.start_server(&book).await?;
    let mut connection = Connection::open(&server.address, Protocol::Http).await?;
    for player in 0..PLAYERS {
        let body = format!("{{\"userId\":\"p{player}\",\"amount\":{BALANCE}}}");
        let request = Request::post("/api/wallet/deposit").body(Full::from(body))?;
        let (response, _trailers) = connection.exchange(request).await?;
        ensure!(response.status() == 200, "a deposit returned {}", response.status());
    }
    let monitor = context.monitor(&[server.id()]);
    let mut samples = PairedSamples::default();
    for turn in 1..=TURNS {
        tracing::info!("measuring balances over HTTP, then over gRPC, round {turn} of {TURNS}");
        let [http, grpc] = [Protocol::Http, Protocol::Grpc]
            .map(|protocol| monitor.measure(run(context, &server.address, protocol)));
        let (http, grpc) = (LoadSample::from(http.await?), LoadSample::from(grpc.await?));
        samples.push(http, grpc);
    }
    let mut section = ReportSection::default();
    section.add_target(
        "balances over gRPC, relative to HTTP",
        samples.median_ratio(LoadSample::rate),
        TargetBound::AtLeast(0.65),
    );
    let labels = ["balances of players over HTTP", "balances of players over gRPC"];
    section.measurements.extend(samples.into_measurements(labels, CONNECTIONS)?);
    post_stream::measure(context, &server.address, &monitor, &mut section).await?;
    server.kill().await?;
    section.add_note(format!("Streams: {}.", verify_book(&book).await?));
    Ok(section)
}

/// Reads balances as fast as the connections allow.
async fn run(
    context: &BenchContext,
    address: &str,
    protocol: Protocol,
) -> anyhow::Result<LoadResult> {
    let mut connections = Vec::new();
    for _ in 0..CONNECTIONS {
        connections.push(Connection::open(address, protocol).await?);
    }
    let (began, end) = (Instant::now(), Instant::now() + context.args.duration);
    let mut tasks = JoinSet::new();
    for mut connection in connections {
        tasks.spawn(async move {
            let mut latencies = LatencyHistogram::default();
            while Instant::now() < end {
                let sent_at = Instant::now();
                connection.read_balance(fastrand::usize(..PLAYERS)).await?;
                latencies.record(sent_at.elapsed());
            }
            Ok(latencies)
        });
    }
    LoadResult::join(tasks, began, 1.0).await
}

impl Connection {
    async fn open(address: &str, protocol: Protocol) -> anyhow::Result<Self> {
        let stream = TcpStream::connect(address).await?;
        stream.set_nodelay(true)?;
        let io = TokioIo::new(stream);
        Ok(match protocol {
            Protocol::Http => {
                let (sender, connection) = http1::handshake(io).await?;
                spawn(connection);
                Self::Http(sender)
            }
            Protocol::Grpc => {
                let (sender, connection) = http2::handshake(TokioExecutor::new(), io).await?;
                spawn(connection);
                Self::Grpc(sender)
            }
        })
    }

    async fn read_balance(&mut self, player: usize) -> anyhow::Result<()> {
        let request = match self {
            Self::Http(_) => Request::get(format!("/api/wallet/balance/p{player}"))
                .header("host", "localhost")
                .body(Full::default())?,
            Self::Grpc(_) => {
                let message =
                    GetBalanceRequest { user_id: format!("p{player}"), currency: String::new() };
                Request::post("http://localhost/revwallet.v1.WalletService/GetBalance")
                    .header("content-type", "application/grpc")
                    .header("te", "trailers")
                    .body(Full::from(with_prefix(&message)))?
            }
        };
        let is_grpc = matches!(self, Self::Grpc(_));
        let (response, trailers) = self.exchange(request).await?;
        ensure!(response.status() == 200, "a balance returned {}", response.status());
        let body = response.into_body();
        if is_grpc {
            let status = trailers.get("grpc-status").context("no status")?;
            ensure!(status == "0", "a balance returned the status {status:?}");
            let message = body.get(PREFIX_BYTES..).context("no message")?;
            let balance = GetBalanceResponse::decode(message)?.balance;
            ensure!(balance == BALANCE, "the balance is {balance}");
        } else {
            let expected = format!("\"balance\":{BALANCE},");
            let text = std::str::from_utf8(&body)?;
            ensure!(text.contains(&expected), "the balance is {text}");
        }
        Ok(())
    }

    /// Sends a request, and returns its whole response with the trailers.
    async fn exchange(
        &mut self,
        request: Request<Full<Bytes>>,
    ) -> anyhow::Result<(Response<Bytes>, HeaderMap)> {
        let response: Response<Incoming> = match self {
            Self::Http(sender) => {
                sender.ready().await?;
                sender.send_request(request).await?
            }
            Self::Grpc(sender) => {
                sender.ready().await?;
                sender.send_request(request).await?
            }
        };
        let (parts, body) = response.into_parts();
        let collected = body.collect().await?;
        let trailers = collected.trailers().cloned().unwrap_or_default();
        Ok((Response::from_parts(parts, collected.to_bytes()), trailers))
    }
}

/// Runs the I/O of a connection in the background, until the client drops the handle that sends requests.
#[expect(clippy::disallowed_methods, reason = "ends with the client of the connection")]
pub(super) fn spawn<E: std::fmt::Display>(
    connection: impl Future<Output = Result<(), E>> + Send + 'static,
) {
    tokio::spawn(async move {
        if let Err(cause) = connection.await {
            tracing::warn!("a connection of the load generator failed: {cause}");
        }
    });
}

/// Encodes a message with the prefix that gRPC requires.
pub(super) fn with_prefix(message: &impl Message) -> Bytes {
    let mut bytes = BytesMut::with_capacity(PREFIX_BYTES + message.encoded_len());
    bytes.put_u8(0);
    bytes.put_u32(u32::try_from(message.encoded_len()).unwrap_or(u32::MAX));
    bytes.extend_from_slice(&message.encode_to_vec());
    bytes.freeze()
}
