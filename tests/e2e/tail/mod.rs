//! Readers of the book: each transfer once and in order, with many processes and under faults.

mod auditor;

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::{Duration, Instant};

use futures_util::future::join_all;
use revwallet::error::{Error, Result};
use revwallet::ledger::read::BookRow;
use revwallet::ledger::tail::{
    Events, LiveReader, NotifyChannel, Position, ReaderOptions, Segment, SegmentHandler, Source,
    Tail, TailOptions, Transfers, append_event,
};
use revwallet::tasks::Tasks;
use revwallet::telemetry::{Exposition, ExpositionFormat, Metrics};
use serde_json::json;
use serde_json::value::RawValue;
use sqlx::postgres::{PgConnectOptions, PgPoolOptions};
use sqlx::{Connection, Executor, PgConnection};
use tokio::sync::mpsc;

use crate::harness::postgres::Database;
use crate::harness::{TestApp, eventually, run};

/// A simulated process with readers of its own.
struct Process {
    tail: Tail,
    tasks: Tasks,
    metrics: Arc<Metrics>,
}

impl Process {
    fn start(database: &Database) -> Self {
        let (tasks, metrics) = (Tasks::default(), Metrics::new());
        let listener: PgConnectOptions = database.url.parse().unwrap();
        let pool = PgPoolOptions::new().max_connections(8).connect_lazy_with(listener.clone());
        let options = TailOptions { pool, listener, books: 1, metrics: Arc::clone(&metrics) };
        let tail = Tail::start(options, &tasks);
        Self { tail, tasks, metrics }
    }

    fn metric(&self, line: &str) -> f64 {
        let text =
            Exposition::new(Arc::clone(&self.metrics), []).render(ExpositionFormat::Prometheus);
        let value = text.lines().find_map(|found| found.strip_prefix(line)?.trim().parse().ok());
        value.unwrap_or_else(|| panic!("no {line} in {text}"))
    }

    async fn stop(self) {
        assert!(self.tasks.stop(Duration::from_secs(10)).await, "a reader did not stop");
    }
}

fn reader(name: &'static str) -> ReaderOptions {
    ReaderOptions { name, items_max: 7, pause: Duration::ZERO, pause_steps: 0 }
}

/// Records each seq in a table; fails periodically, after it has written.
struct SeqRecorder {
    attempts: u32,
    fails_every: u32,
}

impl<S: Source<Item = BookRow>> SegmentHandler<S> for SeqRecorder {
    async fn apply(&mut self, db: &mut PgConnection, segment: &Segment<BookRow>) -> Result<()> {
        let seqs: Vec<i64> = segment.items.iter().map(|row| row.seq).collect();
        sqlx::query("insert into recorded (seq) select unnest($1::bigint[])")
            .bind(&seqs)
            .execute(db)
            .await?;
        self.attempts += 1;
        if self.attempts.is_multiple_of(self.fails_every) {
            return Err(Error::Internal(anyhow::anyhow!("injected failure")));
        }
        Ok(())
    }
}

/// Takes a while for each segment, and reports when it began and ended.
struct SlowHandler(mpsc::UnboundedSender<(Instant, Instant)>);

impl<S: Source> SegmentHandler<S> for SlowHandler {
    async fn apply(&mut self, _: &mut PgConnection, _: &Segment<S::Item>) -> Result<()> {
        let began = Instant::now();
        tokio::time::sleep(Duration::from_millis(30)).await;
        self.0.send((began, Instant::now())).unwrap();
        Ok(())
    }
}

/// Source of every tenth transfer.
struct Tenths;

impl Source for Tenths {
    type Item = BookRow;

    const CHANNEL: NotifyChannel = NotifyChannel::Book;

    async fn read(
        db: &mut PgConnection,
        book: i32,
        after: Position,
        max: i64,
    ) -> sqlx::Result<Segment<BookRow>> {
        let mut segment = Transfers::read(db, book, after, max).await?;
        segment.items.retain(|row| row.seq % 10 == 0);
        Ok(segment)
    }

    async fn end(db: &mut PgConnection, book: i32) -> sqlx::Result<Position> {
        Transfers::end(db, book).await
    }

    async fn lag(db: &mut PgConnection, book: i32, position: Position) -> sqlx::Result<i64> {
        Transfers::lag(db, book, position).await
    }

