//! Rows of other slices: with the money or not at all, and in nobody else's way.

use revwallet::ledger::companion::Companion;
use serde::Serialize;

use super::*;

/// Something that only one can own.
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

const TAKEN: &str = "somebody owns it";

#[derive(Serialize)]
struct Owned {
    thing: i64,
}

/// A deposit that brings a row along.
fn buy(key: u128, thing: i64) -> Posting {
    let companion = Companion::new(&OWNED, &Owned { thing }, TAKEN).unwrap();
    Posting { companions: vec![companion], ..deposit(key) }
}

async fn shop() -> Database {
    let database = Database::create().await;
    database.execute("create table owned (thing bigint primary key, transfer bigint)").await;
    database
}

/// The things that are owned, and by which transfer.
async fn owned(database: &Database) -> Vec<(i64, i64)> {
    let mut db = database.connect().await;
    sqlx::query_as("select thing, transfer from owned order by thing")
        .fetch_all(&mut db)
        .await
        .unwrap()
}

fn setup(database: &Database) -> Setup {
    Setup { companions: vec![&OWNED], ..Setup::of(database) }
}

#[tokio::test]
async fn of_many_that_want_the_same_thing_one_gets_it_and_the_others_are_told() {
    let database = shop().await;
    let writer = setup(&database).start().await;
    writer.open().await;
    database.execute("insert into owned values (0, 0)").await;

    // Thing 0 is taken, 1 and 2 are wanted by many, and between them others want nothing special.
    let wishes: Vec<Posting> = (0..60_u128)
        .map(|key| match key % 6 {
            0 => buy(key, 0),
            1 | 2 => buy(key, 1),
            3 => buy(key, 2),
            4 => buy(key, 100 + i64::try_from(key).unwrap()),
            _ => deposit(key),
        })
        .collect();
    let answers =
        join_all(wishes.iter().map(|wish| send_with_retry(&writer.ledger, wish.clone()))).await;

    let done = |rest: usize| {
        let of_kind = answers.iter().skip(rest).step_by(6);
        of_kind.filter(|answer| answer.is_ok()).count()
    };
    assert_eq!([done(0), done(1) + done(2), done(3), done(4), done(5)], [0, 1, 1, 10, 10]);
    let refused = answers.iter().filter_map(|answer| answer.as_ref().err());
    assert!(refused.clone().all(|refusal| *refusal == Refusal::Companion(TAKEN)));
    // Asked again, each is told the same, and nothing happens twice.
    let again =
        join_all(wishes.iter().map(|wish| send_with_retry(&writer.ledger, wish.clone()))).await;
    for (first, again) in answers.iter().zip(&again) {
        match (first, again) {
            (Ok(first), Ok(again)) => assert_eq!(first.first_seq, again.first_seq),
            (first, again) => assert_eq!(first.is_ok(), again.is_ok()),
        }
    }
    writer.stop().await;
    assert_eq!(book(&database).await.balance(ACCOUNT.0), 22);
    let rows = owned(&database).await;
    assert_eq!(rows.len(), 1 + 2 + 10);
    let seqs: Vec<i64> = answers
        .iter()
        .filter_map(|answer| answer.as_ref().ok())
        .map(|posted| posted.first_seq)
        .collect();
    assert!(
        rows.iter().skip(1).all(|(_, transfer)| seqs.contains(transfer)),
        "each with its money"
    );
    database.drop().await;
}

#[tokio::test]
async fn a_failed_batch_takes_nothing_with_it_that_was_behind_it_in_the_pipe() {
    let database = shop().await;
    let mut setup = setup(&database);
    // Batches of two, three in the pipe: each failure has others behind it.
    setup.settings.batch_legs_max = 2;
    let writer = setup.start().await;
    writer.open().await;

    let wishes = (0..120_u128).map(|key| {
        let thing = i64::try_from(key % 40).unwrap();
        send_with_retry(&writer.ledger, if key % 3 == 0 { buy(key, thing) } else { deposit(key) })
    });
    let answers = join_all(wishes).await;

    let done = answers.iter().filter(|answer| answer.is_ok()).count();
    writer.stop().await;
    assert_eq!(book(&database).await.balance(ACCOUNT.0), i64::try_from(done).unwrap());
    let rows = owned(&database).await;
    assert_eq!(done, 80 + rows.len());
    database.drop().await;
}

#[tokio::test]
async fn money_and_row_come_together_wherever_the_connection_breaks() {
    for stage in STAGES {
        let database = shop().await;
        let failpoints = ever_rarer(stage, Fault::Cut);
        let writer = Setup { failpoints, ..setup(&database) }.start().await;
        writer.open().await;

        let wishes = (0..60_u128)
            .map(|key| send_with_retry(&writer.ledger, buy(key, i64::try_from(key / 2).unwrap())));
        let answers = join_all(wishes).await;

        for pair in answers.chunks(2) {
            assert_eq!(
                pair.iter().filter(|answer| answer.is_ok()).count(),
                1,
                "{stage:?} {pair:?}"
            );
        }
        writer.stop().await;
        assert_eq!(book(&database).await.balance(ACCOUNT.0), 30, "{stage:?}");
        assert_eq!(owned(&database).await.len(), 30, "{stage:?}");
        database.drop().await;
    }
}

#[tokio::test]
async fn two_writers_that_sell_the_same_things_sell_each_once() {
    let database = shop().await;
    let writers = [setup(&database).start().await, setup(&database).start().await];
    writers[0].open().await;

    let wishes = (0..80_u128).map(|key| {
        let writer = &writers[usize::from(key % 2 == 0)];
        send_with_retry(&writer.ledger, buy(key, i64::try_from(key / 2).unwrap()))
    });
    let answers = join_all(wishes).await;

    for pair in answers.chunks(2) {
        assert_eq!(pair.iter().filter(|answer| answer.is_ok()).count(), 1, "{pair:?}");
    }
    for writer in writers {
        writer.stop().await;
    }
    assert_eq!(book(&database).await.balance(ACCOUNT.0), 40);
    assert_eq!(owned(&database).await.len(), 40);
    database.drop().await;
}
