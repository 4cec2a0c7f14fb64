//! Collects the spans of sampled traces, and hands each to the exporter when it ends.
//!
//! A span is exported if it was opened with [`in_trace`] or [`in_trace_if_sampled`], or if its parent span is exported.
//! This layer ignores all other spans, which only add fields to log lines.

use std::cell::Cell;
use std::fmt;
use std::time::{SystemTime, UNIX_EPOCH};

use opentelemetry_proto::tonic::common::v1::any_value::Value;
use opentelemetry_proto::tonic::trace::v1::span::{Link, SpanKind};
use opentelemetry_proto::tonic::trace::v1::status::StatusCode;
use opentelemetry_proto::tonic::trace::v1::{Span as ExportedSpan, Status};
use tracing::field::{Field, Visit};
use tracing::span::{Attributes, Id, Record};
use tracing::{Event, Level, Span, Subscriber};
use tracing_subscriber::layer::Context;
use tracing_subscriber::registry::LookupSpan;
use tracing_subscriber::{Layer, Registry};

use super::export::ExportQueue;
use super::export::otlp::{EncodedSpan, attribute};
use super::sampling::SpanBudget;
use super::trace_context::{TraceContext, is_exporting};

/// Maximum number of links in a span. Without this limit, the span of a batch of postings could have a link for each of
/// thousands of postings.
const LINKS_MAX: usize = 128;

/// Initial capacity of the attribute list of a span. It suffices for most spans, so the list rarely grows.
const ATTRIBUTES_TYPICAL: usize = 6;

/// Tracing layer that collects the spans to be exported.
pub(super) struct SpanLayer {
    pub(super) queue: ExportQueue<EncodedSpan>,
    pub(super) budget: SpanBudget,
}

thread_local! {
    /// Trace context for the span that this thread opens next.
    static NEXT_CONTEXT: Cell<Option<TraceContext>> = const { Cell::new(None) };
}

/// An open span that will be exported when it ends.
struct OpenSpan {
    context: TraceContext,
    exported: ExportedSpan,
}

impl OpenSpan {
    fn new(context: TraceContext, name: &str) -> Self {
        let parent = context.parent_span_id.map_or_else(Vec::new, |parent| parent.to_vec());
        let exported = ExportedSpan {
            trace_id: context.trace_id.to_vec(),
            span_id: context.span_id.to_vec(),
            parent_span_id: parent,
            name: name.to_owned(),
            start_time_unix_nano: now_unix_nanos(),
            attributes: Vec::with_capacity(ATTRIBUTES_TYPICAL),
            ..ExportedSpan::default()
        };
        Self { context, exported }
    }

    fn add_attribute(&mut self, name: &str, value: Value) {
        self.exported.attributes.push(attribute(name, value));
    }
}

fn now_unix_nanos() -> u64 {
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    u64::try_from(now.as_nanos()).unwrap_or(u64::MAX)
}

impl<S: Subscriber + for<'a> LookupSpan<'a>> Layer<S> for SpanLayer {
    fn on_new_span(&self, attributes: &Attributes<'_>, id: &Id, context: Context<'_, S>) {
        let Some(span) = context.span(id) else { return };
        let context = NEXT_CONTEXT.take().or_else(|| {
            let parent = span.parent()?;
            let extensions = parent.extensions();
            Some(extensions.get::<OpenSpan>()?.context.child())
        });
        let Some(context) = context else { return };
        self.budget.count();
        let mut open = OpenSpan::new(context, attributes.metadata().name());
        attributes.record(&mut open);
        span.extensions_mut().insert(open);
    }

    fn on_record(&self, id: &Id, values: &Record<'_>, context: Context<'_, S>) {
        let Some(span) = context.span(id) else { return };
        if let Some(open) = span.extensions_mut().get_mut::<OpenSpan>() {
            values.record(open);
        }
    }

    /// Sets the status of a span to the last warning or error within the span. Other events are only logged.
    fn on_event(&self, event: &Event<'_>, context: Context<'_, S>) {
        if *event.metadata().level() > Level::WARN {
            return;
        }
        let Some(span) = context.event_span(event) else { return };
        let mut message = Message::default();
        event.record(&mut message);
        if let Some(open) = span.extensions_mut().get_mut::<OpenSpan>() {
            let status = Status { message: message.0, code: StatusCode::Error.into() };
            open.exported.status = Some(status);
        }
    }

