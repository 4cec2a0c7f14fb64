//! Transfers between books in both directions, beside postings to each book, by two processes.

use futures_util::future::join_all;

use super::*;

#[tokio::test]
async fn transfers_in_both_directions_beside_deposits_lose_and_double_nothing() {
    const ROUNDS: u128 = 150;
    let database = books(2).await;
    let processes = [Process::start(&database, 2).await, Process::start(&database, 2).await];
    let (one, other) = (customer(1, 1), customer(2, 1));
    processes[0].open(&[one, other]).await;
    processes[0].deposit(one, 10_000).await;
    processes[0].deposit(other, 10_000).await;

    let posts = (0..ROUNDS).flat_map(|round| {
        let deposit = |account| pay(TransferKind::Deposit, world(), account, 1);
        [transfer(one, other, 3), transfer(other, one, 2), deposit(one), deposit(other)]
            .into_iter()
            .zip(0..)
            .map(move |(action, n)| keyed(round * 4 + n, 7, action))
    });
    // Each posting is sent by both processes at once; its key makes it take effect once.
    let posts: Vec<Posting> = posts.collect();
    let results =
        join_all(processes.iter().map(|process| {
            join_all(posts.iter().map(|posting| process.ledger.post(posting.clone())))
        }))
        .await;

    for (one, other) in results[0].iter().zip(&results[1]) {
        let (one, other) = (one.as_ref().unwrap(), other.as_ref().unwrap());
        assert_eq!((one.first_seq, &one.rows, one.at), (other.first_seq, &other.rows, other.at));
    }
    let rounds = i64::try_from(ROUNDS).unwrap();
    assert_eq!(balance(&database, one).await, 10_000);
    assert_eq!(balance(&database, other).await, 10_000 + 2 * rounds);
    for process in processes {
        process.stop().await;
    }
    assert_verified(&database).await;
    database.drop().await;
}

#[tokio::test]
async fn a_book_is_written_while_transfers_between_books_go_on() {
    let database = books(2).await;
    let processes = [Process::start(&database, 2).await, Process::start(&database, 2).await];
    let (one, other) = (customer(1, 1), customer(2, 1));
    processes[0].open(&[one, other]).await;
    processes[0].deposit(one, 1_000_000).await;

    let between = processes.iter().map(|process| async move {
        loop {
            let posts = (0..8).map(|_| process.post(transfer(one, other, 1)));
            assert!(join_all(posts).await.iter().all(Result::is_ok));
        }
    });
    let deposits = async {
        for _ in 0..50 {
            processes[1].deposit(one, 1).await;
            processes[0].deposit(other, 1).await;
        }
    };
    let done = futures_util::future::select(Box::pin(join_all(between)), Box::pin(deposits)).await;

    assert!(matches!(done, futures_util::future::Either::Right(_)));
    drop(done);
    for process in processes {
        process.stop().await;
    }
    assert_verified(&database).await;
    database.drop().await;
}
