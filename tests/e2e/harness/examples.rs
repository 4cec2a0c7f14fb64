//! Examples of documents, run as they are written: the commands in their order in one shell, their answers compared.
//!
//! | block | meaning |
//! |---|---|
//! | `sh` that begins with `scripts/run` | the options of the server |
//! | `sh`, or `python` before an answer | a step |
//! | `json` or `text` directly behind a step | its answer: what it prints, without log lines |
//! | `python` that begins with `# name.py` | a file in the folder of the shell |
//!
//! Whitespace of an answer makes no difference, and neither do moments, trace ids and secrets.

use std::fmt::Write;
use std::net::SocketAddr;
use std::path::Path;

use serde_json::Value;
use time::OffsetDateTime;
use time::format_description::well_known::Rfc3339;
use tokio::process::Command;
use uuid::Uuid;

use super::grpc::python;
use super::program::Folder;
use super::{TestApp, free_address};

/// Address of the server in documents.
const SERVER: &str = "localhost:8080";

/// Address of a receiver of webhooks in documents, in a URL and in Python.
const RECEIVER: [&str; 2] = ["127.0.0.1:3000", "\"127.0.0.1\", 3000"];

/// Seconds after which the shell and everything that it started is ended.
const SECONDS_MAX: &str = "180";

/// A code block of a document.
pub struct Block {
    pub language: String,
    pub code: String,
    /// Text between the block before and this one.
    before: String,
}

/// Returns the code blocks of a document.
pub fn blocks(document: &str) -> Vec<Block> {
    let parts: Vec<&str> = document.split("```").collect();
    let pairs = parts.chunks_exact(2).filter_map(|pair| {
        let (language, code) = pair[1].split_once('\n')?;
        let (language, code, before) = (language.to_owned(), code.to_owned(), pair[0].to_owned());
        Some(Block { language, code, before })
    });
    pairs.collect()
}

/// A command of a document with its answer, if the document shows one.
struct Step {
    language: String,
    code: String,
    answer: Option<String>,
}

/// Returns the text of a document of this repository.
pub fn read(document: &str) -> String {
    std::fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join(document)).unwrap()
}

/// The commands of a document.
#[derive(Default)]
pub struct Transcript {
    pub server_options: Vec<String>,
    files: Vec<(String, String)>,
    steps: Vec<Step>,
}

impl Transcript {
    /// Reads a document of this repository.
    pub fn read(document: &str) -> Self {
        Self::parse(&read(document))
    }

    pub fn parse(document: &str) -> Self {
        let mut transcript = Self::default();
        let mut is_behind_step = false;
        for Block { language, code, before } in blocks(document) {
            let is_answer = ["json", "text"].contains(&language.as_str());
            let file = code.lines().next().and_then(|line| line.strip_prefix("# "));
            let file = file.and_then(|name| name.strip_suffix(".py"));
            let file = file.filter(|_| language == "python");
            if is_answer && is_behind_step && before.trim().is_empty() {
                transcript.steps.last_mut().unwrap().answer = Some(code);
                is_behind_step = false;
            } else if let Some(options) = code.strip_prefix("scripts/run") {
                let options = options.split_whitespace().map(str::to_owned);
                transcript.server_options = options.collect();
            } else if let Some(name) = file {
                transcript.files.push((format!("{name}.py"), code));
            } else {
                is_behind_step = ["sh", "python"].contains(&language.as_str());
                if is_behind_step {
                    transcript.steps.push(Step { language, code, answer: None });
                }
            }
        }
        transcript
    }

    /// Keeps the steps whose answer the document shows.
    pub fn answered(mut self) -> Self {
        self.steps.retain(|step| step.answer.is_some());
        self
    }
}

/// Addresses of this run, and what documents call them.
struct Addresses {
    server: SocketAddr,
    receiver: SocketAddr,
}

