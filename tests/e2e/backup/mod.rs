//! The scripts that back up and restore, used as an operator would: what comes back is the book, whole, at the moment asked for.

mod dump;
mod large;
mod refusals;
mod server;

use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

use serde_json::json;
use time::OffsetDateTime;
use time::format_description::well_known::Rfc3339;

use crate::harness::people::sign_in;
use crate::harness::program::{Folder, Program, postmaster_of, run, signal};
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

    /// A program whose database archives its log.
    async fn start_archiving(&self) -> Program {
        let program = self.start(&self.data()).await;
        let said = self.script("archive", &self.data(), &[]);
        assert!(
            said.succeeded && said.text.contains("starts with the next start"),
            "{}",
            said.text
        );
        assert!(program.stop().await.success());
        self.start(&self.data()).await
    }

    fn script(&self, name: &str, data: &Path, more: &[&str]) -> Said {
        let (into, data) = (self.backups(), data.to_owned());
        let own = [format!("--into={}", into.display()), format!("--data-dir={}", data.display())];
        let own = own.iter().map(String::as_str);
        script(name, &own.chain(more.iter().copied()).collect::<Vec<_>>())
    }

    async fn backup(&self, more: &[&str]) -> Said {
        let (into, data) = (self.backups(), self.data());
        let more: Vec<String> = more.iter().map(|&word| word.to_owned()).collect();
        // Apart, so that the load goes on meanwhile.
        let working = tokio::task::spawn_blocking(move || {
            let into = format!("--into={}", into.display());
            let data = format!("--data-dir={}", data.display());
            let own = [into.as_str(), data.as_str()].into_iter();
            script("backup", &own.chain(more.iter().map(String::as_str)).collect::<Vec<_>>())
        });
        let said = working.await.unwrap();
        assert!(said.succeeded, "{}", said.text);
        said
    }

    /// Restores into a folder of that name.
    fn restore(&self, name: &str, more: &[&str]) -> (PathBuf, Said) {
        let into = self.folder.0.join(name);
        let own = [
            format!("--from={}", self.backups().display()),
            format!("--into={}", into.display()),
            format!("--program={}", env!("CARGO_BIN_EXE_revwallet")),
        ];
        let own = own.iter().map(String::as_str);
        (into, script("restore", &own.chain(more.iter().copied()).collect::<Vec<_>>()))
    }
}

/// What a script said.
struct Said {
    succeeded: bool,
    text: String,
}

impl Said {
    fn anchor(&self) -> &str {
        self.text.lines().find_map(|line| line.strip_prefix("anchor ")).unwrap()
    }
}

fn script(name: &str, words: &[&str]) -> Said {
    let output = Command::new(format!("scripts/{name}"))
        .args(words)
        .current_dir(env!("CARGO_MANIFEST_DIR"))
        .env_remove("DATABASE_URL")
        .stdin(Stdio::null())
        .output()
        .unwrap();
    let text = String::from_utf8([output.stdout, output.stderr].concat()).unwrap();
    Said { succeeded: output.status.success(), text }
}

fn now() -> String {
    OffsetDateTime::now_utc().format(&Rfc3339).unwrap()
}

async fn wallet(client: &Client) -> String {
    let opened = client.post("/wallet", json!({ "owner": "somebody", "currency": "EUR" })).await;
    assert_eq!(opened.status, 201, "{}", opened.text);
    opened.json()["id"].as_str().unwrap().to_owned()
}

/// Deposits 1 under a key; whether it was done before.
async fn deposit(client: &Client, wallet: &str, key: &str) -> bool {
    let body = json!({ "id": wallet, "amount": 1 });
    let answer = client.keyed("/wallet/deposit", key, body).await;
    assert_eq!(answer.status, 200, "{}", answer.text);
    answer.header("idempotent-replayed") == "true"
}

async fn balance(client: &Client, wallet: &str) -> f64 {
    client.get(&format!("/wallet/{wallet}")).await.json()["balance"].as_f64().unwrap()
}

/// Clients that deposit until told to end.
struct Load {
    enough: AtomicBool,
    acknowledged: AtomicUsize,
}

