//! Dashboard of what game servers and players use: leaderboards, seasons and prizes, and the cents API.

use crate::source::grafana::{Dashboard, stat, time_series};

pub fn play() -> Dashboard {
    Dashboard {
        uid: "revwallet-play",
        title: "Play",
        folder: "revwallet",
        description: "Leaderboards, their seasons and prizes, and the deposits of players.",
        text_variables: &[],
        panels: vec![
            stat("Leaderboards", "short", "Boards that are not deleted.").query("max(wallet_leaderboards{})", "boards").size(6, 4),
            stat("Seasons ended", "short", "In the last day.").query("sum(increase(wallet_leaderboard_seasons_ended_total{}[1d]))", "seasons").size(6, 4),
            stat("Prizes unpaid", "short", "Prizes that could not be paid or received. Fix the cause, then retry them.")
                .query(r#"max(wallet_leaderboard_prizes_open{,state="unpaid"})"#, "prizes").thresholds(1.0, 1.0).size(6, 4),
            stat("Season overdue", "s", "Time since the oldest season that should have ended.")
                .query("max(wallet_leaderboard_season_overdue_seconds{})", "overdue").thresholds(30.0, 60.0).size(6, 4),
            time_series("Submissions", "ops", "Scores submitted, by outcome.").begins("Leaderboards").query("sum by (outcome) (rate(wallet_leaderboard_submissions_total{}[$__rate_interval]))", "{{outcome}}"),
            time_series("Submissions per transaction", "short", "Average number of submissions to a board that shared a transaction.")
                .query("sum(rate(wallet_leaderboard_batch_size_sum{}[$__rate_interval])) / sum(rate(wallet_leaderboard_batch_size_count{}[$__rate_interval]))", "submissions"),
            time_series("Rank reads", "ops", "Pages, ranks and neighbors read.").query("sum by (operation) (rate(wallet_leaderboard_read_duration_seconds_count{}[$__rate_interval]))", "{{operation}}"),
            time_series("Rank reads, p99", "s", "Time of the database for a page, a rank, or an entry with its neighbors.")
                .query("histogram_quantile(0.99, sum by (le, operation) (rate(wallet_leaderboard_read_duration_seconds_bucket{}[$__rate_interval])))", "{{operation}}"),
            time_series("Boards changed", "ops", "Boards created, changed or deleted.").query("sum by (operation) (rate(wallet_leaderboard_changes_total{}[$__rate_interval]))", "{{operation}}"),
            time_series("Prizes settled", "ops", "Prizes that were paid, or marked as unpaid.").begins("Prizes and API").query("sum by (outcome) (rate(wallet_leaderboard_prizes_total{}[$__rate_interval]))", "{{outcome}}"),
            time_series("Prizes open", "short", "Prizes that are due, and prizes that are unpaid.").query("max by (state) (wallet_leaderboard_prizes_open{})", "{{state}}"),
            time_series("Cents API", "ops", "Requests to /api/wallet, by route.").details("revwallet-http").query(r#"sum by (http_route) (rate(http_server_request_duration_seconds_count{,http_route=~"/api/wallet/.*"}[$__rate_interval]))"#, "{{http_route}}"),
            time_series("Posting streams", "ops", "Items of gRPC posting streams, by outcome.").query("sum by (outcome) (rate(wallet_stream_items_total{}[$__rate_interval]))", "{{outcome}}"),
        ],
    }
}
