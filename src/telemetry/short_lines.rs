//! Log lines for people at a terminal: time, level and message, then the fields that the message does not mention.

use std::fmt::{self, Debug};

use time::OffsetDateTime;
use time::macros::format_description;
use tracing::field::{Field, Visit};
use tracing::{Event, Level, Subscriber};
use tracing_subscriber::field::RecordFields;
use tracing_subscriber::fmt::format::Writer;
use tracing_subscriber::fmt::{FmtContext, FormatEvent, FormatFields, FormattedFields};
use tracing_subscriber::registry::LookupSpan;

use super::request_scope::{self, FieldValue};

/// Formats log events as short lines.
pub(super) struct ShortLines;

/// Formats the span fields that short log lines show: the caller and the trace id.
pub(super) struct ShortFields;

/// Event fields that short lines omit, because they are only for programs that read the log.
const HIDDEN: [&str; 3] = ["event", "outcome", "error.type"];

impl<'writer> FormatFields<'writer> for ShortFields {
    fn format_fields<R: RecordFields>(&self, writer: Writer<'writer>, fields: R) -> fmt::Result {
        let mut kept = SpanFields { writer, result: Ok(()), is_first: true };
        fields.record(&mut kept);
        kept.result
    }
}

struct SpanFields<'writer> {
    writer: Writer<'writer>,
    result: fmt::Result,
    is_first: bool,
}

impl Visit for SpanFields<'_> {
    fn record_str(&mut self, field: &Field, value: &str) {
        if ["caller", "trace_id"].contains(&field.name()) {
            let space = if self.is_first { "" } else { " " };
            self.is_first = false;
            let written = write!(self.writer, "{space}{}={value}", field.name());
            self.result = self.result.and(written);
        }
    }

    fn record_debug(&mut self, _: &Field, _: &dyn Debug) {}
}

/// The message of an event and its other fields.
#[derive(Default)]
struct EventFields {
    message: String,
    others: Vec<(&'static str, String)>,
}

impl EventFields {
    fn has(&self, name: &str) -> bool {
        self.others.iter().any(|(other, _)| *other == name)
    }
}

impl Visit for EventFields {
    fn record_str(&mut self, field: &Field, value: &str) {
        self.record_debug(field, &format_args!("{value}"));
    }

    fn record_debug(&mut self, field: &Field, value: &dyn Debug) {
        match field.name() {
            "message" => self.message = format!("{value:?}"),
            name => self.others.push((name, format!("{value:?}"))),
        }
    }
}

impl<S> FormatEvent<S, ShortFields> for ShortLines
where
    S: Subscriber + for<'a> LookupSpan<'a>,
{
    fn format_event(
        &self,
        context: &FmtContext<'_, S, ShortFields>,
        mut writer: Writer<'_>,
        event: &Event<'_>,
    ) -> fmt::Result {
        let now = OffsetDateTime::now_utc();
        let time = now.format(format_description!("[hour]:[minute]:[second]Z")).unwrap_or_default();
        let mut fields = EventFields::default();
        event.record(&mut fields);
        let level = *event.metadata().level();
        write!(writer, "{time} {} {}", colored(level, writer.has_ansi_escapes()), fields.message)?;
        let shown = |(name, value): &&(&str, String)| {
            !HIDDEN.contains(name) && !fields.message.contains(value.as_str())
        };
        for (name, value) in fields.others.iter().filter(shown) {
            write!(writer, " {name}={value}")?;
        }
        // The trace id is shown only for failures. The response to a failed request contains the same id.
        let failed = level <= Level::WARN || fields.has("error.type");
        for span in context.event_scope().into_iter().flatten() {
            let extensions = span.extensions();
            let Some(kept) = extensions.get::<FormattedFields<ShortFields>>() else { continue };
            for field in kept.fields.split_whitespace() {
                if failed || !field.starts_with("trace_id=") {
                    write!(writer, " {field}")?;
                }
            }
        }
        let mut result = Ok(());
        request_scope::for_each_field(|name, value| {
            let is_shown = name == "caller" || (failed && name == "trace_id");
            if let FieldValue::Text(value) = value
                && is_shown
            {
                result = result.and(write!(writer, " {name}={value}"));
            }
        });
        result?;
        writeln!(writer)
    }
}

/// Returns the name of a log level, in its usual color.
fn colored(level: Level, has_colors: bool) -> String {
    let color = match level {
        Level::ERROR => 31,
        Level::WARN => 33,
        Level::INFO => 32,
        _ => 34,
    };
    let name = format!("{level:<5}");
    if has_colors { format!("\u{1b}[{color}m{name}\u{1b}[0m") } else { name }
}
