//! Spans as whoever receives them reads them.

use std::sync::{Arc, Mutex};
use std::time::Duration;

use opentelemetry_proto::tonic::common::v1::any_value::Value;
use opentelemetry_proto::tonic::trace::v1::{ScopeSpans, Span as Sent};
use prost::Message;
use tracing::{error, info_span};
use tracing_subscriber::layer::SubscriberExt;

use super::*;
use crate::telemetry::traces;

#[derive(Clone, Default)]
struct Written(Arc<Mutex<Vec<u8>>>);

impl std::io::Write for Written {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        self.0.lock().expect("nobody panics").extend(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> std::io::Result<()> {
        Ok(())
    }
}

/// What is sent of the spans that `make` makes.
fn sent(make: impl FnOnce()) -> Vec<Sent> {
    traces::keep_share(1.0);
    let written = Written::default();
    let nothing_lost = metrics::Counter::noop();
    let (sink, flush) = Sink::to("test", written.clone(), Duration::ZERO, nothing_lost);
    let subscriber = tracing_subscriber::registry().with(Spans(sink));
    tracing::subscriber::with_default(subscriber, make);
    drop(flush);
    let bytes = written.0.lock().expect("nobody panics");
    ScopeSpans::decode(&bytes[..]).expect("spans").spans
}

#[test]
fn a_span_says_what_is_known_of_it() {
    let place = TraceIds::caused_by(uuid::Uuid::new_v4());

    let sent = sent(|| {
        let span = info_span!(
            "plain",
            otel.kind = "server",
            http_request_method = "GET",
            trace_id = "said elsewhere",
            late = tracing::field::Empty,
            below = -1,
            share = 0.5,
            is = true,
        );
        begin(&span, &place);
        span.record("late", 7_u64);
        rename(&span, "better".to_owned());
        span.in_scope(|| error!("it broke"));
    });

    let [span] = &sent[..] else { panic!("{sent:?}") };
    assert_eq!((&span.name[..], span.kind), ("better", 2));
    assert_eq!((&span.trace_id[..], &span.span_id[..]), (&place.trace[..], &place.span[..]));
    assert_eq!(span.parent_span_id, place.parent.expect("it has one"));
    assert!(span.start_time_unix_nano <= span.end_time_unix_nano);
    let status = span.status.as_ref().expect("it failed");
    assert_eq!((&status.message[..], status.code), ("it broke", 2));
    let said = |key: &str| {
        let known = span.attributes.iter().find(|attribute| attribute.key == key);
        known.and_then(|known| known.value.clone()?.value)
    };
    assert_eq!(said("http.request.method"), Some(Value::StringValue("GET".to_owned())));
    assert_eq!(said("late"), Some(Value::IntValue(7)));
    assert_eq!(said("below"), Some(Value::IntValue(-1)));
    assert_eq!(said("share"), Some(Value::DoubleValue(0.5)));
    assert_eq!(said("is"), Some(Value::BoolValue(true)));
    assert_eq!(said("trace_id"), None);
}

#[test]
fn a_span_belongs_to_the_one_around_it() {
    let sent = sent(|| {
        let (outer, other) = (info_span!("outer"), info_span!(parent: None, "other"));
        begin(&outer, &TraceIds::begin());
        begin_kept(&other, &TraceIds::begin());
        outer.in_scope(|| {
            assert!(is_traced());
            link(&info_span!("inner"), &other);
            drop(info_span!(parent: None, "nowhere"));
        });
        assert!(!is_traced());
    });

    let [inner, outer] = ["inner", "outer"].map(|name| sent.iter().find(|span| span.name == name));
    let [inner, outer] = [inner, outer].map(|span| span.expect("it was sent"));
    assert_eq!(inner.trace_id, outer.trace_id);
    assert_eq!(inner.parent_span_id, outer.span_id);
    let other = sent.iter().find(|span| span.name == "other").expect("it was sent");
    assert_eq!(inner.links[0].span_id, other.span_id);
    assert_eq!(sent.len(), 3, "what is in no trace is not sent: {sent:?}");
}
