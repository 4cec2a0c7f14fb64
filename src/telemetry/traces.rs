//! W3C trace context: who a request is in the world of traces, and how spans find each other there.

use std::fmt::{self, Write};
use std::sync::atomic::{AtomicBool, Ordering};

use opentelemetry::Context;
use opentelemetry::trace::{SpanContext, SpanId, TraceContextExt, TraceFlags, TraceId, TraceState};
use tracing::Span;
use tracing_opentelemetry::OpenTelemetrySpanExt;
use uuid::Uuid;

/// Whether spans are exported: without it no span asks for a parent.
pub(super) static EXPORTING: AtomicBool = AtomicBool::new(false);

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
        let fresh = Uuid::new_v4().into_bytes();
        let span = random_span();
        match traceparent.and_then(parse) {
            Some((trace, parent, sampled)) => Self { trace, parent: Some(parent), span, sampled },
            None => Self { trace: fresh, parent: None, span, sampled: true },
        }
    }

    /// Something that a request has caused and that happens later, in the trace that the book names.
    pub fn caused_by(trace: Uuid) -> Self {
        Self { trace: trace.into_bytes(), parent: None, span: random_span(), sampled: true }
    }

    /// The span that everything of a trace hangs on which has no other parent: the edge in front of us makes its own
    /// span's number of the trace's in the same way.
    fn root(&self) -> [u8; 8] {
        *self.trace.first_chunk().expect("8 is less than 16")
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

/// Whether whatever is done now belongs to a trace that is kept.
pub fn is_traced() -> bool {
    is_exporting() && is_sampled(&Span::current())
}

/// Gives a span its name when that is known only after its beginning.
pub fn rename(span: &Span, name: String) {
    span.context().span().update_name(name);
}

/// Leads from one span to another of a different trace.
pub fn link(from: &Span, to: &Span) {
    from.add_link(to.context().span().span_context().clone());
}

/// Makes the exported span a child of the caller's, in the trace that the logs name.
pub fn adopt_parent(span: &Span, ids: &TraceIds) {
    if !is_exporting() {
        return;
    }
    let parent = ids.parent.unwrap_or_else(|| ids.root());
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

fn random_span() -> [u8; 8] {
    *Uuid::new_v4().into_bytes().first_chunk().expect("8 is less than 16")
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
