//! Currencies, each with its code and its number of decimals.

use std::collections::HashMap;
use std::fmt;
use std::str::FromStr;

/// Longest currency code, in characters. The id of a system account contains the code as a number, and the limit keeps
/// these ids above -2^40.
pub const CODE_LEN_MAX: usize = 6;

/// Maximum number of decimals of a currency: with 18, an `i64` still has room for nine whole units.
pub const DECIMALS_MAX: u8 = 18;

/// Codes of the ISO 4217 currencies, grouped by number of decimals.
const ISO_0: &str = "BIF CLP DJF GNF ISK JPY KMF KRW PYG RWF UGX UYI VND VUV XAF XOF XPF";
const ISO_3: &str = "BHD IQD JOD KWD LYD OMR TND";
const ISO_4: &str = "CLF UYW";
const ISO_2: &str = "AED AFN ALL AMD ANG AOA ARS AUD AWG AZN BAM BBD BDT BGN BMD BND BOB BOV BRL BSD \
    BTN BWP BYN BZD CAD CDF CHE CHF CHW CNY COP COU CRC CUP CVE CZK DKK DOP DZD EGP ERN ETB EUR FJD \
    FKP GBP GEL GHS GIP GMD GTQ GYD HKD HNL HTG HUF IDR ILS INR IRR JMD KES KGS KHR KPW KYD KZT LAK \
    LBP LKR LRD LSL MAD MDL MGA MKD MMK MNT MOP MRU MUR MVR MWK MXN MXV MYR MZN NAD NGN NIO NOK NPR \
    NZD PAB PEN PGK PHP PKR PLN QAR RON RSD RUB SAR SBD SCR SDG SEK SGD SHP SLE SOS SRD SSP STN SVC \
    SYP SZL THB TJS TMT TOP TRY TTD TWD TZS UAH USD USN UYU UZS VED VES WST XCD XCG YER ZAR ZMW ZWG";
const CRYPTO: [(&str, u8); 4] = [("BTC", 8), ("ETH", 8), ("USDC", 6), ("USDT", 6)];

/// A currency: its code and its number of decimals. Small enough to be passed by value.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Currency {
    /// Characters of the code, padded with zero bytes.
    code: [u8; CODE_LEN_MAX],
    decimals: u8,
}

/// Reason why a currency is rejected.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum CurrencyError {
    #[error("a currency code has 2 to 6 capital letters or digits")]
    Code,
    #[error("a currency has 0 to 18 decimals")]
    Decimals,
    #[error("write a currency as CODE:DECIMALS, such as POINTS:0")]
    Form,
    #[error("this currency already exists with a different number of decimals")]
    Taken,
}

impl Currency {
    /// Creates a currency. Checks only that the code and decimals are well-formed, not that the program supports the
    /// currency.
    pub fn new(code: &str, decimals: u8) -> Result<Self, CurrencyError> {
        let bytes = code.as_bytes();
        let is_code_char = |b: &u8| b.is_ascii_uppercase() || b.is_ascii_digit();
        if !(2..=CODE_LEN_MAX).contains(&bytes.len()) || !bytes.iter().all(is_code_char) {
            return Err(CurrencyError::Code);
        }
        if decimals > DECIMALS_MAX {
            return Err(CurrencyError::Decimals);
        }
        let mut padded = [0; CODE_LEN_MAX];
        padded[..bytes.len()].copy_from_slice(bytes);
        Ok(Self { code: padded, decimals })
    }

    /// The code, such as `EUR`.
    pub fn code(&self) -> &str {
        let len = self.code.iter().position(|b| *b == 0).unwrap_or(CODE_LEN_MAX);
        std::str::from_utf8(&self.code[..len])
            .expect("the constructor accepts only capitals and digits")
    }

    /// Number of decimals in amounts of this currency.
    pub const fn decimals(self) -> u8 {
        self.decimals
    }

    /// The code as a number, which is unique for each code and fits into 32 bits.
    pub(super) fn number(self) -> u32 {
        self.code.iter().fold(0, |number, byte| {
            let digit = match byte {
                b'0'..=b'9' => byte - b'0' + 1,
                b'A'..=b'Z' => byte - b'A' + 11,
                _ => 0,
            };
            number * 37 + u32::from(digit)
        })
    }
}

impl fmt::Debug for Currency {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}", self.code(), self.decimals)
    }
}

impl fmt::Display for Currency {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.code())
    }
}

impl FromStr for Currency {
    type Err = CurrencyError;

    /// Parses `CODE:DECIMALS`, the form of the setting `--currency`.
    fn from_str(text: &str) -> Result<Self, CurrencyError> {
        let (code, decimals) = text.split_once(':').ok_or(CurrencyError::Form)?;
        Self::new(code, decimals.parse().map_err(|_| CurrencyError::Form)?)
    }
}

