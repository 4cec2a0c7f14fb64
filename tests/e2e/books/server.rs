//! A server with several books: everything that clients see is as with one book.

use revwallet::ledger::book::book_of;
use serde_json::{Value, json};

use crate::harness::program::Program;
use crate::harness::receiver::Receiver;
use crate::harness::{Client, TestApp, eventually, run, run_with};

const BOOKS: &str = "--books=3";

fn book(wallet: &str) -> i32 {
    book_of(wallet.parse().unwrap())
}

/// Opens a wallet in each book, in the order of the books, and deposits 10.00 into each.
async fn wallets(app: &TestApp) -> [String; 3] {
    let mut wallets = [(); 3].map(|()| String::new());
    for _ in 0..3 {
        let wallet = app.open_wallet("EUR", "10").await;
        let index = usize::try_from(book(&wallet) - 1).unwrap();
        wallets[index] = wallet;
    }
    wallets
}

async fn transfer(app: &Client, from: &str, to: &str, amount: &str) -> Value {
    let body = json!({ "from": from, "to": to, "amount": amount });
    let response = app.post("/wallet/transfer", body).await;
    assert_eq!(response.status, 201, "{}", response.text);
    response.json()
}

async fn newest_entry(app: &Client, wallet: &str) -> Value {
    app.get(&format!("/wallet/{wallet}/history?limit=1")).await.json()[0].clone()
}

async fn balance(app: &Client, wallet: &str) -> Value {
    app.get(&format!("/wallet/balance/{wallet}")).await.json()["balance"].clone()
}

#[tokio::test]
async fn new_wallets_are_spread_and_pay_each_other() {
    run_with(&[BOOKS], async |app| {
        let [one, two, three] = wallets(app).await;
        assert_eq!([&one, &two, &three].map(|wallet| book(wallet)), [1, 2, 3]);

        let paid = transfer(app, &two, &one, "2.50").await;
        let id = paid["id"].as_str().unwrap();
        let entries = [newest_entry(app, &two).await, newest_entry(app, &one).await];
        let found = app.get(&format!("/wallet/transfer/{id}")).await.json();

        assert_eq!(entries.each_ref().map(|entry| &entry["available"]), [7.5, 12.5]);
        assert_eq!(entries[0]["at"], entries[1]["at"]);
        assert_eq!(entries.each_ref().map(|entry| &entry["id"]), [id, id]);
        assert_eq!(entries.each_ref().map(|entry| &entry["counterparty"]), [&one, &two]);
        let parts = ["id", "from", "to"].map(|name| found[name].as_str().unwrap());
        assert_eq!(parts, [id, &two, &one], "{found}");
        let hold = app.post("/wallet/hold", json!({ "id": three, "amount": "4" })).await.json();
        let hold = hold["id"].as_str().unwrap();
        let capture = json!({ "amount": "3", "to": one });
        let captured = app.post(&format!("/wallet/hold/{hold}/capture"), capture).await;
        assert_eq!(captured.status, 200, "{}", captured.text);
        let refund = app.post("/wallet/refund", json!({ "transfer": id })).await;
        assert_eq!(refund.status, 201, "{}", refund.text);
        assert_eq!(refund.json()["linked"], id);
        for (wallet, expected) in [(&one, 13.0), (&two, 10.0), (&three, 7.0)] {
            assert_eq!(balance(app, wallet).await, expected);
            let statement = app.get(&format!("/wallet/{wallet}/statement")).await.json();
            assert_eq!(statement["closing_balance"], expected, "{statement}");
        }
        let listed = app.get("/wallet/").await.json();
        let listed = listed.as_array().unwrap().iter().map(|wallet| wallet["balance"].clone());
        assert_eq!(listed.collect::<Vec<_>>(), [13.0, 10.0, 7.0]);
    })
    .await;
}

#[tokio::test]
async fn a_copy_of_a_transfer_is_no_transfer_of_its_own() {
    run_with(&[BOOKS], async |app| {
        let [one, two, _] = wallets(app).await;
        transfer(app, &two, &one, "1").await;
        let mut db = app.database.connect().await;
        let copy = "select seq from ledger.transfer where home is not null";
        let copy: i64 = sqlx::query_scalar(copy).fetch_one(&mut db).await.unwrap();

        app.get(&format!("/wallet/transfer/{copy}")).await.problem(404, "not-found");
        let refund = json!({ "transfer": copy.to_string() });
        let refund = app.post("/wallet/refund", refund).await;
        refund.problem(404, "not-found");
    })
    .await;
}

