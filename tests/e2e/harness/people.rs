//! Users and keys that tests sign in with.

use revwallet::auth::Caller;
use revwallet::auth::Scope;
use serde_json::json;

use super::{Client, TestApp};

/// A user who is signed in.
pub struct Person {
    pub id: String,
    pub password: String,
    pub client: Client,
}

impl std::ops::Deref for Person {
    type Target = Client;

    fn deref(&self) -> &Client {
        &self.client
    }
}

impl TestApp {
    /// A new user of that name, signed in.
    pub async fn person(&self, name: &str) -> Person {
        let password = format!("planted by {name}!");
        let email = format!("{name}@example.com");
        let body = json!({ "username": name, "email": email, "password": password });
        let answer = self.post("/api/users/register", body).await;
        assert_eq!(answer.status, 200, "{}", answer.text);
        let id = answer.json()["id"].as_str().unwrap().to_owned();
        let client = sign_in(self, name, &password).await;
        Person { id, password, client }
    }

    /// A client with a new key that has these scopes.
    pub async fn key(&self, scopes: &[Scope]) -> Client {
        let made =
            self.app().api_keys.create(&Caller::operator(), None, "test", scopes).await.unwrap();
        self.with(made.key.reveal())
    }
}

/// A client with a new token.
pub async fn sign_in(through: &Client, name: &str, password: &str) -> Client {
    let body = json!({ "username": name, "password": password });
    let answer = through.post("/api/users/login", body).await;
    assert_eq!(answer.status, 200, "{}", answer.text);
    through.with(answer.json()["token"].as_str().unwrap())
}
