//! A client that sends each request through nginx once, without retries.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use reqwest::{RequestBuilder, StatusCode};
use serde_json::{Value, json};

use crate::network::eventually;

/// Number of wallets that receive deposits.
const WALLETS: usize = 8;
/// Number of concurrent depositors.
const DEPOSITORS: usize = 16;
/// Deposits before a fault is injected.
const DEPOSITS_BEFORE: u64 = 500;
/// Deposits after it.
const DEPOSITS_AFTER: u64 = 2000;

#[derive(Clone)]
pub struct Client {
    address: SocketAddr,
    http: reqwest::Client,
}

impl Client {
    pub fn new(address: SocketAddr) -> Self {
        // The first call installs the provider for the process; no request here uses TLS.
        let _installed = rustls::crypto::ring::default_provider().install_default();
        let http = reqwest::Client::builder().timeout(Duration::from_mins(1)).build().unwrap();
        Self { address, http }
    }

    /// Sends a request with the public host name and returns status and body.
    pub async fn send(
        &self,
        request: impl FnOnce(&reqwest::Client, String) -> RequestBuilder,
        path: &str,
    ) -> (StatusCode, Value) {
        let request = request(&self.http, format!("http://{}{path}", self.address));
        let response = request.header("Host", "revwallet.com").send().await.unwrap();
        let (status, text) = (response.status(), response.text().await.unwrap());
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
    pub async fn open_wallet(&self, owner: &str) -> String {
        let body = json!({ "owner": owner, "currency": "EUR" });
        let (status, wallet) = self.post("/wallet/", &format!("open-{owner}"), &body).await;
        assert_eq!(status, StatusCode::CREATED, "{wallet}");
        wallet["id"].as_str().unwrap().to_owned()
    }

    /// Deposits continuously while a fault is injected. Asserts that each request, which has an idempotency key, succeeds
    /// at its first attempt and that every balance is right. Returns the number of requests with a key.
    pub async fn deposit_during(&self, fault: impl FnOnce()) -> u64 {
        let mut wallets = Vec::new();
        for number in 0..WALLETS {
            wallets.push(self.open_wallet(&format!("owner-{number}")).await);
        }
        let (succeeded, done) = (Arc::new(AtomicU64::new(0)), Arc::new(AtomicBool::new(false)));
        let depositors: Vec<_> = (0..DEPOSITORS)
            .map(|number| {
                let (client, wallet) = (self.clone(), wallets[number % WALLETS].clone());
                let (succeeded, done) = (Arc::clone(&succeeded), Arc::clone(&done));
                tokio::spawn(
                    async move { client.deposit(number, &wallet, &succeeded, &done).await },
                )
            })
            .collect();
        tokio::task::block_in_place(|| {
            eventually("deposits succeed", || succeeded.load(Ordering::Acquire) >= DEPOSITS_BEFORE);
            fault();
        });
        done.store(true, Ordering::Release);
        let mut cents = [0_u64; WALLETS];
        for (number, depositor) in depositors.into_iter().enumerate() {
            cents[number % WALLETS] += depositor.await.unwrap();
        }
        for (wallet, cents) in wallets.iter().zip(cents) {
            let (_, found) = self.get(&format!("/wallet/{wallet}")).await;
            let expected: f64 = format!("{}.{:02}", cents / 100, cents % 100).parse().unwrap();
            assert_eq!(found["balance"].as_f64(), Some(expected), "{found}");
        }
        let deposits: u64 = cents.iter().sum();
        println!("{deposits} deposits, each successful at its first attempt");
        deposits + WALLETS as u64
    }

    /// Deposits until enough requests succeeded after `done`, and returns the number of deposits.
    async fn deposit(
        &self,
        number: usize,
        wallet: &str,
        succeeded: &AtomicU64,
        done: &AtomicBool,
    ) -> u64 {
        let body = json!({ "id": wallet, "amount": "0.01" });
        let (mut deposits, mut left) = (0, DEPOSITS_AFTER.div_ceil(DEPOSITORS as u64));
        while left > 0 {
            let is_after = done.load(Ordering::Acquire);
            let key = format!("deposit-{number}-{deposits}");
            let (status, response) = self.post("/wallet/deposit", &key, &body).await;
            assert_eq!(status, StatusCode::OK, "{key}: {response}");
            succeeded.fetch_add(1, Ordering::AcqRel);
            deposits += 1;
            left -= u64::from(is_after);
        }
        deposits
    }
}
