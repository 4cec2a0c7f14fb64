//! Spans as a collector receives them.

use opentelemetry_proto::tonic::trace::v1::Span as ExportedSpan;
use tracing::{error, info_span};
use tracing_subscriber::layer::SubscriberExt;

use super::*;
use crate::telemetry::export::{ExportQueue, ExportRecord as _};
use crate::telemetry::trace_context::set_sample_ratio;

/// The spans that are exported of those that `open` opens.
fn exported(open: impl FnOnce()) -> Vec<ExportedSpan> {
    set_sample_ratio(1.0);
    let queue = ExportQueue::new(1024 * 1024, metrics::Counter::noop());
    let subscriber = tracing_subscriber::registry().with(SpanLayer(queue.clone()));
    tracing::subscriber::with_default(subscriber, open);
    queue.take_batch()
}

#[test]
fn a_span_has_its_fields_as_attributes() {
    let context = TraceContext::caused_by(uuid::Uuid::new_v4());

    let exported = exported(|| {
        let span = info_span!(
            "plain",
            otel.kind = "server",
            http_request_method = "GET",
            trace_id = "a field of the span itself",
            late = tracing::field::Empty,
            below = -1,
            share = 0.5,
            is = true,
        );
        export_if_sampled(&span, &context);
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
        let (outer, other) = (info_span!("outer"), info_span!(parent: None, "other"));
        export_if_sampled(&outer, &TraceContext::new_root());
        export_always(&other, &TraceContext::new_root());
        outer.in_scope(|| {
            assert!(is_current_span_exported());
            link_span(&info_span!("inner"), &other);
            drop(info_span!(parent: None, "outside"));
        });
        assert!(!is_current_span_exported());
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
fn an_encoded_span_is_no_larger_than_its_size() {
    let exported = exported(|| {
        let (span, other) = (info_span!("a span", text = "text", number = 7), info_span!("other"));
        export_always(&span, &TraceContext::new_root());
        export_always(&other, &TraceContext::new_root());
        link_span(&span, &other);
        span.in_scope(|| error!("an error"));
    });

    for span in exported {
        assert!(prost::Message::encoded_len(&span) <= span.size_bytes(), "{span:?}");
    }
}
