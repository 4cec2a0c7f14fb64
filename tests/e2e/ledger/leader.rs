//! The leader of a book, and followers that send it their postings.

use std::net::SocketAddr;

use hyper_util::rt::{TokioExecutor, TokioIo};
use hyper_util::server::conn::auto::Builder;
use hyper_util::service::TowerToHyperService;
use revwallet::ledger::PostingService;
use revwallet::ledger::companion::Companion;
use serde_json::json;
use tokio::net::TcpListener;
use tokio_util::sync::CancellationToken;

use super::*;
use crate::harness::eventually;

/// Serves the postings of followers. Cancelling `cut` closes the open connections.
pub(super) struct Door {
    pub(super) address: SocketAddr,
    cut: Arc<std::sync::Mutex<CancellationToken>>,
    /// Connections so far.
    pub(super) accepted: Arc<AtomicU32>,
    serving: tokio::task::JoinHandle<()>,
}

impl Door {
    pub(super) async fn bind() -> (TcpListener, SocketAddr) {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        (listener, address)
    }

    pub(super) fn open(listener: TcpListener, ledger: &Ledger) -> Self {
        let address = listener.local_addr().unwrap();
        let service = PostingService::new(ledger).unwrap();
        let cut: Arc<std::sync::Mutex<CancellationToken>> = Arc::default();
        let tokens = Arc::clone(&cut);
        let accepted = Arc::new(AtomicU32::new(0));
        let count = Arc::clone(&accepted);
        let serving = tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                stream.set_nodelay(true).unwrap();
                count.fetch_add(1, Ordering::SeqCst);
                let token = tokens.lock().unwrap().clone();
                let service = TowerToHyperService::new(service.clone());
                tokio::spawn(async move {
                    let serving = Builder::new(TokioExecutor::new());
                    let serving = serving.serve_connection(TokioIo::new(stream), service);
                    let _cut = token.run_until_cancelled(serving).await;
                });
            }
        });
        Self { address, cut, accepted, serving }
    }

    /// Closes the open connections; the service goes on with the postings that it has.
    pub(super) fn cut(&self) {
        std::mem::take(&mut *self.cut.lock().unwrap()).cancel();
    }
}

impl Drop for Door {
    fn drop(&mut self) {
        self.serving.abort();
        self.cut();
    }
}

pub(super) fn candidate(address: AdvertisedAddress) -> Candidacy {
    Candidacy::Leader { address, stopping: CancellationToken::new() }
}

/// A leader with its door, and a follower that has found it.
pub(super) struct Pair {
    pub(super) leader: Writer,
    pub(super) door: Door,
    pub(super) follower: Writer,
}

impl Pair {
    pub(super) async fn start(leader: Setup, follower: Setup) -> Self {
        let nowhere = AdvertisedAddress::Configured("127.0.0.1:9".to_owned());
        let (leader, door) = Self::start_leader(leader).await;
        let follower = Setup { candidacy: Some(candidate(nowhere)), ..follower };
        let pair = Self { leader, door, follower: follower.start().await };
        pair.leader.open().await;
        pair.wait_until_forwarding().await;
        pair
    }

    /// Starts a leader for a follower that runs already.
    pub(super) async fn start_with(leader: Setup, follower: Writer) -> Self {
        let (leader, door) = Self::start_leader(leader).await;
        let pair = Self { leader, door, follower };
        pair.wait_until_forwarding().await;
        pair
    }

    pub(super) async fn start_leader(leader: Setup) -> (Writer, Door) {
        let (listener, address) = Door::bind().await;
        let candidacy = Some(candidate(AdvertisedAddress::Listener(address)));
        let leader = Setup { candidacy, ..leader }.start().await;
        eventually("one process leads", async || leader.leads()).await;
        let door = Door::open(listener, &leader.ledger);
        (leader, door)
    }

    /// Deposits until the leader answers.
    pub(super) async fn wait_until_forwarding(&self) {
        let mut key = 900_000;
        let before = self.follower.metric(ANSWERED);
        eventually("postings are sent to the leader", async || {
            key += 1;
            let probe = Posting { key: None, ..withdraw(key, 1_000_000) };
            let refused = self.follower.ledger.post(probe).await;
            assert!(matches!(refused, Err(PostError::Refused(_))), "{refused:?}");
            self.follower.metric(ANSWERED) > before
        })
        .await;
    }

    pub(super) async fn stop(self) {
        let Self { leader, door, follower } = self;
        follower.stop().await;
        drop(door);
        leader.stop().await;
    }
}

pub(super) const ANSWERED: &str = "wallet_ledger_forwarded_total{outcome=\"answered\"}";
const IN_DOUBT: &str = "wallet_ledger_forwarded_total{outcome=\"in_doubt\"}";
const UNSUPPORTED: &str = "wallet_ledger_forwarded_total{outcome=\"unsupported\"}";
pub(super) const LEADS: &str = "wallet_ledger_role{role=\"leader\"}";
const SEALED: &str = "wallet_ledger_batches_total{outcome=\"sealed\"}";

