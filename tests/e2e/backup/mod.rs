//! The backup and restore scripts, used as by an operator: the complete book comes back, as of the requested moment.

mod dump;
mod large;
mod positions;
mod refusals;
mod server;

use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

use serde_json::json;
use time::OffsetDateTime;
use time::format_description::well_known::Rfc3339;

use crate::harness::program::{Folder, Program, postmaster_of, run, signal};
use crate::harness::users::sign_in;
use crate::harness::{Client, eventually};

/// A program on its embedded database, and a folder for its backups.
struct Site {
    folder: Folder,
}

impl Site {
    fn new() -> Self {
        Self { folder: Folder::new() }
    }

    fn data(&self) -> PathBuf {
        self.folder.0.join("data")
    }

    fn backups(&self) -> PathBuf {
        self.folder.0.join("backups")
    }

    async fn start(&self, data: &Path) -> Program {
        let data = format!("--data-dir={}", data.display());
        Program::start(&[&data, "--password-memory=512", "--password-passes=1"]).await
    }

    /// Starts a program whose database archives its WAL.
    async fn start_archiving(&self) -> Program {
        let program = self.start(&self.data()).await;
        let archive = self.script("archive", &self.data(), &[]);
        assert!(
            archive.succeeded && archive.text.contains("starts with the next start"),
            "{}",
            archive.text
        );
        assert!(program.stop().await.success());
        self.start(&self.data()).await
    }

    fn script(&self, name: &str, data: &Path, more: &[&str]) -> ScriptOutput {
        let (into, data) = (self.backups(), data.to_owned());
        let options =
            [format!("--into={}", into.display()), format!("--data-dir={}", data.display())];
        let options = options.iter().map(String::as_str);
        script(name, &options.chain(more.iter().copied()).collect::<Vec<_>>())
    }

    async fn backup(&self, more: &[&str]) -> ScriptOutput {
        let (into, data) = (self.backups(), self.data());
        let more: Vec<String> = more.iter().map(|&option| option.to_owned()).collect();
        // A blocking thread, so that the load continues meanwhile.
        let backup = tokio::task::spawn_blocking(move || {
            let into = format!("--into={}", into.display());
            let data = format!("--data-dir={}", data.display());
            let options = [into.as_str(), data.as_str()].into_iter();
            script("backup", &options.chain(more.iter().map(String::as_str)).collect::<Vec<_>>())
        });
        let output = backup.await.unwrap();
        assert!(output.succeeded, "{}", output.text);
        output
    }

    /// Restores into a folder below the site and returns its path.
    fn restore(&self, name: &str, more: &[&str]) -> (PathBuf, ScriptOutput) {
        let into = self.folder.0.join(name);
        let options = [
            format!("--from={}", self.backups().display()),
            format!("--into={}", into.display()),
            format!("--program={}", env!("CARGO_BIN_EXE_revwallet")),
        ];
        let options = options.iter().map(String::as_str);
        (into, script("restore", &options.chain(more.iter().copied()).collect::<Vec<_>>()))
    }
}

/// Exit status and output of a script.
struct ScriptOutput {
    succeeded: bool,
    text: String,
}

impl ScriptOutput {
    fn anchor(&self) -> &str {
        self.text.lines().find_map(|line| line.strip_prefix("anchor ")).unwrap()
    }
}

fn script(name: &str, arguments: &[&str]) -> ScriptOutput {
    let output = Command::new(format!("scripts/{name}"))
        .args(arguments)
        .current_dir(env!("CARGO_MANIFEST_DIR"))
        .env_remove("DATABASE_URL")
        .stdin(Stdio::null())
        .output()
        .unwrap();
    let text = String::from_utf8([output.stdout, output.stderr].concat()).unwrap();
    ScriptOutput { succeeded: output.status.success(), text }
}

fn now() -> String {
    OffsetDateTime::now_utc().format(&Rfc3339).unwrap()
}

async fn wallet(client: &Client) -> String {
    let opened = client.post("/wallet", json!({ "owner": "ada", "currency": "EUR" })).await;
    assert_eq!(opened.status, 201, "{}", opened.text);
    opened.json()["id"].as_str().unwrap().to_owned()
}

/// Deposits 1 under an idempotency key and returns whether the response was replayed.
async fn deposit(client: &Client, wallet: &str, key: &str) -> bool {
    let body = json!({ "id": wallet, "amount": 1 });
    let response = client.post_with_key("/wallet/deposit", key, body).await;
    assert_eq!(response.status, 200, "{}", response.text);
    response.header("idempotent-replayed") == "true"
}

async fn balance(client: &Client, wallet: &str) -> f64 {
    client.get(&format!("/wallet/{wallet}")).await.json()["balance"].as_f64().unwrap()
}

/// Shared state of clients that deposit until they are stopped.
struct Load {
    stop: AtomicBool,
    acknowledged: AtomicUsize,
}

