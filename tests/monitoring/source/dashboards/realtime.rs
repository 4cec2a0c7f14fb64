//! Dashboard of the realtime connections.

use crate::source::grafana::{Dashboard, stat, time_series};

pub fn realtime() -> Dashboard {
    Dashboard {
        uid: "revwallet-realtime",
        title: "Realtime",
        folder: "revwallet",
        description: "WebSocket connections: subscriptions, deliveries, lag from commit to delivery, replays and dropped clients.",
        text_variables: &[],
        panels: vec![
            stat("WebSocket connections", "short", "Open WebSocket connections.").query("sum(wallet_ws_connections{})", "open"),
            stat("Subscriptions", "short", "Subscriptions of all WebSocket connections.").query("sum(wallet_ws_subscriptions{})", "subscriptions"),
            stat("Deliveries", "ops", "Events handed to sockets per second.")
                .query(r#"sum(rate(wallet_ws_messages_total{,direction="out",kind="event"}[$__rate_interval]))"#, "events"),
            stat("Delivery lag", "s", "Time from the commit of an event to its handover to a socket, at the 99th percentile.")
                .query("histogram_quantile(0.99, sum by (le) (rate(wallet_ws_fanout_lag_seconds_bucket{}[$__rate_interval])))", "p99")
                .thresholds(0.1, 0.5),
            stat("Queued bytes", "bytes", "Bytes that wait for WebSocket clients.").query("sum(wallet_ws_queue_bytes{})", "queued"),
            stat("Slow clients", "short", "Clients that were closed within an hour because they read too slowly.")
                .query(r#"sum(increase(wallet_ws_dropped_total{,reason="slow_consumer"}[1h]))"#, "closed")
                .thresholds(5.0, 50.0),
            time_series("Connections by state", "short", "Open WebSocket connections, with and without a credential.").begins("Connections and delivery")
                .query("sum by (state) (wallet_ws_connections{})", "{{state}}"),
            time_series("Frames", "ops", "Frames per second, by direction and kind.")
                .query("sum by (direction, kind) (rate(wallet_ws_messages_total{}[$__rate_interval]))", "{{direction}} {{kind}}"),
            time_series("Delivery lag by quantile", "s", "Time from the commit of the oldest event of a batch to its handover to the socket.")
                .query("histogram_quantile(0.5, sum by (le) (rate(wallet_ws_fanout_lag_seconds_bucket{}[$__rate_interval])))", "p50")
                .query("histogram_quantile(0.99, sum by (le) (rate(wallet_ws_fanout_lag_seconds_bucket{}[$__rate_interval])))", "p99")
                .thresholds(0.1, 0.5),
            time_series("Queued bytes by instance", "bytes", "Bytes that wait for WebSocket clients.")
                .query("sum by (instance) (wallet_ws_queue_bytes{})", "{{instance}}"),
            time_series("Replays", "ops", "Replays of missed events, by source. `unrecoverable` positions make a client read everything again.").begins("Replays and refusals")
                .query("sum by (source) (rate(wallet_ws_replays_total{}[$__rate_interval]))", "{{source}}"),
            time_series("Ended by the server", "ops", "Connections and credentials that the server ended, by reason.")
                .query("sum by (reason) (rate(wallet_ws_dropped_total{}[$__rate_interval]))", "{{reason}}"),
            time_series("Refused connections", "ops", "Connections that were refused, by reason.").details("revwallet-security")
                .query("sum by (reason) (rate(wallet_ws_refused_total{}[$__rate_interval]))", "{{reason}}"),
        ],
    }
}
