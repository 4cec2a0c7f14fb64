//! The book.

use crate::source::grafana::{Dashboard, lines, number};

pub fn ledger() -> Dashboard {
    Dashboard {
        uid: "revwallet-ledger",
        title: "Ledger",
        folder: "revwallet",
        description: "The writer, its batches and its queue; the auditor and what it found.",
        texts: &[],
        panels: vec![
            number("Imbalance", "short", "By how much running balances were found to be off, in minor units. Anything but 0 is an emergency.")
                .query("max(abs(wallet_ledger_imbalance_minor_units{}))", "off by")
                .thresholds(0.5, 1.0),
            number("Faults", "short", "What the auditor found since the start.")
                .query(r#"sum(wallet_ledger_invariant_checks_total{,outcome="violated"})"#, "faults")
                .thresholds(0.5, 1.0),
            number("Behind", "short", "Transfers that the auditor has not checked yet.")
                .query(r#"max(wallet_book_reader_lag_transfers{,reader="auditor"})"#, "transfers")
                .thresholds(1_000.0, 10_000.0),
            number("Last check", "s", "How long ago the auditor checked a seal.")
                .query("time() - max(wallet_ledger_last_check_timestamp_seconds{} > 0)", "ago"),
            number("Head", "short", "The last transfer of the book.").query("max(wallet_ledger_head_seq{})", "seq"),
            number("Oldest", "s", "How long the oldest posting has been waiting.")
                .query("max(wallet_ledger_oldest_queued_seconds{})", "waits")
                .thresholds(1.0, 15.0),
            lines("Transfers", "ops", "By kind.").query("sum by (kind) (rate(wallet_ledger_transfers_total{}[$__rate_interval]))", "{{kind}}"),
            lines("Outcomes", "ops", "By what became of them. A refusal is not an error.")
                .query("sum by (outcome) (rate(wallet_ledger_transfers_total{}[$__rate_interval]))", "{{outcome}}"),
            lines("Refusals", "ops", "Postings that were refused, by reason.")
                .query("sum by (reason) (rate(wallet_ledger_rejections_total{}[$__rate_interval]))", "{{reason}}"),
            lines("Commit", "s", "From queueing a posting to its durable commit.")
                .query("histogram_quantile(0.5, sum by (le) (rate(wallet_ledger_commit_duration_seconds_bucket{}[$__rate_interval])))", "p50")
                .query("histogram_quantile(0.99, sum by (le) (rate(wallet_ledger_commit_duration_seconds_bucket{}[$__rate_interval])))", "p99")
                .query("histogram_quantile(0.999, sum by (le) (rate(wallet_ledger_commit_duration_seconds_bucket{}[$__rate_interval])))", "p99.9")
                .thresholds(0.05, 0.25),
            lines("Stages", "s", "Where a batch spends its time, on average: waiting, deciding, writing (the durable commit included), answering.")
                .query("sum by (stage) (rate(wallet_ledger_stage_duration_seconds_sum{}[$__rate_interval])) / sum by (stage) (rate(wallet_ledger_stage_duration_seconds_count{}[$__rate_interval]))", "{{stage}}"),
            lines("Transfers a commit", "short", "How many share one commit: the more load, the more.")
                .query("sum(rate(wallet_ledger_batch_size_sum{}[$__rate_interval])) / sum(rate(wallet_ledger_batch_size_count{}[$__rate_interval]))", "on average"),
            lines("Batches", "ops", "By what became of them: sealed, stale (another process was first), or failed.")
                .query("sum by (outcome) (rate(wallet_ledger_batches_total{}[$__rate_interval]))", "{{outcome}}"),
            lines("Races", "ops", "Batches that met another process at the head of the book.")
                .query("sum by (outcome) (rate(wallet_ledger_head_races_total{}[$__rate_interval]))", "{{outcome}}"),
            lines("Queue", "short", "Legs that wait, and how many may.")
                .query("sum by (instance) (wallet_ledger_queue_depth{})", "waiting, {{instance}}")
                .query("max(wallet_ledger_queue_capacity{})", "most"),
            lines("Connections lost", "ops", "Times that the writer lost its connection and settled what was in flight.")
                .query("sum by (instance) (rate(wallet_ledger_reconnects_total{}[$__rate_interval]))", "{{instance}}"),
            lines("Checks", "ops", "What the auditor looked at, by check and finding.")
                .query("sum by (check, outcome) (rate(wallet_ledger_invariant_checks_total{}[$__rate_interval]))", "{{check}} {{outcome}}"),
            lines("Readers", "short", "How far each durable reader is behind the book.")
                .query("max by (reader) (wallet_book_reader_lag_transfers{})", "{{reader}}")
                .thresholds(1_000.0, 10_000.0),
            lines("Reading", "ops", "Steps of the durable readers, and reads for live ones.")
                .query("sum by (reader, outcome) (rate(wallet_book_reader_steps_total{}[$__rate_interval]))", "{{reader}} {{outcome}}")
                .query("sum by (by) (rate(wallet_book_live_reads_total{}[$__rate_interval]))", "live, by {{by}}"),
        ],
    }
}
