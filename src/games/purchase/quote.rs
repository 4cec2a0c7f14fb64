//! Quotes: the price of a game for a recipient at a point in time, and the facts that must still hold when the game is
//! bought.

use std::sync::Arc;

use serde::Serialize;
use uuid::Uuid;

use super::price::Division;
use super::{Purchase, PurchaseRequest, sql};
use crate::auth::Caller;
use crate::cache::Cache;
use crate::error::{Error, Result, StoreRefusal};
use crate::games::Games;
use crate::games::code::{self, UsableCode};
use crate::http::fields::moment;
use crate::idempotency_key::HashedKey;
use crate::ids::{CodeId, GameId, PlayerId, PublisherId, SaleId, TransferId, UserId};
use crate::ledger::currency::Currency;
use crate::ledger::money::{Minor, Rate};

/// Number of remaining copies at or below which purchases of a game run one at a time. Concurrent purchases of the last
/// copies would make each other's ledger batches fail.
const LAST_COPIES: i32 = 256;

/// Maximum number of (game, currency) pairs whose facts [`QuoteCache`] stores.
const QUOTES_MAX: usize = 10_000;

/// Maximum number of (game, buyer) pairs that [`QuoteCache`] stores.
const TRIED_MAX: usize = 100_000;

/// Cache of the facts that quotes depend on. With a cached quote, a purchase reads nothing from the database before its
/// ledger posting. The posting checks that the game and the fee have not changed, that the quote has not expired, and
/// that the buyer does not own the game.
pub(in crate::games) struct QuoteCache {
    rows: Cache<(GameId, Option<Currency>), Arc<sql::QuoteRow>>,
    /// (Game, buyer) pairs for which a purchase at a cached quote was tried, successfully or not. A refused posting
    /// delays other postings, so each buyer can try a cached quote for a game only once.
    tried: Cache<(GameId, UserId), ()>,
}

impl Default for QuoteCache {
    fn default() -> Self {
        Self { rows: Cache::new(QUOTES_MAX), tried: Cache::new(TRIED_MAX) }
    }
}

/// The price of a game for a recipient at a point in time, with the facts that the price depends on.
pub(super) struct Quote {
    pub row: sql::QuoteRow,
    code: Option<UsableCode>,
    pub currency: Currency,
    pub price: Minor,
    pub division: Division,
}

/// Input row of the SQL function that grants a game: the limited stocks that the purchase reduces, and the facts that
/// its quote depends on.
#[derive(Serialize)]
pub(super) struct ClaimRow<'a> {
    game: GameId,
    buyer: UserId,
    recipient: UserId,
    revision: i32,
    publisher: Option<PublisherId>,
    /// Fee that is set for the publisher; `None` if the setting `--store-fee` applies.
    own_fee: Option<i32>,
    /// Ids of the limited stocks that the purchase reduces: copies of the game, copies at the sale price, and uses of
    /// the discount code.
    stocks: Vec<i64>,
    sale: Option<SaleId>,
    code: Option<CodeId>,
    code_use: Option<i32>,
    /// Time at which the quote expires: the next time at which a sale begins or ends, or the discount code expires.
    until: Option<String>,
    price: i64,
    tax: i64,
    fee: i64,
    tax_rate: i32,
    fee_rate: i32,
    currency: &'a str,
    key_hash: Option<Uuid>,
    content_hash: Option<Uuid>,
    trace: Uuid,
}

impl Games {
    /// Reads the current price of a game. Returns an error if the buyer cannot buy the game for the recipient.
    pub(super) async fn quote(
        &self,
        request: &PurchaseRequest,
        (buyer, recipient): (UserId, UserId),
        expected_price: Option<&str>,
        caller: &Caller,
    ) -> Result<Quote> {
        let mut db = self.db.acquire("games.quote").await?;
        let code = request.currency.map(|currency| currency.code().to_owned());
        let row = sql::quote(&mut db, request.game, recipient, code.as_deref()).await?;
        let row = row.ok_or(StoreRefusal::GameNotFound)?;
        row.require_published()?;
        let discount = match &request.code {
            Some(code) => Some(code::find_usable(&mut db, code, request.game, buyer).await?),
            None => None,
        };
        drop(db);
        if !row.has_recipient {
            return Err(Error::UserNotFound);
        }
        if recipient == buyer {
            row.require_eligible()?;
        }
        let quote = self.quote_from(row, discount, expected_price)?;
        let Quote { row, currency, price, .. } = &quote;
        if recipient != buyer && row.require_eligible().is_err() {
            // Only a buyer who could pay learns whether another user owns the game.
            let balance =
                self.wallets.main_balance(caller, &PlayerId::from(buyer), *currency).await?;
            if balance.balance < *price {
                let exact = |minor: Minor| minor.exact(*currency).to_string();
                let (available, required) = (exact(balance.balance), exact(*price));
                return Err(Error::InsufficientFunds { available, required });
            }
            row.require_eligible()?;
        }
        if quote.can_be_cached() {
            self.quotes.rows.insert((request.game, request.currency), Arc::new(row.clone()));
        }
        Ok(quote)
    }