/// The currencies that the program accepts.
#[derive(Debug, Clone)]
pub struct Currencies(HashMap<u32, Currency>);

impl Currencies {
    /// Returns the currencies of ISO 4217, four cryptocurrencies, and the currencies that the settings add.
    pub fn with_added(added: &[Currency]) -> Result<Self, CurrencyError> {
        let iso = [(ISO_0, 0), (ISO_2, 2), (ISO_3, 3), (ISO_4, 4)];
        let listed = iso
            .into_iter()
            .flat_map(|(codes, n)| codes.split_whitespace().map(move |code| (code, n)));
        let mut all = HashMap::new();
        for (code, decimals) in listed.chain(CRYPTO) {
            let currency = Currency::new(code, decimals)?;
            all.insert(currency.number(), currency);
        }
        for currency in added {
            // Amounts are stored in minor units, so a different number of decimals would change the value of every
            // balance.
            if all.insert(currency.number(), *currency).is_some_and(|old| old != *currency) {
                return Err(CurrencyError::Taken);
            }
        }
        Ok(Self(all))
    }

    /// The currency with this code.
    pub fn find(&self, code: &str) -> Option<Currency> {
        self.find_by_number(Currency::new(code, 0).ok()?.number())
    }

    /// The currency with this code, or the error text for a request that names an unsupported currency.
    pub fn supported(&self, code: &str) -> Result<Currency, String> {
        self.find(code).ok_or_else(|| "is not a supported currency".to_owned())
    }

    /// The currency whose code, as a number, is `number`.
    pub(super) fn find_by_number(&self, number: u32) -> Option<Currency> {
        self.0.get(&number).copied()
    }

    /// Extracts the text of an amount from its JSON, which may be a number or a string.
    pub fn amount_text(raw: &str) -> Result<&str, String> {
        let quoted = raw.strip_prefix('"').and_then(|rest| rest.strip_suffix('"'));
        let inside = quoted.map_or(Ok(raw), Self::written_amount)?;
        let starts = inside.bytes().next().is_some_and(|byte| {
            byte.is_ascii_digit() || byte == b'-' || byte == b'+' || byte == b'.'
        });
        if starts { Ok(inside) } else { Err("must be a decimal number".to_owned()) }
    }

    /// Returns an amount that was written as a JSON string, or an error if it has an exponent. JSON numbers may have an
    /// exponent, but in a string it is more likely a mistake.
    pub fn written_amount(text: &str) -> Result<&str, String> {
        if text.contains(['e', 'E']) {
            return Err("must be a decimal number without an exponent".to_owned());
        }
        Ok(text)
    }

    /// Returns all currencies, sorted by code.
    pub fn all(&self) -> Vec<Currency> {
        let mut all: Vec<_> = self.0.values().copied().collect();
        all.sort_unstable();
        all
    }
}

impl Default for Currencies {
    fn default() -> Self {
        Self::with_added(&[]).expect("the built-in table has no duplicates")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn decimals_match_iso_4217() {
        let all = Currencies::default();

        let decimals_of = |code| all.find(code).map(Currency::decimals);

        assert_eq!(decimals_of("EUR"), Some(2));
        assert_eq!(decimals_of("JPY"), Some(0));
        assert_eq!(decimals_of("KWD"), Some(3));
        assert_eq!(decimals_of("CLF"), Some(4));
        assert_eq!(decimals_of("BTC"), Some(8));
        assert_eq!(decimals_of("USDT"), Some(6));
        assert_eq!(decimals_of("eur"), None);
        assert_eq!(decimals_of("EURO"), None);
        assert_eq!(decimals_of("TOOLONGCODE"), None);
        assert_eq!(decimals_of(""), None);
    }

    #[test]
    fn a_setting_adds_a_currency_but_cannot_change_a_known_one() {
        let points: Currency = "POINTS:0".parse().unwrap();
        let all = Currencies::with_added(&[points]).unwrap();

        assert_eq!(all.find("POINTS"), Some(points));
        assert_eq!(
            Currencies::with_added(&["EUR:3".parse().unwrap()]).unwrap_err(),
            CurrencyError::Taken
        );
        assert_eq!("eur:2".parse::<Currency>(), Err(CurrencyError::Code));
        assert_eq!("ABCDEFG:2".parse::<Currency>(), Err(CurrencyError::Code));
        assert_eq!("ABC:19".parse::<Currency>(), Err(CurrencyError::Decimals));
        assert_eq!("ABC".parse::<Currency>(), Err(CurrencyError::Form));
    }

    #[test]
    fn numbers_of_different_codes_differ() {
        let all = Currencies::default().all();
        let mut numbers: Vec<_> = all.iter().map(|c| c.number()).collect();
        numbers.sort_unstable();
        numbers.dedup();

        assert_eq!(numbers.len(), all.len());
        assert!(u64::from(Currency::new("ZZZZZZ", 0).unwrap().number()) < 37u64.pow(6));
    }
}
