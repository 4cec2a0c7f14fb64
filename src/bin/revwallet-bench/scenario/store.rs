//! Scenario `store`, the games store over HTTP: game lists relative to an axum handler that returns the same bytes,
//! purchases relative to transfers, and a thousand purchases of one game at once.

use std::ops::Range;
use std::time::Instant;

use anyhow::{Context, ensure};
use axum::body::Bytes;
use axum::http::header::{CONTENT_TYPE, ETAG};
use axum::routing::get;
use futures_util::{StreamExt, TryStreamExt, stream};
use revwallet::error::Error;
use revwallet::ledger::account::{AccountId, SystemRole};
use revwallet::ledger::currency::Currencies;
use revwallet::ledger::money::Minor;
use revwallet::ledger::read;
use serde_json::{Value, json};

use crate::book::BenchBook;
use crate::context::BenchContext;
use crate::load::{LoadOperation, LoadSpec, LoadTarget, TargetStore};
use crate::report::{Measurement, ReportSection, TargetBound};
use crate::resource_usage::ResourceMonitor;
use crate::samples::{LoadSample, PairedSamples};
use crate::verification::verify_book;

const CONNECTIONS: usize = 64;

/// Number of games in the store while reads of the game list are measured.
const LISTED: i64 = 1_000;

/// Number of games in the store, more than a user can buy during a run.
const GAMES: i64 = 10_000;

/// Number of users that buy the same game at once.
const CROWD: usize = 1_000;

/// Number of wallets between which transfers are made.
const WALLETS: u32 = 1_000;

/// Initial balance of each wallet, in euros.
const EUROS: u32 = 1_000_000;

/// Number of rounds. The report contains the median of each measurement.
const TURNS: u32 = 3;

/// Number of requests in flight while users and games are created.
const PARALLEL: usize = 32;

/// Settings of the server: it logs every request, spends little CPU time on password hashes, and trusts the
/// `X-Forwarded-For` header, so that each client can use its own address and limits per address do not delay logins.
const SETTINGS: [&str; 5] = [
    "--trusted-proxies=127.0.0.1",
    "--log-success-ratio=1",
    "--registrations-max=100000",
    "--password-memory=512",
    "--password-passes=1",
];

/// A client of the store that creates the users and games for the loads.
struct StoreClient {
    http: reqwest::Client,
    url: String,
}

/// The game list as the server sends it.
#[derive(Clone)]
struct GameList {
    tag: String,
    body: Bytes,
}

pub(super) async fn measure(context: &BenchContext) -> anyhow::Result<ReportSection> {
    let book = BenchBook::create(&context.postgres, "store").await?;
    let server = context.start_server_with(&book, &SETTINGS).await?;
    // The HTTP client needs a TLS provider, although it does not use TLS.
    let _installed = rustls::crypto::ring::default_provider().install_default();
    let client =
        StoreClient { http: reqwest::Client::new(), url: format!("http://{}", server.address) };
    let wallets = LoadTarget::open_with_balance(&server.address, WALLETS, EUROS).await?;
    let monitor = context.monitor(&[server.id()]);
    let load = StoreLoad { context, monitor, address: server.address.clone() };
    let mut section = ReportSection::default();

    let mut games = client.add_games(0..LISTED).await?;
    let list = client.list().await?;
    let store = TargetStore::new(Vec::new(), Vec::new(), list.tag.clone());
    load.measure_lists(&wallets.clone().with_store(store), list, &mut section).await?;

    games.extend(client.add_games(LISTED..GAMES).await?);
    let mut tokens = client.register(CROWD + CONNECTIONS).await?;
    let crowd = tokens.split_off(CONNECTIONS);
    let store = TargetStore::new(games, tokens, String::new());
    let target = wallets.clone().with_store(store);
    load.measure_purchases(&target, &mut section).await?;

    let game = client.add_games(GAMES..GAMES + 1).await?;
    let before = revenue(&book).await?;
    let target = wallets.with_store(TargetStore::new(game, crowd, String::new()));
    load.buy_at_once(&target, &mut section).await?;
    let earned = revenue(&book).await? - before;
    ensure!(earned == 100 * i64::try_from(CROWD)?, "{CROWD} purchases earned {earned} cents");
    server.kill().await?;
    section.add_note(format!(
        "Store: {CROWD} users bought one game at once, for exactly {CROWD} euros; {}.",
        verify_book(&book).await?
    ));
    Ok(section)
}

