//! W3C trace context, and the export of spans by OTLP when it is configured.

use std::fmt::{self, Write};
use std::sync::atomic::{AtomicBool, Ordering};

use anyhow::Context as _;
use opentelemetry::trace::{
    SpanContext, SpanId, TraceContextExt, TraceFlags, TraceId, TraceState, TracerProvider,
};
use opentelemetry::{Context, KeyValue};
use opentelemetry_otlp::WithExportConfig;
use opentelemetry_sdk::Resource;
use opentelemetry_sdk::trace::{Sampler, SdkTracerProvider};
use tracing::{Span, Subscriber};
use tracing_opentelemetry::OpenTelemetrySpanExt;
use tracing_subscriber::Layer;
use tracing_subscriber::registry::LookupSpan;

use super::TelemetryArgs;

/// Whether spans are exported: without it no span asks for a parent.
static EXPORTING: AtomicBool = AtomicBool::new(false);

/// Who a request is in the world of traces.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct TraceIds {
    pub trace: [u8; 16],
    /// The caller's span, if it sent one.
    pub parent: Option<[u8; 8]>,
    pub span: [u8; 8],
    pub sampled: bool,
}

impl TraceIds {
    /// Continues the trace of a `traceparent` header, or begins one.
    pub fn continue_or_begin(traceparent: Option<&str>) -> Self {
        let fresh = uuid::Uuid::new_v4().into_bytes();
        let span = *uuid::Uuid::new_v4().into_bytes().first_chunk().expect("8 is less than 16");
        match traceparent.and_then(parse) {
            Some((trace, parent, sampled)) => Self { trace, parent: Some(parent), span, sampled },
            None => Self { trace: fresh, parent: None, span, sampled: true },
        }
    }

    /// As a `traceparent` header carries it to the next program.
    pub fn to_header(self) -> String {
        let flags = u8::from(self.sampled);
        format!("00-{}-{}-{flags:02x}", self.trace_hex(), self.span_hex())
    }

    pub fn trace_hex(&self) -> Hex<16> {
        Hex(self.trace)
    }

    pub fn span_hex(&self) -> Hex<8> {
        Hex(self.span)
    }
}

/// Bytes that print as lower-case hexadecimal.
#[derive(Clone, Copy)]
pub struct Hex<const N: usize>([u8; N]);

impl<const N: usize> fmt::Display for Hex<N> {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        const DIGITS: &[u8; 16] = b"0123456789abcdef";
        for byte in self.0 {
            formatter.write_char(char::from(DIGITS[usize::from(byte >> 4)]))?;
            formatter.write_char(char::from(DIGITS[usize::from(byte & 15)]))?;
        }
        Ok(())
    }
}

/// `00-<32 hex>-<16 hex>-<2 hex>`; a future version may have more behind it.
fn parse(header: &str) -> Option<([u8; 16], [u8; 8], bool)> {
    let mut parts = header.trim().split('-');
    let version = parts.next()?;
    let trace = unhex(parts.next()?)?;
    let parent = unhex(parts.next()?)?;
    let [flags] = unhex::<1>(parts.next()?)?;
    let [version] = unhex::<1>(version)?;
    let valid = version != 0xff
        && (version != 0 || parts.next().is_none())
        && trace != [0; 16]
        && parent != [0; 8];
    valid.then_some((trace, parent, flags & 1 == 1))
}

fn unhex<const N: usize>(text: &str) -> Option<[u8; N]> {
    let digit = |byte: u8| match byte {
        b'0'..=b'9' => Some(byte - b'0'),
        b'a'..=b'f' => Some(byte - b'a' + 10),
        _ => None,
    };
    let text = text.as_bytes();
    if text.len() != 2 * N {
        return None;
    }
    let mut bytes = [0; N];
    for (byte, pair) in bytes.iter_mut().zip(text.chunks_exact(2)) {
        *byte = digit(pair[0])? << 4 | digit(pair[1])?;
    }
    Some(bytes)
}

/// Whether spans go anywhere.
pub fn is_exporting() -> bool {
    EXPORTING.load(Ordering::Relaxed)
}

/// Whether the trace of this span is kept.
pub fn is_sampled(span: &Span) -> bool {
    is_exporting() && span.context().span().span_context().is_sampled()
}

/// Makes the exported span a child of the caller's, in the trace that the logs name.
pub fn adopt_parent(span: &Span, ids: &TraceIds) {
    if !is_exporting() {
        return;
    }
    // Without a caller's span the trace's own number stands in: backends show such a span as root.
    let parent = ids.parent.unwrap_or(ids.span);
    let remote = SpanContext::new(
        TraceId::from_bytes(ids.trace),
        SpanId::from_bytes(parent),
        if ids.sampled { TraceFlags::SAMPLED } else { TraceFlags::default() },
        true,
        TraceState::default(),
    );
    // Fails only where no span is recorded, and then there is nothing to attach.
    let _unrecorded = span.set_parent(Context::new().with_remote_span_context(remote));
}

/// Sends spans in the background.
pub(super) struct Exporter(SdkTracerProvider);

impl Exporter {
    /// Nothing when no endpoint is configured.
    pub(super) fn start(args: &TelemetryArgs) -> anyhow::Result<Option<Self>> {
        let Some(endpoint) = &args.otlp_endpoint else { return Ok(None) };
        let exporter = opentelemetry_otlp::SpanExporter::builder()
            .with_tonic()
            .with_endpoint(endpoint)
            .build()
            .with_context(|| format!("--otlp-endpoint `{endpoint}` is not usable"))?;
        let resource = Resource::builder()
            .with_service_name(env!("CARGO_PKG_NAME"))
            .with_attributes([
                KeyValue::new("service.version", env!("CARGO_PKG_VERSION")),
                KeyValue::new("deployment.environment.name", args.environment.clone()),
            ])
            .build();
        let provider = SdkTracerProvider::builder()
            .with_batch_exporter(exporter)
            .with_sampler(Sampler::TraceIdRatioBased(args.trace_ratio))
            .with_resource(resource)
            .build();
        EXPORTING.store(true, Ordering::Relaxed);
        Ok(Some(Self(provider)))
    }

    pub(super) fn layer<S: Subscriber + for<'a> LookupSpan<'a>>(&self) -> impl Layer<S> + use<S> {
        tracing_opentelemetry::layer().with_tracer(self.0.tracer(env!("CARGO_PKG_NAME")))
    }

    pub(super) fn finish(&self) {
        // The collector may be gone at the end; the spans are lost then and nothing else is.
        let _unsent = self.0.shutdown();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_valid_traceparent_is_continued() {
        let ids = TraceIds::continue_or_begin(Some(
            "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01",
        ));

        assert_eq!(ids.trace_hex().to_string(), "0af7651916cd43dd8448eb211c80319c");
        assert_eq!(ids.parent.map(Hex).expect("a parent").to_string(), "b7ad6b7169203331");
        assert!(ids.sampled);
    }

    #[test]
    fn a_later_version_may_say_more() {
        assert!(parse("01-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-00-more").is_some());
    }

    #[test]
    fn a_broken_traceparent_is_ignored() {
        for header in [
            "",
            "00",
            "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331",
            "00-0AF7651916CD43DD8448EB211C80319C-b7ad6b7169203331-01",
            "00-00000000000000000000000000000000-b7ad6b7169203331-01",
            "00-0af7651916cd43dd8448eb211c80319c-0000000000000000-01",
            "ff-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01",
            "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01-more",
            "00-0af7651916cd43dd8448eb211c80319-b7ad6b7169203331-01",
        ] {
            assert_eq!(parse(header), None, "{header}");
        }
    }
}
