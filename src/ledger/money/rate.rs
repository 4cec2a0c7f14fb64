//! Rates: shares of an amount, in hundredths of a percent.

use std::str::FromStr;

/// A rate of 100%, in hundredths of a percent.
const WHOLE: i32 = 10_000;

/// Highest rate that is accepted: 1,000%. A tax may be higher than the net price, so its rate may exceed 100%.
const RATE_MAX: i32 = 10 * WHOLE;

/// A rate in hundredths of a percent.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Rate(i32);

/// Error: the text is not a valid rate.
#[derive(Debug, thiserror::Error)]
#[error("must be a percentage with at most two decimals, such as 12.5")]
pub struct InvalidRate;

impl Rate {
    pub const ZERO: Self = Self(0);

    pub const fn from_stored(hundredths: i32) -> Self {
        Self(hundredths)
    }

    /// Parses a rate of at most 100%.
    pub fn parse_share(text: &str) -> Result<Self, String> {
        let rate: Self = text.parse().map_err(|cause: InvalidRate| cause.to_string())?;
        if rate.is_share() { Ok(rate) } else { Err("must be at most 100".to_owned()) }
    }

    pub const fn to_stored(self) -> i32 {
        self.0
    }

    /// Computes this share of an amount, rounded half up.
    pub fn of(self, amount: i64) -> i64 {
        share(amount, self.0, WHOLE)
    }

    /// Computes this share of an amount, rounded up.
    pub fn of_rounded_up(self, amount: i64) -> i64 {
        let (amount, part, whole) = (i128::from(amount), i128::from(self.0), i128::from(WHOLE));
        i64::try_from((amount * part + whole - 1) / whole).unwrap_or(i64::MAX)
    }

    /// The smallest gross amount that leaves at least `net` after this share, rounded up, is deducted; `None` if no
    /// amount is large enough.
    pub fn gross(self, net: i64) -> Option<i64> {
        let rest = i128::from(WHOLE - self.0);
        if rest <= 0 {
            return None;
        }
        let mut gross =
            i64::try_from((i128::from(net) * i128::from(WHOLE) + rest - 1) / rest).ok()?;
        // The deducted share is rounded up, which can leave one minor unit too little.
        while gross - self.of_rounded_up(gross) < net {
            gross = gross.checked_add(1)?;
        }
        Some(gross)
    }

    /// Computes the tax that a gross amount includes, if the tax was added to the net amount at this rate. The result
    /// is rounded half up.
    pub fn within(self, amount: i64) -> i64 {
        share(amount, self.0, WHOLE + self.0)
    }

    /// Whether the rate is at most 100%.
    pub const fn is_share(self) -> bool {
        self.0 <= WHOLE
    }

    /// The rate as a percentage without trailing zeros, such as `12.5`.
    pub fn percent(self) -> String {
        let text = format!("{}.{:02}", self.0 / 100, self.0 % 100);
        text.trim_end_matches('0').trim_end_matches('.').to_owned()
    }
}

impl FromStr for Rate {
    type Err = InvalidRate;

    /// Parses a percentage.
    fn from_str(text: &str) -> Result<Self, InvalidRate> {
        let (whole, fraction) = text.split_once('.').unwrap_or((text, "0"));
        let is_digits = |part: &str| !part.is_empty() && part.bytes().all(|b| b.is_ascii_digit());
        if !is_digits(whole) || !is_digits(fraction) || fraction.len() > 2 || whole.len() > 4 {
            return Err(InvalidRate);
        }
        let hundredths = format!("{whole}{fraction:0<2}").parse().ok();
        hundredths.filter(|rate| *rate <= RATE_MAX).map(Self).ok_or(InvalidRate)
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

    #[test]
    fn a_rate_is_a_percentage() {
        for (text, hundredths) in [("0", 0), ("19", 1900), ("12.5", 1250), ("8.25", 825)] {
            let rate: Rate = text.parse().unwrap();
            assert_eq!((rate.0, rate.percent().as_str()), (hundredths, text));
        }
        for text in ["", "-1", "1.234", "1,5", "1e2", "1001", ".5", "5.", "99999"] {
            assert!(text.parse::<Rate>().is_err(), "{text}");
        }
    }
}