/// Runs and measures loads on the server of this scenario.
struct StoreLoad<'a> {
    context: &'a BenchContext,
    monitor: ResourceMonitor,
    address: String,
}

impl StoreLoad<'_> {
    fn spec(&self, operation: LoadOperation) -> LoadSpec {
        LoadSpec {
            address: self.address.clone(),
            operation,
            connections: CONNECTIONS,
            wallets: WALLETS as usize,
            duration: self.context.args.duration,
        }
    }

    async fn measure_lists(
        &self,
        target: &LoadTarget,
        list: GameList,
        section: &mut ReportSection,
    ) -> anyhow::Result<()> {
        let bare_spec =
            LoadSpec { address: serve_bare(list).await?, ..self.spec(LoadOperation::Games) };
        let (mut lists, mut unchanged) = (PairedSamples::default(), PairedSamples::default());
        for turn in 1..=TURNS {
            tracing::info!(
                "measuring requests for lists of games to a bare axum handler and to the server, round {turn} of {TURNS}"
            );
            let bare = target.run(&self.monitor, bare_spec.clone()).await?;
            let listed = target.run(&self.monitor, self.spec(LoadOperation::Games)).await?;
            let not_modified =
                target.run(&self.monitor, self.spec(LoadOperation::UnchangedGames)).await?;
            unchanged.push(listed.clone(), not_modified);
            lists.push(bare, listed);
        }
        let label = "lists of games, relative to a bare handler with the same bytes";
        section.add_target(label, lists.median_ratio(LoadSample::rate), TargetBound::AtLeast(0.6));
        let label = "lists that have not changed (304), relative to whole ones";
        section.add_target(
            label,
            unchanged.median_ratio(LoadSample::rate),
            TargetBound::AtLeast(1.0),
        );
        let labels = ["bare axum handler with the bytes of a list", "lists of 100 of 1,000 games"];
        section.measurements.extend(lists.into_measurements(labels, CONNECTIONS)?);
        let [_, not_modified] =
            unchanged.into_measurements(["", "lists that have not changed (304)"], CONNECTIONS)?;
        section.measurements.push(not_modified);
        Ok(())
    }

    async fn measure_purchases(
        &self,
        target: &LoadTarget,
        section: &mut ReportSection,
    ) -> anyhow::Result<()> {
        let mut samples = PairedSamples::default();
        for turn in 1..=TURNS {
            tracing::info!("measuring transfers, then purchases, round {turn} of {TURNS}");
            let transfers = target.run(&self.monitor, self.spec(LoadOperation::Transfer)).await?;
            let purchases = target.run(&self.monitor, self.spec(LoadOperation::Purchase)).await?;
            samples.push(transfers, purchases);
        }
        let label = "purchases of games, relative to transfers";
        section.add_target(
            label,
            samples.median_ratio(LoadSample::rate),
            TargetBound::AtLeast(0.4),
        );
        let labels = ["transfers over HTTP, beside purchases", "purchases of games over HTTP"];
        section.measurements.extend(samples.into_measurements(labels, CONNECTIONS)?);
        section.add_note(format!(
            "{} games were bought, one at a time per connection.",
            target.store().purchases()
        ));
        Ok(())
    }

    /// Measures purchases in which all users buy the only game of the store at the same time.
    async fn buy_at_once(
        &self,
        target: &LoadTarget,
        section: &mut ReportSection,
    ) -> anyhow::Result<()> {
        let spec = LoadSpec { connections: CROWD, ..self.spec(LoadOperation::Purchase) };
        let load = target.connect_paced(&spec).await?;
        let once = |_| {
            let mut due = Some(Instant::now());
            async move || due.take()
        };
        let sample: LoadSample = self.monitor.measure(load.run(once)).await?.into();
        section.measurements.push(Measurement::new("purchases of one game at once", CROWD, sample));
        Ok(())
    }
}

