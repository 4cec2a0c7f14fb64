//! The writer's single connection, and the requests in flight on it.
//!
//! Requests are sent without waiting for earlier replies (pipelining). The server processes them in order, each in a
//! transaction of its own, unless a batch begins a transaction explicitly. The writer polls the connection itself, so
//! it sends a batch without waiting for another task to be scheduled.

use std::collections::VecDeque;
use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, Waker};
use std::time::Instant;

use futures_util::FutureExt;
use futures_util::future::{BoxFuture, join_all};
use time::OffsetDateTime;
use tokio_postgres::types::ToSql;
use tokio_postgres::{Client, Error, Row, Statement};
use uuid::Uuid;

use super::backend::{Backend, terminate_backends};
use super::batch::{Batch, BookHead, Lookup};
use super::columns::{PostColumns, PostOptions};
use super::notify_throttle::NotifyThrottle;
use crate::db::Pipelined;
use crate::ledger::companion::CompanionKind;
use crate::ledger::connect::{ConnectionDriver, connect, drive, is_outcome_unknown};
use crate::ledger::sql;
use crate::ledger::transfer::Posting;

/// A request that was sent to the database, with the data that is needed to process its reply.
#[derive(Debug)]
pub(super) enum InFlightRequest {
    Post(Batch, ReplyLayout),
    Lookup(Lookup),
    /// Reads the transfers that other processes wrote after the seq `after`, and takes the book's lock if `lock` is
    /// true.
    CatchUp {
        after: i64,
        lock: bool,
    },
    /// Releases the book's lock without writing a batch.
    ReleaseLock,
    /// Notifies the tasks that are waiting for new transfers.
    Notify,
    /// A request that was sent after a batch that failed. Its reply is ignored, because the writer decides on its
    /// postings again.
    Discarded,
}

/// The replies to a request: one for each statement, in order.
pub(super) type Replies = Vec<Result<Vec<Row>, Error>>;

struct SentRequest {
    request: InFlightRequest,
    at: Instant,
    replies: BoxFuture<'static, Replies>,
}

/// Layout of the replies to a batch: the index of the reply to each statement.
#[derive(Debug, Default)]
pub(super) struct ReplyLayout {
    pub(super) post: usize,
    /// Kinds of companions (rows of other modules) in the batch. The statement of each kind follows the statement that
    /// writes the transfers.
    pub(super) kinds: Vec<&'static CompanionKind>,
    /// Index of the reply to the query for the batch that follows this batch's predecessor. If an earlier attempt
    /// committed this batch, the query finds this batch. `None` unless this batch was resent.
    pub(super) next_seal: Option<usize>,
}

