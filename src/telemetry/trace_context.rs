//! W3C trace context: the trace and the parent span of a request. Also decides whether a trace is sampled.

use std::fmt;
use std::sync::atomic::{AtomicU64, Ordering};

use uuid::Uuid;

/// A trace is sampled if the number in the last bits of its id is below this threshold. The threshold is 0 until
/// [`set_sample_share`] is called, so no trace is sampled before that call.
static SAMPLE_THRESHOLD: AtomicU64 = AtomicU64::new(0);

/// Number of bits at the end of a trace id that are random, no matter which program generated the id. Earlier bits may
/// contain a UUID version.
const RANDOM_BITS: u32 = 56;

/// Marker bytes in the middle of a trace id, which show that the trace began in this program or in nginx. They make the
/// id a UUID of version 8. A background task that knows only an id with these bytes can compute the id of the root
/// span.
const MARK: [u8; 2] = [0x8e, 0xe1];
const MARK_POSITION: usize = 6;

/// The ids of a span, its parent and its trace.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct TraceContext {
    pub trace_id: [u8; 16],
    /// The span that caused this span, such as a span of the client or of an earlier request.
    pub parent_span_id: Option<[u8; 8]>,
    pub span_id: [u8; 8],
    /// Whether the client permits recording of the trace.
    pub sampled: bool,
}

impl TraceContext {
    /// Begins a new trace.
    pub fn new_root() -> Self {
        let mut trace_id = Uuid::new_v4().into_bytes();
        trace_id[MARK_POSITION..][..MARK.len()].copy_from_slice(&MARK);
        let span_id = root_span_id(&trace_id);
        Self { trace_id, parent_span_id: None, span_id, sampled: true }
    }

    /// Continues the trace of a `traceparent` header. Begins a new trace if the header is missing or invalid.
    pub fn from_traceparent(header: Option<&str>) -> Self {
        match header.and_then(parse_traceparent) {
            // nginx began the trace but does not export spans, so this span takes the span id that nginx has logged.
            Some((trace_id, parent, sampled)) if parent == root_span_id(&trace_id) => {
                Self { trace_id, parent_span_id: None, span_id: parent, sampled }
            }
            Some((trace_id, parent, sampled)) => {
                let span_id = random_span_id();
                Self { trace_id, parent_span_id: Some(parent), span_id, sampled }
            }
            None => Self::new_root(),
        }
    }

    /// Returns the context of background work that a request caused, such as a webhook delivery. `trace_id` is the
    /// trace of the request. If the client began that trace, the span of the request is unknown, so the work has no
    /// parent span.
    pub fn caused_by(trace_id: Uuid) -> Self {
        let trace_id = trace_id.into_bytes();
        let parent_span_id = has_root_here(&trace_id).then(|| root_span_id(&trace_id));
        Self { trace_id, parent_span_id, span_id: random_span_id(), sampled: true }
    }

    /// Returns the context of a new span inside this span.
    pub(super) fn child(&self) -> Self {
        Self { parent_span_id: Some(self.span_id), span_id: random_span_id(), ..*self }
    }

    /// Whether the trace is exported. The decision depends only on the trace id, so a program that samples a larger
    /// share of traces exports every trace that a program with a smaller share exports. A client can prevent the export
    /// of its trace, but cannot force it.
    pub fn is_sampled(&self) -> bool {
        self.sampled && self.is_below(SAMPLE_THRESHOLD.load(Ordering::Relaxed))
    }

    fn is_below(&self, threshold: u64) -> bool {
        u128::from_be_bytes(self.trace_id) % (1 << RANDOM_BITS) < u128::from(threshold)
    }

    /// Returns the `traceparent` header for a request to another program.
    pub fn to_traceparent(self) -> String {
        let flags = u8::from(self.sampled);
        format!("00-{}-{}-{flags:02x}", self.trace_id_hex(), self.span_id_hex())
    }

    pub fn trace_id_hex(&self) -> Hex<16> {
        Hex(self.trace_id)
    }

    pub fn span_id_hex(&self) -> Hex<8> {
        Hex(self.span_id)
    }
}

/// Bytes that are displayed as lower-case hexadecimal digits.
#[derive(Clone, Copy)]
pub struct Hex<const N: usize>([u8; N]);

impl<const N: usize> fmt::Display for Hex<N> {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        const DIGITS: &[u8; 16] = b"0123456789abcdef";
        let digits =
            self.0.map(|byte| [byte >> 4, byte & 15].map(|half| DIGITS[usize::from(half)]));
        formatter.write_str(str::from_utf8(digits.as_flattened()).map_err(|_| fmt::Error)?)
    }
}

