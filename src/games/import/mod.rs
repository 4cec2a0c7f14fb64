//! Import of games from a file into the catalog.
//!
//! | part | does | bound |
//! |---|---|---|
//! | [`records`] | splits the file into records | 64 KiB each |
//! | [`csv`] | turns a row of CSV into JSON | 61 columns |
//! | [`candidate`] | validates a record, as `POST /api/games` does | |
//! | [`reader`] | runs the parts above in a thread, and groups the records into batches | 1,000 records or 4 MiB |
//! | [`GameImporter`] | adds the new games of a batch in one transaction | two batches in memory |
//!
//! A file can be imported again, after a correction or an interrupted import, and no game is added twice. The import
//! derives the idempotency key of a game from its reference (its identifier in the system that the file comes from) or,
//! without a reference, from all its fields, and adds only games whose key is new. Two imports of the same file can run
//! at the same time.

mod candidate;
mod csv;
mod reader;
mod records;
mod sql;

use std::collections::{HashMap, HashSet};
use std::fmt;
use std::io::BufRead;

use sqlx::{Connection as _, PgConnection};
use tokio::sync::mpsc;

use self::candidate::Candidate;
use self::sql::NamedPublisher;
use crate::auth::{Caller, Scope};
use crate::db::Database;
use crate::error::{Error, Result};
use crate::games::catalog::{
    Insertion, NOT_A_BASE, NOT_A_PUBLISHER, bases, bump_revision, find_by_keys, insert_all,
};
use crate::idempotency_key::HashedKey;
use crate::ids::{GameId, PublisherId};
use crate::ledger::currency::{Currencies, Currency};
use crate::secret::digest;

pub use self::reader::ImportBatch;

/// Format of a file to import.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
pub enum FileFormat {
    /// CSV: rows after a header with the names of the columns.
    Csv,
    /// JSON Lines: a JSON object on each line.
    Jsonl,
}

/// A refused record of the file: its line, the refused field, and the reason.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ImportRefusal {
    /// Line at which the record begins.
    pub line: u64,
    /// Name of the refused field; empty if the whole record is refused.
    pub field: String,
    pub reason: String,
}

impl fmt::Display for ImportRefusal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { line, field, reason } = self;
        if field.is_empty() {
            write!(f, "line {line}: {reason}")
        } else {
            write!(f, "line {line}: {field}: {reason}")
        }
    }
}

/// Result of adding a batch of records.
#[derive(Debug, Default)]
pub struct BatchOutcome {
    pub added: u64,
    /// Number of games that an earlier import, or an earlier line of the file, has already added.
    pub known: u64,
    /// Refusals, in the order of the lines; a record can have several.
    pub refused: Vec<ImportRefusal>,
}

impl BatchOutcome {
    fn refuse(&mut self, line: u64, field: &str, reason: impl Into<String>) {
        self.refused.push(ImportRefusal { line, field: field.to_owned(), reason: reason.into() });
    }
}

/// Imports games from files into the catalog.
pub struct GameImporter {
    db: Database,
    currencies: Currencies,
    default_currency: Currency,
}

impl GameImporter {
    pub fn new(db: Database, currencies: Currencies, default_currency: Currency) -> Self {
        Self { db, currencies, default_currency }
    }

    /// Reads a file in a background thread, and returns the channel that delivers its batches.
    pub fn read(
        &self,
        source: impl BufRead + Send + 'static,
        format: FileFormat,
    ) -> anyhow::Result<mpsc::Receiver<anyhow::Result<ImportBatch>>> {
        reader::read(source, format, self.currencies.clone(), self.default_currency)
    }

    /// Adds the games of a batch that are not in the catalog yet, in one transaction.
    pub async fn add(&self, batch: ImportBatch, caller: &Caller) -> Result<BatchOutcome> {
        caller.require_scope(Scope::GamesWrite)?;
        let mut outcome = BatchOutcome { refused: batch.refused, ..BatchOutcome::default() };
        if batch.candidates.is_empty() {
            return Ok(outcome);
        }
        let mut db = self.db.acquire("games.import").await?;
        let mut tx = db.begin().await?;
        // Locks the catalog: no other process adds games from here on, so the results of lookups stay valid.
        bump_revision(&mut tx).await?;
        let candidates = with_publishers(&mut tx, batch.candidates, &mut outcome).await?;
        // Base games are added first, because the base of downloadable content can be in the same batch.
        let (content, games) = candidates.into_iter().partition(Candidate::has_base);
        for candidates in [games, content] {
            add_new(&mut tx, candidates, &mut outcome).await?;
        }
        if outcome.added > 0 {
            tx.commit().await?;
        }
        outcome.refused.sort_by_key(|refusal| refusal.line);
        Ok(outcome)
    }

    /// Prepares the database for fast searches after the last batch of an import.
    pub async fn finish(&self) -> Result<()> {
        // Connects as the owner of the tables, because the role of the application may not vacuum them.
        let mut owner = PgConnection::connect_with(self.db.options()).await?;
        sql::vacuum_games(&mut owner).await?;
        sql::read_games(&mut owner).await?;
        Ok(owner.close().await?)
    }
}

