//! Purchases: a user pays for a game and owns it, in one posting.
//!
//! The price is decided from a quote, and the posting's companion confirms the quote in the transaction of the money: the
//! revision of the game, that the recipient does not own it yet, and that a copy is left. A quote that no longer holds is
//! made again, so a refusal is always that of the current state. A free game moves no money and is an ordinary transaction.

mod price;
mod refund;
pub(in crate::games) mod sql;

use std::net::IpAddr;

use serde::Serialize;
use tokio::sync::MutexGuard;
use uuid::Uuid;

use crate::auth::Caller;
use crate::error::{Error, Result, StoreRefusal};
use crate::games::Games;
use crate::games::code::{self, UsableCode};
use crate::games::guess::Guess;
use crate::http::fields::moment;
use crate::idempotency::HashedKey;
use crate::ids::{CodeId, GameId, PlayerId, PublisherId, SaleId, TransferId, UserId};
use crate::ledger::account::{AccountId, SystemRole};
use crate::ledger::companion::Companion;
use crate::ledger::currency::Currency;
use crate::ledger::money::Minor;
use crate::ledger::transfer::{Action, Leg, TransferKind};
use crate::striped_lock::StripedLock;
use crate::telemetry::Metrics;
use crate::wallet::RequestMeta;
use crate::wallet::main_wallet::charge::{Charge, ChargeOvertaken};

pub use self::price::{Division, Rate, RateError, TaxRates};
pub use self::refund::Refunded;

/// Refusal of a companion whose quote no longer holds.
const OVERTAKEN: &str = "the quote no longer holds";

/// Most quotes of one purchase: each is made because another purchase or a change of the game came first.
const ATTEMPTS_MAX: usize = 100;

/// Copies that are sold one at a time: buyers of the last copies would refuse each other's batches.
const LAST_COPIES: i32 = 256;

/// Locks that keep purchases from invalidating each other's batches.
#[derive(Debug, Default)]
pub(in crate::games) struct PurchaseLocks {
    recipients: StripedLock,
    last_copies: StripedLock,
}

impl PurchaseLocks {
    /// Serializes what is done to the ownership of a game by a recipient.
    async fn recipient(&self, game: GameId, recipient: UserId) -> MutexGuard<'_, ()> {
        self.recipients.lock(game.0.wrapping_mul(0x9e37).wrapping_add(recipient.0)).await
    }
}

/// A purchase as the client asks for it.
#[derive(Debug, Clone)]
pub struct PurchaseRequest {
    pub game: GameId,
    /// The currency to pay in; the main currency of the game if none.
    pub currency: Option<Currency>,
    /// The user who gets the game; none is the buyer.
    pub gift_to: Option<UserId>,
    /// A discount code.
    pub code: Option<String>,
    /// The client's address, which wrong codes are counted for.
    pub address: Option<IpAddr>,
}

/// A purchase that was made.
#[derive(Debug, Clone)]
pub struct Purchase {
    pub game: GameId,
    pub recipient: UserId,
    pub currency: Currency,
    pub price: Minor,
    pub tax: Minor,
    /// None for a free game.
    pub transfer: Option<TransferId>,
    pub replayed: bool,
}

/// The row of the companion.
#[derive(Serialize)]
struct ClaimRow<'a> {
    game: GameId,
    buyer: UserId,
    recipient: UserId,
    revision: i32,
    publisher: Option<PublisherId>,
    /// The fee of the publisher, if it has one of its own.
    own_fee: Option<i32>,
    /// Copies, the budget of the sale, the uses of the code.
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

/// The price of a game for a recipient at one moment.
struct Quote {
    row: sql::QuoteRow,
    code: Option<UsableCode>,
    currency: Currency,
    price: Minor,
    division: Division,
}

pub(super) fn preregister(metrics: &Metrics) {
    for outcome in ["paid", "free", "gift", "replayed", "refused"] {
        metrics.wallet_store_purchases_total.preregister([outcome]);
    }
}

