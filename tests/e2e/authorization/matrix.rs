//! The permission matrix: every route, every kind of caller, both access modes.
//!
//! Routes come from the OpenAPI document, so none can be missed. `BLESS=1` writes the result to `docs/security.md`.

use std::fmt::Write;
use std::path::Path;

use http::Method;
use revwallet::auth::Scope;
use serde_json::{Value, json};

use crate::harness::users::sign_in;
use crate::harness::{Client, TestApp, eventually, run_with};

const METHODS: [&str; 5] = ["get", "post", "put", "patch", "delete"];

/// A wallet with its related resources.
struct WalletFixture {
    wallet: String,
    /// Another wallet of the same owner.
    second: String,
    /// A hold on the wallet, placed by the shop.
    hold: String,
    /// A transfer from the second wallet to the first.
    transfer: String,
}

/// Everything that the matrix needs: callers, and resources that they request.
struct Fixture<'a> {
    app: &'a TestApp,
    owner_id: String,
    /// Wallets of the owner, and wallets that belong to no user.
    wallets: [WalletFixture; 2],
    shop: Client,
    owner: Client,
    /// The owner as a publisher.
    publisher: String,
    /// A free game of that publisher, which the owner owns.
    game: String,
    /// An order of the owner on the exchange.
    order: String,
    callers: Vec<(&'static str, Vec<Client>)>,
}

async fn id_of(client: &Client, path: &str, body: Value) -> String {
    let response = client.post(path, body).await;
    assert!([200, 201].contains(&response.status), "{path}: {}", response.text);
    response.json()["id"].as_str().unwrap().to_owned()
}

/// Adds a free game with further members and returns its id.
async fn new_game(admin: &Client, further: Value) -> String {
    let mut body = json!({ "title": "x", "genre": "x", "price": 0 });
    body.as_object_mut().unwrap().extend(further.as_object().unwrap().clone());
    admin.post("/api/games", body).await.json()["gameId"].to_string()
}

async fn wallet_fixture(opener: &Client, shop: &Client) -> WalletFixture {
    let open = async || id_of(opener, "/wallet", json!({ "owner": "x", "currency": "EUR" })).await;
    let (wallet, second) = (open().await, open().await);
    for wallet in [&wallet, &second] {
        shop.post("/wallet/deposit", json!({ "id": wallet, "amount": 100 })).await;
    }
    let body = json!({ "from": second, "to": wallet, "amount": 5 });
    let transfer = id_of(shop, "/wallet/transfer", body).await;
    let hold = id_of(shop, "/wallet/hold", json!({ "id": wallet, "amount": 5 })).await;
    WalletFixture { wallet, second, hold, transfer }
}

/// Whether a route is about a wallet.
fn is_wallet_route(path: &str) -> bool {
    path.starts_with("/wallet/")
        && !["/wallet/info", "/wallet/probe"].contains(&path)
        && !path.starts_with("/wallet/webhook")
}

impl<'a> Fixture<'a> {
    async fn create(app: &'a TestApp) -> Self {
        let shop = app.api_key(&[Scope::WalletRead, Scope::WalletWrite]).await;
        let admin = app.api_key(&[Scope::Admin]).await;
        let (owner, other) = (app.user("owner").await, app.user("other").await);
        // Where access is closed, there are no guests.
        shop.post("/api/wallet/deposit", json!({ "userId": "guest", "amount": 100 })).await;
        let wallets = [wallet_fixture(&owner, &shop).await, wallet_fixture(&shop, &shop).await];
        let mut callers = vec![
            ("anonymous", vec![(**app).clone()]),
            ("bad credential", invalid_credentials(app, &owner.password, &admin).await),
            ("another user", vec![other.client.clone()]),
            ("the owner", vec![owner.client.clone()]),
        ];
        for scope in Scope::ALL {
            callers.push((scope.name(), vec![app.api_key(&[scope]).await]));
        }
        let body = json!({ "user": owner.id, "name": "x" });
        let publisher = id_of(&admin, "/api/publishers", body).await;
        let game = new_game(&admin, json!({ "publisher": publisher })).await;
        owner.post(&format!("/api/games/{game}/purchase"), json!({})).await;
        shop.post("/api/wallet/deposit", json!({ "userId": owner.id, "amount": 100 })).await;
        let buy = format!("/exchange/buy/{}", owner.id);
        let order =
            owner.post(&buy, json!({ "fiat_amount": 1 })).await.json()["order_id"].to_string();
        let (owner_id, owner) = (owner.id.clone(), owner.client);
        Self { app, owner_id, wallets, shop, owner, publisher, game, order, callers }
    }

