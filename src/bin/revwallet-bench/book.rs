//! A book (the ledger of a scenario) in a separate database, and a ledger writer that runs in the benchmark's process.

use std::time::Duration;

use anyhow::ensure;
use revwallet::db::embedded::Embedded;
use revwallet::db::{Pipelined, migrations};
use revwallet::idempotency_key::HashedKey;
use revwallet::ledger::account::{AccountId, SystemRole};
use revwallet::ledger::companion::CompanionKind;
use revwallet::ledger::currency::{Currencies, Currency};
use revwallet::ledger::decide::Rules;
use revwallet::ledger::money::Minor;
use revwallet::ledger::transfer::{Action, Leg, Posting, TransferKind};
use revwallet::ledger::{Failpoints, Ledger, LedgerOptions, Settings};
use revwallet::tasks::Tasks;
use revwallet::telemetry::Metrics;
use sqlx::postgres::{PgConnectOptions, PgPoolOptions};
use sqlx::{Connection, PgConnection};
use uuid::Uuid;

use crate::sql;

/// Longest time that the ledger writer may take to write the queued postings when it stops.
const DRAIN_MAX: Duration = Duration::from_secs(30);

/// Number of accounts that each posting opens.
const OPENED_PER_POSTING: usize = 1_000;

/// A database with a single ledger, which only one scenario uses.
pub(crate) struct BenchBook {
    pub url: String,
    options: PgConnectOptions,
    pipelined: Pipelined,
}

/// A ledger writer that runs in the benchmark's process, without a server.
pub(crate) struct InProcessWriter {
    pub ledger: Ledger,
    tasks: Tasks,
}

impl BenchBook {
    /// Creates a database with an empty ledger.
    pub(crate) async fn create(postgres: &Embedded, name: &str) -> anyhow::Result<Self> {
        let book = Self::create_without_schema(postgres, name).await?;
        migrations::apply(&mut book.connect().await?).await?;
        Ok(book)
    }

    /// Creates an empty database. The first server that connects to the database creates its schema.
    pub(crate) async fn create_without_schema(
        postgres: &Embedded,
        name: &str,
    ) -> anyhow::Result<Self> {
        let mut db = PgConnection::connect_with(&postgres.connect_options()).await?;
        sql::create_database(&mut db, name).await?;
        db.close().await?;
        let (user, socket_dir) = (postgres.user(), postgres.socket_dir());
        let mut pipelined = tokio_postgres::Config::new();
        pipelined.host_path(socket_dir).user(user).dbname(name);
        Ok(Self {
            url: format!("postgres://{user}@localhost/{name}?host={}", socket_dir.display()),
            options: postgres.connect_options().database(name),
            pipelined: Pipelined::local(pipelined)?,
        })
    }

    /// Connects as the owner of the database.
    pub(crate) async fn connect(&self) -> anyhow::Result<PgConnection> {
        Ok(PgConnection::connect_with(&self.options).await?)
    }

    /// Starts a ledger writer whose batches contain at most `batch_legs_max` legs (movements of money and changes to
    /// accounts).
    pub(crate) async fn start_writer(
        &self,
        companions: Vec<&'static CompanionKind>,
        batch_legs_max: usize,
    ) -> anyhow::Result<InProcessWriter> {
        let tasks = Tasks::default();
        let settings =
            Settings { queue_legs_max: 16 * batch_legs_max, batch_legs_max, ..Settings::default() };
        let options = LedgerOptions {
            database: self.pipelined.clone(),
            pool: PgPoolOptions::new().max_connections(2).connect_lazy_with(self.options.clone()),
            settings,
            rules: Rules { amount_max: Minor(1_000_000), currencies: Currencies::default() },
            companions,
            candidacy: None,
            failpoints: Failpoints::default(),
            metrics: Metrics::new(),
        };
        Ok(InProcessWriter { ledger: Ledger::start(options, &tasks).await?, tasks })
    }
}

impl InProcessWriter {
    pub(crate) async fn stop(self) -> anyhow::Result<()> {
        ensure!(self.tasks.stop(DRAIN_MAX).await, "the ledger writer did not stop in time");
        Ok(())
    }

    /// Opens accounts and returns their ids.
    pub(crate) async fn open_accounts(
        &self,
        db: &mut PgConnection,
        count: u32,
    ) -> anyhow::Result<Vec<i64>> {
        let ids = sql::reserve_account_ids(db, i32::try_from(count)?).await?;
        for chunk in ids.chunks(OPENED_PER_POSTING) {
            let open = |id: &i64| Action::Open { account: AccountId(*id), currency: euro() };
            let legs = chunk.iter().map(|id| Leg::from(open(id))).collect();
            self.ledger.post(Posting { legs, ..Posting::default() }).await?;
        }
        Ok(ids)
    }
}

/// Creates a posting, with a new idempotency key, that deposits one euro into each account.
pub(crate) fn deposit_posting(accounts: impl Iterator<Item = i64>) -> Posting {
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
    Currencies::default().find("EUR").expect("EUR is a default currency")
}