/// Serves the list from an axum handler that does nothing else, as the baseline. Returns the address of the handler's
/// server.
async fn serve_bare(list: GameList) -> anyhow::Result<String> {
    let headers = [(CONTENT_TYPE, "application/json".to_owned()), (ETAG, list.tag)];
    let handler = async move || (headers, list.body);
    let router = axum::Router::new().route("/api/games", get(handler));
    let socket = tokio::net::TcpListener::bind("127.0.0.1:0").await?;
    let address = socket.local_addr()?.to_string();
    #[expect(clippy::disallowed_methods, reason = "ends with the benchmark")]
    tokio::spawn(async move { axum::serve(socket, router).await });
    Ok(address)
}

/// Returns the revenue of the operator, in minor units.
async fn revenue(book: &BenchBook) -> anyhow::Result<i64> {
    let euro = Currencies::default().find("EUR").context("EUR is a default currency")?;
    let account = AccountId::system(SystemRole::Revenue, euro);
    let balances = read::balances(&mut book.connect().await?, &[account], read::END).await;
    let balances = balances.map_err(Error::into_cause)?;
    Ok(balances.first().map_or(0, |Minor(cents)| *cents))
}

impl StoreClient {
    async fn post(&self, path: &str, token: Option<&str>, body: &Value) -> anyhow::Result<Value> {
        let request = self.http.post(format!("{}{path}", self.url));
        let [a, b, c, _] = fastrand::u32(..).to_le_bytes();
        let request = request
            .header("content-type", "application/json")
            .header("x-forwarded-for", format!("10.{a}.{b}.{c}"))
            .body(body.to_string());
        let request = match token {
            Some(token) => request.bearer_auth(token),
            None => request,
        };
        let response = request.send().await?;
        let (status, text) = (response.status(), response.text().await?);
        ensure!(status.is_success(), "{path} returned {status}: {text}");
        Ok(serde_json::from_str(&text)?)
    }

    /// Adds games that cost one euro each, with the given numbers in their titles.
    async fn add_games(&self, numbers: Range<i64>) -> anyhow::Result<Vec<i64>> {
        let add = async |number| {
            let (title, description) = (format!("Game {number}"), "A game of the benchmark.");
            let body = json!({ "title": title, "genre": "puzzle", "price": "1.00", "description": description });
            let added = self.post("/api/games", None, &body).await?;
            added["gameId"].as_i64().context("a new game has no id")
        };
        stream::iter(numbers).map(add).buffer_unordered(PARALLEL).try_collect().await
    }

    /// Registers users and gives each more euros than a run can spend. Returns their tokens.
    async fn register(&self, count: usize) -> anyhow::Result<Vec<String>> {
        let register = async |number| {
            let (name, password) = (format!("shopper{number}"), "a password of the benchmark");
            let body = json!({ "username": name, "email": format!("{name}@example.com"), "password": password });
            let user = self.post("/api/users/register", None, &body).await?;
            let body = json!({ "username": name, "password": password });
            let session = self.post("/api/users/login", None, &body).await?;
            let token = session["token"].as_str().context("a session has no token")?;
            let body = json!({ "userId": user["id"], "amount": 100 * GAMES });
            self.post("/api/wallet/deposit", Some(token), &body).await?;
            Ok(token.to_owned())
        };
        stream::iter(0..count).map(register).buffer_unordered(PARALLEL).try_collect().await
    }

    async fn list(&self) -> anyhow::Result<GameList> {
        let response = self.http.get(format!("{}/api/games?limit=100", self.url)).send().await?;
        let tag = response.headers().get("etag").context("a list has no tag")?;
        Ok(GameList { tag: tag.to_str()?.to_owned(), body: response.bytes().await? })
    }
}
