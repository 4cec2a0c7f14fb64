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
    /// Filter that selects the events to log: a comma-separated list of `level` or `target=level`.
    #[arg(long, env = "REVWALLET_LOG_FILTER", global = true, default_value = "info")]
    pub log_filter: String,
    /// Share of successful requests that the access log records, from 0 to 1; it records all failed requests.
    #[arg(long, env = "REVWALLET_LOG_SUCCESS_RATIO", global = true, default_value_t = 1.0, value_parser = ratio)]
    pub log_success_ratio: f64,
    /// URL of a Loki or Alloy server to which log lines are also pushed, such as `http://alloy:3500`, for hosts where
    /// standard output is not collected.
    #[arg(long, env = "REVWALLET_LOKI_URL", global = true)]
    pub loki_url: Option<Url>,
    /// Name of this deployment in every log line and trace.
    #[arg(long, env = "REVWALLET_ENVIRONMENT", global = true, default_value = "local")]
    pub environment: String,
    /// Disable metrics, to measure what they cost.
    #[arg(long, env = "REVWALLET_NO_METRICS", global = true, num_args = 0..=1, default_value_t = false, default_missing_value = "true")]
    pub no_metrics: bool,
    /// URL of a collector to which traces are exported by OTLP over gRPC, such as `http://alloy:4317`; if it is not
    /// set, no traces are exported.
    #[arg(long, env = "REVWALLET_OTLP_ENDPOINT", global = true)]
    pub otlp_endpoint: Option<String>,
    /// URL of Grafana, or its path on the host of the wallet page, such as `/grafana`. The wallet page uses it to link
    /// each transfer to its trace.
    #[arg(long, env = "REVWALLET_GRAFANA_URL", global = true, value_parser = grafana_url)]
    pub grafana_url: Option<String>,
    /// Largest share of traces to export, from 0 to 1. The traces are chosen only by their ids, so all programs with
    /// the same share export the same traces.
    #[arg(long, env = "REVWALLET_TRACE_RATIO", global = true, default_value_t = 1.0, value_parser = ratio)]
    pub trace_ratio: f64,
    /// Number of spans per second above which a smaller share of traces is exported.
    #[arg(long, env = "REVWALLET_TRACE_SPANS_MAX", global = true, default_value_t = 5_000, value_parser = RangedU64ValueParser::<u32>::new().range(1..=1_000_000))]
    pub trace_spans_max: u32,
    /// Maximum size in bytes of each export buffer, for log lines and for spans; a full buffer drops its oldest
    /// entries.
    #[arg(long, env = "REVWALLET_EXPORT_BUFFER_BYTES", global = true, default_value_t = 16 * 1024 * 1024, value_parser = RangedU64ValueParser::<usize>::new().range(1_000..=1_000_000_000_000))]
    pub export_buffer_bytes: usize,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
pub enum LogFormat {
    /// JSON, with an object per line.
    Json,
    /// Colored text for people, with an event per line.
    Pretty,
}

/// Output stream for the log lines of the process.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum LogStream {
    /// Standard output, for the server, which prints only its log.
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

/// Parses the URL or path of Grafana, and removes trailing slashes.
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

/// Filter that silences dependencies whose log events are mostly noise, such as an error for every lost connection. The
/// log filter that the operator sets takes precedence.
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
