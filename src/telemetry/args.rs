//! Settings of logs, metrics and traces.

use std::io::{self, IsTerminal, Write};

use clap::builder::RangedU64ValueParser;
use tracing_subscriber::EnvFilter;
use url::Url;

/// Settings of logs, metrics and traces.
#[derive(Debug, Clone, clap::Args)]
#[command(next_help_heading = "Telemetry")]
pub struct TelemetryArgs {
    /// Format of the log [default: pretty on a terminal, else json].
    #[arg(long, env = "REVWALLET_LOG_FORMAT", global = true, value_enum)]
    pub log_format: Option<LogFormat>,
    /// Events to log, as `level` or `target=level`, separated by commas.
    #[arg(long, env = "REVWALLET_LOG_FILTER", global = true, default_value = "info")]
    pub log_filter: String,
    /// Share of successful requests with a line in the access log; failed requests always have one.
    #[arg(long, env = "REVWALLET_LOG_SUCCESS_RATIO", global = true, default_value_t = 1.0, value_parser = ratio)]
    pub log_success_ratio: f64,
    /// URL of a Loki or Alloy that log lines are also pushed to, such as `http://alloy:3500`, for hosts where standard output is not collected.
    #[arg(long, env = "REVWALLET_LOKI_URL", global = true)]
    pub loki_url: Option<Url>,
    /// Name of this deployment in every log line and trace.
    #[arg(long, env = "REVWALLET_ENVIRONMENT", global = true, default_value = "local")]
    pub environment: String,
    /// Disable metrics, to measure what they cost.
    #[arg(long, env = "REVWALLET_NO_METRICS", global = true, num_args = 0..=1, default_value_t = false, default_missing_value = "true")]
    pub no_metrics: bool,
    /// URL of a collector that traces are exported to by OTLP over gRPC, such as `http://alloy:4317`; without it there are no traces.
    #[arg(long, env = "REVWALLET_OTLP_ENDPOINT", global = true)]
    pub otlp_endpoint: Option<String>,
    /// URL of Grafana, or its path on the host of the wallet page, such as `/grafana`: the page links each transfer to its trace there.
    #[arg(long, env = "REVWALLET_GRAFANA_URL", global = true, value_parser = grafana_url)]
    pub grafana_url: Option<String>,
    /// Largest share of traces to export, chosen by trace id so that every program with the same share exports the same traces.
    #[arg(long, env = "REVWALLET_TRACE_RATIO", global = true, default_value_t = 1.0, value_parser = ratio)]
    pub trace_ratio: f64,
    /// Spans per second that are exported whole; above this rate, fewer traces are sampled.
    #[arg(long, env = "REVWALLET_TRACE_SPANS_MAX", global = true, default_value_t = 5_000, value_parser = RangedU64ValueParser::<u32>::new().range(1..=1_000_000))]
    pub trace_spans_max: u32,
    /// Bytes of log lines, and as many of spans, that wait in memory while their receiver is unavailable; the oldest are dropped first.
    #[arg(long, env = "REVWALLET_EXPORT_BUFFER_BYTES", global = true, default_value_t = 16 * 1024 * 1024, value_parser = RangedU64ValueParser::<usize>::new().range(1_000..=1_000_000_000_000))]
    pub export_buffer_bytes: usize,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
pub enum LogFormat {
    /// JSON, with an object per line.
    Json,
    /// Colored lines for people, with an event per line.
    Pretty,
}

/// Output stream for the log lines of the process.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum LogStream {
    /// Standard output, for the server, which prints nothing else.
    Stdout,
    /// Standard error, for commands that print a result to standard output.
    Stderr,
}

impl LogStream {
    pub(super) fn open(self) -> Box<dyn Write + Send> {
        match self {
            Self::Stdout => Box::new(io::stdout()),
            Self::Stderr => Box::new(io::stderr()),
        }
    }

    pub(super) fn is_terminal(self) -> bool {
        match self {
            Self::Stdout => io::stdout().is_terminal(),
            Self::Stderr => io::stderr().is_terminal(),
        }
    }
}

/// Parses the URL or path of Grafana, and removes a slash at its end.
fn grafana_url(text: &str) -> Result<String, String> {
    let is_path = text.starts_with('/') && !text.starts_with("//");
    let is_url = || Url::parse(text).is_ok_and(|url| ["http", "https"].contains(&url.scheme()));
    if !(is_path || is_url()) || text.contains(['?', '#']) {
        return Err("give `https://host/path`, or a path such as `/grafana`".to_owned());
    }
    Ok(text.trim_end_matches('/').to_owned())
}

fn ratio(text: &str) -> Result<f64, String> {
    match text.parse() {
        Ok(ratio) if (0.0..=1.0).contains(&ratio) => Ok(ratio),
        _ => Err("give a number from 0 to 1".to_owned()),
    }
}

/// Log filter for crates that are too loud: they log every lost connection as an error, or every notice of a migration.
/// The program itself logs what matters. The user's filter is appended to this filter and overrides it.
const SILENCED: &str =
    "graphile_worker=off,h2=error,sqlx_core::pool::inner=off,sqlx::postgres::notice=warn";

impl TelemetryArgs {
    pub(super) fn format(&self, stream: LogStream) -> LogFormat {
        self.log_format.unwrap_or_else(|| {
            if stream.is_terminal() { LogFormat::Pretty } else { LogFormat::Json }
        })
    }

    pub(super) fn filter(&self) -> anyhow::Result<EnvFilter> {
        EnvFilter::try_new(format!("{SILENCED},{}", self.log_filter)).map_err(|cause| {
            anyhow::anyhow!("--log-filter `{}` is not usable: {cause}", self.log_filter)
        })
    }
}
