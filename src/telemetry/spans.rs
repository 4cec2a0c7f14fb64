//! Spans of traces that are kept: written down while they are open, in the form in which they are sent, and handed
//! over when they end.
//!
//! A span belongs to the trace that it was told to [`begin`] in, or to that of the span around it; without either it is in none.

use std::borrow::Cow;
use std::fmt;
use std::time::{SystemTime, UNIX_EPOCH};

use tracing::field::{Field, Visit};
use tracing::span::{Attributes, Id, Record};
use tracing::{Event, Level, Span, Subscriber};
use tracing_subscriber::layer::Context;
use tracing_subscriber::registry::{Extensions, LookupSpan};
use tracing_subscriber::{Layer, Registry};

use super::protobuf::{bytes, fixed, message, number};
use super::sink::Sink;
use super::traces::{TraceIds, is_exporting};

/// The fields of a span in the protocol.
mod field {
    pub(super) const TRACE: u64 = 1;
    pub(super) const SPAN: u64 = 2;
    pub(super) const PARENT: u64 = 4;
    pub(super) const NAME: u64 = 5;
    pub(super) const KIND: u64 = 6;
    pub(super) const BEGAN: u64 = 7;
    pub(super) const ENDED: u64 = 8;
    pub(super) const ATTRIBUTES: u64 = 9;
    pub(super) const LINKS: u64 = 13;
    pub(super) const STATUS: u64 = 15;
}

/// The field in which those of one library are.
const SPANS: u64 = 2;

/// What log lines call with underscores has a name in the conventions of traces.
const CONVENTIONAL: [(&str, &str); 3] = [
    ("http_request_method", "http.request.method"),
    ("http_response_status_code", "http.response.status_code"),
    ("http_route", "http.route"),
];

/// Hands spans that have ended to whoever sends them.
pub(super) struct Spans(pub(super) Sink);

/// A span that has not ended.
struct Open {
    /// Nothing where the trace is not kept.
    place: Option<TraceIds>,
    name: Cow<'static, str>,
    began: u64,
    /// What is known by now, as it will be sent.
    fields: Vec<u8>,
}

impl Open {
    /// As it is sent.
    fn end(self, place: &TraceIds) -> Vec<u8> {
        let mut span = Vec::with_capacity(self.fields.len() + 128);
        message(&mut span, SPANS, |span| {
            bytes(span, field::TRACE, &place.trace);
            bytes(span, field::SPAN, &place.span);
            if let Some(parent) = place.parent {
                bytes(span, field::PARENT, &parent);
            }
            bytes(span, field::NAME, self.name.as_bytes());
            fixed(span, field::BEGAN, self.began);
            fixed(span, field::ENDED, now());
            span.extend(self.fields);
        });
        span
    }
}

fn now() -> u64 {
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    u64::try_from(now.as_nanos()).unwrap_or(u64::MAX)
}

impl<S: Subscriber + for<'a> LookupSpan<'a>> Layer<S> for Spans {
    fn on_new_span(&self, attributes: &Attributes<'_>, id: &Id, context: Context<'_, S>) {
        let Some(span) = context.span(id) else { return };
        let around = span.parent().and_then(|around| place(&around.extensions()));
        let mut open = Open {
            place: around.map(|around| around.child()),
            name: attributes.metadata().name().into(),
            began: now(),
            fields: Vec::with_capacity(256),
        };
        attributes.record(&mut open);
        span.extensions_mut().insert(open);
    }

    fn on_record(&self, id: &Id, values: &Record<'_>, context: Context<'_, S>) {
        let Some(span) = context.span(id) else { return };
        if let Some(open) = span.extensions_mut().get_mut::<Open>() {
            values.record(open);
        }
    }

    /// What went wrong is told with the span; everything else is in the logs.
    fn on_event(&self, event: &Event<'_>, context: Context<'_, S>) {
        if *event.metadata().level() > Level::WARN {
            return;
        }
        let Some(span) = context.event_span(event) else { return };
        if let Some(open) = span.extensions_mut().get_mut::<Open>() {
            event.record(&mut Failure(&mut open.fields));
        }
    }

    fn on_close(&self, id: Id, context: Context<'_, S>) {
        let Some(span) = context.span(&id) else { return };
        let open = span.extensions_mut().remove::<Open>();
        if let Some(open) = open
            && let Some(place) = open.place
        {
            self.0.write(&open.end(&place));
        }
    }
}

fn place(extensions: &Extensions<'_>) -> Option<TraceIds> {
    extensions.get::<Open>().and_then(|open| open.place)
}