#[tokio::test]
async fn a_batch_writes_to_several_books_under_one_key() {
    run_with(&[BOOKS], async |app| {
        let first = wallets(app).await;
        let second = wallets(app).await;
        let pairs = first.iter().zip(&second);
        let transfers = pairs.map(|(from, to)| json!({ "from": from, "to": to, "amount": "0.10" }));
        let request = json!({ "transfers": transfers.collect::<Vec<_>>() });

        for number in 0..20 {
            let key = format!("k{number}");
            let batch = app.post_with_key("/wallet/batch", &key, request.clone()).await;
            let again = app.post_with_key("/wallet/batch", &key, request.clone()).await;

            assert_eq!(batch.status, 200, "{}", batch.text);
            let results = batch.json()["results"].as_array().unwrap().clone();
            assert!(results.iter().all(|result| result["status"] == 201), "{}", batch.text);
            assert_eq!(again.json()["results"].as_array().unwrap().len(), results.len());
        }
        for (from, to) in first.iter().zip(&second) {
            assert_eq!([balance(app, from).await, balance(app, to).await], [8.0, 12.0]);
        }
    })
    .await;
}

#[tokio::test]
async fn webhooks_get_each_event_once_with_the_balance_of_its_wallet() {
    run_with(&[BOOKS, "--webhook-allow-private"], async |app| {
        let [one, two, three] = wallets(app).await;
        transfer(app, &one, &three, "5").await;
        let receiver = Receiver::start().await;
        let body = json!({ "url": receiver.url(), "events": ["*"] });
        assert_eq!(app.post("/wallet/webhook", body).await.status, 201);

        let paid = transfer(app, &three, &two, "2").await;

        eventually("both events are delivered", async || receiver.deliveries().len() >= 2).await;
        for (wallet, available) in [(&three, 13.0), (&two, 12.0)] {
            let [event] = &receiver.events(wallet)[..] else { panic!("not one event of {wallet}") };
            assert_eq!(event["data"]["available"], available, "{event}");
            assert_eq!(event["data"]["transfer"], paid["id"], "{event}");
        }
        assert_eq!(receiver.events(&one), Vec::<Value>::new());
    })
    .await;
}

#[tokio::test]
async fn the_readers_of_many_books_share_a_pool_of_two_connections() {
    run_with(&["--books=16", "--webhook-allow-private", "--only=api"], async |app| {
        let receiver = Receiver::start().await;
        let body = json!({ "url": receiver.url(), "events": ["*"] });
        assert_eq!(app.post("/wallet/webhook", body).await.status, 201);
        let mut wallets = Vec::new();
        for _ in 0..16 {
            wallets.push(app.open_wallet("EUR", "10").await);
        }

        // All readers begin at once, and find none of the wallets in the cache of their process.
        let database = format!("--database-url={}", app.database.url);
        let worker = Program::start(&[
            &database,
            "--only=worker",
            "--database-connections-max=2",
            "--webhook-allow-private",
            "--access=open",
            "--allow-unsafe-server",
        ])
        .await;

        eventually("each wallet has its event", async || {
            wallets.iter().all(|wallet| !receiver.events(wallet).is_empty())
        })
        .await;
        let metrics = worker.internal.get("/metrics").await.text;
        let failed = metrics.lines().filter(|line| {
            line.starts_with("wallet_book_reader_steps_total{")
                && line.contains("outcome=\"failed\"")
                && !line.ends_with(" 0")
        });
        assert_eq!(failed.collect::<Vec<_>>(), Vec::<&str>::new());
        assert!(worker.stop().await.success());
    })
    .await;
}

#[tokio::test]
async fn a_client_continues_after_a_position_in_every_book() {
    run_with(&[BOOKS], async |app| {
        let wallets = wallets(app).await;
        let [_, two, three] = &wallets;
        let topic = format!("wallet:{two}");
        let read = app.get(&format!("/wallet/balance/{two}")).await;
        let position = read.header("book-position").to_owned();
        transfer(app, three, two, "1").await;
        transfer(app, two, three, "2").await;

        let mut socket = app.socket().await;
        socket.subscribe_after(&topic, &position).await;
        let events = [socket.json().await, socket.json().await];
        assert_eq!(events.each_ref().map(|event| &event["data"]["available"]), [11.0, 9.0]);
        transfer(app, three, two, "3").await;
        let live = socket.json().await;
        assert_eq!(live["data"]["available"], 12.0);
        drop(socket);

        transfer(app, two, three, "4").await;
        let mut socket = app.socket().await;
        socket.subscribe_after(&topic, live["position"].as_str().unwrap()).await;
        assert_eq!(socket.json().await["data"]["available"], 8.0);
        socket.is_silent().await;
    })
    .await;
}

