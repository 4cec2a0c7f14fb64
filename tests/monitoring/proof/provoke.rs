//! What can be broken is broken until somebody is told, and mended until they are told that it is over.

use std::fmt::Write;
use std::time::{Duration, Instant};

use serde_json::json;

use super::stack::Stack;
use crate::harness::program::{postgres_of, postmaster_of, signal};
use crate::harness::receiver::Receiver;
use crate::harness::{Client, eventually_within};
use crate::source::alerts::ALERTS;

/// Longest that an alert may take to fire, and to resolve.
const PATIENCE: Duration = Duration::from_secs(100);

/// One line of the table.
struct Line {
    alert: &'static str,
    how: &'static str,
    fired: Duration,
    resolved: Duration,
}

/// What was done, and which alerts it must raise.
struct Provocation {
    how: &'static str,
    alerts: &'static [(&'static str, &'static str)],
    began: Instant,
    fired: Vec<Duration>,
}

impl Provocation {
    /// Before it, none of them fires.
    async fn begin(
        stack: &Stack,
        how: &'static str,
        alerts: &'static [(&'static str, &'static str)],
    ) -> Self {
        for (alert, severity) in alerts {
            assert!(!stack.fires(alert, severity).await, "{alert} fires without: {how}");
        }
        Self { how, alerts, began: Instant::now(), fired: Vec::new() }
    }

    async fn fires(&mut self, stack: &Stack) {
        for (alert, severity) in self.alerts {
            let what = format!("{alert} fires because of: {}", self.how);
            eventually_within(PATIENCE, &what, async || stack.fires(alert, severity).await).await;
            self.fired.push(self.began.elapsed());
        }
    }

    async fn resolves(self, stack: &Stack, table: &mut Vec<Line>) {
        let mended = Instant::now();
        for ((alert, severity), fired) in self.alerts.iter().zip(self.fired) {
            let what = format!("{alert} resolves after: {}", self.how);
            eventually_within(PATIENCE, &what, async || !stack.fires(alert, severity).await).await;
            table.push(Line { alert, how: self.how, fired, resolved: mended.elapsed() });
        }
    }
}

pub async fn all(stack: &Stack) {
    let mut table = Vec::new();
    webhooks(stack, &mut table).await;
    guesses(stack, &mut table).await;
    tampering(stack, &mut table).await;
    no_database(stack, &mut table).await;
    dead_postgres(stack, &mut table).await;
    print(&table);
}

async fn webhooks(stack: &Stack, table: &mut Vec<Line>) {
    let client = &stack.second_public;
    let nowhere = Receiver::start().await.url().replace("/hook", "/nowhere");
    let mut broken =
        Provocation::begin(stack, "a receiver that answers 404", &[("WebhooksFailing", "ticket")])
            .await;
    client.post("/wallet/webhook", json!({ "url": nowhere, "events": ["*"] })).await;
    // What went well before counts for as long as the window lasts.
    while !stack.fires("WebhooksFailing", "ticket").await && broken.began.elapsed() < PATIENCE {
        let body = json!({ "owner": "x", "currency": "EUR", "initial_balance": 1 });
        client.post("/wallet", body).await;
        tokio::time::sleep(Duration::from_millis(200)).await;
    }
    broken.fires(stack).await;

    let mut dead =
        Provocation::begin(stack, "deliveries that were given up", &[("DeadLetters", "ticket")])
            .await;
    stack.database.execute("update delivery set state = 'dead' where state = 'pending'").await;
    dead.fires(stack).await;
    stack.database.execute("delete from webhook").await;
    dead.resolves(stack, table).await;
    broken.resolves(stack, table).await;
}

async fn guesses(stack: &Stack, table: &mut Vec<Line>) {
    let client = &stack.first.public;
    let mut guessing = Provocation::begin(
        stack,
        "two dozen guesses a second at one password",
        &[("LoginFailureSpike", "ticket")],
    )
    .await;
    while !stack.fires("LoginFailureSpike", "ticket").await && guessing.began.elapsed() < PATIENCE {
        let body = || json!({ "username": "person1", "password": "planted wrongly" });
        futures_util::future::join_all((0..5).map(|_| client.post("/api/users/login", body())))
            .await;
        tokio::time::sleep(Duration::from_millis(200)).await;
    }
    guessing.fires(stack).await;
    guessing.resolves(stack, table).await;
}

