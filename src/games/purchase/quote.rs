//! Quotes: the price of a game for a recipient at one moment, and the claim of a purchase at this price.

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

/// Number of last copies that are sold one at a time, because concurrent purchases of the last copies would make each
/// other's batches fail.
const LAST_COPIES: i32 = 256;

/// Maximum number of games, and of purchases, that [`QuoteCache`] remembers.
const QUOTES_MAX: usize = 10_000;
const TRIED_MAX: usize = 100_000;

/// Cache of facts about games that were bought before. A purchase at a cached quote reads nothing before its posting,
/// which checks the revision of the game, the end of the quote, the fee, and that the buyer does not own the game.
pub(in crate::games) struct QuoteCache {
    rows: Cache<(GameId, Option<Currency>), Arc<sql::QuoteRow>>,
    /// Purchases that were tried at a cached quote, whatever the outcome. A refused posting delays other postings, so a
    /// user gets only one such try per game.
    tried: Cache<(GameId, UserId), ()>,
}

impl Default for QuoteCache {
    fn default() -> Self {
        Self { rows: Cache::new(QUOTES_MAX), tried: Cache::new(TRIED_MAX) }
    }
}

/// The price of a game for a recipient at one moment.
pub(super) struct Quote {
    pub row: sql::QuoteRow,
    code: Option<UsableCode>,
    pub currency: Currency,
    pub price: Minor,
    pub division: Division,
}

/// The row of the companion: the stocks that a purchase takes from, and the facts that its quote depends on.
#[derive(Serialize)]
pub(super) struct ClaimRow<'a> {
    game: GameId,
    buyer: UserId,
    recipient: UserId,
    revision: i32,
    publisher: Option<PublisherId>,
    /// The fee that is set for the publisher, if any.
    own_fee: Option<i32>,
    /// The stocks to take from: copies of the game, the budget of the sale, the uses of the code.
    stocks: Vec<i64>,
    sale: Option<SaleId>,
    code: Option<CodeId>,
    code_use: Option<i32>,
    /// End of the quote: the next moment at which a sale or the code begins or ends.
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
    /// Quotes the current price; an error if the game cannot be bought for the recipient.
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
            // Only a buyer that could pay learns whether another user owns a game.
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

    /// A quote from cached facts; `None` if the facts must be read from the database.
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
    /// Remembers that a purchase was tried at a cached quote.
    pub(super) fn note_try(&self, game: GameId, buyer: UserId) {
        self.tried.insert((game, buyer), ());
    }

    /// Removes cached facts of a game that no longer hold.
    pub(super) fn forget(&self, request: &PurchaseRequest) {
        self.rows.remove(&(request.game, request.currency));
    }
}

impl Quote {
    /// Whether the facts can be cached for other buyers: without a code, a limit or a price of zero, a posting notices
    /// every change of them.
    fn can_be_cached(&self) -> bool {
        let is_limited = self.row.stock.is_some() || self.row.budgets > 0;
        self.code.is_none() && !is_limited && self.price != Minor::ZERO
    }

    /// Whether concurrent purchases would make each other fail. The last copies are sold one at a time; so are limited
    /// copies of a free game, because free claims do not share a batch.
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

    /// The completed purchase at this quote.
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
