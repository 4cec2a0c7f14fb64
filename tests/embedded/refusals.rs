//! What it refuses, in one sentence; and what it clears away.

use super::*;

#[tokio::test]
async fn a_data_directory_that_cannot_be_written_is_one_sentence() {
    let mut folder = Folder::new();
    let file = folder.top.join("file");
    fs::write(&file, "").expect("a file");
    folder.data_dir = file.join("data");
    let sentence = folder.refusal(&folder.args()).await;
    assert!(
        sentence.contains("--data-dir") && sentence.contains("cannot be created"),
        "{sentence}"
    );

    folder.data_dir = folder.top.join("closed");
    fs::create_dir(&folder.data_dir).expect("it is new");
    fs::set_permissions(&folder.data_dir, Permissions::from_mode(0o555)).expect("it is ours");
    if !geteuid().is_root() {
        let sentence = folder.refusal(&folder.args()).await;
        assert!(
            sentence.contains("--data-dir") && sentence.contains("cannot be written"),
            "{sentence}"
        );
    }
}

#[tokio::test]
async fn a_folder_that_is_no_cluster_is_not_touched() {
    let folder = Folder::new();
    fs::create_dir_all(folder.data_dir.join("postgres")).expect("it is new");
    fs::write(folder.data_dir.join("postgres/letter"), "dear").expect("a file");

    let sentence = folder.refusal(&folder.args()).await;

    assert!(sentence.contains("is not a Postgres cluster"), "{sentence}");
    assert!(folder.data_dir.join("postgres/letter").exists());
}

#[tokio::test]
async fn a_folder_without_binaries_is_one_sentence() {
    let folder = Folder::new();
    let args = EmbeddedArgs { postgres_bin: Some(folder.top.clone()), ..folder.args() };

    let sentence = folder.refusal(&args).await;

    assert!(sentence.contains("REVWALLET_POSTGRES_BIN"), "{sentence}");
}

#[tokio::test]
async fn a_postgres_that_is_too_old_is_one_sentence() {
    let folder = Folder::new();
    script(&folder.top.join("postgres"), "#!/bin/sh\necho 'postgres (PostgreSQL) 14.9'\n");
    script(&folder.top.join("initdb"), "#!/bin/sh\n");
    let args = EmbeddedArgs { postgres_bin: Some(folder.top.clone()), ..folder.args() };

    let sentence = folder.refusal(&args).await;

    assert!(sentence.contains("15 or newer is needed"), "{sentence}");
}

#[tokio::test]
async fn a_cluster_of_a_version_that_is_not_installed_is_one_sentence() {
    let folder = Folder::new();
    folder.start().await.stop().await;
    fs::write(folder.cluster().join("PG_VERSION"), "99\n").expect("it can be written");

    let sentence = folder.refusal(&folder.args()).await;

    assert!(sentence.contains("install PostgreSQL 99"), "{sentence}");
}

#[tokio::test]
async fn a_postgres_that_gives_up_is_quoted() {
    let folder = Folder::new();
    folder.start().await.stop().await;
    let wrong = vec![("shared_buffers".to_owned(), "many".to_owned())];

    let error = Embedded::start_with(&folder.args(), wrong).await.expect_err("it cannot start");

    let sentence = error.to_string();
    assert!(sentence.contains("shared_buffers") && sentence.contains("postgres.log"), "{sentence}");
}

#[tokio::test]
async fn a_program_killed_at_any_moment_of_its_first_start_does_not_spoil_the_next() {
    let folder = Folder::new();
    for wait_ms in [30, 100, 200, 300, 400, 500, 700] {
        let mut program = folder.spawn_other_program();
        sleep(Duration::from_millis(wait_ms)).await;
        program.kill().expect("it is ours");
        program.wait().expect("it is ours");
    }

    let embedded = folder.start().await;

    execute(&embedded, "create table note as select 1").await;
    embedded.stop().await;
    folder.nothing_is_left().await;
}

#[tokio::test]
async fn what_an_interrupted_initdb_left_is_removed() {
    let folder = Folder::new();
    let half = folder.data_dir.join("postgres.new.1");
    fs::create_dir_all(half.join("base")).expect("it is new");
    fs::write(half.join("PG_VERSION"), "15\n").expect("a file");

    let embedded = folder.start().await;

    assert!(!half.exists());
    embedded.stop().await;
}

#[tokio::test]
async fn a_large_log_is_put_aside() {
    let folder = Folder::new();
    fs::create_dir(&folder.data_dir).expect("it is new");
    let log = folder.data_dir.join("postgres.log");
    File::create(&log).and_then(|file| file.set_len(11 << 20)).expect("a large file");

    let embedded = folder.start().await;

    assert_eq!(
        folder.data_dir.join("postgres.log.1").metadata().expect("it was put aside").len(),
        11 << 20
    );
    assert!(log.metadata().expect("there is a new one").len() < 1 << 20);
    embedded.stop().await;
}

#[tokio::test]
async fn every_version_on_this_machine_works() {
    let all = installed().await.expect("there is an account for it");
    assert!(!all.is_empty());
    for binaries in all {
        let folder = Folder::new();
        let args = EmbeddedArgs { postgres_bin: Some(binaries.folder), ..folder.args() };

        let embedded = folder.try_start(&args).await.expect("it starts");

        assert_eq!(embedded.version(), format!("{}.{}", binaries.major, binaries.minor));
        embedded.stop().await;
        folder.nothing_is_left().await;
    }
}