    fn position_of(row: &BookRow) -> Position {
        Transfers::position_of(row)
    }
}

async fn create_recorded_table(database: &Database) {
    database.execute("create table recorded (n bigserial, seq bigint)").await;
    database.execute("grant all on recorded, recorded_n_seq to public").await;
}

async fn recorded_seqs(database: &Database) -> Vec<i64> {
    let mut db = database.connect().await;
    sqlx::query_scalar("select seq from recorded order by n").fetch_all(&mut db).await.unwrap()
}

async fn head(database: &Database) -> i64 {
    let mut db = database.connect().await;
    sqlx::query_scalar("select max(seq) from ledger.seal").fetch_one(&mut db).await.unwrap()
}

/// The position of a reader; none before it has one.
async fn cursor(database: &Database, name: &str) -> Option<i64> {
    let mut db = database.connect().await;
    let seq = sqlx::query_scalar("select seq from ledger.cursor where name = $1").bind(name);
    seq.fetch_optional(&mut db).await.unwrap()
}

/// Opens a wallet and makes this many deposits.
async fn deposits(app: &TestApp, count: usize) {
    let wallet = app.open_wallet("EUR", "1").await;
    let body = json!({ "id": wallet, "amount": 1 });
    join_all((0..count).map(|_| app.post("/wallet/deposit", body.clone()))).await;
}

async fn read_to<S: Source>(live: &mut LiveReader<S>, end: i64) -> Vec<i64> {
    let mut seqs = Vec::new();
    while live.position().seq < end {
        let segment = live.next().await.unwrap();
        seqs.extend(segment.items.iter().map(|item| S::position_of(item).seq));
    }
    seqs
}

#[tokio::test]
async fn each_transfer_takes_effect_once_and_in_order_across_processes() {
    run(async |app| {
        create_recorded_table(&app.database).await;
        let processes = [Process::start(&app.database), Process::start(&app.database)];
        for process in &processes {
            let recorder = |_| SeqRecorder { attempts: 0, fails_every: 3 };
            let reader = reader("recorder");
            process.tail.follow::<Transfers, _>(reader, recorder, &process.tasks);
        }

        for _ in 0..4 {
            deposits(app, 20).await;
            // Both readers and their listeners must reconnect.
            app.database
                .execute(
                    "select pg_terminate_backend(pid) from pg_stat_activity
                     where datname = current_database() and application_name = '' and pid <> pg_backend_pid()",
                )
                .await;
        }

        let end = head(&app.database).await;
        let all: Vec<i64> = (1..=end).collect();
        eventually("all took effect", async || recorded_seqs(&app.database).await.len() >= all.len()).await;
        assert_eq!(recorded_seqs(&app.database).await, all);
        for process in processes {
            process.stop().await;
        }
        assert_eq!(recorded_seqs(&app.database).await, all);
    })
    .await;
}

#[tokio::test]
async fn a_reader_starts_at_the_beginning_and_resumes_at_its_cursor() {
    run(async |app| {
        create_recorded_table(&app.database).await;
        deposits(app, 3).await;
        let follow = async || {
            let process = Process::start(&app.database);
            let recorder = |_| SeqRecorder { attempts: 0, fails_every: u32::MAX };
            process.tail.follow::<Transfers, _>(reader("recorder"), recorder, &process.tasks);
            process
        };
        let has_read =
            async || cursor(&app.database, "recorder").await == Some(head(&app.database).await);

        let process = follow().await;
        eventually("it has read what was there", has_read).await;
        deposits(app, 3).await;
        eventually("it has read what came", has_read).await;
        process.stop().await;
        deposits(app, 3).await;
        let process = follow().await;
        eventually("it has resumed", has_read).await;
        process.stop().await;

        let end = head(&app.database).await;
        assert_eq!(recorded_seqs(&app.database).await, (1..=end).collect::<Vec<_>>());
    })
    .await;
}

