//! Registered users and API keys, as clients.

use revwallet::auth::Caller;
use revwallet::auth::Scope;
use serde_json::json;

use super::{Client, TestApp};

/// A registered user with a signed-in client.
pub struct User {
    pub id: String,
    pub password: String,
    pub client: Client,
}

impl std::ops::Deref for User {
    type Target = Client;

    fn deref(&self) -> &Client {
        &self.client
    }
}

impl TestApp {
    /// Registers a user and signs in.
    pub async fn user(&self, name: &str) -> User {
        let password = format!("test-secret by {name}!");
        let email = format!("{name}@example.com");
        let body = json!({ "username": name, "email": email, "password": password });
        let response = self.post("/api/users/register", body).await;
        assert_eq!(response.status, 200, "{}", response.text);
        let id = response.json()["id"].as_str().unwrap().to_owned();
        let client = sign_in(self, name, &password).await;
        User { id, password, client }
    }

    /// Creates an API key with the given scopes and returns a client that uses it.
    pub async fn api_key(&self, scopes: &[Scope]) -> Client {
        let (keys, operator) = (&self.app().api_keys, Caller::operator());
        let created = keys.create(&operator, None, "test", scopes, None).await.unwrap();
        self.with_credential(created.key.reveal())
    }
}

/// Signs in and returns a client that uses the new token.
pub async fn sign_in(client: &Client, name: &str, password: &str) -> Client {
    let body = json!({ "username": name, "password": password });
    let response = client.post("/api/users/login", body).await;
    assert_eq!(response.status, 200, "{}", response.text);
    client.with_credential(response.json()["token"].as_str().unwrap())
}
