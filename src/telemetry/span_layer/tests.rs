//! Tests of exported spans, as a collector receives them.

use prost::Message as _;
use tracing::{error, info_span};
use tracing_subscriber::layer::SubscriberExt;

use super::*;
use crate::telemetry::export::ExportQueue;
use crate::telemetry::sampling::SpanBudget;

/// Returns the spans that are exported while `open` runs.
fn exported(open: impl FnOnce()) -> Vec<ExportedSpan> {
    let budget = SpanBudget::new(1.0, 1_000, metrics::Gauge::noop());
    let queue = ExportQueue::new(1024 * 1024, metrics::Counter::noop());
    let subscriber =
        tracing_subscriber::registry().with(SpanLayer { queue: queue.clone(), budget });
    tracing::subscriber::with_default(subscriber, open);
    let encoded = queue.take_batch();
    encoded.iter().map(|span| ExportedSpan::decode(&span.0[..]).expect("a span")).collect()
}

#[test]
fn a_span_has_its_fields_as_attributes() {
    let context = TraceContext::new_root().child();

    let exported = exported(|| {
        let span = in_trace_if_sampled(&context, || {
            info_span!(
                "plain",
                otel.kind = "server",
                http.request.method = "GET",
                trace_id = "a field of the span itself",
                late = tracing::field::Empty,
                below = -1,
                share = 0.5,
                is = true,
            )
        });
        span.record("late", 7_u64);
        set_span_name(&span, "better".to_owned());
        span.in_scope(|| error!("it broke"));
    });

    let [span] = &exported[..] else { panic!("{exported:?}") };
    assert_eq!((&span.name[..], span.kind), ("better", 2));
    assert_eq!(
        (&span.trace_id[..], &span.span_id[..]),
        (&context.trace_id[..], &context.span_id[..])
    );
    assert_eq!(span.parent_span_id, context.parent_span_id.expect("a parent"));
    assert!(span.start_time_unix_nano <= span.end_time_unix_nano);
    let status = span.status.as_ref().expect("a status");
    assert_eq!((&status.message[..], status.code), ("it broke", 2));
    let attribute = |key: &str| {
        let known = span.attributes.iter().find(|attribute| attribute.key == key);
        known.and_then(|known| known.value.clone()?.value)
    };
    assert_eq!(attribute("http.request.method"), Some(Value::StringValue("GET".to_owned())));
    assert_eq!(attribute("late"), Some(Value::IntValue(7)));
    assert_eq!(attribute("below"), Some(Value::IntValue(-1)));
    assert_eq!(attribute("share"), Some(Value::DoubleValue(0.5)));
    assert_eq!(attribute("is"), Some(Value::BoolValue(true)));
    assert_eq!(attribute("trace_id"), None);
}

#[test]
fn a_span_belongs_to_the_trace_of_the_span_around_it() {
    let exported = exported(|| {
        let outer = in_trace_if_sampled(&TraceContext::new_root(), || info_span!("outer"));
        let other = in_trace(&TraceContext::new_root(), || info_span!(parent: None, "other"));
        outer.in_scope(|| {
            assert!(is_exported(&Span::current()));
            link_span(&info_span!("inner"), &other);
            drop(info_span!(parent: None, "outside"));
        });
        assert!(!is_exported(&Span::current()));
    });

    let [inner, outer] =
        ["inner", "outer"].map(|name| exported.iter().find(|span| span.name == name));
    let [inner, outer] = [inner, outer].map(|span| span.expect("it is exported"));
    assert_eq!(inner.trace_id, outer.trace_id);
    assert_eq!(inner.parent_span_id, outer.span_id);
    let other = exported.iter().find(|span| span.name == "other").expect("it is exported");
    assert_eq!(inner.links[0].span_id, other.span_id);
    assert_eq!(exported.len(), 3, "a span outside of a trace is not exported: {exported:?}");
}

#[test]
fn a_span_that_the_filter_disables_leaves_its_trace_to_no_other() {
    let exported = exported(|| {
        let disabled = in_trace(&TraceContext::new_root(), Span::none);
        assert!(!is_exported(&disabled));
        drop(info_span!("another"));
    });

    assert!(exported.is_empty(), "{exported:?}");
}

#[test]
fn a_trace_that_the_client_decided_against_is_not_exported() {
    let exported = exported(|| {
        let context = TraceContext { sampled: false, ..TraceContext::new_root() };
        let span = in_trace_if_sampled(&context, || info_span!("unsampled"));
        assert!(!is_exported(&span));
        span.in_scope(|| drop(info_span!("within")));
    });

    assert!(exported.is_empty(), "{exported:?}");
}
