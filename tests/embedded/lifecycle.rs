//! Lifecycle of the embedded Postgres: start, join, takeover, kill, stop.

use super::*;

#[tokio::test]
async fn data_survives_a_restart() {
    let folder = Folder::new();
    let first = folder.start().await;
    execute(&first, "create table note as select 1").await;
    assert!(!first.is_joined());
    first.stop().await;

    let started = Instant::now();
    let second = folder.start().await;
    let duration = started.elapsed();

    assert_eq!(count_notes(&second).await, 1);
    assert!(duration < Duration::from_secs(5), "a start took {duration:?}");
    writeln!(std::io::stderr(), "a start on an existing data directory took {duration:?}")
        .expect("standard error is open");
    second.stop().await;
}

#[tokio::test]
async fn a_stop_leaves_no_process_or_socket_and_can_be_repeated() {
    let folder = Folder::new();
    let embedded = folder.start().await;
    assert!(folder.processes().contains(&folder.pid()));

    embedded.stop().await;
    embedded.stop().await;

    folder.assert_no_process().await;
    assert!(!embedded.socket_dir().exists());
    assert!(!folder.cluster().join("postmaster.pid").exists());
}

#[tokio::test]
async fn a_dropped_postgres_stops() {
    let folder = Folder::new();
    let embedded = folder.start().await;
    let socket_dir = embedded.socket_dir().to_owned();
    drop(embedded);

    folder.assert_no_process().await;
    fs::remove_dir(socket_dir).expect("the folder is empty");
}

#[tokio::test]
async fn a_canceled_start_leaves_no_process_or_file() {
    let folder = Folder::new();
    for wait_ms in [1, 50, 200, 400, 600, 800] {
        timeout(Duration::from_millis(wait_ms), folder.try_start(&folder.args()))
            .await
            .map(drop)
            .ok();
    }

    let embedded = folder.start().await;
    embedded.stop().await;

    folder.assert_no_process().await;
    let names = fs::read_dir(&folder.data_dir).expect("the folder exists").flatten();
    let mut names: Vec<_> =
        names.map(|entry| entry.file_name().to_string_lossy().into_owned()).collect();
    names.sort();
    assert_eq!(names, ["owner.lock", "postgres", "postgres.log"]);
}

#[tokio::test]
async fn it_listens_only_on_a_socket_of_its_owner() {
    let folder = Folder::new();
    let embedded = folder.start().await;

    let (addresses, durable): (String, String) = sqlx::query_as(
        "select current_setting('listen_addresses'), current_setting('full_page_writes')",
    )
    .fetch_one(&mut connect(&embedded).await)
    .await
    .expect("the query succeeds");

    assert_eq!((addresses.as_str(), durable.as_str()), ("", "on"));
    let socket = embedded.socket_dir().join(".s.PGSQL.5432").metadata().expect("the socket exists");
    assert!(socket.file_type().is_socket());
    assert_eq!(socket.permissions().mode() & 0o777, 0o700);
    assert_eq!(
        embedded.socket_dir().metadata().expect("the folder exists").permissions().mode() & 0o777,
        0o700
    );
    assert_eq!((embedded.user(), embedded.database()), ("revwallet", "revwallet"));
    assert!(embedded.version().contains('.'), "{}", embedded.version());
    embedded.stop().await;
}

#[tokio::test]
async fn concurrent_starts_share_one_postgres() {
    let folder = Folder::new();

    let (one, two) = tokio::join!(folder.start(), folder.start());

    assert_ne!(one.is_joined(), two.is_joined());
    assert_eq!(one.socket_dir(), two.socket_dir());
    let (owner, joined) = if one.is_joined() { (two, one) } else { (one, two) };
    joined.stop().await;
    execute(&owner, "create table note as select 1").await;
    assert_eq!(count_notes(&joined).await, 1);
    owner.stop().await;
    folder.assert_no_process().await;
}

