//! Refusals of a leader: none is reported while an earlier posting under the same key may still be written.

use revwallet::ledger::companion::Companion;
use serde_json::json;
use tokio_util::sync::CancellationToken;

use super::leader::{Pair, TAKEN_ONCE};
use super::*;
use crate::harness::eventually;

/// Stops a writer between its decision and its first statement.
#[derive(Clone, Default)]
struct Gate {
    is_closed: Arc<AtomicU32>,
    reached: Arc<AtomicU32>,
    opened: CancellationToken,
}

impl Gate {
    fn new() -> (Self, Failpoints) {
        let gate = Self::default();
        let hook = gate.clone();
        let failpoints = Failpoints::new(move |stage| {
            let gate = hook.clone();
            let stops =
                stage == WriterStage::BeforeSend && gate.is_closed.load(Ordering::SeqCst) == 1;
            async move {
                if stops {
                    gate.reached.fetch_add(1, Ordering::SeqCst);
                    gate.opened.cancelled().await;
                }
                None
            }
            .boxed()
        });
        (gate, failpoints)
    }

    fn close(&self) {
        self.is_closed.store(1, Ordering::SeqCst);
    }

    fn is_reached(&self) -> bool {
        self.reached.load(Ordering::SeqCst) > 0
    }

    /// Lets the writer go on, for good.
    fn open(&self) {
        self.opened.cancel();
    }
}

#[tokio::test]
async fn a_refusal_is_not_reported_while_the_leader_may_still_write_the_posting() {
    let database = Database::create().await;
    let (gate, failpoints) = Gate::new();
    let leader = Setup { failpoints, ..Setup::new(&database) };
    let pair = Pair::start(leader, Setup::new(&database)).await;
    pair.follower.ledger.post(deposit(1)).await.unwrap();

    // The leader is about to write the withdrawal of the only cent when its connections break; another process takes the
    // cent meanwhile.
    gate.close();
    let other = Setup::new(&database).start().await;
    let post = async |number: u64, posting| {
        // One request after the other: the last of them waits until the leader answers one.
        tokio::time::sleep(Duration::from_millis(30) * u32::try_from(number).unwrap()).await;
        pair.follower.ledger.post(posting).await
    };
    let meanwhile = async {
        eventually("the leader has decided", async || gate.is_reached()).await;
        other.ledger.post(withdraw(3, 1)).await.unwrap();
        tokio::time::sleep(Duration::from_millis(200)).await;
        pair.door.cut();
    };
    let (withdrawal, _, _, repeated, ()) = tokio::join!(
        post(0, withdraw(2, 1)),
        post(1, withdraw(5, 1_000)),
        post(2, withdraw(6, 1_000)),
        post(3, withdraw(2, 1)),
        meanwhile
    );

    assert_eq!([withdrawal, repeated], [Err(PostError::Unknown), Err(PostError::Unknown)]);
    // The client repeats the request; the leader may still write the first one.
    assert_eq!(pair.follower.ledger.post(withdraw(2, 1)).await, Err(PostError::Unknown));
    other.ledger.post(deposit(4)).await.unwrap();
    gate.open();
    let repeated = pair.follower.ledger.post(withdraw(2, 1)).await.unwrap();
    assert_eq!(repeated.available(ACCOUNT), Some(Minor(0)));
    other.stop().await;
    pair.stop().await;
    assert_eq!(book(&database).await.balance(ACCOUNT.0), 0);
    database.drop().await;
}

#[tokio::test]
async fn a_repeated_posting_is_not_sent_to_the_leader_while_the_own_writer_has_the_first() {
    let database = Database::create().await;
    let (gate, failpoints) = Gate::new();
    let candidacy = Some(Candidacy::Follower);
    let follower = Setup { candidacy, failpoints, ..Setup::new(&database) }.start().await;
    follower.open().await;
    follower.ledger.post(deposit(1)).await.unwrap();

    // The own writer is about to write the withdrawal of the only cent. Meanwhile a process begins to lead, and takes the
    // cent. The client repeats its request for longer than the forwarder waits.
    gate.close();
    let first = follower.ledger.post(withdraw(2, 1));
    let repeated = async {
        eventually("the own writer has decided", async || gate.is_reached()).await;
        let (leader, door) = Pair::start_leader(Setup::new(&database)).await;
        leader.ledger.post(withdraw(3, 1)).await.unwrap();
        eventually("the follower has found the leader", async || {
            door.accepted.load(Ordering::SeqCst) > 0
        })
        .await;
        let repeats = join_all((0..10).map(|number| {
            let ledger = follower.ledger.clone();
            async move {
                tokio::time::sleep(Duration::from_millis(250) * number).await;
                ledger.post(withdraw(2, 1)).await
            }
        }));
        let release = async {
            tokio::time::sleep(Duration::from_secs(3)).await;
            leader.ledger.post(deposit(4)).await.unwrap();
            gate.open();
        };
        let (repeats, ()) = tokio::join!(repeats, release);
        (repeats, leader, door)
    };
    let (first, (repeats, leader, door)) = tokio::join!(first, repeated);

    let answers = repeats.into_iter().chain([first]);
    for answer in answers {
        assert_eq!(answer.unwrap().available(ACCOUNT), Some(Minor(0)));
    }
    let pair = Pair { leader, door, follower };
    pair.wait_until_forwarding().await;
    pair.stop().await;
    assert_eq!(book(&database).await.balance(ACCOUNT.0), 0);
    database.drop().await;
}

#[tokio::test]
async fn a_refusal_of_the_leader_is_not_reported_while_the_own_writer_has_the_posting() {
    let database = Database::create().await;
    database.execute("create table thing (thing bigint primary key)").await;
    let (gate, failpoints) = Gate::new();
    let companions = vec![&TAKEN_ONCE];
    let follower = Setup { companions, failpoints, ..Setup::new(&database) };
    let pair = Pair::start(Setup::new(&database), follower).await;
    pair.follower.ledger.post(deposit(1)).await.unwrap();

    // The leader does not know the companion, so the own writer withdraws the only cent; the leader takes it meanwhile, and
    // refuses the same withdrawal without the companion.
    gate.close();
    let thing = Companion::new(&TAKEN_ONCE, &json!({ "thing": 5 }), "taken").unwrap();
    let first = Posting { companions: vec![thing], ..withdraw(2, 1) };
    let meanwhile = async {
        eventually("the own writer has decided", async || gate.is_reached()).await;
        pair.leader.ledger.post(withdraw(3, 1)).await.unwrap();
        let release = async {
            tokio::time::sleep(Duration::from_millis(300)).await;
            pair.leader.ledger.post(deposit(4)).await.unwrap();
            gate.open();
        };
        tokio::join!(pair.follower.ledger.post(withdraw(2, 1)), release)
    };
    let (first, (second, ())) = tokio::join!(pair.follower.ledger.post(first), meanwhile);

    for answer in [first, second] {
        assert_eq!(answer.unwrap().available(ACCOUNT), Some(Minor(0)));
    }
    pair.stop().await;
    assert_eq!(book(&database).await.balance(ACCOUNT.0), 0);
    database.drop().await;
}
