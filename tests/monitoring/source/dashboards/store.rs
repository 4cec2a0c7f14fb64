//! Dashboard of the games store: purchases and refunds, money, and the catalog with its cache.

use crate::source::grafana::{Dashboard, stat, time_series};

pub fn store() -> Dashboard {
    Dashboard {
        uid: "revwallet-store",
        title: "Store",
        folder: "revwallet",
        description: "Purchases and refunds of games, where their money goes, and the catalog.",
        text_variables: &[],
        panels: vec![
            stat("Sales", "short", "Games that were bought, given or claimed in the last day.")
                .query(r#"sum(increase(wallet_store_purchases_total{,outcome=~"paid|free|gift"}[1d]))"#, "sales").size(8, 4),
            stat("Refunds", "short", "In the last day.").query("sum(increase(wallet_store_refunds_total{}[1d]))", "refunds").size(8, 4),
            stat("Catalog cache", "percentunit", "Share of lists that came from the cache, in the last hour.")
                .query(r#"sum(increase(wallet_catalog_lists_total{,outcome="hit"}[1h])) / sum(increase(wallet_catalog_lists_total{}[1h]))"#, "hits").size(8, 4),
            time_series("Purchases", "ops", "Purchases by outcome. A refusal says why in its problem, such as too little money.").begins("Purchases and refunds")
                .query("sum by (outcome) (rate(wallet_store_purchases_total{}[$__rate_interval]))", "{{outcome}}"),
            time_series("Refunds per second", "ops", "Purchases that were taken back.").query("sum(rate(wallet_store_refunds_total{}[$__rate_interval]))", "refunds"),
            time_series("Activation keys", "ops", "Keys that users tried. Many unknown ones are guesses, which are throttled.")
                .query("sum by (outcome) (rate(wallet_store_redeems_total{}[$__rate_interval]))", "{{outcome}}"),
            time_series("Guesses refused", "ops", "Attempts at discount codes and activation keys that had to wait.").details("revwallet-security")
                .query(r#"sum by (scope) (rate(wallet_rate_limited_total{,scope=~"code|activation_key"}[$__rate_interval]))"#, "{{scope}}"),
            time_series("Revenue", "short", "Prices paid per second, tax and fee included.")
                .begins("Money")
                .money("sum by (currency) (rate(wallet_store_revenue_minor_units_total{}[$__rate_interval]))", "{{currency}}"),
            time_series("Tax", "short", "Tax in the prices paid per second.")
                .money("sum by (currency) (rate(wallet_store_tax_minor_units_total{}[$__rate_interval]))", "{{currency}}"),
            time_series("Fees", "short", "Amount per second that the operator kept of publishers' sales.")
                .money("sum by (currency) (rate(wallet_store_fees_minor_units_total{}[$__rate_interval]))", "{{currency}}"),
            time_series("Debts of publishers", "short", "Amount that refunds took back beyond what sales had earned; later sales settle it.")
                .money("max by (currency) (wallet_store_publisher_debt_minor_units{})", "{{currency}}"),
            time_series("Lists", "ops", "Lists of the catalog, from the cache and from the database.").begins("Catalog")
                .query("sum by (outcome) (rate(wallet_catalog_lists_total{}[$__rate_interval]))", "{{outcome}}"),
            time_series("Games changed", "ops", "Games added, updated, deleted or retired.").query("sum by (operation) (rate(wallet_catalog_changes_total{}[$__rate_interval]))", "{{operation}}"),
            time_series("Store API", "ops", "Requests to the routes of the store.").begins("API").details("revwallet-http")
                .query(r#"sum by (http_route) (rate(http_server_request_duration_seconds_count{,http_route=~"/api/(games|publishers).*|/api/users/.id./library"}[$__rate_interval]))"#, "{{http_route}}"),
            time_series("Store API, p99", "s", "Time of responses, by route.")
                .query(r#"histogram_quantile(0.99, sum by (le, http_route) (rate(http_server_request_duration_seconds_bucket{,http_route=~"/api/(games|publishers).*|/api/users/.id./library"}[$__rate_interval])))"#, "{{http_route}}"),
        ],
    }
}
