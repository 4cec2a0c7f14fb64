//! Every metric of the program, declared once.
//!
//! The doc comment of a metric is its help text, its field's name is its full name,
//! unit and `_total` included. Labels take values from closed sets only.
//! Each [`Metrics`] has a recorder of its own, so that tests in one process do not mix.

use std::sync::Arc;

use metrics::{Counter, Gauge, Histogram, Key, KeyName, Recorder};
use metrics_exporter_prometheus::{
    Matcher, PrometheusBuilder, PrometheusHandle, PrometheusRecorder,
};

use super::exemplars::Exemplars;
use super::family::{Family, Kind};

/// Seconds, from a fast read to a timeout. No whole numbers: Prometheus 3 writes `1` as `1.0`.
pub(super) const LATENCY: &[f64] =
    &[0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.5, 2.5, 5.5, 10.5];
/// Seconds, of what should take less than a millisecond.
const FINE_LATENCY: &[f64] = &[
    0.000_05, 0.000_1, 0.000_25, 0.000_5, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5,
    1.5, 2.5, 5.5,
];
/// How many, in powers of two.
const COUNTS: &[f64] =
    &[1.5, 2.5, 4.5, 8.5, 16.5, 32.5, 64.5, 128.5, 256.5, 512.5, 1024.5, 4096.5, 20_000.5];
/// Bytes of a body.
const BYTES: &[f64] = &[128.5, 512.5, 2048.5, 8192.5, 65_536.5, 524_288.5, 4_194_304.5];

/// What is known of a metric before it has a value.
pub struct Declaration {
    pub name: &'static str,
    pub kind: &'static str,
    pub labels: &'static [&'static str],
    pub help: &'static str,
}