    fn on_close(&self, id: Id, context: Context<'_, S>) {
        let Some(span) = context.span(&id) else { return };
        let open = span.extensions_mut().remove::<OpenSpan>();
        if let Some(OpenSpan { mut exported, .. }) = open {
            exported.end_time_unix_nano = now_unix_nanos();
            self.queue.push(EncodedSpan::from(&exported));
        }
    }
}

impl Visit for OpenSpan {
    fn record_str(&mut self, field: &Field, value: &str) {
        match field.name() {
            // The ids are fields of the exported span itself, so they are not attributes.
            "trace_id" | "span_id" => {}
            "otel.name" => value.clone_into(&mut self.exported.name),
            "otel.status_description" => {
                let message = value.to_owned();
                self.exported.status = Some(Status { message, code: StatusCode::Error.into() });
            }
            "otel.kind" => {
                let kind = match value {
                    "server" => SpanKind::Server,
                    "client" => SpanKind::Client,
                    _ => SpanKind::Internal,
                };
                self.exported.kind = kind.into();
            }
            name => self.add_attribute(name, Value::StringValue(value.to_owned())),
        }
    }

    fn record_bool(&mut self, field: &Field, value: bool) {
        self.add_attribute(field.name(), Value::BoolValue(value));
    }

    fn record_i64(&mut self, field: &Field, value: i64) {
        self.add_attribute(field.name(), Value::IntValue(value));
    }

    fn record_u64(&mut self, field: &Field, value: u64) {
        self.add_attribute(field.name(), Value::IntValue(value.cast_signed()));
    }

    fn record_f64(&mut self, field: &Field, value: f64) {
        self.add_attribute(field.name(), Value::DoubleValue(value));
    }

    fn record_debug(&mut self, field: &Field, value: &dyn fmt::Debug) {
        self.record_str(field, &format!("{value:?}"));
    }
}

/// Collects the message of an event.
#[derive(Default)]
struct Message(String);

impl Visit for Message {
    fn record_debug(&mut self, field: &Field, value: &dyn fmt::Debug) {
        if field.name() == "message" {
            self.0 = format!("{value:?}");
        }
    }
}

/// Calls `work` with the data of an open span that will be exported. Returns `None` if the span is not exported.
fn with_open_span<T>(span: &Span, work: impl FnOnce(&mut OpenSpan) -> T) -> Option<T> {
    if !is_exporting() {
        return None;
    }
    let found = span.with_subscriber(|(id, subscriber)| {
        let registry = subscriber.downcast_ref::<Registry>()?;
        let span = registry.span(id)?;
        span.extensions_mut().get_mut::<OpenSpan>().map(work)
    });
    found.flatten()
}

/// Opens a span that belongs to a trace. The span is exported even if the trace is not sampled.
pub fn in_trace(context: &TraceContext, open: impl FnOnce() -> Span) -> Span {
    if !is_exporting() {
        return open();
    }
    NEXT_CONTEXT.set(Some(*context));
    let span = open();
    // If the log filter disables the span, the layer has not taken the context, and must not give it to another span.
    NEXT_CONTEXT.set(None);
    span
}

/// Opens a span that belongs to a trace. The span is exported only if the trace is sampled.
pub fn in_trace_if_sampled(context: &TraceContext, open: impl FnOnce() -> Span) -> Span {
    if context.is_sampled() { in_trace(context, open) } else { open() }
}

/// Whether a span is exported. If so, the spans that are opened within it are exported, too.
pub fn is_exported(span: &Span) -> bool {
    with_open_span(span, |_| ()).is_some()
}

/// Replaces the name of a span, for names that are known only after the span has begun.
pub fn set_span_name(span: &Span, name: String) {
    with_open_span(span, |open| open.exported.name = name);
}

/// Adds a link from a span to a span of another trace.
pub fn link_span(from: &Span, to: &Span) {
    let Some(to) = with_open_span(to, |open| open.context) else { return };
    with_open_span(from, |open| {
        let links = &mut open.exported.links;
        if links.len() < LINKS_MAX {
            links.push(Link {
                trace_id: to.trace_id.to_vec(),
                span_id: to.span_id.to_vec(),
                ..Link::default()
            });
        }
    });
}

#[cfg(test)]
mod tests;
