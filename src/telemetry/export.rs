//! The way of spans out of the program: which are kept, how many may wait, how many are lost.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use anyhow::Context as _;
use metrics::Counter;
use opentelemetry::trace::{Link, SpanKind, TraceContextExt, TraceId, TraceState, TracerProvider};
use opentelemetry::{Context, KeyValue};
use opentelemetry_otlp::WithExportConfig;
use opentelemetry_sdk::Resource;
use opentelemetry_sdk::error::OTelSdkResult;
use opentelemetry_sdk::trace::{
    BatchConfigBuilder, BatchSpanProcessor, SamplingDecision, SamplingResult, SdkTracerProvider,
    ShouldSample, Span, SpanData, SpanExporter, SpanProcessor,
};
use tracing::Subscriber;
use tracing_subscriber::Layer;
use tracing_subscriber::registry::LookupSpan;

use super::traces::EXPORTING;
use super::{Metrics, TelemetryArgs};

/// The span of many traces at once: it is only made when one of them is kept, and then it is kept too.
const SHARED_SPAN: &str = "ledger.batch";

/// Most spans that wait to be sent; what comes then is dropped and counted.
const WAITING_MAX: usize = 32_768;

/// Most spans that are sent at once.
const BATCH_MAX: usize = 4_096;

/// How often is sent what has not filled a batch.
const DELAY: Duration = Duration::from_secs(1);

/// Longest that sending a batch may take.
const TIMEOUT: Duration = Duration::from_secs(5);

/// Sends spans in the background.
pub(super) struct Exporter(SdkTracerProvider);

impl Exporter {
    /// Nothing when no endpoint is configured.
    pub(super) fn start(args: &TelemetryArgs, metrics: &Metrics) -> anyhow::Result<Option<Self>> {
        let Some(endpoint) = &args.otlp_endpoint else { return Ok(None) };
        let exporter = opentelemetry_otlp::SpanExporter::builder()
            .with_tonic()
            .with_endpoint(endpoint)
            .with_timeout(TIMEOUT)
            .build()
            .with_context(|| format!("--otlp-endpoint `{endpoint}` is not usable"))?;
        let resource = Resource::builder()
            .with_service_name(env!("CARGO_PKG_NAME"))
            .with_attributes([
                KeyValue::new("service.version", env!("CARGO_PKG_VERSION")),
                KeyValue::new("deployment.environment.name", args.environment.clone()),
            ])
            .build();
        let provider = SdkTracerProvider::builder()
            .with_span_processor(Bounded::before(
                exporter,
                &metrics.wallet_otlp_dropped_spans_total,
            ))
            .with_sampler(Sampling::of(args.trace_ratio))
            .with_resource(resource)
            .build();
        EXPORTING.store(true, Ordering::Relaxed);
        Ok(Some(Self(provider)))
    }

    pub(super) fn layer<S: Subscriber + for<'a> LookupSpan<'a>>(&self) -> impl Layer<S> + use<S> {
        tracing_opentelemetry::layer().with_tracer(self.0.tracer(env!("CARGO_PKG_NAME")))
    }

    pub(super) fn finish(&self) {
        // The collector may be gone at the end; the spans are lost then and nothing else is.
        let _unsent = self.0.shutdown();
    }
}

/// Bits of a trace's number that are random whoever made it: those at its end. Others may be the mark of a UUID.
const RANDOM_BITS: u32 = 56;

/// By the trace's number, so that every program keeps the same traces, and only what the caller has not decided against.
#[derive(Debug, Clone)]
struct Sampling {
    /// Traces with a number below this are kept.
    below: u64,
}

impl Sampling {
    fn of(ratio: f64) -> Self {
        #[expect(
            clippy::cast_possible_truncation,
            clippy::cast_precision_loss,
            clippy::cast_sign_loss,
            reason = "a share of 2^56 need not be exact"
        )]
        let below = (ratio * (1_u64 << RANDOM_BITS) as f64) as u64;
        Self { below }
    }

    fn keeps(&self, trace: TraceId) -> bool {
        let number = u128::from_be_bytes(trace.to_bytes());
        number % (1 << RANDOM_BITS) < u128::from(self.below)
    }
}