async fn tampering(stack: &Stack, table: &mut Vec<Line>) {
    let mut tampered = Provocation::begin(
        stack,
        "a balance that was changed in the database",
        &[("LedgerInvariantViolated", "page"), ("ErrorsLogged", "ticket")],
    )
    .await;
    // The auditor reads it with the next seal: the row is written as if by somebody who can switch triggers off.
    stack
        .database
        .execute(
            "create function tamper() returns trigger language plpgsql as $$
             begin new.credit_balance := new.credit_balance + 5; return new; end $$;
             create trigger tamper before insert on ledger.transfer for each row when (new.kind >= 10) execute function tamper();",
        )
        .await;
    stack
        .second_public
        .post("/wallet", json!({ "owner": "x", "currency": "EUR", "initial_balance": 1 }))
        .await;
    stack.database.execute("drop trigger tamper on ledger.transfer").await;
    tampered.fires(stack).await;

    let mut missing =
        Provocation::begin(stack, "a process that was killed", &[("TargetMissing", "page")]).await;
    let second = stack.second.lock().unwrap().take().unwrap();
    second.kill();
    missing.fires(stack).await;
    // Whoever takes it out of service on purpose stops asking for it.
    stack.scrape_both();
    missing.resolves(stack, table).await;
    tampered.resolves(stack, table).await;
}

async fn no_database(stack: &Stack, table: &mut Vec<Line>) {
    let mut stopped = Provocation::begin(
        stack,
        "a database that hangs, while requests come in",
        &[
            ("DatabaseDown", "page"),
            ("LedgerWriterStalled", "page"),
            ("PoolExhausted", "page"),
            ("ProbeFailing", "page"),
            ("ErrorBudgetBurn", "page"),
            ("RequestsTurnedAway", "ticket"),
            ("LedgerQueueNearCapacity", "ticket"),
        ],
    )
    .await;
    let processes = postgres_of(&stack.first_folder.0);
    assert!(!processes.is_empty());
    for process in &processes {
        signal(*process, "STOP");
    }
    let load = async {
        loop {
            requests(&stack.first.public).await;
        }
    };
    tokio::select! {
        () = stopped.fires(stack) => {}
        () = load => {}
    }
    for process in &processes {
        signal(*process, "CONT");
    }
    stopped.resolves(stack, table).await;
}

/// Much to write, and some to read.
async fn requests(client: &Client) {
    let transfers: Vec<_> =
        (0..9_000).map(|_| json!({ "from": "1", "to": "2", "amount": "0.01" })).collect();
    let batch = client.post("/wallet/batch", json!({ "atomic": true, "transfers": transfers }));
    let deposits =
        (0..10).map(|_| client.post("/wallet/deposit", json!({ "id": "1", "amount": 1 })));
    let reads = (0..30).map(|_| client.get("/wallet/balance/1"));
    tokio::join!(
        batch,
        futures_util::future::join_all(deposits),
        futures_util::future::join_all(reads)
    );
    tokio::time::sleep(Duration::from_millis(200)).await;
}

async fn dead_postgres(stack: &Stack, table: &mut Vec<Line>) {
    let mut killed = Provocation::begin(
        stack,
        "an embedded Postgres that was killed",
        &[("EmbeddedPostgresRestarted", "ticket")],
    )
    .await;
    signal(postmaster_of(&stack.first_folder.0), "KILL");
    killed.fires(stack).await;
    killed.resolves(stack, table).await;
}

/// Every alert, and how it was provoked.
#[expect(clippy::print_stdout, reason = "the table is what the test shows")]
fn print(table: &[Line]) {
    let mut text = String::from(
        "\n| alert | provoked by | fired after | resolved after |\n|---|---|---|---|\n",
    );
    let names = ALERTS.iter().map(|alert| alert.name).chain(["ErrorBudgetBurn"]);
    for name in names {
        match table.iter().find(|line| line.alert == name) {
            Some(Line { how, fired, resolved, .. }) => {
                writeln!(
                    text,
                    "| {name} | {how} | {} s | {} s |",
                    fired.as_secs(),
                    resolved.as_secs()
                )
                .unwrap();
            }
            None => writeln!(text, "| {name} | its unit test only | | |").unwrap(),
        }
    }
    println!("{text}");
    assert!(table.len() >= 12, "only {} alerts were provoked", table.len());
}