impl Games {
    /// Buys a game. `expected_price` is a decimal that the price has to be.
    pub async fn purchase(
        &self,
        request: &PurchaseRequest,
        expected_price: Option<&str>,
        meta: RequestMeta<'_>,
    ) -> Result<Purchase> {
        let bought = self.try_purchase(request, expected_price, meta).await;
        let outcome = match &bought {
            Err(_) => "refused",
            Ok(purchase) if purchase.replayed => "replayed",
            Ok(_) if request.gift_to.is_some() => "gift",
            Ok(purchase) if purchase.transfer.is_none() => "free",
            Ok(_) => "paid",
        };
        self.metrics.wallet_store_purchases_total.with([outcome]).increment(1);
        bought
    }

    async fn try_purchase(
        &self,
        request: &PurchaseRequest,
        expected_price: Option<&str>,
        meta: RequestMeta<'_>,
    ) -> Result<Purchase> {
        let buyer = meta.caller.require_user()?;
        let recipient = request.gift_to.unwrap_or(buyer);
        let content = [
            request.game.to_string(),
            request.currency.map(|currency| currency.code().to_owned()).unwrap_or_default(),
            recipient.to_string(),
            expected_price.unwrap_or_default().to_owned(),
            request.code.clone().unwrap_or_default(),
        ];
        let content = content.each_ref().map(String::as_str);
        let key = meta.key.hashed(meta.caller.name(), "game.purchase", &content);
        // The first attempt of this very request may have succeeded.
        if let Some(earlier) = self.find_purchase(key).await? {
            return Ok(earlier);
        }
        let mut guess = match &request.code {
            Some(_) => Some(self.begin_guess(Guess::Code, buyer, request.address).await?),
            None => None,
        };
        let mut held = (None, Some(self.locks.recipient(request.game, recipient).await));
        for _ in 0..ATTEMPTS_MAX {
            let quoted = self.quote(request, (buyer, recipient), expected_price, meta.caller).await;
            let is_guess = matches!(quoted, Err(Error::Store(StoreRefusal::CodeInvalid(_))));
            if let Some(guess) = guess.take() {
                self.end_guess(guess, is_guess).await?;
            }
            let outcome = match quoted {
                Ok(quote) if held.0.is_none() && quote.is_contended() => {
                    // Others need not wait for the recipient meanwhile.
                    drop(held.1.take());
                    held.0 = Some(self.locks.last_copies.lock(request.game.0).await);
                    held.1 = Some(self.locks.recipient(request.game, recipient).await);
                    continue;
                }
                Ok(quote) if quote.price == Minor::ZERO => {
                    self.claim_free(&quote, (buyer, recipient), key, meta).await
                }
                Ok(quote) => self.charge(&quote, (buyer, recipient), key, meta).await,
                Err(refusal) => Err(refusal),
            };
            // Another attempt of this request may have come first, whatever the outcome of this one.
            match outcome {
                Ok(Some(purchase)) => return Ok(purchase),
                Ok(None) => {
                    if let Some(earlier) = self.find_purchase(key).await? {
                        return Ok(earlier);
                    }
                }
                Err(refusal) => {
                    return match self.find_purchase(key).await? {
                        Some(earlier) => Ok(earlier),
                        None => Err(refusal),
                    };
                }
            }
        }
        Err(Error::Overloaded)
    }

