//! Refunds: in a single ledger posting, the buyer gets the money back and the owner loses the game. A purchase can be
//! refunded only once.
//!
//! The owner also loses the downloadable content of the game. The price of downloadable content is paid back if the
//! buyer of the game paid for it and its refund window has not ended; other downloadable content is taken away without
//! a refund. The buyer of a gift cannot get a refund while the recipient owns downloadable content of the game that
//! another user paid for.

use serde::Serialize;
use uuid::Uuid;

use super::{OVERTAKEN, sql};
use crate::error::{Error, Result, StoreRefusal};
use crate::games::Games;
use crate::games::purchase::seller_account;
use crate::idempotency_key::HashedKey;
use crate::ids::{GameId, PlayerId, TransferId, UserId};
use crate::ledger::account::{AccountClass, AccountId, SystemRole};
use crate::ledger::companion::Companion;
use crate::ledger::currency::Currency;
use crate::ledger::money::Minor;
use crate::ledger::transfer::{Action, Leg, Posted, TransferKind};
use crate::wallet::main_wallet::payout::{Payout, PayoutRefusal};
use crate::wallet::{RequestMeta, from_post_error};

/// Maximum number of attempts to refund a purchase. An attempt fails if the owner's games change in the meantime.
const ATTEMPTS_MAX: usize = 32;

/// Maximum number of games, including downloadable content, that a refund takes away.
const GAMES_MAX: usize = 10_000;

/// A completed refund.
#[derive(Debug, Clone)]
pub struct Refunded {
    pub game: GameId,
    pub currency: Currency,
    pub amount: Minor,
    /// The transfer that paid back the price of the game; `None` if nothing was paid.
    pub transfer: Option<TransferId>,
    pub replayed: bool,
}

/// A game that a refund takes away from its owner: an input row of the SQL function that reverts purchases.
#[derive(Debug, Serialize)]
struct RevertRow {
    /// Index, within the posting, of the first movement of money that pays back this game.
    first: usize,
    game: GameId,
    recipient: UserId,
    /// Id of the purchase; `None` if the game was not bought.
    purchase: Option<i64>,
    /// Whether the buyer gets the price back.
    pays_back: bool,
    seconds: f64,
    /// Idempotency key of the request; set only in the row of the game that the request names.
    key_hash: Option<Uuid>,
    content_hash: Option<Uuid>,
    trace: Uuid,
}

/// The games that a refund takes away, and the purchases whose price it pays back.
struct RefundPlan {
    currency: Currency,
    /// The purchases whose price is paid back; the purchase of the game itself comes first.
    paid: Vec<sql::OwnedGame>,
    rows: Vec<RevertRow>,
}

impl Games {
    /// Refunds a game that the caller has bought. `recipient` is the user who received the game, if it was a gift.
    pub async fn refund(
        &self,
        game: GameId,
        recipient: Option<UserId>,
        meta: RequestMeta<'_>,
    ) -> Result<Refunded> {
        let buyer = meta.caller.require_user()?;
        let recipient = recipient.unwrap_or(buyer);
        let content = [game.to_string(), recipient.to_string()];
        let content = content.each_ref().map(String::as_str);
        let key = meta.key.hashed(meta.caller.name(), "game.refund", &content);
        let _recipient = self.locks.recipient(game, recipient).await;
        for _ in 0..ATTEMPTS_MAX {
            if let Some(earlier) = self.find_refund(game, key).await? {
                return Ok(earlier);
            }
            match self.try_refund(game, (buyer, recipient), key, meta).await {
                Ok(Some(refunded)) => return Ok(refunded),
                Ok(None) => {}
                // A duplicate of this request may have succeeded in the meantime.
                Err(refusal) => {
                    return match self.find_refund(game, key).await? {
                        Some(earlier) => Ok(earlier),
                        None => Err(refusal),
                    };
                }
            }
        }
        Err(Error::Overloaded)
    }

