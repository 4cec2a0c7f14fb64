//! The writer's one connection, and what is in flight on it.
//!
//! Requests are sent without waiting for the answers to those before (pipelining); the server works on them in
//! order, each in a transaction of its own unless a batch brings one along. The writer polls the connection itself:
//! no other task has to be woken between deciding and sending.

use std::collections::VecDeque;
use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, Waker};
use std::time::{Instant, SystemTime};

use futures_util::FutureExt;
use futures_util::future::{BoxFuture, join_all};
use time::OffsetDateTime;
use tokio_postgres::types::ToSql;
use tokio_postgres::{Client, Error, Row, Statement};
use uuid::Uuid;

use super::batch::{Batch, Head, Lookup};
use super::columns::Columns;
use super::notify_throttle::NotifyThrottle;
use crate::db::Pipelined;
use crate::ledger::companion::CompanionKind;
use crate::ledger::connect::{Driver, connect, drive};
use crate::ledger::sql;

/// What was sent, kept until the answer is there.
#[derive(Debug)]
pub(super) enum Work {
    Post(Batch, Layout),
    Lookup(Lookup),
    /// What others wrote since this seq, with the book locked if `lock`.
    CatchUp {
        after: i64,
        lock: bool,
    },
    /// Gives the lock back without having written.
    Release,
    /// Wakes who follows the book.
    Notify,
    /// Stood on a batch that failed: it cannot take effect, and its items are elsewhere.
    Doomed,
}

/// The answers to one piece of work: one for each statement, in order.
pub(super) type Replies = Vec<Result<Vec<Row>, Error>>;

struct Sent {
    work: Work,
    at: Instant,
    replies: BoxFuture<'static, Replies>,
}

/// A backend of the server, so that it can be ended when its connection is lost.
#[derive(Debug, Clone, Copy)]
pub(super) struct Backend {
    pid: i32,
    start: SystemTime,
}

/// Which reply to a batch is which.
#[derive(Debug, Default)]
pub(super) struct Layout {
    pub(super) post: usize,
    /// The companions' statements follow the post.
    pub(super) kinds: Vec<&'static CompanionKind>,
    /// Who has sealed the head it stands on; asked when it was sent before.
    pub(super) behind: Option<usize>,
}

