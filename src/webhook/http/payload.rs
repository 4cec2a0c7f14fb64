//! Descriptions of the requests that webhooks receive, for the OpenAPI document.

use serde_json::{Map, Value, json};
use utoipa::{OpenApi, ToSchema};

use crate::webhook::event::{ALERT_CROSSED, EVENTS, WalletEventData};

/// Schemas of the events about wallets, and of the events that other modules publish.
#[derive(OpenApi)]
#[openapi(components(schemas(WalletEvent, GameEvent, EntitlementEvent, OrderEvent)))]
pub struct Payloads;

/// A transfer that involves a wallet, or an alert whose threshold the wallet's balance has crossed.
#[derive(ToSchema)]
#[expect(dead_code, reason = "names the members for the document")]
struct WalletEvent {
    #[schema(rename = "type", example = "transfer.deposit")]
    kind: String,
    #[schema(example = "2026-01-31T12:00:00.123456Z", format = DateTime)]
    timestamp: String,
    data: WalletEventData<'static>,
}

/// A change to the games catalog.
#[derive(ToSchema)]
#[expect(dead_code, reason = "names the members for the document")]
struct GameEvent {
    #[schema(rename = "type", example = "game.added")]
    kind: String,
    #[schema(example = "2026-01-31T12:00:00.123456Z", format = DateTime)]
    timestamp: String,
    #[schema(schema_with = game)]
    data: Value,
}

/// The game, as `GET /api/games/{id}` returns it.
fn game() -> utoipa::openapi::Ref {
    utoipa::openapi::Ref::from_schema_name("Game")
}

/// A game that was granted to a user, or whose grant was revoked.
#[derive(ToSchema)]
#[expect(dead_code, reason = "names the members for the document")]
struct EntitlementEvent {
    #[schema(rename = "type", example = "entitlement.granted")]
    kind: String,
    #[schema(example = "2026-01-31T12:00:00.123456Z", format = DateTime)]
    timestamp: String,
    data: EntitlementEventData,
}

#[derive(ToSchema)]
#[schema(rename_all = "camelCase")]
#[expect(dead_code, reason = "names the members for the document")]
struct EntitlementEventData {
    #[schema(example = 1)]
    game_id: i64,
    #[schema(example = "2")]
    user_id: String,
}

/// A change to an order of the exchange.
#[derive(ToSchema)]
#[expect(dead_code, reason = "names the members for the document")]
struct OrderEvent {
    #[schema(rename = "type", example = "order.processing")]
    kind: String,
    #[schema(example = "2026-01-31T12:00:00.123456Z", format = DateTime)]
    timestamp: String,
    data: OrderEventData,
}

#[derive(ToSchema)]
#[expect(dead_code, reason = "names the members for the document")]
struct OrderEventData {
    #[schema(example = 1)]
    order_id: i64,
    /// The new state of the order.
    #[schema(example = "processing")]
    state: String,
    /// The step of the order that caused the event, such as `hold` or `payout`.
    #[schema(example = "exchange")]
    step: String,
    #[schema(example = "done")]
    step_state: String,
    /// Reason for an abnormal state of the order, for example why the order is stuck.
    reason: Option<String>,
}

/// Returns the requests that webhooks receive, by event name, for the OpenAPI document.
pub fn webhooks() -> Value {
    let events = EVENTS.iter().filter(|name| **name != "*");
    let requests: Map<_, _> = events.map(|name| ((*name).to_owned(), request(name))).collect();
    Value::Object(requests)
}

fn request(event: &str) -> Value {
    let schema = match event.split('.').next() {
        Some("game") => "GameEvent",
        Some("entitlement") => "EntitlementEvent",
        Some("order") => "OrderEvent",
        _ => "WalletEvent",
    };
    let header = |name: &str, description: &str, example: &str| {
        json!({
            "name": name, "in": "header", "required": true, "description": description,
            "schema": { "type": "string" }, "example": example,
        })
    };
    json!({ "post": {
        "tags": ["webhook"],
        "summary": format!("The event {event}"),
        "operationId": format!("on_{}", event.replace('.', "_")),
        "security": [{}],
        "parameters": [
            header(
                "webhook-id",
                "Id of the delivery, the same in every attempt: store processed ids to detect repeated deliveries",
                "msg_17",
            ),
            header("webhook-timestamp", "Time of the attempt, in seconds of Unix time", "1769860800"),
            header(
                "webhook-signature",
                "Signatures of `{webhook-id}.{webhook-timestamp}.{body}` with each valid secret, \
                 as Standard Webhooks specifies",
                "v1,K5oZfzN95Z9UVu1EsfQmfVNQhnkZ2pj9o9NDN/H/pI4=",
            ),
        ],
        "requestBody": {
            "required": true,
            "content": { "application/json": {
                "schema": {
                    "allOf": [{ "$ref": format!("#/components/schemas/{schema}") }],
                    "properties": { "type": { "const": event } },
                },
                "example": example(event),
            } },
        },
        "responses": {
            "2XX": { "description": "Accepted" },
            "default": { "description": "Not accepted: the event is retried for up to a day" },
        },
    } })
}

/// Returns an example event body. Returns `None` for events about games, whose example is built from the schema.
fn example(event: &str) -> Option<Value> {
    let (family, name) = event.split_once('.')?;
    let data = match family {
        "game" => return None,
        "entitlement" => json!({ "gameId": 1, "userId": "2" }),
        "order" => order(name),
        _ => wallet(event),
    };
    Some(json!({ "type": event, "timestamp": "2026-01-31T12:00:00.123456Z", "data": data }))
}

fn order(state: &str) -> Value {
    let mut data =
        json!({ "order_id": 1, "state": state, "step": "exchange", "step_state": "done" });
    let setback = match state {
        "compensating" | "failed" => Some(("undone", "the price has moved")),
        "unknown" => Some(("unknown", "the external exchange does not respond")),
        "stuck" => Some(("stuck", "the external exchange refuses the trade")),
        _ => None,
    };
    if let Some((step_state, reason)) = setback {
        data["step_state"] = step_state.into();
        data["reason"] = reason.into();
    }
    data
}

/// Returns example data of a transfer, as sent to a webhook of the user that owns wallet 1.
fn wallet(event: &str) -> Value {
    let kind = match event {
        ALERT_CROSSED => "deposit",
        "wallet.opened" => "open",
        "wallet.closed" => "close",
        "wallet.frozen" => "freeze",
        "wallet.unfrozen" => "unfreeze",
        transfer => transfer.trim_start_matches("transfer."),
    };
    let moves_money = !event.starts_with("wallet.");
    let (from, to) = match kind {
        "withdrawal" | "capture" | "fee" => (Some("1"), None),
        "transfer" => (Some("1"), Some("2")),
        _ => (None, Some("1")),
    };
    let mut data = json!({
        "wallet": "1", "currency": "EUR", "transfer": "17", "kind": kind, "from": from, "to": to,
        "amount": if moves_money { 100.0 } else { 0.0 },
        "trace_id": "0af7651916cd43dd8448eb211c80319c",
    });
    if moves_money {
        data["available"] = json!(1099.0);
    }
    if event == ALERT_CROSSED {
        data["alert"] = json!({ "id": "3", "direction": "above", "line": 1000.0 });
    }
    data
}
