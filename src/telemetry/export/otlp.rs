//! Export of spans to a trace collector, over the protocol OTLP/gRPC.

use std::time::Duration;

use anyhow::Context as _;
use bytes::{BufMut, Bytes};
use http::uri::PathAndQuery;
use opentelemetry_proto::tonic::collector::trace::v1::ExportTraceServiceResponse;
use opentelemetry_proto::tonic::common::v1::any_value::Value;
use opentelemetry_proto::tonic::common::v1::{AnyValue, InstrumentationScope, KeyValue};
use opentelemetry_proto::tonic::resource::v1::Resource;
use opentelemetry_proto::tonic::trace::v1::Span;
use prost::Message;
use tonic::client::Grpc;
use tonic::codec::{Codec, DecodeBuf, Decoder, EncodeBuf, Encoder};
use tonic::transport::{Channel, Endpoint};
use tonic::{Code, Request, Status};

use super::{ExportDestination, ExportOutcome, ExportRecord};

const EXPORT_PATH: &str = "/opentelemetry.proto.collector.trace.v1.TraceService/Export";

/// Longest time that an attempt to send spans may take.
const TIMEOUT: Duration = Duration::from_secs(5);

/// Time for which spans are collected before they are sent together.
pub(in crate::telemetry) const LINGER: Duration = Duration::from_secs(1);

/// A span, encoded for the collector. The thread that ends the span encodes it, so only a single allocation moves to
/// the exporter's thread.
pub(in crate::telemetry) struct EncodedSpan(pub(in crate::telemetry) Vec<u8>);

impl From<&Span> for EncodedSpan {
    fn from(span: &Span) -> Self {
        Self(span.encode_to_vec())
    }
}

impl ExportRecord for EncodedSpan {
    fn size_bytes(&self) -> usize {
        size_of::<Self>() + self.0.len()
    }
}

/// Counterpart of [`ExportTraceServiceRequest`] that contains encoded spans. Both have the same encoding, because
/// protobuf encodes an embedded message like a byte string.
///
/// [`ExportTraceServiceRequest`]: opentelemetry_proto::tonic::collector::trace::v1::ExportTraceServiceRequest
#[derive(Clone, PartialEq, Message)]
struct EncodedRequest {
    #[prost(message, repeated, tag = "1")]
    resource_spans: Vec<EncodedResourceSpans>,
}

#[derive(Clone, PartialEq, Message)]
struct EncodedResourceSpans {
    #[prost(message, optional, tag = "1")]
    resource: Option<Resource>,
    #[prost(message, repeated, tag = "2")]
    scope_spans: Vec<EncodedScopeSpans>,
}

#[derive(Clone, PartialEq, Message)]
struct EncodedScopeSpans {
    #[prost(message, optional, tag = "1")]
    scope: Option<InstrumentationScope>,
    #[prost(bytes = "vec", repeated, tag = "2")]
    spans: Vec<Vec<u8>>,
}

/// Sends spans to the trace service of a collector.
pub(in crate::telemetry) struct OtlpClient {
    channel: Grpc<Channel>,
    resource: Resource,
    scope: InstrumentationScope,
}

impl OtlpClient {
    /// Creates a client, which connects when it sends its first request. Must be called inside a runtime.
    pub(in crate::telemetry) fn new(endpoint: &str, environment: &str) -> anyhow::Result<Self> {
        let address = Endpoint::from_shared(endpoint.to_owned())
            .ok()
            .filter(|address| address.uri().scheme_str() == Some("http"))
            .with_context(|| {
                format!("--otlp-endpoint `{endpoint}` is not usable: give `http://host:port`")
            })?;
        let channel = Grpc::new(address.timeout(TIMEOUT).connect_timeout(TIMEOUT).connect_lazy());
        let attributes = [
            ("service.name", env!("CARGO_PKG_NAME")),
            ("service.version", env!("CARGO_PKG_VERSION")),
            ("deployment.environment.name", environment),
        ];
        let attributes =
            attributes.map(|(key, value)| attribute(key, Value::StringValue(value.to_owned())));
        let resource = Resource { attributes: attributes.into(), ..Resource::default() };
        let name = env!("CARGO_PKG_NAME").to_owned();
        let scope = InstrumentationScope { name, ..InstrumentationScope::default() };
        Ok(Self { channel, resource, scope })
    }

    /// Encodes a request that contains `spans`. The spans also stay in `spans`, because a retry needs them.
    fn encode(&self, spans: &mut [EncodedSpan]) -> Bytes {
        let moved = spans.iter_mut().map(|EncodedSpan(span)| std::mem::take(span)).collect();
        let scope_spans = EncodedScopeSpans { scope: Some(self.scope.clone()), spans: moved };
        let resource_spans = EncodedResourceSpans {
            resource: Some(self.resource.clone()),
            scope_spans: vec![scope_spans],
        };
        let mut request = EncodedRequest { resource_spans: vec![resource_spans] };
        let encoded = request.encode_to_vec();
        let moved = std::mem::take(&mut request.resource_spans[0].scope_spans[0].spans);
        for (EncodedSpan(span), moved) in spans.iter_mut().zip(moved) {
            *span = moved;
        }
        encoded.into()
    }
}