struct Statements {
    post: Statement,
    notify: Statement,
    begin: Statement,
    commit: Statement,
    seal_behind: Statement,
    head: Statement,
    keys: Statement,
    accounts: Statement,
    catch_up: Statement,
    /// In the order of the registry.
    companions: Vec<(&'static CompanionKind, Statement)>,
}

pub(super) struct Pipeline {
    client: Arc<Client>,
    driver: Driver,
    statements: Statements,
    pub(super) backend: Backend,
    sent: VecDeque<Sent>,
    bell: NotifyThrottle,
    closed: bool,
}

/// The connection is gone; what was in flight is open.
#[derive(Debug)]
pub(super) struct Broken;

impl Pipeline {
    /// Connects, after asking the backend of the connection before to end.
    /// The second value tells whether that one is certainly gone.
    pub(super) async fn open(
        database: &Pipelined,
        companions: &[&'static CompanionKind],
        before: Option<Backend>,
    ) -> Result<(Self, bool), Error> {
        let (client, mut driver, (backend, gone)) = connect(database, async |client| {
            let gone = match before {
                Some(before) => end_backend(client, before).await?,
                None => true,
            };
            let row = client.query_one(sql::BACKEND, &[]).await?;
            Ok((Backend { pid: row.try_get(0)?, start: row.try_get(1)? }, gone))
        })
        .await?;
        let statements = drive(&mut driver, Statements::prepare(&client, companions)).await?;
        Ok((
            Self {
                client: Arc::new(client),
                driver,
                statements,
                backend,
                sent: VecDeque::new(),
                bell: NotifyThrottle::default(),
                closed: false,
            },
            gone,
        ))
    }

    pub(super) fn shared_client(&self) -> Arc<Client> {
        Arc::clone(&self.client)
    }

    /// Asks something outside the pipe, which must be empty.
    pub(super) async fn ask<T>(
        &mut self,
        work: impl Future<Output = Result<T, Error>>,
    ) -> Result<T, Error> {
        debug_assert!(self.sent.is_empty(), "answers come in order");
        drive(&mut self.driver, work).await
    }

    /// How much is in flight.
    pub(super) fn len(&self) -> usize {
        self.sent.len()
    }

    /// Whether any of it would change the book.
    pub(super) fn has_batch(&self) -> bool {
        self.sent.iter().any(|sent| matches!(sent.work, Work::Post(..)))
    }

    /// How much the newest batch in flight carries; 0 when there is none.
    pub(super) fn newest_rows(&self) -> usize {
        let newest = self.sent.iter().rev().find_map(|sent| match &sent.work {
            Work::Post(batch, _) => Some(batch.rows.len()),
            _ => None,
        });
        newest.unwrap_or_default()
    }

    /// Since when the oldest work waits for its answer.
    pub(super) fn oldest(&self) -> Option<Instant> {
        self.sent.front().map(|sent| sent.at)
    }

    /// Dooms what is in flight, and returns it.
    pub(super) fn doom(&mut self) -> Vec<Work> {
        self.sent.iter_mut().map(|sent| std::mem::replace(&mut sent.work, Work::Doomed)).collect()
    }

    /// Everything that was in flight, when the connection is gone.
    pub(super) fn take_works(&mut self) -> Vec<Work> {
        self.sent.drain(..).map(|sent| sent.work).collect()
    }

    /// Sends a batch. With companions it is a transaction that fails as a whole.
    /// `begun`: that transaction was begun by a catch-up with lock.
    pub(super) fn post(&mut self, book: i32, batch: Batch, begun: bool) {
        let notify = self.bell.is_due();
        let whole = batch.has_companions();
        let mut requests = Vec::new();
        let mut layout = Layout::default();
        if whole && !begun {
            layout.post = 1;
            requests.push(self.request(&self.statements.begin, Vec::new()));
        }
        let columns = Columns::new(book, &batch, whole, notify);
        let (client, statement) = (Arc::clone(&self.client), self.statements.post.clone());
        requests.push(async move { client.query(&statement, &columns.params()).await }.boxed());
        if whole {
            for (kind, statement) in &self.statements.companions {
                if let Some((count, rows)) = companion_rows(&batch, kind) {
                    layout.kinds.push(kind);
                    requests.push(self.request(statement, vec![Box::new(count), Box::new(rows)]));
                }
            }
        }
        if whole || begun {
            requests.push(self.request(&self.statements.commit, Vec::new()));
        }
        if batch.resent {
            layout.behind = Some(requests.len());
            let params: Params = vec![Box::new(book), Box::new(batch.prev.seq)];
            requests.push(self.request(&self.statements.seal_behind, params));
        }
        self.push(Work::Post(batch, layout), requests);
    }

    /// Sends questions: accounts, then keys, then the head, so that a head that has not moved vouches for the others.
    pub(super) fn send_ask(&mut self, book: i32, ask: Lookup) {
        let accounts: Vec<i64> = ask.accounts.iter().map(|account| account.0).collect();
        let requests = vec![
            self.request(&self.statements.accounts, vec![Box::new(book), Box::new(accounts)]),
            self.request(&self.statements.keys, vec![Box::new(book), Box::new(ask.keys())]),
            self.request(&self.statements.head, vec![Box::new(book)]),
        ];
        self.push(Work::Lookup(ask), requests);
    }

    pub(super) fn catch_up(&mut self, book: i32, after: i64, rows_max: i64, lock: bool) {
        let mut requests = Vec::new();
        if lock {
            requests.push(self.request(&self.statements.begin, Vec::new()));
        }
        let params: Params =
            vec![Box::new(book), Box::new(after), Box::new(rows_max), Box::new(lock)];
        requests.push(self.request(&self.statements.catch_up, params));
        self.push(Work::CatchUp { after, lock }, requests);
    }

    /// When who follows the book has to be woken although no batch does.
    pub(super) fn bell_due(&self) -> Option<Instant> {
        self.bell.due()
    }

    pub(super) fn ring(&mut self, book: i32) {
        self.bell.rung();
        let request = self.request(&self.statements.notify, vec![Box::new(book)]);
        self.push(Work::Notify, vec![request]);
    }

    pub(super) fn release(&mut self) {
        let request = self.request(&self.statements.commit, Vec::new());
        self.push(Work::Release, vec![request]);
    }

    /// The oldest work and the answers to it.
    pub(super) fn poll_next(
        &mut self,
        cx: &mut Context<'_>,
    ) -> Poll<Result<(Work, Replies), Broken>> {
        self.closed = self.closed || self.driver.as_mut().poll(cx).is_ready();
        if let Some(front) = self.sent.front_mut()
            && let Poll::Ready(replies) = front.replies.as_mut().poll(cx)
        {
            if replies.iter().any(|reply| reply.as_ref().is_err_and(leaves_open)) {
                return Poll::Ready(Err(Broken));
            }
            let sent = self.sent.pop_front().expect("it was just polled");
            return Poll::Ready(Ok((sent.work, replies)));
        }
        if self.closed { Poll::Ready(Err(Broken)) } else { Poll::Pending }
    }

    fn request(
        &self,
        statement: &Statement,
        params: Params,
    ) -> BoxFuture<'static, Result<Vec<Row>, Error>> {
        let (client, statement) = (Arc::clone(&self.client), statement.clone());
        async move {
            let params: Vec<&(dyn ToSql + Sync)> =
                params.iter().map(|param| -> &(dyn ToSql + Sync) { param.as_ref() }).collect();
            client.query(&statement, &params).await
        }
        .boxed()
    }

