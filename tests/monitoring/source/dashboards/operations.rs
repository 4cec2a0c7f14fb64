//! Dashboards of background jobs, webhooks, authentication and the audit log.

use crate::source::grafana::{Dashboard, Kind, Source, stat, time_series};

pub fn jobs() -> Dashboard {
    Dashboard {
        uid: "revwallet-jobs",
        title: "Jobs and webhooks",
        folder: "revwallet",
        description: "Job queue, webhook deliveries and the ledger readers that feed them.",
        text_variables: &[],
        panels: vec![
            stat("Dead letters", "short", "Deliveries abandoned after a day of retries. They wait for a replay.")
                .query("max by (queue) (wallet_dead_letters{})", "{{queue}}")
                .thresholds(0.5, 100.0)
                .size(8, 4),
            stat("Ready jobs", "short", "Jobs that are due and wait for a worker.").query("max by (queue) (wallet_jobs_ready{})", "{{queue}}").thresholds(100.0, 1_000.0).size(8, 4),
            stat("Webhook failure ratio", "percentunit", "Share of the webhook delivery attempts that fail.")
                .query(r#"(sum(rate(wallet_webhook_deliveries_total{,outcome="failed"}[15m])) or vector(0)) / sum(rate(wallet_webhook_deliveries_total{}[15m]))"#, "failed")
                .thresholds(0.1, 0.5)
                .size(8, 4),
            time_series("Job runs by outcome", "ops", "Job runs per second by queue and outcome.").begins("Jobs").query("sum by (queue, outcome) (rate(wallet_jobs_total{}[$__rate_interval]))", "{{queue}} {{outcome}}"),
            time_series("Job queue latency", "s", "Time from when a job is due to its start.")
                .query("histogram_quantile(0.5, sum by (le, queue) (rate(wallet_job_latency_seconds_bucket{}[$__rate_interval])))", "p50 {{queue}}")
                .query("histogram_quantile(0.99, sum by (le, queue) (rate(wallet_job_latency_seconds_bucket{}[$__rate_interval])))", "p99 {{queue}}")
                .thresholds(1.0, 5.0),
            time_series("Webhook deliveries by outcome", "ops", "Webhook delivery attempts per second by outcome.").begins("Webhooks")
                .query("sum by (outcome) (rate(wallet_webhook_deliveries_total{}[$__rate_interval]))", "{{outcome}}"),
            time_series("Paused webhooks", "short", "Webhooks whose receivers time out, and pauses per minute.")
                .query("max(wallet_webhooks_paused{})", "paused")
                .query("60 * sum(rate(wallet_webhook_pauses_total{}[$__rate_interval]))", "pauses per minute"),
            time_series("Deferred and refused webhooks", "ops", "Delivery jobs per second that are put off without an attempt, and creations that exceed a limit.")
                .query("sum by (reason) (rate(wallet_webhook_deferrals_total{}[$__rate_interval]))", "deferred: {{reason}}")
                .query("sum by (limit) (rate(wallet_webhook_refusals_total{}[$__rate_interval]))", "refused: {{limit}}"),
            time_series("Webhook receiver latency", "s", "Response time of webhook receivers.")
                .query("histogram_quantile(0.5, sum by (le) (rate(wallet_webhook_duration_seconds_bucket{}[$__rate_interval])))", "p50")
                .query("histogram_quantile(0.99, sum by (le) (rate(wallet_webhook_duration_seconds_bucket{}[$__rate_interval])))", "p99"),
            time_series("Ledger reader lag", "short", "Transfers that each durable reader lags behind the ledger.").begins("Ledger readers").details("revwallet-ledger")
                .query("max by (reader) (wallet_book_reader_lag_transfers{})", "{{reader}}")
                .thresholds(1_000.0, 10_000.0),
            time_series("Ledger reader steps", "ops", "Steps of the durable readers per second by outcome.").query("sum by (reader, outcome) (rate(wallet_book_reader_steps_total{}[$__rate_interval]))", "{{reader}} {{outcome}}")
                .query("sum by (by) (rate(wallet_book_live_reads_total{}[$__rate_interval]))", "live reads, {{by}}"),
        ],
    }
}

pub fn security() -> Dashboard {
    Dashboard {
        uid: "revwallet-security",
        title: "Users and security",
        folder: "revwallet",
        description: "Authentication outcomes, rate limits, password hashing and the audit log.",
        text_variables: &[],
        panels: vec![
            stat("Failed logins", "short", "Logins with bad credentials or a locked account, in the last hour.")
                .query(r#"sum(increase(wallet_auth_attempts_total{,method="password",outcome=~"bad_credentials|locked"}[1h]))"#, "failed")
                .thresholds(50.0, 500.0)
                .size(6, 4),
            stat("Rate-limited attempts", "short", "Attempts rejected by a rate limit, in the last hour.").details("revwallet-edge").query(r"sum(increase(wallet_rate_limited_total{}[1h]))", "attempts").thresholds(10.0, 100.0).size(6, 4),
            stat("Invalid tokens and API keys", "short", "Requests with an invalid token or API key, in the last hour.")
                .query(r#"sum(increase(wallet_auth_attempts_total{,method=~"token|key",outcome="bad_credentials"}[1h]))"#, "refused")
                .thresholds(50.0, 500.0)
                .size(6, 4),
            stat("Password hash queue", "short", "Logins and registrations that wait for a password hash.").query("sum(wallet_password_hashes_waiting{})", "waiting").thresholds(50.0, 200.0).size(6, 4),
            time_series("Authentication attempts", "ops", "Authentication attempts per second by method and outcome.").begins("Sign-in").query("sum by (method, outcome) (rate(wallet_auth_attempts_total{}[$__rate_interval]))", "{{method}} {{outcome}}"),
            time_series("Rate limiting by scope", "ops", "Requests rejected by a rate limit, by scope.").query("sum by (scope) (rate(wallet_rate_limited_total{}[$__rate_interval]))", "{{scope}}"),
            time_series("Password hash duration", "s", "Time to compute one password hash.")
                .query("histogram_quantile(0.5, sum by (le) (rate(wallet_password_hash_duration_seconds_bucket{}[$__rate_interval])))", "p50")
                .query("histogram_quantile(0.99, sum by (le) (rate(wallet_password_hash_duration_seconds_bucket{}[$__rate_interval])))", "p99"),
            time_series("Audit log entries", "ops", "Audit log entries per second by action and outcome.").begins("Access").query("sum by (action, outcome) (rate(wallet_trail_entries_total{}[$__rate_interval]))", "{{action}} {{outcome}}"),
            time_series("Unauthorized and forbidden", "reqps", "Responses with status 401 and 403, by route.").details("revwallet-http")
                .query(r#"sum by (http_route, http_response_status_code) (rate(http_server_request_duration_seconds_count{,http_response_status_code=~"401|403"}[$__rate_interval]))"#, "{{http_response_status_code}} {{http_route}}"),
            time_series("Latest audit log entries", "none", "From the log. The user concerned is recorded in the database only.")
                .kind(Kind::Logs)
                .source(Source::Loki)
                .query(r#"{service="revwallet"} | json | event = "trail""#, ""),
        ],
    }
}
