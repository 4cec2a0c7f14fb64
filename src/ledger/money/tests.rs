//! Tests of valid and invalid amounts, and of the lossless conversion between decimals and minor units.

use proptest::prelude::*;

use super::*;

fn currency(decimals: u8) -> Currency {
    Currency::new("XYZ", decimals).unwrap()
}

fn amount(text: &str) -> Result<i64, AmountError> {
    Minor::parse_amount(text, currency(2)).map(|minor| minor.0)
}

#[test]
fn an_amount_is_a_json_number_with_at_most_the_decimals_of_its_currency() {
    assert_eq!(amount("999"), Ok(99_900));
    assert_eq!(amount("999.5"), Ok(99_950));
    assert_eq!(amount("999.00"), Ok(99_900));
    assert_eq!(amount("0.01"), Ok(1));
    assert_eq!(amount("1.5e1"), Ok(1_500));
    assert_eq!(amount("1E+2"), Ok(10_000));
    assert_eq!(amount("1e-2"), Ok(1));
    assert_eq!(amount("92233720368547758.07"), Ok(i64::MAX));
}

#[test]
fn each_invalid_amount_is_rejected_with_its_reason() {
    for text in [
        "", "-", ".", ".5", "5.", "1.e1", "01", "00.1", "+1", "1,5", "1_0", "NaN", "inf",
        "Infinity", "1e", "1e+", "0x1", " 1", "1 ", "1.5.1", "1e1.5", "١", "--1", "1e1e1",
    ] {
        assert_eq!(amount(text), Err(AmountError::NotANumber), "{text:?}");
    }
    for text in ["0.001", "1.000", "15e-3", "0.00000000000000000000000000000001", "1e-999999999999"]
    {
        assert_eq!(amount(text), Err(AmountError::TooManyDecimals(2)), "{text:?}");
    }
    for text in ["0", "0.0", "0.00", "-0", "-0.00", "0e5", "0e999999"] {
        assert_eq!(amount(text), Err(AmountError::Zero), "{text:?}");
    }
    for text in ["-1", "-0.01", "-1e2", "-0.001", "-1e400", "-99999999999999999999"] {
        assert_eq!(amount(text), Err(AmountError::Negative), "{text:?}");
    }
    for text in
        ["92233720368547758.08", "99999999999999999999", "1e17", "1e400", "1e99999999999999999999"]
    {
        assert_eq!(amount(text), Err(AmountError::TooLarge), "{text:?}");
    }
    assert_eq!(amount(&"1".repeat(65)), Err(AmountError::NotANumber));
}

#[test]
fn an_amount_is_written_with_exactly_the_decimals_of_its_currency() {
    let write = |minor, decimals| Minor(minor).exact(currency(decimals)).to_string();

    assert_eq!(write(99_900, 2), "999.00");
    assert_eq!(write(5, 2), "0.05");
    assert_eq!(write(0, 2), "0.00");
    assert_eq!(write(-5, 2), "-0.05");
    assert_eq!(write(1_234, 0), "1234");
    assert_eq!(write(0, 0), "0");
    assert_eq!(write(1, 8), "0.00000001");
    assert_eq!(write(i64::MIN, 18), "-9.223372036854775808");
    assert_eq!(write(i64::MAX, 0), "9223372036854775807");
}

proptest! {
    #[test]
    fn written_amounts_parse_back_to_the_same_value(minor: i64, decimals in 0u8..=18) {
        prop_assume!(minor != i64::MIN);
        let currency = currency(decimals);

        let text = Minor(minor).exact(currency).to_string();

        prop_assert_eq!(Minor::parse_signed(&text, currency), Ok(Minor(minor)));
        prop_assert_eq!(Minor(minor).to_decimal(currency).to_string(), text);
        prop_assert_eq!(Minor::from_decimal(Minor(minor).to_decimal(currency), currency), Ok(Minor(minor)));
    }

    #[test]
    fn parsing_agrees_with_an_exact_decimal(text in "-?(0|[1-9][0-9]{0,9})(\\.[0-9]{1,6})?([eE][+-]?[0-9])?", decimals in 0u8..=8) {
        let currency = currency(decimals);

        let ours = Minor::parse_signed(&text, currency);

        let exact = if text.contains(['e', 'E']) { Decimal::from_scientific(&text) } else { Decimal::from_str_exact(&text) };
        if let (Ok(minor), Ok(exact)) = (ours, exact) {
            prop_assert_eq!(minor.to_decimal(currency), exact);
        }
    }

    #[test]
    fn no_text_makes_the_parser_panic(text in ".{0,70}", decimals in 0u8..=18) {
        let _answer = Minor::parse_amount(&text, currency(decimals));
    }
}