impl Open {
    fn attribute(&mut self, name: &str, value: impl FnOnce(&mut Vec<u8>)) {
        let known = CONVENTIONAL.iter().find(|(field, _)| *field == name);
        let name = known.map_or(name, |(_, name)| name);
        message(&mut self.fields, field::ATTRIBUTES, |attribute| {
            bytes(attribute, 1, name.as_bytes());
            message(attribute, 2, value);
        });
    }
}

impl Visit for Open {
    fn record_str(&mut self, field: &Field, value: &str) {
        match field.name() {
            // The span says them itself.
            "trace_id" | "span_id" => {}
            "otel.name" => self.name = value.to_owned().into(),
            "otel.kind" => {
                let kind = if value == "server" { 2 } else { 3 };
                number(&mut self.fields, field::KIND, kind);
            }
            name => self.attribute(name, |out| bytes(out, 1, value.as_bytes())),
        }
    }

    fn record_bool(&mut self, field: &Field, value: bool) {
        self.attribute(field.name(), |out| number(out, 2, value.into()));
    }

    fn record_i64(&mut self, field: &Field, value: i64) {
        self.attribute(field.name(), |out| number(out, 3, value.cast_unsigned()));
    }

    fn record_u64(&mut self, field: &Field, value: u64) {
        self.attribute(field.name(), |out| number(out, 3, value));
    }

    fn record_f64(&mut self, field: &Field, value: f64) {
        self.attribute(field.name(), |out| fixed(out, 4, value.to_bits()));
    }

    fn record_debug(&mut self, field: &Field, value: &dyn fmt::Debug) {
        self.record_str(field, &format!("{value:?}"));
    }
}

/// Writes the message of an event as the span's status.
struct Failure<'a>(&'a mut Vec<u8>);

impl Visit for Failure<'_> {
    fn record_str(&mut self, field: &Field, value: &str) {
        const MESSAGE: u64 = 2;
        const CODE: u64 = 3;
        const ERROR: u64 = 2;
        if field.name() == "message" {
            message(self.0, field::STATUS, |status| {
                bytes(status, MESSAGE, value.as_bytes());
                number(status, CODE, ERROR);
            });
        }
    }

    fn record_debug(&mut self, field: &Field, value: &dyn fmt::Debug) {
        if field.name() == "message" {
            self.record_str(field, &format!("{value:?}"));
        }
    }
}

/// Looks at what is written down of a span; nothing where none is.
fn with<T>(span: &Span, look: impl FnOnce(&mut Open) -> T) -> Option<T> {
    if !is_exporting() {
        return None;
    }
    let found = span.with_subscriber(|(id, subscriber)| {
        let registry = subscriber.downcast_ref::<Registry>()?;
        let span = registry.span(id)?;
        span.extensions_mut().get_mut::<Open>().map(look)
    });
    found.flatten()
}

/// Puts a span into its place in a trace, if that is kept.
pub fn begin(span: &Span, place: &TraceIds) {
    if place.is_kept() {
        keep(span, place);
    }
}

/// Puts a span into its place in a trace, which is kept for its sake.
pub fn keep(span: &Span, place: &TraceIds) {
    with(span, |open| open.place = Some(*place));
}

/// Whether whatever is done now belongs to a trace that is kept.
pub fn is_traced() -> bool {
    with(&Span::current(), |open| open.place.is_some()).unwrap_or_default()
}

/// Gives a span its name when that is known only after its beginning.
pub fn rename(span: &Span, name: String) {
    with(span, |open| open.name = name.into());
}

/// Leads from one span to another of a different trace.
pub fn link(from: &Span, to: &Span) {
    let Some(to) = with(to, |open| open.place).flatten() else { return };
    with(from, |open| {
        message(&mut open.fields, field::LINKS, |link| {
            bytes(link, field::TRACE, &to.trace);
            bytes(link, field::SPAN, &to.span);
        });
    });
}

#[cfg(test)]
mod tests {
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
        traces::keep(1.0);
        let written = Written::default();
        let nothing_lost = metrics::Counter::noop();
        let (sink, flush) = Sink::to(written.clone(), Duration::ZERO, nothing_lost);
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
            keep(&other, &TraceIds::begin());
            outer.in_scope(|| {
                assert!(is_traced());
                link(&info_span!("inner"), &other);
                drop(info_span!(parent: None, "nowhere"));
            });
            assert!(!is_traced());
        });

        let [inner, outer] =
            ["inner", "outer"].map(|name| sent.iter().find(|span| span.name == name));
        let [inner, outer] = [inner, outer].map(|span| span.expect("it was sent"));
        assert_eq!(inner.trace_id, outer.trace_id);
        assert_eq!(inner.parent_span_id, outer.span_id);
        let other = sent.iter().find(|span| span.name == "other").expect("it was sent");
        assert_eq!(inner.links[0].span_id, other.span_id);
        assert_eq!(sent.len(), 3, "what is in no trace is not sent: {sent:?}");
    }
}