impl ShouldSample for Sampling {
    fn should_sample(
        &self,
        parent: Option<&Context>,
        trace: TraceId,
        name: &str,
        _: &SpanKind,
        _: &[KeyValue],
        _: &[Link],
    ) -> SamplingResult {
        let decided_against = parent.is_some_and(|parent| {
            let caller = parent.span().span_context().clone();
            caller.is_valid() && !caller.is_sampled()
        });
        let kept = !decided_against && self.keeps(trace);
        let decision = if name == SHARED_SPAN || kept {
            SamplingDecision::RecordAndSample
        } else {
            SamplingDecision::Drop
        };
        SamplingResult { decision, attributes: Vec::new(), trace_state: TraceState::default() }
    }
}

/// Lets so many spans wait, and counts what is lost there and on the way.
#[derive(Debug)]
struct Bounded {
    inner: BatchSpanProcessor,
    lost: Lost,
}

#[derive(Debug, Clone)]
struct Lost {
    waiting: Arc<AtomicUsize>,
    dropped: Counter,
}

/// The exporter, with an eye on what becomes of its batches.
#[derive(Debug)]
struct Watched<E> {
    inner: E,
    lost: Lost,
}

impl Bounded {
    fn before(exporter: impl SpanExporter + 'static, dropped: &Counter) -> Self {
        let lost = Lost { waiting: Arc::default(), dropped: dropped.clone() };
        let config = BatchConfigBuilder::default()
            // What does not fit was not let in.
            .with_max_queue_size(WAITING_MAX + BATCH_MAX)
            .with_max_export_batch_size(BATCH_MAX)
            .with_scheduled_delay(DELAY)
            .build();
        let watched = Watched { inner: exporter, lost: lost.clone() };
        let inner = BatchSpanProcessor::builder(watched).with_batch_config(config).build();
        Self { inner, lost }
    }
}

impl SpanProcessor for Bounded {
    fn on_start(&self, span: &mut Span, context: &Context) {
        self.inner.on_start(span, context);
    }

    fn on_end(&self, span: SpanData) {
        if self.lost.waiting.fetch_add(1, Ordering::Relaxed) < WAITING_MAX {
            return self.inner.on_end(span);
        }
        self.lost.waiting.fetch_sub(1, Ordering::Relaxed);
        self.lost.dropped.increment(1);
    }

    fn force_flush(&self) -> OTelSdkResult {
        self.inner.force_flush()
    }

    fn shutdown_with_timeout(&self, timeout: Duration) -> OTelSdkResult {
        self.inner.shutdown_with_timeout(timeout)
    }

    fn set_resource(&mut self, resource: &Resource) {
        self.inner.set_resource(resource);
    }
}

impl<E: SpanExporter> SpanExporter for Watched<E> {
    async fn export(&self, batch: Vec<SpanData>) -> OTelSdkResult {
        let count = batch.len();
        let sent = self.inner.export(batch).await;
        self.lost.waiting.fetch_sub(count, Ordering::Relaxed);
        if sent.is_err() {
            self.lost.dropped.increment(count as u64);
        }
        sent
    }

    fn shutdown_with_timeout(&self, timeout: Duration) -> OTelSdkResult {
        self.inner.shutdown_with_timeout(timeout)
    }

    fn set_resource(&mut self, resource: &Resource) {
        self.inner.set_resource(resource);
    }
}

#[cfg(test)]
mod tests {
    use uuid::Uuid;

    use super::*;

    #[test]
    fn the_share_that_is_kept_is_the_one_that_was_asked_for() {
        for (ratio, least, most) in
            [(0.0, 0, 0), (0.1, 50, 200), (0.9, 800, 980), (1.0, 1_000, 1_000)]
        {
            let sampling = Sampling::of(ratio);

            let ids = (0..1_000).map(|_| TraceId::from_bytes(Uuid::new_v4().into_bytes()));
            let kept = ids.filter(|id| sampling.keeps(*id)).count();

            assert!((least..=most).contains(&kept), "{kept} of 1000 at {ratio}");
        }
    }
}
