//! What works behind the requests, and who comes in.

use crate::source::grafana::{Dashboard, From, Kind, lines, number};

pub fn jobs() -> Dashboard {
    Dashboard {
        uid: "revwallet-jobs",
        title: "Jobs and webhooks",
        folder: "revwallet",
        description: "The queue, what it does, and whether receivers listen.",
        texts: &[],
        panels: vec![
            number("Given up", "short", "Deliveries that nobody took for a day. They wait for a replay.")
                .query("max by (queue) (wallet_dead_letters{})", "{{queue}}")
                .thresholds(0.5, 100.0)
                .size(8, 4),
            number("Ready", "short", "Jobs that are due and wait for a worker.").query("max by (queue) (wallet_jobs_ready{})", "{{queue}}").thresholds(100.0, 1_000.0).size(8, 4),
            number("Failing", "percentunit", "Share of the attempts to tell a webhook that fail.")
                .query(r#"sum(rate(wallet_webhook_deliveries_total{,outcome="failed"}[15m])) / sum(rate(wallet_webhook_deliveries_total{}[15m]))"#, "failed")
                .thresholds(0.1, 0.5)
                .size(8, 4),
            lines("Jobs", "ops", "Runs, by what became of them.").query("sum by (queue, outcome) (rate(wallet_jobs_total{}[$__rate_interval]))", "{{queue}} {{outcome}}"),
            lines("Wait", "s", "From when a job was due to its start.")
                .query("histogram_quantile(0.5, sum by (le, queue) (rate(wallet_job_latency_seconds_bucket{}[$__rate_interval])))", "p50 {{queue}}")
                .query("histogram_quantile(0.99, sum by (le, queue) (rate(wallet_job_latency_seconds_bucket{}[$__rate_interval])))", "p99 {{queue}}")
                .thresholds(1.0, 5.0),
            lines("Deliveries", "ops", "Attempts to tell webhooks, by what became of them.")
                .query("sum by (outcome) (rate(wallet_webhook_deliveries_total{}[$__rate_interval]))", "{{outcome}}"),
            lines("Receivers", "s", "How long receivers take to answer.")
                .query("histogram_quantile(0.5, sum by (le) (rate(wallet_webhook_duration_seconds_bucket{}[$__rate_interval])))", "p50")
                .query("histogram_quantile(0.99, sum by (le) (rate(wallet_webhook_duration_seconds_bucket{}[$__rate_interval])))", "p99"),
            lines("Readers of the book", "short", "How far behind it each one is.")
                .query("max by (reader) (wallet_book_reader_lag_transfers{})", "{{reader}}")
                .thresholds(1_000.0, 10_000.0),
            lines("Steps of readers", "ops", "By what became of them.").query("sum by (reader, outcome) (rate(wallet_book_reader_steps_total{}[$__rate_interval]))", "{{reader}} {{outcome}}"),
        ],
    }
}

pub fn security() -> Dashboard {
    Dashboard {
        uid: "revwallet-security",
        title: "Users and security",
        folder: "revwallet",
        description: "Who signs in, who fails to, and what happened around users and keys.",
        texts: &[],
        panels: vec![
            number("Failed logins", "short", "In the last hour.")
                .query(r#"sum(increase(wallet_auth_attempts_total{,method="password",outcome=~"bad_credentials|locked"}[1h]))"#, "failed")
                .thresholds(50.0, 500.0)
                .size(6, 4),
            number("Locked out", "short", "Attempts that had to wait, in the last hour.").query(r"sum(increase(wallet_rate_limited_total{}[1h]))", "attempts").thresholds(10.0, 100.0).size(6, 4),
            number("Bad tokens and keys", "short", "In the last hour.")
                .query(r#"sum(increase(wallet_auth_attempts_total{,method=~"token|key",outcome="bad_credentials"}[1h]))"#, "refused")
                .thresholds(50.0, 500.0)
                .size(6, 4),
            number("Waiting to be hashed", "short", "Logins and registrations that wait for their turn.").query("sum(wallet_password_hashes_waiting{})", "waiting").thresholds(50.0, 200.0).size(6, 4),
            lines("Credentials", "ops", "What was looked at, by method and outcome.").query("sum by (method, outcome) (rate(wallet_auth_attempts_total{}[$__rate_interval]))", "{{method}} {{outcome}}"),
            lines("Limits", "ops", "Requests that had to wait, by what they were for.").query("sum by (scope) (rate(wallet_rate_limited_total{}[$__rate_interval]))", "{{scope}}"),
            lines("Cost of a hash", "s", "How long one hash of a password takes to compute.")
                .query("histogram_quantile(0.5, sum by (le) (rate(wallet_password_hash_duration_seconds_bucket{}[$__rate_interval])))", "p50")
                .query("histogram_quantile(0.99, sum by (le) (rate(wallet_password_hash_duration_seconds_bucket{}[$__rate_interval])))", "p99"),
            lines("The trail", "ops", "What happened around users and keys.").query("sum by (action, outcome) (rate(wallet_trail_entries_total{}[$__rate_interval]))", "{{action}} {{outcome}}"),
            lines("Refused", "reqps", "Answers 401 and 403, by route.")
                .query(r#"sum by (http_route, http_response_status_code) (rate(http_server_request_duration_seconds_count{,http_response_status_code=~"401|403"}[$__rate_interval]))"#, "{{http_response_status_code}} {{http_route}}"),
            lines("Last entries of the trail", "none", "As the log tells them; who it was about is in the database only.")
                .kind(Kind::Logs)
                .from(From::Loki)
                .query(r#"{service="revwallet"} | json | event = "trail""#, ""),
        ],
    }
}
