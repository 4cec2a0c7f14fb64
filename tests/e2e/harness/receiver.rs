//! Somebody else's server that webhooks are sent to.

use std::collections::HashMap;
use std::net::SocketAddr;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use axum::Router;
use axum::body::Bytes;
use axum::extract::State;
use axum::routing::post;
use http::{HeaderMap, StatusCode};
use serde_json::Value;

/// What a receiver was sent.
#[derive(Debug, Clone)]
pub struct Heard {
    pub id: String,
    pub timestamp: String,
    pub signature: String,
    pub body: String,
}

impl Heard {
    pub fn json(&self) -> Value {
        serde_json::from_str(&self.body).unwrap()
    }
}

/// What it answers to the n-th request about a wallet; after those, 200.
pub type Script = HashMap<String, Vec<u16>>;

#[derive(Clone)]
pub struct Receiver {
    address: SocketAddr,
    heard: Arc<Mutex<Vec<Heard>>>,
    pub script: Arc<Mutex<Script>>,
    hangs: Arc<AtomicBool>,
}

impl Receiver {
    pub async fn start() -> Self {
        Self::start_as(false).await
    }

    pub async fn start_as(hangs: bool) -> Self {
        let socket = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = socket.local_addr().unwrap();
        let receiver = Self {
            address,
            heard: Arc::default(),
            script: Arc::default(),
            hangs: Arc::new(hangs.into()),
        };
        let router = Router::new().route("/hook", post(hear)).with_state(receiver.clone());
        tokio::spawn(async move { axum::serve(socket, router).await });
        receiver
    }

    /// Hangs no longer.
    pub fn listen(&self) {
        self.hangs.store(false, Ordering::Relaxed);
    }

    pub fn url(&self) -> String {
        format!("http://{}/hook", self.address)
    }

    pub fn heard(&self) -> Vec<Heard> {
        self.heard.lock().unwrap().clone()
    }

    /// What was taken (answered 200) about a wallet, in the order in which it came.
    pub fn taken(&self, wallet: &str) -> Vec<Value> {
        let mut seen = std::collections::HashSet::new();
        let heard = self.heard().into_iter().rev().filter(|heard| seen.insert(heard.id.clone()));
        let mut last: Vec<Value> = heard.map(|heard| heard.json()).collect();
        last.reverse();
        last.into_iter().filter(|event| event["data"]["wallet"] == wallet).collect()
    }
}

async fn hear(State(receiver): State<Receiver>, headers: HeaderMap, body: Bytes) -> StatusCode {
    let header = |name: &str| headers[name].to_str().unwrap().to_owned();
    let heard = Heard {
        id: header("webhook-id"),
        timestamp: header("webhook-timestamp"),
        signature: header("webhook-signature"),
        body: String::from_utf8(body.to_vec()).unwrap(),
    };
    let wallet = heard.json()["data"]["wallet"].as_str().unwrap().to_owned();
    receiver.heard.lock().unwrap().push(heard);
    if receiver.hangs.load(Ordering::Relaxed) {
        tokio::time::sleep(Duration::from_mins(1)).await;
    }
    let mut script = receiver.script.lock().unwrap();
    let next = script
        .get_mut(&wallet)
        .and_then(|statuses| (!statuses.is_empty()).then(|| statuses.remove(0)));
    StatusCode::from_u16(next.unwrap_or(200)).unwrap()
}
