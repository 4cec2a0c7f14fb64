//! Fault injection: breaks a part of the stack until its alerts fire, and repairs it until they resolve.

use std::fmt::Write;
use std::time::{Duration, Instant};

use serde_json::json;

use super::stack::Stack;
use crate::harness::program::{postgres_of, postmaster_of, signal};
use crate::harness::receiver::Receiver;
use crate::harness::{Client, eventually_within};
use crate::source::alerts;

/// Longest time that an alert may take to fire, and to resolve.
const ALERT_TIMEOUT: Duration = Duration::from_secs(100);

/// Measured times of an alert: a row of the printed table.
struct Row {
    alert: &'static str,
    fault: &'static str,
    fired: Duration,
    resolved: Duration,
}

/// An injected fault, and the alerts that it must raise.
struct Fault {
    description: &'static str,
    alerts: &'static [(&'static str, &'static str)],
    injected_at: Instant,
    fired: Vec<Duration>,
}

impl Fault {
    /// Starts the clock when none of the alerts fires: the workload raises some for a while.
    async fn begin(
        stack: &Stack,
        description: &'static str,
        alerts: &'static [(&'static str, &'static str)],
    ) -> Self {
        for (alert, severity) in alerts {
            let what = format!("{alert} does not fire before: {description}");
            eventually_within(ALERT_TIMEOUT, &what, async || {
                stack.firing(alert, severity).await.is_empty()
            })
            .await;
        }
        Self { description, alerts, injected_at: Instant::now(), fired: Vec::new() }
    }

    async fn fires(&mut self, stack: &Stack) {
        for (alert, severity) in self.alerts {
            let what = format!("{alert} fires because of: {}", self.description);
            eventually_within(ALERT_TIMEOUT, &what, async || stack.fires(alert, severity).await)
                .await;
            self.fired.push(self.injected_at.elapsed());
        }
    }

    async fn resolves(self, stack: &Stack, table: &mut Vec<Row>) {
        let repaired_at = Instant::now();
        for ((alert, severity), fired) in self.alerts.iter().zip(self.fired) {
            let what = format!("{alert} resolves after: {}", self.description);
            eventually_within(ALERT_TIMEOUT, &what, async || !stack.fires(alert, severity).await)
                .await;
            let resolved = repaired_at.elapsed();
            table.push(Row { alert, fault: self.description, fired, resolved });
        }
    }
}

pub async fn all_faults(stack: &Stack) {
    // These raise alerts of their own, so they need not wait for each other.
    let mut tables: [Vec<Row>; 9] = Default::default();
    let [webhook, clients, prizes, refunds, keys, passwords, leader, replica, partition] =
        &mut tables;
    tokio::join!(
        failing_webhook(stack, webhook),
        stalled_clients(stack, clients),
        unpaid_prizes(stack, prizes),
        refunds_and_debt(stack, refunds),
        guessed_keys(stack, keys),
        password_guessing(stack, passwords),
        unreachable_leader(stack, leader),
        unreachable_replica(stack, replica),
        missing_partition(stack, partition),
    );
    stop_third(stack).await;
    let mut table: Vec<Row> = tables.into_iter().flatten().collect();
    let tampered = tampered_balance(stack).await;
    let mut of_first = Vec::new();
    tokio::join!(
        lost_process(stack, tampered, &mut table),
        frozen_then_killed_database(stack, &mut of_first),
    );
    table.append(&mut of_first);
    print(&table);
}

/// WebSocket clients subscribe and read nothing.
async fn stalled_clients(stack: &Stack, table: &mut Vec<Row>) {
    let alerts = &[("WebSocketClientsSlow", "ticket")];
    let mut fault = Fault::begin(stack, "ten WebSocket clients stop reading", alerts).await;
    let mut clients = Vec::new();
    for _ in 0..10 {
        let mut client = stack.second_public.narrow_socket().await;
        client.subscribe("game_updates").await;
        clients.push(client);
    }
    // More than the buffers of the kernel and the queue of a connection hold.
    let events = "
        insert into ledger.event (book, topic, body)
        select 1, 'game_updates', json_build_object('type', 'filler', 'data', repeat('x', 40000))
        from generate_series(1, 400)";
    stack.database.execute(events).await;
    stack.database.execute("select pg_notify('event', '1')").await;

    fault.fires(stack).await;

    drop(clients);
    fault.resolves(stack, table).await;
}

