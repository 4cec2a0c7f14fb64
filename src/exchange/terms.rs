//! Terms of an order: the amounts that the user pays and gets, computed in exact decimals. Payouts are rounded down,
//! and fees are rounded up.

use rust_decimal::{Decimal, RoundingStrategy};
use serde::{Deserialize, Serialize};

use crate::error::{Error, ExchangeRefusal, Result};
use crate::ledger::currency::Currency;
use crate::ledger::money::{Minor, Rate};

/// Side of an order, from the user's point of view.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize, utoipa::ToSchema)]
#[schema(as = OrderSide)]
#[serde(rename_all = "snake_case")]
pub enum Side {
    /// The user pays fiat money and receives crypto.
    Buy,
    /// The user pays crypto and receives fiat money.
    Sell,
}

impl Side {
    pub const fn name(self) -> &'static str {
        match self {
            Self::Buy => "buy",
            Self::Sell => "sell",
        }
    }
}

impl std::str::FromStr for Side {
    type Err = String;

    fn from_str(name: &str) -> Result<Self, String> {
        [Self::Buy, Self::Sell]
            .into_iter()
            .find(|side| side.name() == name)
            .ok_or_else(|| "must be buy or sell".to_owned())
    }
}

/// The two currencies that the exchange trades.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Pair {
    pub fiat: Currency,
    pub crypto: Currency,
}

/// Amount of an order as the user requests it: either in fiat or in crypto.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum OrderAmount {
    /// Fiat amount that a buyer pays (fee included) or a seller receives (fee deducted).
    Fiat(Minor),
    /// Amount of crypto to buy or sell.
    Crypto(Minor),
}

impl OrderAmount {
    /// Returns the amount as text. The hash of a request covers this text, to detect a client that reuses an
    /// idempotency key for a different amount.
    pub(super) fn content(self) -> String {
        match self {
            Self::Fiat(amount) => format!("fiat {}", amount.0),
            Self::Crypto(amount) => format!("crypto {}", amount.0),
        }
    }
}

/// The amounts, the fee and the price of an order.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Terms {
    pub side: Side,
    /// Fiat amount that a buyer pays (fee included) or a seller receives (fee deducted).
    pub fiat: Minor,
    pub fee: Minor,
    pub crypto: Minor,
    /// Price of a unit of crypto in the fiat currency.
    pub price: Decimal,
}

impl Terms {
    /// Computes the terms of an order at a price.
    pub fn new(
        side: Side,
        amount: OrderAmount,
        price: Decimal,
        fee_rate: Rate,
        pair: Pair,
    ) -> Result<Self> {
        let (down, up) = (RoundingStrategy::ToZero, RoundingStrategy::AwayFromZero);
        let fiat_of = |crypto: Minor, rounding| {
            let exact = crypto.to_decimal(pair.crypto).checked_mul(price);
            minor(exact, pair.fiat, rounding)
        };
        let crypto_of = |fiat: Minor, rounding| {
            let exact = fiat.to_decimal(pair.fiat).checked_div(price);
            minor(exact, pair.crypto, rounding)
        };
        let (fiat, fee, crypto) = match (side, amount) {
            (Side::Buy, OrderAmount::Fiat(fiat)) => {
                let fee = Minor(fee_rate.of_rounded_up(fiat.0));
                (fiat, fee, crypto_of(Minor(fiat.0 - fee.0), down)?)
            }
            (Side::Buy, OrderAmount::Crypto(crypto)) => {
                let cost = fiat_of(crypto, up)?;
                let fiat = Minor(fee_rate.gross(cost.0).ok_or_else(too_large)?);
                (fiat, Minor(fiat.0 - cost.0), crypto)
            }
            (Side::Sell, OrderAmount::Crypto(crypto)) => {
                let proceeds = fiat_of(crypto, down)?;
                let fee = Minor(fee_rate.of_rounded_up(proceeds.0));
                (Minor(proceeds.0 - fee.0), fee, crypto)
            }
            (Side::Sell, OrderAmount::Fiat(fiat)) => {
                let proceeds = Minor(fee_rate.gross(fiat.0).ok_or_else(too_large)?);
                (fiat, Minor(proceeds.0 - fiat.0), crypto_of(proceeds, up)?)
            }
        };
        if fiat <= Minor::ZERO || crypto <= Minor::ZERO {
            return Err(ExchangeRefusal::AmountTooSmall.into());
        }
        Ok(Self { side, fiat, fee, crypto, price })
    }