impl Load {
    /// Deposits until the load is stopped and returns the acknowledged keys in order.
    async fn deposit(&self, client: &Client, wallet: &str, name: usize) -> Vec<String> {
        let mut keys = Vec::new();
        while !self.stop.load(Ordering::Relaxed) {
            let key = format!("{name}-{}", keys.len());
            assert!(!deposit(client, wallet, &key).await);
            keys.push(key);
            self.acknowledged.fetch_add(1, Ordering::Relaxed);
        }
        keys
    }
}

#[tokio::test]
async fn a_backup_under_load_contains_everything_acknowledged_before_it() {
    let site = Site::new();
    let program = site.start(&site.data()).await;
    let id = wallet(&program.public).await;
    let load = Arc::new(Load { stop: AtomicBool::new(false), acknowledged: 0.into() });
    let clients = (0..8).map(|name| {
        let (load, client, id) = (Arc::clone(&load), program.public.clone(), id.clone());
        tokio::spawn(async move { load.deposit(&client, &id, name).await })
    });
    let clients: Vec<_> = clients.collect();
    eventually("the clients deposit", async || load.acknowledged.load(Ordering::Relaxed) >= 300)
        .await;
    let before = load.acknowledged.load(Ordering::Relaxed);

    let backup = site.backup(&[]).await;

    assert!(backup.text.contains("only this backup can be restored"), "{}", backup.text);
    load.stop.store(true, Ordering::Relaxed);
    let mut keys = Vec::new();
    for client in clients {
        keys.extend(client.await.unwrap());
    }
    assert!(program.stop().await.success());
    let (new, restored) = site.restore("new", &[]);
    assert!(restored.succeeded && restored.text.contains("no faults found"), "{}", restored.text);
    let program = site.start(&new).await;
    let restored_balance = balance(&program.public, &id).await;
    // Every client repeats all of its requests: the restored database replays those that it has.
    let mut replayed = 0_u32;
    for key in &keys {
        replayed += u32::from(deposit(&program.public, &id, key).await);
    }
    assert!(before <= replayed as usize, "{before} were acknowledged, {replayed} were restored");
    assert!(
        (restored_balance - f64::from(replayed)).abs() < f64::EPSILON,
        "the balance is {restored_balance} after {replayed} deposits"
    );
    let all = f64::from(u32::try_from(keys.len()).unwrap());
    assert!((balance(&program.public, &id).await - all).abs() < f64::EPSILON);
    assert!(program.stop().await.success());
    let data = format!("--data-dir={}", new.display());
    let anchor = format!("--anchor={}", backup.anchor());
    let verified = run(&["verify", "--log-filter=warn", &data, &anchor]);
    assert_eq!(verified.code, Some(0), "{}", verified.stderr);
}

#[tokio::test]
async fn any_moment_since_a_backup_can_be_restored() {
    let site = Site::new();
    let program = site.start_archiving().await;
    let body = json!({ "username": "alice", "email": "a@example.com", "password": "test-secret by alice" });
    assert_eq!(program.public.post("/api/users/register", body).await.status, 200);
    let alice = sign_in(&program.public, "alice", "test-secret by alice").await;
    let id = wallet(&program.public).await;
    site.backup(&[]).await;
    deposit(&program.public, &id, "first").await;
    let target = now();
    deposit(&program.public, &id, "second").await;
    let later = wallet(&program.public).await;
    assert!(program.stop().await.success());

    let (then, output) = site.restore("then", &[&format!("--until={target}")]);
    assert!(output.succeeded && output.text.contains("no faults found"), "{}", output.text);
    let (end, output) = site.restore("end", &["--without-verify"]);
    assert!(output.succeeded && !output.text.contains("no faults found"), "{}", output.text);
    // The output names the commands for an operator whose program runs on another machine.
    let commands = output.text.split("revwallet restored, then revwallet verify ").nth(1).unwrap();
    let anchor: Vec<&str> = commands.split_whitespace().take(2).collect();
    let data = format!("--data-dir={}", end.display());
    for arguments in [&["restored", &data] as &[&str], &["verify", &data, anchor[0], anchor[1]]] {
        let exit = run(arguments);
        assert_eq!(exit.code, Some(0), "{arguments:?}: {}", exit.stderr);
    }

    let program = site.start(&end).await;
    assert!((balance(&program.public, &id).await - 2.0).abs() < f64::EPSILON);
    assert_eq!(program.public.get(&format!("/wallet/{later}")).await.status, 200);
    assert!(program.stop().await.success());
    let program = site.start(&then).await;
    assert!((balance(&program.public, &id).await - 1.0).abs() < f64::EPSILON);
    assert_eq!(program.public.get(&format!("/wallet/{later}")).await.status, 404);
    assert!(
        deposit(&program.public, &id, "first").await,
        "the deposit before the moment is missing"
    );
    assert!(
        !deposit(&program.public, &id, "second").await,
        "the deposit after the moment was restored"
    );
    // An id that was handed out after the restored moment is never assigned again.
    let next: i64 = wallet(&program.public).await.parse().unwrap();
    assert!(later.parse::<i64>().unwrap() + 1_000_000 < next, "{later}, then {next}");
    // A sign-out after the moment is lost, so the restore ends every session.
    let profile = format!("/api/users/{}", 1);
    assert_eq!(program.public.with_credential(alice.credential()).get(&profile).await.status, 401);
    sign_in(&program.public, "alice", "test-secret by alice").await;
    assert!(program.stop().await.success());
}

