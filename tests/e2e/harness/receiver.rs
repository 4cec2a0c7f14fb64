//! A webhook receiver that records deliveries.

use std::collections::HashMap;
use std::net::SocketAddr;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use axum::Router;
use axum::body::Bytes;
use axum::extract::State;
use axum::routing::post;
use http::{HeaderMap, StatusCode};
use serde_json::Value;

/// A webhook delivery that was received.
#[derive(Debug, Clone)]
pub struct Delivery {
    pub id: String,
    pub timestamp: String,
    pub signature: String,
    pub body: String,
}

impl Delivery {
    pub fn json(&self) -> Value {
        serde_json::from_str(&self.body).unwrap()
    }
}

/// Status codes of the first responses per wallet; later responses are 200.
pub type Script = HashMap<String, Vec<u16>>;

#[derive(Clone)]
pub struct Receiver {
    address: SocketAddr,
    deliveries: Arc<Mutex<Vec<Delivery>>>,
    pub script: Arc<Mutex<Script>>,
    hangs: Arc<AtomicBool>,
    in_flight: Arc<AtomicUsize>,
    peak: Arc<AtomicUsize>,
}

/// A request that waits for its response; it ends with the client's connection, too.
struct InFlight(Arc<AtomicUsize>);

impl Drop for InFlight {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::Relaxed);
    }
}

impl Receiver {
    pub async fn start() -> Self {
        Self::with_hanging(false).await
    }

    /// Starts a receiver that delays each response by a minute, until [`Self::resume`] is called.
    pub async fn start_hanging() -> Self {
        Self::with_hanging(true).await
    }

    async fn with_hanging(hangs: bool) -> Self {
        let socket = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = socket.local_addr().unwrap();
        let receiver = Self {
            address,
            deliveries: Arc::default(),
            script: Arc::default(),
            hangs: Arc::new(hangs.into()),
            in_flight: Arc::default(),
            peak: Arc::default(),
        };
        let router = Router::new().route("/hook", post(receive)).with_state(receiver.clone());
        tokio::spawn(async move { axum::serve(socket, router).await });
        receiver
    }

    /// Responds to later requests at once.
    pub fn resume(&self) {
        self.hangs.store(false, Ordering::Relaxed);
    }

    /// Returns the largest number of requests that waited for a response at once.
    pub fn peak(&self) -> usize {
        self.peak.load(Ordering::Relaxed)
    }

    pub fn url(&self) -> String {
        format!("http://{}/hook", self.address)
    }

    /// Returns every delivery so far, repeated attempts included.
    pub fn deliveries(&self) -> Vec<Delivery> {
        self.deliveries.lock().unwrap().clone()
    }

    /// Returns the events about a wallet in the order of the last attempt of each.
    pub fn events(&self, wallet: &str) -> Vec<Value> {
        let mut seen = std::collections::HashSet::new();
        let deliveries = self.deliveries().into_iter().rev();
        let last_attempts = deliveries.filter(|delivery| seen.insert(delivery.id.clone()));
        let mut events: Vec<Value> = last_attempts.map(|delivery| delivery.json()).collect();
        events.reverse();
        events.into_iter().filter(|event| event["data"]["wallet"] == wallet).collect()
    }
}

async fn receive(State(receiver): State<Receiver>, headers: HeaderMap, body: Bytes) -> StatusCode {
    let waiting = receiver.in_flight.fetch_add(1, Ordering::Relaxed) + 1;
    receiver.peak.fetch_max(waiting, Ordering::Relaxed);
    let _in_flight = InFlight(Arc::clone(&receiver.in_flight));
    let header = |name: &str| headers[name].to_str().unwrap().to_owned();
    let delivery = Delivery {
        id: header("webhook-id"),
        timestamp: header("webhook-timestamp"),
        signature: header("webhook-signature"),
        body: String::from_utf8(body.to_vec()).unwrap(),
    };
    let wallet = delivery.json()["data"]["wallet"].as_str().unwrap_or_default().to_owned();
    receiver.deliveries.lock().unwrap().push(delivery);
    if receiver.hangs.load(Ordering::Relaxed) {
        tokio::time::sleep(Duration::from_mins(1)).await;
    }
    let mut script = receiver.script.lock().unwrap();
    let next = script
        .get_mut(&wallet)
        .and_then(|statuses| (!statuses.is_empty()).then(|| statuses.remove(0)));
    StatusCode::from_u16(next.unwrap_or(200)).unwrap()
}