    /// The price now; an error if the game cannot be bought for the recipient.
    async fn quote(
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
        if row.state != "published" {
            let is_known = row.state == "retired";
            let refusal =
                if is_known { StoreRefusal::NotForSale } else { StoreRefusal::GameNotFound };
            return Err(refusal.into());
        }
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
        let Some((code, amount)) = row.currency.as_deref().zip(row.price) else {
            return Err(StoreRefusal::NotForSale.into());
        };
        if row.left.is_some_and(|left| left <= 0) {
            return Err(StoreRefusal::SoldOut.into());
        }
        let price = self.price_from(code, amount)?;
        let (currency, price) = (price.currency, row.sale_price.map_or(price.amount, Minor));
        let price = match &discount {
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
        if recipient != buyer && row.require_eligible().is_err() {
            // What others own is answered only to a buyer who could pay.
            let balance =
                self.wallets.main_balance(caller, &PlayerId::from(buyer), currency).await?;
            if balance.balance < price {
                let exact = |minor: Minor| minor.exact(currency).to_string();
                let (available, required) = (exact(balance.balance), exact(price));
                return Err(Error::InsufficientFunds { available, required });
            }
            row.require_eligible()?;
        }
        let tax_rate = self.settings.tax_rates.rate(currency);
        let fee_rate = match row.publisher {
            Some(_) => row.fee.map_or(self.settings.store_fee, Rate::from_stored),
            None => Rate::ZERO,
        };
        let division = Division::new(price, tax_rate, fee_rate);
        Ok(Quote { row, code: discount, currency, price, division })
    }

    /// Charges the buyer; none if the quote no longer holds.
    async fn charge(
        &self,
        quote: &Quote,
        (buyer, recipient): (UserId, UserId),
        key: Option<HashedKey>,
        meta: RequestMeta<'_>,
    ) -> Result<Option<Purchase>> {
        let Quote { currency, price, division, row, .. } = quote;
        let seller = seller_account(row.publisher, *currency)?;
        let claim = quote.claim((buyer, recipient), key, meta.trace)?;
        let companion = Companion::new(&sql::CLAIMED, &claim, OVERTAKEN)
            .map_err(|cause| Error::Internal(cause.into()))?;
        let legs = |wallet| purchase_legs(wallet, seller, *currency, *price, division);
        let player = PlayerId::from(buyer);
        let charge = Charge { player: &player, currency: *currency, amount: *price, key };
        let charged = self.wallets.charge_main(&charge, legs, &companion, meta).await;
        match charged {
            Ok(Ok(posted)) if posted.replayed => {
                self.purchase_of_transfer(posted.first_seq).await.map(Some)
            }
            Ok(Ok(posted)) => {
                let code = [currency.code()];
                let amount = |minor: Minor| u64::try_from(minor.0).unwrap_or_default();
                let metrics = &self.metrics;
                metrics.wallet_store_revenue_minor_units_total.with(code).increment(amount(*price));
                metrics
                    .wallet_store_tax_minor_units_total
                    .with(code)
                    .increment(amount(division.tax));
                metrics
                    .wallet_store_fees_minor_units_total
                    .with(code)
                    .increment(amount(division.fee));
                Ok(Some(Purchase {
                    game: row.game,
                    recipient,
                    currency: *currency,
                    price: *price,
                    tax: division.tax,
                    transfer: Some(TransferId(posted.first_seq)),
                    replayed: false,
                }))
            }
            Ok(Err(ChargeOvertaken)) => Ok(None),
            // Of two attempts of this request, the other one may have spent the money.
            Err(refusal @ Error::InsufficientFunds { .. }) => {
                match self.find_purchase(key).await? {
                    Some(earlier) => Ok(Some(earlier)),
                    None => Err(refusal),
                }
            }
            Err(error) => Err(error),
        }
    }

    /// Grants a free game; none if the quote no longer holds.
    async fn claim_free(
        &self,
        quote: &Quote,
        (buyer, recipient): (UserId, UserId),
        key: Option<HashedKey>,
        meta: RequestMeta<'_>,
    ) -> Result<Option<Purchase>> {
        let claim = quote.claim((buyer, recipient), key, meta.trace)?;
        let mut db = self.db.acquire("games.claim_free").await?;
        if !sql::claim_free(&mut db, &claim).await? {
            return Ok(None);
        }
        Ok(Some(Purchase {
            game: quote.row.game,
            recipient,
            currency: quote.currency,
            price: Minor::ZERO,
            tax: Minor::ZERO,
            transfer: None,
            replayed: false,
        }))
    }

    /// The purchase of an earlier request with this key.
    async fn find_purchase(&self, key: Option<HashedKey>) -> Result<Option<Purchase>> {
        let Some(key) = key else { return Ok(None) };
        let mut db = self.db.acquire("games.find_purchase").await?;
        match sql::find_by_key(&mut db, key.hash).await? {
            None => Ok(None),
            Some((row, content)) if content == Some(key.content) => {
                drop(db);
                self.purchase_from(&row).map(Some)
            }
            Some(_) => Err(Error::IdempotencyKeyReused),
        }
    }

    async fn purchase_of_transfer(&self, seq: i64) -> Result<Purchase> {
        let mut db = self.db.acquire("games.find_purchase").await?;
        let row = sql::find_by_transfer(&mut db, TransferId(seq)).await?;
        drop(db);
        let missing = || Error::Internal(anyhow::anyhow!("a purchase has no row"));
        self.purchase_from(&row.ok_or_else(missing)?)
    }

    fn purchase_from(&self, row: &sql::PurchaseRow) -> Result<Purchase> {
        let price = self.price_from(&row.currency, row.price)?;
        Ok(Purchase {
            game: row.game,
            recipient: row.recipient,
            currency: price.currency,
            price: price.amount,
            tax: Minor(row.tax),
            transfer: row.transfer,
            replayed: true,
        })
    }
}

impl sql::QuoteRow {
    /// Refuses a recipient who owns the game, or does not own its base.
    fn require_eligible(&self) -> Result<()> {
        match self.base {
            _ if self.is_owned => Err(StoreRefusal::AlreadyOwned.into()),
            Some(base) if !self.owns_base => Err(StoreRefusal::BaseGameMissing(base.0).into()),
            _ => Ok(()),
        }
    }
}

impl Quote {
    /// Whether concurrent purchases would refuse each other: the last copies are taken one at a time, and so is what is
    /// free, because free claims share no batch.
    fn is_contended(&self) -> bool {
        let code = self.code.as_ref().and_then(|code| code.left);
        let fewest = [self.row.left, self.row.sale_left, code].into_iter().flatten().min();
        fewest.is_some_and(|left| left <= LAST_COPIES || self.price == Minor::ZERO)
    }

