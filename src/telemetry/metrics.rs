//! Declarations of all metrics of the program.
//!
//! The doc comment of each metric is its help text. The name of its field is the full name of the metric, including the
//! unit and `_total`. Each label has a fixed set of possible values. Each [`Metrics`] has its own recorder, so tests in
//! the same process do not share metrics.

use std::sync::Arc;

use metrics::{Counter, Gauge, Histogram, Key, KeyName, Recorder};
use metrics_exporter_prometheus::{
    Matcher, PrometheusBuilder, PrometheusHandle, PrometheusRecorder,
};

use super::buckets::{BYTES, COUNTS, FINE_LATENCY, LATENCY};
use super::exemplars::Exemplars;
use super::metric_family::{MetricFamily, MetricKind};

/// Name, kind, labels and help text of a metric.
pub struct MetricDeclaration {
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
            /// Links from the buckets of the request duration histogram to the traces of single requests.
            pub exemplars: Exemplars,
            $($(#[doc = $help])+ pub $name: metrics!(@type $kind $({$($label),+})?),)+
        }

        impl Metrics {
            pub fn new() -> Arc<Self> {
                Self::with_recording(true)
            }

            /// Creates the metrics. If `is_enabled` is false, they record nothing, so that the cost of
            /// recording can be measured.
            pub(super) fn with_recording(is_enabled: bool) -> Arc<Self> {
                let builder = PrometheusBuilder::new();
                $($(let builder = set_buckets(builder, stringify!($name), $buckets);)?)+
                let recorder = Arc::new(builder.build_recorder());
                $(metrics!(@describe $kind recorder $name concat!($($help),+));)+
                let enabled = is_enabled.then_some(&recorder);
                Arc::new(Self {
                    $($name: metrics!(@make $kind enabled $name $({$($label),+})?),)+
                    recorder,
                    exemplars: Exemplars::default(),
                })
            }

            /// Name, kind, labels and help text of every metric.
            pub const DECLARED: &[MetricDeclaration] = &[$(MetricDeclaration {
                name: stringify!($name),
                kind: stringify!($kind),
                labels: &[$($(stringify!($label)),+)?],
                help: concat!($($help),+),
            },)+];
        }
    };
    (@type counter {$($label:ident),+}) => { MetricFamily<Counter, { [$(stringify!($label)),+].len() }> };
    (@type gauge {$($label:ident),+}) => { MetricFamily<Gauge, { [$(stringify!($label)),+].len() }> };
    (@type histogram {$($label:ident),+}) => { MetricFamily<Histogram, { [$(stringify!($label)),+].len() }> };
    (@type counter) => { Counter };
    (@type gauge) => { Gauge };
    (@type histogram) => { Histogram };
    (@make $kind:ident $recorder:ident $name:ident {$($label:ident),+}) => {
        MetricFamily::new($recorder, stringify!($name), [$(stringify!($label)),+])
    };
    (@make $kind:ident $recorder:ident $name:ident) => {
        $recorder.map_or_else(MetricKind::disabled, |recorder| {
            MetricKind::register(recorder, &Key::from_static_name(stringify!($name)))
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
    /// Always 1; the labels name the version, revision and compiler of the program.
    gauge wallet_build_info {version, revision, rustc};
    /// Result of each check of `/readyz`: 1 if it passes, 0 if it fails.
    gauge wallet_ready {check};
    /// Stage of the shutdown: 0 serving, 1 draining, 2 stopping.
    gauge wallet_shutdown_state;
    /// Panics: the label value `process` counts all panics, and `http` counts only the panics in request handlers.
    counter wallet_panics_total {place};

    /// Time from receiving the head of a request to sending the head of its response.
    histogram http_server_request_duration_seconds {http_request_method, http_route, http_response_status_code} in LATENCY;
    /// Requests that are being processed.
    gauge http_server_active_requests;
    /// Size of request bodies with a `Content-Length`.
    histogram http_server_request_body_size_bytes in BYTES;
    /// Time from receiving the head of a gRPC call to the end of its response.
    histogram rpc_server_call_duration_seconds {rpc_method, rpc_response_status_code} in LATENCY;
    /// gRPC responses that are being sent, streams included.
    gauge rpc_server_active_streams;
    /// Deposits, withdrawals and transfers that clients sent on the gRPC stream `PostStream`, by outcome.
    counter wallet_stream_items_total {outcome};
    /// Open connections, by listener.
    gauge wallet_http_connections {listener};
    /// Requests that were rejected before their handler finished, by reason.
    counter wallet_http_rejected_total {reason};
    /// Connections that the server closed because of a limit, a timeout or a protocol error, by reason.
    counter wallet_http_connections_closed_total {reason};

    /// Open WebSocket connections, by state when they were opened: authenticated, or anonymous if they had no
    /// credential.
    gauge wallet_ws_connections {state};
    /// Subscriptions of WebSocket connections and of gRPC streams.
    gauge wallet_ws_subscriptions;
    /// Bytes that wait in the queues of all WebSocket connections and gRPC streams; sampled every second.
    gauge wallet_ws_queue_bytes;
    /// WebSocket frames, by direction and kind. Outgoing frames of the kind `event` deliver events to clients.
    counter wallet_ws_messages_total {direction, kind};
    /// Time from the commit of an event until it is handed to a client's connection. It is recorded for each event on a
    /// gRPC stream, but only for the oldest event of each batch on a WebSocket.
    histogram wallet_ws_fanout_lag_seconds in LATENCY;
    /// WebSocket connections that the server closed, by reason. The reason `revoked` does not count closed connections:
    /// it counts revoked and expired credentials of WebSocket connections, which stay open, and revoked credentials of
    /// gRPC streams.
    counter wallet_ws_dropped_total {reason};
    /// WebSocket connections and gRPC streams that were refused, by reason.
    counter wallet_ws_refused_total {reason};
    /// Replays of missed events, by source: memory (recent events), database, or unrecoverable (the events are no
    /// longer available).
    counter wallet_ws_replays_total {source};

    /// Requested transfers, by kind and outcome. A rejected transfer is not an error.
    counter wallet_ledger_transfers_total {kind, outcome};
    /// Rejected postings, by reason.
    counter wallet_ledger_rejections_total {reason};
    /// Postings with an idempotency key, by outcome: new, replayed, or conflict (the key was used for another request).
    counter wallet_idempotency_total {outcome};
    /// Time from queueing a posting to its durable commit.
    histogram wallet_ledger_commit_duration_seconds in FINE_LATENCY;
    /// Time that a batch spent in each stage: queue (wait of its oldest posting), validate, write (including the
    /// durable commit), and ack (responses to the callers).
    histogram wallet_ledger_stage_duration_seconds {stage} in FINE_LATENCY;
    /// Number of transfers in each commit of the ledger.
    histogram wallet_ledger_batch_size in COUNTS;
    /// Batches of postings, by outcome: sealed (committed), stale (another batch was committed first), key taken (an
    /// idempotency key was used before), companion (another module refused its part of the transaction),
    /// unavailable (the database cannot write now), faulty (a bug), or unsettled (sent again, because the outcome of an
    /// earlier attempt is not known).
    counter wallet_ledger_batches_total {outcome};
    /// Batches that two processes tried to append to the ledger at the same time, by outcome for this process: won or
    /// lost.
    counter wallet_ledger_head_races_total {outcome};
    /// Times that the ledger writer lost its connection to the database.
    counter wallet_ledger_reconnects_total;
    /// Movements of money (legs) that wait to be written to the ledger.
    gauge wallet_ledger_queue_depth;
    /// Age of the oldest posting that waits for its response.
    gauge wallet_ledger_oldest_queued_seconds;
    /// Maximum number of movements of money (legs) that may wait to be written to the ledger.
    gauge wallet_ledger_queue_capacity;
    /// Sequence number of the last transfer that this process has written to the first book (part) of the ledger.
    gauge wallet_ledger_head_seq;
    /// 1 for the role that this process has, 0 for the other roles: a leader writes the postings of all processes to
    /// the ledger, a follower sends its postings to the leader, and a process whose role is alone writes its own
    /// postings, even if another process is the leader.
    gauge wallet_ledger_role {role};
    /// Times that this process became the leader, which writes the postings of all processes to the ledger.
    counter wallet_ledger_leader_changes_total;
    /// Postings that this process sent to the ledger's leader, by outcome: answered; unsupported, if the leader cannot
    /// write them; or in doubt, if the leader did not report a result. This process writes the unsupported postings and
    /// those in doubt itself.
    counter wallet_ledger_forwarded_total {outcome};
    /// Time from sending postings to the ledger's leader until it responds.
    histogram wallet_ledger_forward_duration_seconds in FINE_LATENCY;
    /// Postings that other processes sent to this process while it was the ledger's leader.
    counter wallet_ledger_received_total;

    /// Number of further transfers that fit into the existing partitions of the ledger.
    gauge wallet_ledger_partition_room_transfers;
    /// Number of transfers that a partition of the ledger can hold. A new partition is created when the last partition
    /// is half full.
    gauge wallet_ledger_partition_size_transfers;

    /// Number of transfers or events that a durable reader has not read yet. A durable reader is a task that reads the
    /// ledger and stores its position.
    gauge wallet_book_reader_lag_transfers {reader, book};
    /// Attempts of a durable reader (a task that reads the ledger and stores its position) to read new transfers or
    /// events, by outcome: read, elsewhere (another process runs the reader), or failed.
    counter wallet_book_reader_steps_total {reader, outcome};
    /// Reads of new transfers or events from the database by live readers, which are tasks that follow the ledger but
    /// do not store their position: `hub` counts reads that all live readers of the process share, and `reader` counts
    /// reads of a single live reader that has fallen behind.
    counter wallet_book_live_reads_total {by};
    /// Checks of the ledger auditor, by check and outcome. Any outcome `violated` is an emergency.
    counter wallet_ledger_invariant_checks_total {check, outcome};
    /// Sum of the differences between stored and recomputed balances that the ledger auditor found since the process
    /// started. Any value but 0 is an emergency.
    gauge wallet_ledger_imbalance_minor_units {currency};
    /// Unix time when the ledger auditor last checked a seal, the record that ends a committed batch.
    gauge wallet_ledger_last_check_timestamp_seconds {book};

    /// Money that transfers moved, in minor units of its currency.
    counter wallet_amount_moved_minor_units_total {currency, kind};
    /// Number of minor units in one unit of a currency, such as 100 for EUR. Dashboards divide amounts by it.
    gauge wallet_currency_minor_units {currency};
    /// Money set aside by open holds, in minor units; sampled once a minute.
    gauge wallet_held_minor_units {currency};
    /// Wallets by state: open (frozen wallets included) or closed; sampled every ten minutes.
    gauge wallet_accounts {state};
    /// Main wallets that were opened, by holder: user or guest.
    counter wallet_main_wallets_opened_total {holder};
    /// Holds that expired before they were captured.
    counter wallet_holds_expired_total;

    /// Attempts to deliver an event to a webhook, by outcome.
    counter wallet_webhook_deliveries_total {outcome};
    /// Delivery jobs that were postponed without an attempt, because the webhook is paused or its owner already has too
    /// many attempts running.
    counter wallet_webhook_deferrals_total {reason};
    /// Pauses of webhooks whose deliveries kept timing out.
    counter wallet_webhook_pauses_total;
    /// Webhooks that are paused; sampled every 15 s.
    gauge wallet_webhooks_paused;
    /// Webhooks and balance alerts that were refused because the limit on their number was reached, by limit.
    counter wallet_webhook_refusals_total {limit};
    /// Duration of an attempt to deliver an event, until the webhook responded or the attempt failed.
    histogram wallet_webhook_duration_seconds in LATENCY;
    /// Scores that were submitted to leaderboards, by outcome.
    counter wallet_leaderboard_submissions_total {outcome};
    /// Number of scores that a transaction writes to a leaderboard.
    histogram wallet_leaderboard_batch_size in COUNTS;
    /// Duration of a read of a leaderboard, by operation: page, rank, or around (an entry with its neighbors).
    histogram wallet_leaderboard_read_duration_seconds {operation} in FINE_LATENCY;
    /// Leaderboards that were created, changed or deleted, by operation.
    counter wallet_leaderboard_changes_total {operation};
    /// Number of leaderboards; sampled every 15 s.
    gauge wallet_leaderboards;
    /// Leaderboard seasons that ended.
    counter wallet_leaderboard_seasons_ended_total;
    /// Time since the most overdue leaderboard season should have ended, or 0 if no season is overdue; sampled every
    /// 15 s.
    gauge wallet_leaderboard_season_overdue_seconds;
    /// Leaderboard prizes that were paid, or marked as unpaid because payment was not possible, by outcome.
    counter wallet_leaderboard_prizes_total {outcome};
    /// Leaderboard prizes that are not paid, by state: due, or unpaid if payment was not possible; sampled every 15 s.
    gauge wallet_leaderboard_prizes_open {state};
    /// Lists of games that the catalog served, by outcome of the cache lookup: hit or miss.
    counter wallet_catalog_lists_total {outcome};
    /// Changes to the games catalog, by operation.
    counter wallet_catalog_changes_total {operation};
    /// Purchases of games, by outcome: paid, free, gift, replayed, sold out or refused.
    counter wallet_store_purchases_total {outcome};
    /// Refunds of games. The refund of a game includes its downloadable content.
    counter wallet_store_refunds_total;
    /// Activation keys that users tried, by outcome: redeemed, unknown, refused or throttled.
    counter wallet_store_redeems_total {outcome};
    /// Money that buyers paid for games, in minor units.
    counter wallet_store_revenue_minor_units_total {currency};
    /// Tax that is included in the prices of purchased games, in minor units.
    counter wallet_store_tax_minor_units_total {currency};
    /// Fees that the operator kept from purchases of games, in minor units.
    counter wallet_store_fees_minor_units_total {currency};
    /// Debts of publishers to the operator after refunds, in minor units; sampled every 15 s.
    gauge wallet_store_publisher_debt_minor_units {currency};
    /// Quotes of the exchange, by side: buy or sell.
    counter wallet_exchange_quotes_total {side};
    /// Requests to place an order, by side and outcome: placed, replayed or refused.
    counter wallet_exchange_orders_total {side, outcome};
    /// Commands that operators gave to orders, by command: approve, retry, skip, abort or resolve.
    counter wallet_exchange_commands_total {command};
    /// Balances of the hot wallets, in minor units; sampled every 15 s.
    gauge wallet_exchange_hot_wallet_minor_units {currency};
    /// Times that a step of an order could not be written to the ledger because a hot wallet had too little money.
    counter wallet_exchange_hot_wallet_short_total;
    /// Price of one bitcoin in the default currency; sampled every 15 s.
    gauge wallet_exchange_price;
    /// Sagas that were begun, by kind.
    counter wallet_saga_started_total {saga};
    /// Sagas that ended, by outcome: completed or compensated.
    counter wallet_saga_finished_total {saga, outcome};
    /// Attempts at steps of sagas, by outcome: done, undone, refused, retry, unknown, waiting or stuck.
    counter wallet_saga_steps_total {saga, step, outcome};
    /// Duration of an attempt at a step of a saga, including its calls to other systems and its commit.
    histogram wallet_saga_step_duration_seconds {saga, step} in LATENCY;
    /// Sagas that have not ended, by state; sampled every 5 s.
    gauge wallet_saga_in_flight {saga, state};
    /// Age of the oldest saga that has not ended; sampled every 5 s.
    gauge wallet_saga_oldest_seconds {saga};
    /// Times that a worker lost its claim on a saga to another worker or to an operator's command.
    counter wallet_saga_claims_lost_total;
    /// Sagas that a worker could not run, because they were begun by another version of the program.
    counter wallet_saga_unknown_versions_total;
    /// Attempts to notify the owner of a finished saga, by outcome: ok or failed.
    counter wallet_saga_notifications_total {outcome};
    /// Jobs that are due and wait for a worker; sampled every 15 s.
    gauge wallet_jobs_ready {queue};
    /// Runs of jobs, by outcome: ok, retry, or dead after the last attempt.
    counter wallet_jobs_total {queue, outcome};
    /// Time from the moment when a job is due until it starts.
    histogram wallet_job_latency_seconds {queue} in LATENCY;
    /// Jobs that failed their last attempt and wait to be replayed; sampled every 15 s.
    gauge wallet_dead_letters {queue};

    /// Checked credentials, by method (password, token, key) and outcome.
    counter wallet_auth_attempts_total {method, outcome};
    /// Requests rejected by a rate limit, by scope of the limit.
    counter wallet_rate_limited_total {scope};
    /// Time to compute a password hash.
    histogram wallet_password_hash_duration_seconds in LATENCY;
    /// Requests that wait to compute a password hash.
    gauge wallet_password_hashes_waiting;
    /// Users with a valid session; sampled every ten minutes.
    gauge wallet_active_users;
    /// Entries of the audit log, by action and outcome.
    counter wallet_trail_entries_total {action, outcome};

    /// Connections of the database pool, by state: idle or used.
    gauge db_client_connection_count {state};
    /// Maximum number of connections that the database pool may open.
    gauge db_client_connection_max;
    /// Requests that wait for a connection of the database pool.
    gauge db_client_connection_pending_requests;
    /// Time that a request waited for a connection of the database pool.
    histogram db_client_connection_wait_time_seconds in FINE_LATENCY;
    /// Requests that timed out waiting for a connection of the database pool.
    counter db_client_connection_timeouts_total;
    /// Time that a named operation held its database connection.
    histogram db_client_operation_duration_seconds {db_operation_name} in FINE_LATENCY;
    /// Reads with `?stale=ok`, by outcome: served by the replica, or by the primary because the replica is behind or
    /// unavailable.
    counter wallet_replica_reads_total {outcome};
    /// Upper bound of the time by which the read replica is behind the primary.
    gauge wallet_replica_lag_seconds;
    /// Times that the embedded Postgres died and was restarted.
    counter wallet_embedded_postgres_restarts_total;

    /// Test transfers that the canary made through the public address, by outcome.
    counter wallet_probe_total {outcome};
    /// Duration of a test transfer of the canary, including the time to connect.
    histogram wallet_probe_duration_seconds in LATENCY;

    /// Alerts received from Alertmanager, by receiver and status.
    counter wallet_alerts_heard_total {receiver, status};
    /// Unix time when the watchdog alert of Alertmanager was last received.
    gauge wallet_watchdog_last_timestamp_seconds;
    /// Log events, by level.
    counter wallet_log_events_total {level};
    /// Log lines dropped because standard output was not read fast enough.
    counter wallet_log_dropped_total;
    /// Log lines for Loki, by outcome: pushed or lost. Lost lines are still on standard output.
    counter wallet_loki_lines_total {outcome};
    /// Spans lost because the collector rejected them, was unavailable for too long, or was too slow.
    counter wallet_otlp_dropped_spans_total;
    /// Share of traces that are exported. It is below --trace-ratio while the number of spans per second exceeds
    /// --trace-spans-max.
    gauge wallet_trace_sampled_ratio;
    /// Time that the last rendering of `/metrics` took.
    gauge wallet_metrics_render_duration_seconds;

    /// Threads that run asynchronous tasks, by runtime: sockets (for WebSocket connections), or main (for everything
    /// else).
    gauge tokio_workers_count {runtime};
    /// Tasks that are alive, by runtime.
    gauge tokio_live_tasks_count {runtime};
    /// Tasks that wait for any worker thread, by runtime.
    gauge tokio_global_queue_depth {runtime};
    /// Share of time that the worker threads were busy since `/metrics` was last rendered, by runtime.
    gauge tokio_workers_busy_ratio {runtime};
}

impl Metrics {
    /// Returns the recorder, for crates that record through the `metrics` facade.
    pub(super) fn recorder(&self) -> &PrometheusRecorder {
        &self.recorder
    }

    pub(super) fn handle(&self) -> PrometheusHandle {
        self.recorder.handle()
    }
}

fn set_buckets(builder: PrometheusBuilder, name: &str, bounds: &[f64]) -> PrometheusBuilder {
    builder
        .set_buckets_for_metric(Matcher::Full(name.to_owned()), bounds)
        .expect("the bounds are constants and not empty")
}

/// Returns the text of a doc comment without the space at its start, as the help text of a metric.
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
        metrics.rpc_server_call_duration_seconds.with(["x", "OK"]).record(1.0);
        metrics.wallet_ledger_commit_duration_seconds.record(1.0);
        metrics.wallet_ledger_stage_duration_seconds.with(["write"]).record(1.0);
        metrics.wallet_ledger_batch_size.record(1.0);
        metrics.wallet_webhook_duration_seconds.record(1.0);
        metrics.wallet_job_latency_seconds.with(["x"]).record(1.0);
        metrics.wallet_password_hash_duration_seconds.record(1.0);
        metrics.wallet_probe_duration_seconds.record(1.0);
        metrics.wallet_ws_fanout_lag_seconds.record(1.0);
        metrics.wallet_leaderboard_batch_size.record(1.0);
        metrics.wallet_leaderboard_read_duration_seconds.with(["x"]).record(1.0);
        metrics.wallet_saga_step_duration_seconds.with(["x", "y"]).record(1.0);

        let rendered = metrics.handle().render();

        for MetricDeclaration { name, kind, .. } in Metrics::DECLARED {
            if *kind == "histogram" {
                assert!(rendered.contains(&format!("# TYPE {name} histogram")), "{name}");
            }
        }
    }

    #[test]
    fn names_end_in_their_unit_or_kind() {
        for MetricDeclaration { name, kind, labels, .. } in Metrics::DECLARED {
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
    fn series_beyond_the_limit_are_counted_together() {
        let metrics = Metrics::new();

        for n in 0..2_100 {
            metrics.wallet_http_rejected_total.with([&n.to_string()]).increment(1);
        }

        let rendered = metrics.handle().render();
        assert!(rendered.contains(r#"wallet_http_rejected_total{reason="_OTHER"} 100"#));
    }
}
