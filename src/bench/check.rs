//! After the load: what was acknowledged is in the book, once, and the book is as it must be.

use anyhow::ensure;

use super::book::{Book, unsigned};
use super::load::Target;
use super::sql;
use crate::ledger::account::AccountId;
use crate::ledger::money::Minor;
use crate::ledger::{read, verify};

/// Holds the book against what the clients were told; every deposit was one euro.
pub(super) async fn deposits(book: &Book, target: &Target) -> anyhow::Result<String> {
    let mut db = book.connect().await?;
    let written = unsigned(sql::count_deposits(&mut db).await?)?;
    let acknowledged = target.acknowledged();
    ensure!(
        written == acknowledged,
        "{acknowledged} deposits were acknowledged, {written} are in the book"
    );
    let wallets: Vec<AccountId> = target.wallets().map(AccountId).collect();
    let balances = read::balances(&mut db, 1, &wallets, read::END).await;
    let balances = balances.map_err(crate::error::Error::into_cause)?;
    for ((wallet, balance), deposits) in wallets.iter().zip(balances).zip(target.deposited()) {
        ensure!(
            balance == Minor(100 * deposits),
            "wallet {wallet} was acknowledged {deposits} deposits of 1.00 and has {balance:?}"
        );
    }
    let report = verified(book).await?;
    Ok(format!("{acknowledged} deposits acknowledged, each in the book once; {report}"))
}

/// Reads the book from end to end.
pub(super) async fn verified(book: &Book) -> anyhow::Result<String> {
    let mut db = book.connect().await?;
    let report = verify::run(&mut db, 1, None, |_, _| {}).await;
    let report = report.map_err(crate::error::Error::into_cause)?;
    if let Some(fault) = report.faults.first() {
        anyhow::bail!("the book is not as it must be: {fault}");
    }
    Ok(format!("{} transfers in {} seals verified", report.transfers, report.seals))
}
