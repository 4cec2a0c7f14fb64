//! Counts log events by level, and logs panics as events.

use std::sync::Arc;

use tracing::{Event, Level, Subscriber, error};
use tracing_subscriber::Layer;
use tracing_subscriber::layer::Context;

use super::metrics::Metrics;

/// Layer that counts log events by level. A comparison with the number of lines in Loki shows whether lines were lost.
pub(super) struct EventCounter(pub(super) Arc<Metrics>);

impl<S: Subscriber> Layer<S> for EventCounter {
    fn on_event(&self, event: &Event<'_>, _: Context<'_, S>) {
        let level = match *event.metadata().level() {
            Level::ERROR => "error",
            Level::WARN => "warn",
            Level::INFO => "info",
            Level::DEBUG => "debug",
            Level::TRACE => "trace",
        };
        self.0.wallet_log_events_total.with([level]).increment(1);
    }
}

/// Logs each panic of the process as an ERROR event that contains the source file and line of the panic, and counts the
/// panics.
pub(super) fn log_panics(metrics: Arc<Metrics>) {
    std::panic::set_hook(Box::new(move |panic| {
        let place = panic.location().map(ToString::to_string).unwrap_or_default();
        let message = panic.payload_as_str().unwrap_or("a panic without a message");
        metrics.wallet_panics_total.with(["process"]).increment(1);
        error!(
            event = "panic",
            error.type = "panic",
            error.message = message,
            place,
            "a thread panicked at {place}"
        );
    }));
}