    /// Returns one request per row of a route; for a permitted caller it is invalid or harmless.
    async fn requests(&self, method: &str, path: &str) -> Vec<(&'static str, String, Value)> {
        if is_wallet_route(path) {
            let [owned, unowned] = &self.wallets;
            return vec![
                ("of a user", self.filled(method, path, owned).await, body(method, path, owned)),
                (
                    "without owner",
                    self.filled(method, path, unowned).await,
                    body(method, path, unowned),
                ),
            ];
        }
        let single = |path: String, body: Value| vec![("", path, body)];
        match (method, path) {
            ("POST", "/wallet") => {
                let body = |initial: u32| json!({ "owner": "x", "currency": "EUR", "initial_balance": initial });
                vec![("empty", path.to_owned(), body(0)), ("with money", path.to_owned(), body(5))]
            }
            (
                _,
                "/api/wallet/deposit" | "/api/wallet/withdraw" | "/api/wallet/balance/{user_id}",
            ) => [("of a user", &self.owner_id), ("of a guest", &"guest".to_owned())]
                .map(|(name, player)| {
                    let body = json!({ "userId": player, "amount": 1 });
                    (name, path.replace("{user_id}", player), body)
                })
                .to_vec(),
            (method, path)
                if ["/api/games", "/api/codes", "/api/publishers/{id}"]
                    .iter()
                    .any(|start| path.starts_with(start)) =>
            {
                self.store_requests(method, path).await
            }
            ("POST", "/wallet/webhook") => single(path.to_owned(), webhook_body()),
            (method, path) if path.starts_with("/api/leaderboard") && path.contains('{') => {
                vec![self.leaderboard_request(method, path).await]
            }
            (_, path) if path.starts_with("/wallet/webhook/{webhook}") => {
                let webhook = id_of(&self.owner, "/wallet/webhook", webhook_body()).await;
                let body = if path.ends_with("/replay") {
                    json!({ "since": "2026-01-01T00:00:00Z" })
                } else {
                    json!({})
                };
                vec![("of a user", path.replace("{webhook}", &webhook), body)]
            }
            ("POST", "/api/users/logout") => {
                single(path.to_owned(), json!({ "token": "nonsense" }))
            }
            (_, path) if path.starts_with("/api/keys/{key}") => {
                let key = self.app.api_key(&[Scope::GamesWrite]).await;
                let id = key.credential().split('_').nth(1).unwrap();
                single(path.replace("{key}", id), json!({}))
            }
            (_, "/api/users/me") => single(path.to_owned(), json!({})),
            (_, "/api/users/{id}" | "/internal/user/{id}" | "/api/users/{id}/library") => {
                single(path.replace("{id}", &self.owner_id), json!({}))
            }
            (_, path) if path.contains("{order_id}") || path.starts_with("/exchange/") => {
                single(self.exchange_path(path), json!({}))
            }
            (_, "/problems/{slug}") => single(path.replace("{slug}", "invalid"), json!({})),
            (_, path) if !path.contains('{') => single(path.to_owned(), json!({})),
            (method, path) => panic!(
                "{method} {path} is new: add its request here and review the resulting permissions"
            ),
        }
    }

    /// A path of the exchange, about the owner and an order of the owner.
    fn exchange_path(&self, path: &str) -> String {
        let path = path.replace("{user_id}", &self.owner_id);
        path.replace("{order_id}", &self.order).replace("{command}", "retry")
    }

    /// Returns requests to the store, about games of the owner and of the house.
    async fn store_requests(&self, method: &str, path: &str) -> Vec<(&'static str, String, Value)> {
        let admin = self.app.api_key(&[Scope::Admin]).await;
        let of_owner = json!({ "publisher": self.publisher });
        let filled = |game: &str| path.replace("{user_id}", &self.owner_id).replace("{id}", game);
        match (method, path) {
            ("POST", "/api/games") => {
                let plain = json!({ "title": "x", "genre": "x", "price": 0 });
                let mut invalid = plain.clone();
                invalid["publisher"] = json!(self.publisher);
                invalid["base"] = json!(999_999_999);
                let path = path.to_owned();
                vec![("of the house", path.clone(), plain), ("of a publisher", path, invalid)]
            }
            (_, "/api/games") => vec![("", path.to_owned(), json!({}))],
            (_, path) if path.starts_with("/api/publishers/{id}") => {
                vec![("", path.replace("{id}", &self.publisher), json!({}))]
            }
            (_, "/api/codes") => {
                let body = json!({ "percent": 10, "publisher": self.publisher });
                let all = json!({ "percent": 10 });
                vec![
                    ("for a publisher", path.to_owned(), body),
                    ("for all games", path.to_owned(), all),
                ]
            }
            ("GET", "/api/games/{id}") => {
                let draft = json!({ "publisher": self.publisher, "state": "draft" });
                let draft = new_game(&admin, draft).await;
                vec![
                    ("published", filled(&self.game), json!({})),
                    ("draft", filled(&draft), json!({})),
                ]
            }
            (_, path) if path.ends_with("/sales/{sale}") => {
                let sale = filled(&self.game).replace("{sale}", "x");
                let body = json!({ "percent": 10, "starts_at": "2030-01-01T00:00:00Z", "ends_at": "2030-01-02T00:00:00Z" });
                let put = admin.request(Method::PUT, &sale).json(&body);
                assert!([200, 201].contains(&admin.send(put).await.status));
                vec![("", sale, json!({}))]
            }
            ("PUT" | "DELETE", _) => {
                let (own, house) =
                    (new_game(&admin, of_owner).await, new_game(&admin, json!({})).await);
                vec![
                    ("of a publisher", filled(&own), json!({})),
                    ("of the house", filled(&house), json!({})),
                ]
            }
            // A price that is wrong.
            (_, path) if path.ends_with("/purchase") => {
                vec![("", filled(&self.game), json!({ "expected_price": 1 }))]
            }
            _ => vec![("", filled(&self.game), json!({}))],
        }
    }