/// A season ends while the prize account is empty.
async fn unpaid_prizes(stack: &Stack, table: &mut Vec<Row>) {
    let admin = stack.second_public.with_credential(&stack.second_key());
    let prizes = json!([{ "rank": 1, "amount": 5, "currency": "EUR" }]);
    let board = admin.request(http::Method::PUT, "/api/leaderboards/proof");
    admin.send(board.json(&json!({ "reset": "@yearly", "prizes": prizes }))).await;
    let score = json!({ "user": "ada", "score": 1 });
    admin.post("/api/leaderboards/proof/scores", score).await;
    let alerts = &[("PrizesUnpaid", "ticket")];
    let mut fault = Fault::begin(stack, "the prize account is empty", alerts).await;
    stack
        .database
        .execute(
            "update leaderboard_season set starts_at = starts_at - interval '1 day', ends_at = now()
             where ended_at is null",
        )
        .await;

    fault.fires(stack).await;

    admin.post("/api/prize-account/deposit", json!({ "currency": "EUR", "amount": 5 })).await;
    admin.post("/api/leaderboards/proof/prizes/retry", json!({})).await;
    fault.resolves(stack, table).await;
}

/// Registers a user and returns its id with a client that is signed in.
async fn user(client: &Client, name: &str) -> (String, Client) {
    let password = "test-secret in public";
    let body =
        json!({ "username": name, "email": format!("{name}@example.com"), "password": password });
    let registered = client.post("/api/users/register", body).await.json();
    let body = json!({ "username": name, "password": password });
    let session = client.post("/api/users/login", body).await.json();
    let user = client.with_credential(session["token"].as_str().unwrap());
    (registered["id"].as_str().unwrap().to_owned(), user)
}

/// A buyer refunds many games of a publisher whose share was paid out before.
async fn refunds_and_debt(stack: &Stack, table: &mut Vec<Row>) {
    let admin = stack.second_public.with_credential(&stack.second_key());
    let (seller, _) = user(&admin, "seller").await;
    let (id, buyer) = user(&admin, "buyer").await;
    buyer.post("/api/wallet/deposit", json!({ "userId": id, "amount": 10_000 })).await;
    let publisher = json!({ "user": seller, "name": "Seller Games", "fee": "0" });
    let publisher = admin.post("/api/publishers", publisher).await.json()["id"].clone();
    let mut games = Vec::new();
    for title in 0..15 {
        let body = json!({ "title": format!("game {title}"), "genre": "x", "price": "1.00", "publisher": publisher });
        games.push(admin.post("/api/games", body).await.json()["gameId"].clone());
    }
    let each = async |operation: &str| {
        for game in &games {
            let done = buyer.post(&format!("/api/games/{game}/{operation}"), json!({})).await;
            assert!(done.status < 300, "{operation}: {}", done.text);
        }
    };
    let alerts = &[("RefundSpike", "ticket"), ("PublisherInDebt", "ticket")];
    let mut fault = Fault::begin(stack, "a buyer refunds every game", alerts).await;
    each("purchase").await;
    let path = format!("/api/publishers/{}/payout", publisher.as_str().unwrap());
    let paid = admin.post(&path, json!({})).await;
    assert!(paid.status < 300, "{}", paid.text);
    each("refund").await;

    fault.fires(stack).await;

    each("purchase").await;
    fault.resolves(stack, table).await;
}

