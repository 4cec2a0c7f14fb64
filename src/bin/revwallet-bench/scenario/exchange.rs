//! Scenario `exchange`: many users place orders on the exchange at the same time, and all orders use the same hot
//! wallet. The measurement ends when every order is complete.

use std::time::Instant;

use anyhow::{Context, ensure};
use futures_util::{StreamExt, TryStreamExt, stream};
use serde_json::{Value, json};

use crate::book::BenchBook;
use crate::context::BenchContext;
use crate::load::{LoadOperation, LoadSpec, LoadTarget};
use crate::report::{Measurement, ReportSection, TargetBound};
use crate::samples::LoadSample;
use crate::sql;
use crate::verification::verify_book;

const CONNECTIONS: usize = 64;

/// Initial balance of each user in euros, more than a user can spend during a run.
const EUROS: i64 = 1_000_000;

/// Settings of the server: it logs every request, spends little CPU time on password hashes, and trusts the
/// `X-Forwarded-For` header, so that each client can use its own address and limits per address do not apply.
const SETTINGS: [&str; 5] = [
    "--trusted-proxies=127.0.0.1",
    "--log-success-ratio=1",
    "--registrations-max=100000",
    "--password-memory=512",
    "--password-passes=1",
];

pub(super) async fn measure(context: &BenchContext) -> anyhow::Result<ReportSection> {
    let book = BenchBook::create(&context.postgres, "exchange").await?;
    let server = context.start_server_with(&book, &SETTINGS).await?;
    // The HTTP client needs a TLS provider, although it does not use TLS.
    let _installed = rustls::crypto::ring::default_provider().install_default();
    let url = format!("http://{}", server.address);
    let traders = register(&url, CONNECTIONS).await?;
    let monitor = context.monitor(&[server.id()]);
    let target = LoadTarget::open(&server.address, 1).await?.with_traders(traders);
    let spec = LoadSpec {
        address: server.address.clone(),
        operation: LoadOperation::Order,
        connections: CONNECTIONS,
        wallets: 1,
        duration: context.args.duration,
    };
    let mut db = book.connect().await?;
    let began = Instant::now();
    let sample: LoadSample = target.run(&monitor, spec).await?;
    while sql::open_orders(&mut db).await? > 0 {
        tokio::time::sleep(std::time::Duration::from_millis(10)).await;
    }
    let elapsed = began.elapsed().as_secs_f64();
    let (completed, all) = sql::completed_orders(&mut db).await?;
    ensure!(completed == all, "{completed} of {all} orders are complete");
    server.kill().await?;
    let mut section = ReportSection::default();
    #[expect(clippy::cast_precision_loss, reason = "far below 2^53")]
    let rate = completed as f64 / elapsed;
    section.add_target("orders that complete, per second", rate, TargetBound::AtLeast(1_000.0));
    section.measurements.push(Measurement::new("orders placed over HTTP", CONNECTIONS, sample));
    section.add_note(format!(
        "Exchange: {completed} orders were placed and completed in {elapsed:.1} s; {}.",
        verify_book(&book).await?
    ));
    Ok(section)
}

/// Registers users and gives each some euros. Returns their ids and tokens.
async fn register(url: &str, count: usize) -> anyhow::Result<Vec<(i64, String)>> {
    let http = reqwest::Client::new();
    let post = async |path: &str, token: Option<&str>, body: &Value| -> anyhow::Result<Value> {
        let [a, b, c, _] = fastrand::u32(..).to_le_bytes();
        let request = http
            .post(format!("{url}{path}"))
            .header("content-type", "application/json")
            .header("x-forwarded-for", format!("10.{a}.{b}.{c}"))
            .body(body.to_string());
        let request = match token {
            Some(token) => request.bearer_auth(token),
            None => request,
        };
        let response = request.send().await?;
        let (status, text) = (response.status(), response.text().await?);
        ensure!(status.is_success(), "{path} returned {status}: {text}");
        Ok(serde_json::from_str(&text)?)
    };
    let register = async |number| {
        let (name, password) = (format!("trader{number}"), "a password of the benchmark");
        let body = json!({ "username": name, "email": format!("{name}@example.com"), "password": password });
        let user = post("/exchange/register", None, &body).await?;
        let id = user["id"].as_i64().context("a new user has no id")?;
        let body = json!({ "username": name, "password": password });
        let session = post("/exchange/login", None, &body).await?;
        let token = session["token"].as_str().context("a session has no token")?;
        post(&format!("/exchange/wallet/{id}"), Some(token), &json!({})).await?;
        let body = json!({ "userId": id, "amount": 100 * EUROS });
        post("/api/wallet/deposit", Some(token), &body).await?;
        Ok((id, token.to_owned()))
    };
    stream::iter(0..count).map(register).buffered(8).try_collect().await
}
