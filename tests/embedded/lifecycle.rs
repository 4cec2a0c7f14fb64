//! What happens to it over its life: started, joined, taken over, killed, stopped.

use super::*;

#[tokio::test]
async fn the_second_start_finds_what_the_first_one_wrote() {
    let folder = Folder::new();
    let first = folder.start().await;
    execute(&first, "create table note as select 1").await;
    assert!(!first.joined());
    first.stop().await;

    let began = Instant::now();
    let second = folder.start().await;
    let took = began.elapsed();

    assert_eq!(count_notes(&second).await, 1);
    assert!(took < Duration::from_secs(5), "a start took {took:?}");
    writeln!(std::io::stderr(), "a start on an existing data directory took {took:?}")
        .expect("a terminal");
    second.stop().await;
}

#[tokio::test]
async fn after_a_stop_nothing_is_left() {
    let folder = Folder::new();
    let embedded = folder.start().await;
    assert!(folder.processes().contains(&folder.pid()));

    embedded.stop().await;
    embedded.stop().await;

    folder.nothing_is_left().await;
    assert!(!embedded.socket_dir().exists());
    assert!(!folder.cluster().join("postmaster.pid").exists());
}

#[tokio::test]
async fn a_dropped_postgres_ends_by_itself() {
    let folder = Folder::new();
    let embedded = folder.start().await;
    let socket_dir = embedded.socket_dir().to_owned();
    drop(embedded);

    folder.nothing_is_left().await;
    fs::remove_dir(socket_dir).expect("it is empty");
}

#[tokio::test]
async fn a_start_that_is_given_up_leaves_nothing() {
    let folder = Folder::new();
    for wait_ms in [1, 50, 200, 400, 600, 800] {
        timeout(Duration::from_millis(wait_ms), folder.try_start(&folder.args()))
            .await
            .map(drop)
            .ok();
    }

    let embedded = folder.start().await;
    embedded.stop().await;

    folder.nothing_is_left().await;
    let names = fs::read_dir(&folder.data_dir).expect("it is there").flatten();
    let mut names: Vec<_> =
        names.map(|entry| entry.file_name().to_string_lossy().into_owned()).collect();
    names.sort();
    assert_eq!(names, ["owner.lock", "postgres", "postgres.log"]);
}

#[tokio::test]
async fn it_is_reached_by_its_socket_only_and_only_by_its_owner() {
    let folder = Folder::new();
    let embedded = folder.start().await;

    let (addresses, durable): (String, String) = sqlx::query_as(
        "select current_setting('listen_addresses'), current_setting('full_page_writes')",
    )
    .fetch_one(&mut connect(&embedded).await)
    .await
    .expect("it answers");

    assert_eq!((addresses.as_str(), durable.as_str()), ("", "on"));
    let socket = embedded.socket_dir().join(".s.PGSQL.5432").metadata().expect("a socket");
    assert!(socket.file_type().is_socket());
    assert_eq!(socket.permissions().mode() & 0o777, 0o700);
    assert_eq!(
        embedded.socket_dir().metadata().expect("a folder").permissions().mode() & 0o777,
        0o700
    );
    assert_eq!((embedded.user(), embedded.database()), ("revwallet", "revwallet"));
    assert!(embedded.version().contains('.'), "{}", embedded.version());
    embedded.stop().await;
}

#[tokio::test]
async fn two_that_start_at_once_share_one_postgres() {
    let folder = Folder::new();

    let (one, two) = tokio::join!(folder.start(), folder.start());

    assert_ne!(one.joined(), two.joined());
    assert_eq!(one.socket_dir(), two.socket_dir());
    let (owner, joined) = if one.joined() { (two, one) } else { (one, two) };
    joined.stop().await;
    execute(&owner, "create table note as select 1").await;
    assert_eq!(count_notes(&joined).await, 1);
    owner.stop().await;
    folder.nothing_is_left().await;
}

#[tokio::test]
async fn a_second_program_joins_and_leaves_it_alone() {
    let folder = Folder::new();
    let mut owner = folder.other_program().await;

    let joined = folder.start().await;
    assert!(joined.joined());
    execute(&joined, "create table note as select 1").await;
    joined.stop().await;

    assert_eq!(count_notes(&joined).await, 1);
    owner.kill().expect("it is ours");
    owner.wait().expect("it is ours");
    folder.start().await.stop().await;
}