#[tokio::test]
async fn a_reader_pauses_in_proportion_to_its_steps() {
    run(async |app| {
        let process = Process::start(&app.database);
        let (sender, mut steps) = mpsc::unbounded_channel();
        let options = ReaderOptions { items_max: 1_000, pause_steps: 3, ..reader("slow") };
        process.tail.follow::<Transfers, _>(
            options,
            |_| SlowHandler(sender.clone()),
            &process.tasks,
        );

        let mut previous: Option<(Instant, Instant)> = None;
        for _ in 0..4 {
            deposits(app, 1).await;
            let step = steps.recv().await.unwrap();
            if let Some((began, ended)) = previous.replace(step) {
                assert!(step.0 - ended >= (ended - began) * 3, "the pause is too short");
            }
        }
        process.stop().await;
    })
    .await;
}

#[tokio::test]
async fn a_reader_passes_what_its_source_leaves_out() {
    run(async |app| {
        create_recorded_table(&app.database).await;
        let process = Process::start(&app.database);
        let recorder = |_| SeqRecorder { attempts: 0, fails_every: u32::MAX };
        let options = reader("tenths");
        process.tail.follow::<Tenths, _>(options, recorder, &process.tasks);

        for _ in 0..3 {
            deposits(app, 25).await;
            let end = head(&app.database).await;
            eventually("the reader is at the end", async || {
                cursor(&app.database, "tenths").await == Some(end)
            })
            .await;
            let tenths: Vec<i64> = (10..=end).step_by(10).collect();
            assert_eq!(recorded_seqs(&app.database).await, tenths);
        }
        process.stop().await;
    })
    .await;
}

#[tokio::test]
async fn a_process_reports_the_lag_of_a_reader_that_another_process_runs() {
    run(async |app| {
        let mut other = app.database.connect().await;
        let process = Process::start(&app.database);
        app.database
            .execute("insert into ledger.cursor (book, name, seq) values (1, 'busy', 0)")
            .await;
        let mut tx = other.begin().await.unwrap();
        tx.execute("select from ledger.cursor where name = 'busy' for update").await.unwrap();
        deposits(app, 3).await;

        create_recorded_table(&app.database).await;
        let recorder = |_| SeqRecorder { attempts: 0, fails_every: u32::MAX };
        let options = reader("busy");
        process.tail.follow::<Transfers, _>(options, recorder, &process.tasks);

        let lag = r#"wallet_book_reader_lag_transfers{reader="busy",book="1"}"#;
        let expected = f64::from(u32::try_from(head(&app.database).await).unwrap());
        eventually("the lag is reported", async || {
            let text = Exposition::new(Arc::clone(&process.metrics), [])
                .render(ExpositionFormat::Prometheus);
            text.contains(lag) && (process.metric(lag) - expected).abs() < 0.5
        })
        .await;
        assert!(recorded_seqs(&app.database).await.is_empty(), "another process holds the cursor");
        tx.rollback().await.unwrap();
        eventually("the reader takes over the cursor", async || {
            !recorded_seqs(&app.database).await.is_empty()
        })
        .await;
        process.stop().await;
    })
    .await;
}

#[tokio::test]
async fn live_readers_get_each_transfer_once_from_any_start() {
    run(async |app| {
        deposits(app, 30).await;
        let process = Process::start(&app.database);
        let middle = head(&app.database).await;
        let mut starts = vec![None, Some(0), Some(middle - 5), Some(middle)];
        let mut lives = Vec::new();
        for start in starts.drain(..) {
            let live = process.tail.live_transfers(1, start.map(Position::after)).await.unwrap();
            lives.push((start.unwrap_or(middle), live));
        }

        let writing = async {
            for _ in 0..5 {
                deposits(app, 30).await;
            }
            head(&app.database).await
        };
        let end = middle + 5 * 32;
        let reading = join_all(
            lives.iter_mut().map(async |(start, live)| (*start, read_to(live, end).await)),
        );
        let (written, read) = futures_util::future::join(writing, reading).await;

        assert_eq!(written, end);
        for (start, seqs) in read {
            assert_eq!(seqs, (start + 1..=end).collect::<Vec<_>>(), "from {start}");
        }
        drop(lives);
        process.stop().await;
    })
    .await;
}

