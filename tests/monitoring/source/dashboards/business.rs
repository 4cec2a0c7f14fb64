//! Dashboards of money flows, and of single transfers with the logs and traces behind them.

use crate::source::grafana::{Dashboard, Kind, Source, stat, time_series};

pub fn business() -> Dashboard {
    Dashboard {
        uid: "revwallet-business",
        title: "Business",
        folder: "revwallet",
        description: "Money flows by currency, holds, wallets and users.",
        text_variables: &[],
        panels: vec![
            time_series("Deposits", "short", "Amount deposited per second, by currency.").details("revwallet-ledger")
                .begins("Money")
                .money(r#"sum by (currency) (rate(wallet_amount_moved_minor_units_total{,kind="deposit"}[$__rate_interval]))"#, "{{currency}}"),
            time_series("Withdrawals", "short", "Amount withdrawn per second, by currency.")
                .money(r#"sum by (currency) (rate(wallet_amount_moved_minor_units_total{,kind="withdrawal"}[$__rate_interval]))"#, "{{currency}}"),
            time_series("Internal transfers", "short", "Amount moved between wallets per second, by kind and currency.")
                .money(r#"sum by (currency, kind) (rate(wallet_amount_moved_minor_units_total{,kind!~"deposit|withdrawal"}[$__rate_interval]))"#, "{{kind}} {{currency}}"),
            time_series("Held amount", "short", "Amount in open holds, by currency.").money("max by (currency) (wallet_held_minor_units{})", "{{currency}}"),
            time_series("Expired holds", "ops", "Holds that expired before they were captured or voided.").query("sum(rate(wallet_holds_expired_total{}[$__rate_interval]))", "holds"),
            time_series("Wallets by state", "short", "Open wallets, including frozen ones, and closed wallets.").begins("Wallets and users").query("max by (state) (wallet_accounts{})", "{{state}}"),
            time_series("Main wallets opened", "ops", "Main wallets opened by a first deposit, of users and of guests.").query("sum by (holder) (rate(wallet_main_wallets_opened_total{}[$__rate_interval]))", "{{holder}}"),
            time_series("Active users", "short", "Users with an open session.").query("max(wallet_active_users{})", "users"),
            stat("User registrations", "short", "In the last day.").query(r#"sum(increase(wallet_trail_entries_total{,action="user.registered",outcome="done"}[1d]))"#, "users").size(12, 4),
            stat("Sign-ins", "short", "In the last day.").details("revwallet-security").query(r#"sum(increase(wallet_trail_entries_total{,action="user.signed_in",outcome="done"}[1d]))"#, "sign-ins").size(12, 4),
        ],
    }
}

pub fn transfers() -> Dashboard {
    let table = |title, description| {
        time_series(title, "none", description)
            .kind(Kind::Table)
            .source(Source::Postgres)
            .size(24, 9)
    };
    Dashboard {
        uid: "revwallet-transfers",
        title: "Transfers",
        folder: "revwallet",
        description: "Transfers of a wallet, a transfer or a trace, with links to logs and traces. Reads the database with a role that is limited to three functions.",
        text_variables: &[("wallet", "1"), ("transfer", ""), ("trace", "")],
        panels: vec![
            table(
                "Transfers of the wallet",
                "Last hundred transfers, newest first. The trace id links to the request.",
            )
            .query("select * from observer.of_wallet(${wallet:sqlstring})", ""),
            table("Legs of the transfer", "The transfer with its other legs, such as a fee.")
                .query("select * from observer.of_transfer(${transfer:sqlstring})", ""),
            table(
                "Transfers of the trace",
                "Transfers made by the request, within the selected time range.",
            )
            .query(
                "select * from observer.of_trace(${trace:sqlstring}, $__timeFrom(), $__timeTo())",
                "",
            ),
            time_series(
                "Logs of the trace",
                "none",
                "Log lines of the request with this trace id.",
            )
            .kind(Kind::Logs)
            .source(Source::Loki)
            .query(r#"{service="revwallet"} | trace_id = "$trace""#, "")
            .size(24, 9),
        ],
    }
}