    /// Makes one attempt to refund a game. Returns `None` if the owner's games have changed in the meantime and the
    /// caller must retry.
    async fn try_refund(
        &self,
        game: GameId,
        (buyer, recipient): (UserId, UserId),
        key: Option<HashedKey>,
        meta: RequestMeta<'_>,
    ) -> Result<Option<Refunded>> {
        let plan = self.plan_refund(game, (buyer, recipient), key, meta.trace).await?;
        if plan.paid.is_empty() {
            if !self.revert_free(&plan).await? {
                return Ok(None);
            }
            self.metrics.wallet_store_refunds_total.increment(1);
            let (currency, amount) = (plan.currency, Minor::ZERO);
            return Ok(Some(Refunded { game, currency, amount, transfer: None, replayed: false }));
        }
        let player = PlayerId::from(buyer);
        let payout = Payout {
            player: &player,
            currency: plan.currency,
            key,
            trace: Some(meta.trace),
            may_open_guest: false,
        };
        let legs = plan.legs()?;
        let returned = self.wallets.pay_main(&payout, legs, |first| plan.companions(first)).await?;
        match returned {
            Ok(posted) => {
                if !posted.replayed {
                    self.metrics.wallet_store_refunds_total.increment(1);
                }
                self.refunded_from(game, &posted).await.map(Some)
            }
            Err(PayoutRefusal::Settled) => Ok(None),
            Err(PayoutRefusal::WalletClosed) => Err(Error::WalletClosed),
            Err(_) => Err(StoreRefusal::RefundRefused("the money cannot be paid back").into()),
        }
    }

    /// Finds the refund that an earlier request with this idempotency key has made.
    async fn find_refund(&self, game: GameId, key: Option<HashedKey>) -> Result<Option<Refunded>> {
        let Some(key) = key else { return Ok(None) };
        let posted = self.wallets.ledger().find(key).await;
        if let Some(posted) = posted.map_err(|error| from_post_error(&error, None))? {
            return self.refunded_from(game, &posted).await.map(Some);
        }
        let mut db = self.db.acquire("games.find_refund").await?;
        let Some((code, content)) = sql::find_refund(&mut db, key.hash).await? else {
            return Ok(None);
        };
        key.require_same_content(Some(content))?;
        let price = self.price_from(&code, 0)?;
        let (currency, amount) = (price.currency, price.amount);
        Ok(Some(Refunded { game, currency, amount, transfer: None, replayed: true }))
    }

    /// Decides which games a refund takes away and which prices it pays back.
    async fn plan_refund(
        &self,
        game: GameId,
        (buyer, recipient): (UserId, UserId),
        key: Option<HashedKey>,
        trace: Uuid,
    ) -> Result<RefundPlan> {
        let window = self.settings.refund_window.as_secs_f64();
        let mut db = self.db.acquire("games.plan_refund").await?;
        let owned = sql::owned_with_content(&mut db, game, recipient, window, GAMES_MAX).await?;
        drop(db);
        let refused = |why| Err(StoreRefusal::RefundRefused(why).into());
        let Some(own) = owned.first().filter(|own| own.game == game) else {
            return refused("the user does not own this game");
        };
        match own.buyer {
            Some(by) if by == buyer => {}
            Some(_) => return refused("a gift can be refunded by its buyer only"),
            None => return refused("a copy that was not bought here cannot be refunded"),
        }
        if !own.is_refundable {
            return refused("the refund window of this purchase has ended");
        }
        let currency = self.price_from(&own.currency, own.price)?.currency;
        let mut rows = Vec::new();
        let mut paid = Vec::new();
        let mut first = 0;
        for content in owned {
            let is_own = content.buyer == Some(buyer) && content.is_refundable;
            let is_of_other = content.buyer != Some(buyer) && content.price > 0;
            if buyer != recipient && is_of_other {
                return refused("another user paid for downloadable content of the gift");
            }
            if is_own && content.price > 0 && content.currency != currency.code() {
                let why = "its downloadable content was paid in another currency: refund that content first";
                return refused(why);
            }
            rows.push(RevertRow {
                first,
                game: content.game,
                recipient,
                purchase: content.purchase,
                pays_back: is_own,
                seconds: window,
                key_hash: key.filter(|_| content.game == game).map(|key| key.hash),
                content_hash: key.filter(|_| content.game == game).map(|key| key.content),
                trace,
            });
            if is_own && content.price > 0 {
                first += content.legs();
                paid.push(content);
            }
        }
        Ok(RefundPlan { currency, paid, rows })
    }

