//! Spans of traces that are kept: written down while they are open, in the form in which they are sent, and handed
//! over when they end.
//!
//! A span belongs to the trace that it was told to [`begin`] in, or to that of the span around it; without either it
//! is in none.

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

/// The fields of how a span ended.
mod status {
    pub(super) const MESSAGE: u64 = 2;
    pub(super) const CODE: u64 = 3;
    pub(super) const ERROR: u64 = 2;
}

/// The field in which those of one library are.
const SPANS: u64 = 2;

/// Most links of a span: one of a large batch would never end.
const LINKS_MAX: usize = 128;

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
    links: usize,
    /// What went wrong at last.
    failure: Option<String>,
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
            if let Some(failure) = self.failure {
                message(span, field::STATUS, |status| {
                    bytes(status, status::MESSAGE, failure.as_bytes());
                    number(status, status::CODE, status::ERROR);
                });
            }
        });
        span
    }

    fn attribute(&mut self, name: &str, value: impl FnOnce(&mut Vec<u8>)) {
        let known = CONVENTIONAL.iter().find(|(field, _)| *field == name);
        let name = known.map_or(name, |(_, name)| name);
        message(&mut self.fields, field::ATTRIBUTES, |attribute| {
            bytes(attribute, 1, name.as_bytes());
            message(attribute, 2, value);
        });
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
            links: 0,
            failure: None,
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
        let mut failure = Message(None);
        event.record(&mut failure);
        if let Some(open) = span.extensions_mut().get_mut::<Open>() {
            open.failure = failure.0;
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

impl Visit for Open {
    fn record_str(&mut self, field: &Field, value: &str) {
        match field.name() {
            // The span says them itself.
            "trace_id" | "span_id" => {}
            "otel.name" => self.name = value.to_owned().into(),
            "otel.kind" => {
                let kind = match value {
                    "server" => 2,
                    "client" => 3,
                    _ => 1,
                };
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

/// Keeps the message of an event.
struct Message(Option<String>);

impl Visit for Message {
    fn record_debug(&mut self, field: &Field, value: &dyn fmt::Debug) {
        if field.name() == "message" {
            self.0 = Some(format!("{value:?}"));
        }
    }
}

/// Looks at what is written down of a span; nothing where none is.
fn with_open<T>(span: &Span, look: impl FnOnce(&mut Open) -> T) -> Option<T> {
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

/// Puts a span into its place in a trace, if that is kept; whether it is.
pub fn begin(span: &Span, place: &TraceIds) -> bool {
    place.is_kept() && begin_kept(span, place)
}

/// Puts a span into its place in a trace, which is kept for its sake.
pub fn begin_kept(span: &Span, place: &TraceIds) -> bool {
    with_open(span, |open| open.place = Some(*place)).is_some()
}

/// Whether whatever is done now belongs to a trace that is kept.
pub fn is_traced() -> bool {
    with_open(&Span::current(), |open| open.place.is_some()).unwrap_or_default()
}

/// Gives a span its name when that is known only after its beginning.
pub fn rename(span: &Span, name: String) {
    with_open(span, |open| open.name = name.into());
}

/// Leads from one span to another of a different trace.
pub fn link(from: &Span, to: &Span) {
    let Some(to) = with_open(to, |open| open.place).flatten() else { return };
    with_open(from, |open| {
        if open.links < LINKS_MAX {
            open.links += 1;
            message(&mut open.fields, field::LINKS, |link| {
                bytes(link, field::TRACE, &to.trace);
                bytes(link, field::SPAN, &to.span);
            });
        }
    });
}

#[cfg(test)]
mod tests;
