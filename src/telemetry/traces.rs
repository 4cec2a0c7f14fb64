//! W3C trace context: who a request is in the world of traces, and which traces are kept.

use std::fmt::{self, Write};
use std::sync::atomic::{AtomicU64, Ordering};

use uuid::Uuid;

/// Traces with a number below this are kept: none before [`keep_share`] says so.
static KEPT_BELOW: AtomicU64 = AtomicU64::new(0);

/// Bits of a trace's number that are random whoever made it: those at its end. Others may be the mark of a UUID.
const RANDOM_BITS: u32 = 56;

/// Who a request is in the world of traces.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct TraceIds {
    pub trace: [u8; 16],
    /// The span that this one hangs on: the caller's, or the one that a later thing was caused by.
    pub parent: Option<[u8; 8]>,
    pub span: [u8; 8],
    pub sampled: bool,
}

impl TraceIds {
    /// A trace with a span that has no parent.
    pub fn begin() -> Self {
        let trace = Uuid::new_v4().into_bytes();
        Self { trace, parent: None, span: root(&trace), sampled: true }
    }

    /// Continues the trace of a `traceparent` header, or begins one.
    pub fn continue_or_begin(traceparent: Option<&str>) -> Self {
        match traceparent.and_then(parse) {
            // The edge in front of us has begun it, and sends no spans: ours is the one that its log line names.
            Some((trace, parent, sampled)) if parent == root(&trace) => {
                Self { trace, parent: None, span: parent, sampled }
            }
            Some((trace, parent, sampled)) => {
                Self { trace, parent: Some(parent), span: random_span(), sampled }
            }
            None => Self::begin(),
        }
    }

    /// Something that a request has caused and that happens later, in the trace that the book names.
    pub fn caused_by(trace: Uuid) -> Self {
        let trace = trace.into_bytes();
        Self { trace, parent: Some(root(&trace)), span: random_span(), sampled: true }
    }

    /// A span within this one.
    pub(super) fn child(&self) -> Self {
        Self { parent: Some(self.span), span: random_span(), ..*self }
    }

    /// Whether the trace is kept: by its number, so that every program keeps the same ones, and only what the caller
    /// has not decided against.
    pub fn is_kept(&self) -> bool {
        self.sampled && self.is_below(KEPT_BELOW.load(Ordering::Relaxed))
    }

    fn is_below(&self, limit: u64) -> bool {
        u128::from_be_bytes(self.trace) % (1 << RANDOM_BITS) < u128::from(limit)
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

/// From now on so many of the traces are kept.
pub(super) fn keep_share(ratio: f64) {
    KEPT_BELOW.store(limit(ratio), Ordering::Relaxed);
}

fn limit(ratio: f64) -> u64 {
    #[expect(
        clippy::cast_possible_truncation,
        clippy::cast_precision_loss,
        clippy::cast_sign_loss,
        reason = "a share of 2^56 need not be exact"
    )]
    let below = (ratio * (1_u64 << RANDOM_BITS) as f64) as u64;
    below
}

/// Whether any trace is kept.
pub(super) fn is_exporting() -> bool {
    KEPT_BELOW.load(Ordering::Relaxed) > 0
}

/// The span that everything of a trace hangs on that has begun here, or at the edge in front of us.
fn root(trace: &[u8; 16]) -> [u8; 8] {
    *trace.first_chunk().expect("8 is less than 16")
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
    fn what_the_edge_has_begun_has_no_span_before_ours() {
        let ids = TraceIds::continue_or_begin(Some(
            "00-0af7651916cd43dd8448eb211c80319c-0af7651916cd43dd-01",
        ));

        assert_eq!((ids.parent, ids.span_hex().to_string()), (None, "0af7651916cd43dd".to_owned()));
        let later = TraceIds::caused_by(Uuid::from_bytes(ids.trace));
        assert_eq!(later.parent, Some(ids.span));
    }

    #[test]
    fn a_later_version_may_say_more() {
        assert!(parse("01-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-00-more").is_some());
    }

    #[test]
    fn the_share_that_is_kept_is_the_one_that_was_asked_for() {
        for (ratio, least, most) in
            [(0.0, 0, 0), (0.1, 50, 200), (0.9, 800, 980), (1.0, 1_000, 1_000)]
        {
            let kept = (0..1_000).filter(|_| TraceIds::begin().is_below(limit(ratio))).count();

            assert!((least..=most).contains(&kept), "{kept} of 1000 at {ratio}");
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
            assert_eq!(parse(header), None, "{header}");
        }
    }
}
