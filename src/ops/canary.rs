//! The synthetic probe: a real transfer every few seconds through the public address, as a customer's would go.
//!
//! Whatever stands between a customer and their money (names, certificates, the edge, the API, the writer, Postgres)
//! is asked whether it works, also when nobody else asks.

use std::sync::Arc;
use std::time::{Duration, Instant};

use http::StatusCode;
use reqwest::redirect::Policy;
use tokio_util::sync::CancellationToken;
use url::Url;

use crate::duration::duration;
use crate::secret::{Secret, from_setting};
use crate::tasks::Tasks;
use crate::telemetry::{Metrics, TraceIds};

/// Most bytes of an answer: whoever else stands at the address may have much to say.
const ANSWER_MAX: usize = 64 * 1024;

/// Most bytes of it in a log line.
const TOLD_MAX: usize = 200;

/// Longest that an answer may take: less than the usual interval.
const TIMEOUT: Duration = Duration::from_secs(10);

#[derive(Debug, Clone, clap::Args)]
#[command(next_help_heading = "Probe")]
pub struct CanaryArgs {
    /// The public address, such as `http://revwallet.com`: a probe moves a cent of its own through it, again and again.
    #[arg(long, env = "REVWALLET_PROBE_URL", global = true, value_parser = address)]
    pub probe_url: Option<Url>,
    /// How often.
    #[arg(long, env = "REVWALLET_PROBE_INTERVAL", global = true, default_value = "15s", value_parser = pause)]
    pub probe_interval: Duration,
    /// The API key that it uses where access is closed; any scope will do.
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

/// Probes until the tasks stop, if an address was given.
pub fn start(args: &CanaryArgs, metrics: &Arc<Metrics>, tasks: &Tasks) {
    for outcome in ["ok", "failed"] {
        metrics.wallet_probe_total.preregister([outcome]);
    }
    let Some(base) = args.probe_url.clone() else { return };
    let (args, metrics, stopping) = (args.clone(), Arc::clone(metrics), tasks.stopping().clone());
    tasks.spawn("probe", async move {
        let probe = Canary::new(&base, args.probe_key, metrics)?;
        probe.run(args.probe_interval, stopping).await
    });
}

/// A pause that is one.
fn pause(text: &str) -> Result<Duration, String> {
    match duration(text)? {
        Duration::ZERO => Err("give at least 1ms".to_owned()),
        pause => Ok(pause),
    }
}

impl Canary {
    fn new(base: &Url, key: Option<Secret>, metrics: Arc<Metrics>) -> anyhow::Result<Self> {
        // A second call finds it installed, which is as good.
        let _installed = rustls::crypto::ring::default_provider().install_default();
        let client = reqwest::Client::builder()
            .user_agent(concat!("revwallet-probe/", env!("CARGO_PKG_VERSION")))
            .timeout(TIMEOUT)
            // What a customer has to set up is set up each time: the name, the connection, the certificate.
            .pool_max_idle_per_host(0)
            .redirect(Policy::none())
            .build()?;
        Ok(Self { client, url: base.join("/wallet/probe")?, key, metrics })
    }

    async fn run(self, interval: Duration, stopping: CancellationToken) -> anyhow::Result<()> {
        let mut clock = tokio::time::interval(interval);
        clock.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        while stopping.run_until_cancelled(clock.tick()).await.is_some() {
            if stopping.run_until_cancelled(self.once()).await.is_none() {
                break;
            }
        }
        Ok(())
    }

    async fn once(&self) {
        let trace = TraceIds::continue_or_begin(None);
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
                    trace_id = %trace.trace_hex(),
                    error.message = format!("{cause:#}"),
                    "no transfer through the public address"
                );
            }
        }
    }

    async fn transfer(&self, trace: &TraceIds) -> anyhow::Result<()> {
        let mut request = self
            .client
            .post(self.url.clone())
            .header("idempotency-key", format!("probe-{}", trace.trace_hex()))
            .header("traceparent", trace.to_header());
        if let Some(key) = &self.key {
            request = request.bearer_auth(key.reveal());
        }
        let mut answer = request.send().await?;
        let status = answer.status();
        // The body too has to come.
        let mut body = Vec::new();
        while let Some(more) = answer.chunk().await? {
            body.extend(more);
            anyhow::ensure!(body.len() <= ANSWER_MAX, "{status}, and more than {ANSWER_MAX} bytes");
        }
        body.truncate(TOLD_MAX);
        let told = String::from_utf8_lossy(&body);
        anyhow::ensure!(status == StatusCode::CREATED, "{status}: {told}");
        Ok(())
    }
}
