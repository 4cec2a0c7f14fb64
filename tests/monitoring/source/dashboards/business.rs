//! What the money does, and one transfer up to the request behind it.

use crate::source::grafana::{Dashboard, From, Kind, lines, number};

pub fn business() -> Dashboard {
    Dashboard {
        uid: "revwallet-business",
        title: "Business",
        folder: "revwallet",
        description: "What moves, in which currency, and what is set aside.",
        texts: &[],
        panels: vec![
            lines("Deposits", "short", "Money that came in, in minor units a second.")
                .query(r#"sum by (currency) (rate(wallet_amount_moved_minor_units_total{,kind="deposit"}[$__rate_interval]))"#, "{{currency}}"),
            lines("Withdrawals", "short", "Money that went out, in minor units a second.")
                .query(r#"sum by (currency) (rate(wallet_amount_moved_minor_units_total{,kind="withdrawal"}[$__rate_interval]))"#, "{{currency}}"),
            lines("Moved inside", "short", "By kind, in minor units a second.")
                .query(r#"sum by (currency, kind) (rate(wallet_amount_moved_minor_units_total{,kind!~"deposit|withdrawal"}[$__rate_interval]))"#, "{{kind}} {{currency}}"),
            lines("Set aside", "short", "Money in open holds, in minor units.").query("max by (currency) (wallet_held_minor_units{})", "{{currency}}"),
            lines("Holds that ended by themselves", "ops", "Nobody captured them in time.").query("sum(rate(wallet_holds_expired_total{}[$__rate_interval]))", "holds"),
            lines("Refused", "ops", "What people could not do, by reason.").query("sum by (reason) (rate(wallet_ledger_rejections_total{}[$__rate_interval]))", "{{reason}}"),
            lines("Wallets", "short", "Open, frozen ones too, and closed.").query("max by (state) (wallet_accounts{})", "{{state}}"),
            lines("Users who are signed in", "short", "By their sessions.").query("max(wallet_active_users{})", "users"),
            number("New users", "short", "In the last day.").query(r#"sum(increase(wallet_trail_entries_total{,action="user.registered",outcome="done"}[1d]))"#, "users").size(12, 4),
            number("Sign-ins", "short", "In the last day.").query(r#"sum(increase(wallet_trail_entries_total{,action="user.signed_in",outcome="done"}[1d]))"#, "sign-ins").size(12, 4),
        ],
    }
}

pub fn transfers() -> Dashboard {
    let table = |title, description| {
        lines(title, "none", description).kind(Kind::Table).from(From::Postgres).size(24, 9)
    };
    Dashboard {
        uid: "revwallet-transfers",
        title: "Transfers",
        folder: "revwallet",
        description: "What happened to a wallet, a transfer, or in a request; and from each to the logs and the trace behind it. Reads the database by a role that can do nothing else.",
        texts: &[("wallet", "1"), ("transfer", ""), ("trace", "")],
        panels: vec![
            table(
                "Of this wallet",
                "The last hundred, newest first. The trace leads to the request.",
            )
            .query("select * from observer.of_wallet(${wallet:sqlstring})", ""),
            table("This transfer", "With its other legs, such as a fee.")
                .query("select * from observer.of_transfer(${transfer:sqlstring})", ""),
            table("Of this trace", "What the request moved, within the time that is shown.").query(
                "select * from observer.of_trace(${trace:sqlstring}, $__timeFrom(), $__timeTo())",
                "",
            ),
            lines("Logs of the trace", "none", "Every line of the request with this trace id.")
                .kind(Kind::Logs)
                .from(From::Loki)
                .query(r#"{service="revwallet"} | trace_id = "$trace""#, "")
                .size(24, 9),
        ],
    }
}