macro_rules! metrics {
    ($($(#[doc = $help:literal])+ $kind:ident $name:ident $({$($label:ident),+})? $(in $buckets:ident)?;)+) => {
        /// Handles to all metrics.
        pub struct Metrics {
            recorder: Arc<PrometheusRecorder>,
            /// Requests that lead from a histogram to a trace.
            pub exemplars: Exemplars,
            $($(#[doc = $help])+ pub $name: metrics!(@type $kind $({$($label),+})?),)+
        }

        impl Metrics {
            pub fn new() -> Arc<Self> {
                Self::if_wanted(true)
            }

            /// Those that count nothing show what counting costs.
            pub(super) fn if_wanted(wanted: bool) -> Arc<Self> {
                let builder = PrometheusBuilder::new();
                $($(let builder = buckets(builder, stringify!($name), $buckets);)?)+
                let recorder = Arc::new(builder.build_recorder());
                $(metrics!(@describe $kind recorder $name concat!($($help),+));)+
                let used = wanted.then_some(&recorder);
                Arc::new(Self {
                    $($name: metrics!(@make $kind used $name $({$($label),+})?),)+
                    recorder,
                    exemplars: Exemplars::default(),
                })
            }

            /// Everything that is declared here.
            pub const DECLARED: &[Declaration] = &[$(Declaration {
                name: stringify!($name),
                kind: stringify!($kind),
                labels: &[$($(stringify!($label)),+)?],
                help: concat!($($help),+),
            },)+];
        }
    };
    (@type counter {$($label:ident),+}) => { Family<Counter, { [$(stringify!($label)),+].len() }> };
    (@type gauge {$($label:ident),+}) => { Family<Gauge, { [$(stringify!($label)),+].len() }> };
    (@type histogram {$($label:ident),+}) => { Family<Histogram, { [$(stringify!($label)),+].len() }> };
    (@type counter) => { Counter };
    (@type gauge) => { Gauge };
    (@type histogram) => { Histogram };
    (@make $kind:ident $recorder:ident $name:ident {$($label:ident),+}) => {
        Family::new($recorder, stringify!($name), [$(stringify!($label)),+])
    };
    (@make $kind:ident $recorder:ident $name:ident) => {
        $recorder.map_or_else(Kind::idle, |recorder| {
            Kind::register(recorder, &Key::from_static_name(stringify!($name)))
        })
    };
    (@describe counter $recorder:ident $name:ident $help:expr) => {
        $recorder.describe_counter(KeyName::from(stringify!($name)), None, help($help));
    };
    (@describe gauge $recorder:ident $name:ident $help:expr) => {
        $recorder.describe_gauge(KeyName::from(stringify!($name)), None, help($help));
    };
    (@describe histogram $recorder:ident $name:ident $help:expr) => {
        $recorder.describe_histogram(KeyName::from(stringify!($name)), None, help($help));
    };
}

metrics! {
    /// Always 1; the labels say what is running.
    gauge wallet_build_info {version, revision, rustc};
    /// Whether the check behind `/readyz` passes: 1 or 0.
    gauge wallet_ready {check};
    /// How far the shutdown is: 0 serving, 1 draining, 2 stopping.
    gauge wallet_shutdown_state;
    /// Panics that were caught, by where.
    counter wallet_panics_total {place};

    /// Time from the head of a request to the head of its answer.
    histogram http_server_request_duration_seconds {http_request_method, http_route, http_response_status_code} in LATENCY;
    /// Requests that are being answered now.
    gauge http_server_active_requests;
    /// Size of request bodies that announce their length.
    histogram http_server_request_body_size_bytes in BYTES;
    /// Connections that are open now, by listener.
    gauge wallet_http_connections {listener};
    /// Requests that were turned away before their handler ended, by reason.
    counter wallet_http_rejected_total {reason};

    /// Transfers that were asked for, by kind and what became of them. A refusal is not an error.
    counter wallet_ledger_transfers_total {kind, outcome};
    /// Postings that were refused, by reason.
    counter wallet_ledger_rejections_total {reason};
    /// Postings with an idempotency key, by what became of the key.
    counter wallet_idempotency_total {outcome};
    /// Time from queueing a posting to its durable commit.
    histogram wallet_ledger_commit_duration_seconds in FINE_LATENCY;
    /// Time that a batch spent in each stage: queue (its oldest posting), validate, write (the durable commit included), ack.
    histogram wallet_ledger_stage_duration_seconds {stage} in FINE_LATENCY;
    /// Transfers of one commit.
    histogram wallet_ledger_batch_size in COUNTS;
    /// Batches by what became of them: sealed, stale, or failed.
    counter wallet_ledger_batches_total {outcome};
    /// Batches that met another process at the head of the book, and who was first.
    counter wallet_ledger_head_races_total {outcome};
    /// Times that the writer lost its connection to the database.
    counter wallet_ledger_reconnects_total;
    /// Legs that wait to be written.
    gauge wallet_ledger_queue_depth;
    /// How long the oldest posting without an answer has been waiting.
    gauge wallet_ledger_oldest_queued_seconds;
    /// Most legs that may wait.
    gauge wallet_ledger_queue_capacity;
    /// The last seq of the book that this process has seen.
    gauge wallet_ledger_head_seq;

    /// Transfers (or events) of the book that a durable reader has not read yet.
    gauge wallet_book_reader_lag_transfers {reader};
    /// Attempts of a durable reader to read on, by what became of them.
    counter wallet_book_reader_steps_total {reader, outcome};
    /// Reads for live readers: one by the hub for all of them, or one by a reader that had missed something.
    counter wallet_book_live_reads_total {by};
    /// Checks that the auditor made of what was written, by check and what it found. Any `violated` is an emergency.
    counter wallet_ledger_invariant_checks_total {check, outcome};
    /// By how much running balances were found to be off since the start. Anything but 0 is an emergency.
    gauge wallet_ledger_imbalance_minor_units {currency};
    /// When the auditor last checked a seal, in seconds since 1970.
    gauge wallet_ledger_last_check_timestamp_seconds;

    /// Money that was moved, in minor units of its currency.
    counter wallet_amount_moved_minor_units_total {currency, kind};
    /// Money that is set aside by open holds, in minor units; looked up once a minute.
    gauge wallet_held_minor_units {currency};
    /// Wallets by whether they are open (frozen ones are) or closed; counted every ten minutes.
    gauge wallet_accounts {state};
    /// Holds that ended because nobody captured them in time.
    counter wallet_holds_expired_total;

    /// Attempts to tell a webhook, by what became of them.
    counter wallet_webhook_deliveries_total {outcome};
    /// Time that a receiver took to answer, or not to.
    histogram wallet_webhook_duration_seconds in LATENCY;
    /// Jobs that are due and wait for a worker; looked up every 15 s.
    gauge wallet_jobs_ready {queue};
    /// Runs of jobs, by what became of them: ok, retry, or dead after the last attempt.
    counter wallet_jobs_total {queue, outcome};
    /// Time from when a job was due to its start.
    histogram wallet_job_latency_seconds {queue} in LATENCY;
    /// What was given up and waits for somebody to replay it; looked up every 15 s.
    gauge wallet_dead_letters {queue};

    /// Credentials that were looked at, by method (password, token, key) and what was found.
    counter wallet_auth_attempts_total {method, outcome};
    /// Requests that had to wait because of too many before them, by what they were for.
    counter wallet_rate_limited_total {scope};
    /// Time that one hash of a password took to compute.
    histogram wallet_password_hash_duration_seconds in LATENCY;
    /// Requests that wait until a hash of a password may be computed.
    gauge wallet_password_hashes_waiting;
    /// Users who are signed in; counted every ten minutes.
    gauge wallet_active_users;
    /// Lines of the trail: what happened around users and keys.
    counter wallet_trail_entries_total {action, outcome};

    /// Connections of the pool, by state.
    gauge db_client_connection_count {state};
    /// Most connections that the pool may open.
    gauge db_client_connection_max;
    /// Requests that wait for a connection now.
    gauge db_client_connection_pending_requests;
    /// Time that a request waited for a connection.
    histogram db_client_connection_wait_time_seconds in FINE_LATENCY;
    /// Requests that waited for a connection in vain.
    counter db_client_connection_timeouts_total;
    /// Time that one named operation held its connection.
    histogram db_client_operation_duration_seconds {db_operation_name} in FINE_LATENCY;
    /// Times that the embedded Postgres died and was started again.
    counter wallet_embedded_postgres_restarts_total;

    /// Transfers of the synthetic probe through the public address, by what became of them.
    counter wallet_probe_total {outcome};
    /// Time that a transfer of the synthetic probe took, connection included.
    histogram wallet_probe_duration_seconds in LATENCY;

    /// Alerts that Alertmanager told of, by who should hear them and whether they fire.
    counter wallet_alerts_heard_total {receiver, status};
    /// When Alertmanager's watchdog was heard last, in seconds since 1970.
    gauge wallet_watchdog_last_timestamp_seconds;
    /// Log events, by level.
    counter wallet_log_events_total {level};
    /// Log lines that were dropped because the output was not read fast enough.
    counter wallet_log_dropped_total;
    /// Log lines for Loki, by whether they arrived: what is lost here is still on standard output.
    counter wallet_loki_lines_total {outcome};
    /// Spans that were lost because the collector did not take them fast enough, or at all.
    counter wallet_otlp_dropped_spans_total;
    /// Time that the last answer of `/metrics` took to write.
    gauge wallet_metrics_render_duration_seconds;

    /// Threads that run asynchronous work.
    gauge tokio_workers_count;
    /// Tasks that are alive.
    gauge tokio_live_tasks_count;
    /// Tasks that wait for any worker.
    gauge tokio_global_queue_depth;
    /// Share of their time that the workers were busy since the last reading.
    gauge tokio_workers_busy_ratio;
}

impl Metrics {
    /// For crates that speak to the `metrics` facade.
    pub(super) fn recorder(&self) -> &PrometheusRecorder {
        &self.recorder
    }

    pub(super) fn handle(&self) -> PrometheusHandle {
        self.recorder.handle()
    }
}

fn buckets(builder: PrometheusBuilder, name: &str, bounds: &[f64]) -> PrometheusBuilder {
    builder
        .set_buckets_for_metric(Matcher::Full(name.to_owned()), bounds)
        .expect("the bounds are constants and not empty")
}

/// Doc comments start with a space and may have several lines.
fn help(doc: &'static str) -> metrics::SharedString {
    doc.trim().into()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_histogram_has_buckets() {
        let metrics = Metrics::new();
        metrics.http_server_request_duration_seconds.with(["GET", "/", "200"]).record(0.003);
        metrics.http_server_request_body_size_bytes.record(1.0);
        metrics.db_client_connection_wait_time_seconds.record(1.0);
        metrics.db_client_operation_duration_seconds.with(["x"]).record(1.0);
        metrics.wallet_ledger_commit_duration_seconds.record(1.0);
        metrics.wallet_ledger_stage_duration_seconds.with(["write"]).record(1.0);
        metrics.wallet_ledger_batch_size.record(1.0);
        metrics.wallet_webhook_duration_seconds.record(1.0);
        metrics.wallet_job_latency_seconds.with(["x"]).record(1.0);
        metrics.wallet_password_hash_duration_seconds.record(1.0);
        metrics.wallet_probe_duration_seconds.record(1.0);

        let rendered = metrics.handle().render();

        for Declaration { name, kind, .. } in Metrics::DECLARED {
            if *kind == "histogram" {
                assert!(rendered.contains(&format!("# TYPE {name} histogram")), "{name}");
            }
        }
    }

    #[test]
    fn names_end_in_their_unit_or_kind() {
        for Declaration { name, kind, labels, .. } in Metrics::DECLARED {
            match *kind {
                "counter" => assert!(name.ends_with("_total"), "{name}"),
                "histogram" => {
                    let unit = ["_seconds", "_bytes", "_size", "_depth"];
                    assert!(unit.iter().any(|unit| name.ends_with(unit)), "{name}");
                }
                _ => assert!(!name.ends_with("_total"), "{name}"),
            }
            assert!(labels.len() <= 4, "{name} has too many labels to stay bounded");
        }
    }

    #[test]
    fn a_family_that_runs_over_counts_the_rest_together() {
        let metrics = Metrics::new();

        for n in 0..2_100 {
            metrics.wallet_http_rejected_total.with([&n.to_string()]).increment(1);
        }

        let rendered = metrics.handle().render();
        assert!(rendered.contains(r#"wallet_http_rejected_total{reason="_OTHER"} 100"#));
    }
}
