//! Purchases: a user pays for a game and receives it, in a single ledger posting.
//!
//! The price comes from a quote. A SQL function checks, in the transaction of the posting, that the quote still holds:
//! the game has not changed, the recipient does not own the game yet, and a copy is left. If the quote no longer holds,
//! the server makes a new quote and tries again, so that a refusal always reflects the current state. The purchase of a
//! free game moves no money, so it needs no ledger posting.

mod availability;
mod price;
mod quote;
mod refund;
pub(in crate::games) mod sql;

use std::net::IpAddr;

use tokio::sync::MutexGuard;

use crate::error::{Error, Result, StoreRefusal};
use crate::games::Games;
use crate::games::guess::Guess;
use crate::idempotency_key::HashedKey;
use crate::ids::{GameId, PlayerId, PublisherId, TransferId, UserId};
use crate::ledger::account::{AccountId, SystemRole};
use crate::ledger::companion::Companion;
use crate::ledger::currency::Currency;
use crate::ledger::money::Minor;
use crate::ledger::transfer::{Action, Leg, TransferKind};
use crate::striped_lock::StripedLock;
use crate::telemetry::Metrics;
use crate::wallet::RequestMeta;
use crate::wallet::main_wallet::charge::Charge;

pub use self::price::{Division, TaxRates};
use self::quote::Quote;
pub(in crate::games) use self::quote::QuoteCache;
pub use self::refund::Refunded;

/// Error text of a posting that the database refused because the quote of the purchase no longer holds.
const OVERTAKEN: &str = "the quote no longer holds";

/// Maximum number of quotes that a purchase tries. Another purchase or a change to the game can make a new quote
/// necessary.
const ATTEMPTS_MAX: usize = 100;

/// Locks within this process, so that concurrent purchases do not make each other's ledger batches fail.
#[derive(Debug, Default)]
pub(in crate::games) struct PurchaseLocks {
    recipients: StripedLock,
    last_copies: StripedLock,
}

impl PurchaseLocks {
    /// Waits until no other purchase or refund of this game for this recipient is running in this process.
    async fn recipient(&self, game: GameId, recipient: UserId) -> MutexGuard<'_, ()> {
        self.recipients.lock(game.0.wrapping_mul(0x9e37).wrapping_add(recipient.0)).await
    }
}

/// A purchase as the client requests it.
#[derive(Debug, Clone)]
pub struct PurchaseRequest {
    pub game: GameId,
    /// Currency to pay in; `None` for the main currency of the game.
    pub currency: Option<Currency>,
    /// User who receives the game; `None` for the buyer.
    pub gift_to: Option<UserId>,
    /// Discount code to apply.
    pub code: Option<String>,
    /// Address of the client; wrong discount codes count against this address.
    pub address: Option<IpAddr>,
}

/// A completed purchase.
#[derive(Debug, Clone)]
pub struct Purchase {
    pub game: GameId,
    pub recipient: UserId,
    pub currency: Currency,
    pub price: Minor,
    pub tax: Minor,
    /// Transfer that paid for the game; `None` for a free game.
    pub transfer: Option<TransferId>,
    pub replayed: bool,
}

pub(super) fn preregister(metrics: &Metrics) {
    for outcome in ["paid", "free", "gift", "replayed", "sold_out", "refused"] {
        metrics.wallet_store_purchases_total.preregister([outcome]);
    }
}

