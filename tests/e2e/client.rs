//! `revwallet wallet`, `transfer` and `webhook`: commands that talk to a server.

use std::os::unix::fs::PermissionsExt;
use std::process::{Child, Command, Output, Stdio};
use std::sync::{Arc, Mutex};

use serde_json::{Value, json};

use crate::harness::program::{Folder, command, signal};
use crate::harness::receiver::Receiver;
use crate::harness::{TestApp, eventually, free_address, run_with};

/// Runs a command to its end while the app, on the thread of the test, answers it.
async fn output(mut command: Command) -> Output {
    tokio::task::spawn_blocking(move || command.output().unwrap()).await.unwrap()
}

fn url(app: &TestApp) -> String {
    format!("--url=http://{}", app.address)
}

/// Runs a command for the app and returns its standard output.
async fn text(app: &TestApp, arguments: &[&str]) -> String {
    let output = output(command(&[arguments, &[&url(app)]].concat())).await;
    let stderr = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success() && stderr.is_empty(), "{arguments:?}: {stderr}");
    String::from_utf8(output.stdout).unwrap()
}

/// Runs a command for the app and returns the document that it prints.
async fn document(app: &TestApp, arguments: &[&str]) -> Value {
    serde_json::from_str(&text(app, &[arguments, &["--json"]].concat()).await).unwrap()
}

/// Runs a command that fails, and returns its sentence.
async fn refused(command: Command) -> String {
    let output = output(command).await;
    let stderr = String::from_utf8(output.stderr).unwrap();
    assert_eq!(output.status.code(), Some(1), "{stderr}");
    assert_eq!(stderr.lines().count(), 1, "{stderr}");
    assert!(output.stdout.is_empty());
    stderr
}

#[tokio::test]
async fn wallets_and_transfers_work_from_the_command_line() {
    run_with(&[], async |app| {
        let open = ["wallet", "open", "--owner=ada", "--in=EUR"];
        let ada = document(app, &[&open[..], &["--initial-balance=100.00"]].concat()).await;
        let from = ada["id"].as_str().unwrap();
        let bob = document(app, &["wallet", "open", "--owner=bob", "--in=EUR"]).await;
        let to = bob["id"].as_str().unwrap();

        text(app, &["wallet", "deposit", from, "--amount=0.10"]).await;
        let withdrawn = text(app, &["wallet", "withdraw", from, "--amount=50.00"]).await;
        assert!(withdrawn.contains("balance   50.10"), "{withdrawn}");
        let (from_flag, to_flag) = (format!("--from={from}"), format!("--to={to}"));
        let send = ["transfer", "send", &from_flag, &to_flag, "--amount=20.00", "--memo=tea"];
        let once = [&send[..], &["--idempotency-key=once"]].concat();
        let sent = document(app, &once).await;
        assert_eq!(document(app, &once).await, sent, "a repeated request has no further effect");
        let id = sent["id"].as_str().unwrap();
        assert_eq!(document(app, &["transfer", "show", id]).await["memo"], "tea");
        let refund = document(app, &["transfer", "refund", id, "--amount=5"]).await;
        assert_eq!((&refund["kind"], &refund["linked"]), (&json!("refund"), &sent["id"]));

        let list = text(app, &["wallet", "list"]).await;
        let lines: Vec<Vec<&str>> =
            list.lines().map(|line| line.split_whitespace().collect()).collect();
        assert_eq!(lines[0], ["id", "owner", "balance", "currency"]);
        assert_eq!(lines[1], [from, "ada", "35.10", "EUR"]);
        assert_eq!(document(app, &["wallet", "list", "--owner=bob"]).await[0]["balance"], 15.0);
        assert_eq!(
            document(app, &["wallet", "list", "--limit=1"]).await.as_array().unwrap().len(),
            1
        );
        let history = document(app, &["wallet", "history", from]).await;
        let kinds: Vec<_> = history.as_array().unwrap().iter().map(|e| &e["kind"]).collect();
        assert!(kinds.starts_with(&[&json!("refund"), &json!("transfer")]), "{kinds:?}");
        assert_eq!(document(app, &["wallet", "freeze", to]).await["state"], "frozen");
        assert_eq!(document(app, &["wallet", "unfreeze", to]).await["state"], "open");
        text(app, &["wallet", "withdraw", to, "--amount=15"]).await;
        assert_eq!(document(app, &["wallet", "close", to]).await["state"], "closed");
        assert!(text(app, &["wallet", "show", to]).await.contains("closed"));
    })
    .await;
}