struct Statements {
    post: Statement,
    notify: Statement,
    begin: Statement,
    commit: Statement,
    next_seal: Statement,
    head: Statement,
    keys: Statement,
    late_keys: Statement,
    accounts: Statement,
    catch_up: Statement,
    complete_commits: Statement,
    /// Statements that write rows of other modules (companions), in the order in which the kinds of companions were
    /// registered.
    companions: Vec<(&'static CompanionKind, Statement)>,
}

pub(super) struct Pipeline {
    client: Arc<Client>,
    driver: ConnectionDriver,
    statements: Statements,
    pub(super) backend: Backend,
    sent: VecDeque<SentRequest>,
    throttle: NotifyThrottle,
    is_closed: bool,
}

/// Error: the connection is lost, so the outcome of the requests in flight is unknown.
#[derive(Debug)]
pub(super) struct ConnectionLost;

impl Pipeline {
    /// Opens a connection. Uses it to terminate the server processes (backends) of earlier connections, and to complete
    /// commits to the book that a failure interrupted. Leaves in `old_backends` only the backends that may still be
    /// running.
    pub(super) async fn open(
        database: &Pipelined,
        companions: &[&'static CompanionKind],
        book: i32,
        old_backends: &mut Vec<Backend>,
    ) -> Result<Self, Error> {
        let (client, mut driver, backend) = connect(database, async |client| {
            terminate_backends(client, old_backends).await?;
            client.query(sql::COMPLETE_COMMITS, &[&[book].as_slice()]).await?;
            Backend::read(client).await
        })
        .await?;
        let statements = drive(&mut driver, Statements::prepare(&client, companions)).await?;
        Ok(Self {
            client: Arc::new(client),
            driver,
            statements,
            backend,
            sent: VecDeque::new(),
            throttle: NotifyThrottle::default(),
            is_closed: false,
        })
    }

    pub(super) fn shared_client(&self) -> Arc<Client> {
        Arc::clone(&self.client)
    }

    /// Runs a query outside the pipeline, which must be empty.
    pub(super) async fn run_alone<T>(
        &mut self,
        query: impl Future<Output = Result<T, Error>>,
    ) -> Result<T, Error> {
        debug_assert!(self.sent.is_empty(), "replies arrive in order");
        drive(&mut self.driver, query).await
    }

    /// Number of requests in flight.
    pub(super) fn len(&self) -> usize {
        self.sent.len()
    }

    /// Returns whether a batch is in flight.
    pub(super) fn has_batch(&self) -> bool {
        self.sent.iter().any(|sent| matches!(sent.request, InFlightRequest::Post(..)))
    }

    /// Number of postings in all batches in flight.
    pub(super) fn postings_in_flight(&self) -> usize {
        let sizes = self.sent.iter().map(|sent| match &sent.request {
            InFlightRequest::Post(batch, _) => batch.accepted.len(),
            _ => 0,
        });
        sizes.sum()
    }

    /// Time at which the oldest request in flight was sent.
    pub(super) fn oldest(&self) -> Option<Instant> {
        self.sent.front().map(|sent| sent.at)
    }

    /// Marks the requests in flight as discarded, so that their replies are ignored, and returns the requests.
    pub(super) fn discard_in_flight(&mut self) -> Vec<InFlightRequest> {
        let sent = self.sent.iter_mut();
        sent.map(|sent| std::mem::replace(&mut sent.request, InFlightRequest::Discarded)).collect()
    }

    /// Takes all requests out of the pipeline after the connection was lost.
    pub(super) fn take_in_flight(&mut self) -> Vec<InFlightRequest> {
        self.sent.drain(..).map(|sent| sent.request).collect()
    }

    /// Sends a batch. A batch with companions (rows of other modules) is written in one transaction, which fails as a
    /// whole. `has_begun` is true if the transaction was already begun, by the request that took the book's lock.
    pub(super) fn send_batch(&mut self, book: i32, batch: Batch, has_begun: bool) {
        let notify = self.throttle.record_batch();
        let has_companions = batch.has_companions();
        let mut requests = Vec::new();
        let mut layout = ReplyLayout::default();
        if has_companions && !has_begun {
            layout.post = 1;
            requests.push(self.request(&self.statements.begin, Vec::new()));
        }
        let options = PostOptions { strict: has_companions, notify };
        let columns = PostColumns::new(book, &batch, options);
        let (client, statement) = (Arc::clone(&self.client), self.statements.post.clone());
        requests.push(async move { client.query(&statement, &columns.params()).await }.boxed());
        if has_companions {
            for (kind, statement) in &self.statements.companions {
                let postings = batch.accepted.iter();
                let postings =
                    postings.map(|accepted| (&accepted.item.posting, batch.seq_of(accepted.start)));
                if let Some((count, rows)) = companion_rows(postings, kind) {
                    layout.kinds.push(kind);
                    requests.push(self.request(statement, vec![Box::new(count), Box::new(rows)]));
                }
            }
        }
        if has_companions || has_begun {
            requests.push(self.request(&self.statements.commit, Vec::new()));
        }
        if batch.resent {
            layout.next_seal = Some(requests.len());
            let params: Params = vec![Box::new(book), Box::new(batch.prev.seq)];
            requests.push(self.request(&self.statements.next_seal, params));
        }
        self.push(InFlightRequest::Post(batch, layout), requests);
    }

    /// Sends queries for accounts, then for idempotency keys, then for the head of the book. If the head is still the
    /// expected head, the other results are current.
    pub(super) fn send_lookup(&mut self, book: i32, lookup: Lookup) {
        let accounts: Vec<i64> = lookup.accounts.iter().map(|account| account.0).collect();
        let statements = &self.statements;
        let mut requests = Vec::new();
        let mut keys = &statements.keys;
        if !lookup.refused.is_empty() {
            requests.push(self.request(&statements.complete_commits, vec![Box::new(vec![book])]));
            keys = &statements.late_keys;
        }
        requests.extend([
            self.request(&statements.accounts, vec![Box::new(book), Box::new(accounts)]),
            self.request(keys, vec![Box::new(lookup.keys())]),
            self.request(&statements.head, vec![Box::new(book)]),
        ]);
        self.push(InFlightRequest::Lookup(lookup), requests);
    }

    pub(super) fn send_catch_up(&mut self, book: i32, after: i64, rows_max: i64, lock: bool) {
        let mut requests = Vec::new();
        if lock {
            requests.push(self.request(&self.statements.begin, Vec::new()));
        }
        let params: Params =
            vec![Box::new(book), Box::new(after), Box::new(rows_max), Box::new(lock)];
        requests.push(self.request(&self.statements.catch_up, params));
        self.push(InFlightRequest::CatchUp { after, lock }, requests);
    }

    /// Time at which the tasks that follow the ledger must be notified, unless another batch notifies them earlier;
    /// `None` if no notification is pending.
    pub(super) fn notify_due_at(&self) -> Option<Instant> {
        self.throttle.due_at()
    }

    pub(super) fn send_notify(&mut self, book: i32) {
        self.throttle.record_notification();
        let request = self.request(&self.statements.notify, vec![Box::new(book)]);
        self.push(InFlightRequest::Notify, vec![request]);
    }

    pub(super) fn release_lock(&mut self) {
        let request = self.request(&self.statements.commit, Vec::new());
        self.push(InFlightRequest::ReleaseLock, vec![request]);
    }

    /// Polls for the replies to the oldest request.
    pub(super) fn poll_next(
        &mut self,
        cx: &mut Context<'_>,
    ) -> Poll<Result<(InFlightRequest, Replies), ConnectionLost>> {
        self.is_closed = self.is_closed || self.driver.as_mut().poll(cx).is_ready();
        if let Some(front) = self.sent.front_mut()
            && let Poll::Ready(replies) = front.replies.as_mut().poll(cx)
        {
            if replies.iter().any(|reply| reply.as_ref().is_err_and(is_outcome_unknown)) {
                return Poll::Ready(Err(ConnectionLost));
            }
            let sent = self.sent.pop_front().expect("the front was just polled");
            return Poll::Ready(Ok((sent.request, replies)));
        }
        if self.is_closed { Poll::Ready(Err(ConnectionLost)) } else { Poll::Pending }
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

    fn push(
        &mut self,
        request: InFlightRequest,
        statements: Vec<BoxFuture<'static, Result<Vec<Row>, Error>>>,
    ) {
        let mut replies = join_all(statements).boxed();
        // The first poll of a future hands its statement to the connection.
        let mut no_waker = Context::from_waker(Waker::noop());
        let early = Pin::new(&mut replies).poll(&mut no_waker);
        if let Poll::Ready(early) = early {
            // The connection is closed already.
            replies = std::future::ready(early).boxed();
        }
        self.sent.push_back(SentRequest { request, at: Instant::now(), replies });
    }
}

type Params = Vec<Box<dyn ToSql + Sync + Send>>;

/// Collects the companions (rows of another module) of one kind. `postings` yields each posting with its first seq.
/// Returns the number of companions and a JSON array of them; `None` if there are none.
pub(super) fn companion_rows<'a>(
    postings: impl Iterator<Item = (&'a Posting, i64)>,
    kind: &CompanionKind,
) -> Option<(i32, String)> {
    let mut rows = String::new();
    let mut count = 0;
    for (posting, first_seq) in postings {
        for companion in posting.companions.iter().filter(|companion| companion.kind == kind) {
            companion.write(count, first_seq, &mut rows);
            count += 1;
        }
    }
    rows.push(']');
    if count == 0 { None } else { Some((count, rows)) }
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
            next_seal: client.prepare(sql::NEXT_SEAL).await?,
            head: client.prepare(sql::HEAD).await?,
            keys: client.prepare(sql::KEYS).await?,
            late_keys: client.prepare(sql::LATE_KEYS).await?,
            accounts: client.prepare(sql::ACCOUNTS).await?,
            catch_up: client.prepare(sql::CATCH_UP).await?,
            complete_commits: client.prepare(sql::COMPLETE_COMMITS).await?,
            companions,
        })
    }
}

