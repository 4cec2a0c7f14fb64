//! What the program tells about itself: logs, metrics, traces.
//!
//! Logs go to standard output, one event a line. Metrics wait on the internal listener.
//! Traces are exported only when an endpoint is given, and cost nothing otherwise.

mod exemplars;
mod exposition;
mod family;
mod gauge;
mod json;
mod loki;
mod metrics;
mod otlp;
mod protobuf;
mod push;
mod sink;
mod spans;
mod traces;

use std::io::{self, IsTerminal, Write};
use std::sync::Arc;
use std::time::Duration;

use ::metrics::Counter;

use tokio_util::sync::CancellationToken;
use tracing::{Event, Level, Subscriber, error};
use tracing_subscriber::layer::{Context, SubscriberExt};
use tracing_subscriber::registry::LookupSpan;
use tracing_subscriber::util::SubscriberInitExt;
use tracing_subscriber::{EnvFilter, Layer};
use url::Url;

pub use self::gauge::gauge_value;
pub use exposition::{Exposition, Format, UPKEEP_INTERVAL};
pub use metrics::{Declaration, Metrics};
pub use spans::{begin, begin_kept, is_traced, link, rename};
pub use traces::TraceIds;

use json::JsonLayer;
use loki::Loki;
use otlp::Collector;
use push::Push;
use sink::{Flush, Sink};
use spans::Spans;

/// What is logged and traced, and where to.
#[derive(Debug, Clone, clap::Args)]
#[command(next_help_heading = "Telemetry")]
pub struct TelemetryArgs {
    /// How logs are written [default: pretty on a terminal, else json].
    #[arg(long, env = "REVWALLET_LOG_FORMAT", global = true, value_enum)]
    pub log_format: Option<LogFormat>,
    /// Which events are logged, as `level` or `target=level`, separated by commas.
    #[arg(long, env = "REVWALLET_LOG_FILTER", global = true, default_value = "info")]
    pub log_filter: String,
    /// Share of successful requests that get a line in the access log; failures always do.
    #[arg(long, env = "REVWALLET_LOG_SUCCESS_RATIO", global = true, default_value_t = 1.0, value_parser = ratio)]
    pub log_success_ratio: f64,
    /// Where log lines are pushed to besides, such as `http://alloy:3500`: for where nobody collects standard output.
    #[arg(long, env = "REVWALLET_LOKI_URL", global = true)]
    pub loki_url: Option<Url>,
    /// Name of this deployment, in every log line and trace.
    #[arg(long, env = "REVWALLET_ENVIRONMENT", global = true, default_value = "local")]
    pub environment: String,
    /// Measure nothing: only to see what measuring costs.
    #[arg(long, env = "REVWALLET_NO_METRICS", global = true, num_args = 0..=1, default_value_t = false, default_missing_value = "true")]
    pub no_metrics: bool,
    /// Where traces are sent by OTLP over gRPC, such as `http://alloy:4317`; none are made without it.
    #[arg(long, env = "REVWALLET_OTLP_ENDPOINT", global = true)]
    pub otlp_endpoint: Option<String>,
    /// Share of the traces that are kept, of those that the caller has not decided against; chosen by their numbers, so
    /// every program with the same share keeps the same ones.
    #[arg(long, env = "REVWALLET_TRACE_RATIO", global = true, default_value_t = 1.0, value_parser = ratio)]
    pub trace_ratio: f64,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
pub enum LogFormat {
    /// One JSON object a line.
    Json,
    /// For people, in color.
    Pretty,
}

fn ratio(text: &str) -> Result<f64, String> {
    match text.parse() {
        Ok(ratio) if (0.0..=1.0).contains(&ratio) => Ok(ratio),
        _ => Err("give a number from 0 to 1".to_owned()),
    }
}

/// The queue and the pool call every lost connection an error; what matters of it we tell ourselves.
/// Who wants their own words names them in the filter.
const QUIET: &str = "graphile_worker=off,sqlx_core::pool::inner=off";

fn filter(args: &TelemetryArgs) -> anyhow::Result<EnvFilter> {
    EnvFilter::try_new(format!("{QUIET},{}", args.log_filter)).map_err(|cause| {
        anyhow::anyhow!("--log-filter `{}` is not usable: {cause}", args.log_filter)
    })
}

/// Keeps telemetry alive; writes out what is left when dropped.
pub struct Telemetry {
    pub metrics: Arc<Metrics>,
    /// Whoever pushes lines and spans is told that the program ends.
    closing: CancellationToken,
    _outputs: Vec<Flush>,
}

impl Telemetry {
    /// Installs logs and traces for the whole process.
    pub fn install(args: &TelemetryArgs) -> anyhow::Result<Self> {
        let metrics = Metrics::if_wanted(!args.no_metrics);
        let filter = filter(args)?;
        let format = args.log_format.unwrap_or_else(|| {
            if io::stdout().is_terminal() { LogFormat::Pretty } else { LogFormat::Json }
        });
        let (mut logs, closing) = (Outputs::default(), CancellationToken::new());
        if format == LogFormat::Json {
            logs.add("logs", io::stdout(), GATHER, &metrics.wallet_log_dropped_total);
        }
        if let Some(url) = &args.loki_url {
            let [sent, lost] =
                ["pushed", "lost"].map(|what| metrics.wallet_loki_lines_total.with([what]));
            let open = || Loki::new(url, &args.environment);
            let push = Push::new(open, sent, lost.clone(), &closing)?;
            logs.add("loki", push, loki::GATHER, &lost);
        }
        let mut spans = None;
        if let Some(endpoint) = &args.otlp_endpoint {
            let lost = &metrics.wallet_otlp_dropped_spans_total;
            let open = || Collector::new(endpoint, args);
            let push = Push::new(open, Counter::noop(), lost.clone(), &closing)?;
            let (sink, flush) = Sink::to("spans", push, otlp::GATHER, lost.clone());
            spans = Some(Spans(sink));
            logs.flushes.push(flush);
            traces::keep_share(args.trace_ratio);
        }
        let pretty = (format == LogFormat::Pretty)
            .then(|| tracing_subscriber::fmt::layer().compact().with_target(false));
        tracing_subscriber::registry()
            .with(filter)
            .with(Counted(Arc::clone(&metrics)))
            .with(logs.layer(args))
            .with(pretty)
            .with(spans)
            .try_init()?;
        report_panics(Arc::clone(&metrics));
        Ok(Self { metrics, closing, _outputs: logs.flushes })
    }

