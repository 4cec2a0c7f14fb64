//! Verification after a load: every acknowledged deposit is in the ledger exactly once, and the ledger is consistent.

use anyhow::ensure;
use revwallet::error::Error;
use revwallet::ledger::account::AccountId;
use revwallet::ledger::money::Minor;
use revwallet::ledger::{read, verify};

use crate::book::BenchBook;
use crate::load::LoadTarget;
use crate::sql;

/// Amount of each deposit, in minor units: one euro.
const DEPOSIT_MINOR: i64 = 100;

/// Compares the deposits and the balances in the ledger with the acknowledged deposits, then verifies the whole ledger.
pub(crate) async fn verify_deposits(
    book: &BenchBook,
    target: &LoadTarget,
) -> anyhow::Result<String> {
    let mut db = book.connect().await?;
    let written = u64::try_from(sql::count_deposits(&mut db).await?)?;
    let acknowledged = target.acknowledged_deposits();
    ensure!(
        written == acknowledged,
        "{acknowledged} deposits were acknowledged, but {written} are in the book"
    );
    let wallets: Vec<AccountId> = target.wallet_ids().map(AccountId).collect();
    let balances = read::balances(&mut db, &wallets, read::END).await;
    let balances = balances.map_err(Error::into_cause)?;
    for ((wallet, balance), deposits) in wallets.iter().zip(balances).zip(target.deposit_counts()) {
        ensure!(
            balance == Minor(DEPOSIT_MINOR * deposits),
            "wallet {wallet} was acknowledged {deposits} deposits of 1.00, but has {balance:?}"
        );
    }
    let verified = verify_book(book).await?;
    Ok(format!("{acknowledged} deposits acknowledged, each in the book exactly once; {verified}"))
}

/// Verifies the whole ledger, as `revwallet verify` does.
pub(crate) async fn verify_book(book: &BenchBook) -> anyhow::Result<String> {
    let mut db = book.connect().await?;
    let report = verify::run_all(&mut db, Vec::new(), |_, _| {}).await;
    let report = report.map_err(Error::into_cause)?;
    if let Some(fault) = report.faults.first() {
        anyhow::bail!("the book is inconsistent: {fault}");
    }
    Ok(format!("{} transfers in {} seals verified", report.transfers, report.seals))
}
