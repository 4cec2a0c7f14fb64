//! Prints the result of a command to standard output: as text or, with `--json`, as one JSON document.

use std::io::Write;

use anyhow::Context;
use serde::Serialize;

/// Options for the output of a command.
#[derive(Debug, Clone, Copy, clap::Args)]
pub struct OutputArgs {
    /// Print the result as one JSON document, with the same fields and number formats as the HTTP API.
    #[arg(long, global = true)]
    pub json: bool,
}

impl OutputArgs {
    /// Prints the result of a command: with `--json`, the JSON document that `body` returns; otherwise, the text that
    /// `text` returns.
    pub fn print<T, B: Serialize>(
        self,
        result: T,
        body: impl FnOnce(T) -> anyhow::Result<B>,
        text: impl FnOnce(&T) -> anyhow::Result<String>,
    ) -> anyhow::Result<()> {
        if self.json { print_json(&body(result)?) } else { print_text(&text(&result)?) }
    }
}

/// Prints a JSON document.
pub fn print_json(document: &impl Serialize) -> anyhow::Result<()> {
    print_text(&serde_json::to_string_pretty(document)?)
}

/// Prints a text, followed by a newline.
pub fn print_text(text: &str) -> anyhow::Result<()> {
    writeln!(std::io::stdout(), "{text}").context("cannot write the result")
}