    /// Takes games away from their owner without paying money back. Returns false if the owner's games have changed in
    /// the meantime.
    async fn revert_free(&self, plan: &RefundPlan) -> Result<bool> {
        let mut db = self.db.acquire("games.revert_free").await?;
        sql::revert_free(&mut db, &plan.rows).await
    }

    /// Returns the refund that a posting has made.
    async fn refunded_from(&self, game: GameId, posted: &Posted) -> Result<Refunded> {
        let returned = posted.rows.iter().enumerate().filter(|(_, row)| {
            row.kind == TransferKind::Refund && row.credit.class() == Some(AccountClass::Customer)
        });
        let mut transfer = None;
        let mut sum = Minor::ZERO;
        let mut wallet = None;
        for (place, row) in returned {
            let seq = posted.first_seq + i64::try_from(place).unwrap_or_default();
            transfer.get_or_insert(TransferId(seq));
            wallet.get_or_insert(row.credit);
            sum = sum.checked_add(row.amount).unwrap_or(sum);
        }
        let missing = || Error::Internal(anyhow::anyhow!("the posting contains no refund"));
        let wallet = wallet.and_then(crate::wallet::transfer::wallet_of).ok_or_else(missing)?;
        let currency = self.wallets.record(wallet).await?.currency;
        Ok(Refunded { game, currency, amount: sum, transfer, replayed: posted.replayed })
    }
}

impl sql::OwnedGame {
    /// Returns the number of movements of money that pay back the price of this purchase.
    fn legs(&self) -> usize {
        1 + usize::from(self.tax > 0) + usize::from(self.fee > 0)
    }
}

impl RefundPlan {
    /// Returns a function that lists the movements of money for the refund: those of each purchase, in the opposite
    /// direction. The argument of the function is the account of the wallet that receives the money.
    fn legs(&self) -> Result<impl Fn(AccountId) -> Vec<Leg>> {
        let tax = AccountId::system(SystemRole::Tax, self.currency);
        let revenue = AccountId::system(SystemRole::Revenue, self.currency);
        let mut moves = Vec::new();
        for purchase in &self.paid {
            let seller = seller_account(purchase.publisher, self.currency)?;
            let parts = [
                (seller, None, purchase.price),
                (tax, Some(seller), purchase.tax),
                (revenue, Some(seller), purchase.fee),
            ];
            let parts = parts.into_iter().filter(|(.., amount)| *amount > 0);
            for (n, (debit, credit, amount)) in parts.enumerate() {
                moves.push((n > 0, purchase.transfer, debit, credit, Minor(amount)));
            }
        }
        Ok(move |wallet| {
            let leg = |(with_previous, linked, debit, credit, amount): &(
                bool,
                Option<i64>,
                AccountId,
                Option<AccountId>,
                Minor,
            )| {
                let (kind, credit) = (TransferKind::Refund, credit.unwrap_or(wallet));
                let action = Action::Move { kind, debit: *debit, credit, amount: *amount };
                Leg { with_previous: *with_previous, linked: *linked, ..Leg::from(action) }
            };
            moves.iter().map(leg).collect()
        })
    }

    /// Returns the SQL statements that revert the purchases in the transaction of the posting. `start` is the index,
    /// within the posting, of the first movement of money for the refund.
    fn companions(&self, start: usize) -> Result<Vec<Companion>> {
        let companion = |row: &RevertRow| {
            let row = RevertRow { first: start + row.first, ..*row };
            Companion::new(&sql::REVERTED, &row, OVERTAKEN)
                .map_err(|cause| Error::Internal(cause.into()))
        };
        self.rows.iter().map(companion).collect()
    }
}