    fn push(&mut self, work: Work, requests: Vec<BoxFuture<'static, Result<Vec<Row>, Error>>>) {
        let mut replies = join_all(requests).boxed();
        // A request is handed to the connection when its future is polled for the first time.
        let mut nobody = Context::from_waker(Waker::noop());
        let early = Pin::new(&mut replies).poll(&mut nobody);
        if let Poll::Ready(early) = early {
            // The connection is closed already.
            replies = std::future::ready(early).boxed();
        }
        self.sent.push_back(Sent { work, at: Instant::now(), replies });
    }
}

type Params = Vec<Box<dyn ToSql + Sync + Send>>;

/// Whether this error leaves open what happened. An ordinary error of a statement does not: it was rolled back.
fn leaves_open(error: &Error) -> bool {
    match error.as_db_error() {
        Some(db) => matches!(db.severity(), "FATAL" | "PANIC"),
        None => true,
    }
}

/// The rows of a batch for one kind of companion, as a JSON array, and how many they are.
fn companion_rows(batch: &Batch, kind: &CompanionKind) -> Option<(i32, String)> {
    let mut rows = String::new();
    let mut count = 0;
    for accepted in &batch.accepted {
        for companion in accepted.item.posting.companions.iter().filter(|c| c.kind == kind) {
            companion.write(count, batch.seq_of(accepted.start), &mut rows);
            count += 1;
        }
    }
    rows.push(']');
    if count == 0 { None } else { Some((count, rows)) }
}

/// Ends a backend; whether it is certainly gone.
async fn end_backend(client: &Client, backend: Backend) -> Result<bool, Error> {
    /// It is asked to end once a step, and a step later it should have.
    const STEPS_MAX: u32 = 20;
    const STEP: std::time::Duration = std::time::Duration::from_millis(25);

    for _ in 0..STEPS_MAX {
        match client.query_opt(sql::END_BACKEND, &[&backend.pid, &backend.start]).await {
            Ok(None) => return Ok(true),
            Ok(Some(_)) => tokio::time::sleep(STEP).await,
            // It may belong to a role that this user may not signal.
            Err(error) if error.as_db_error().is_some() && !leaves_open(&error) => {
                return Ok(false);
            }
            Err(error) => return Err(error),
        }
    }
    Ok(false)
}

impl Statements {
    async fn prepare(client: &Client, kinds: &[&'static CompanionKind]) -> Result<Self, Error> {
        let mut companions = Vec::new();
        for kind in kinds {
            companions.push((*kind, client.prepare(&kind.statement()).await?));
        }
        Ok(Self {
            post: client.prepare(sql::POST).await?,
            notify: client.prepare(sql::NOTIFY).await?,
            begin: client.prepare(sql::BEGIN).await?,
            commit: client.prepare(sql::COMMIT).await?,
            seal_behind: client.prepare(sql::SEAL_BEHIND).await?,
            head: client.prepare(sql::HEAD).await?,
            keys: client.prepare(sql::KEYS).await?,
            accounts: client.prepare(sql::ACCOUNTS).await?,
            catch_up: client.prepare(sql::CATCH_UP).await?,
            companions,
        })
    }
}

/// Where the book ends; `None` when there is no such book.
pub(super) async fn read_head(client: &Client, book: i32) -> Result<Option<Head>, Error> {
    client.query_opt(sql::HEAD, &[&book]).await?.map(|row| head_of(&row)).transpose()
}

/// A head from the first two columns.
pub(super) fn head_of(row: &Row) -> Result<Head, Error> {
    Ok(Head { seq: row.try_get(0)?, batch: row.try_get(1)? })
}

/// When the batch was sealed, from the replies to it; `None` when its head was stale.
pub(super) fn sealed_at(rows: &[Row]) -> Option<OffsetDateTime> {
    rows.first()?.try_get::<_, Option<OffsetDateTime>>(0).ok().flatten()
}

/// Who has sealed the head that a resent batch stands on, and when.
pub(super) fn seal_behind(rows: &[Row]) -> Option<(Uuid, OffsetDateTime)> {
    let row = rows.first()?;
    Some((row.try_get(0).ok()?, row.try_get(1).ok()?))
}
