//! Owners of webhooks: their limits, the end of their keys, admins, and what an error reveals.

use std::collections::BTreeSet;

use http::Method;
use revwallet::auth::Scope;
use serde_json::{Value, json};

use super::{LOCAL, delete, deposit, subscribe};
use crate::harness::receiver::Receiver;
use crate::harness::{Client, TestApp, eventually, run_with};

/// Sends the same request many times at once, and returns how many succeeded.
async fn created_at_once(client: &Client, path: &str, body: &Value) -> usize {
    let requests = (0..50).map(|_| client.post(path, body.clone()));
    let responses = futures_util::future::join_all(requests).await;
    for response in &responses {
        assert!([201, 422].contains(&response.status), "{}", response.text);
    }
    responses.iter().filter(|response| response.status == 201).count()
}

fn refusals(metrics: &str, limit: &str) -> bool {
    let metric = format!("wallet_webhook_refusals_total{{limit=\"{limit}\"}} ");
    metrics.lines().any(|line| line.strip_prefix(&metric).is_some_and(|count| count != "0"))
}

#[tokio::test]
async fn the_limits_of_webhooks_and_alerts_hold_for_concurrent_requests() {
    run_with(&[LOCAL], async |app| {
        let wallet = app.open_wallet("EUR", "0").await;
        let webhook = json!({ "url": "https://example.com/hook", "events": ["*"] });
        let first = app.post_with_key("/wallet/webhook", "k", webhook.clone()).await;
        assert_eq!(first.status, 201);

        assert_eq!(created_at_once(app, "/wallet/webhook", &webhook).await, 9);
        let path = format!("/wallet/{wallet}/alert");
        assert_eq!(created_at_once(app, &path, &json!({ "below": "1" })).await, 20);

        assert_eq!(app.get("/wallet/webhook").await.json().as_array().unwrap().len(), 10);
        assert_eq!(app.get(&path).await.json().as_array().unwrap().len(), 20);
        let again = app.post_with_key("/wallet/webhook", "k", webhook.clone()).await;
        assert_eq!((again.status, again.text), (201, first.text), "a repetition is not refused");
        let refused = app.post("/wallet/webhook", webhook.clone()).await.problem(422, "invalid");
        assert_eq!(refused["errors"][0]["pointer"], "/url");
        assert_eq!(delete(app, "/wallet/webhook/1").await.status, 204);
        assert_eq!(app.post("/wallet/webhook", webhook).await.status, 201);
        let metrics = app.internal.get("/metrics").await.text;
        assert!(refusals(&metrics, "webhooks") && refusals(&metrics, "alerts"), "{metrics}");
    })
    .await;
}

async fn webhook_of(client: &Client, receiver: &Receiver) -> String {
    let body = json!({ "url": receiver.url(), "events": ["transfer.deposit"] });
    let created = client.post("/wallet/webhook", body).await;
    assert_eq!(created.status, 201, "{}", created.text);
    created.json()["id"].as_str().unwrap().to_owned()
}

async fn revoke(app: &TestApp, admin: &Client, key: &Client) {
    let id = key.credential().split('_').nth(1).unwrap();
    let revoked = admin.send(admin.request(Method::DELETE, &format!("/api/keys/{id}"))).await;
    assert!(revoked.status < 300, "{}", revoked.text);
    assert_eq!(app.get("/wallet/webhook").await.status, 200);
}

#[tokio::test]
async fn a_webhook_ends_with_its_api_key() {
    run_with(&[LOCAL, "--access=open"], async |app| {
        let (revoked, other) = (Receiver::start().await, Receiver::start().await);
        let admin = app.api_key(&[Scope::Admin]).await;
        let key = app.api_key(&[Scope::WalletRead]).await;
        let webhook = webhook_of(&key, &revoked).await;
        subscribe(app, &other, json!(["transfer.deposit"])).await;
        let (failing, wallet) =
            (app.open_wallet("EUR", "0").await, app.open_wallet("EUR", "0").await);
        revoked.script.lock().unwrap().insert(failing.clone(), vec![500; 100]);
        deposit(app, &wallet, "1").await;
        deposit(app, &failing, "1").await;
        let path = format!("/wallet/webhook/{webhook}");
        let log = async || admin.get(&format!("{path}/deliveries")).await;
        eventually("one event is delivered, and one waits for its next attempt", async || {
            let log = key.get(&format!("{path}/deliveries")).await.json();
            log[0]["attempts"] == 1
                && log[0]["state"] == "pending"
                && log[1]["state"] == "delivered"
        })
        .await;

        revoke(app, &admin, &key).await;
        let attempts = revoked.deliveries().len();
        app.database
            .execute(
                "update graphile_worker._private_jobs set run_at = now() where locked_at is null",
            )
            .await;
        deposit(app, &wallet, "2").await;
        let new = app.open_wallet("EUR", "0").await;
        deposit(app, &new, "3").await;

        eventually("other webhooks receive the events", async || other.deliveries().len() == 4)
            .await;
        eventually("no job is left", async || {
            let jobs =
                sqlx::query_scalar::<_, i64>("select count(*) from graphile_worker._private_jobs");
            jobs.fetch_one(&mut app.database.connect().await).await.unwrap() == 0
        })
        .await;
        assert_eq!(revoked.deliveries().len(), attempts, "an event was sent after the revocation");
        assert_eq!(
            log().await.json().as_array().unwrap().len(),
            2,
            "an event was recorded after the revocation"
        );

        // Upkeep deletes what is pending at once, and the webhook itself with the last line of its log.
        app.app().webhooks.upkeep().await.unwrap();
        assert_eq!(log().await.json().as_array().unwrap().len(), 1);
        app.database.execute("update delivery set created_at = now() - interval '100 days'").await;
        app.app().webhooks.upkeep().await.unwrap();
        admin.get(&path).await.problem(404, "not-found");
        assert_eq!(
            app.get("/wallet/webhook/2").await.status,
            200,
            "the webhook of another owner is gone"
        );
    })
    .await;
}

