//! Money: a whole number of minor units, and its exact decimal form, without floating-point arithmetic.

mod rate;

use std::fmt;

use rust_decimal::Decimal;

use super::currency::Currency;

pub use self::rate::{InvalidRate, Rate};

/// Highest balance of a customer account: 2^53 - 1, so that every JSON parser reads every balance exactly.
pub const MAX_BALANCE: Minor = Minor(9_007_199_254_740_991);

/// Longest text, in bytes, that is accepted as an amount: enough for the 19 digits of an `i64` and for extra zeros.
const TEXT_LEN_MAX: usize = 64;

/// An amount or a balance in minor units (cents for EUR).
#[derive(
    Debug,
    Clone,
    Copy,
    PartialEq,
    Eq,
    PartialOrd,
    Ord,
    Hash,
    Default,
    serde::Serialize,
    serde::Deserialize,
)]
#[serde(transparent)]
pub struct Minor(pub i64);

/// Reason why a text is not a valid amount. The client sees the `Display` text.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum AmountError {
    #[error("is not a decimal number")]
    NotANumber,
    #[error("has more than {0} decimals")]
    TooManyDecimals(u8),
    #[error("must not be zero")]
    Zero,
    #[error("must not be negative")]
    Negative,
    #[error("is too large")]
    TooLarge,
}

impl Minor {
    pub const ZERO: Self = Self(0);

    /// Returns the sum of two amounts; `None` if the sum exceeds the range of `i64`.
    #[must_use]
    pub const fn checked_add(self, other: Self) -> Option<Self> {
        match self.0.checked_add(other.0) {
            Some(sum) => Some(Self(sum)),
            None => None,
        }
    }

    /// Returns the difference of two amounts; `None` if the difference exceeds the range of `i64`.
    #[must_use]
    pub const fn checked_sub(self, other: Self) -> Option<Self> {
        match self.0.checked_sub(other.0) {
            Some(difference) => Some(Self(difference)),
            None => None,
        }
    }

    /// Parses a positive amount from the text of a JSON number.
    pub fn parse_amount(text: &str, currency: Currency) -> Result<Self, AmountError> {
        match Self::parse_balance(text, currency)? {
            Self::ZERO => Err(AmountError::Zero),
            amount => Ok(amount),
        }
    }

    /// Parses a positive amount in minor units from the text of a JSON number.
    pub fn parse_minor_units(text: &str) -> Result<Self, AmountError> {
        match refuse_negative(text, Self::parse_scaled(text, 0))? {
            Self::ZERO => Err(AmountError::Zero),
            amount => Ok(amount),
        }
    }

    /// Parses an amount that may be zero.
    pub fn parse_balance(text: &str, currency: Currency) -> Result<Self, AmountError> {
        refuse_negative(text, Self::parse_signed(text, currency))
    }

    /// Parses an amount that may be zero or negative.
    ///
    /// The grammar is that of a JSON number. An exponent only moves the decimal point: `1.5e1` is `15`,
    /// and `15e-3` has three decimals.
    pub fn parse_signed(text: &str, currency: Currency) -> Result<Self, AmountError> {
        Self::parse_scaled(text, currency.decimals())
    }

    /// Parses a number with at most `decimals` decimals, and returns it in units of the last decimal: with two
    /// decimals, `1.5` becomes 150.
    fn parse_scaled(text: &str, decimals: u8) -> Result<Self, AmountError> {
        if text.len() > TEXT_LEN_MAX {
            return Err(AmountError::NotANumber);
        }
        let (negative, unsigned) = match text.strip_prefix('-') {
            Some(rest) => (true, rest),
            None => (false, text),
        };
        let (mantissa, exponent) = match unsigned.split_once(['e', 'E']) {
            Some((mantissa, exponent)) => (mantissa, parse_exponent(exponent)?),
            None => (unsigned, 0),
        };
        let (whole, fraction) = match mantissa.split_once('.') {
            Some((_, "")) => return Err(AmountError::NotANumber),
            Some((whole, fraction)) => (whole, fraction),
            None => (mantissa, ""),
        };
        if whole.is_empty() || (whole.len() > 1 && whole.starts_with('0')) {
            return Err(AmountError::NotANumber);
        }

        let digits = append_digits(append_digits(Some(0), whole)?, fraction)?;
        let decimals_written = i64::try_from(fraction.len()).unwrap_or(i64::MAX) - exponent;
        let zeros_missing = i64::from(decimals) - decimals_written;
        if zeros_missing < 0 {
            return Err(AmountError::TooManyDecimals(decimals));
        }
        let minor = match digits {
            Some(0) => 0,
            Some(digits) => u32::try_from(zeros_missing)
                .ok()
                .and_then(|zeros| 10_i64.checked_pow(zeros))
                .and_then(|scale| digits.checked_mul(scale))
                .ok_or(AmountError::TooLarge)?,
            None => return Err(AmountError::TooLarge),
        };
        Ok(Self(if negative { -minor } else { minor }))
    }