/// A user tries activation keys.
async fn guessed_keys(stack: &Stack, table: &mut Vec<Row>) {
    let alerts = &[("CodesGuessed", "ticket")];
    let (_, guesser) = user(&stack.second_public, "guesser").await;
    let mut fault = Fault::begin(stack, "a user who tries activation keys", alerts).await;
    while !stack.fires("CodesGuessed", "ticket").await
        && fault.injected_at.elapsed() < ALERT_TIMEOUT
    {
        let key = json!({ "key": "AAAAA-AAAAA-AAAAA-AAAAA-AAAAA" });
        guesser.post("/api/games/redeem", key).await;
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    fault.fires(stack).await;
    fault.resolves(stack, table).await;
}

async fn failing_webhook(stack: &Stack, table: &mut Vec<Row>) {
    let client = &stack.second_public;
    let missing_path = Receiver::start().await.url().replace("/hook", "/nowhere");
    let mut failing =
        Fault::begin(stack, "a receiver that answers 404", &[("WebhooksFailing", "ticket")]).await;
    client.post("/wallet/webhook", json!({ "url": missing_path, "events": ["*"] })).await;
    // Earlier successes count until they leave the window.
    while !stack.fires("WebhooksFailing", "ticket").await
        && failing.injected_at.elapsed() < ALERT_TIMEOUT
    {
        let body = json!({ "owner": "x", "currency": "EUR", "initial_balance": 1 });
        client.post("/wallet", body).await;
        tokio::time::sleep(Duration::from_millis(200)).await;
    }
    failing.fires(stack).await;

    let mut dead =
        Fault::begin(stack, "deliveries moved to the dead letters", &[("DeadLetters", "ticket")])
            .await;
    stack.database.execute("update delivery set state = 'dead' where state = 'pending'").await;
    dead.fires(stack).await;
    stack.database.execute("delete from webhook").await;
    dead.resolves(stack, table).await;
    failing.resolves(stack, table).await;
}

async fn password_guessing(stack: &Stack, table: &mut Vec<Row>) {
    let client = &stack.first.public;
    let mut guessing = Fault::begin(
        stack,
        "two dozen wrong passwords per second for one user",
        &[("LoginFailureSpike", "ticket")],
    )
    .await;
    while !stack.fires("LoginFailureSpike", "ticket").await
        && guessing.injected_at.elapsed() < ALERT_TIMEOUT
    {
        let body = || json!({ "username": "person1", "password": "test-secret wrongly" });
        futures_util::future::join_all((0..5).map(|_| client.post("/api/users/login", body())))
            .await;
        tokio::time::sleep(Duration::from_millis(200)).await;
    }
    guessing.fires(stack).await;
    guessing.resolves(stack, table).await;
}

/// The leader of the book of the second and the third program publishes an address at which no program listens, as with
/// a wrong `--advertise-address`.
async fn unreachable_leader(stack: &Stack, table: &mut Vec<Row>) {
    let alerts = &[("LedgerFollowerAlone", "ticket")];
    let mut fault = Fault::begin(stack, "a leader that publishes a wrong address", alerts).await;
    let publish = async |from: &str, to: &str| {
        let statement =
            format!("update ledger.leader set address = replace(address, '{from}', '{to}')");
        stack.database.execute(&statement).await;
    };
    publish("127.0.0.1:", "127.0.0.2:").await;
    fault.fires(stack).await;
    publish("127.0.0.2:", "127.0.0.1:").await;
    fault.resolves(stack, table).await;
}

/// Clients of the third program accept an older state, and its read replica does not answer.
async fn unreachable_replica(stack: &Stack, table: &mut Vec<Row>) {
    let client = stack.third_public.with_credential(&stack.second_key());
    let alerts = &[("ReadReplicaUnused", "ticket")];
    let mut fault = Fault::begin(stack, "a read replica that does not answer", alerts).await;
    while !stack.fires("ReadReplicaUnused", "ticket").await
        && fault.injected_at.elapsed() < ALERT_TIMEOUT
    {
        let read = client.get("/wallet?limit=1&stale=ok").await;
        assert_eq!(read.status, 200, "{}", read.text);
        tokio::time::sleep(Duration::from_millis(200)).await;
    }
    fault.fires(stack).await;
    fault.resolves(stack, table).await;
}

/// The book of the second and the third program gets no further partition.
async fn missing_partition(stack: &Stack, table: &mut Vec<Row>) {
    let alerts = &[("LedgerPartitionMissing", "page")];
    let mut fault = Fault::begin(stack, "partitions are not created", alerts).await;
    let rename = async |from: &str, to: &str| {
        let statement = format!("alter function ledger.{from}(bigint) rename to {to}");
        stack.database.execute(&statement).await;
    };
    rename("extend_partitions", "extend_partitions_aside").await;
    stack
        .database
        .execute(
            "create function ledger.extend_partitions(bigint) returns bigint language sql as 'select 10::bigint'",
        )
        .await;
    fault.fires(stack).await;
    stack.database.execute("drop function ledger.extend_partitions(bigint)").await;
    rename("extend_partitions_aside", "extend_partitions").await;
    fault.resolves(stack, table).await;
}

/// Stops the third program, because later faults expect no other on the book of the second.
async fn stop_third(stack: &Stack) {
    let third = stack.third.lock().unwrap().take().unwrap();
    stack.scrape_programs();
    let gone = async || {
        let scraped = stack.query(r#"count(up{job="revwallet"})"#).await;
        scraped.first().is_some_and(|count| *count < 2.5)
    };
    eventually_within(ALERT_TIMEOUT, "the third program is no longer scraped", gone).await;
    assert!(third.stop().await.success());
}

/// Changes a balance of the second program, and waits until its alerts fire.
async fn tampered_balance(stack: &Stack) -> Fault {
    let mut tampered = Fault::begin(
        stack,
        "a balance changed in the database",
        &[("LedgerInvariantViolated", "page"), ("ErrorsLogged", "ticket")],
    )
    .await;
    // The auditor reads the row with the next seal. The trigger stands for an intruder who can disable triggers.
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
    tampered
}

/// Kills the second program, whose alerts resolve when it is no longer scraped.
async fn lost_process(stack: &Stack, tampered: Fault, table: &mut Vec<Row>) {
    let mut missing = Fault::begin(stack, "a killed process", &[("TargetMissing", "page")]).await;
    let second = stack.second.lock().unwrap().take().unwrap();
    second.kill();
    missing.fires(stack).await;
    // Removes the target, as an operator does who takes a process out of service.
    stack.scrape_programs();
    missing.resolves(stack, table).await;
    tampered.resolves(stack, table).await;
}

async fn frozen_then_killed_database(stack: &Stack, table: &mut Vec<Row>) {
    let mut stopped = Fault::begin(
        stack,
        "a frozen database under load",
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
            send_load(&stack.first.public).await;
        }
    };
    tokio::select! {
        () = stopped.fires(stack) => {}
        () = load => {}
    }
    for process in &processes {
        signal(*process, "CONT");
    }
    // The alerts of the freeze resolve beside those of the kill: a restarted Postgres is soon ready again.
    let mut killed = Vec::new();
    tokio::join!(stopped.resolves(stack, table), killed_postgres(stack, &mut killed));
    table.append(&mut killed);
}

/// Sends many writes and some reads.
async fn send_load(client: &Client) {
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

async fn killed_postgres(stack: &Stack, table: &mut Vec<Row>) {
    let mut killed = Fault::begin(
        stack,
        "a killed embedded Postgres",
        &[("EmbeddedPostgresRestarted", "ticket")],
    )
    .await;
    signal(postmaster_of(&stack.first_folder.0), "KILL");
    killed.fires(stack).await;
    killed.resolves(stack, table).await;
}

/// Prints a table of every alert with its fault and times.
#[expect(clippy::print_stdout, reason = "the table is the result of the test")]
fn print(table: &[Row]) {
    let mut text = String::from(
        "\n| alert | injected fault | fired after | resolved after |\n|---|---|---|---|\n",
    );
    let names = alerts::all().map(|alert| alert.name).chain(["ErrorBudgetBurn"]);
    for name in names {
        match table.iter().find(|row| row.alert == name) {
            Some(Row { fault, fired, resolved, .. }) => {
                writeln!(
                    text,
                    "| {name} | {fault} | {} s | {} s |",
                    fired.as_secs(),
                    resolved.as_secs()
                )
                .unwrap();
            }
            None => writeln!(text, "| {name} | unit test only | | |").unwrap(),
        }
    }
    println!("{text}");
    assert!(table.len() >= 12, "only {} alerts fired", table.len());
}
