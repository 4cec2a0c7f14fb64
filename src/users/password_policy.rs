//! Password policy: refuses the passwords that attackers try first.

/// Fewest and most characters of a password.
const LENGTH_MIN: usize = 8;
const LENGTH_MAX: usize = 128;

/// Common passwords, without the digits and signs around them.
const WORDS: &[&str] = &[
    "abc",
    "abcd",
    "abcde",
    "abcdef",
    "abcdefgh",
    "access",
    "account",
    "admin",
    "administrator",
    "amanda",
    "andrea",
    "andrew",
    "angel",
    "anthony",
    "apple",
    "arsenal",
    "asdf",
    "asdfasdf",
    "asdfgh",
    "asdfghjk",
    "asdfghjkl",
    "ashley",
    "azerty",
    "bailey",
    "banana",
    "barcelona",
    "baseball",
    "basketball",
    "batman",
    "bitcoin",
    "blink",
    "buster",
    "butterfly",
    "changeit",
    "changeme",
    "charlie",
    "cheese",
    "chelsea",
    "chicken",
    "chocolate",
    "computer",
    "cookie",
    "crypto",
    "daniel",
    "default",
    "dragon",
    "eminem",
    "flower",
    "football",
    "freedom",
    "friends",
    "fuckyou",
    "fuckyou",
    "ginger",
    "google",
    "guest",
    "hallo",
    "hannah",
    "harley",
    "hello",
    "helloworld",
    "hockey",
    "hunter",
    "hunter2",
    "iloveyou",
    "internet",
    "jasmine",
    "jennifer",
    "jessica",
    "jordan",
    "joshua",
    "justin",
    "killer",
    "king",
    "letmein",
    "liverpool",
    "login",
    "london",
    "love",
    "lovely",
    "loveme",
    "maggie",
    "manager",
    "marina",
    "martin",
    "master",
    "matrix",
    "matthew",
    "maverick",
    "merlin",
    "michael",
    "michelle",
    "minecraft",
    "money",
    "monkey",
    "mustang",
    "naruto",
    "nicole",
    "nothing",
    "orange",
    "passpass",
    "passphrase",
    "passw",
    "passw0rd",
    "password",
    "passwort",
    "pepper",
    "player",
    "pokemon",
    "princess",
    "private",
    "purple",
    "qazwsx",
    "qazwsxedc",
    "qwer",
    "qwert",
    "qwerty",
    "qwertyui",
    "qwertyuiop",
    "qwertz",
    "qwertzui",
    "rainbow",
    "ranger",
    "robert",
    "root",
    "samantha",
    "samsung",
    "secret",
    "shadow",
    "silver",
    "soccer",
    "starwars",
    "steelers",
    "summer",
    "sunshine",
    "superman",
    "superstar",
    "swordfish",
    "taylor",
    "temp",
    "temppass",
    "tennis",
    "test",
    "tester",
    "testing",
    "testtest",
    "thomas",
    "thunder",
    "tigger",
    "topsecret",
    "trustno",
    "user",
    "username",
    "wallet",
    "welcome",
    "whatever",
    "william",
    "winter",
    "wordpass",
    "yankees",
    "zaq",
    "zaqwsx",
    "zxcv",
    "zxcvbn",
    "zxcvbnm",
];

/// Sequences of keys and letters, which are refused forwards and backwards.
const ROWS: &[&str] = &[
    "01234567890123456789",
    "abcdefghijklmnopqrstuvwxyz",
    "qwertyuiopasdfghjklzxcvbnm",
    "1qaz2wsx3edc4rfv5tgb6yhn",
];

/// Refuses a weak password with the reason. `names` are those of the user.
pub(super) fn refuse(password: &str, names: &[&str]) -> Result<(), String> {
    let length = password.chars().count();
    if !(LENGTH_MIN..=LENGTH_MAX).contains(&length) {
        return Err(format!("must have {LENGTH_MIN} to {LENGTH_MAX} characters"));
    }
    if is_common(password) {
        return Err("is one of those that are tried first; take several words".to_owned());
    }
    let plain = password.to_lowercase();
    if names.iter().any(|name| name.len() >= 3 && bare(&plain) == bare(&name.to_lowercase())) {
        return Err("must not be the name of its owner".to_owned());
    }
    Ok(())
}

fn is_common(password: &str) -> bool {
    let plain = password.to_lowercase();
    let bare = bare(&plain);
    let spelled: String = bare.chars().map(plain_letter).collect();
    WORDS.contains(&bare)
        || WORDS.contains(&spelled.as_str())
        || is_repeated(&plain)
        || is_walked(&plain)
}

/// A text without the digits and signs around it.
fn bare(text: &str) -> &str {
    let trimmed = text.trim_matches(|c: char| !c.is_alphabetic());
    if trimmed.is_empty() { text } else { trimmed }
}

/// The letter that a digit or a sign stands for.
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

/// Whether a text repeats one, two or three characters.
fn is_repeated(text: &str) -> bool {
    let chars: Vec<char> = text.chars().collect();
    (1..=3).any(|period| {
        chars.iter().zip(chars.iter().skip(period)).all(|(left, right)| left == right)
    })
}

/// Whether a text is a part of a sequence, forwards or backwards.
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
        ] {
            assert!(refuse(text, &[]).is_err(), "{text}");
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
        ] {
            assert_eq!(refuse(text, &["ada"]), Ok(()), "{text}");
        }
    }

    #[test]
    fn length_and_names_count() {
        assert!(refuse("kR8!x2b", &[]).is_err());
        assert!(refuse(&"xy9 ".repeat(33), &[]).is_err());
        assert!(refuse("Lovelace1815", &["lovelace"]).is_err());
    }
}
