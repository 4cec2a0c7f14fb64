//! Companions: they commit with their posting or not at all, and do not affect other postings.

use revwallet::ledger::companion::Companion;
use serde::Serialize;

use super::*;

/// A thing with at most one owner.
static OWNED: CompanionKind = CompanionKind {
    name: "test.owned",
    sql: "
with input as (
    select * from json_to_recordset($2::text::json) as (n int, seq bigint, thing bigint)
), done as (
    insert into public.owned (thing, transfer)
    select distinct on (thing) thing, seq from input order by thing, n
    on conflict do nothing
    returning thing
), took as (
    select distinct on (thing) n from input join done using (thing) order by thing, n
)",
};

const TAKEN: &str = "it already has an owner";

#[derive(Serialize)]
struct Owned {
    thing: i64,
}

/// A deposit with a companion row.
fn buy(key: u128, thing: i64) -> Posting {
    let companion = Companion::new(&OWNED, &Owned { thing }, TAKEN).unwrap();
    Posting { companions: vec![companion], ..deposit(key) }
}

async fn create_database() -> Database {
    let database = Database::create().await;
    database.execute("create table owned (thing bigint primary key, transfer bigint)").await;
    database
}

/// The owned things, each with its transfer.
async fn owned_things(database: &Database) -> Vec<(i64, i64)> {
    let mut db = database.connect().await;
    sqlx::query_as("select thing, transfer from owned order by thing")
        .fetch_all(&mut db)
        .await
        .unwrap()
}

fn setup(database: &Database) -> Setup {
    Setup { companions: vec![&OWNED], ..Setup::new(database) }
}

#[tokio::test]
async fn of_many_postings_for_the_same_thing_one_succeeds_and_the_others_are_refused() {
    let database = create_database().await;
    let writer = setup(&database).start().await;
    writer.open().await;
    database.execute("insert into owned values (0, 0)").await;

    // Thing 0 is taken, many postings want 1 and 2, and the postings in between do not conflict.
    let postings: Vec<Posting> = (0..60_u128)
        .map(|key| match key % 6 {
            0 => buy(key, 0),
            1 | 2 => buy(key, 1),
            3 => buy(key, 2),
            4 => buy(key, 100 + i64::try_from(key).unwrap()),
            _ => deposit(key),
        })
        .collect();
    let answers =
        join_all(postings.iter().map(|posting| send_with_retry(&writer.ledger, posting.clone())))
            .await;

    let done = |rest: usize| {
        let of_kind = answers.iter().skip(rest).step_by(6);
        of_kind.filter(|answer| answer.is_ok()).count()
    };
    assert_eq!([done(0), done(1) + done(2), done(3), done(4), done(5)], [0, 1, 1, 10, 10]);
    let refused = answers.iter().filter_map(|answer| answer.as_ref().err());
    assert!(refused.clone().all(|refusal| *refusal == Refusal::Companion(TAKEN)));
    // On retry each posting gets the same reply, and is not written twice.
    let again =
        join_all(postings.iter().map(|posting| send_with_retry(&writer.ledger, posting.clone())))
            .await;
    for (first, again) in answers.iter().zip(&again) {
        match (first, again) {
            (Ok(first), Ok(again)) => assert_eq!(first.first_seq, again.first_seq),
            (first, again) => assert_eq!(first.is_ok(), again.is_ok()),
        }
    }
    writer.stop().await;
    assert_eq!(book(&database).await.balance(ACCOUNT.0), 22);
    let rows = owned_things(&database).await;
    assert_eq!(rows.len(), 1 + 2 + 10);
    let seqs: Vec<i64> = answers
        .iter()
        .filter_map(|answer| answer.as_ref().ok())
        .map(|posted| posted.first_seq)
        .collect();
    assert!(
        rows.iter().skip(1).all(|(_, transfer)| seqs.contains(transfer)),
        "each row must name its transfer"
    );
    database.drop().await;
}

#[tokio::test]
async fn a_failed_batch_does_not_fail_later_batches_in_the_pipeline() {
    let database = create_database().await;
    let mut setup = setup(&database);
    // Batches of two, three of them in flight: each failed batch has later ones in the pipeline.
    setup.settings.batch_legs_max = 2;
    let writer = setup.start().await;
    writer.open().await;

    let postings = (0..120_u128).map(|key| {
        let thing = i64::try_from(key % 40).unwrap();
        send_with_retry(&writer.ledger, if key % 3 == 0 { buy(key, thing) } else { deposit(key) })
    });
    let answers = join_all(postings).await;

    let done = answers.iter().filter(|answer| answer.is_ok()).count();
    writer.stop().await;
    assert_eq!(book(&database).await.balance(ACCOUNT.0), i64::try_from(done).unwrap());
    let rows = owned_things(&database).await;
    assert_eq!(done, 80 + rows.len());
    database.drop().await;
}

#[tokio::test]
async fn posting_and_companion_commit_together_wherever_the_connection_breaks() {
    for stage in STAGES {
        let database = create_database().await;
        let failpoints = at_growing_intervals(stage, InjectedFault::CutConnection);
        let writer = Setup { failpoints, ..setup(&database) }.start().await;
        writer.open().await;

        let postings = (0..60_u128)
            .map(|key| send_with_retry(&writer.ledger, buy(key, i64::try_from(key / 2).unwrap())));
        let answers = join_all(postings).await;

        for pair in answers.chunks(2) {
            assert_eq!(
                pair.iter().filter(|answer| answer.is_ok()).count(),
                1,
                "{stage:?} {pair:?}"
            );
        }
        writer.stop().await;
        assert_eq!(book(&database).await.balance(ACCOUNT.0), 30, "{stage:?}");
        assert_eq!(owned_things(&database).await.len(), 30, "{stage:?}");
        database.drop().await;
    }
}

#[tokio::test]
async fn two_writers_sell_each_thing_once() {
    let database = create_database().await;
    let writers = [setup(&database).start().await, setup(&database).start().await];
    writers[0].open().await;

    let postings = (0..80_u128).map(|key| {
        let writer = &writers[usize::from(key % 2 == 0)];
        send_with_retry(&writer.ledger, buy(key, i64::try_from(key / 2).unwrap()))
    });
    let answers = join_all(postings).await;

    for pair in answers.chunks(2) {
        assert_eq!(pair.iter().filter(|answer| answer.is_ok()).count(), 1, "{pair:?}");
    }
    for writer in writers {
        writer.stop().await;
    }
    assert_eq!(book(&database).await.balance(ACCOUNT.0), 40);
    assert_eq!(owned_things(&database).await.len(), 40);
    database.drop().await;
}
