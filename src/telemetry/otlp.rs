//! Sending spans by OTLP over gRPC.

use std::time::Duration;

use anyhow::Context as _;
use bytes::{Buf, BufMut, Bytes};
use http::uri::PathAndQuery;
use tonic::client::Grpc;
use tonic::codec::{Codec, DecodeBuf, Decoder, EncodeBuf, Encoder};
use tonic::transport::{Channel, Endpoint};
use tonic::{Code, Request, Status};

use super::TelemetryArgs;
use super::protobuf::{bytes, first, message};
use super::push::{Answer, REQUEST_BYTES_MAX, Receiver};

const EXPORT: &str = "/opentelemetry.proto.collector.trace.v1.TraceService/Export";

/// Longest that one attempt may take.
const TIMEOUT: Duration = Duration::from_secs(5);

/// Spans gather for so long.
pub(super) const GATHER: Duration = Duration::from_secs(1);

/// Takes spans as [`super::spans`] writes them.
pub(super) struct Collector {
    channel: Grpc<Channel>,
    /// Who the spans are of, before them in every request.
    resource: Vec<u8>,
    scope: Vec<u8>,
}

impl Collector {
    /// Connects when there is something to send; within a runtime.
    pub(super) fn new(endpoint: &str, args: &TelemetryArgs) -> anyhow::Result<Self> {
        let address = Endpoint::from_shared(endpoint.to_owned())
            .ok()
            .filter(|address| address.uri().scheme_str() == Some("http"))
            .with_context(|| {
                format!("--otlp-endpoint `{endpoint}` is not usable: give `http://host:port`")
            })?;
        let channel = Grpc::new(address.timeout(TIMEOUT).connect_timeout(TIMEOUT).connect_lazy());
        let (mut resource, mut scope) = (Vec::new(), Vec::new());
        message(&mut resource, 1, |resource| {
            for (name, value) in [
                ("service.name", env!("CARGO_PKG_NAME")),
                ("service.version", env!("CARGO_PKG_VERSION")),
                ("deployment.environment.name", &args.environment),
            ] {
                message(resource, 1, |attribute| {
                    bytes(attribute, 1, name.as_bytes());
                    message(attribute, 2, |out| bytes(out, 1, value.as_bytes()));
                });
            }
        });
        message(&mut scope, 1, |scope| bytes(scope, 1, env!("CARGO_PKG_NAME").as_bytes()));
        Ok(Self { channel, resource, scope })
    }

    fn request(&self, spans: &[u8]) -> Bytes {
        let mut request = Vec::with_capacity(spans.len() + 512);
        message(&mut request, 1, |of_resource| {
            of_resource.extend(&self.resource);
            message(of_resource, 2, |of_scope| {
                of_scope.extend(&self.scope);
                of_scope.extend_from_slice(spans);
            });
        });
        request.into()
    }
}

impl Receiver for Collector {
    fn part(&self, spans: &[u8]) -> (usize, u64) {
        let (mut end, mut count) = (0, 0);
        while end < spans.len() {
            let next = end + first(&spans[end..]);
            if next > REQUEST_BYTES_MAX && count > 0 {
                break;
            }
            (end, count) = (next, count + 1);
        }
        (end, count)
    }

    async fn send(&mut self, spans: &[u8]) -> Answer {
        let request = Request::new(self.request(spans));
        if self.channel.ready().await.is_err() {
            return Answer::Away;
        }
        let path = PathAndQuery::from_static(EXPORT);
        match self.channel.unary(request, path, Plain).await {
            // What it turns away of a request that it took, it counts itself.
            Ok(_) => Answer::Taken,
            Err(status) if is_passing(&status) => Answer::Away,
            Err(_) => Answer::Refused,
        }
    }
}

/// As the protocol has it: after these the same may be tried again.
fn is_passing(status: &Status) -> bool {
    matches!(
        status.code(),
        Code::Cancelled
            | Code::DeadlineExceeded
            | Code::Aborted
            | Code::OutOfRange
            | Code::Unavailable
            | Code::DataLoss
            // What tonic makes of a connection that ended.
            | Code::Unknown
    )
}

/// Messages that are bytes already.
struct Plain;

impl Codec for Plain {
    type Encode = Bytes;
    type Decode = Bytes;
    type Encoder = Self;
    type Decoder = Self;

    fn encoder(&mut self) -> Self {
        Self
    }

    fn decoder(&mut self) -> Self {
        Self
    }
}

impl Encoder for Plain {
    type Item = Bytes;
    type Error = Status;

    fn encode(&mut self, message: Bytes, out: &mut EncodeBuf<'_>) -> Result<(), Status> {
        out.put(message);
        Ok(())
    }
}

impl Decoder for Plain {
    type Item = Bytes;
    type Error = Status;

    fn decode(&mut self, from: &mut DecodeBuf<'_>) -> Result<Option<Bytes>, Status> {
        Ok(Some(from.copy_to_bytes(from.remaining())))
    }
}

#[cfg(test)]
mod tests {
    use clap::Parser;
    use opentelemetry_proto::tonic::collector::trace::v1::ExportTraceServiceRequest;
    use prost::Message;

    use super::*;

    #[derive(Parser)]
    struct Cli {
        #[command(flatten)]
        telemetry: TelemetryArgs,
    }

    fn collector() -> Collector {
        let args = Cli::parse_from(["revwallet", "--environment=test"]).telemetry;
        let runtime = tokio::runtime::Runtime::new().expect("one can be made");
        let _here = runtime.enter();
        Collector::new("http://127.0.0.1:1", &args).expect("it can be used")
    }

    fn span(name: &str) -> Vec<u8> {
        let mut span = Vec::new();
        message(&mut span, 2, |span| bytes(span, 5, name.as_bytes()));
        span
    }

    #[test]
    fn a_request_says_who_its_spans_are_of() {
        let spans = [span("one"), span("two")].concat();

        let request = collector().request(&spans);

        let request = ExportTraceServiceRequest::decode(request).expect("a request");
        let [of_resource] = &request.resource_spans[..] else { panic!("{request:?}") };
        let resource = format!("{:?}", of_resource.resource);
        assert!(resource.contains("deployment.environment.name") && resource.contains("test"));
        let names = of_resource.scope_spans[0].spans.iter().map(|span| &span.name);
        assert_eq!(names.collect::<Vec<_>>(), ["one", "two"]);
    }

    #[test]
    fn a_request_holds_as_many_as_fit() {
        let spans = span(&"long".repeat(300)).repeat(1_000);

        let (end, count) = collector().part(&spans);

        assert!(end <= REQUEST_BYTES_MAX && end + span("").len() + 1_200 > REQUEST_BYTES_MAX);
        let (rest, others) = collector().part(&spans[end..]);
        assert_eq!((end + rest, count + others), (spans.len(), 1_000));
        assert_eq!(collector().part(&span(&"long".repeat(REQUEST_BYTES_MAX))).1, 1);
    }
}
