//! Every route × every kind of caller × both access modes. The routes come from the router, so none can be forgotten;
//! what was found is written into `docs/security.md` (`BLESS=1`), where it is read by people.

use std::fmt::Write;
use std::path::Path;

use http::Method;
use revwallet::auth::Scope;
use serde_json::{Value, json};

use crate::harness::people::sign_in;
use crate::harness::{Client, TestApp, run_with};

const METHODS: [&str; 5] = ["get", "post", "put", "patch", "delete"];

/// A wallet, and what there is around it.
struct Things {
    wallet: String,
    /// Another of the same owner.
    second: String,
    /// Set aside by a shop.
    hold: String,
    /// From the second wallet to the first.
    transfer: String,
}

/// Everything that is asked about.
struct Scene<'a> {
    app: &'a TestApp,
    owner_id: String,
    /// Of the owner, and of nobody.
    things: [Things; 2],
    shop: Client,
    owner: Client,
    callers: Vec<(&'static str, Vec<Client>)>,
}

async fn id_of(client: &Client, path: &str, body: Value) -> String {
    let answer = client.post(path, body).await;
    assert!([200, 201].contains(&answer.status), "{path}: {}", answer.text);
    answer.json()["id"].as_str().unwrap().to_owned()
}

async fn things(opener: &Client, shop: &Client) -> Things {
    let opened =
        async || id_of(opener, "/wallet", json!({ "owner": "x", "currency": "EUR" })).await;
    let (wallet, second) = (opened().await, opened().await);
    for wallet in [&wallet, &second] {
        shop.post("/wallet/deposit", json!({ "id": wallet, "amount": 100 })).await;
    }
    let between = json!({ "from": second, "to": wallet, "amount": 5 });
    let transfer = id_of(shop, "/wallet/transfer", between).await;
    let hold = id_of(shop, "/wallet/hold", json!({ "id": wallet, "amount": 5 })).await;
    Things { wallet, second, hold, transfer }
}

impl<'a> Scene<'a> {
    async fn set(app: &'a TestApp) -> Self {
        let shop = app.key(&[Scope::WalletRead, Scope::WalletWrite]).await;
        let admin = app.key(&[Scope::Admin]).await;
        let (owner, other) = (app.person("owner").await, app.person("other").await);
        let things = [things(&owner, &shop).await, things(&shop, &shop).await];
        let mut callers = vec![
            ("nobody", vec![(**app).clone()]),
            ("bad credential", bad(app, &owner.password, &admin).await),
            ("another user", vec![other.client.clone()]),
            ("the owner", vec![owner.client.clone()]),
        ];
        for scope in Scope::ALL {
            callers.push((scope.name(), vec![app.key(&[scope]).await]));
        }
        Self { app, owner_id: owner.id.clone(), things, shop, owner: owner.client, callers }
    }

    /// A request that is refused for its content, or does no harm, when its caller is let in. One for each row.
    async fn requests(&self, method: &str, path: &str) -> Vec<(&'static str, String, Value)> {
        let about_a_wallet = path.starts_with("/wallet/")
            && path != "/wallet/probe"
            && !path.starts_with("/wallet/webhook");
        if about_a_wallet {
            let [owned, free] = &self.things;
            return vec![
                ("of a user", self.filled(method, path, owned).await, body(method, path, owned)),
                ("of nobody", self.filled(method, path, free).await, body(method, path, free)),
            ];
        }
        let one = |path: String, body: Value| vec![("", path, body)];
        match (method, path) {
            ("POST", "/wallet") => {
                let body = |initial: u32| json!({ "owner": "x", "currency": "EUR", "initial_balance": initial });
                vec![("empty", path.to_owned(), body(0)), ("with money", path.to_owned(), body(5))]
            }
            ("POST", "/wallet/webhook") => one(path.to_owned(), hook()),
            (_, path) if path.starts_with("/wallet/webhook/{webhook}") => {
                let webhook = id_of(&self.owner, "/wallet/webhook", hook()).await;
                let since = json!({ "since": "2026-01-01T00:00:00Z" });
                vec![("of a user", path.replace("{webhook}", &webhook), since)]
            }
            ("POST", "/api/users/logout") => one(path.to_owned(), json!({ "token": "nonsense" })),
            (_, path) if path.starts_with("/api/keys/{key}") => {
                let key = self.app.key(&[Scope::GamesWrite]).await;
                let id = key.credential().split('_').nth(1).unwrap();
                one(path.replace("{key}", id), json!({}))
            }
            (_, "/api/users/{id}" | "/internal/user/{id}") => {
                one(path.replace("{id}", &self.owner_id), json!({}))
            }
            (_, "/problems/{slug}") => one("/problems/invalid".to_owned(), json!({})),
            (_, path) if !path.contains('{') => one(path.to_owned(), json!({})),
            (method, path) => panic!(
                "{method} {path} is new: say here how it is asked, and read what comes of it"
            ),
        }
    }

