//! Log layer that writes each event as a line with a flat JSON object.
//!
//! A line has the keys `ts`, `level`, `message`, `service`, `version`, `env` and `_target`, then the fields of the
//! spans that enclose the event, outermost span first, then the fields of the current request, then the fields of the
//! event. The fields of a span are serialized once, when they are set, not for every event.

use std::fmt::{self, Write};

use time::OffsetDateTime;
use time::format_description::well_known::Iso8601;
use time::format_description::well_known::iso8601::{Config, EncodedConfig, TimePrecision};
use tracing::field::{Field, Visit};
use tracing::span::{Attributes, Id, Record};
use tracing::{Event, Subscriber};
use tracing_subscriber::Layer;
use tracing_subscriber::layer::Context;
use tracing_subscriber::registry::{LookupSpan, Scope};

use super::export::ExportQueue;
use super::export::loki::LogLine;
use super::log_writer::LogWriter;
use super::request_scope::{self, FieldValue};

const TIMESTAMP: EncodedConfig = Config::DEFAULT
    .set_time_precision(TimePrecision::Second { decimal_digits: std::num::NonZeroU8::new(9) })
    .encode();

/// Log layer that writes events as JSON to the log output, to Loki, or to both.
pub(super) struct JsonLayer {
    writer: Option<LogWriter>,
    loki: Option<ExportQueue<LogLine>>,
    /// Fields that are the same in every line: service, version and environment.
    service: String,
}

/// The fields of a span, serialized as `,"key":value` pairs.
struct SpanFields(String);

impl JsonLayer {
    /// Creates the layer, or returns `None` if there is no output to write to.
    pub(super) fn new(
        writer: Option<LogWriter>,
        loki: Option<ExportQueue<LogLine>>,
        environment: &str,
    ) -> Option<Self> {
        if writer.is_none() && loki.is_none() {
            return None;
        }
        let mut service = String::new();
        let mut fields = Fields(&mut service);
        fields.string("service", env!("CARGO_PKG_NAME"));
        fields.string("version", env!("CARGO_PKG_VERSION"));
        fields.string("env", environment);
        Some(Self { writer, loki, service })
    }

    fn line<'a, S: Subscriber + LookupSpan<'a>>(
        &self,
        event: &Event<'_>,
        spans: Option<Scope<'a, S>>,
        now: OffsetDateTime,
    ) -> String {
        let metadata = event.metadata();
        let mut line = String::with_capacity(512);
        line.push_str(r#"{"ts":""#);
        // The format can express every year from 0 to 9999.
        line.push_str(&now.format(&Iso8601::<TIMESTAMP>).unwrap_or_default());
        line.push('"');
        let mut fields = Fields(&mut line);
        fields.string("level", metadata.level().as_str());
        let mut message = Message(String::new());
        event.record(&mut message);
        fields.string("message", &message.0);
        fields.0.push_str(&self.service);
        fields.string("_target", metadata.target());
        for span in spans.into_iter().flat_map(Scope::from_root) {
            if let Some(SpanFields(text)) = span.extensions().get() {
                fields.0.push_str(text);
            }
        }
        request_scope::for_each_field(|name, value| match value {
            FieldValue::Text(text) => fields.string(name, text),
            FieldValue::Number(number) => fields.plain(name, number),
        });
        event.record(&mut fields);
        line.push_str("}\n");
        line
    }
}

impl<S: Subscriber + for<'a> LookupSpan<'a>> Layer<S> for JsonLayer {
    fn on_new_span(&self, attributes: &Attributes<'_>, id: &Id, context: Context<'_, S>) {
        let Some(span) = context.span(id) else { return };
        let mut text = String::with_capacity(192);
        attributes.record(&mut Fields(&mut text));
        span.extensions_mut().insert(SpanFields(text));
    }

    fn on_record(&self, id: &Id, values: &Record<'_>, context: Context<'_, S>) {
        let Some(span) = context.span(id) else { return };
        if let Some(SpanFields(text)) = span.extensions_mut().get_mut() {
            values.record(&mut Fields(text));
        }
    }

    fn on_event(&self, event: &Event<'_>, context: Context<'_, S>) {
        let now = OffsetDateTime::now_utc();
        let line = self.line(event, context.event_scope(event), now);
        if let Some(writer) = &self.writer {
            writer.write(line.as_bytes());
        }
        if let Some(loki) = &self.loki {
            loki.push(LogLine {
                timestamp_nanos: now.unix_timestamp_nanos(),
                level: event.metadata().level().as_str(),
                text: line.trim_end().into(),
            });
        }
    }
}

/// Collects the message of an event.
struct Message(String);

impl Visit for Message {
    fn record_str(&mut self, field: &Field, value: &str) {
        if field.name() == "message" {
            value.clone_into(&mut self.0);
        }
    }

    fn record_debug(&mut self, field: &Field, value: &dyn fmt::Debug) {
        if field.name() == "message" {
            // Writing to a String cannot fail.
            let _written = write!(self.0, "{value:?}");
        }
    }
}

/// Appends the fields of a span or an event, except the message, to a line.
struct Fields<'a>(&'a mut String);

impl Fields<'_> {
    fn key(&mut self, name: &str) {
        self.0.push_str(",\"");
        self.0.push_str(name);
        self.0.push_str("\":");
    }

    fn string(&mut self, name: &str, value: &str) {
        self.key(name);
        escape(self.0, value);
    }

    fn plain(&mut self, name: &str, value: impl fmt::Display) {
        self.key(name);
        // Writing to a String cannot fail.
        let _written = write!(self.0, "{value}");
    }
}

impl Visit for Fields<'_> {
    fn record_str(&mut self, field: &Field, value: &str) {
        // Fields whose names start with `otel.` are instructions for the span exporter, so they are not logged.
        if field.name() != "message" && !field.name().starts_with("otel.") {
            self.string(field.name(), value);
        }
    }

    fn record_i64(&mut self, field: &Field, value: i64) {
        self.plain(field.name(), value);
    }

    fn record_u64(&mut self, field: &Field, value: u64) {
        self.plain(field.name(), value);
    }

    fn record_bool(&mut self, field: &Field, value: bool) {
        self.plain(field.name(), value);
    }

    fn record_f64(&mut self, field: &Field, value: f64) {
        if value.is_finite() {
            self.plain(field.name(), value);
        } else {
            self.string(field.name(), &value.to_string());
        }
    }

    fn record_debug(&mut self, field: &Field, value: &dyn fmt::Debug) {
        self.record_str(field, &format!("{value:?}"));
    }
}

/// Writes `value` as a JSON string.
fn escape(line: &mut String, value: &str) {
    line.push('"');
    let mut plain_from = 0;
    for (at, byte) in value.bytes().enumerate() {
        if byte >= 0x20 && byte != b'"' && byte != b'\\' {
            continue;
        }
        line.push_str(&value[plain_from..at]);
        plain_from = at + 1;
        match byte {
            b'"' => line.push_str("\\\""),
            b'\\' => line.push_str("\\\\"),
            b'\n' => line.push_str("\\n"),
            // Writing to a String cannot fail.
            _ => drop(write!(line, "\\u{byte:04x}")),
        }
    }
    line.push_str(&value[plain_from..]);
    line.push('"');
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_escaped_string_parses_to_itself() {
        for text in ["", "plain", "\"quoted\"", "back\\slash", "line\nbreak", "\u{1}", "gr\u{fc}n"]
        {
            let mut line = String::new();
            escape(&mut line, text);

            assert_eq!(serde_json::from_str::<String>(&line).expect(&line), text);
        }
    }
}
