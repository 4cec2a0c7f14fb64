//! Startup failures of the embedded Postgres in one sentence, and cleanup after crashes.

use super::*;

#[tokio::test]
async fn a_data_directory_that_is_not_writable_is_refused() {
    let mut folder = Folder::new();
    let file = folder.top.join("file");
    fs::write(&file, "").expect("the folder is writable");
    folder.data_dir = file.join("data");
    let error = folder.start_error(&folder.args()).await;
    assert!(error.contains("--data-dir") && error.contains("cannot be created"), "{error}");

    folder.data_dir = folder.top.join("closed");
    fs::create_dir(&folder.data_dir).expect("the folder is new");
    fs::set_permissions(&folder.data_dir, Permissions::from_mode(0o555))
        .expect("the folder is ours");
    if !geteuid().is_root() {
        let error = folder.start_error(&folder.args()).await;
        assert!(error.contains("--data-dir") && error.contains("cannot be written"), "{error}");
    }
}

#[tokio::test]
async fn a_folder_that_is_not_a_cluster_is_not_touched() {
    let folder = Folder::new();
    fs::create_dir_all(folder.data_dir.join("postgres")).expect("the folder is new");
    fs::write(folder.data_dir.join("postgres/letter"), "dear").expect("the folder is writable");

    let error = folder.start_error(&folder.args()).await;

    assert!(error.contains("is not a Postgres cluster"), "{error}");
    assert!(folder.data_dir.join("postgres/letter").exists());
}

#[tokio::test]
async fn a_folder_without_binaries_is_refused() {
    let folder = Folder::new();
    let args = EmbeddedArgs { postgres_bin: Some(folder.top.clone()), ..folder.args() };

    let error = folder.start_error(&args).await;

    assert!(error.contains("REVWALLET_POSTGRES_BIN"), "{error}");
}

#[tokio::test]
async fn a_postgres_that_is_too_old_is_refused() {
    let folder = Folder::new();
    script(&folder.top.join("postgres"), "#!/bin/sh\necho 'postgres (PostgreSQL) 14.9'\n");
    script(&folder.top.join("initdb"), "#!/bin/sh\n");
    let args = EmbeddedArgs { postgres_bin: Some(folder.top.clone()), ..folder.args() };

    let error = folder.start_error(&args).await;

    assert!(error.contains("15 or newer is needed"), "{error}");
}

#[tokio::test]
async fn a_cluster_of_a_version_that_is_not_installed_is_refused() {
    let folder = Folder::new();
    folder.start().await.stop().await;
    fs::write(folder.cluster().join("PG_VERSION"), "99\n").expect("the file is writable");

    let error = folder.start_error(&folder.args()).await;

    assert!(error.contains("install PostgreSQL 99"), "{error}");
}

#[tokio::test]
async fn the_error_of_a_failed_postgres_start_is_quoted() {
    let folder = Folder::new();
    folder.start().await.stop().await;
    let invalid = vec![("shared_buffers".to_owned(), "many".to_owned())];

    let error = Embedded::start_with(&folder.args(), invalid).await.expect_err("the start fails");

    let error = error.to_string();
    assert!(error.contains("shared_buffers") && error.contains("postgres.log"), "{error}");
}

#[tokio::test]
async fn a_start_succeeds_after_a_program_was_killed_during_its_first_start() {
    let folder = Folder::new();
    for wait_ms in [30, 100, 200, 300, 400, 500, 700] {
        let mut program = folder.spawn_holder();
        sleep(Duration::from_millis(wait_ms)).await;
        program.kill().expect("the child is ours");
        program.wait().expect("the child is ours");
    }

    let embedded = folder.start().await;

    execute(&embedded, "create table note as select 1").await;
    embedded.stop().await;
    folder.assert_no_process().await;
}

#[tokio::test]
async fn files_of_an_interrupted_initdb_are_removed() {
    let folder = Folder::new();
    let partial = folder.data_dir.join("postgres.new.1");
    fs::create_dir_all(partial.join("base")).expect("the folder is new");
    fs::write(partial.join("PG_VERSION"), "15\n").expect("the folder is writable");

    let embedded = folder.start().await;

    assert!(!partial.exists());
    embedded.stop().await;
}

#[tokio::test]
async fn a_large_log_is_rotated() {
    let folder = Folder::new();
    fs::create_dir(&folder.data_dir).expect("the folder is new");
    let log = folder.data_dir.join("postgres.log");
    File::create(&log).and_then(|file| file.set_len(11 << 20)).expect("the disk has room");

    let embedded = folder.start().await;

    assert_eq!(
        folder.data_dir.join("postgres.log.1").metadata().expect("the old log exists").len(),
        11 << 20
    );
    assert!(log.metadata().expect("a new log exists").len() < 1 << 20);
    embedded.stop().await;
}

#[tokio::test]
async fn every_installed_version_works() {
    let versions = installed().await.expect("the versions can be listed");
    assert!(!versions.is_empty());
    for binaries in versions {
        let folder = Folder::new();
        let args = EmbeddedArgs { postgres_bin: Some(binaries.folder), ..folder.args() };

        let embedded = folder.try_start(&args).await.expect("Postgres starts");

        assert_eq!(embedded.version(), format!("{}.{}", binaries.major, binaries.minor));
        embedded.stop().await;
        folder.assert_no_process().await;
    }
}