    /// Returns a request about a leaderboard that exists.
    async fn leaderboard_request(&self, method: &str, path: &str) -> (&'static str, String, Value) {
        if path == "/api/leaderboard/{user_id}" {
            let deposit = json!({ "userId": self.owner_id, "amount": 1 });
            self.shop.post("/api/wallet/deposit", deposit).await;
            let path = path.replace("{user_id}", &self.owner_id);
            eventually("the player has a rank", async || self.shop.get(&path).await.status == 200)
                .await;
            return ("", path, json!({}));
        }
        let game = self.app.api_key(&[Scope::EventsWrite]).await;
        game.send(game.request(Method::PUT, "/api/leaderboards/matrix").json(&json!({}))).await;
        let entry = json!({ "user": "ada", "score": 1 });
        game.post("/api/leaderboards/matrix/scores", entry.clone()).await;
        let body = if method == "POST" && path.ends_with("/scores") { entry } else { json!({}) };
        ("", path.replace("{board}", "matrix").replace("{id}", "ada"), body)
    }

    /// Returns the path of a wallet route with its parameters filled in.
    async fn filled(&self, method: &str, path: &str, wallets: &WalletFixture) -> String {
        let WalletFixture { wallet, hold, transfer, .. } = wallets;
        let mut path = path.to_owned();
        if path.contains("{alert}") {
            let alerts = format!("/wallet/{wallet}/alert");
            path =
                path.replace("{alert}", &id_of(&self.shop, &alerts, json!({ "below": 1 })).await);
        }
        if path.ends_with("/void") && method == "POST" {
            let body = json!({ "id": wallet, "amount": 1 });
            path = path.replace("{hold}", &id_of(&self.shop, "/wallet/hold", body).await);
        }
        let id = if path.starts_with("/wallet/transfer/") { transfer } else { wallet };
        path.replace("{hold}", hold).replace("{id}", id)
    }

    /// Deletes resources that were created for one request, because their number is limited.
    async fn clean_up(&self, path: &str) {
        let parts: Vec<&str> = path.split('/').collect();
        let (client, path) = match parts[..] {
            ["", "wallet", "webhook", id, ..] => (&self.owner, format!("/wallet/webhook/{id}")),
            ["", "wallet", _, "alert", _] => (&self.shop, path.to_owned()),
            _ => return,
        };
        client.send(client.request(Method::DELETE, &path)).await;
    }

    /// Returns the table rows of a route.
    async fn rows(&self, method: &str, path: &str) -> Vec<String> {
        let names: Vec<&str> =
            self.requests(method, path).await.iter().map(|(name, ..)| *name).collect();
        let mut lines = Vec::new();
        for (row, name) in names.into_iter().enumerate() {
            let title = format!("{method} {path}");
            let mut line = format!(
                "| `{title}`{} |",
                if name.is_empty() { String::new() } else { format!(" {name}") }
            );
            for (caller, clients) in &self.callers {
                let mut cells = Vec::new();
                for client in clients {
                    // Each caller gets a new request, because some resources can be used only once.
                    let (_, path, body) = self.requests(method, path).await.swap_remove(row);
                    let client = match (path.starts_with("/internal"), client.credential()) {
                        (false, _) => client.clone(),
                        (true, "") => self.app.internal.clone(),
                        (true, credential) => self.app.internal.with_credential(credential),
                    };
                    let response = client
                        .send(client.request(method.parse::<Method>().unwrap(), &path).json(&body))
                        .await;
                    self.clean_up(&path).await;
                    assert!(response.status < 500, "{title} by {caller}: {}", response.text);
                    cells.push(match response.status {
                        401 if response.text.contains("invalid-credentials") => "yes".to_owned(),
                        refused @ (401 | 403 | 404) => refused.to_string(),
                        _ => "yes".to_owned(),
                    });
                }
                let first = cells[0].clone();
                assert!(
                    cells.iter().all(|cell| *cell == first),
                    "{title}: clients of {caller} differ: {cells:?}"
                );
                write!(line, " {first} |").unwrap();
            }
            lines.push(line);
        }
        lines
    }
}

