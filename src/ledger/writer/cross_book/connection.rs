//! The database connection for postings to several books, which runs one transaction at a time.

use std::collections::HashMap;
use std::time::Duration;

use futures_util::FutureExt;
use futures_util::future::{BoxFuture, join_all};
use time::OffsetDateTime;
use tokio_postgres::types::ToSql;
use tokio_postgres::{Client, Error, Row, Statement};
use uuid::Uuid;

use crate::db::Pipelined;
use crate::ledger::account::{Account, AccountId};
use crate::ledger::companion::CompanionKind;
use crate::ledger::connect::{ConnectionDriver, connect, drive, is_outcome_unknown};
use crate::ledger::sql;
use crate::ledger::writer::backend::{Backend, terminate_backends};
use crate::ledger::writer::batch::BookHead;
use crate::ledger::writer::columns::PostColumns;
use crate::ledger::writer::idempotency::StoredKey;
use crate::ledger::writer::lookups::{parse_account, parse_key};
use crate::ledger::writer::pipeline::{next_seal, parse_head, sealed_at};

type Replies = Vec<Result<Vec<Row>, Error>>;

/// Data that the postings of a transaction need, read while their books are locked.
#[derive(Debug, Default)]
pub(super) struct LockedBooks {
    pub(super) heads: HashMap<i32, BookHead>,
    /// The requested accounts that exist, by book and id.
    pub(super) accounts: HashMap<(i32, AccountId), Account>,
    pub(super) keys: HashMap<Uuid, StoredKey>,
}

