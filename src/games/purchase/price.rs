//! Tax rates, and the division of a price into tax, fee, and the share of the seller.

use std::collections::HashMap;
use std::str::FromStr;

use crate::ledger::currency::Currency;
use crate::ledger::money::{InvalidRate, Minor, Rate};

/// Error for a text that is not a valid list of tax rates.
#[derive(Debug, thiserror::Error)]
pub enum TaxRatesError {
    #[error("must be a list of CURRENCY=PERCENT, such as EUR=19,USD=8.25")]
    List,
    #[error(transparent)]
    Rate(#[from] InvalidRate),
}

/// Tax rates by currency. Prices in a currency without a rate include no tax.
#[derive(Debug, Clone, Default)]
pub struct TaxRates(HashMap<String, Rate>);

impl TaxRates {
    pub(super) fn rate(&self, currency: Currency) -> Rate {
        self.0.get(currency.code()).copied().unwrap_or(Rate::ZERO)
    }

    /// Returns the codes of the currencies that have a tax rate.
    pub fn currencies(&self) -> impl Iterator<Item = &str> {
        self.0.keys().map(String::as_str)
    }
}

impl FromStr for TaxRates {
    type Err = TaxRatesError;

    fn from_str(text: &str) -> Result<Self, TaxRatesError> {
        let parts = text.split(',').map(str::trim).filter(|part| !part.is_empty());
        let rates = parts.map(|part| {
            let (code, rate) = part.split_once('=').ok_or(TaxRatesError::List)?;
            Ok((code.to_owned(), rate.parse()?))
        });
        rates.collect::<Result<_, _>>().map(Self)
    }
}

/// Division of a price into the tax, the fee of the operator, and the rest, which the seller gets.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Division {
    pub tax: Minor,
    pub fee: Minor,
    pub tax_rate: Rate,
    pub fee_rate: Rate,
}

impl Division {
    /// Divides a price that includes its tax. The fee is a share of the price without tax. Tax and fee are rounded half
    /// up.
    pub(super) fn new(price: Minor, tax_rate: Rate, fee_rate: Rate) -> Self {
        let tax = tax_rate.within(price.0);
        let fee = fee_rate.of(price.0 - tax);
        Self { tax: Minor(tax), fee: Minor(fee), tax_rate, fee_rate }
    }
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
    fn tax_rates_are_a_list() {
        assert!("EUR:19".parse::<TaxRates>().is_err() && "EUR=x".parse::<TaxRates>().is_err());
    }
}
