//! Conservation of money: concurrent transfers between many wallets never change their total.

use futures_util::StreamExt;
use futures_util::future::join;
use futures_util::stream;
use serde_json::json;

use crate::harness::{TestApp, run};

const WALLETS: usize = 100;

/// Returns the next number of a xorshift generator, the same in every run.
fn random(state: &mut u64) -> usize {
    *state ^= *state << 13;
    *state ^= *state >> 7;
    *state ^= *state << 17;
    usize::try_from(*state % 1_000_003).unwrap()
}

/// Returns the total of all wallets as of a moment.
async fn total(app: &TestApp, wallets: &[String], at: &str) -> f64 {
    let mut total = 0.0;
    for id in wallets {
        let wallet = app.get(&format!("/wallet/balance/{id}?at={at}")).await.json();
        total += wallet["balance"].as_f64().unwrap();
    }
    total
}

#[tokio::test]
async fn the_total_of_all_wallets_is_constant_during_concurrent_transfers() {
    run(async |app| {
        let mut wallets = Vec::new();
        for _ in 0..WALLETS {
            wallets.push(app.open_wallet("EUR", "10").await);
        }
        let mut state = 88_172_645_463_325_252;
        let transfers: Vec<_> = (0..1_500)
            .map(|_| {
                let [from, to] = [(); 2].map(|()| &wallets[random(&mut state) % WALLETS]);
                let cents = random(&mut state) % 400 + 1;
                json!({ "from": from, "to": to, "amount": format!("{}.{:02}", cents / 100, cents % 100) })
            })
            .collect();

        let writes = stream::iter(transfers)
            .map(|transfer| app.post("/wallet/transfer", transfer))
            .buffer_unordered(32)
            .map(|response| response.status)
            .collect::<Vec<_>>();
        let reads = async {
            for _ in 0..5 {
                // All balances as of one moment, at which every wallet existed.
                let newest = wallets.last().unwrap();
                let newest = app.get(&format!("/wallet/{newest}/history?limit=1")).await.json();
                let at = newest[0]["at"].as_str().unwrap().to_owned();
                let sum = total(app, &wallets, &at).await;
                assert!((sum - 1000.0).abs() < 1e-6, "{sum} at {at}");
            }
        };
        let (statuses, ()) = join(writes, reads).await;

        assert!(statuses.iter().all(|status| [201, 422].contains(status)), "{statuses:?}");
        assert!(statuses.iter().filter(|status| **status == 201).count() > 500);
    })
    .await;
}
