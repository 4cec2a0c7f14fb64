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
            number("New users", "short", "In the last day.").query(r#"sum(increase(wallet_trail_entries_total{,action="user.registered",outcome="done"}[1d]))"#, "users").size(12, 4),
            number("Sign-ins", "short", "In the last day.").query(r#"sum(increase(wallet_trail_entries_total{,action="user.signed_in",outcome="done"}[1d]))"#, "sign-ins").size(12, 4),
        ],
    }
}

/// The columns of a transfer, with the way to its logs and its trace.
const SELECT: &str = "select seq as transfer, kind, debit_wallet, credit_wallet, amount_minor_units, currency, debit_balance, credit_balance, at, trace_id from observer.transfer";

pub fn transfers() -> Dashboard {
    Dashboard {
        uid: "revwallet-transfers",
        title: "Transfers",
        folder: "revwallet",
        description: "What happened to a wallet, or one transfer; and from each to the logs and the trace of the request behind it. Reads the database by a role that can do nothing else.",
        texts: &[("wallet", "1"), ("transfer", "0"), ("trace", "none")],
        panels: vec![
            lines("Of this wallet", "none", "The last hundred, newest first. The trace leads to the request.")
                .kind(Kind::Table)
                .from(From::Postgres)
                .query(&format!("{SELECT} where '$wallet' ~ '^[0-9]+$' and (debit_wallet = nullif('$wallet', '')::bigint or credit_wallet = nullif('$wallet', '')::bigint) order by seq desc limit 100"), "")
                .size(24, 10),
            lines("This transfer", "none", "With its other legs, such as a fee.")
                .kind(Kind::Table)
                .from(From::Postgres)
                .query(&format!("{SELECT} where seq between '$transfer'::bigint and '$transfer'::bigint + 9 and trace_id is not distinct from (select trace_id from observer.transfer where seq = '$transfer'::bigint) order by seq"), "")
                .size(24, 6),
            lines("Logs of the trace", "none", "Every line of the request with this trace id.")
                .kind(Kind::Logs)
                .from(From::Loki)
                .query(r#"{service="revwallet"} | trace_id = "$trace""#, "")
                .size(24, 10),
        ],
    }
}