    /// Logs as JSON into `output` for whatever the current thread does. For tests.
    pub fn install_here(
        args: &TelemetryArgs,
        output: impl Write + Send + 'static,
    ) -> (Self, tracing::subscriber::DefaultGuard) {
        let metrics = Metrics::new();
        let mut logs = Outputs::default();
        logs.add("logs", output, Duration::ZERO, &metrics.wallet_log_dropped_total);
        let guard = tracing_subscriber::registry()
            .with(filter(args).expect("a test gives a filter that can be used"))
            .with(Counted(Arc::clone(&metrics)))
            .with(logs.layer(args))
            .set_default();
        (Self { metrics, closing: CancellationToken::new(), _outputs: logs.flushes }, guard)
    }
}

impl Drop for Telemetry {
    fn drop(&mut self) {
        self.closing.cancel();
    }
}

/// Lines on standard output gather for so long: nobody reads faster.
const GATHER: Duration = Duration::from_millis(10);

/// Where JSON lines go.
#[derive(Default)]
struct Outputs {
    sinks: Vec<Sink>,
    flushes: Vec<Flush>,
}

impl Outputs {
    fn add(
        &mut self,
        name: &str,
        output: impl Write + Send + 'static,
        gather: Duration,
        dropped: &Counter,
    ) {
        let (sink, flush) = Sink::to(name, output, gather, dropped.clone());
        self.sinks.push(sink);
        self.flushes.push(flush);
    }

    /// Nothing when lines go nowhere.
    fn layer(&self, args: &TelemetryArgs) -> Option<JsonLayer> {
        let sinks = self.sinks.clone();
        (!sinks.is_empty()).then(|| JsonLayer::new(sinks, &args.environment))
    }
}

/// Counts events by level: what a log pipeline received is compared with it.
struct Counted(Arc<Metrics>);

impl<S: Subscriber + for<'a> LookupSpan<'a>> Layer<S> for Counted {
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

/// A panic becomes one ERROR event like any other, with where it happened.
fn report_panics(metrics: Arc<Metrics>) {
    std::panic::set_hook(Box::new(move |panic| {
        let place = panic.location().map(ToString::to_string).unwrap_or_default();
        let message = panic.payload_as_str().unwrap_or("a panic without a message");
        metrics.wallet_panics_total.with(["process"]).increment(1);
        error!(
            event = "panic",
            error.kind = "panic",
            error.message = message,
            place,
            "panic at {place}"
        );
    }));
}
