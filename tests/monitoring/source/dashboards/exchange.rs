//! Dashboard of the exchange: orders and their steps, calls to the outside, hot wallets and price.

use crate::source::grafana::{Dashboard, stat, time_series};

pub fn exchange() -> Dashboard {
    Dashboard {
        uid: "revwallet-exchange",
        title: "Exchange",
        folder: "revwallet",
        description: "Orders to buy and sell crypto: where they are, what each step takes, and what the house has.",
        text_variables: &[],
        panels: vec![
            stat("Completed", "short", "Orders that completed in the last day.")
                .query(r#"sum(increase(wallet_saga_finished_total{,outcome="completed"}[1d]))"#, "completed").size(6, 4),
            stat("Undone", "short", "Orders that failed in the last day, with all money back.")
                .query(r#"sum(increase(wallet_saga_finished_total{,outcome="compensated"}[1d]))"#, "undone").size(6, 4),
            stat("Stuck or unknown", "short", "Orders that need an operator or an answer of the outside.")
                .query(r#"sum(max by (saga, state) (wallet_saga_in_flight{,state=~"stuck|unknown"}))"#, "orders").size(6, 4),
            stat("Price", "short", "Price of one bitcoin in the default currency.")
                .query("max(wallet_exchange_price{})", "price").size(6, 4),
            time_series("Open orders", "short", "Orders that are not over, by state.").begins("Orders")
                .query("sum by (state) (max by (saga, state) (wallet_saga_in_flight{}))", "{{state}}"),
            time_series("Oldest open order", "s", "Age of the oldest order that is not over.")
                .query("max by (saga) (wallet_saga_oldest_seconds{})", "{{saga}}"),
            time_series("Requests for orders", "ops", "Orders that were placed, replayed or refused, by side.")
                .query("sum by (side, outcome) (rate(wallet_exchange_orders_total{}[$__rate_interval]))", "{{side}} {{outcome}}"),
            time_series("Begun and ended", "ops", "Orders that began and ended; compensated ones failed with all money back.")
                .query("sum by (saga) (rate(wallet_saga_started_total{}[$__rate_interval]))", "{{saga}} begun")
                .query("sum by (saga, outcome) (rate(wallet_saga_finished_total{}[$__rate_interval]))", "{{saga}} {{outcome}}"),
            time_series("Time of a step, p99", "s", "An attempt at a step, with its calls and its commit.").begins("Steps")
                .query("histogram_quantile(0.99, sum by (le, saga, step) (rate(wallet_saga_step_duration_seconds_bucket{}[$__rate_interval])))", "{{saga}} {{step}}"),
            time_series("Attempts", "ops", "Attempts at steps by outcome. Refused steps are compensated; the others are tried again or wait.")
                .query("sum by (step, outcome) (rate(wallet_saga_steps_total{}[$__rate_interval]))", "{{step}} {{outcome}}"),
            time_series("Hot wallets", "short", "Funds of the house, by currency.").begins("Hot wallets")
                .money("max by (currency) (wallet_exchange_hot_wallet_minor_units{})", "{{currency}}"),
            time_series("Hot wallet short", "ops", "Steps that could not be booked because a hot wallet was short.")
                .query("sum(rate(wallet_exchange_hot_wallet_short_total{}[$__rate_interval]))", "steps"),
            time_series("Quotes", "ops", "Quotes by side.").begins("Users and operators")
                .query("sum by (side) (rate(wallet_exchange_quotes_total{}[$__rate_interval]))", "{{side}}"),
            time_series("Commands of operators", "ops", "Approvals, retries, skips, aborts and resolutions.")
                .query("sum by (command) (rate(wallet_exchange_commands_total{}[$__rate_interval]))", "{{command}}"),
            time_series("Notifications", "ops", "Attempts to tell users about their orders.").details("revwallet-jobs")
                .query("sum by (outcome) (rate(wallet_saga_notifications_total{}[$__rate_interval]))", "{{outcome}}"),
            time_series("Claims", "ops", "Claims that a worker lost because it was too slow, and orders of a version that the program does not know.")
                .query("sum(rate(wallet_saga_claims_lost_total{}[$__rate_interval]))", "lost")
                .query("sum(rate(wallet_saga_unknown_versions_total{}[$__rate_interval]))", "unknown version"),
        ],
    }
}
