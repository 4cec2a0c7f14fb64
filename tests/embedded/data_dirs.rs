//! Where it can live.

use super::*;

#[tokio::test]
async fn it_starts_below_a_folder_with_any_name() {
    let mut folder = Folder::new();
    folder.data_dir = folder.top.join("a b, c'd \"é\" $HOME * -D x");

    let embedded = folder.start().await;

    let again = folder.start().await;
    assert!(again.joined());
    embedded.stop().await;
    folder.nothing_is_left().await;
}

#[tokio::test]
async fn it_starts_below_a_long_path() {
    for length in [300, 890] {
        let folder = Folder::deep(length);
        let embedded = folder.start().await;
        assert!(folder.cluster().starts_with(&folder.top), "{length} bytes fit");
        embedded.stop().await;
    }
}

#[tokio::test]
async fn below_a_path_too_long_for_postgres_the_cluster_lives_elsewhere_and_is_found_again() {
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
async fn below_a_folder_that_is_closed_to_others_it_starts() {
    let folder = Folder::new();
    fs::set_permissions(&folder.top, Permissions::from_mode(0o700)).expect("it is ours");

    let embedded = folder.start().await;

    execute(&embedded, "create table note as select 1").await;
    assert_eq!(folder.cluster().starts_with(&folder.top), !geteuid().is_root());
    embedded.stop().await;
    folder.nothing_is_left().await;
}

#[tokio::test]
async fn a_cluster_moved_with_its_folder_is_the_same_cluster() {
    let mut folder = Folder::new();
    let first = folder.start().await;
    execute(&first, "create table note as select 1").await;
    first.stop().await;

    let moved = folder.top.join("moved");
    fs::rename(&folder.data_dir, &moved).expect("it can be moved");
    folder.data_dir = moved;

    let second = folder.start().await;
    assert_eq!(count_notes(&second).await, 1);
    second.stop().await;
}