/// Looks up the publishers of games to import. Refuses games whose publisher does not exist, and returns the other
/// games.
async fn with_publishers(
    db: &mut PgConnection,
    candidates: Vec<Candidate>,
    outcome: &mut BatchOutcome,
) -> Result<Vec<Candidate>> {
    let ids: Vec<PublisherId> = candidates.iter().filter_map(|new| new.game.publisher).collect();
    let names: Vec<String> =
        candidates.iter().filter_map(|new| new.publisher_name.clone()).collect();
    if ids.is_empty() && names.is_empty() {
        return Ok(candidates);
    }
    let publishers = sql::publishers(db, &ids, &names).await?;
    let mut by_name: HashMap<&str, Vec<PublisherId>> = HashMap::new();
    let mut by_id = HashSet::new();
    for NamedPublisher { id, name } in &publishers {
        by_name.entry(name).or_default().push(*id);
        by_id.insert(*id);
    }
    let mut kept = Vec::with_capacity(candidates.len());
    for mut candidate in candidates {
        let found = match (&candidate.publisher_name, candidate.game.publisher) {
            (Some(name), _) => match by_name.get(name.as_str()).map(Vec::as_slice) {
                Some([id]) => Ok(Some(*id)),
                Some(_) => Err("is the name of several publishers: give the id"),
                None => Err(NOT_A_PUBLISHER),
            },
            (None, Some(id)) if by_id.contains(&id) => Ok(Some(id)),
            (None, Some(_)) => Err(NOT_A_PUBLISHER),
            (None, None) => Ok(None),
        };
        match found {
            Ok(publisher) => {
                candidate.game.publisher = publisher;
                kept.push(candidate);
            }
            Err(why) => outcome.refuse(candidate.line, "publisher", why),
        }
    }
    Ok(kept)
}

/// Adds the games whose idempotency key is new. A game whose key was used before counts as known if its fields match
/// those of the earlier game, and is refused otherwise.
async fn add_new(
    db: &mut PgConnection,
    candidates: Vec<Candidate>,
    outcome: &mut BatchOutcome,
) -> Result<()> {
    let candidates = with_bases(db, candidates, outcome).await?;
    let keys: Vec<HashedKey> = candidates.iter().map(key).collect();
    let hashes: Vec<_> = keys.iter().map(|key| key.hash).collect();
    let known = find_by_keys(db, &hashes).await?;
    let mut contents: HashMap<_, _> =
        known.iter().map(|(key, game)| (*key, game.content)).collect();
    let mut insertions = Vec::with_capacity(candidates.len());
    for (candidate, key) in candidates.iter().zip(keys) {
        match contents.insert(key.hash, Some(key.content)) {
            None => insertions.push(Insertion { game: &candidate.game, key: Some(key) }),
            Some(Some(content)) if key.has_content(content) => outcome.known += 1,
            Some(content) => {
                contents.insert(key.hash, content);
                let why = match known.get(&key.hash) {
                    Some(game) => format!("was imported with other content, as game {}", game.id),
                    None => "is that of an earlier line with other content".to_owned(),
                };
                outcome.refuse(candidate.line, "reference", why);
            }
        }
    }
    let added = insert_all(db, &insertions, None).await?;
    outcome.added += added.ok_or(Error::Overloaded)?.len() as u64;
    Ok(())
}

/// Looks up the base games of downloadable content to import. Refuses downloadable content without a valid base game,
/// and returns all other games.
async fn with_bases(
    db: &mut PgConnection,
    candidates: Vec<Candidate>,
    outcome: &mut BatchOutcome,
) -> Result<Vec<Candidate>> {
    if !candidates.iter().any(Candidate::has_base) {
        return Ok(candidates);
    }
    let references = candidates.iter().filter_map(|new| new.base_reference.as_deref());
    let keys: Vec<_> = references.map(reference_hash).collect();
    let by_reference = find_by_keys(db, &keys).await?;
    let base_of = |candidate: &Candidate| match &candidate.base_reference {
        Some(reference) => by_reference.get(&reference_hash(reference)).map(|game| game.id),
        None => candidate.game.base,
    };
    let ids: Vec<GameId> = candidates.iter().filter_map(base_of).collect();
    let bases = bases(db, &ids).await?;
    let mut kept = Vec::with_capacity(candidates.len());
    for mut candidate in candidates {
        let base = base_of(&candidate);
        if base.is_some_and(|base| bases.get(&base) == Some(&candidate.game.publisher)) {
            candidate.game.base = base;
            kept.push(candidate);
        } else {
            let by_reference = candidate.base_reference.is_some();
            let field = if by_reference { "base_reference" } else { "base" };
            outcome.refuse(candidate.line, field, NOT_A_BASE);
        }
    }
    Ok(kept)
}

/// Returns the idempotency key of a game, derived from its reference (its identifier in the system that the file comes
/// from) or, without a reference, from all its fields.
fn key(candidate: &Candidate) -> HashedKey {
    let content = candidate.game.content();
    let content = digest(&content.iter().map(String::as_str).collect::<Vec<_>>());
    let hash = match &candidate.reference {
        Some(reference) => reference_hash(reference),
        None => {
            digest(&[Caller::operator().name(), "game import", "content", &content.to_string()])
        }
    };
    HashedKey { hash, content }
}

fn reference_hash(reference: &str) -> uuid::Uuid {
    digest(&[Caller::operator().name(), "game import", "reference", reference])
}