    fn claim(
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
}

/// The account that the price goes to; tax and fee go on from there.
pub(in crate::games) fn seller_account(
    publisher: Option<PublisherId>,
    currency: Currency,
) -> Result<AccountId> {
    let Some(publisher) = publisher else {
        return Ok(AccountId::system(SystemRole::Revenue, currency));
    };
    let party = u32::try_from(publisher.0).ok();
    party
        .and_then(|party| AccountId::payable(party, currency))
        .ok_or_else(|| Error::Internal(anyhow::anyhow!("publisher {publisher} has no account")))
}

/// The legs of a purchase, which are one transfer: the price to the seller, and tax and fee from there.
fn purchase_legs(
    wallet: AccountId,
    seller: AccountId,
    currency: Currency,
    price: Minor,
    division: &Division,
) -> Vec<Leg> {
    let first = (TransferKind::Purchase, wallet, seller, price);
    let tax = AccountId::system(SystemRole::Tax, currency);
    let revenue = AccountId::system(SystemRole::Revenue, currency);
    let further = [
        (TransferKind::Tax, seller, tax, division.tax),
        (TransferKind::Fee, seller, revenue, division.fee),
    ];
    let legs = std::iter::once(first).chain(further);
    legs.filter(|(.., amount)| *amount > Minor::ZERO)
        .enumerate()
        .map(|(n, (kind, debit, credit, amount))| {
            let leg = Leg::from(Action::Move { kind, debit, credit, amount });
            Leg { with_previous: n > 0, ..leg }
        })
        .collect()
}