#[tokio::test]
async fn a_list_continues_over_pages() {
    run_with(&[], async |app| {
        // One more than a page can have.
        for _ in 0..1_001 {
            app.open_wallet("EUR", "0").await;
        }
        let listed = document(app, &["wallet", "list", "--limit=1001"]).await;
        assert_eq!(listed.as_array().unwrap().len(), 1_001);
    })
    .await;
}

#[tokio::test]
async fn a_failure_is_one_sentence_with_the_key_if_a_repetition_can_succeed() {
    run_with(&[], async |app| {
        let wallet = app.open_wallet("EUR", "1.00").await;
        let url = url(app);
        let withdraw = ["wallet", "withdraw", &wallet, "--amount=5", &url];

        let sentence = refused(command(&withdraw)).await;
        assert!(sentence.contains("the server responded with 422: "), "{sentence}");
        assert!(!sentence.contains("idempotency"), "{sentence}");

        let down = format!("--url=http://{}", free_address());
        let sentence = refused(command(&["wallet", "deposit", "1", "--amount=5", &down])).await;
        let key = sentence.trim().split_once("--idempotency-key ").unwrap().1;
        assert_eq!(key.len(), 36, "{sentence}");
        let deposit = ["wallet", "deposit", "1", "--amount=5", "--idempotency-key=mine", &down];
        let sentence = refused(command(&deposit)).await;
        assert!(sentence.contains("does not respond"), "{sentence}");
        assert!(sentence.trim().ends_with("add --idempotency-key mine"), "{sentence}");
        let sentence = refused(command(&["wallet", "show", "99", &url])).await;
        assert!(sentence.contains("404") && !sentence.contains("idempotency"), "{sentence}");
    })
    .await;
}

/// Returns a command that finds its profiles in a folder.
fn with_profiles(folder: &Folder, arguments: &[&str]) -> Command {
    let mut command = command(arguments);
    command.env("XDG_CONFIG_HOME", &folder.0);
    command
}

#[tokio::test]
async fn the_server_and_the_key_come_from_a_private_profile() {
    run_with(&["--access=closed"], async |app| {
        let create = ["api-key", "create", "--name=a", "--scope=wallet:read", "--json"];
        let database = format!("--database-url={}", app.database.url);
        let created = command(&[&create[..], &[&database]].concat()).output().unwrap();
        let created: Value = serde_json::from_slice(&created.stdout).unwrap();
        let key = created["key"].as_str().unwrap();
        let folder = Folder::new();
        std::fs::create_dir(folder.0.join("revwallet")).unwrap();
        let file = folder.0.join("revwallet/profiles.toml");
        let list = ["wallet", "list"];
        let sentence = refused(with_profiles(&folder, &list)).await;
        assert!(sentence.contains("REVWALLET_URL"), "{sentence}");
        assert!(sentence.contains(file.to_str().unwrap()), "{sentence}");

        let server = format!("http://{}", app.address);
        let profiles =
            format!("[default]\nurl = '{server}'\nkey = '{key}'\n[keyless]\nurl = '{server}'\n");
        std::fs::write(&file, &profiles).unwrap();
        std::fs::set_permissions(&file, PermissionsExt::from_mode(0o644)).unwrap();
        let sentence = refused(with_profiles(&folder, &list)).await;
        assert!(sentence.contains("chmod 600") && !sentence.contains(key), "{sentence}");
        std::fs::set_permissions(&file, PermissionsExt::from_mode(0o600)).unwrap();

        assert!(output(with_profiles(&folder, &list)).await.status.success());
        let keyless = ["wallet", "list", "--profile=keyless"];
        assert!(refused(with_profiles(&folder, &keyless)).await.contains("401"));
        let mut with_key = with_profiles(&folder, &keyless);
        with_key.env("REVWALLET_KEY", key);
        assert!(output(with_key).await.status.success());
        // The key of a profile is for the server of that profile only.
        assert!(
            refused(with_profiles(&folder, &["wallet", "list", &url(app)])).await.contains("401")
        );
        let unknown = with_profiles(&folder, &["wallet", "list", "--profile=unknown"]);
        assert!(refused(unknown).await.contains("[unknown]"));

        for (text, line) in
            [(format!("[default]\nkey = {key}\n"), 2), (format!("key = '{key}'"), 1)]
        {
            std::fs::write(&file, text).unwrap();
            let sentence = refused(with_profiles(&folder, &list)).await;
            let is_named = sentence.contains(&format!("line {line} of"));
            assert!(is_named && !sentence.contains(key), "{sentence}");
        }
    })
    .await;
}