impl Load {
    /// The keys that were acknowledged, in their order.
    async fn deposit(&self, client: &Client, wallet: &str, name: usize) -> Vec<String> {
        let mut keys = Vec::new();
        while !self.enough.load(Ordering::Relaxed) {
            let key = format!("{name}-{}", keys.len());
            assert!(!deposit(client, wallet, &key).await);
            keys.push(key);
            self.acknowledged.fetch_add(1, Ordering::Relaxed);
        }
        keys
    }
}

#[tokio::test]
async fn a_backup_made_under_load_holds_all_that_was_acknowledged_before() {
    let site = Site::new();
    let program = site.start(&site.data()).await;
    let id = wallet(&program.public).await;
    let load = Arc::new(Load { enough: AtomicBool::new(false), acknowledged: 0.into() });
    let clients = (0..8).map(|name| {
        let (load, client, id) = (Arc::clone(&load), program.public.clone(), id.clone());
        tokio::spawn(async move { load.deposit(&client, &id, name).await })
    });
    let clients: Vec<_> = clients.collect();
    eventually("money moves", async || load.acknowledged.load(Ordering::Relaxed) >= 300).await;
    let before = load.acknowledged.load(Ordering::Relaxed);

    let said = site.backup(&[]).await;

    assert!(said.text.contains("only this backup can be restored"), "{}", said.text);
    load.enough.store(true, Ordering::Relaxed);
    let mut keys = Vec::new();
    for client in clients {
        keys.extend(client.await.unwrap());
    }
    assert!(program.stop().await.success());
    let (new, restored) = site.restore("new", &[]);
    assert!(restored.succeeded && restored.text.contains("all is well"), "{}", restored.text);
    let program = site.start(&new).await;
    let there = balance(&program.public, &id).await;
    // Every client asks again for whatever it asked for: what the copy has is not done twice.
    let mut replayed = 0_u32;
    for key in &keys {
        replayed += u32::from(deposit(&program.public, &id, key).await);
    }
    assert!(before <= replayed as usize, "{before} were acknowledged, {replayed} are there");
    assert!((there - f64::from(replayed)).abs() < f64::EPSILON, "{there} from {replayed}");
    let all = f64::from(u32::try_from(keys.len()).unwrap());
    assert!((balance(&program.public, &id).await - all).abs() < f64::EPSILON);
    assert!(program.stop().await.success());
    let data = format!("--data-dir={}", new.display());
    let anchor = format!("--anchor={}", said.anchor());
    let verified = run(&["verify", "--log-filter=warn", &data, &anchor]);
    assert_eq!(verified.code, Some(0), "{}", verified.stderr);
}

#[tokio::test]
async fn any_moment_since_a_backup_can_be_restored() {
    let site = Site::new();
    let program = site.start_archiving().await;
    let body =
        json!({ "username": "alice", "email": "a@example.com", "password": "planted by alice" });
    assert_eq!(program.public.post("/api/users/register", body).await.status, 200);
    let alice = sign_in(&program.public, "alice", "planted by alice").await;
    let id = wallet(&program.public).await;
    site.backup(&[]).await;
    deposit(&program.public, &id, "first").await;
    let between = now();
    deposit(&program.public, &id, "second").await;
    let later = wallet(&program.public).await;
    assert!(program.stop().await.success());

    let (then, said) = site.restore("then", &[&format!("--until={between}")]);
    assert!(said.succeeded && said.text.contains("all is well"), "{}", said.text);
    let (end, said) = site.restore("end", &["--without-verify"]);
    assert!(said.succeeded && !said.text.contains("all is well"), "{}", said.text);
    // What it leaves to whoever has no program where the database is.
    let left = said.text.split("revwallet restored, then revwallet verify ").nth(1).unwrap();
    let anchor: Vec<&str> = left.split_whitespace().take(2).collect();
    let data = format!("--data-dir={}", end.display());
    for words in [&["restored", &data] as &[&str], &["verify", &data, anchor[0], anchor[1]]] {
        let ended = run(words);
        assert_eq!(ended.code, Some(0), "{words:?}: {}", ended.stderr);
    }

    let program = site.start(&end).await;
    assert!((balance(&program.public, &id).await - 2.0).abs() < f64::EPSILON);
    assert_eq!(program.public.get(&format!("/wallet/{later}")).await.status, 200);
    assert!(program.stop().await.success());
    let program = site.start(&then).await;
    assert!((balance(&program.public, &id).await - 1.0).abs() < f64::EPSILON);
    assert_eq!(program.public.get(&format!("/wallet/{later}")).await.status, 404);
    assert!(deposit(&program.public, &id, "first").await, "it is there");
    assert!(!deposit(&program.public, &id, "second").await, "it is gone, so it is done anew");
    // What was given out since the moment and is gone never becomes somebody else's.
    let next: i64 = wallet(&program.public).await.parse().unwrap();
    assert!(later.parse::<i64>().unwrap() + 1_000_000 < next, "{later}, then {next}");
    // A sign-out since the moment may be forgotten, so everybody signs in again.
    let profile = format!("/api/users/{}", 1);
    assert_eq!(program.public.with(alice.credential()).get(&profile).await.status, 401);
    sign_in(&program.public, "alice", "planted by alice").await;
    assert!(program.stop().await.success());
}

