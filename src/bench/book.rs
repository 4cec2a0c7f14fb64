//! A book in a database of its own, and this process writing to it.

use std::time::Duration;

use anyhow::{Context, ensure};
use sqlx::postgres::{PgConnectOptions, PgPoolOptions};
use sqlx::{Connection, PgConnection};
use uuid::Uuid;

use super::sql;
use crate::db::embedded::Embedded;
use crate::db::{Pipelined, migrations};
use crate::idempotency::HashedKey;
use crate::ledger::account::{AccountId, SystemRole};
use crate::ledger::companion::CompanionKind;
use crate::ledger::currency::{Currencies, Currency};
use crate::ledger::decide::Rules;
use crate::ledger::money::Minor;
use crate::ledger::transfer::{Action, Leg, Posting, TransferKind};
use crate::ledger::{Failpoints, Ledger, LedgerOptions, Settings};
use crate::tasks::Tasks;
use crate::telemetry::Metrics;

/// Longest that what was queued may take to be written at the end.
const DRAIN_MAX: Duration = Duration::from_secs(30);

/// A database with an empty book.
pub(super) struct Book {
    pub url: String,
    options: PgConnectOptions,
    pipelined: Pipelined,
}

/// A writer in this process.
pub(super) struct Writing {
    pub ledger: Ledger,
    tasks: Tasks,
}

impl Book {
    pub(super) async fn create(embedded: &Embedded, name: &str) -> anyhow::Result<Self> {
        let book = Self::empty(embedded, name).await?;
        migrations::apply(&mut book.connect().await?).await?;
        Ok(book)
    }

    /// A database with nothing in it yet.
    pub(super) async fn empty(embedded: &Embedded, name: &str) -> anyhow::Result<Self> {
        let mut db = PgConnection::connect_with(&embedded.connect_options()).await?;
        sql::create_database(&mut db, name).await?;
        db.close().await?;
        let socket_dir = embedded.socket_dir();
        let mut pipelined = tokio_postgres::Config::new();
        pipelined.host_path(socket_dir).user(embedded.user()).dbname(name);
        let user = embedded.user();
        Ok(Self {
            url: format!("postgres://{user}@localhost/{name}?host={}", socket_dir.display()),
            options: embedded.connect_options().database(name),
            pipelined: Pipelined::local(pipelined)?,
        })
    }

    /// As the owner of the database.
    pub(super) async fn connect(&self) -> anyhow::Result<PgConnection> {
        Ok(PgConnection::connect_with(&self.options).await?)
    }

    /// Starts a writer with batches of at most so many legs.
    pub(super) async fn write(
        &self,
        companions: Vec<&'static CompanionKind>,
        batch_legs_max: usize,
    ) -> anyhow::Result<Writing> {
        let tasks = Tasks::default();
        let settings =
            Settings { queue_legs_max: 16 * batch_legs_max, batch_legs_max, ..Settings::default() };
        let options = LedgerOptions {
            database: self.pipelined.clone(),
            pool: PgPoolOptions::new().max_connections(2).connect_lazy_with(self.options.clone()),
            settings,
            rules: Rules { amount_max: Minor(1_000_000), currencies: Currencies::default() },
            companions,
            failpoints: Failpoints::default(),
            metrics: Metrics::new(),
        };
        Ok(Writing { ledger: Ledger::start(options, &tasks).await?, tasks })
    }
}

impl Writing {
    pub(super) async fn stop(self) -> anyhow::Result<()> {
        ensure!(self.tasks.stop(DRAIN_MAX).await, "the writer did not end");
        Ok(())
    }

    /// Opens accounts, whose ids run from the first to the last that is returned.
    pub(super) async fn open(&self, db: &mut PgConnection, count: u32) -> anyhow::Result<Vec<i64>> {
        let ids = sql::account_ids(db, i32::try_from(count)?).await?;
        for some in ids.chunks(1_000) {
            let open = |id: &i64| Action::Open { account: AccountId(*id), currency: euro() };
            let legs = some.iter().map(|id| Leg::from(open(id))).collect();
            self.ledger.post(Posting { legs, ..Posting::default() }).await?;
        }
        Ok(ids)
    }
}

/// One euro for each of these accounts, under one new key.
pub(super) fn deposits(accounts: impl Iterator<Item = i64>) -> Posting {
    let world = AccountId::system(SystemRole::World, euro());
    let deposit = |account| Action::Move {
        kind: TransferKind::Deposit,
        debit: world,
        credit: AccountId(account),
        amount: Minor(100),
    };
    let legs = accounts.map(|account| Leg::from(deposit(account))).collect();
    let key = Some(HashedKey { hash: Uuid::new_v4(), content: Uuid::new_v4() });
    Posting { key, legs, trace_id: Some(Uuid::new_v4()), ..Posting::default() }
}

fn euro() -> Currency {
    Currencies::default().find("EUR").expect("it is one of those that are always known")
}

/// Picks accounts at random, cheaply and the same each time.
pub(super) struct Dice(u64);

impl Dice {
    pub(super) fn new(seed: u64) -> Self {
        Self(seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1)
    }

    /// A number below `bound`.
    pub(super) fn below(&mut self, bound: usize) -> usize {
        // xorshift64*: more than random enough to spread load.
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        let high = self.0.wrapping_mul(0x2545_f491_4f6c_dd1d) >> 33;
        usize::try_from(high).unwrap_or_default() % bound.max(1)
    }
}

/// The unsigned number of a count that cannot be negative.
pub(super) fn unsigned(count: i64) -> anyhow::Result<u64> {
    u64::try_from(count).context("a count is not negative")
}
