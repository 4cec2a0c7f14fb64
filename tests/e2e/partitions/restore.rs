//! Archives that are refused, interrupted, moved elsewhere, changed, and restored.

use super::*;
use crate::harness::postgres::run_client;

#[tokio::test]
async fn a_partition_that_is_still_needed_is_not_archived() {
    run_with(&SETTINGS, async |app| {
        let archive_now = ["partition", "archive", "--older-than=0s"];
        shrink_first_partition(app).await;
        let wallet = app.open_wallet("EUR", "0").await;
        let (code, text) = run_command(app, &archive_now).await;
        assert_eq!((code, text.trim()), (Some(0), "no complete partition is old enough"));
        fill(app, &wallet, ROWS + 10).await;
        wait_for_readers(app).await;
        let (code, text) = run_command(app, &["partition", "archive"]).await;
        assert_eq!((code, text.trim()), (Some(0), "no complete partition is old enough"));
        app.database
            .execute("insert into ledger.cursor (book, name, seq) values (1, 'slow', 5)")
            .await;

        let (code, text) = run_command(app, &archive_now).await;

        assert_eq!(code, Some(1), "{text}");
        assert!(text.contains("these readers have not read partition 0 yet: slow (5)"), "{text}");
        let mut db = app.database.connect().await;
        let kept =
            sqlx::query_scalar::<_, i64>("select count(*) from ledger.transfer where seq < 100");
        assert_eq!(kept.fetch_one(&mut db).await.unwrap(), 99);
        app.database.execute("delete from ledger.cursor where name = 'slow'").await;
    })
    .await;
}

#[tokio::test]
async fn an_archive_that_was_dumped_and_dropped_is_restored() {
    run_with(&SETTINGS, async |app| {
        shrink_first_partition(app).await;
        let wallet = app.open_wallet("EUR", "0").await;
        fill(app, &wallet, ROWS + 10).await;
        archive(app).await;
        let file = std::env::temp_dir().join(format!("revwallet-archive-{}", std::process::id()));
        let (url, path) = (&app.database.url, file.display());
        let table = "ledger.archived_transfer_0";
        run_client(&format!(
            "pg_dump --dbname='{url}' --table={table} --format=custom --file={path}"
        ));
        app.database.execute(&format!("drop table {table}")).await;
        let (code, text) = run_command(app, &["partition", "restore", "0"]).await;
        assert_eq!(code, Some(1), "{text}");
        assert!(
            text.contains("the table ledger.archived_transfer_0 is missing; restore it first"),
            "{text}"
        );
        run_client(&format!("pg_restore --exit-on-error --dbname='{url}' {path}"));
        std::fs::remove_file(&file).unwrap();
        let (code, text) = run_command(app, &["partition", "restore", "0"]).await;
        assert_eq!(code, Some(0), "{text}");
    })
    .await;
}

#[tokio::test]
async fn an_archive_with_the_former_rules_is_restored() {
    run_with(&SETTINGS, async |app| {
        shrink_first_partition(app).await;
        let wallet = app.open_wallet("EUR", "0").await;
        fill(app, &wallet, ROWS + 10).await;
        let before = balance(app, &wallet).await;
        archive(app).await;
        app.database
            .execute(
                "alter table ledger.archived_transfer_0
                    drop column home cascade,
                    add constraint transfer_amount check (0 <= amount),
                    add constraint transfer_floor check (0 <= debit_balance or debit < 0)",
            )
            .await;

        let (code, text) = run_command(app, &["partition", "restore", "0"]).await;

        assert_eq!(code, Some(0), "{text}");
        assert_eq!(balance(app, &wallet).await, before);
        let mut db = app.database.connect().await;
        let rules = sqlx::query_scalar::<_, String>(
            "select string_agg(conname, ' ') from pg_constraint
            where conrelid = 'ledger.transfer_0'::regclass and contype = 'c'",
        );
        assert_eq!(rules.fetch_one(&mut db).await.unwrap(), "transfer_rules");
    })
    .await;
}