/// What was given up by a restore stays given up, whichever backup a later restore begins with.
#[tokio::test]
async fn a_restored_database_goes_on_with_its_archive() {
    let site = Site::new();
    let program = site.start_archiving().await;
    let id = wallet(&program.public).await;
    site.backup(&[]).await;
    deposit(&program.public, &id, "first").await;
    let between = now();
    deposit(&program.public, &id, "given-up").await;
    assert!(program.stop().await.success());
    let (then, said) = site.restore("then", &[&format!("--until={between}")]);
    assert!(said.succeeded, "{}", said.text);
    let program = site.start(&then).await;
    let said = site.script("archive", &then, &[]);
    assert!(said.succeeded && said.text.contains("starts with the next start"), "{}", said.text);
    assert!(program.stop().await.success());
    let program = site.start(&then).await;
    deposit(&program.public, &id, "third").await;
    deposit(&program.public, &id, "fourth").await;
    assert!(program.stop().await.success());

    // The only backup is older than the branch.
    let (again, said) = site.restore("again", &[]);

    assert!(said.succeeded && said.text.contains("all is well"), "{}", said.text);
    let program = site.start(&again).await;
    assert!((balance(&program.public, &id).await - 3.0).abs() < f64::EPSILON);
    for (key, there) in [("first", true), ("third", true), ("fourth", true), ("given-up", false)] {
        assert_eq!(deposit(&program.public, &id, key).await, there, "{key}");
    }
    assert!(program.stop().await.success());
}

/// As docs/operations.md has it for a server that is gone and a disk that is not.
#[tokio::test]
async fn the_end_of_the_log_is_brought_in_from_the_old_disk() {
    let site = Site::new();
    let program = site.start_archiving().await;
    let id = wallet(&program.public).await;
    site.backup(&[]).await;
    deposit(&program.public, &id, "last").await;
    let postmaster = postmaster_of(&site.data());
    program.kill();
    signal(postmaster, "KILL");
    eventually("the server is gone", async || {
        crate::harness::program::postgres_of(&site.data()).is_empty()
    })
    .await;

    for file in std::fs::read_dir(site.data().join("postgres/pg_wal")).unwrap() {
        let file = file.unwrap().path();
        let name = file.file_name().unwrap().to_str().unwrap();
        if name.starts_with('0') {
            let kept = site.backups().join("wal").join(name).display().to_string();
            let said = script("lib/archive-wal", &[&file.display().to_string(), &kept]);
            assert!(said.succeeded, "{}", said.text);
        }
    }

    let (new, said) = site.restore("new", &[]);
    assert!(said.succeeded && said.text.contains("all is well"), "{}", said.text);
    let program = site.start(&new).await;
    assert!(deposit(&program.public, &id, "last").await, "it was acknowledged, so it is there");
    assert!(program.stop().await.success());
}
