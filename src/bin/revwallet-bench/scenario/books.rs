//! Scenario `books`: a server whose wallets are spread over two books (independently ordered parts of the ledger),
//! compared with a server with one book. About half of the transfers on the first server are between its two books.

use anyhow::ensure;

use crate::book::BenchBook;
use crate::context::{ACCOUNTS, BenchContext};
use crate::load::{LoadOperation, LoadSpec, LoadTarget};
use crate::report::{ReportSection, TargetBound};
use crate::samples::{LoadSample, PairedSamples};
use crate::server_process::ServerProcess;
use crate::sql;
use crate::verification::verify_book;

/// Number of rounds. The report contains the median of each measurement.
const TURNS: u32 = 5;

const CONNECTIONS: usize = 256;

/// Initial balance of each wallet, so that transfers are not refused.
const BALANCE_EUROS: u32 = 1_000_000;

/// A server, its database, and its wallets.
struct Installation {
    book: BenchBook,
    server: ServerProcess,
    target: LoadTarget,
}

impl Installation {
    async fn start(context: &BenchContext, name: &str, books: &str) -> anyhow::Result<Self> {
        let book = BenchBook::create(&context.postgres, name).await?;
        let server = context.start_server_with(&book, &[books]).await?;
        let target =
            LoadTarget::open_with_balance(&server.address, ACCOUNTS, BALANCE_EUROS).await?;
        Ok(Self { book, server, target })
    }

    async fn run(
        &self,
        context: &BenchContext,
        operation: LoadOperation,
    ) -> anyhow::Result<LoadSample> {
        let spec = LoadSpec {
            address: self.server.address.clone(),
            operation,
            connections: CONNECTIONS,
            wallets: ACCOUNTS as usize,
            duration: context.args.duration,
        };
        self.target.run(&context.monitor(&[self.server.id()]), spec).await
    }
}

pub(super) async fn measure(context: &BenchContext) -> anyhow::Result<ReportSection> {
    let one = Installation::start(context, "one_book", "--books=1").await?;
    let two = Installation::start(context, "two_books", "--books=2").await?;
    let mut section = ReportSection::default();
    for (operation, name, target) in [
        (LoadOperation::Deposit, "deposits", Some(0.95)),
        (LoadOperation::Transfer, "transfers", None),
    ] {
        // Warms up the caches.
        one.run(context, operation).await?;
        two.run(context, operation).await?;
        let mut samples = PairedSamples::default();
        for turn in 1..=TURNS {
            tracing::info!(
                "measuring {name} with one book, then with two books, round {turn} of {TURNS}"
            );
            let sample = one.run(context, operation).await?;
            samples.push(sample, two.run(context, operation).await?);
        }
        if let Some(bound) = target {
            let ratio = samples.median_ratio(LoadSample::rate);
            let label = format!("{name} with two books, relative to one book");
            section.add_target(&label, ratio, TargetBound::AtLeast(bound));
        }
        let labels = [format!("{name}, one book"), format!("{name}, two books")];
        let labels = [labels[0].as_str(), labels[1].as_str()];
        section.measurements.extend(samples.into_measurements(labels, CONNECTIONS)?);
    }
    for Installation { book, server, target } in [one, two] {
        server.kill().await?;
        let written = u64::try_from(sql::count_deposits(&mut book.connect().await?).await?)?;
        let acknowledged = target.acknowledged_deposits() + u64::from(ACCOUNTS);
        ensure!(
            written == acknowledged,
            "{acknowledged} deposits were acknowledged, but {written} are in the books"
        );
        let verified = verify_book(&book).await?;
        let between = sql::count_transfers_between_books(&mut book.connect().await?).await?;
        section.add_note(format!("Books: {between} transfers between books; {verified}."));
    }
    Ok(section)
}