/// Reads the number of books.
pub(super) async fn read_books(client: &Client) -> Result<i32, Error> {
    client.query_one(sql::BOOKS, &[]).await?.try_get(0)
}

/// Reads the head of the book; `None` if there is no such book.
pub(super) async fn read_head(client: &Client, book: i32) -> Result<Option<BookHead>, Error> {
    client.query_opt(sql::HEAD, &[&book]).await?.map(|row| parse_head(&row)).transpose()
}

/// Parses the head of a book from the first two columns of a row.
pub(super) fn parse_head(row: &Row) -> Result<BookHead, Error> {
    Ok(BookHead { seq: row.try_get(0)?, batch: row.try_get(1)? })
}

/// Time at which a batch was written, from the reply to its statement; `None` if the batch was not written, because
/// another batch already follows its predecessor.
pub(super) fn sealed_at(rows: &[Row]) -> Option<OffsetDateTime> {
    rows.first()?.try_get::<_, Option<OffsetDateTime>>(0).ok().flatten()
}

/// Parses the successor of a batch: returns its id and time; `None` if the batch has no successor.
pub(super) fn next_seal(rows: &[Row]) -> Option<(Uuid, OffsetDateTime)> {
    let row = rows.first()?;
    Some((row.try_get(0).ok()?, row.try_get(1).ok()?))
}
