//! Spans for a collector: OTLP over gRPC.

use std::time::Duration;

use anyhow::Context as _;
use bytes::{BufMut, Bytes};
use http::uri::PathAndQuery;
use opentelemetry_proto::tonic::collector::trace::v1::{
    ExportTraceServiceRequest, ExportTraceServiceResponse,
};
use opentelemetry_proto::tonic::common::v1::any_value::Value;
use opentelemetry_proto::tonic::common::v1::{AnyValue, InstrumentationScope, KeyValue};
use opentelemetry_proto::tonic::resource::v1::Resource;
use opentelemetry_proto::tonic::trace::v1::{ResourceSpans, ScopeSpans, Span};
use prost::Message;
use tonic::client::Grpc;
use tonic::codec::{Codec, DecodeBuf, Decoder, EncodeBuf, Encoder};
use tonic::transport::{Channel, Endpoint};
use tonic::{Code, Request, Status};

use super::{ExportDestination, ExportOutcome, ExportRecord};

const EXPORT_PATH: &str = "/opentelemetry.proto.collector.trace.v1.TraceService/Export";

/// Longest time that one attempt may take.
const TIMEOUT: Duration = Duration::from_secs(5);

/// Time that spans gather.
pub(in crate::telemetry) const LINGER: Duration = Duration::from_secs(1);

impl ExportRecord for Span {
    fn size_bytes(&self) -> usize {
        let attributes = self.attributes.iter().map(|attribute| {
            let value = attribute.value.as_ref().and_then(|value| value.value.as_ref());
            let text = if let Some(Value::StringValue(text)) = value { text.len() } else { 0 };
            size_of::<KeyValue>() + attribute.key.len() + text
        });
        let links = self
            .links
            .iter()
            .map(|link| size_of_val(link) + link.trace_id.len() + link.span_id.len());
        let status = self.status.as_ref().map_or(0, |status| status.message.len());
        size_of::<Self>() + self.name.len() + status + attributes.chain(links).sum::<usize>()
    }
}

/// A client of a collector's trace service.
pub(in crate::telemetry) struct OtlpClient {
    channel: Grpc<Channel>,
    resource: Resource,
    scope: InstrumentationScope,
}

impl OtlpClient {
    /// A client that connects with the first request; must be called inside a runtime.
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

    fn encode(&self, spans: &mut Vec<Span>) -> Bytes {
        let mut scope_spans = ScopeSpans {
            scope: Some(self.scope.clone()),
            spans: std::mem::take(spans),
            ..ScopeSpans::default()
        };
        let mut request = ExportTraceServiceRequest {
            resource_spans: vec![ResourceSpans {
                resource: Some(self.resource.clone()),
                scope_spans: vec![scope_spans],
                ..ResourceSpans::default()
            }],
        };
        let encoded = request.encode_to_vec();
        // A batch that is not delivered is needed again.
        scope_spans = request.resource_spans.remove(0).scope_spans.remove(0);
        *spans = scope_spans.spans;
        encoded.into()
    }
}

/// An attribute of a span or a resource.
pub(in crate::telemetry) fn attribute(key: &str, value: Value) -> KeyValue {
    let value = Some(AnyValue { value: Some(value) });
    KeyValue { key: key.to_owned(), value, ..KeyValue::default() }
}

impl ExportDestination for OtlpClient {
    type Record = Span;

    async fn send(&mut self, spans: &mut Vec<Span>) -> ExportOutcome {
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

/// Whether OTLP permits to retry after this status.
fn is_retryable(status: &Status) -> bool {
    matches!(
        status.code(),
        Code::Cancelled
            | Code::DeadlineExceeded
            | Code::Aborted
            | Code::OutOfRange
            | Code::Unavailable
            | Code::DataLoss
            // The status that tonic gives to a connection that ended.
            | Code::Unknown
    )
}

/// Sends a request that is already encoded: tonic's own codec would consume the spans that a retry needs.
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
    use opentelemetry_proto::tonic::collector::trace::v1::ExportTracePartialSuccess;

    use super::*;

    #[test]
    fn a_request_names_its_resource_and_keeps_its_spans() {
        let runtime = tokio::runtime::Runtime::new().expect("a runtime can be built");
        let _guard = runtime.enter();
        let client = OtlpClient::new("http://127.0.0.1:1", "test").expect("the endpoint is valid");
        let mut spans = ["one", "two"].map(|name| Span { name: name.into(), ..Span::default() });
        let mut batch = spans.to_vec();

        let encoded = client.encode(&mut batch);

        let request = ExportTraceServiceRequest::decode(encoded).expect("a request");
        let [of_resource] = &request.resource_spans[..] else { panic!("{request:?}") };
        let resource = format!("{:?}", of_resource.resource);
        assert!(resource.contains("deployment.environment.name") && resource.contains("test"));
        assert_eq!(of_resource.scope_spans[0].spans, spans);
        assert_eq!(batch, spans, "they are needed for a retry");
        spans[0].name.clear();
    }

    #[test]
    fn spans_that_the_collector_rejects_are_lost() {
        let partial = ExportTracePartialSuccess { rejected_spans: 3, ..Default::default() };

        let response = ExportTraceServiceResponse { partial_success: Some(partial) };

        assert_eq!(rejected_spans(&response), 3);
        assert_eq!(rejected_spans(&ExportTraceServiceResponse::default()), 0);
    }
}
