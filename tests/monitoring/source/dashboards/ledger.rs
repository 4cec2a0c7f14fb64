//! Dashboard of the ledger.

use crate::source::grafana::{Dashboard, stat, time_series};

pub fn ledger() -> Dashboard {
    Dashboard {
        uid: "revwallet-ledger",
        title: "Ledger",
        folder: "revwallet",
        description: "Ledger writer: batches, queue and commit latency. Ledger auditor: lag, checks and violations. Leader of the book and its followers.",
        text_variables: &[],
        panels: vec![
            stat("Ledger imbalance", "short", "Deviation of the running balances found by the auditor, in minor units. Any value but 0 is an emergency.")
                .query("max(abs(wallet_ledger_imbalance_minor_units{}))", "imbalance")
                .thresholds(0.5, 1.0),
            stat("Ledger violations", "short", "Violations found by the auditor since the process started.")
                .query(r#"sum(wallet_ledger_invariant_checks_total{,outcome="violated"})"#, "violations")
                .thresholds(0.5, 1.0),
            stat("Auditor lag", "short", "Transfers not yet checked by the auditor.")
                .query(r#"max(wallet_book_reader_lag_transfers{,reader="auditor"})"#, "transfers")
                .thresholds(1_000.0, 10_000.0),
            stat("Time since last audit", "s", "Time since the auditor last checked a seal.")
                .query("time() - min(max by (book) (wallet_ledger_last_check_timestamp_seconds{} > 0))", "ago"),
            stat("Ledger head", "short", "Sequence number of the last transfer.").query("max(wallet_ledger_head_seq{})", "seq"),
            stat("Oldest queued posting", "s", "Time that the oldest posting has been in the queue.")
                .query("max(wallet_ledger_oldest_queued_seconds{})", "age")
                .thresholds(1.0, 15.0),
            time_series("Transfer rate by kind", "ops", "Transfers per second by kind.").begins("Transfers").query("sum by (kind) (rate(wallet_ledger_transfers_total{}[$__rate_interval]))", "{{kind}}"),
            time_series("Transfer rate by outcome", "ops", "Transfers per second by outcome. A rejection by a rule is not an error.")
                .query("sum by (outcome) (rate(wallet_ledger_transfers_total{}[$__rate_interval]))", "{{outcome}}"),
            time_series("Rejections by reason", "ops", "Postings rejected by a rule, by reason.")
                .query("sum by (reason) (rate(wallet_ledger_rejections_total{}[$__rate_interval]))", "{{reason}}"),
            time_series("Commit latency", "s", "Time from enqueueing a posting to its durable commit.")
                .query("histogram_quantile(0.5, sum by (le) (rate(wallet_ledger_commit_duration_seconds_bucket{}[$__rate_interval])))", "p50")
                .query("histogram_quantile(0.99, sum by (le) (rate(wallet_ledger_commit_duration_seconds_bucket{}[$__rate_interval])))", "p99")
                .query("histogram_quantile(0.999, sum by (le) (rate(wallet_ledger_commit_duration_seconds_bucket{}[$__rate_interval])))", "p99.9")
                .thresholds(0.05, 0.25),
            time_series("Batch stage duration", "s", "Average time of a batch in each stage: queue, validate, write (including the durable commit), ack.").begins("Batches").details("revwallet-postgres")
                .query("sum by (stage) (rate(wallet_ledger_stage_duration_seconds_sum{}[$__rate_interval])) / sum by (stage) (rate(wallet_ledger_stage_duration_seconds_count{}[$__rate_interval]))", "{{stage}}"),
            time_series("Batch size", "short", "Transfers per commit. Grows with the load (group commit).")
                .query("sum(rate(wallet_ledger_batch_size_sum{}[$__rate_interval])) / sum(rate(wallet_ledger_batch_size_count{}[$__rate_interval]))", "average"),
            time_series("Batches by outcome", "ops", "Batches per second by outcome: sealed, stale (another process sealed first), or a failure.")
                .query("sum by (outcome) (rate(wallet_ledger_batches_total{}[$__rate_interval]))", "{{outcome}}"),
            time_series("Head conflicts", "ops", "Batches that conflicted with another process at the head of the ledger, by outcome.")
                .query("sum by (outcome) (rate(wallet_ledger_head_races_total{}[$__rate_interval]))", "{{outcome}}"),
            time_series("Ledger queue depth", "short", "Queued legs, and the capacity of the queue.").begins("Queue and audit")
                .query("sum by (instance) (wallet_ledger_queue_depth{})", "queued, {{instance}}")
                .query("max(wallet_ledger_queue_capacity{})", "capacity"),
            time_series("Writer reconnects", "ops", "Reconnects after the writer lost its connection and resolved the batches in flight.")
                .query("sum by (instance) (rate(wallet_ledger_reconnects_total{}[$__rate_interval]))", "{{instance}}"),
            time_series("Audit checks", "ops", "Checks of the auditor by check and outcome.")
                .query("sum by (check, outcome) (rate(wallet_ledger_invariant_checks_total{}[$__rate_interval]))", "{{check}} {{outcome}}"),
            time_series("Room in the partitions", "short", "Transfers for which the partitions of the book have room. The next partition is created when the last one is half full.")
                .query("min(wallet_ledger_partition_room_transfers{} and wallet_ledger_partition_size_transfers{} > 0)", "room")
                .query("max(wallet_ledger_partition_size_transfers{}) / 2", "half a partition"),
            time_series("Role of each process", "short", "Role of each process: the leader writes the postings of all, a follower sends it its own, a process that is alone writes its own.").begins("Leader and followers")
                .query("max by (instance, role) (wallet_ledger_role{} == 1)", "{{instance}} {{role}}"),
            time_series("Leader changes", "short", "Times that a process became the leader of the book.")
                .query("sum by (instance) (increase(wallet_ledger_leader_changes_total{}[$__rate_interval]))", "{{instance}}"),
            time_series("Postings sent to the leader by outcome", "ops", "Postings per second that followers sent to the leader: answered, unsupported (the leader runs another version), or in doubt (the leader did not answer).")
                .query("sum by (outcome) (rate(wallet_ledger_forwarded_total{}[$__rate_interval]))", "{{outcome}}"),
            time_series("Time of the leader's responses", "s", "Time from sending postings to the leader to its response, with the commit.")
                .query("histogram_quantile(0.5, sum by (le) (rate(wallet_ledger_forward_duration_seconds_bucket{}[$__rate_interval])))", "p50")
                .query("histogram_quantile(0.99, sum by (le) (rate(wallet_ledger_forward_duration_seconds_bucket{}[$__rate_interval])))", "p99")
                .thresholds(0.05, 0.25),
            time_series("Postings received by the leader", "ops", "Postings per second that followers sent to each process.")
                .query("sum by (instance) (rate(wallet_ledger_received_total{}[$__rate_interval]))", "{{instance}}"),
        ],
    }
}