impl Addresses {
    fn to_run(&self, code: &str) -> String {
        let [url, python] = RECEIVER;
        let port = self.receiver.port();
        code.replace(SERVER, &self.server.to_string())
            .replace(url, &self.receiver.to_string())
            .replace(python, &python.replace("3000", &port.to_string()))
    }

    fn to_document(&self, output: &str) -> String {
        let output = output.replace(&self.server.to_string(), SERVER);
        output.replace(&self.receiver.to_string(), RECEIVER[0])
    }
}

/// Returns the place-holder of a word that differs from run to run.
fn volatile(word: &str) -> Option<&'static str> {
    let is_secret = ["rwk_", "whsec_", "eyJ"].iter().any(|prefix| word.starts_with(prefix));
    if is_secret {
        Some("SECRET")
    } else if OffsetDateTime::parse(word, &Rfc3339).is_ok() {
        Some("MOMENT")
    } else {
        Uuid::parse_str(word).is_ok().then_some("ID")
    }
}

/// An answer without whitespace, and without what differs from run to run.
fn normalized(answer: &str) -> String {
    let is_delimiter = |c: char| !c.is_alphanumeric() && !"-_:.+/=".contains(c);
    let mut text = String::new();
    for part in answer.split_inclusive(is_delimiter) {
        let word = part.trim_end_matches(is_delimiter);
        text.push_str(volatile(word).unwrap_or(word));
        text.push_str(part[word.len()..].trim());
    }
    text
}

/// Returns the script that runs every step, with its output in files of its own.
fn script(steps: &[Step], addresses: &Addresses, folder: &Path) -> String {
    let mut script = String::from("trap 'kill $(jobs -p) 2>/dev/null' EXIT\n");
    for (number, step) in steps.iter().enumerate() {
        let mut code = addresses.to_run(&step.code);
        if step.language == "python" {
            let file = folder.join(format!("{number}.py"));
            std::fs::write(&file, &code).unwrap();
            code = format!("python3 {}\n", file.display());
        }
        let output = folder.join(format!("{number}.out"));
        let output = output.display();
        writeln!(script, "exec >{output} 2>{output}.errors\n{code}echo $? >{output}.status")
            .unwrap();
    }
    script
}

/// Everything that a step printed, and its exit status.
struct Output {
    printed: String,
    errors: String,
    status: String,
}

impl Output {
    fn read(folder: &Path, step: usize) -> Self {
        let read = |suffix: &str| {
            // A shell that ended early has not run the later steps.
            std::fs::read_to_string(folder.join(format!("{step}.out{suffix}"))).unwrap_or_default()
        };
        Self {
            printed: read(""),
            errors: read(".errors"),
            status: read(".status").trim().to_owned(),
        }
    }

    fn is_success(&self) -> bool {
        self.status == "0"
    }

    /// All that a reader sees, except for log lines.
    fn text(&self) -> String {
        let errors = self.errors.split_inclusive('\n');
        let errors: Vec<&str> = errors.filter(|line| !line.starts_with("{\"ts\":")).collect();
        format!("{}{}", self.printed, errors.concat())
    }
}

impl Step {
    /// Returns what is wrong with the output of this step.
    fn fault(&self, output: &Output) -> Option<String> {
        let found = output.text();
        let is_right = match &self.answer {
            Some(answer) => normalized(&found) == normalized(answer),
            None => output.is_success(),
        };
        let expected = self.answer.as_deref().unwrap_or("status 0");
        let (code, status) = (&self.code, &output.status);
        let fault = format!("{code}\nexpected: {expected}\nfound (status {status}): {found}\n");
        (!is_right).then_some(fault)
    }
}

