//! Password policy: refuses the passwords that attackers try first.

use std::sync::LazyLock;

/// Minimum and maximum length of a password, in characters.
const LENGTH_MIN: usize = 8;
const LENGTH_MAX: usize = 128;

/// Words that make up common passwords, sorted and in lower case.
const WORDS: &str = include_str!("common_passwords.txt");

/// Maximum number of words and sequences (such as `qwerty`) in a common password. A password with more words and
/// sequences counts as uncommon. Digits and symbols are ignored.
const PARTS_MAX: usize = 2;

/// Minimum length, in characters, of a password that is a number or a date.
const NUMBER_MIN: usize = 12;

/// Length to which many systems truncate passwords, in characters. A word that is truncated to this length counts as a
/// common word.
const CUT_LENGTH: usize = 8;

/// Minimum length, in characters, of a word or sequence (such as `qwerty`) that is recognized in a password.
const SEQUENCE_MIN: usize = 3;

/// Sequences of keys and letters that are easy to guess. Each part of a sequence is recognized, forward and backward.
const ROWS: &[&str] = &[
    "01234567890123456789",
    "abcdefghijklmnopqrstuvwxyz",
    "qwertyuiopasdfghjklzxcvbnm",
    "1qaz2wsx3edc4rfv5tgb6yhn7ujm8ik9ol0p",
    "zaq12wsxcde34rfvbgt56yhnmju78ik",
    "zaq1xsw2cde3vfr4bgt5nhy6mju7",
    "qazwsxedcrfvtgbyhnujmikolp",
    "qawsedrftgyhujikolp",
    "1q2w3e4r5t6y7u8i9o0p",
    "q1w2e3r4t5y6u7i8o9p0",
    "a1b2c3d4e5f6g7h8i9j0",
    "1a2b3c4d5e6f7g8h9i0j",
    "14725836901472583690",
    "78945612307894561230",
    "75315982465432112332112345678900987654321",
];

/// Rule that decides which passwords are accepted.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
pub enum PasswordPolicy {
    /// Any password of 8 to 128 characters.
    Length,
    /// Passwords that are neither common nor a name of the user.
    Uncommon,
}

/// Checks a password against the policy. Returns the reason as an error if the password is refused. `names` are the
/// names of the user.
pub(super) fn refuse(password: &str, names: &[&str], policy: PasswordPolicy) -> Result<(), String> {
    let length = password.chars().count();
    if !(LENGTH_MIN..=LENGTH_MAX).contains(&length) {
        return Err(format!("must have {LENGTH_MIN} to {LENGTH_MAX} characters"));
    }
    if policy == PasswordPolicy::Length {
        return Ok(());
    }
    if is_common(password) {
        return Err(
            "is among the first passwords that an attacker tries; use several words".to_owned()
        );
    }
    let plain = password.to_lowercase();
    if names.iter().any(|name| name.len() >= 3 && bare(&plain) == bare(&name.to_lowercase())) {
        return Err("must not be the user's name".to_owned());
    }
    Ok(())
}

fn is_common(password: &str) -> bool {
    let plain: Vec<char> = password.to_lowercase().chars().collect();
    let spelled: Vec<char> = plain.iter().copied().map(plain_letter).collect();
    is_number(&plain) || is_repeated(&plain) || is_composed(&plain) || is_composed(&spelled)
}

/// Whether a text is shorter than [`NUMBER_MIN`], and consists of digits and at most one other character, or of digits
/// and repetitions of one separator, like a date.
fn is_number(text: &[char]) -> bool {
    let others: Vec<char> = text.iter().copied().filter(|c| !c.is_ascii_digit()).collect();
    let is_separated = others.iter().all(|c| *c == others[0] && !c.is_alphabetic());
    text.len() < NUMBER_MIN && (others.len() <= 1 || is_separated)
}

