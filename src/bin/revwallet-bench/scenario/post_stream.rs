//! Deposits over gRPC streams, with and without idempotency keys.

use std::collections::VecDeque;
use std::convert::Infallible;
use std::time::Instant;

use anyhow::{Context, ensure};
use bytes::{Buf, Bytes, BytesMut};
use futures_util::{StreamExt, stream};
use http::Request;
use http_body_util::{BodyExt, StreamBody};
use hyper::body::Frame;
use hyper::client::conn::http2;
use hyper_util::rt::{TokioExecutor, TokioIo};
use prost::Message;
use revwallet::grpc::proto::post_item::Operation;
use revwallet::grpc::proto::post_result::Outcome;
use revwallet::grpc::proto::{DepositRequest, PostItem, PostStreamRequest, PostStreamResponse};
use tokio::net::TcpStream;
use tokio::sync::mpsc;
use tokio::task::JoinSet;

use super::grpc::{PLAYERS, PREFIX_BYTES, spawn, with_prefix};
use crate::context::BenchContext;
use crate::load::latency::LatencyHistogram;
use crate::report::{ReportSection, TargetBound};
use crate::resource_usage::ResourceMonitor;
use crate::samples::{LoadResult, LoadSample, PairedSamples};

const STREAMS: usize = 8;

/// Number of deposits in each request.
const ITEMS: usize = 256;

/// Maximum number of requests in flight on a stream.
const AHEAD: usize = 2;

/// Number of rounds. The report contains the median of each measurement.
const TURNS: u32 = 5;

pub(super) async fn measure(
    context: &BenchContext,
    address: &str,
    monitor: &ResourceMonitor,
    section: &mut ReportSection,
) -> anyhow::Result<()> {
    let mut samples = PairedSamples::default();
    for turn in 1..=TURNS {
        tracing::info!(
            "measuring deposits over streams, without and with idempotency keys, round {turn} of {TURNS}"
        );
        let unkeyed = LoadSample::from(monitor.measure(run(context, address, false)).await?);
        let keyed = LoadSample::from(monitor.measure(run(context, address, true)).await?);
        samples.push(unkeyed, keyed);
    }
    let labels = ["deposits over streams, without keys", "deposits over streams, with keys"];
    let measurements = samples.into_measurements(labels, STREAMS)?;
    for (measurement, bound) in measurements.iter().zip([100_000.0, 60_000.0]) {
        let label = format!("{}, per second", measurement.label);
        section.add_target(&label, measurement.result.rate, TargetBound::AtLeast(bound));
    }
    section.measurements.extend(measurements);
    Ok(())
}

async fn run(context: &BenchContext, address: &str, has_keys: bool) -> anyhow::Result<LoadResult> {
    let (began, end) = (Instant::now(), Instant::now() + context.args.duration);
    let mut tasks = JoinSet::new();
    for number in 0..STREAMS {
        let address = address.to_owned();
        let prefix = has_keys.then(|| format!("{number}-{:x}", fastrand::u64(..)));
        tasks.spawn(async move { post(&address, prefix, end).await });
    }
    LoadResult::join(tasks, began, 1.0).await
}

/// Posts deposits over one stream until `end`, and waits for all responses.
async fn post(
    address: &str,
    key_prefix: Option<String>,
    end: Instant,
) -> anyhow::Result<LatencyHistogram> {
    let socket = TcpStream::connect(address).await?;
    socket.set_nodelay(true)?;
    let (mut sender, connection) =
        http2::handshake(TokioExecutor::new(), TokioIo::new(socket)).await?;
    spawn(connection);
    let (requests, outgoing) = mpsc::channel::<Bytes>(AHEAD);
    let frames = stream::unfold(outgoing, async |mut outgoing| {
        let bytes = outgoing.recv().await?;
        Some((Ok::<_, Infallible>(Frame::data(bytes)), outgoing))
    });
    let request = Request::post("http://localhost/revwallet.v1.WalletService/PostStream")
        .header("content-type", "application/grpc")
        .header("te", "trailers")
        .body(StreamBody::new(frames.boxed()))?;
    let response = sender.send_request(request).await?;
    ensure!(response.status() == 200, "a stream returned {}", response.status());
    let mut body = response.into_body();
    let (mut latencies, mut buffer) = (LatencyHistogram::default(), BytesMut::new());
    let mut waiting = VecDeque::new();
    let mut next = 0;
    loop {
        while waiting.len() < AHEAD && Instant::now() < end {
            let message = request_of(&mut next, key_prefix.as_deref());
            waiting.push_back(Instant::now());
            requests.send(with_prefix(&message)).await?;
        }
        let Some(sent_at) = waiting.pop_front() else { return Ok(latencies) };
        let message = loop {
            if let Some(message) = take_message(&mut buffer)? {
                break message;
            }
            let frame = body.frame().await.context("the stream ended early")??;
            buffer.extend_from_slice(frame.data_ref().context("the stream failed")?);
        };
        let all_posted = message.results.iter().all(
            |result| matches!(&result.outcome, Some(Outcome::Posted(posted)) if !posted.replayed),
        );
        ensure!(message.results.len() == ITEMS && all_posted, "an item was not posted");
        for _ in 0..ITEMS {
            latencies.record(sent_at.elapsed());
        }
    }
}

fn request_of(next: &mut u64, key_prefix: Option<&str>) -> PostStreamRequest {
    let items = (0..ITEMS).map(|_| {
        *next += 1;
        let user_id = format!("p{}", fastrand::usize(..PLAYERS));
        let deposit = DepositRequest { user_id, amount: 1, currency: String::new() };
        let idempotency_key =
            key_prefix.map(|prefix| format!("{prefix}-{next}")).unwrap_or_default();
        PostItem { idempotency_key, operation: Some(Operation::Deposit(deposit)) }
    });
    PostStreamRequest { items: items.collect() }
}

/// Takes the first message from the buffer, if the whole message has arrived.
fn take_message(buffer: &mut BytesMut) -> anyhow::Result<Option<PostStreamResponse>> {
    let Some(prefix) = buffer.first_chunk::<PREFIX_BYTES>() else { return Ok(None) };
    let [_flag, a, b, c, d] = *prefix;
    let length = usize::try_from(u32::from_be_bytes([a, b, c, d]))?;
    if buffer.len() < PREFIX_BYTES + length {
        return Ok(None);
    }
    buffer.advance(PREFIX_BYTES);
    Ok(Some(PostStreamResponse::decode(buffer.split_to(length))?))
}
