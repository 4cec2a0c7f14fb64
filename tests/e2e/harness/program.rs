//! The real program as a process, for what only a process can do: start, fail, be killed.

use std::io::{BufRead, BufReader, Read};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use serde_json::Value;

use super::Client;

/// A running program.
pub struct Program {
    child: Child,
    pub public: Client,
    pub internal: Client,
}

/// How a program ended.
#[derive(Debug)]
pub struct Ended {
    pub code: Option<i32>,
    pub stderr: String,
}

/// A folder that goes with the test.
pub struct Folder(pub PathBuf);

impl Folder {
    pub fn new() -> Self {
        static NEXT: AtomicU32 = AtomicU32::new(0);
        let name = format!(
            "revwallet-program-{}-{}",
            std::process::id(),
            NEXT.fetch_add(1, Ordering::Relaxed)
        );
        let path = std::env::temp_dir().join(name);
        std::fs::create_dir_all(&path).unwrap();
        Self(path)
    }

    pub fn setting(&self) -> String {
        format!("--data-dir={}", self.0.display())
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        // A test that failed half-way, or one that killed the program, leaves a server running.
        for process in postgres_of(&self.0) {
            signal(process, "KILL");
        }
        let _already_gone = std::fs::remove_dir_all(&self.0);
    }
}

fn path() -> std::ffi::OsString {
    std::env::var_os("PATH").unwrap()
}

/// The program with these words behind it, and no setting from our own environment.
pub fn command(words: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_revwallet"));
    command.args(words).env_clear().env("PATH", path()).stdin(Stdio::null());
    command
}

/// Runs a program to its end.
pub fn run(words: &[&str]) -> Ended {
    let output = command(words).output().unwrap();
    Ended { code: output.status.code(), stderr: String::from_utf8(output.stderr).unwrap() }
}

impl Program {
    /// Starts a server and waits until it says where it listens.
    pub async fn start(words: &[&str]) -> Self {
        Self::try_start(words).await.unwrap_or_else(|ended| panic!("did not start: {ended:?}"))
    }

    pub async fn try_start(words: &[&str]) -> Result<Self, Ended> {
        let usual = ["--listen=127.0.0.1:0", "--internal-listen=127.0.0.1:0", "--log-format=json"];
        let usual = usual.into_iter().filter(|usual| {
            let name = usual.split('=').next().unwrap_or_default();
            !words.iter().any(|word| word.split('=').next() == Some(name))
        });
        let words: Vec<&str> = usual.chain(words.iter().copied()).collect();
        let mut child =
            command(&words).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
        let output = BufReader::new(child.stdout.take().unwrap());
        let (send, mut receive) = tokio::sync::oneshot::channel();
        // The thread reads on to the end, so that the program never waits for a reader.
        std::thread::spawn(move || {
            let mut send = Some(send);
            for line in output.lines().map_while(Result::ok) {
                super::check::no_secret(&line);
                let line: Value = serde_json::from_str(&line).unwrap();
                super::check::schema(&line);
                if line["event"] == "serve.listening"
                    && let Some(send) = send.take()
                {
                    let _gone = send.send(line);
                }
            }
        });
        let said = tokio::time::timeout(Duration::from_mins(1), &mut receive).await;
        match said.expect("the program listens or ends") {
            Ok(line) => {
                // A worker has no public address.
                let client = |key: &str| {
                    Client::new(line[key].as_str().unwrap_or("127.0.0.1:9").parse().unwrap())
                };
                Ok(Self { child, public: client("address"), internal: client("internal_address") })
            }
            Err(_closed) => {
                let mut stderr = String::new();
                child.stderr.take().unwrap().read_to_string(&mut stderr).unwrap();
                Err(Ended { code: child.wait().unwrap().code(), stderr })
            }
        }
    }

    /// Ends it without a warning.
    pub fn kill(mut self) {
        self.child.kill().unwrap();
        self.child.wait().unwrap();
    }

    /// Asks it to end, and waits for that.
    pub async fn stop(self) -> ExitStatus {
        self.signal("TERM");
        self.ended().await
    }

    /// Waits for an end that it was asked for already.
    pub async fn ended(mut self) -> ExitStatus {
        let mut status = None;
        super::eventually("the program has ended", async || {
            status = self.child.try_wait().unwrap();
            status.is_some()
        })
        .await;
        status.unwrap()
    }

    pub fn signal(&self, name: &str) {
        signal(self.child.id(), name);
    }
}

impl Drop for Program {
    fn drop(&mut self) {
        let _already_ended = self.child.kill();
        let _status = self.child.wait();
    }
}

/// Sends a signal; a process that has ended in the meantime does not mind.
pub fn signal(process: u32, name: &str) {
    let mut kill = Command::new("kill");
    kill.arg(format!("-{name}")).arg(process.to_string()).stderr(Stdio::null()).status().unwrap();
}

/// Sends a signal to a whole group of processes.
pub fn signal_group(leader: u32, name: &str) {
    let mut kill = Command::new("kill");
    kill.args([&format!("-{name}"), "--", &format!("-{leader}")])
        .stderr(Stdio::null())
        .status()
        .unwrap();
}

/// The server processes that work on the cluster in this data directory: it is where they stand.
pub fn postgres_of(data_dir: &Path) -> Vec<u32> {
    let processes = std::fs::read_dir("/proc").unwrap().flatten();
    let ids = processes.filter_map(|entry| entry.file_name().to_str()?.parse::<u32>().ok());
    let stands_there = |id: &u32| {
        std::fs::read_link(format!("/proc/{id}/cwd")).is_ok_and(|cwd| cwd.starts_with(data_dir))
    };
    ids.filter(stands_there).collect()
}

/// The first of them.
pub fn postmaster_of(data_dir: &Path) -> u32 {
    let file = std::fs::read_to_string(data_dir.join("postgres/postmaster.pid")).unwrap();
    file.lines().next().unwrap().parse().unwrap()
}