    /// Returns the fiat amount of the trade with the external exchange, at the price of these terms.
    pub fn traded_fiat(&self) -> Minor {
        match self.side {
            Side::Buy => Minor(self.fiat.0 - self.fee.0),
            Side::Sell => Minor(self.fiat.0 + self.fee.0),
        }
    }
}

/// Rounds an exact amount to minor units.
fn minor(exact: Option<Decimal>, currency: Currency, rounding: RoundingStrategy) -> Result<Minor> {
    let rounded =
        exact.map(|exact| exact.round_dp_with_strategy(u32::from(currency.decimals()), rounding));
    let amount = rounded.and_then(|rounded| Minor::from_decimal(rounded, currency).ok());
    amount.ok_or_else(too_large)
}

fn too_large() -> Error {
    Error::field("", "has an amount that is too large")
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn pair() -> Pair {
        Pair { fiat: Currency::new("EUR", 2).unwrap(), crypto: Currency::new("BTC", 8).unwrap() }
    }

    fn terms(side: Side, amount: OrderAmount, price: &str, fee: &str) -> (i64, i64, i64) {
        let terms =
            Terms::new(side, amount, price.parse().unwrap(), fee.parse().unwrap(), pair()).unwrap();
        (terms.fiat.0, terms.fee.0, terms.crypto.0)
    }

    #[test]
    fn payouts_are_rounded_down_and_fees_up() {
        let (fiat, crypto) = (OrderAmount::Fiat, OrderAmount::Crypto);
        assert_eq!(terms(Side::Buy, fiat(Minor(3_000)), "10", "0"), (3_000, 0, 300_000_000));
        assert_eq!(terms(Side::Buy, fiat(Minor(1_000)), "3", "0"), (1_000, 0, 333_333_333));
        assert_eq!(terms(Side::Buy, fiat(Minor(1_001)), "10", "1"), (1_001, 11, 99_000_000));
        assert_eq!(terms(Side::Buy, crypto(Minor(1)), "10", "0"), (1, 0, 1));
        assert_eq!(
            terms(Side::Sell, crypto(Minor(150_000_000)), "10", "0"),
            (1_500, 0, 150_000_000)
        );
        assert_eq!(terms(Side::Sell, crypto(Minor(33_333_333)), "10", "1"), (329, 4, 33_333_333));
        assert_eq!(terms(Side::Sell, fiat(Minor(1_000)), "3", "0"), (1_000, 0, 333_333_334));
    }

    #[test]
    fn an_amount_that_is_worth_nothing_is_refused() {
        let (price, fee) = ("1000000".parse().unwrap(), Rate::ZERO);
        let amount = OrderAmount::Crypto(Minor(1));
        assert!(Terms::new(Side::Sell, amount, price, fee, pair()).is_ok());
        let price = "0.001".parse().unwrap();
        assert!(Terms::new(Side::Sell, amount, price, fee, pair()).is_err());
        let amount = OrderAmount::Fiat(Minor(i64::MAX));
        assert!(Terms::new(Side::Buy, amount, price, fee, pair()).is_err());
    }

    proptest! {
        #[test]
        fn the_house_never_pays_for_rounding(
            side in prop_oneof![Just(Side::Buy), Just(Side::Sell)],
            is_fiat: bool,
            amount in 1_i64..1_000_000_000_000,
            price in 1_i64..10_000_000_000,
            scale in 0_u32..6,
            fee in 0_i32..5_000,
        ) {
            let price = Decimal::new(price, scale);
            let amount = if is_fiat { OrderAmount::Fiat(Minor(amount)) } else { OrderAmount::Crypto(Minor(amount)) };
            let Ok(terms) = Terms::new(side, amount, price, Rate::from_stored(fee), pair()) else {
                return Ok(());
            };
            let worth = terms.crypto.to_decimal(pair().crypto) * price;
            let traded = terms.traded_fiat().to_decimal(pair().fiat);
            match side {
                Side::Buy => prop_assert!(worth <= traded, "{terms:?}"),
                Side::Sell => prop_assert!(traded <= worth, "{terms:?}"),
            }
            prop_assert!(Minor::ZERO <= terms.fee);
        }
    }
}
