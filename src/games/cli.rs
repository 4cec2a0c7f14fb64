//! The command `revwallet game`, which imports games from a file into the catalog.

use std::fs::File;
use std::io::{self, BufReader, BufWriter, Read, Write};
use std::path::{Path, PathBuf};

use anyhow::{Context, bail, ensure};
use indicatif::{ProgressBar, ProgressStyle};
use serde::Serialize;

use super::import::{BatchOutcome, FileFormat, GameImporter, ImportRefusal};
use crate::auth::Caller;
use crate::error::Error;
use crate::output::OutputArgs;

/// Number of bytes that the import reads from the file at once.
const READ_BYTES: usize = 256 * 1024;

/// Number of records after which the import prints a progress line, if standard error is not a terminal.
const RECORDS_PER_LINE: u64 = 10_000;

#[derive(Debug, clap::Subcommand)]
pub enum GameCommand {
    /// Add the games of a file to the catalog; exit with status 1 if a line was refused.
    Import(ImportArgs),
}

/// Arguments of `revwallet game import`: the file and its format.
#[derive(Debug, clap::Args)]
pub struct ImportArgs {
    /// File of games: `.csv` with a header, or `.jsonl` with a JSON object on each line; `-` is standard input.
    pub file: PathBuf,
    /// Format of the file; needed if the file name does not end in .csv, .jsonl or .ndjson.
    #[arg(long, value_enum)]
    pub format: Option<FileFormat>,
    /// File to which refused lines and their reasons are written, instead of standard error.
    #[arg(long)]
    pub refused: Option<PathBuf>,
}

impl ImportArgs {
    fn format(&self) -> anyhow::Result<FileFormat> {
        let extension = self.file.extension().and_then(|extension| extension.to_str());
        let known = match extension.map(str::to_ascii_lowercase).as_deref() {
            Some("csv") => Some(FileFormat::Csv),
            Some("jsonl" | "ndjson") => Some(FileFormat::Jsonl),
            _ => None,
        };
        self.format.or(known).with_context(|| {
            format!("the format of {} is unknown: give --format", self.file.display())
        })
    }

    /// Opens the file to import. Returns the file and its size, which is unknown for standard input.
    fn open(&self) -> anyhow::Result<(Box<dyn Read + Send>, Option<u64>)> {
        if self.file == Path::new("-") {
            return Ok((Box::new(io::stdin()), None));
        }
        let cannot = || format!("cannot read {}", self.file.display());
        let file = File::open(&self.file).with_context(cannot)?;
        let metadata = file.metadata().with_context(cannot)?;
        ensure!(!metadata.is_dir(), "{} is a folder", self.file.display());
        Ok((Box::new(file), metadata.is_file().then_some(metadata.len())))
    }
}

/// Runs an import and prints its result.
pub async fn run(
    importer: &GameImporter,
    command: GameCommand,
    output: OutputArgs,
) -> anyhow::Result<()> {
    let GameCommand::Import(args) = command;
    let format = args.format()?;
    let (file, size) = args.open()?;
    let mut report = Report::new(size, args.refused.as_deref())?;
    let operator = Caller::operator();
    let mut batches = importer.read(BufReader::with_capacity(READ_BYTES, file), format)?;
    while let Some(batch) = batches.recv().await {
        let batch = batch?;
        let (records, bytes_read) = (batch.records, batch.bytes_read);
        let outcome = importer.add(batch, &operator).await.map_err(Error::into_cause)?;
        report.note(records, bytes_read, &outcome)?;
    }
    if report.added > 0 {
        importer.finish().await.map_err(Error::into_cause)?;
    }
    report.finish(output)
}

/// Result of an import: the numbers of records that were added, were already in the catalog, or were refused.
#[derive(Serialize)]
struct ImportBody {
    added: u64,
    known: u64,
    refused: u64,
}

/// Progress and result of an import.
struct Report {
    /// Progress bar; hidden if standard error is not a terminal.
    bar: ProgressBar,
    /// File for the refused lines; `None` for standard error.
    refused_to: Option<BufWriter<File>>,
    records: u64,
    added: u64,
    known: u64,
    refused: u64,
}

impl Report {
    fn new(size: Option<u64>, refused_to: Option<&Path>) -> anyhow::Result<Self> {
        let (bar, template) = match size {
            Some(size) => (ProgressBar::new(size), "{bar:40} {percent:>3} % {msg}"),
            None => (ProgressBar::new_spinner(), "{spinner} {msg}"),
        };
        bar.set_style(ProgressStyle::with_template(template)?);
        let create = |path: &Path| {
            File::create(path).with_context(|| format!("cannot create {}", path.display()))
        };
        let refused_to = refused_to.map(create).transpose()?.map(BufWriter::new);
        Ok(Self { bar, refused_to, records: 0, added: 0, known: 0, refused: 0 })
    }

    fn note(
        &mut self,
        records: u64,
        bytes_read: u64,
        outcome: &BatchOutcome,
    ) -> anyhow::Result<()> {
        let before = self.records / RECORDS_PER_LINE;
        self.records += records;
        self.added += outcome.added;
        self.known += outcome.known;
        self.refused += records - outcome.added - outcome.known;
        self.write_refused(&outcome.refused)?;
        self.bar.set_position(bytes_read);
        self.bar.set_message(self.summary());
        if self.bar.is_hidden() && self.records / RECORDS_PER_LINE > before {
            writeln!(io::stderr(), "{}", self.summary()).context("cannot write the progress")?;
        }
        Ok(())
    }

    fn write_refused(&mut self, refused: &[ImportRefusal]) -> anyhow::Result<()> {
        if refused.is_empty() {
            return Ok(());
        }
        let written = match &mut self.refused_to {
            Some(file) => write_lines(file, refused),
            None => self.bar.suspend(|| write_lines(&mut io::stderr().lock(), refused)),
        };
        written.context("cannot write the refused lines")
    }

    fn summary(&self) -> String {
        let Self { added, known, refused, .. } = self;
        format!("games: {added} added, {known} already there, {refused} refused")
    }

    /// Prints the result of the import. Returns an error if lines were refused.
    fn finish(mut self, output: OutputArgs) -> anyhow::Result<()> {
        self.bar.finish_and_clear();
        if let Some(file) = &mut self.refused_to {
            file.flush().context("cannot write the refused lines")?;
        }
        let Self { added, known, refused, .. } = self;
        let body = ImportBody { added, known, refused };
        output.print(body, Ok, |_| Ok(self.summary()))?;
        match refused {
            0 => Ok(()),
            1 => bail!("1 line was refused: correct it, and import the file again"),
            many => bail!("{many} lines were refused: correct them, and import the file again"),
        }
    }
}

fn write_lines(to: &mut impl Write, refused: &[ImportRefusal]) -> io::Result<()> {
    for refusal in refused {
        writeln!(to, "{refusal}")?;
    }
    to.flush()
}