#[tokio::test]
async fn webhooks_are_created_listed_and_deleted() {
    run_with(&[], async |app| {
        let create = ["webhook", "create", "https://example.com/hook", "--events=transfer.deposit"];
        let created = document(app, &create).await;
        assert!(created["secret"].as_str().unwrap().starts_with("whsec_"), "{created}");
        let id = created["id"].as_str().unwrap();

        assert_eq!(
            document(app, &["webhook", "list"]).await[0]["events"],
            json!(["transfer.deposit"])
        );
        assert_eq!(document(app, &["webhook", "delete", id]).await, json!({ "id": id }));
        assert_eq!(document(app, &["webhook", "list"]).await, json!([]));
        let listen = refused(command(&["webhook", "listen", &url(app)])).await;
        assert!(listen.contains("start it with --webhook-allow-private"), "{listen}");
    })
    .await;
}

/// A running `webhook listen`, and the lines that it has printed.
struct Listener {
    child: Child,
    lines: Arc<Mutex<Vec<String>>>,
}

impl Listener {
    async fn start(app: &TestApp, arguments: &[&str]) -> Self {
        let url = url(app);
        let arguments = [&["webhook", "listen", "--json", &url], arguments].concat();
        let mut command = command(&arguments);
        let mut child = command.stdout(Stdio::piped()).spawn().unwrap();
        let stdout = std::io::BufReader::new(child.stdout.take().unwrap());
        let lines: Arc<Mutex<Vec<String>>> = Arc::default();
        let printed = Arc::clone(&lines);
        std::thread::spawn(move || {
            for line in std::io::BufRead::lines(stdout).map_while(Result::ok) {
                printed.lock().unwrap().push(line);
            }
        });
        eventually("the receiver is registered", async || webhooks(app).await == 1).await;
        Self { child, lines }
    }

    fn received(&self) -> Vec<Value> {
        let lines = self.lines.lock().unwrap();
        lines.iter().map(|line| serde_json::from_str(line).unwrap()).collect()
    }
}

async fn webhooks(app: &TestApp) -> usize {
    app.get("/wallet/webhook").await.json().as_array().unwrap().len()
}

#[tokio::test]
async fn a_local_receiver_verifies_prints_and_forwards_events_until_it_is_interrupted() {
    run_with(&["--webhook-allow-private"], async |app| {
        let target = Receiver::start().await;
        let forward_to = format!("--forward-to={}", target.url());
        let events = "--events=transfer.deposit,transfer.withdrawal";
        let mut listener = Listener::start(app, &[&forward_to, events]).await;

        let wallet = app.open_wallet("EUR", "5.00").await;
        eventually("an event is printed", async || !listener.received().is_empty()).await;

        let received = listener.received().remove(0);
        assert_eq!(received["event"]["type"], "transfer.deposit", "{received}");
        assert_eq!(received["forwarded_status"], 200);
        let forwarded = target.deliveries().remove(0);
        assert_eq!(forwarded.id, received["id"].as_str().unwrap());
        assert!(forwarded.signature.starts_with("v1,"));
        assert_eq!(forwarded.json(), received["event"]);
        assert_eq!(received["event"]["data"]["wallet"], wallet.as_str());

        let webhook = app.get("/wallet/webhook").await.json()[0].clone();
        let forged = reqwest::Client::new().post(webhook["url"].as_str().unwrap()).body("{}");
        assert_eq!(forged.send().await.unwrap().status(), 401);
        assert_eq!(target.deliveries().len(), 1, "a forged delivery is not forwarded");

        signal(listener.child.id(), "INT");
        eventually("the webhook is deleted", async || webhooks(app).await == 0).await;
        let status = tokio::task::spawn_blocking(move || listener.child.wait().unwrap()).await;
        assert!(status.unwrap().success());
    })
    .await;
}