#[tokio::test]
async fn a_topic_of_all_players_follows_every_book() {
    run_with(&[BOOKS], async |app| {
        let mut socket = app.socket().await;
        socket.subscribe("gameprogress-event").await;
        for player in 1..=6 {
            let deposit = json!({ "userId": format!("p{player}"), "amount": player });
            assert_eq!(app.post("/api/wallet/deposit", deposit).await.status, 200);
        }

        let mut events = Vec::new();
        for _ in 0..6 {
            events.push(socket.json().await);
        }
        drop(socket);
        let mut players: Vec<&str> =
            events.iter().map(|event| event["data"]["player"].as_str().unwrap()).collect();
        players.sort_unstable();
        assert_eq!(players, ["p1", "p2", "p3", "p4", "p5", "p6"]);

        let mut socket = app.socket().await;
        let position = events[2]["position"].as_str().unwrap();
        socket.subscribe_after("gameprogress-event", position).await;
        let mut rest = vec![socket.json().await, socket.json().await, socket.json().await];
        socket.is_silent().await;
        let transfer = |event: &Value| event["data"]["transfer"].as_str().unwrap().to_owned();
        rest.sort_by_key(transfer);
        events.drain(..3);
        events.sort_by_key(transfer);
        let data = |events: &[Value]| -> Vec<Value> {
            events.iter().map(|event| event["data"].clone()).collect()
        };
        assert_eq!(data(&rest), data(&events));
        eventually("each player is on the leaderboard", async || {
            let page = app.get("/api/leaderboard").await.json();
            page["entries"].as_array().is_some_and(|entries| entries.len() == 6)
        })
        .await;
    })
    .await;
}

#[tokio::test]
async fn books_are_added_and_never_removed() {
    run(async |app| {
        let first = app.open_wallet("EUR", "10").await;
        let url = format!("--database-url={}", app.database.url);
        let arguments = [url.as_str(), "--allow-unsafe-server", "--access=open"];
        let start = async |books: &[&str]| Program::try_start(&[&arguments, books].concat()).await;

        // The process of the test leads, and does not know the book that the other process creates.
        let added = start(&["--books=2"]).await.unwrap();
        let second =
            added.public.post("/wallet", json!({ "owner": "ada", "currency": "EUR" })).await;
        let second = second.json()["id"].as_str().unwrap().to_owned();
        added.kill();
        let refused = start(&["--books=1"]).await.err().unwrap();
        let later = start(&[]).await.unwrap();
        transfer(&later.public, &first, &second, "4").await;

        let unknown = json!({ "from": first, "to": second, "amount": "1" });
        app.post("/wallet/transfer", unknown).await.problem(503, "database-unavailable");
        let read = later.public.get(&format!("/wallet/balance/{second}")).await;
        let position = read.header("book-position").to_owned();
        for topic in [format!("wallet:{second}"), format!("wallet:{first}")] {
            let subscribe = json!({ "action": "subscribe", "topic": topic, "after": position });
            let refused = app.socket().await.ask(subscribe).await;
            assert!(refused["error"].is_string(), "{refused}");
        }
        assert_eq!([book(&first), book(&second)], [1, 2]);
        assert_eq!(refused.code, Some(1));
        let reason = "--books 1 is less than the 2 books that the database has";
        assert!(refused.stderr.contains(reason), "{}", refused.stderr);
        assert_eq!(balance(&later.public, &second).await, 4.0);
        let open = "select ledger.post(1, seq, batch_id, gen_random_uuid(), '', true, true, array[account],
            array[account], '{0}', '{0}', '{0}', '{1}', '{0}', '{1}', '{null}', '{}', '{}', '{}', '{}', '{}', '{}',
            array[account], '{EUR}', '{2}', array[seq + 1], '{}')
            from ledger.seal, (values ((1::bigint << 44) + 99)) opened (account)
            where book = 1 order by seq desc limit 1";
        let error = app.database.try_execute(open).await.unwrap_err();
        assert!(error.to_string().contains("cannot write to several"), "{error}");
        later.kill();
    })
    .await;
}