impl Writer {
    pub(super) fn leads(&self) -> bool {
        self.metric(LEADS) > 0.0
    }
}

#[tokio::test]
async fn the_leader_writes_the_postings_of_a_follower_and_refuses_them_in_the_same_words() {
    let database = Database::create().await;
    let pair = Pair::start(Setup::new(&database), Setup::new(&database)).await;
    let follower = &pair.follower.ledger;

    let first = follower.post(deposit(1)).await.unwrap();
    let unkeyed = follower.post(Posting { key: None, ..deposit(0) }).await.unwrap();
    let replayed = follower.post(deposit(1)).await.unwrap();
    let other = Posting { legs: withdraw(1, 1).legs, ..deposit(1) };
    let other = Posting {
        key: other.key.map(|key| HashedKey { content: Uuid::from_u128(8), ..key }),
        ..other
    };

    assert_eq!((first.available(ACCOUNT), first.replayed), (Some(Minor(1)), false));
    assert_eq!((unkeyed.available(ACCOUNT), unkeyed.replayed), (Some(Minor(2)), false));
    assert_eq!(replayed, Posted { replayed: true, ..first });
    assert_eq!(follower.post(other).await, Err(Refusal::KeyReused.into()));
    for posting in [
        withdraw(2, 1_000),
        withdraw(3, 2_000_000),
        posting(None, Action::Open { account: ACCOUNT, currency: euro() }),
        posting(None, Action::Unfreeze { account: ACCOUNT }),
        posting(None, Action::Close { account: ACCOUNT }),
        posting(None, Action::Freeze { account: AccountId(77) }),
        Posting { legs: [deposit(0).legs, withdraw(0, 500).legs].concat(), ..deposit(4) },
        Posting { legs: Vec::new(), ..deposit(5) },
    ] {
        let [own, forwarded] = [&pair.leader.ledger, follower].map(async |ledger| {
            ledger.post(Posting { key: None, ..posting.clone() }).await.unwrap_err()
        });
        let (own, forwarded) = (own.await, forwarded.await);
        match &own {
            PostError::Refused(Refusal::Malformed(_)) => {
                assert!(matches!(forwarded, PostError::Refused(Refusal::Malformed(_))));
            }
            _ => assert_eq!(own, forwarded),
        }
    }
    assert!((pair.follower.metric(SEALED)).abs() < 0.5, "the follower wrote a batch");
    assert!((pair.follower.metric(IN_DOUBT)).abs() < 0.5);
    pair.stop().await;
    assert_eq!(book(&database).await.balance(ACCOUNT.0), 2);
    database.drop().await;
}

#[tokio::test]
async fn the_postings_of_a_follower_are_written_in_the_order_in_which_it_takes_them() {
    let database = Database::create().await;
    let setup = || {
        let setup = Setup::new(&database);
        let settings = Settings { queue_max: 4_096, ..setup.settings.clone() };
        Setup { settings, ..setup }
    };
    let pair = Pair::start(setup(), setup()).await;

    // Each withdrawal needs the two deposits before it, of which a request may have only one.
    let postings = (0..1_500).map(|number| {
        let posting = if number % 3 < 2 { deposit(number) } else { withdraw(number, 2) };
        pair.follower.ledger.post(posting)
    });
    let answers = join_all(postings).await;

    let refused = answers.iter().position(Result::is_err);
    assert_eq!(refused, None, "{:?}", refused.map(|index| &answers[index]));
    assert!((pair.follower.metric(SEALED)).abs() < 0.5, "the follower wrote a batch");
    pair.stop().await;
    assert_eq!(book(&database).await.balance(ACCOUNT.0), 0);
    database.drop().await;
}

/// Takes a thing, once.
pub(super) static TAKEN_ONCE: CompanionKind = CompanionKind {
    name: "test.thing",
    sql: "
with input as (
    select * from json_to_recordset($2::text::json) as (n int, seq bigint, thing bigint)
), done as (
    insert into public.thing (thing) select distinct on (thing) thing from input order by thing, n
    on conflict do nothing returning thing
), took as (
    select distinct on (thing) n from input join done using (thing) order by thing, n
)",
};