#[tokio::test]
async fn admins_see_and_delete_the_webhooks_of_others() {
    run_with(&[LOCAL], async |app| {
        let receiver = Receiver::start().await;
        let (ada, bob) = (app.user("ada").await, app.user("bob").await);
        let admin = app.api_key(&[Scope::Admin]).await;
        let path = format!("/wallet/webhook/{}", webhook_of(&ada, &receiver).await);
        let deliveries = format!("{path}/deliveries");

        for client in [&bob.client, &**app] {
            client.get(&path).await.problem(404, "not-found");
            client.get(&deliveries).await.problem(404, "not-found");
            let deletion = client.send(client.request(Method::DELETE, &path)).await;
            deletion.problem(404, "not-found");
        }

        assert_eq!(admin.get(&path).await.json(), ada.get(&path).await.json());
        assert_eq!(admin.get(&deliveries).await.json(), json!([]));
        // The new secret is for the owner only.
        admin.post(&format!("{path}/rotate"), json!({})).await.problem(404, "not-found");
        assert_eq!(admin.send(admin.request(Method::DELETE, &path)).await.status, 204);
        ada.get(&path).await.problem(404, "not-found");
    })
    .await;
}

/// Returns the error that a delivery to each of these URLs ends with.
async fn errors(app: &TestApp, urls: &[&str]) -> BTreeSet<String> {
    let wallet = app.open_wallet("EUR", "0").await;
    for (n, url) in urls.iter().enumerate() {
        let body = json!({ "url": "http://example.com/", "events": ["transfer.deposit"] });
        assert_eq!(app.post("/wallet/webhook", body).await.status, 201);
        // A URL that is refused at registration, too: its name may have been public then.
        let update = format!("update webhook set url = '{url}' where id = {}", n + 1);
        app.database.execute(&update).await;
    }
    deposit(app, &wallet, "1").await;
    let mut found = BTreeSet::new();
    for id in 1..=urls.len() {
        let path = format!("/wallet/webhook/{id}/deliveries");
        let error = async || {
            let log = app.get(&path).await.json();
            log[0]["error"].as_str().map(str::to_owned)
        };
        eventually("the delivery has failed", async || error().await.is_some()).await;
        found.insert(error().await.unwrap());
    }
    found
}

#[tokio::test]
async fn the_error_of_a_delivery_does_not_reveal_names_and_ports_of_the_network() {
    let mut all = BTreeSet::new();
    run_with(&[], async |app| {
        let unknown = "http://no-such-name.invalid/";
        let (loopback, private) = ("http://ip6-localhost/", "http://127.0.0.1:9/");
        all.extend(errors(app, &[unknown, loopback, private, "http://localhost/"]).await);
    })
    .await;
    run_with(&[LOCAL], async |app| {
        let not_http = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let tls = format!("https://{}/", not_http.local_addr().unwrap());
        // Closes each connection at once: neither TLS nor HTTP.
        tokio::spawn(async move { while not_http.accept().await.is_ok() {} });
        let plain = tls.replace("https", "http");
        let unknown = "http://no-such-name.invalid/";
        all.extend(errors(app, &[unknown, "http://127.0.0.1:9/", &tls, &plain]).await);
    })
    .await;
    assert_eq!(all.len(), 1, "{all:#?}");
}

#[tokio::test]
async fn two_spellings_of_a_url_are_one() {
    run_with(&[], async |app| {
        let create = async |url: &str| {
            let body = json!({ "url": url, "events": ["*"] });
            app.post_with_key("/wallet/webhook", "k", body).await
        };
        let first = create("HTTPS://Example.COM:443/a/../hook path?x=1#top").await;
        let again = create("https://example.com/hook%20path?x=1").await;

        assert_eq!(first.json()["url"], "https://example.com/hook%20path?x=1");
        assert_eq!((again.status, again.text), (201, first.text));
        let long = format!("https://example.com/{}", "\u{e9}".repeat(900));
        let refused = create(&long).await.problem(422, "invalid");
        assert_eq!(refused["errors"][0]["pointer"], "/url");
    })
    .await;
}
