//! The login throttle: it stops password guessing without locking out other users.

use std::time::{Duration, Instant};

use serde_json::json;

use super::sign_in;
use crate::harness::{Response, TestApp, is_long, run, run_with};

async fn guess(app: &TestApp, name: &str, password: &str) -> Response {
    app.post("/api/users/login", json!({ "username": name, "password": password })).await
}

#[tokio::test]
async fn brute_force_is_throttled_and_other_users_can_sign_in() {
    run(async |app| {
        let (ada, bob) = (app.user("ada").await, app.user("bob").await);

        let mut statuses = Vec::new();
        for n in 0..10 {
            statuses.push(guess(app, "ada", &format!("test-secret guess {n}")).await.status);
        }

        assert_eq!(statuses, [401, 401, 401, 401, 401, 429, 429, 429, 429, 429]);
        let problem = guess(app, "ada", &ada.password).await.problem(429, "too-many-requests");
        assert!(
            problem["detail"].as_str().unwrap().starts_with("too many attempts: wait"),
            "{problem}"
        );
        sign_in(app, "bob", &bob.password).await;
        let metrics = app.internal.get("/metrics").await.text;
        assert!(metrics.contains("wallet_rate_limited_total{scope=\"login\"} 6\n"), "{metrics}");
        assert!(metrics.contains(
            "wallet_auth_attempts_total{method=\"password\",outcome=\"bad_credentials\"} 5\n"
        ));
    })
    .await;
}

#[tokio::test]
async fn concurrent_guesses_are_throttled_like_sequential_ones() {
    run(async |app| {
        app.user("ada").await;

        let guesses = (0..60).map(|n| async move {
            guess(app, "ada", &format!("test-secret guess {n}")).await.status
        });
        let statuses = futures_util::future::join_all(guesses).await;

        // On a busy machine, some attempts time out on the connection pool after they were counted.
        let checked = statuses.iter().filter(|status| **status == 401).count();
        assert!((1..=5).contains(&checked), "{statuses:?}");
        assert!(statuses.iter().all(|status| [401, 429, 503].contains(status)), "{statuses:?}");
    })
    .await;
}

/// Moves the clock of the throttle by changing its rows.
async fn shift_time(app: &TestApp, statement: &'static str) {
    app.database.execute(statement).await;
}

#[tokio::test]
async fn the_lockout_doubles_and_expires() {
    run(async |app| {
        let ada = app.user("ada").await;
        let mut waits = Vec::new();
        for _ in 0..5 {
            guess(app, "ada", "test-secret guess").await;
        }
        for _ in 0..4 {
            let response = guess(app, "ada", "test-secret guess").await;
            waits.push(response.header("retry-after").parse::<u64>().unwrap());
            shift_time(app, "update attempt set locked_until = now() where locked_until is not null").await;
            assert_eq!(guess(app, "ada", "test-secret guess").await.status, 401, "one attempt is allowed after each lockout");
        }
        assert_eq!(waits, [1, 2, 4, 8], "the lockout does not double");

        shift_time(app, "update attempt set locked_until = now() where locked_until is not null").await;
        sign_in(app, "ada", &ada.password).await;
        assert_eq!(guess(app, "ada", "test-secret guess").await.status, 401, "a success resets the failures");
        assert_eq!(guess(app, "ada", "test-secret guess").await.status, 401);

        shift_time(app, "update attempt set last_at = now() - interval '2 hours', count = 9, locked_until = now()").await;
        assert_eq!(guess(app, "ada", "test-secret guess").await.status, 401, "old failures expire");
        assert_eq!(guess(app, "ada", "test-secret guess").await.status, 401);
    })
    .await;
}

#[tokio::test]
async fn an_unknown_name_is_throttled_like_a_known_one() {
    run(async |app| {
        app.user("ada").await;
        for n in 0..7 {
            let (known, unknown) = (
                guess(app, "ada", "test-secret guess").await,
                guess(app, "eve", "test-secret guess").await,
            );

            assert_eq!(known.status, unknown.status, "attempt {n}");
            let comparable = |response: &Response| {
                let mut body = response.json();
                body["trace_id"] = json!(null);
                body
            };
            assert_eq!(comparable(&known), comparable(&unknown));
            assert_eq!(known.headers.len(), unknown.headers.len());
        }
    })
    .await;
}

#[tokio::test]
async fn registrations_per_client_address_are_limited() {
    run_with(&["--registrations-max=3", "--trusted-proxies=127.0.0.1"], async |app| {
        let register = async |n: u32, from: &str| {
            let body = json!({ "username": format!("user{n}"), "email": format!("u{n}@example.com"), "password": "test-secret often" });
            let request = app.request(http::Method::POST, "/api/users/register").json(&body);
            app.send(request.header("x-forwarded-for", from)).await
        };
        for n in 0..3 {
            assert_eq!(register(n, "203.0.113.7").await.status, 200);
        }

        register(3, "203.0.113.7").await.problem(429, "too-many-requests");
        register(3, "9.9.9.9, 203.0.113.7").await.problem(429, "too-many-requests");
        assert_eq!(register(3, "203.0.113.8").await.status, 200, "another address has a limit of its own");
    })
    .await;
}

/// Returns the median duration of a failed login.
async fn median(app: &TestApp, names: impl Iterator<Item = String>) -> Duration {
    let mut times = Vec::new();
    for name in names {
        let started = Instant::now();
        assert_eq!(guess(app, &name, "test-secret guess").await.status, 401);
        times.push(started.elapsed());
    }
    times.sort_unstable();
    times[times.len() / 2]
}

#[tokio::test]
async fn an_unknown_name_takes_as_long_as_a_wrong_password() {
    if !is_long() {
        return;
    }
    run_with(
        &["--registrations-max=1000", "--password-memory=19456", "--password-passes=2"],
        async |app| {
            for n in 0..40 {
                app.user(&format!("known{n}")).await;
            }
            let known = median(app, (0..40).map(|n| format!("known{n}"))).await;
            let unknown = median(app, (0..40).map(|n| format!("unknown{n}"))).await;

            let ratio = known.as_secs_f64() / unknown.as_secs_f64();
            assert!((0.7..1.4).contains(&ratio), "{known:?} against {unknown:?}");
        },
    )
    .await;
}
