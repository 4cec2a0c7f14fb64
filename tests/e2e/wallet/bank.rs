//! A bank of wallets whose total never changes, however much moves in it.

use futures_util::StreamExt;
use futures_util::future::join;
use futures_util::stream;
use serde_json::json;

use crate::harness::{TestApp, run};

const WALLETS: usize = 100;

/// Somewhere to go next, the same in every run.
fn random(state: &mut u64) -> usize {
    *state ^= *state << 13;
    *state ^= *state >> 7;
    *state ^= *state << 17;
    usize::try_from(*state % 1_000_003).unwrap()
}

async fn total(app: &TestApp, at: &str) -> f64 {
    let mut total = 0.0;
    for id in 1..=WALLETS {
        let wallet = app.get(&format!("/wallet/balance/{id}?at={at}")).await.json();
        total += wallet["balance"].as_f64().unwrap();
    }
    total
}

#[tokio::test]
async fn the_total_of_a_bank_never_changes_while_it_is_read() {
    run(async |app| {
        for _ in 0..WALLETS {
            app.open_wallet("EUR", "10").await;
        }
        let mut state = 88_172_645_463_325_252;
        let orders: Vec<_> = (0..1_500)
            .map(|_| {
                let (from, to) = (random(&mut state) % WALLETS + 1, random(&mut state) % WALLETS + 1);
                let cents = random(&mut state) % 400 + 1;
                json!({ "from": from, "to": to, "amount": format!("{}.{:02}", cents / 100, cents % 100) })
            })
            .collect();

        let moving = stream::iter(orders)
            .map(|order| app.post("/wallet/transfer", order))
            .buffer_unordered(32)
            .map(|answer| answer.status)
            .collect::<Vec<_>>();
        let reading = async {
            for _ in 0..5 {
                // All balances of one moment, when the last wallet was there already.
                let newest = app.get(&format!("/wallet/{WALLETS}/history?limit=1")).await.json();
                let at = newest[0]["at"].as_str().unwrap().to_owned();
                let sum = total(app, &at).await;
                assert!((sum - 1000.0).abs() < 1e-6, "{sum} at {at}");
            }
        };
        let (statuses, ()) = join(moving, reading).await;

        assert!(statuses.iter().all(|status| [201, 422].contains(status)), "{statuses:?}");
        assert!(statuses.iter().filter(|status| **status == 201).count() > 500);
    })
    .await;
}