#[tokio::test]
async fn an_interrupted_archive_is_continued_or_taken_back() {
    run_with(&SETTINGS, async |app| {
        shrink_first_partition(app).await;
        let wallet = app.open_wallet("EUR", "3").await;
        fill(app, &wallet, ROWS + 10).await;
        wait_for_readers(app).await;
        let before = balance(app, &wallet).await;

        app.database.execute("select ledger.begin_archive(0)").await;

        let (_, list) = run_command(app, &["partition", "list"]).await;
        assert!(list.starts_with("0 to 99: archiving, "), "{list}");
        assert_archived(app, &format!("/wallet/{wallet}/statement")).await;
        assert_eq!(balance(app, &wallet).await, before);
        restore_all(app).await;
        assert_eq!(app.get(&format!("/wallet/{wallet}/statement")).await.status, 200);
        app.database.execute("select ledger.begin_archive(0)").await;
        app.database
            .execute("insert into ledger.cursor (book, name, seq) values (1, 'late', 5)")
            .await;
        let (code, text) = run_command(app, &["partition", "archive", "--older-than=0s"]).await;
        assert_eq!(code, Some(1), "{text}");
        assert!(text.contains("these readers have not read partition 0 yet: late (5)"), "{text}");
        app.database.execute("delete from ledger.cursor where name = 'late'").await;
        let text = archive(app).await;
        assert!(text.contains("partition 0 is archived"), "{text}");
        assert_eq!(balance(app, &wallet).await, before);
        restore_all(app).await;
        assert_eq!(balance(app, &wallet).await, before);
    })
    .await;
}

#[tokio::test]
async fn another_table_than_the_archived_one_is_not_restored() {
    run_with(&SETTINGS, async |app| {
        shrink_first_partition(app).await;
        let wallet = app.open_wallet("EUR", "3").await;
        fill(app, &wallet, ROWS + 10).await;
        archive(app).await;
        let rename = "alter table ledger.archived_transfer_0 rename to aside";
        let back = "drop table ledger.archived_transfer_0; alter table ledger.aside rename to archived_transfer_0";
        for filter in ["false", "seq < 99", "true"] {
            let copy = format!(
                "create table ledger.archived_transfer_0 as select * from ledger.aside where {filter}"
            );
            let change = "update ledger.archived_transfer_0 set credit_balance = credit_balance + 1";
            app.database.execute(rename).await;
            app.database.execute(&copy).await;
            app.database.execute(change).await;

            let (code, text) = run_command(app, &["partition", "restore", "0"]).await;

            assert_eq!(code, Some(1), "{text}");
            assert!(text.contains("is not the one that was archived"), "{text}");
            app.database.execute(back).await;
        }
        restore_all(app).await;
    })
    .await;
}

#[tokio::test]
async fn verify_finds_a_changed_balance_in_an_archive() {
    run_with(&SETTINGS, async |app| {
        shrink_first_partition(app).await;
        let wallet = app.open_wallet("EUR", "3").await;
        app.open_wallet("EUR", "4").await;
        fill(app, &wallet, ROWS + 10).await;
        archive(app).await;
        let change = |by: i64| {
            format!(
                "begin; alter table ledger.transfer_0_rest disable trigger transfer_is_append_only;
                 update ledger.transfer_0_rest set credit_balance = credit_balance + {by} where credit_balance between 400 and 401;
                 alter table ledger.transfer_0_rest enable always trigger transfer_is_append_only; commit"
            )
        };

        app.database.execute(&change(1)).await;

        let (code, report) = run_command(app, &["verify"]).await;
        assert_eq!(code, Some(1), "{report}");
        assert!(report.contains("its balances add up to 1 minor units"), "{report}");
        app.database.execute(&change(-1)).await;
        let (code, report) = run_command(app, &["verify"]).await;
        assert_eq!(code, Some(0), "{report}");
        let seal = sqlx::query_scalar::<_, String>(
            "select seq || ':' || encode(hash, 'hex') from ledger.seal where seq < 90 order by seq desc limit 1",
        );
        let mut db = app.database.connect().await;
        let seal = seal.fetch_one(&mut db).await.unwrap();
        let (code, report) = run_command(app, &["verify", &format!("--anchor={seal}")]).await;
        assert_eq!(code, Some(0), "an anchor in the archive: {report}");
        let wrong = format!("--anchor={}:{}", seal.split(':').next().unwrap(), "0".repeat(64));
        assert_eq!(run_command(app, &["verify", &wrong]).await.0, Some(1));
        let (code, text) = run_command(app, &["partition", "restore", "0"]).await;
        assert_eq!(code, Some(0), "{text}");
    })
    .await;
}
