//! The thread that reads a file to import: it parses each record into a game to add, and groups the games into batches.

use std::io::BufRead;

use anyhow::{Context, bail};
use tokio::sync::mpsc;

use super::candidate::Candidate;
use super::csv::CsvParser;
use super::records::{FileRecord, FileRecords};
use super::{FileFormat, ImportRefusal};
use crate::error::FieldError;
use crate::ledger::currency::{Currencies, Currency};

/// Maximum number of records in a batch. A batch is added in a single transaction, and other changes to the catalog
/// wait for that transaction.
const BATCH_RECORDS_MAX: u64 = 1_000;

/// Total size of its records, in bytes, at which a batch is complete.
const BATCH_BYTES_MAX: u64 = 4 * 1024 * 1024;

/// Maximum number of batches that wait while another batch is added.
const WAITING_BATCHES_MAX: usize = 1;

/// A batch of records of a file, which are added in a single transaction.
#[derive(Debug, Default)]
pub struct ImportBatch {
    pub(super) candidates: Vec<Candidate>,
    pub(super) refused: Vec<ImportRefusal>,
    /// Number of records in the batch, including refused records.
    pub records: u64,
    /// Number of bytes of the file up to the end of the batch.
    pub bytes_read: u64,
    is_last: bool,
}

/// Reads a file in a thread of its own, so that the process can exit while a read waits for standard input.
pub(super) fn read(
    source: impl BufRead + Send + 'static,
    format: FileFormat,
    currencies: Currencies,
    default_currency: Currency,
) -> anyhow::Result<mpsc::Receiver<anyhow::Result<ImportBatch>>> {
    let (sender, receiver) = mpsc::channel(WAITING_BATCHES_MAX);
    let mut reader = Reader {
        records: FileRecords::new(source, format),
        format,
        csv: None,
        currencies,
        default_currency,
    };
    let read = move || {
        loop {
            let batch = reader.batch();
            let is_last = batch.as_ref().map_or(true, |batch| batch.is_last);
            if sender.blocking_send(batch).is_err() || is_last {
                break;
            }
        }
    };
    std::thread::Builder::new()
        .name("import".to_owned())
        .spawn(read)
        .context("cannot start a thread")?;
    Ok(receiver)
}

struct Reader<R> {
    records: FileRecords<R>,
    format: FileFormat,
    /// Parser of CSV rows; `None` until the header has been read.
    csv: Option<CsvParser>,
    currencies: Currencies,
    default_currency: Currency,
}

impl<R: BufRead> Reader<R> {
    fn batch(&mut self) -> anyhow::Result<ImportBatch> {
        let mut batch = ImportBatch::default();
        let begin = self.records.bytes_read();
        while batch.records < BATCH_RECORDS_MAX
            && self.records.bytes_read() - begin < BATCH_BYTES_MAX
        {
            let Some(record) = self.records.next().context("cannot read the file")? else {
                batch.is_last = true;
                break;
            };
            if self.format == FileFormat::Csv && self.csv.is_none() {
                self.csv = Some(header(&record, &self.currencies)?);
                continue;
            }
            batch.records += 1;
            let line = record.line;
            match parse(&record, self.csv.as_mut(), &self.currencies, self.default_currency) {
                Ok(candidate) => batch.candidates.push(candidate),
                Err(errors) => {
                    let named = errors.into_iter().map(|FieldError { pointer, detail }| {
                        let field = match &self.csv {
                            Some(csv) => csv.column(&pointer),
                            None => pointer.trim_start_matches('/').to_owned(),
                        };
                        ImportRefusal { line, field, reason: detail }
                    });
                    batch.refused.extend(named);
                }
            }
        }
        batch.bytes_read = self.records.bytes_read();
        Ok(batch)
    }
}

fn header(record: &FileRecord<'_>, currencies: &Currencies) -> anyhow::Result<CsvParser> {
    let parsed = match record.bytes {
        Ok(bytes) => CsvParser::new(bytes, currencies),
        Err(why) => Err(why.to_owned()),
    };
    match parsed {
        Ok(parser) => Ok(parser),
        Err(why) => bail!("line {}: the header {why}", record.line),
    }
}

fn parse(
    record: &FileRecord<'_>,
    csv: Option<&mut CsvParser>,
    currencies: &Currencies,
    default_currency: Currency,
) -> Result<Candidate, Vec<FieldError>> {
    let whole =
        |detail: &str| vec![FieldError { pointer: String::new(), detail: detail.to_owned() }];
    let bytes = record.bytes.map_err(whole)?;
    let parse = |object: &[u8]| Candidate::parse(record.line, object, currencies, default_currency);
    match csv {
        Some(csv) => parse(csv.json(bytes).map_err(|error| vec![error])?.as_bytes()),
        None if std::str::from_utf8(bytes).is_err() => Err(whole("is not valid UTF-8")),
        None => parse(bytes.trim_ascii()),
    }
}