/// Returns the body of a request to a wallet route; an amount of 0 moves no money.
fn body(method: &str, path: &str, wallets: &WalletFixture) -> Value {
    let WalletFixture { wallet, second, transfer, .. } = wallets;
    let transfer_body = json!({ "from": wallet, "to": second, "amount": 0 });
    match (method, path) {
        ("POST", "/wallet/transfer") => transfer_body,
        ("POST", "/wallet/batch") => json!({ "atomic": true, "transfers": [transfer_body] }),
        ("POST", "/wallet/refund") => json!({ "transfer": transfer, "amount": 0 }),
        ("POST", "/wallet/{id}/alert") => json!({ "below": "0.001" }),
        ("POST", "/wallet/deposit" | "/wallet/withdraw" | "/wallet/hold") => {
            json!({ "id": wallet, "amount": 0 })
        }
        ("POST", "/wallet/hold/{hold}/capture") => json!({ "amount": 0 }),
        ("POST", "/wallet/hold/{hold}/void") | ("GET" | "PATCH" | "DELETE", _) => json!({}),
        (method, path) => panic!("{method} {path} is new: add its body here"),
    }
}

fn webhook_body() -> Value {
    json!({ "url": "https://example.com/hook", "events": ["*"] })
}

/// Returns clients with malformed, signed-out, expired and revoked credentials.
async fn invalid_credentials(app: &TestApp, password: &str, admin: &Client) -> Vec<Client> {
    let signed_out = sign_in(app, "owner", password).await;
    signed_out.post("/api/users/logout", json!({})).await;
    let expired = sign_in(app, "owner", password).await;
    app.database
        .execute("update session set expires_at = now() where created_at = (select max(created_at) from session)")
        .await;
    let revoked = app.api_key(&[Scope::Admin]).await;
    let id = revoked.credential().split('_').nth(1).unwrap();
    admin.send(admin.request(Method::DELETE, &format!("/api/keys/{id}"))).await;
    vec![
        app.with_credential("nonsense"),
        app.with_credential("rwk_1_nonsense"),
        signed_out,
        expired,
        revoked,
    ]
}

/// Returns the matrix as a Markdown table.
async fn table(app: &TestApp) -> String {
    let document = app.get("/openapi.json").await.json();
    let fixture = Fixture::create(app).await;
    let names: Vec<&str> = fixture.callers.iter().map(|(name, _)| *name).collect();
    let mut table =
        format!("| route | {} |\n|---|{}\n", names.join(" | "), "---|".repeat(names.len()));
    for (path, item) in document["paths"].as_object().unwrap() {
        for method in METHODS.into_iter().filter(|method| item.get(method).is_some()) {
            for line in fixture.rows(&method.to_uppercase(), path).await {
                table.push_str(&line);
                table.push('\n');
            }
        }
    }
    for line in fixture.rows("GET", "/internal/user/{id}").await {
        table.push_str(&line);
        table.push('\n');
    }
    table
}

/// Compares the matrix with a section of `docs/security.md`, or writes the section with `BLESS=1`.
async fn assert_documented(section: &str, settings: &[&str]) {
    run_with(settings, async |app| {
        let actual = table(app).await;
        let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("docs/security.md");
        let document = std::fs::read_to_string(&path).unwrap();
        let (begin, end) = (format!("<!-- {section} -->\n"), format!("<!-- end of {section} -->"));
        let start = document.find(&begin).unwrap() + begin.len();
        let stop = document.find(&end).unwrap();
        if document[start..stop] != actual {
            let differences: Vec<&str> = actual.lines().filter(|line| !document[start..stop].contains(*line)).collect();
            assert!(std::env::var_os("BLESS").is_some(), "docs/security.md differs; review these rows, then run with BLESS=1 if they are right:\n{}", differences.join("\n"));
            std::fs::write(&path, format!("{}{actual}{}", &document[..start], &document[stop..])).unwrap();
        }
    })
    .await;
}

/// Checks both modes in one test, because both write the same document.
#[tokio::test]
async fn permissions_match_the_documentation() {
    assert_documented("access open", &["--access=open"]).await;
    assert_documented("access closed", &["--access=closed"]).await;
}