/// Transfers that a restore discarded stay discarded, even if a later restore starts from an older backup.
#[tokio::test]
async fn a_restored_database_continues_its_archive() {
    let site = Site::new();
    let program = site.start_archiving().await;
    let id = wallet(&program.public).await;
    site.backup(&[]).await;
    deposit(&program.public, &id, "first").await;
    let target = now();
    deposit(&program.public, &id, "discarded").await;
    assert!(program.stop().await.success());
    let (then, output) = site.restore("then", &[&format!("--until={target}")]);
    assert!(output.succeeded, "{}", output.text);
    let program = site.start(&then).await;
    let archive = site.script("archive", &then, &[]);
    assert!(
        archive.succeeded && archive.text.contains("starts with the next start"),
        "{}",
        archive.text
    );
    assert!(program.stop().await.success());
    let program = site.start(&then).await;
    deposit(&program.public, &id, "third").await;
    deposit(&program.public, &id, "fourth").await;
    assert!(program.stop().await.success());

    // The only backup is older than the first restore.
    let (again, output) = site.restore("again", &[]);

    assert!(output.succeeded && output.text.contains("no faults found"), "{}", output.text);
    let program = site.start(&again).await;
    assert!((balance(&program.public, &id).await - 3.0).abs() < f64::EPSILON);
    for (key, is_restored) in
        [("first", true), ("third", true), ("fourth", true), ("discarded", false)]
    {
        assert_eq!(deposit(&program.public, &id, key).await, is_restored, "{key}");
    }
    assert!(program.stop().await.success());
}

/// Follows docs/operations.md for a server that is lost while its disk is readable.
#[tokio::test]
async fn the_end_of_the_wal_is_recovered_from_the_old_disk() {
    let site = Site::new();
    let program = site.start_archiving().await;
    let id = wallet(&program.public).await;
    site.backup(&[]).await;
    deposit(&program.public, &id, "last").await;
    let postmaster = postmaster_of(&site.data());
    program.kill();
    signal(postmaster, "KILL");
    eventually("the server has exited", async || {
        crate::harness::program::postgres_of(&site.data()).is_empty()
    })
    .await;

    for file in std::fs::read_dir(site.data().join("postgres/pg_wal")).unwrap() {
        let file = file.unwrap().path();
        let name = file.file_name().unwrap().to_str().unwrap();
        if name.starts_with('0') {
            let archived = site.backups().join("wal").join(name).display().to_string();
            let archive = script("lib/archive-wal", &[&file.display().to_string(), &archived]);
            assert!(archive.succeeded, "{}", archive.text);
        }
    }

    let (new, output) = site.restore("new", &[]);
    assert!(output.succeeded && output.text.contains("no faults found"), "{}", output.text);
    let program = site.start(&new).await;
    assert!(deposit(&program.public, &id, "last").await, "an acknowledged deposit is missing");
    assert!(program.stop().await.success());
}

#[tokio::test]
async fn a_backup_has_an_anchor_of_each_book() {
    let site = Site::new();
    let data = format!("--data-dir={}", site.data().display());
    let program = Program::start(&[&data, "--books=2"]).await;
    let mut wallets = Vec::new();
    for _ in 0..2 {
        let wallet = json!({ "owner": "a", "currency": "EUR", "initial_balance": 7 });
        let opened = program.public.post("/wallet", wallet).await;
        wallets.push(opened.json()["id"].as_str().unwrap().to_owned());
    }

    let backup = site.backup(&[]).await;

    assert!(program.stop().await.success());
    let books: Vec<i64> = backup
        .anchor()
        .split(',')
        .map(|anchor| anchor.split_once(':').unwrap().0.parse::<i64>().unwrap() >> 44)
        .collect();
    assert_eq!(books, [0, 1], "{}", backup.text);
    let (new, restored) = site.restore("new", &[]);
    assert!(restored.succeeded && restored.text.contains("no faults found"), "{}", restored.text);
    let program = site.start(&new).await;
    for wallet in &wallets {
        assert!((balance(&program.public, wallet).await - 7.0).abs() < f64::EPSILON);
    }
    assert!(program.stop().await.success());
}
