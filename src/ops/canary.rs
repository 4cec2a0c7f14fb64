//! The canary: makes a test transfer every few seconds. The request goes to the public address, and takes the same path
//! as the requests of customers.
//!
//! It detects a failure of any part between customers and their money (DNS, certificates, nginx, the API, the ledger
//! writer, Postgres), even while there are no other requests.

use std::sync::Arc;
use std::time::{Duration, Instant};

use http::StatusCode;
use reqwest::redirect::Policy;
use tokio_util::sync::CancellationToken;
use url::Url;

use crate::secret::{Secret, from_setting};
use crate::settings;
use crate::tasks::Tasks;
use crate::telemetry::{Metrics, TraceContext};

/// Largest response that is read, in bytes. Without the limit, a wrong address could lead to a server that sends an
/// endless response.
const RESPONSE_MAX: usize = 64 * 1024;

/// Maximum number of bytes that are logged of an unexpected response.
const LOGGED_MAX: usize = 200;

/// Longest time that a canary transfer may take. It is shorter than the usual interval between two transfers.
const TIMEOUT: Duration = Duration::from_secs(10);

#[derive(Debug, Clone, clap::Args)]
#[command(next_help_heading = "Probe")]
pub struct CanaryArgs {
    /// Public address of the service, such as `http://revwallet.com`, to which a canary sends test transfers at regular
    /// intervals.
    #[arg(long, env = "REVWALLET_PROBE_URL", global = true, value_parser = address)]
    pub probe_url: Option<Url>,
    /// Time between two canary transfers.
    #[arg(long, env = "REVWALLET_PROBE_INTERVAL", global = true, default_value = "15s", value_parser = settings::positive_duration)]
    pub probe_interval: Duration,
    /// API key of the canary, required if access is closed. The key needs no scope.
    #[arg(long, env = "REVWALLET_PROBE_KEY", global = true, hide_env_values = true, value_parser = from_setting)]
    pub probe_key: Option<Secret>,
}

fn address(text: &str) -> Result<Url, String> {
    let url = Url::parse(text).ok().filter(|url| matches!(url.scheme(), "http" | "https"));
    url.ok_or_else(|| "give an address such as http://revwallet.com".to_owned())
}

struct Canary {
    client: reqwest::Client,
    url: Url,
    key: Option<Secret>,
    metrics: Arc<Metrics>,
}

/// Starts the canary if its address is set. It runs until the program stops.
pub fn start(args: &CanaryArgs, metrics: &Arc<Metrics>, tasks: &Tasks) {
    for outcome in ["ok", "failed"] {
        metrics.wallet_probe_total.preregister([outcome]);
    }
    let Some(base) = args.probe_url.clone() else { return };
    let (args, metrics, stopping) = (args.clone(), Arc::clone(metrics), tasks.stopping().clone());
    tasks.spawn("probe", async move {
        let canary = Canary::new(&base, args.probe_key, metrics)?;
        canary.run(args.probe_interval, stopping).await
    });
}

impl Canary {
    fn new(base: &Url, key: Option<Secret>, metrics: Arc<Metrics>) -> anyhow::Result<Self> {
        // Installation fails if a provider is already installed, which is harmless because it is the same provider.
        let _installed = rustls::crypto::ring::default_provider().install_default();
        let client = reqwest::Client::builder()
            .user_agent(concat!("revwallet-probe/", env!("CARGO_PKG_VERSION")))
            .timeout(TIMEOUT)
            // Each transfer opens a new connection, so that it also checks DNS and the certificate.
            .pool_max_idle_per_host(0)
            .redirect(Policy::none())
            .build()?;
        Ok(Self { client, url: base.join("/wallet/probe")?, key, metrics })
    }

    async fn run(self, interval: Duration, stopping: CancellationToken) -> anyhow::Result<()> {
        let mut clock = tokio::time::interval(interval);
        clock.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        while stopping.run_until_cancelled(clock.tick()).await.is_some() {
            if stopping.run_until_cancelled(self.run_once()).await.is_none() {
                break;
            }
        }
        Ok(())
    }

    /// Makes a transfer and records whether it succeeded.
    async fn run_once(&self) {
        let trace = TraceContext::from_traceparent(None);
        let started = Instant::now();
        let outcome = self.transfer(&trace).await;
        let seconds = started.elapsed().as_secs_f64();
        self.metrics.wallet_probe_duration_seconds.record(seconds);
        match outcome {
            Ok(()) => self.metrics.wallet_probe_total.with(["ok"]).increment(1),
            Err(cause) => {
                self.metrics.wallet_probe_total.with(["failed"]).increment(1);
                tracing::warn!(
                    event = "probe.failed",
                    trace_id = %trace.trace_id_hex(),
                    error.message = format!("{cause:#}"),
                    "canary transfer through the public URL failed; retrying at the next interval"
                );
            }
        }
    }

    async fn transfer(&self, trace: &TraceContext) -> anyhow::Result<()> {
        let mut request = self
            .client
            .post(self.url.clone())
            .header("idempotency-key", format!("probe-{}", trace.trace_id_hex()))
            .header("traceparent", trace.to_traceparent());
        if let Some(key) = &self.key {
            request = request.bearer_auth(key.reveal());
        }
        let mut response = request.send().await?;
        let status = response.status();
        // The transfer succeeds only if the body of the response arrives completely.
        let mut body = Vec::new();
        while let Some(chunk) = response.chunk().await? {
            body.extend(chunk);
            anyhow::ensure!(
                body.len() <= RESPONSE_MAX,
                "status {status} with a body of more than {RESPONSE_MAX} bytes"
            );
        }
        body.truncate(LOGGED_MAX);
        let text = String::from_utf8_lossy(&body);
        anyhow::ensure!(status == StatusCode::CREATED, "status {status}: {text}");
        Ok(())
    }
}
