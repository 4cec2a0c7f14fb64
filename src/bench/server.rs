//! A program that serves, as a process of its own.

use std::path::Path;
use std::process::Stdio;

use anyhow::{Context, bail};
use serde_json::Value;
use tokio::io::{AsyncBufReadExt, BufReader};
use tokio::process::{Child, ChildStdout, Command};

use super::book::Book;

/// What is read of a program's output at once.
const OUTPUT_BYTES: usize = 256 * 1024;

/// Every line tells its level within so many bytes.
const LEVEL_WITHIN: usize = 64;
const INFO: &[u8] = br#""level":"INFO""#;

pub(super) struct Server {
    child: Child,
    pub address: String,
}

impl Server {
    /// This very program.
    pub(super) async fn start(book: &Book) -> anyhow::Result<Self> {
        Self::start_with(book, &[]).await
    }

    /// The same with some settings of its own.
    pub(super) async fn start_with(book: &Book, settings: &[&str]) -> anyhow::Result<Self> {
        Self::run(&std::env::current_exe()?, book, settings).await
    }

    /// Starts on a free port, as one would run it but for the lines of successful requests.
    pub(super) async fn run(
        program: &Path,
        book: &Book,
        settings: &[&str],
    ) -> anyhow::Result<Self> {
        let mut usual = vec!["--listen=127.0.0.1:0", "--internal-listen=127.0.0.1:0"];
        usual.extend(["--log-format=json", "--access=open"]);
        if !settings.iter().any(|setting| setting.starts_with("--log-success-ratio")) {
            usual.push("--log-success-ratio=0");
        }
        let mut child = Command::new(program)
            .arg("serve")
            .args(usual)
            .args(["--database-url", &book.url])
            .args(settings)
            .stdout(Stdio::piped())
            .kill_on_drop(true)
            .spawn()?;
        let output = child.stdout.take().context("it was asked for")?;
        let mut lines = BufReader::with_capacity(OUTPUT_BYTES, output).lines();
        while let Some(line) = lines.next_line().await? {
            let line: Value = serde_json::from_str(&line)?;
            if line["event"] == "serve.listening" {
                let address = line["address"].as_str().unwrap_or_default().to_owned();
                #[expect(clippy::disallowed_methods, reason = "ends with the program it reads")]
                tokio::spawn(pass_on(lines.into_inner()));
                return Ok(Self { child, address });
            }
        }
        bail!("the program that should be measured did not start")
    }

    pub(super) fn id(&self) -> u32 {
        self.child.id().unwrap_or_default()
    }

    /// Ends it at once: whatever it acknowledged must be in the book.
    pub(super) async fn kill(mut self) -> anyhow::Result<()> {
        self.child.kill().await.context("cannot end the program that was measured")
    }
}

/// What the measured program warns of explains a figure. The rest is read as cheaply as can be: it is not what is measured.
async fn pass_on(mut output: BufReader<ChildStdout>) {
    let mut line = Vec::new();
    while let Ok(1..) = output.read_until(b'\n', &mut line).await {
        let level = line.get(..LEVEL_WITHIN).unwrap_or(&line);
        if !level.windows(INFO.len()).any(|part| part == INFO) {
            tracing::warn!("the measured program says: {}", String::from_utf8_lossy(&line));
        }
        line.clear();
    }
}