#[tokio::test]
async fn a_second_program_joins_and_does_not_stop_it() {
    let folder = Folder::new();
    let mut owner = folder.start_holder().await;

    let joined = folder.start().await;
    assert!(joined.is_joined());
    execute(&joined, "create table note as select 1").await;
    joined.stop().await;

    assert_eq!(count_notes(&joined).await, 1);
    owner.kill().expect("the child is ours");
    owner.wait().expect("the child is ours");
    folder.start().await.stop().await;
}

#[tokio::test]
async fn a_postgres_whose_program_was_killed_is_taken_over() {
    let folder = Folder::new();
    let mut program = folder.start_holder().await;
    let pid = folder.pid();
    program.kill().expect("the child is ours");
    program.wait().expect("the child is ours");

    let embedded = folder.start().await;

    assert!(!embedded.is_joined());
    assert_eq!(folder.pid(), pid, "the same Postgres still runs");
    execute(&embedded, "create table note as select 1").await;
    embedded.stop().await;
    folder.assert_no_process().await;
}

#[tokio::test]
async fn commits_survive_ten_kills_of_the_program_and_postgres() {
    let folder = Folder::new();
    let first = folder.start().await;
    execute(&first, "create table note (id int)").await;
    first.stop().await;

    for round in 0..10 {
        let mut program = folder.start_holder().await;
        let joined = folder.start().await;
        execute(&joined, "insert into note values (1)").await;
        program.kill().expect("the child is ours");
        program.wait().expect("the child is ours");
        if round % 2 == 0 {
            send(folder.pid(), Signal::SIGKILL);
        }
    }

    let last = folder.start().await;
    assert_eq!(count_notes(&last).await, 10);
    last.stop().await;
    folder.assert_no_process().await;
}

#[tokio::test]
async fn a_killed_postgres_is_restarted_while_a_session_is_busy() {
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
        let killed = Instant::now();
        while folder.processes().contains(&pid)
            || folder.cluster().join("postmaster.pid").exists() && folder.pid() == pid
        {
            assert!(killed.elapsed() < WAIT_MAX, "the killed processes are not cleaned up");
            sleep(Duration::from_millis(10)).await;
        }
        wait_until_ready(&embedded).await;
        writeln!(
            std::io::stderr(),
            "after kill -9, connections were accepted within {:?}",
            killed.elapsed()
        )
        .expect("standard error is open");
        assert_ne!(folder.pid(), pid);
        stop.cancel();
    };

    tokio::join!(embedded.supervise(stop.clone()), busy, body);

    embedded.stop().await;
    folder.assert_no_process().await;
}

#[tokio::test]
async fn a_stop_ends_the_sessions_of_a_killed_postgres() {
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

    folder.assert_no_process().await;
    assert!(!embedded.socket_dir().exists());
}

#[tokio::test]
async fn a_pid_file_with_a_reused_process_id_is_ignored() {
    let folder = Folder::new();
    let first = folder.start().await;
    let pid_file = folder.cluster().join("postmaster.pid");
    let text = fs::read_to_string(&pid_file).expect("Postgres runs");
    first.stop().await;
    let mut unrelated = Command::new("sleep").arg("60").spawn().expect("sleep is installed");
    let reused = text.replacen(
        text.lines().next().expect("the file has a line"),
        &unrelated.id().to_string(),
        1,
    );
    fs::write(&pid_file, &reused).expect("the file is writable");
    fs::set_permissions(&pid_file, Permissions::from_mode(0o600)).expect("the file is ours");

    let second = folder.start().await;

    assert_ne!(folder.pid().to_string(), unrelated.id().to_string());
    assert!(
        unrelated.try_wait().expect("the child is ours").is_none(),
        "the unrelated process was killed"
    );
    second.stop().await;
    unrelated.kill().expect("the child is ours");
    unrelated.wait().expect("the child is ours");
}
