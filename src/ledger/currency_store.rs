//! Currencies in the database. The program stores the currencies of its settings, so that it still knows them if it is
//! later started without these settings.

use anyhow::{Context, bail};

use super::currency::{Currencies, Currency};
use super::sql;
use crate::db::Database;
use crate::error::{Error, Result};

/// Loads the built-in currencies, the currencies of the settings, and the currencies in the database. Stores the
/// currencies of the settings.
pub async fn load(db: &Database, configured: &[Currency]) -> anyhow::Result<Currencies> {
    Currencies::with_added(configured).context("--currency is invalid")?;
    let stored = read(db).await.map_err(Error::into_cause)?;
    let mut known = Vec::with_capacity(stored.len());
    for (code, decimals) in stored {
        let decimals = u8::try_from(decimals)?;
        let setting = configured.iter().find(|currency| currency.code() == code);
        if let Some(currency) = setting.filter(|currency| currency.decimals() != decimals) {
            bail!(
                "--currency {currency:?}: amounts of this database have {decimals} decimals in {code}; \
                 write {code}:{decimals}"
            );
        }
        known.push(Currency::new(&code, decimals)?);
    }
    known.extend_from_slice(configured);
    let currencies = Currencies::with_added(&known).context(
        "a currency in this database has a different number of decimals in this program",
    )?;
    store(db, configured).await.map_err(Error::into_cause)?;
    Ok(currencies)
}

async fn read(db: &Database) -> Result<Vec<(String, i16)>> {
    sql::stored_currencies(&mut *db.acquire("ledger.currencies").await?).await
}

async fn store(db: &Database, configured: &[Currency]) -> Result<()> {
    let mut db = db.acquire("ledger.store_currencies").await?;
    for currency in configured {
        sql::store_currency(&mut db, currency.code(), i16::from(currency.decimals())).await?;
    }
    Ok(())
}