/// Creates an attribute of a span or a resource.
pub(in crate::telemetry) fn attribute(key: &str, value: Value) -> KeyValue {
    let value = Some(AnyValue { value: Some(value) });
    KeyValue { key: key.to_owned(), value, ..KeyValue::default() }
}

impl ExportDestination for OtlpClient {
    type Record = EncodedSpan;

    async fn send(&mut self, spans: &mut Vec<EncodedSpan>) -> ExportOutcome {
        let request = Request::new(self.encode(spans));
        if self.channel.ready().await.is_err() {
            return ExportOutcome::Unavailable;
        }
        let path = PathAndQuery::from_static(EXPORT_PATH);
        match self.channel.unary(request, path, ExportCodec).await {
            Ok(response) => {
                ExportOutcome::Accepted { rejected: rejected_spans(response.get_ref()) }
            }
            Err(status) if is_retryable(&status) => ExportOutcome::Unavailable,
            Err(_) => ExportOutcome::Rejected,
        }
    }
}

fn rejected_spans(response: &ExportTraceServiceResponse) -> u64 {
    let rejected = response.partial_success.as_ref().map_or(0, |partial| partial.rejected_spans);
    u64::try_from(rejected).unwrap_or_default()
}

/// Whether OTLP permits a retry of a request that failed with this status.
fn is_retryable(status: &Status) -> bool {
    matches!(
        status.code(),
        Code::Cancelled
            | Code::DeadlineExceeded
            | Code::Aborted
            | Code::OutOfRange
            | Code::Unavailable
            | Code::DataLoss
            // tonic reports this status if the connection was lost.
            | Code::Unknown
    )
}

/// Codec for a request that is already encoded. The standard codec of the gRPC library (tonic) would consume the spans,
/// which a retry still needs.
struct ExportCodec;

impl Codec for ExportCodec {
    type Encode = Bytes;
    type Decode = ExportTraceServiceResponse;
    type Encoder = Self;
    type Decoder = Self;

    fn encoder(&mut self) -> Self {
        Self
    }

    fn decoder(&mut self) -> Self {
        Self
    }
}

impl Encoder for ExportCodec {
    type Item = Bytes;
    type Error = Status;

    fn encode(&mut self, message: Bytes, out: &mut EncodeBuf<'_>) -> Result<(), Status> {
        out.put(message);
        Ok(())
    }
}

impl Decoder for ExportCodec {
    type Item = ExportTraceServiceResponse;
    type Error = Status;

    fn decode(&mut self, from: &mut DecodeBuf<'_>) -> Result<Option<Self::Item>, Status> {
        let response = ExportTraceServiceResponse::decode(from);
        response.map(Some).map_err(|cause| Status::internal(cause.to_string()))
    }
}

#[cfg(test)]
mod tests {
    use opentelemetry_proto::tonic::collector::trace::v1::{
        ExportTracePartialSuccess, ExportTraceServiceRequest,
    };

    use super::*;

    #[test]
    fn a_request_names_its_resource_and_keeps_its_spans() {
        let runtime = tokio::runtime::Runtime::new().expect("a runtime can be built");
        let _guard = runtime.enter();
        let client = OtlpClient::new("http://127.0.0.1:1", "test").expect("the endpoint is valid");
        let spans = ["one", "two"].map(|name| Span { name: name.into(), ..Span::default() });
        let mut batch: Vec<_> = spans.iter().map(EncodedSpan::from).collect();

        let encoded = client.encode(&mut batch);

        let request = ExportTraceServiceRequest::decode(encoded).expect("a request");
        let [of_resource] = &request.resource_spans[..] else { panic!("{request:?}") };
        let resource = format!("{:?}", of_resource.resource);
        assert!(resource.contains("deployment.environment.name") && resource.contains("test"));
        assert_eq!(of_resource.scope_spans[0].spans, spans);
        let kept = batch.iter().map(|span| Span::decode(&span.0[..]).expect("a span"));
        assert!(kept.eq(spans), "they are needed for a retry");
    }

    #[test]
    fn spans_that_the_collector_rejects_are_lost() {
        let partial = ExportTracePartialSuccess { rejected_spans: 3, ..Default::default() };

        let response = ExportTraceServiceResponse { partial_success: Some(partial) };

        assert_eq!(rejected_spans(&response), 3);
        assert_eq!(rejected_spans(&ExportTraceServiceResponse::default()), 0);
    }
}