    /// The path of a route about a wallet.
    async fn filled(&self, method: &str, path: &str, things: &Things) -> String {
        let Things { wallet, hold, transfer, .. } = things;
        let mut path = path.to_owned();
        if path.contains("{alert}") {
            let place = format!("/wallet/{wallet}/alert");
            path = path.replace("{alert}", &id_of(&self.shop, &place, json!({ "below": 1 })).await);
        }
        if path.ends_with("/void") && method == "POST" {
            let fresh = json!({ "id": wallet, "amount": 1 });
            path = path.replace("{hold}", &id_of(&self.shop, "/wallet/hold", fresh).await);
        }
        let id = if path.starts_with("/wallet/transfer/") { transfer } else { wallet };
        path.replace("{hold}", hold).replace("{id}", id)
    }

    /// Takes away what was made for one request, since there may be only so many.
    async fn clean(&self, path: &str) {
        let parts: Vec<&str> = path.split('/').collect();
        let (client, path) = match parts[..] {
            ["", "wallet", "webhook", id, ..] => (&self.owner, format!("/wallet/webhook/{id}")),
            ["", "wallet", _, "alert", _] => (&self.shop, path.to_owned()),
            _ => return,
        };
        client.send(client.request(Method::DELETE, &path)).await;
    }

    /// One line of the table for each row of a route.
    async fn lines(&self, method: &str, path: &str) -> Vec<String> {
        let names: Vec<&str> =
            self.requests(method, path).await.iter().map(|(name, ..)| *name).collect();
        let mut lines = Vec::new();
        for (row, name) in names.into_iter().enumerate() {
            let title = format!("{method} {path}");
            let mut line = format!(
                "| `{title}`{} |",
                if name.is_empty() { String::new() } else { format!(" {name}") }
            );
            for (who, clients) in &self.callers {
                let mut cells = Vec::new();
                for client in clients {
                    // Made anew for each, since some are used up.
                    let (_, path, body) = self.requests(method, path).await.swap_remove(row);
                    let through = if path.starts_with("/internal") {
                        self.app.internal.with(client.credential())
                    } else {
                        client.clone()
                    };
                    let through = if client.credential().is_empty() && path.starts_with("/internal")
                    {
                        self.app.internal.clone()
                    } else {
                        through
                    };
                    let answer = through
                        .send(through.request(method.parse::<Method>().unwrap(), &path).json(&body))
                        .await;
                    self.clean(&path).await;
                    assert!(answer.status < 500, "{title} by {who}: {}", answer.text);
                    cells.push(match answer.status {
                        401 if answer.text.contains("invalid-credentials") => "yes".to_owned(),
                        refused @ (401 | 403 | 404) => refused.to_string(),
                        _ => "yes".to_owned(),
                    });
                }
                let first = cells[0].clone();
                assert!(
                    cells.iter().all(|cell| *cell == first),
                    "{title}: not all alike of {who}: {cells:?}"
                );
                write!(line, " {first} |").unwrap();
            }
            lines.push(line);
        }
        lines
    }
}