impl TestApp {
    /// Runs steps in one shell, with these variables.
    async fn run_steps(&self, transcript: &Transcript, variables: &[(&str, &str)]) -> Vec<Output> {
        let (outputs, current) = (Folder::new(), Folder::new());
        let addresses = Addresses { server: self.address, receiver: free_address() };
        for (name, code) in &transcript.files {
            std::fs::write(current.0.join(name), addresses.to_run(code)).unwrap();
        }
        let program = Path::new(env!("CARGO_BIN_EXE_revwallet")).parent().unwrap();
        let mut path = vec![program.to_owned()];
        if transcript.steps.iter().any(|step| step.language == "python") {
            path.push(python().parent().unwrap().to_owned());
        }
        path.extend(std::env::split_paths(&std::env::var_os("PATH").unwrap()));
        let script = script(&transcript.steps, &addresses, &outputs.0);
        let mut command = Command::new("timeout");
        command.args(["--kill-after=5", SECONDS_MAX, "bash", "-c", &script]);
        command.current_dir(&current.0).env_clear().envs(variables.iter().copied());
        command.env("PATH", std::env::join_paths(path).unwrap()).env("HOME", &current.0);
        // The Postgres server of a test run has `fsync` off.
        command
            .env("DATABASE_URL", &self.database.url)
            .env("REVWALLET_ALLOW_UNSAFE_SERVER", "true");
        command.status().await.unwrap();

        let outputs = (0..transcript.steps.len()).map(|step| Output::read(&outputs.0, step));
        let outputs = outputs.map(|output| Output {
            printed: addresses.to_document(&output.printed),
            errors: addresses.to_document(&output.errors),
            ..output
        });
        outputs.collect()
    }

    /// Runs a transcript with these variables. Returns the number of its steps, or what is wrong with their answers.
    pub async fn try_transcript(
        &self,
        transcript: &Transcript,
        variables: &[(&str, &str)],
    ) -> Result<usize, String> {
        let outputs = self.run_steps(transcript, variables).await;
        let outputs = transcript.steps.iter().zip(&outputs);
        let faults: Vec<String> = outputs.filter_map(|(step, output)| step.fault(output)).collect();
        if faults.is_empty() { Ok(transcript.steps.len()) } else { Err(faults.join("\n")) }
    }

    /// Runs a transcript, and asserts that each step answers as the document says. Returns the number of steps.
    pub async fn run_transcript(
        &self,
        transcript: &Transcript,
        variables: &[(&str, &str)],
    ) -> usize {
        self.try_transcript(transcript, variables).await.unwrap_or_else(|faults| panic!("{faults}"))
    }

    /// Runs the examples of a document that shows no answers, with these variables and `API`. Returns the answer to each
    /// `curl`.
    pub async fn run_examples(&self, document: &str, variables: &[(&str, &str)]) -> Vec<Value> {
        let text = read(document);
        let (_, rest) = text.split_once("<!-- examples -->\n```sh\n").unwrap();
        let (script, _) = rest.split_once("```\n<!-- end of examples -->").unwrap();
        let prelude = "set -euo pipefail\ncurl() { command curl --fail-with-body \"$@\"; echo; }\n";
        let step =
            Step { language: "sh".to_owned(), code: format!("{prelude}{script}"), answer: None };
        let transcript = Transcript { steps: vec![step], ..Transcript::default() };
        let address = format!("http://{}", self.address);
        let variables = [variables, &[("API", &address)]].concat();

        let output = self.run_steps(&transcript, &variables).await.remove(0);

        assert!(output.is_success(), "{}", output.text());
        let lines = output.printed.lines();
        let answers: Vec<Value> = lines.map(|line| serde_json::from_str(line).unwrap()).collect();
        assert_eq!(answers.len(), script.matches("curl ").count());
        answers
    }
}

/// Asserts that a value has the members of the example, with values of the same types.
pub fn assert_alike(value: &Value, example: &Value, path: &str) {
    if let (Value::Object(value), Value::Object(example)) = (value, example) {
        assert!(value.keys().eq(example.keys()), "{path}: {value:?}");
        for (name, example) in example {
            assert_alike(&value[name], example, &format!("{path}/{name}"));
        }
    } else {
        let kind = std::mem::discriminant::<Value>;
        assert_eq!(kind(value), kind(example), "{path}: {value}");
    }
}
