//! Logs, metrics and traces of the program.
//!
//! The server logs to standard output. Every other command prints its result to standard output, and logs to standard
//! error. Each log line reports an event. If the URL of Loki is set, log lines are also sent to Loki. The internal
//! listener serves the metrics. Traces are exported only if a collector is set, and cost nothing otherwise.

mod args;
mod buckets;
mod events;
mod exemplars;
mod export;
mod exposition;
mod gauge;
mod json_layer;
mod log_writer;
mod metric_family;
mod metrics;
mod request_scope;
mod sampling;
mod short_lines;
mod span_layer;
mod trace_context;

use std::io::Write;
use std::sync::Arc;
use std::time::Duration;

use ::metrics::Counter;
use tokio_util::sync::CancellationToken;
use tracing_subscriber::layer::SubscriberExt;
use tracing_subscriber::util::SubscriberInitExt;

pub use self::gauge::gauge_value;
pub use args::{LogFormat, LogStream, TelemetryArgs};
pub use exposition::{Exposition, ExpositionFormat, UPKEEP_INTERVAL};
pub use metrics::{MetricDeclaration, Metrics};
pub use request_scope::{FieldValue, LoggedRequest, RequestScope, record_caller};
pub use span_layer::{in_trace, in_trace_if_sampled, is_exported, link_span, set_span_name};
pub use trace_context::TraceContext;

use events::{EventCounter, log_panics};
use export::loki::{self, LogLine, LokiClient};
use export::otlp::{self, OtlpClient};
use export::{ExportCounters, ExportFlush, ExportQueue};
use json_layer::JsonLayer;
use log_writer::{LogFlush, LogWriter};
use sampling::SpanBudget;
use short_lines::{ShortFields, ShortLines};
use span_layer::SpanLayer;

/// Time for which log lines are collected before they are written together. A separate write for each line would cost
/// more than the rest of logging.
const WRITE_LINGER: Duration = Duration::from_millis(10);

/// Guard of the logs, metrics and traces of the process. When the guard is dropped, buffered log lines and spans are
/// flushed.
pub struct Telemetry {
    pub metrics: Arc<Metrics>,
    /// Token that is canceled to make the exporters send their buffered log lines and spans, and then stop.
    shutdown: CancellationToken,
    _exporters: Vec<ExportFlush>,
    _writer: Option<LogFlush>,
}

impl Telemetry {
    /// Installs logs, metrics and traces for the whole process. Fails if they are installed already.
    pub fn install(args: &TelemetryArgs, stream: LogStream) -> anyhow::Result<Self> {
        let metrics = Metrics::with_recording(!args.no_metrics);
        let filter = args.filter()?;
        let format = args.format(stream);
        let (mut exporters, shutdown) = (Vec::new(), CancellationToken::new());
        let mut writer = None;
        if format == LogFormat::Json {
            let dropped = metrics.wallet_log_dropped_total.clone();
            writer = Some(LogWriter::start(stream.open(), WRITE_LINGER, dropped)?);
        }
        let (writer, flush) = writer.unzip();
        let loki = start_loki(args, &metrics, &shutdown, &mut exporters)?;
        let spans = start_otlp(args, &metrics, &shutdown, &mut exporters)?;
        let pretty = (format == LogFormat::Pretty)
            .then(|| tracing_subscriber::fmt::layer().with_ansi(stream.is_terminal()))
            .map(|layer| layer.fmt_fields(ShortFields).event_format(ShortLines))
            .map(|layer| layer.with_writer(move || stream.open()));
        tracing_subscriber::registry()
            .with(filter)
            .with(EventCounter(Arc::clone(&metrics)))
            .with(JsonLayer::new(writer, loki, &args.environment))
            .with(pretty)
            .with(spans)
            .try_init()?;
        log_panics(Arc::clone(&metrics));
        Ok(Self { metrics, shutdown, _exporters: exporters, _writer: flush })
    }

    /// Installs JSON logs that go to `output`, for the current thread only. For tests.
    pub fn install_here(
        args: &TelemetryArgs,
        output: impl Write + Send + 'static,
    ) -> (Self, tracing::subscriber::DefaultGuard) {
        let metrics = Metrics::new();
        let dropped = metrics.wallet_log_dropped_total.clone();
        let (writer, flush) =
            LogWriter::start(output, Duration::ZERO, dropped).expect("a thread can be started");
        let guard = tracing_subscriber::registry()
            .with(args.filter().expect("a test gives a valid filter"))
            .with(EventCounter(Arc::clone(&metrics)))
            .with(JsonLayer::new(Some(writer), None, &args.environment))
            .set_default();
        let shutdown = CancellationToken::new();
        (Self { metrics, shutdown, _exporters: Vec::new(), _writer: Some(flush) }, guard)
    }
}

impl Drop for Telemetry {
    fn drop(&mut self) {
        self.shutdown.cancel();
    }
}

/// Starts the exporter of log lines if the URL of Loki is set.
fn start_loki(
    args: &TelemetryArgs,
    metrics: &Metrics,
    shutdown: &CancellationToken,
    exporters: &mut Vec<ExportFlush>,
) -> anyhow::Result<Option<ExportQueue<LogLine>>> {
    let Some(url) = &args.loki_url else { return Ok(None) };
    let [delivered, lost] =
        ["pushed", "lost"].map(|outcome| metrics.wallet_loki_lines_total.with([outcome]));
    let (queue, flush) = export::start(
        "loki",
        || LokiClient::new(url, &args.environment),
        loki::LINGER,
        args.export_buffer_bytes,
        ExportCounters { delivered, lost },
        shutdown,
    )?;
    exporters.push(flush);
    Ok(Some(queue))
}

/// Starts the exporter of spans and the sampling of traces if a collector is set.
fn start_otlp(
    args: &TelemetryArgs,
    metrics: &Metrics,
    shutdown: &CancellationToken,
    exporters: &mut Vec<ExportFlush>,
) -> anyhow::Result<Option<SpanLayer>> {
    let Some(endpoint) = &args.otlp_endpoint else { return Ok(None) };
    let lost = metrics.wallet_otlp_dropped_spans_total.clone();
    let share = metrics.wallet_trace_sampled_ratio.clone();
    let budget = SpanBudget::new(args.trace_ratio, args.trace_spans_max, share);
    let (queue, flush) = export::start(
        "otlp",
        || {
            budget.clone().start();
            OtlpClient::new(endpoint, &args.environment)
        },
        otlp::LINGER,
        args.export_buffer_bytes,
        ExportCounters { delivered: Counter::noop(), lost },
        shutdown,
    )?;
    exporters.push(flush);
    Ok(Some(SpanLayer { queue, budget }))
}