/// Reason why a statement failed.
#[derive(Debug)]
pub(super) enum Failure {
    /// The connection is lost.
    Lost,
    /// The database refused a statement, so the transaction must be rolled back.
    Refused(Error),
    /// The database refused to write the companions (rows of another module) of this kind.
    Companions(&'static CompanionKind, Error),
}

impl From<Error> for Failure {
    fn from(error: Error) -> Self {
        if is_outcome_unknown(&error) { Self::Lost } else { Self::Refused(error) }
    }
}

/// Companions (rows of another module) of one kind: the kind, their number, and a JSON array of them.
pub(super) type CompanionRows = (&'static CompanionKind, i32, String);

struct Statements {
    begin: Statement,
    lock: Statement,
    head: Statement,
    accounts: Statement,
    keys: Statement,
    late_keys: Statement,
    post: Statement,
    commit: Statement,
    rollback: Statement,
    complete_commits: Statement,
    next_seal: Statement,
    companions: Vec<(&'static CompanionKind, Statement)>,
}

pub(super) struct CrossBookConnection {
    client: Client,
    driver: ConnectionDriver,
    statements: Statements,
    pub(super) backend: Backend,
    /// Longest time that the replies may take before the connection counts as lost.
    reply_max: Duration,
}

impl CrossBookConnection {
    /// Connects, and terminates the server process (backend) of the previous connection if the database user is
    /// permitted to.
    pub(super) async fn open(
        database: &Pipelined,
        companions: &[&'static CompanionKind],
        reply_max: Duration,
        previous: Option<Backend>,
    ) -> Result<Self, Error> {
        let (client, mut driver, backend) = connect(database, async |client| {
            terminate_backends(client, &mut Vec::from_iter(previous)).await?;
            Backend::read(client).await
        })
        .await?;
        let statements = drive(&mut driver, Statements::prepare(&client, companions)).await?;
        Ok(Self { client, driver, statements, backend, reply_max })
    }

    /// Begins a transaction, and locks these books after their batches in progress have ended. Then reads the heads
    /// (newest batches) of the books, the accounts, and the idempotency keys. No other batch is written to these books
    /// before the transaction ends.
    pub(super) async fn lock(
        &mut self,
        accounts: &[(i32, Vec<i64>)],
        keys: Vec<Uuid>,
    ) -> Result<LockedBooks, Failure> {
        let statements = &self.statements;
        let books: Vec<i32> = accounts.iter().map(|(book, _)| *book).collect();
        let mut requests = vec![
            request(&self.client, &statements.begin, Vec::new()),
            request(&self.client, &statements.lock, vec![Box::new(books.clone())]),
            request(&self.client, &statements.keys, vec![Box::new(keys)]),
        ];
        for (book, accounts) in accounts {
            requests.push(request(&self.client, &statements.head, vec![Box::new(*book)]));
            let params: Params = vec![Box::new(*book), Box::new(accounts.clone())];
            requests.push(request(&self.client, &statements.accounts, params));
        }
        let requests = join_all(requests);
        let replies = drive_for(self.reply_max, &mut self.driver, requests).await?;
        let mut replies = rows_of(replies)?.into_iter().skip(2);
        let mut locked = LockedBooks::default();
        for row in replies.next().unwrap_or_default() {
            let (hash, stored) = parse_key(&row)?;
            locked.keys.insert(hash, stored);
        }
        for book in books {
            for row in replies.next().unwrap_or_default() {
                locked.heads.insert(book, parse_head(&row)?);
            }
            for row in replies.next().unwrap_or_default() {
                let (id, account) = parse_account(&row)?;
                locked.accounts.insert((book, id), account);
            }
        }
        Ok(locked)
    }

    /// Reads the postings of these idempotency keys again, after the transactions that write them have ended. Returns
    /// `None` if the books have changed since they were locked, because an interrupted commit was completed.
    pub(super) async fn late_keys(
        &mut self,
        books: Vec<i32>,
        keys: Vec<Uuid>,
    ) -> Result<Option<HashMap<Uuid, StoredKey>>, Failure> {
        let statements = &self.statements;
        let requests = join_all([
            request(&self.client, &statements.complete_commits, vec![Box::new(books)]),
            request(&self.client, &statements.late_keys, vec![Box::new(keys)]),
        ]);
        let replies = rows_of(drive_for(self.reply_max, &mut self.driver, requests).await?)?;
        let [completed, keys] = replies.as_slice() else { unreachable!("there are two requests") };
        if completed.first().is_some_and(|row| row.get(0)) {
            return Ok(None);
        }
        Ok(Some(keys.iter().map(parse_key).collect::<Result<_, _>>()?))
    }

    /// Writes a batch to each book, and the companions (rows of other modules). Returns the time of each batch. The
    /// transaction stays open.
    pub(super) async fn post(
        &mut self,
        parts: &[PostColumns],
        companions: Vec<CompanionRows>,
    ) -> Result<Vec<OffsetDateTime>, Failure> {
        let post = &self.statements.post;
        let params: Vec<_> = parts.iter().map(PostColumns::params).collect();
        let mut requests: Vec<BoxFuture<'_, Result<Vec<Row>, Error>>> = Vec::new();
        for params in &params {
            requests.push(self.client.query(post, params).boxed());
        }
        let mut kinds = Vec::new();
        for (kind, count, rows) in companions {
            let mut statements = self.statements.companions.iter();
            let found = statements.find(|(other, _)| *other == kind);
            let (_, statement) = found.expect("each registered kind has a statement");
            requests.push(request(&self.client, statement, vec![Box::new(count), Box::new(rows)]));
            kinds.push(kind);
        }
        let requests = join_all(requests);
        let mut posted = drive_for(self.reply_max, &mut self.driver, requests).await?;
        let written = posted.split_off(parts.len());
        let posted = rows_of(posted)?;
        for (kind, reply) in kinds.into_iter().zip(written) {
            reply.map_err(|error| match Failure::from(error) {
                Failure::Refused(error) => Failure::Companions(kind, error),
                failure => failure,
            })?;
        }
        // The heads were read under the lock, so a seal without a time is a bug of `ledger.post`.
        posted.iter().map(|rows| sealed_at(rows).ok_or(Failure::Lost)).collect()
    }

    pub(super) async fn commit(&mut self) -> Result<(), Failure> {
        let commit = self.client.query(&self.statements.commit, &[]);
        drive_for(self.reply_max, &mut self.driver, commit).await??;
        Ok(())
    }

    pub(super) async fn roll_back(&mut self) -> Result<(), Failure> {
        let rollback = self.client.query(&self.statements.rollback, &[]);
        drive_for(self.reply_max, &mut self.driver, rollback).await??;
        Ok(())
    }

    /// Waits until no other transaction holds the lock of the book, and completes interrupted commits. Then returns the
    /// id of the batch that follows the batch `head`, if there is such a batch.
    pub(super) async fn seal_after(
        &mut self,
        book: i32,
        head: BookHead,
    ) -> Result<Option<Uuid>, Failure> {
        let statements = &self.statements;
        let params: Params = vec![Box::new(book), Box::new(head.seq)];
        let requests = vec![
            request(&self.client, &statements.begin, Vec::new()),
            request(&self.client, &statements.lock, vec![Box::new(vec![book])]),
            request(&self.client, &statements.complete_commits, vec![Box::new(vec![book])]),
            request(&self.client, &statements.next_seal, params),
            request(&self.client, &statements.rollback, Vec::new()),
        ];
        let requests = join_all(requests);
        let replies = drive_for(self.reply_max, &mut self.driver, requests).await?;
        Ok(rows_of(replies)?.get(3).and_then(|rows| next_seal(rows)).map(|(batch, _)| batch))
    }
}

fn request<'a>(
    client: &'a Client,
    statement: &'a Statement,
    params: Params,
) -> BoxFuture<'a, Result<Vec<Row>, Error>> {
    async move {
        let params: Vec<&(dyn ToSql + Sync)> =
            params.iter().map(|param| -> &(dyn ToSql + Sync) { param.as_ref() }).collect();
        client.query(statement, &params).await
    }
    .boxed()
}

type Params = Vec<Box<dyn ToSql + Sync + Send>>;

/// Polls the connection until the replies have arrived, for at most `reply_max`.
async fn drive_for<T>(
    reply_max: Duration,
    driver: &mut ConnectionDriver,
    replies: impl Future<Output = T>,
) -> Result<T, Failure> {
    let driven = tokio::time::timeout(reply_max, drive(driver, replies.map(Ok))).await;
    Ok(driven.map_err(|_| Failure::Lost)??)
}

/// The rows of each reply, or the first failure.
fn rows_of(replies: Replies) -> Result<Vec<Vec<Row>>, Failure> {
    replies.into_iter().map(|reply| reply.map_err(Failure::from)).collect()
}

impl Statements {
    async fn prepare(client: &Client, kinds: &[&'static CompanionKind]) -> Result<Self, Error> {
        let mut companions = Vec::new();
        for kind in kinds {
            companions.push((*kind, client.prepare(&kind.statement()).await?));
        }
        Ok(Self {
            begin: client.prepare(sql::BEGIN).await?,
            lock: client.prepare(sql::LOCK_BOOKS).await?,
            head: client.prepare(sql::HEAD).await?,
            accounts: client.prepare(sql::ACCOUNTS).await?,
            keys: client.prepare(sql::KEYS).await?,
            late_keys: client.prepare(sql::LATE_KEYS).await?,
            post: client.prepare(sql::POST).await?,
            commit: client.prepare(sql::COMMIT).await?,
            rollback: client.prepare(sql::ROLLBACK).await?,
            complete_commits: client.prepare(sql::COMPLETE_COMMITS).await?,
            next_seal: client.prepare(sql::NEXT_SEAL).await?,
            companions,
        })
    }
}