    /// Converts a decimal to minor units, without rounding: more decimals than the currency has are an error.
    pub fn from_decimal(decimal: Decimal, currency: Currency) -> Result<Self, AmountError> {
        let decimals = currency.decimals();
        let mut exact = decimal.normalize();
        if exact.scale() > u32::from(decimals) {
            return Err(AmountError::TooManyDecimals(decimals));
        }
        exact.rescale(u32::from(decimals));
        // `rescale` stops at a smaller scale if the mantissa has no room left.
        if exact.scale() != u32::from(decimals) {
            return Err(AmountError::TooLarge);
        }
        i64::try_from(exact.mantissa()).map(Self).map_err(|_| AmountError::TooLarge)
    }

    /// Converts to an exact decimal.
    pub fn to_decimal(self, currency: Currency) -> Decimal {
        Decimal::from_i128_with_scale(i128::from(self.0), u32::from(currency.decimals()))
    }

    /// The decimal form with exactly the currency's decimals, such as `999.00`.
    pub fn exact(self, currency: Currency) -> ExactDecimal {
        ExactDecimal { minor: self, decimals: currency.decimals() }
    }
}

/// Reports a negative amount as negative, even if it is also too large or has too many decimals.
fn refuse_negative(text: &str, parsed: Result<Minor, AmountError>) -> Result<Minor, AmountError> {
    match parsed {
        Ok(amount) if amount < Minor::ZERO => Err(AmountError::Negative),
        Err(AmountError::TooLarge | AmountError::TooManyDecimals(_)) if text.starts_with('-') => {
            Err(AmountError::Negative)
        }
        other => other,
    }
}

/// Parses an exponent such as `-1`, `+2` or `3`, clamped to six digits: larger exponents are out of range anyway.
fn parse_exponent(text: &str) -> Result<i64, AmountError> {
    let digits = text.strip_prefix(['+', '-']).unwrap_or(text);
    if digits.is_empty() || !digits.bytes().all(|b| b.is_ascii_digit()) {
        return Err(AmountError::NotANumber);
    }
    let significant = digits.trim_start_matches('0');
    let size = if significant.is_empty() { Ok(0) } else { significant.parse::<i64>() };
    let size = size.unwrap_or(i64::MAX).min(999_999);
    Ok(if text.starts_with('-') { -size } else { size })
}

/// Appends digits to a number; `None` once it exceeds the range of `i64`.
fn append_digits(number: Option<i64>, digits: &str) -> Result<Option<i64>, AmountError> {
    digits.bytes().try_fold(number, |number, byte| {
        if !byte.is_ascii_digit() {
            return Err(AmountError::NotANumber);
        }
        let digit = i64::from(byte - b'0');
        Ok(number.and_then(|n| n.checked_mul(10)).and_then(|n| n.checked_add(digit)))
    })
}

/// Displays an amount as a decimal, without floating-point arithmetic and without allocation.
#[derive(Debug, Clone, Copy)]
pub struct ExactDecimal {
    minor: Minor,
    decimals: u8,
}

impl fmt::Display for ExactDecimal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // Room for 20 digits, a point and a sign.
        let mut text = [0u8; 24];
        let mut start = text.len();
        let mut rest = self.minor.0.unsigned_abs();
        let mut written = 0;
        while rest > 0 || written <= self.decimals {
            if written == self.decimals && written > 0 {
                start -= 1;
                text[start] = b'.';
            }
            start -= 1;
            text[start] = b'0' + u8::try_from(rest % 10).expect("a digit");
            rest /= 10;
            written += 1;
        }
        if self.minor.0 < 0 {
            start -= 1;
            text[start] = b'-';
        }
        f.write_str(std::str::from_utf8(&text[start..]).expect("digits"))
    }
}

#[cfg(test)]
mod tests;