#[tokio::test]
async fn a_postgres_whose_program_was_killed_is_taken_over_and_stopped() {
    let folder = Folder::new();
    let mut program = folder.other_program().await;
    let pid = folder.pid();
    program.kill().expect("it is ours");
    program.wait().expect("it is ours");

    let embedded = folder.start().await;

    assert!(!embedded.joined());
    assert_eq!(folder.pid(), pid, "the same Postgres still runs");
    execute(&embedded, "create table note as select 1").await;
    embedded.stop().await;
    folder.nothing_is_left().await;
}

#[tokio::test]
async fn ten_times_killed_with_its_program_it_starts_again_with_everything_committed() {
    let folder = Folder::new();
    let first = folder.start().await;
    execute(&first, "create table note (id int)").await;
    first.stop().await;

    for round in 0..10 {
        let mut program = folder.other_program().await;
        let joined = folder.start().await;
        execute(&joined, "insert into note values (1)").await;
        program.kill().expect("it is ours");
        program.wait().expect("it is ours");
        if round % 2 == 0 {
            send(folder.pid(), Signal::SIGKILL);
        }
    }

    let last = folder.start().await;
    assert_eq!(count_notes(&last).await, 10);
    last.stop().await;
    folder.nothing_is_left().await;
}

#[tokio::test]
async fn a_killed_postgres_is_started_again_even_while_a_session_is_busy() {
    let folder = Folder::new();
    let embedded = folder.start().await;
    let stop = CancellationToken::new();
    let busy = async {
        sqlx::query("do $$ begin loop null; end loop; end $$")
            .execute(&mut connect(&embedded).await)
            .await
            .ok();
    };
    let body = async {
        sleep(Duration::from_millis(200)).await;
        let pid = folder.pid();
        send(pid, Signal::SIGKILL);
        let began = Instant::now();
        while folder.processes().contains(&pid)
            || folder.cluster().join("postmaster.pid").exists() && folder.pid() == pid
        {
            assert!(began.elapsed() < WAIT_MAX, "it was not cleared away");
            sleep(Duration::from_millis(10)).await;
        }
        eventually_accepts(&embedded).await;
        writeln!(std::io::stderr(), "after kill -9 it accepted again within {:?}", began.elapsed())
            .expect("a terminal");
        assert_ne!(folder.pid(), pid);
        stop.cancel();
    };

    tokio::join!(embedded.supervise(stop.clone()), busy, body);

    embedded.stop().await;
    folder.nothing_is_left().await;
}

#[tokio::test]
async fn a_killed_postgres_that_nobody_restarts_leaves_no_session_after_a_stop() {
    let folder = Folder::new();
    let embedded = folder.start().await;
    let mut session = connect(&embedded).await;
    let busy = async {
        sqlx::query("do $$ begin loop null; end loop; end $$").execute(&mut session).await.ok()
    };
    let body = async {
        sleep(Duration::from_millis(200)).await;
        send(folder.pid(), Signal::SIGKILL);
        embedded.stop().await;
    };

    tokio::join!(busy, body);

    folder.nothing_is_left().await;
    assert!(!embedded.socket_dir().exists());
}

#[tokio::test]
async fn a_pid_file_whose_number_belongs_to_another_process_is_not_believed() {
    let folder = Folder::new();
    let first = folder.start().await;
    let pid_file = folder.cluster().join("postmaster.pid");
    let text = fs::read_to_string(&pid_file).expect("Postgres runs");
    first.stop().await;
    let mut stranger = Command::new("sleep").arg("60").spawn().expect("sleep is everywhere");
    let reused = text.replacen(text.lines().next().expect("a line"), &stranger.id().to_string(), 1);
    fs::write(&pid_file, &reused).expect("it can be written");
    fs::set_permissions(&pid_file, Permissions::from_mode(0o600)).expect("it is ours");

    let second = folder.start().await;

    assert_ne!(folder.pid().to_string(), stranger.id().to_string());
    assert!(stranger.try_wait().expect("it is ours").is_none(), "the stranger was left alone");
    second.stop().await;
    stranger.kill().expect("it is ours");
    stranger.wait().expect("it is ours");
}
