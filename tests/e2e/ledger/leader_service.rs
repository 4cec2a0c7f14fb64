//! The leader's service, called by strangers and by processes of another version.

use super::leader::Pair;
use super::*;

impl Pair {
    /// Sends a message to the leader, as another program could, and returns the response.
    async fn send(&self, credential: &str, message: &[u8]) -> reqwest::Response {
        let _installed = rustls::crypto::ring::default_provider().install_default();
        let client = reqwest::Client::builder().http2_prior_knowledge().build().unwrap();
        let url = format!("http://{}/revwallet.internal.v1.LedgerService/Post", self.door.address);
        let length = u8::try_from(message.len()).unwrap();
        let request = client.post(url).header("content-type", "application/grpc");
        let request = request.header("authorization", credential);
        request.body([[0, 0, 0, 0, length].as_slice(), message].concat()).send().await.unwrap()
    }
}

/// The credential with which followers send postings.
async fn credential(database: &Database) -> String {
    let mut db = database.connect().await;
    let key = sqlx::query_scalar("select key from ledger.leader").fetch_one(&mut db).await;
    let key: Uuid = key.unwrap();
    format!("Bearer {key}")
}

#[tokio::test]
async fn only_a_process_with_the_key_can_send_postings() {
    let database = Database::create().await;
    let pair = Pair::start(Setup::new(&database), Setup::new(&database)).await;

    for (credential, status) in [
        (String::new(), "16"),
        ("Bearer x".to_owned(), "16"),
        (format!("Bearer {}", Uuid::new_v4()), "16"),
        (credential(&database).await, "0"),
    ] {
        let answer = pair.send(&credential, &[0x10, 1]).await;
        let found = answer.headers().get("grpc-status").map(|found| found.to_str().unwrap());
        assert_eq!(found.unwrap_or("0"), status);
    }
    pair.stop().await;
    database.drop().await;
}

#[tokio::test]
async fn a_leader_writes_nothing_for_a_process_of_another_version() {
    let database = Database::create().await;
    let pair = Pair::start(Setup::new(&database), Setup::new(&database)).await;
    let credential = credential(&database).await;

    // A posting without legs, which this version refuses as malformed.
    let id = [[0x10].as_slice(), &[7; 16]].concat();
    let posting = [[0x0a].as_slice(), &id, &[0x12], &id].concat();
    for (version, outcome) in [(2, [0x1a, 0x02, 0x08, 0x0d].as_slice()), (1, &[0x20, 0x05])] {
        let message = [[0x0a, 36].as_slice(), &posting, &[0x10, version]].concat();
        let answer = pair.send(&credential, &message).await.bytes().await.unwrap();
        assert!(answer.ends_with(outcome), "{version}: {answer:x?}");
    }
    pair.stop().await;
    database.drop().await;
}