#[tokio::test]
async fn companions_are_written_and_refused_by_the_leader_unless_it_does_not_know_them() {
    let take = |key, thing: i64| {
        let companion = Companion::new(&TAKEN_ONCE, &json!({ "thing": thing }), "taken").unwrap();
        Posting { companions: vec![companion], ..deposit(key) }
    };
    for leader_knows in [true, false] {
        let database = Database::create().await;
        database.execute("create table thing (thing bigint primary key)").await;
        let knows = Setup { companions: vec![&TAKEN_ONCE], ..Setup::new(&database) };
        let leader = if leader_knows { knows.clone() } else { Setup::new(&database) };
        let pair = Pair::start(leader, knows).await;

        let taken = pair.follower.ledger.post(take(1, 5)).await;
        let refused = pair.follower.ledger.post(take(2, 5)).await;

        assert!(taken.is_ok(), "{taken:?}");
        assert_eq!(refused, Err(Refusal::Companion("taken").into()));
        let unsupported = if leader_knows { 0.0 } else { 2.0 };
        assert!((pair.follower.metric(UNSUPPORTED) - unsupported).abs() < 0.5);
        pair.stop().await;
        assert_eq!(book(&database).await.balance(ACCOUNT.0), 1);
        database.drop().await;
    }
}

#[tokio::test]
async fn a_posting_that_the_leader_left_open_takes_effect_once() {
    let stages = [
        WriterStage::BeforeSend,
        WriterStage::AfterSend,
        WriterStage::AfterReply,
        WriterStage::BeforeAnswer,
    ];
    for stage in stages {
        for fault in [InjectedFault::KillWriter, InjectedFault::CutConnection] {
            let database = Database::create().await;
            let left = Arc::new(AtomicU32::new(u32::MAX));
            let counter = Arc::clone(&left);
            let failpoints = Failpoints::new(move |reached| {
                let hits = reached == stage
                    && counter.fetch_update(Ordering::SeqCst, Ordering::SeqCst, |left| {
                        (left != u32::MAX && left > 0).then(|| left - 1)
                    }) == Ok(1);
                async move { hits.then_some(fault) }.boxed()
            });
            let leader = Setup { failpoints, ..Setup::new(&database) };
            let pair = Pair::start(leader, Setup::new(&database)).await;

            left.store(3, Ordering::SeqCst);
            let postings = (0..60).map(|key| {
                let key = (key % 3 != 0).then_some(key);
                let posting = deposit(key.unwrap_or_default());
                pair.follower.ledger.post(Posting { key: key.and(posting.key), ..posting })
            });
            let answers = join_all(postings).await;

            for (key, answer) in answers.iter().enumerate() {
                // Under a key of the client, a second attempt cannot be told from a second request.
                let is_fresh = answer.as_ref().is_ok_and(|posted| !posted.replayed);
                assert!(
                    is_fresh || (answer.is_ok() && key % 3 != 0),
                    "{stage:?} {fault:?}: {answer:?}"
                );
            }
            pair.follower.stop().await;
            drop(pair.door);
            drop(pair.leader);
            let balance = book(&database).await.balance(ACCOUNT.0);
            assert_eq!(balance, 60, "{stage:?} {fault:?}");
            database.drop().await;
        }
    }
}

#[tokio::test]
async fn postings_take_effect_once_while_the_connection_to_the_leader_is_cut_again_and_again() {
    let database = Database::create().await;
    // The leader takes its time before and after a commit, so that cuts hit requests in both states.
    let failpoints = Failpoints::new(|stage| {
        let is_slow = matches!(stage, WriterStage::BeforeSend | WriterStage::BeforeAnswer);
        async move {
            if is_slow {
                tokio::time::sleep(Duration::from_millis(8)).await;
            }
            None
        }
        .boxed()
    });
    let leader = Setup { failpoints, ..Setup::new(&database) };
    let pair = Pair::start(leader, Setup::new(&database)).await;

    let is_over = CancellationToken::new();
    let cuts = async {
        for round in 0..60 {
            let both = [IN_DOUBT, SEALED].map(|name| pair.follower.metric(name) > 2.0);
            if both == [true, true] {
                break;
            }
            eventually("postings are sent to the leader", async || {
                pair.follower.metric("wallet_ledger_role{role=\"follower\"}") > 0.0
            })
            .await;
            tokio::time::sleep(Duration::from_millis(20 + round % 7)).await;
            pair.door.cut();
        }
        is_over.cancel();
    };
    let load = async {
        let mut acknowledged = 0;
        while !is_over.is_cancelled() {
            let first = u128::try_from(acknowledged).unwrap();
            let answers = join_all((first..first + 30).map(|key| {
                let posting = deposit(key);
                let key = posting.key.filter(|_| key % 2 == 0);
                pair.follower.ledger.post(Posting { key, ..posting })
            }))
            .await;
            for (key, answer) in answers.into_iter().enumerate() {
                assert!(!answer.unwrap().replayed || key % 2 == 0);
                acknowledged += 1;
            }
        }
        acknowledged
    };
    let ((), acknowledged) = tokio::join!(cuts, load);

    assert!(pair.follower.metric(IN_DOUBT) > 0.0, "no cut hit a request");
    assert!(pair.follower.metric(SEALED) > 0.0, "the follower wrote nothing itself");
    pair.stop().await;
    assert_eq!(book(&database).await.balance(ACCOUNT.0), acknowledged);
    database.drop().await;
}
