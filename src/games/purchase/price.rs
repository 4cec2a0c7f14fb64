//! Rates, and the division of a price into tax, fee, and the share of the seller.

use std::collections::HashMap;
use std::str::FromStr;

use crate::ledger::currency::Currency;
use crate::ledger::money::Minor;

/// A rate of one, in hundredths of a percent.
const WHOLE: i32 = 10_000;

/// Highest rate: a tax of 1,000 %.
const RATE_MAX: i32 = 10 * WHOLE;

/// A rate in hundredths of a percent.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Rate(i32);

/// The text is not a rate.
#[derive(Debug, thiserror::Error)]
pub enum RateError {
    #[error("must be a percentage with at most two decimals, such as 12.5")]
    Percentage,
    #[error("must be a list of CURRENCY=PERCENT, such as EUR=19,USD=8.25")]
    List,
}

impl Rate {
    pub const ZERO: Self = Self(0);

    pub(in crate::games) const fn from_stored(hundredths: i32) -> Self {
        Self(hundredths)
    }

    pub const fn to_stored(self) -> i32 {
        self.0
    }

    /// This share of an amount, rounded half up.
    pub(in crate::games) fn of(self, amount: i64) -> i64 {
        share(amount, self.0, WHOLE)
    }

    /// Whether it is at most 100 %.
    pub const fn is_share(self) -> bool {
        self.0 <= WHOLE
    }

    /// The percentage with its decimals, such as `12.5`.
    pub fn percent(self) -> String {
        let text = format!("{}.{:02}", self.0 / 100, self.0 % 100);
        text.trim_end_matches('0').trim_end_matches('.').to_owned()
    }
}

impl FromStr for Rate {
    type Err = RateError;

    /// Parses a percentage.
    fn from_str(text: &str) -> Result<Self, RateError> {
        let (whole, fraction) = text.split_once('.').unwrap_or((text, "0"));
        let is_digits = |part: &str| !part.is_empty() && part.bytes().all(|b| b.is_ascii_digit());
        if !is_digits(whole) || !is_digits(fraction) || fraction.len() > 2 || whole.len() > 4 {
            return Err(RateError::Percentage);
        }
        let hundredths = format!("{whole}{fraction:0<2}").parse().ok();
        hundredths.filter(|rate| *rate <= RATE_MAX).map(Self).ok_or(RateError::Percentage)
    }
}

/// Tax rates by currency; others have no tax.
#[derive(Debug, Clone, Default)]
pub struct TaxRates(HashMap<String, Rate>);

impl TaxRates {
    pub(super) fn rate(&self, currency: Currency) -> Rate {
        self.0.get(currency.code()).copied().unwrap_or(Rate::ZERO)
    }

    /// The currencies that have a rate.
    pub fn currencies(&self) -> impl Iterator<Item = &str> {
        self.0.keys().map(String::as_str)
    }
}

impl FromStr for TaxRates {
    type Err = RateError;

    fn from_str(text: &str) -> Result<Self, RateError> {
        let parts = text.split(',').map(str::trim).filter(|part| !part.is_empty());
        let rates = parts.map(|part| {
            let (code, rate) = part.split_once('=').ok_or(RateError::List)?;
            Ok((code.to_owned(), rate.parse()?))
        });
        rates.collect::<Result<_, _>>().map(Self)
    }
}

/// The division of a price. The seller gets what tax and fee leave.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Division {
    pub tax: Minor,
    pub fee: Minor,
    pub tax_rate: Rate,
    pub fee_rate: Rate,
}

impl Division {
    /// Divides a price that includes its tax. The fee is a share of the price without tax; both are rounded half up.
    pub(super) fn new(price: Minor, tax_rate: Rate, fee_rate: Rate) -> Self {
        let tax = share(price.0, tax_rate.0, WHOLE + tax_rate.0);
        let fee = fee_rate.of(price.0 - tax);
        Self { tax: Minor(tax), fee: Minor(fee), tax_rate, fee_rate }
    }
}

/// `amount * part / whole`, rounded half up.
fn share(amount: i64, part: i32, whole: i32) -> i64 {
    let (amount, part, whole) = (i128::from(amount), i128::from(part), i128::from(whole));
    let rounded = (2 * amount * part + whole) / (2 * whole);
    i64::try_from(rounded).expect("a share is no more than the whole")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn divide(price: i64, tax: &str, fee: &str) -> (i64, i64) {
        let division = Division::new(Minor(price), tax.parse().unwrap(), fee.parse().unwrap());
        (division.tax.0, division.fee.0)
    }

    #[test]
    fn tax_and_fee_are_rounded_half_up() {
        assert_eq!(divide(1999, "19", "30"), (319, 504));
        assert_eq!(divide(1, "0", "50"), (0, 1));
        assert_eq!(divide(3, "0", "50"), (0, 2));
        assert_eq!(divide(1, "0", "49.99"), (0, 0));
        assert_eq!(divide(1999, "0", "0"), (0, 0));
        assert_eq!(divide(100, "0", "100"), (0, 100));
    }

    #[test]
    fn tax_and_fee_never_exceed_the_price() {
        for price in (0..500).chain([i64::MAX / 2, 1_000_000_000_000]) {
            for tax in ["0", "0.01", "7", "19", "100", "1000"] {
                for fee in ["0", "0.01", "12.5", "99.99", "100"] {
                    let (tax, fee) = divide(price, tax, fee);
                    assert!(0 <= tax && 0 <= fee && tax + fee <= price, "{price} {tax} {fee}");
                }
            }
        }
    }

    #[test]
    fn a_rate_is_a_percentage() {
        for (text, hundredths) in [("0", 0), ("19", 1900), ("12.5", 1250), ("8.25", 825)] {
            let rate: Rate = text.parse().unwrap();
            assert_eq!((rate.0, rate.percent().as_str()), (hundredths, text));
        }
        for text in ["", "-1", "1.234", "1,5", "1e2", "1001", ".5", "5.", "99999"] {
            assert!(text.parse::<Rate>().is_err(), "{text}");
        }
        assert!("EUR:19".parse::<TaxRates>().is_err() && "EUR=x".parse::<TaxRates>().is_err());
    }
}