    /// Returns a quote from cached facts; `None` if the facts must be read from the database.
    pub(super) fn cached_quote(
        &self,
        request: &PurchaseRequest,
        buyer: UserId,
        expected_price: Option<&str>,
    ) -> Option<Quote> {
        let is_plain = request.code.is_none() && request.gift_to.is_none_or(|user| user == buyer);
        if !is_plain || self.quotes.tried.get(&(request.game, buyer)).is_some() {
            return None;
        }
        let row = self.quotes.rows.get(&(request.game, request.currency))?;
        self.quote_from(row.as_ref().clone(), None, expected_price).ok()
    }

    fn quote_from(
        &self,
        row: sql::QuoteRow,
        code: Option<UsableCode>,
        expected_price: Option<&str>,
    ) -> Result<Quote> {
        let Some((code_of_currency, amount)) = row.currency.as_deref().zip(row.price) else {
            return Err(StoreRefusal::NotForSale.into());
        };
        row.require_copy_left()?;
        let price = self.price_from(code_of_currency, amount)?;
        let (currency, price) = (price.currency, row.sale_price.map_or(price.amount, Minor));
        let price = match &code {
            Some(code) => code.discounted(price, currency)?,
            None => price,
        };
        if let Some(expected) = expected_price {
            let expected = Minor::parse_balance(expected, currency)
                .map_err(|cause| Error::field("/expected_price", cause.to_string()))?;
            if expected != price {
                let price = price.exact(currency).to_string();
                return Err(StoreRefusal::PriceChanged { price }.into());
            }
        }
        let tax_rate = self.settings.tax_rates.rate(currency);
        let fee_rate = match row.publisher {
            Some(_) => row.fee.map_or(self.settings.store_fee, Rate::from_stored),
            None => Rate::ZERO,
        };
        let division = Division::new(price, tax_rate, fee_rate);
        Ok(Quote { row, code, currency, price, division })
    }
}

impl QuoteCache {
    /// Remembers that the buyer has tried to buy the game at a cached quote.
    pub(super) fn note_try(&self, game: GameId, buyer: UserId) {
        self.tried.insert((game, buyer), ());
    }

    /// Removes the outdated facts about the requested game and currency from the cache.
    pub(super) fn forget(&self, request: &PurchaseRequest) {
        self.rows.remove(&(request.game, request.currency));
    }
}

impl Quote {
    /// Returns whether the facts can be cached for other buyers: the quote has no discount code, no limit on copies,
    /// and a price above zero. The posting of a purchase then detects every change to the facts.
    fn can_be_cached(&self) -> bool {
        let is_limited = self.row.stock.is_some() || self.row.budgets > 0;
        self.code.is_none() && !is_limited && self.price != Minor::ZERO
    }

    /// Returns whether purchases at this quote must run one at a time, because concurrent purchases would make each
    /// other fail. This is the case if few copies or few uses of the discount code are left. For a free game, it is the
    /// case if copies or uses are limited at all, because each purchase of a free game is a transaction of its own
    /// instead of a part of a ledger batch.
    pub(super) fn is_contended(&self) -> bool {
        let code = self.code.as_ref().and_then(|code| code.left);
        let fewest = [self.row.left, self.row.sale_left, code].into_iter().flatten().min();
        fewest.is_some_and(|left| left <= LAST_COPIES || self.price == Minor::ZERO)
    }

    pub(super) fn claim(
        &self,
        (buyer, recipient): (UserId, UserId),
        key: Option<HashedKey>,
        trace: Uuid,
    ) -> Result<ClaimRow<'_>> {
        let Self { row, code, currency, price, division } = self;
        let stocks = [row.stock, row.sale_stock, code.as_ref().and_then(|code| code.stock)];
        let ends = [row.until, code.as_ref().and_then(|code| code.ends_at)];
        let until = ends.into_iter().flatten().min().map(moment).transpose()?;
        Ok(ClaimRow {
            game: row.game,
            buyer,
            recipient,
            revision: row.revision,
            publisher: row.publisher,
            own_fee: row.fee,
            stocks: stocks.into_iter().flatten().collect(),
            sale: row.sale,
            code: code.as_ref().map(|code| code.id),
            code_use: code.as_ref().and_then(|code| code.next_use),
            until,
            price: price.0,
            tax: division.tax.0,
            fee: division.fee.0,
            tax_rate: division.tax_rate.to_stored(),
            fee_rate: division.fee_rate.to_stored(),
            currency: currency.code(),
            key_hash: key.map(|key| key.hash),
            content_hash: key.map(|key| key.content),
            trace,
        })
    }

    /// Returns the completed purchase, with the price of this quote.
    pub(super) fn purchase(&self, recipient: UserId, transfer: Option<TransferId>) -> Purchase {
        Purchase {
            game: self.row.game,
            recipient,
            currency: self.currency,
            price: self.price,
            tax: self.division.tax,
            transfer,
            replayed: false,
        }
    }
}