/// What is sent about a wallet: amounts of nothing move nothing.
fn body(method: &str, path: &str, things: &Things) -> Value {
    let Things { wallet, second, transfer, .. } = things;
    let between = json!({ "from": wallet, "to": second, "amount": 0 });
    match (method, path) {
        ("POST", "/wallet/transfer") => between,
        ("POST", "/wallet/batch") => json!({ "atomic": true, "transfers": [between] }),
        ("POST", "/wallet/refund") => json!({ "transfer": transfer, "amount": 0 }),
        ("POST", "/wallet/{id}/alert") => json!({ "below": "0.001" }),
        ("POST", "/wallet/deposit" | "/wallet/withdraw" | "/wallet/hold") => {
            json!({ "id": wallet, "amount": 0 })
        }
        ("POST", "/wallet/hold/{hold}/capture") => json!({ "amount": 0 }),
        ("POST", "/wallet/hold/{hold}/void") | ("GET" | "PATCH" | "DELETE", _) => json!({}),
        (method, path) => panic!("{method} {path} is new: say here how it is asked"),
    }
}

fn hook() -> Value {
    json!({ "url": "https://example.com/hook", "events": ["*"] })
}

/// Nonsense, a token that was signed out, one whose session is over, and a key that was revoked.
async fn bad(app: &TestApp, password: &str, admin: &Client) -> Vec<Client> {
    let out = sign_in(app, "owner", password).await;
    out.post("/api/users/logout", json!({})).await;
    let over = sign_in(app, "owner", password).await;
    app.database
        .execute("update session set expires_at = now() where created_at = (select max(created_at) from session)")
        .await;
    let revoked = app.key(&[Scope::Admin]).await;
    let id = revoked.credential().split('_').nth(1).unwrap();
    admin.send(admin.request(Method::DELETE, &format!("/api/keys/{id}"))).await;
    vec![app.with("nonsense"), app.with("rwk_1_nonsense"), out, over, revoked]
}

async fn table(app: &TestApp) -> String {
    let document = app.get("/openapi.json").await.json();
    let scene = Scene::set(app).await;
    let names: Vec<&str> = scene.callers.iter().map(|(name, _)| *name).collect();
    let mut table =
        format!("| route | {} |\n|---|{}\n", names.join(" | "), "---|".repeat(names.len()));
    for (path, item) in document["paths"].as_object().unwrap() {
        for method in METHODS.into_iter().filter(|method| item.get(method).is_some()) {
            for line in scene.lines(&method.to_uppercase(), path).await {
                table.push_str(&line);
                table.push('\n');
            }
        }
    }
    for line in scene.lines("GET", "/internal/user/{id}").await {
        table.push_str(&line);
        table.push('\n');
    }
    table
}

async fn held_against(part: &str, settings: &[&str]) {
    run_with(settings, async |app| {
        let found = table(app).await;
        let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("docs/security.md");
        let document = std::fs::read_to_string(&path).unwrap();
        let (begin, end) = (format!("<!-- {part} -->\n"), format!("<!-- end of {part} -->"));
        let start = document.find(&begin).unwrap() + begin.len();
        let stop = document.find(&end).unwrap();
        if document[start..stop] != found {
            let differences: Vec<&str> = found.lines().filter(|line| !document[start..stop].contains(*line)).collect();
            assert!(std::env::var_os("BLESS").is_some(), "docs/security.md says otherwise; look at these lines, then run with BLESS=1 if they are right:\n{}", differences.join("\n"));
            std::fs::write(&path, format!("{}{found}{}", &document[..start], &document[stop..])).unwrap();
        }
    })
    .await;
}

/// Both in one test: they write one document.
#[tokio::test]
async fn who_may_do_what_is_as_documented() {
    held_against("access open", &["--access=open"]).await;
    held_against("access closed", &["--access=closed"]).await;
}