#[tokio::test]
async fn live_readers_share_reads_and_without_readers_there_are_none() {
    run(async |app| {
        let process = Process::start(&app.database);
        let reads =
            |by: &str| process.metric(&format!(r#"wallet_book_live_reads_total{{by="{by}"}}"#));
        deposits(app, 20).await;
        assert!(
            reads("hub") < 0.5 && reads("reader") < 0.5,
            "the book was read without a live reader"
        );
        let begin = head(&app.database).await;
        let mut lives = Vec::new();
        for _ in 0..50 {
            lives.push(process.tail.live_transfers(1, None).await.unwrap());
        }

        let end = begin + 22;
        let reading = join_all(lives.iter_mut().map(|live| read_to(live, end)));
        let ((), read) = futures_util::future::join(deposits(app, 20), reading).await;

        assert!(read.iter().all(|seqs| *seqs == (begin + 1..=end).collect::<Vec<_>>()));
        // Only a reader that subscribed before the hub had started may read by itself.
        assert!(reads("hub") <= 60.0, "{} reads for 22 transfers", reads("hub"));
        assert!(reads("reader") <= 50.0, "{} reads of 50 readers", reads("reader"));
        process.stop().await;
    })
    .await;
}

#[tokio::test]
async fn a_slow_live_reader_reads_what_it_missed() {
    run(async |app| {
        let process = Process::start(&app.database);
        let begin = head(&app.database).await;
        let mut slow = process.tail.live_transfers(1, None).await.unwrap();
        let mut quick = process.tail.live_transfers(1, None).await.unwrap();
        let wallet = app.open_wallet("EUR", "1").await;
        // Read one by one, so that each transfer is a segment of its own: more than the broadcast buffer holds.
        for last in begin + 3..=begin + 102 {
            app.post("/wallet/deposit", json!({ "id": wallet, "amount": 1 })).await;
            read_to(&mut quick, last).await;
        }

        let seqs = read_to(&mut slow, begin + 102).await;

        assert_eq!(seqs, (begin + 1..=begin + 102).collect::<Vec<_>>());
        assert!(process.metric(r#"wallet_book_live_reads_total{by="reader"}"#) >= 1.0);
        process.stop().await;
    })
    .await;
}

fn body(n: u32) -> Box<RawValue> {
    RawValue::from_string(json!({ "n": n }).to_string()).unwrap()
}

#[tokio::test]
async fn events_that_commit_out_of_order_are_neither_missed_nor_repeated() {
    let database = Database::create().await;
    let process = Process::start(&database);
    let mut live = process.tail.live_events().await.unwrap();
    let (mut first, mut second) = (database.connect().await, database.connect().await);
    let mut early = first.begin().await.unwrap();
    append_event(&mut early, "test", &body(1), None).await.unwrap();
    let mut late = second.begin().await.unwrap();
    append_event(&mut late, "test", &body(2), None).await.unwrap();

    late.commit().await.unwrap();

    let too_early = tokio::time::timeout(Duration::from_millis(300), live.next()).await;
    assert!(
        too_early.is_err() || too_early.unwrap().unwrap().items.is_empty(),
        "the first event may still commit"
    );
    early.commit().await.unwrap();
    let mut bodies = Vec::new();
    while bodies.len() < 2 {
        bodies.extend(live.next().await.unwrap().items.iter().map(|event| event.body.clone()));
    }
    assert_eq!(bodies, [r#"{"n":1}"#, r#"{"n":2}"#]);
    drop(live);
    process.stop().await;
    database.drop().await;
}

#[tokio::test]
async fn events_stay_in_order_in_a_database_that_was_restored_elsewhere() {
    let database = Database::create().await;
    let mut db = database.connect().await;
    // An event with a high transaction id, as in a dump from a server with more transactions.
    database
        .execute(
            "insert into ledger.event (xid, book, topic, body)
             values (9000000000, 1, 'old', '{}')",
        )
        .await;

    database.execute("select ledger.mend_event_shift()").await;
    database.execute("select ledger.mend_event_shift()").await;
    append_event(&mut db, "new", &body(1), None).await.unwrap();

    // Other transactions of this server may delay the horizon for a moment.
    let mut items = Vec::new();
    eventually("both events are readable", async || {
        items = Events::read(&mut db, 1, Position::default(), 10).await.unwrap().items;
        items.len() == 2
    })
    .await;
    let topics: Vec<_> = items.iter().map(|event| event.topic.as_str()).collect();
    assert_eq!(topics, ["old", "new"]);
    let positions: BTreeSet<_> = items.iter().map(|event| event.position).collect();
    assert_eq!(positions.len(), 2);
    db.close().await.unwrap();
    database.drop().await;
}