/// Parses `00-<32 hex>-<16 hex>-<2 hex>` into trace id, parent span id and sampled flag. Later versions of the standard
/// may append fields.
fn parse_traceparent(header: &str) -> Option<([u8; 16], [u8; 8], bool)> {
    let mut parts = header.trim().split('-');
    let version = parts.next()?;
    let trace_id = parse_hex(parts.next()?)?;
    let parent = parse_hex(parts.next()?)?;
    let [flags] = parse_hex::<1>(parts.next()?)?;
    let [version] = parse_hex::<1>(version)?;
    let valid = version != 0xff
        && (version != 0 || parts.next().is_none())
        && trace_id != [0; 16]
        && parent != [0; 8];
    valid.then_some((trace_id, parent, flags & 1 == 1))
}

/// Parses lower-case hexadecimal digits. Upper-case digits are an error, as the standard demands.
fn parse_hex<const N: usize>(text: &str) -> Option<[u8; N]> {
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

/// Sets the share of traces that are sampled from now on.
pub(super) fn set_sample_share(share: f64) {
    SAMPLE_THRESHOLD.store(threshold(share), Ordering::Relaxed);
}

fn threshold(share: f64) -> u64 {
    #[expect(
        clippy::cast_possible_truncation,
        clippy::cast_precision_loss,
        clippy::cast_sign_loss,
        reason = "a share of 2^56 need not be exact"
    )]
    let threshold = (share * (1_u64 << RANDOM_BITS) as f64) as u64;
    threshold
}

/// Whether the share of sampled traces is above zero.
pub(super) fn is_exporting() -> bool {
    SAMPLE_THRESHOLD.load(Ordering::Relaxed) > 0
}

/// Whether this program or nginx has generated the trace id.
fn has_root_here(trace_id: &[u8; 16]) -> bool {
    trace_id[MARK_POSITION..].starts_with(&MARK)
}

/// Returns the id of the root span of a trace that began in this program or in nginx. The id is derived from the trace
/// id, so background work that knows only the trace id can name the root span as its parent.
fn root_span_id(trace_id: &[u8; 16]) -> [u8; 8] {
    *trace_id.first_chunk().expect("8 is less than 16")
}

fn random_span_id() -> [u8; 8] {
    *Uuid::new_v4().into_bytes().first_chunk().expect("8 is less than 16")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_valid_traceparent_is_continued() {
        let context = TraceContext::from_traceparent(Some(
            "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01",
        ));

        assert_eq!(context.trace_id_hex().to_string(), "0af7651916cd43dd8448eb211c80319c");
        assert_eq!(
            context.parent_span_id.map(Hex).expect("a parent").to_string(),
            "b7ad6b7169203331"
        );
        assert!(context.sampled);
    }

    #[test]
    fn a_trace_of_the_edge_proxy_has_its_root_span_here() {
        let context = TraceContext::from_traceparent(Some(
            "00-0af7651916cd8ee18448eb211c80319c-0af7651916cd8ee1-01",
        ));

        assert_eq!(
            (context.parent_span_id, context.span_id_hex().to_string()),
            (None, "0af7651916cd8ee1".to_owned())
        );
        let later = TraceContext::caused_by(Uuid::from_bytes(context.trace_id));
        assert_eq!(later.parent_span_id, Some(context.span_id));
    }

    #[test]
    fn later_work_has_a_parent_only_in_a_trace_that_began_here() {
        let own = TraceContext::new_root();
        let of_the_client = TraceContext::from_traceparent(Some(
            "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01",
        ));

        let parents = [own, of_the_client]
            .map(|context| TraceContext::caused_by(Uuid::from_bytes(context.trace_id)))
            .map(|later| later.parent_span_id);

        assert_eq!(parents, [Some(own.span_id), None]);
    }

    #[test]
    fn a_later_version_may_append_fields() {
        assert!(
            parse_traceparent("01-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-00-more")
                .is_some()
        );
    }

    #[test]
    fn the_share_of_sampled_traces_is_as_set() {
        for (share, least, most) in
            [(0.0, 0, 0), (0.1, 50, 200), (0.9, 800, 980), (1.0, 1_000, 1_000)]
        {
            let sampled =
                (0..1_000).filter(|_| TraceContext::new_root().is_below(threshold(share))).count();

            assert!((least..=most).contains(&sampled), "{sampled} of 1000 at {share}");
        }
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
            assert_eq!(parse_traceparent(header), None, "{header}");
        }
    }
}
