//! Data directories: unusual names, long paths, restricted parents, moved folders.

use super::*;

#[tokio::test]
async fn it_starts_in_a_folder_with_special_characters() {
    let mut folder = Folder::new();
    folder.data_dir = folder.top.join("a b, c'd \"é\" $HOME * -D x");

    let embedded = folder.start().await;

    let again = folder.start().await;
    assert!(again.is_joined());
    embedded.stop().await;
    folder.assert_no_process().await;
}

#[tokio::test]
async fn it_starts_in_a_folder_with_a_long_path() {
    for length in [300, 890] {
        let folder = Folder::deep(length);
        let embedded = folder.start().await;
        assert!(
            folder.cluster().starts_with(&folder.top),
            "the cluster is not in its data directory of {length} bytes"
        );
        embedded.stop().await;
    }
}

#[tokio::test]
async fn with_a_path_too_long_for_postgres_the_cluster_is_elsewhere_and_found_again() {
    let folder = Folder::deep(1100);
    let first = folder.start().await;
    execute(&first, "create table note as select 1").await;
    first.stop().await;
    assert!(!folder.cluster().starts_with(&folder.top));

    let second = folder.start().await;

    assert_eq!(count_notes(&second).await, 1);
    second.stop().await;
}

#[tokio::test]
async fn it_starts_in_a_folder_that_other_users_cannot_enter() {
    let folder = Folder::new();
    fs::set_permissions(&folder.top, Permissions::from_mode(0o700)).expect("the folder is ours");

    let embedded = folder.start().await;

    execute(&embedded, "create table note as select 1").await;
    assert_eq!(folder.cluster().starts_with(&folder.top), !geteuid().is_root());
    embedded.stop().await;
    folder.assert_no_process().await;
}

#[tokio::test]
async fn a_moved_data_directory_keeps_its_cluster() {
    let mut folder = Folder::new();
    let first = folder.start().await;
    execute(&first, "create table note as select 1").await;
    first.stop().await;

    let moved = folder.top.join("moved");
    fs::rename(&folder.data_dir, &moved).expect("the folder can be moved");
    folder.data_dir = moved;

    let second = folder.start().await;
    assert_eq!(count_notes(&second).await, 1);
    second.stop().await;
}
