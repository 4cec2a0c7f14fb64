//! Settings of the ledger.

use std::net::SocketAddr;

use clap::builder::RangedU64ValueParser;
use sqlx::PgPool;
use tokio_util::sync::CancellationToken;

use super::book::BOOKS_MAX;
use super::currency::{Currencies, Currency};
use super::decide::Rules;
use super::money::{MAX_BALANCE, Minor};
use super::writer::Settings;
use super::{AdvertisedAddress, Candidacy, partition};
use crate::settings;

/// Settings of the ledger's writer and of the ledger's rules.
#[derive(Debug, Clone, clap::Args)]
#[command(next_help_heading = "Ledger")]
pub struct LedgerArgs {
    /// Number of books (independently ordered parts of the ledger) over which new wallets are spread. Can be raised,
    /// but not lowered [default: the number of books in the database].
    #[arg(long, env = "REVWALLET_BOOKS", global = true, value_parser = clap::value_parser!(i32).range(1..=i64::from(BOOKS_MAX)))]
    pub books: Option<i32>,
    /// Maximum number of postings that wait to be written; further postings are rejected with 503.
    #[arg(long, env = "REVWALLET_LEDGER_QUEUE_MAX", global = true, default_value_t = 8192, value_parser = settings::count())]
    pub ledger_queue_max: usize,
    /// Maximum number of transfers in one commit; a request with more transfers gets a commit of its own.
    #[arg(long, env = "REVWALLET_LEDGER_BATCH_MAX", global = true, default_value_t = 1024, value_parser = settings::count())]
    pub ledger_batch_max: usize,
    /// Maximum number of account balances that the ledger caches; each takes 50 bytes.
    #[arg(long, env = "REVWALLET_LEDGER_CACHE_MAX", global = true, default_value_t = 400_000, value_parser = RangedU64ValueParser::<usize>::new().range(..=1_000_000_000))]
    pub ledger_cache_max: usize,
    /// Maximum amount of one transfer, in minor units.
    #[arg(long, env = "REVWALLET_MAX_AMOUNT", global = true, default_value_t = 1_000_000_000_000, value_parser = clap::value_parser!(i64).range(1..=MAX_BALANCE.0))]
    pub max_amount: i64,
    /// Currencies in addition to the built-in currencies, as CODE:DECIMALS, separated by commas.
    #[arg(long, env = "REVWALLET_CURRENCY", global = true, value_delimiter = ',')]
    pub currency: Vec<Currency>,
    /// Number of transfers that fit into each new partition of the ledger's table of transfers.
    #[arg(long, env = "REVWALLET_LEDGER_PARTITION_ROWS", global = true, default_value_t = 100_000_000, value_parser = clap::value_parser!(i64).range(100..=1_000_000_000_000))]
    pub ledger_partition_rows: i64,
    /// Elect a leader among the processes that serve the API; the leader writes the transfers of all processes. If
    /// `false`, each process writes its own transfers.
    #[arg(long, env = "REVWALLET_LEDGER_FORWARDING", global = true, default_value_t = true, num_args = 0..=1, default_missing_value = "true", action = clap::ArgAction::Set)]
    pub ledger_forwarding: bool,
    /// Host and port at which other processes reach the internal listener of this process [default: the address of that
    /// listener; if it listens on all addresses, the address from which this process connects to the database].
    #[arg(long, env = "REVWALLET_ADVERTISE_ADDRESS", global = true)]
    pub advertise_address: Option<String>,
    /// Start even if the database server may lose acknowledged commits, for example because fsync is off.
    #[arg(long, env = "REVWALLET_ALLOW_UNSAFE_SERVER", global = true)]
    pub allow_unsafe_server: bool,
}

impl LedgerArgs {
    /// Role of this process in the election of the leader, which writes the postings of all processes; `None` if this
    /// process does not take part in the election and writes its own postings. `internal` is the address of the
    /// internal listener.
    pub fn candidacy(
        &self,
        internal: SocketAddr,
        has_api: bool,
        stopping: &CancellationToken,
    ) -> Option<Candidacy> {
        let address = match &self.advertise_address {
            Some(address) => AdvertisedAddress::Configured(address.clone()),
            None => AdvertisedAddress::Listener(internal),
        };
        let candidacy = if has_api {
            Candidacy::Leader { address, stopping: stopping.clone() }
        } else {
            Candidacy::Follower
        };
        self.ledger_forwarding.then_some(candidacy)
    }

    /// Creates the missing books, and returns the settings of the writer.
    pub async fn settings(&self, pool: &PgPool) -> anyhow::Result<Settings> {
        let rows = self.ledger_partition_rows;
        let books = partition::create_books(pool, self.books, rows).await?;
        Ok(Settings {
            books,
            queue_max: self.ledger_queue_max,
            batch_legs_max: self.ledger_batch_max,
            cache_accounts_max: self.ledger_cache_max,
            allow_unsafe_server: self.allow_unsafe_server,
            ..Settings::default()
        })
    }

    pub fn rules(&self, currencies: Currencies) -> Rules {
        Rules { amount_max: Minor(self.max_amount), currencies }
    }
}
