//! Sales: a lower price of a game for a limited time. A sale can have a budget: the maximum number of copies that are
//! sold at the sale price.
//!
//! The database clock decides which sales are running. If several sales are running, the lowest price applies.

mod sql;

use sqlx::Connection as _;
use time::OffsetDateTime;
use uuid::Uuid;

use crate::auth::Caller;
use crate::error::{Error, FieldError, Result};
use crate::games::Games;
use crate::games::catalog::{Price, lock_managed, require_game_manager};
use crate::games::sql::{create_stock, set_quantity};
use crate::ids::GameId;
use crate::ledger::money::Rate;

/// Longest name of a sale, in characters.
pub const NAME_MAX: usize = 64;

/// Maximum number of sales that a game can have, including ended sales.
const SALES_MAX: i64 = 1_000;

/// Discount that a sale gives.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum SaleDiscount {
    /// A percentage off the price in every currency.
    Percent(Rate),
    /// A lower price in one currency.
    Price(Price),
}

/// A sale of a game.
#[derive(Debug, Clone)]
pub struct Sale {
    pub name: String,
    pub discount: SaleDiscount,
    pub starts_at: OffsetDateTime,
    pub ends_at: OffsetDateTime,
    /// Maximum number of copies that are sold at the sale price; `None` if unlimited.
    pub budget: Option<i32>,
    /// Number of copies that can still be sold at the sale price; `None` if unlimited.
    pub left: Option<i32>,
}

/// A sale that was created or changed, and whether it is new.
#[derive(Debug)]
pub struct SalePut {
    pub sale: Sale,
    pub is_new: bool,
}

impl Games {
    /// Creates or changes a sale of a game. Lowering the budget of a sale does not affect copies that were already
    /// sold.
    pub async fn put_sale(
        &self,
        game: GameId,
        sale: &Sale,
        caller: &Caller,
        trace: Uuid,
    ) -> Result<SalePut> {
        let mut db = self.db.acquire("games.put_sale").await?;
        let mut tx = db.begin().await?;
        let state = lock_managed(&mut tx, game, caller).await?;
        let known = sql::find(&mut tx, game, &sale.name).await?;
        if known.is_none() && sql::count(&mut tx, game).await? >= SALES_MAX {
            let detail = format!("exceeds the limit of {SALES_MAX} sales per game");
            return Err(Error::field("sale", detail));
        }
        let stock = match (sale.budget, known.as_ref().and_then(|known| known.stock)) {
            (None, _) => None,
            (Some(budget), Some(stock)) => {
                set_quantity(&mut tx, stock, budget).await?;
                Some(stock)
            }
            (Some(budget), None) => Some(create_stock(&mut tx, budget).await?),
        };
        sql::put(&mut tx, game, sale, stock).await?;
        self.reprice(&mut tx, game, state, trace).await?;
        let left = sql::find(&mut tx, game, &sale.name).await?.and_then(|row| row.left);
        tx.commit().await?;
        self.changed("updated");
        let sale = Sale { left: left.map(|left| left.max(0)), ..sale.clone() };
        Ok(SalePut { sale, is_new: known.is_none() })
    }

    /// Returns the sales of a game. The caller must have permission to manage the game.
    pub async fn sales(&self, game: GameId, caller: &Caller) -> Result<Vec<Sale>> {
        let mut db = self.db.snapshot("games.sales").await?;
        require_game_manager(&mut db, game, caller).await?;
        let rows = sql::list(&mut db, game).await?;
        drop(db);
        rows.into_iter().map(|row| self.sale_from(row)).collect()
    }

    /// Deletes a sale. Buyers keep the copies that they bought at the sale price.
    pub async fn delete_sale(
        &self,
        game: GameId,
        name: &str,
        caller: &Caller,
        trace: Uuid,
    ) -> Result<()> {
        let mut db = self.db.acquire("games.delete_sale").await?;
        let mut tx = db.begin().await?;
        let state = lock_managed(&mut tx, game, caller).await?;
        if !sql::delete(&mut tx, game, name).await? {
            return Err(Error::NotFound("sale"));
        }
        self.reprice(&mut tx, game, state, trace).await?;
        tx.commit().await?;
        self.changed("updated");
        Ok(())
    }

    fn sale_from(&self, row: sql::SaleRow) -> Result<Sale> {
        let discount = match (row.percent, row.price.zip(row.currency)) {
            (Some(percent), _) => SaleDiscount::Percent(Rate::from_stored(percent)),
            (None, Some((price, code))) => SaleDiscount::Price(self.price_from(&code, price)?),
            (None, None) => return Err(Error::Internal(anyhow::anyhow!("a sale has no discount"))),
        };
        Ok(Sale {
            name: row.name,
            discount,
            starts_at: row.starts_at,
            ends_at: row.ends_at,
            budget: row.budget,
            left: row.left.map(|left| left.max(0)),
        })
    }
}

/// Returns an error unless the end of a sale or a discount code is after its start.
pub fn require_window(starts_at: OffsetDateTime, ends_at: OffsetDateTime) -> Result<()> {
    if starts_at < ends_at {
        return Ok(());
    }
    let (pointer, detail) = ("/ends_at".to_owned(), "must be after starts_at".to_owned());
    Err(Error::Invalid(vec![FieldError { pointer, detail }]))
}