impl Games {
    /// Buys a game for the caller or as a gift. Returns an error if the current price differs from `expected_price`.
    pub async fn purchase(
        &self,
        request: &PurchaseRequest,
        expected_price: Option<&str>,
        meta: RequestMeta<'_>,
    ) -> Result<Purchase> {
        let bought = self.try_purchase(request, expected_price, meta).await;
        let outcome = match &bought {
            Err(Error::Store(StoreRefusal::SoldOut)) => "sold_out",
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
        if let Some(quote) = self.cached_quote(request, buyer, expected_price)
            && let Some(purchase) = self.purchase_at(&quote, request, buyer, key, meta).await?
        {
            return Ok(purchase);
        }
        // Boxed, so that this rare path does not enlarge the future of every request.
        Box::pin(self.decide_purchase(request, (buyer, recipient), expected_price, key, meta)).await
    }

    /// Buys a game at a quote that is read from the database.
    async fn decide_purchase(
        &self,
        request: &PurchaseRequest,
        (buyer, recipient): (UserId, UserId),
        expected_price: Option<&str>,
        key: Option<HashedKey>,
        meta: RequestMeta<'_>,
    ) -> Result<Purchase> {
        // A duplicate of this request may have succeeded already. The code below would also find the purchase, but only
        // after the discount code has counted as a guess.
        if request.code.is_some()
            && let Some(earlier) = self.find_purchase(key).await?
        {
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
                    // The recipient's lock is released first, so that other purchases for the recipient do not wait
                    // while this purchase waits for the game.
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
            // A duplicate of this request may have succeeded first, regardless of the outcome of this attempt.
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

    /// Buys a game at a cached quote. Returns `None` if a quote from the database is needed.
    async fn purchase_at(
        &self,
        quote: &Quote,
        request: &PurchaseRequest,
        buyer: UserId,
        key: Option<HashedKey>,
        meta: RequestMeta<'_>,
    ) -> Result<Option<Purchase>> {
        let _held = self.locks.recipient(request.game, buyer).await;
        self.quotes.note_try(request.game, buyer);
        match self.charge(quote, (buyer, buyer), key, meta).await {
            Ok(Some(purchase)) => Ok(Some(purchase)),
            Ok(None) => {
                self.quotes.forget(request);
                Ok(None)
            }
            // The price may have fallen since the quote was cached, so a quote from the database decides.
            Err(Error::InsufficientFunds { .. }) => Ok(None),
            Err(refusal) => match Box::pin(self.find_purchase(key)).await? {
                Some(earlier) => Ok(Some(earlier)),
                None => Err(refusal),
            },
        }
    }

    /// Charges the buyer and grants the game. Returns `None` if the quote no longer holds, or if a duplicate of this
    /// request has succeeded.
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
        let posted = self.wallets.charge_main(&charge, legs, &companion, meta).await?;
        // If this is a repeated request, the caller finds the earlier purchase by its idempotency key.
        let Some(posted) = posted.filter(|posted| !posted.replayed) else { return Ok(None) };
        let code = [currency.code()];
        let amount = |minor: Minor| u64::try_from(minor.0).unwrap_or_default();
        let metrics = &self.metrics;
        metrics.wallet_store_revenue_minor_units_total.with(code).increment(amount(*price));
        metrics.wallet_store_tax_minor_units_total.with(code).increment(amount(division.tax));
        metrics.wallet_store_fees_minor_units_total.with(code).increment(amount(division.fee));
        Ok(Some(quote.purchase(recipient, Some(TransferId(posted.first_seq)))))
    }

    /// Grants a free game. Returns `None` if the quote no longer holds.
    async fn claim_free(
        &self,
        quote: &Quote,
        (buyer, recipient): (UserId, UserId),
        key: Option<HashedKey>,
        meta: RequestMeta<'_>,
    ) -> Result<Option<Purchase>> {
        let claim = quote.claim((buyer, recipient), key, meta.trace)?;
        let mut db = self.db.acquire("games.claim_free").await?;
        let is_claimed = sql::claim_free(&mut db, &claim).await?;
        Ok(is_claimed.then(|| quote.purchase(recipient, None)))
    }

    /// Finds the purchase that an earlier request with this idempotency key has made.
    async fn find_purchase(&self, key: Option<HashedKey>) -> Result<Option<Purchase>> {
        let Some(key) = key else { return Ok(None) };
        let mut db = self.db.acquire("games.find_purchase").await?;
        let Some((row, content)) = sql::find_by_key(&mut db, key.hash).await? else {
            return Ok(None);
        };
        drop(db);
        key.require_same_content(content)?;
        self.purchase_from(&row).map(Some)
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

/// Returns the account of the seller, which receives the price. Tax and fee are then deducted from this account.
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

/// Returns the movements of money for a purchase, which form a single transfer: the price goes to the seller, and then
/// tax and fee go from the seller to the operator.
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