/// Whether a text consists of at most [`PARTS_MAX`] common words and sequences (such as `qwerty`). Digits and symbols
/// around and between words are ignored.
fn is_composed(text: &[char]) -> bool {
    let has_letters = text.iter().any(|c| c.is_alphabetic());
    // The minimum number of words and sequences that make up each prefix of the text.
    let mut parts = vec![usize::MAX; text.len() + 1];
    parts[0] = 0;
    for end in 1..=text.len() {
        if has_letters && !text[end - 1].is_alphabetic() {
            parts[end] = parts[end - 1];
        }
        for start in 0..end.saturating_sub(SEQUENCE_MIN - 1) {
            if parts[start] < PARTS_MAX && is_part(&text[start..end]) {
                parts[end] = parts[end].min(parts[start] + 1);
            }
        }
    }
    parts[text.len()] <= PARTS_MAX
}

fn is_part(text: &[char]) -> bool {
    let word: String = text.iter().collect();
    is_word(&word) || is_walked(&word) || is_repeated(text)
}

fn is_word(text: &str) -> bool {
    static SORTED: LazyLock<Vec<&str>> = LazyLock::new(|| WORDS.lines().collect());
    match SORTED.binary_search(&text) {
        Ok(_) => true,
        Err(next) => {
            text.len() == CUT_LENGTH && SORTED.get(next).is_some_and(|word| word.starts_with(text))
        }
    }
}

/// Returns a text without the digits and symbols at its beginning and end.
fn bare(text: &str) -> &str {
    let trimmed = text.trim_matches(|c: char| !c.is_alphabetic());
    if trimmed.is_empty() { text } else { trimmed }
}

/// Returns the letter that a digit or a symbol often replaces in passwords, such as `a` for `@`.
fn plain_letter(c: char) -> char {
    match c {
        '0' => 'o',
        '1' | '!' => 'i',
        '3' => 'e',
        '4' | '@' => 'a',
        '5' | '$' => 's',
        '7' => 't',
        other => other,
    }
}

/// Whether a text is a repetition of its beginning, such as `abcabcab`.
fn is_repeated(text: &[char]) -> bool {
    (1..=text.len() / 2)
        .any(|period| text.iter().zip(text.iter().skip(period)).all(|(left, right)| left == right))
}

/// Whether a text is part of a sequence in [`ROWS`], forward or backward.
fn is_walked(text: &str) -> bool {
    let backwards: String = text.chars().rev().collect();
    ROWS.iter().any(|row| row.contains(text) || row.contains(&backwards))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_tried_first_is_refused() {
        for text in [
            "password",
            "Password1!",
            "P@ssw0rd",
            "12345678",
            "987654321",
            "qwertyuiop",
            "aaaaaaaa",
            "abcabcabc",
            "Football2024",
            "letmein!!!",
            "1qaz2wsx",
            "!!qwerty123",
            "00000000",
            "zyxwvuts",
            "iloveyou",
            "corvette",
            "midnight",
            "1q2w3e4r",
            "zaq12wsx",
            "abc12345",
            "love1234!",
            "testtest",
            "blue_dragon7",
            "qwer4321",
            "Pr1ncess.99",
            "alexande",
            "31121999",
            "31.12.1999",
            "1999-12-31",
            "123456789a",
        ] {
            assert!(refuse(text, &[], PasswordPolicy::Uncommon).is_err(), "{text}");
        }
    }

    #[test]
    fn others_are_taken() {
        for text in [
            "correct horse battery",
            "tr0mbone-7!x",
            "пароль на двери",
            "aB3$kk2m",
            "passwords are a pain",
            "blue dragon eats corvettes",
            "kqzvw137",
            "938471650284",
        ] {
            assert_eq!(refuse(text, &["ada"], PasswordPolicy::Uncommon), Ok(()), "{text}");
        }
    }

    #[test]
    fn the_words_are_sorted() {
        assert!(WORDS.lines().is_sorted_by(|one, other| one < other));
    }

    #[test]
    fn length_and_names_count() {
        assert!(refuse("kR8!x2b", &[], PasswordPolicy::Length).is_err());
        assert!(refuse(&"xy9 ".repeat(33), &[], PasswordPolicy::Length).is_err());
        assert!(refuse("Lovelace1815", &["lovelace"], PasswordPolicy::Uncommon).is_err());
    }
}
