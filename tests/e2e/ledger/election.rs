//! The election of the leader: who may lead, and how another process takes over.

use tokio_util::sync::CancellationToken;

use super::leader::{Door, Pair, candidate};
use super::*;
use crate::harness::eventually;

#[tokio::test]
async fn a_leader_that_stops_hands_over_and_follows_while_it_drains() {
    let database = Database::create().await;
    let (listener, address) = Door::bind().await;
    let stopping = CancellationToken::new();
    let candidacy = Candidacy::Leader {
        address: AdvertisedAddress::Listener(address),
        stopping: stopping.clone(),
    };
    let old = Setup { candidacy: Some(candidacy), ..Setup::new(&database) }.start().await;
    eventually("the first process leads", async || old.leads()).await;
    let old_door = Door::open(listener, &old.ledger);
    old.open().await;
    let (listener, address) = Door::bind().await;
    let candidacy = Some(candidate(AdvertisedAddress::Listener(address)));
    let new = Setup { candidacy, ..Setup::new(&database) }.start().await;
    let new_door = Door::open(listener, &new.ledger);
    eventually("the second process follows", async || {
        new.metric("wallet_ledger_role{role=\"follower\"}") > 0.0
    })
    .await;

    let is_over = CancellationToken::new();
    let changes = async {
        stopping.cancel();
        eventually("the second process leads", async || new.leads()).await;
        eventually("the first process follows", async || {
            old.metric("wallet_ledger_role{role=\"follower\"}") > 0.0
        })
        .await;
        is_over.cancel();
    };
    let load = async |ledger: &Ledger, first: u128| {
        let mut key = first;
        while !is_over.is_cancelled() {
            let answers = join_all((0..20).map(|n| ledger.post(deposit(key + n)))).await;
            assert!(answers.iter().all(Result::is_ok), "{answers:?}");
            key += 20;
        }
        i64::try_from(key - first).unwrap()
    };
    let ((), by_old, by_new) =
        tokio::join!(changes, load(&old.ledger, 0), load(&new.ledger, 1_000_000));

    old.stop().await;
    drop(old_door);
    drop(new_door);
    new.stop().await;
    assert_eq!(book(&database).await.balance(ACCOUNT.0), by_old + by_new);
    database.drop().await;
}

#[tokio::test]
async fn a_process_without_an_api_follows_but_does_not_lead() {
    let database = Database::create().await;
    let worker = Setup { candidacy: Some(Candidacy::Follower), ..Setup::new(&database) };
    let worker = worker.start().await;
    worker.open().await;
    assert!((worker.metric("wallet_ledger_role{role=\"alone\"}") - 1.0).abs() < 0.5);

    let pair = Pair::start_with(Setup::new(&database), worker).await;

    assert!(!pair.follower.leads());
    pair.stop().await;
    database.drop().await;
}

#[tokio::test]
async fn a_follower_takes_over_when_the_leader_stops() {
    let database = Database::create().await;
    let Pair { leader, door, follower } =
        Pair::start(Setup::new(&database), Setup::new(&database)).await;
    let (listener, address) = Door::bind().await;
    let candidacy = Some(candidate(AdvertisedAddress::Listener(address)));
    let third = Setup { candidacy, ..Setup::new(&database) }.start().await;

    drop(door);
    leader.stop().await;
    follower.ledger.post(deposit(1)).await.unwrap();
    eventually("another process leads", async || {
        usize::from(follower.leads()) + usize::from(third.leads()) == 1
    })
    .await;
    let door = Door::open(listener, &third.ledger);
    for writer in [&follower, &third] {
        writer.ledger.post(Posting { key: None, ..deposit(0) }).await.unwrap();
    }

    let changes =
        [&follower, &third].map(|writer| writer.metric("wallet_ledger_leader_changes_total"));
    assert!((changes[0] + changes[1] - 1.0).abs() < 0.5, "{changes:?}");
    follower.stop().await;
    drop(door);
    third.stop().await;
    assert_eq!(book(&database).await.balance(ACCOUNT.0), 3);
    database.drop().await;
}
