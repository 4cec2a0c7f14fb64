//! Somebody who calls through nginx, and never twice for one request.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use reqwest::{RequestBuilder, StatusCode};
use serde_json::{Value, json};

use crate::network::eventually;

/// Wallets that are deposited to, and the callers that do so at the same time.
const WALLETS: usize = 8;
const CALLERS: usize = 16;
/// Requests that are answered before something is broken, and again after it.
const BEFORE: u64 = 500;
const AFTER: u64 = 2000;

#[derive(Clone)]
pub struct Caller {
    address: SocketAddr,
    http: reqwest::Client,
}

impl Caller {
    pub fn new(address: SocketAddr) -> Self {
        // Whoever is first makes it the process's own; nothing here speaks TLS.
        let _installed = rustls::crypto::ring::default_provider().install_default();
        let http = reqwest::Client::builder().timeout(Duration::from_mins(1)).build().unwrap();
        Self { address, http }
    }

    /// What the answer to a request is, which goes to the host that everybody knows.
    pub async fn send(
        &self,
        request: impl FnOnce(&reqwest::Client, String) -> RequestBuilder,
        path: &str,
    ) -> (StatusCode, Value) {
        let request = request(&self.http, format!("http://{}{path}", self.address));
        let answer = request.header("Host", "revwallet.com").send().await.unwrap();
        let (status, text) = (answer.status(), answer.text().await.unwrap());
        (status, serde_json::from_str(&text).unwrap_or(Value::String(text)))
    }

    pub async fn get(&self, path: &str) -> (StatusCode, Value) {
        self.send(reqwest::Client::get, path).await
    }

    pub async fn post(&self, path: &str, key: &str, body: &Value) -> (StatusCode, Value) {
        let request =
            |http: &reqwest::Client, url| http.post(url).header("Idempotency-Key", key).json(body);
        self.send(request, path).await
    }

    /// Opens a wallet and returns its id.
    pub async fn wallet(&self, owner: &str) -> String {
        let body = json!({ "owner": owner, "currency": "EUR" });
        let (status, wallet) = self.post("/wallet/", &format!("open-{owner}"), &body).await;
        assert_eq!(status, StatusCode::CREATED, "{wallet}");
        wallet["id"].as_str().unwrap().to_owned()
    }

    /// Deposits cent after cent while something is broken. Each request has a key, each must be answered at its first
    /// call, and in the end each wallet must hold what it was given. Returns how many requests had a key.
    pub async fn deposits_while(&self, broken: impl FnOnce()) -> u64 {
        let mut wallets = Vec::new();
        for number in 0..WALLETS {
            wallets.push(self.wallet(&format!("owner-{number}")).await);
        }
        let (answered, done) = (Arc::new(AtomicU64::new(0)), Arc::new(AtomicBool::new(false)));
        let callers: Vec<_> = (0..CALLERS)
            .map(|number| {
                let (caller, wallet) = (self.clone(), wallets[number % WALLETS].clone());
                let (answered, done) = (Arc::clone(&answered), Arc::clone(&done));
                tokio::spawn(
                    async move { caller.deposits(number, &wallet, &answered, &done).await },
                )
            })
            .collect();
        tokio::task::block_in_place(|| {
            eventually("there is traffic", || answered.load(Ordering::Acquire) >= BEFORE);
            broken();
        });
        done.store(true, Ordering::Release);
        let mut cents = [0_u64; WALLETS];
        for (number, caller) in callers.into_iter().enumerate() {
            cents[number % WALLETS] += caller.await.unwrap();
        }
        for (wallet, cents) in wallets.iter().zip(cents) {
            let (_, found) = self.get(&format!("/wallet/{wallet}")).await;
            let expected: f64 = format!("{}.{:02}", cents / 100, cents % 100).parse().unwrap();
            assert_eq!(found["balance"].as_f64(), Some(expected), "{found}");
        }
        let all: u64 = cents.iter().sum();
        println!("{all} deposits, each answered at its first call");
        all + WALLETS as u64
    }

    /// One caller's part: deposits until enough were answered after `done`. Returns how many there were.
    async fn deposits(
        &self,
        number: usize,
        wallet: &str,
        answered: &AtomicU64,
        done: &AtomicBool,
    ) -> u64 {
        let body = json!({ "id": wallet, "amount": "0.01" });
        let (mut deposits, mut left) = (0, AFTER.div_ceil(CALLERS as u64));
        while left > 0 {
            let counts = done.load(Ordering::Acquire);
            let key = format!("deposit-{number}-{deposits}");
            let (status, answer) = self.post("/wallet/deposit", &key, &body).await;
            assert_eq!(status, StatusCode::OK, "{key}: {answer}");
            answered.fetch_add(1, Ordering::AcqRel);
            deposits += 1;
            left -= u64::from(counts);
        }
        deposits
    }
}
