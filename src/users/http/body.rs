//! Request bodies that contain the profile of a user, and their validation.

use serde::Deserialize;
use utoipa::ToSchema;

use crate::error::{Error, Result};
use crate::http::extract::{RawField, Validator};
use crate::http::fields::text;
use crate::secret::Secret;
use crate::users::{Profile, ProfileChanges, names};

/// Longest e-mail address, according to RFC 5321.
const EMAIL_MAX: usize = 254;

/// Longest first or last name, in characters.
const NAME_MAX: usize = 100;

/// Longest password that a request may contain, in characters. The password policy, which has a lower limit, is checked
/// later.
const PASSWORD_MAX: usize = 1_000;

#[derive(Deserialize, ToSchema)]
#[schema(as = ProfileChange)]
#[serde(rename_all = "camelCase")]
pub(crate) struct ProfileBody<'a> {
    /// User name of 3 to 32 letters, digits, `_`, `-` or `.`.
    #[serde(borrow, default)]
    #[schema(value_type = Option<String>, example = "ada")]
    username: RawField<'a>,
    #[serde(borrow, default)]
    #[schema(value_type = Option<String>, example = "ada@example.com")]
    email: RawField<'a>,
    /// Password of 8 to 128 characters. Depending on its settings, the server refuses common passwords.
    #[serde(borrow, default)]
    #[schema(value_type = Option<String>, example = "correct horse battery")]
    password: RawField<'a>,
    #[serde(borrow, default, alias = "first_name")]
    #[schema(value_type = Option<String>, example = "Ada")]
    first_name: RawField<'a>,
    #[serde(borrow, default, alias = "last_name")]
    #[schema(value_type = Option<String>, example = "Lovelace")]
    last_name: RawField<'a>,
    #[serde(borrow, default)]
    #[schema(value_type = Option<u8>, example = 36)]
    age: RawField<'a>,
}

/// Fields that a registration requires in addition to an e-mail address: a user name and a password, or names and an
/// age.
pub(crate) enum RequiredFields {
    Username,
    /// First name, last name, and an age of at least the given number of years. The access policy decides later whether
    /// a password is required.
    NamesAndAge(i16),
}

/// A valid registration.
pub(crate) struct NewUser {
    pub(crate) profile: Profile,
    /// Password of the user; may be absent only with [`RequiredFields::NamesAndAge`].
    pub(crate) password: Option<Secret>,
}

impl ProfileBody<'_> {
    /// Validates the body of a registration.
    pub(crate) fn new_user(&self, required: &RequiredFields) -> Result<NewUser> {
        let mut validator = Validator::default();
        let username = match required {
            RequiredFields::Username => validator.required("/username", &self.username, username),
            RequiredFields::NamesAndAge(_) => {
                validator.optional("/username", &self.username, username)
            }
        };
        let email = validator.required("/email", &self.email, email);
        let password = match required {
            RequiredFields::Username => validator.required("/password", &self.password, password),
            RequiredFields::NamesAndAge(_) => {
                validator.optional("/password", &self.password, password)
            }
        };
        let (first_name, last_name, age) = match *required {
            RequiredFields::Username => (
                validator.optional("/firstName", &self.first_name, name),
                validator.optional("/lastName", &self.last_name, name),
                validator.optional("/age", &self.age, |raw| age(raw, 0)),
            ),
            RequiredFields::NamesAndAge(age_min) => (
                validator.required("/firstName", &self.first_name, name),
                validator.required("/lastName", &self.last_name, name),
                validator.required("/age", &self.age, |raw| age(raw, age_min)),
            ),
        };
        let email = validator.finish(email)?;
        Ok(NewUser { profile: Profile { username, email, first_name, last_name, age }, password })
    }

    /// Validates the body of an update. If the body contains an age, the age must be at least `age_min`.
    pub(super) fn changes(&self, age_min: i16) -> Result<ProfileChanges> {
        let mut validator = Validator::default();
        let changes = ProfileChanges {
            username: validator.optional("/username", &self.username, username),
            email: validator.optional("/email", &self.email, email),
            first_name: validator.optional("/firstName", &self.first_name, name),
            last_name: validator.optional("/lastName", &self.last_name, name),
            age: validator.optional("/age", &self.age, |raw| age(raw, age_min)),
            password: validator.optional("/password", &self.password, password),
        };
        validator.finish(Some(changes))
    }
}

/// Converts field errors into the problem `invalid-profile` with status 400, which existing clients of these routes
/// expect.
pub(super) fn into_profile_error(error: Error) -> Error {
    match error {
        Error::Invalid(fields) => Error::InvalidProfile(fields),
        other => other,
    }
}

fn username(raw: &str) -> Result<String, String> {
    let wrong = "must have 3 to 32 letters, digits, `_`, `-` or `.`";
    let name = names::normalized(&text(raw, 128).map_err(|_| wrong)?).map_err(|_| wrong)?;
    let plain = name.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"_-.".contains(&byte));
    if !plain || !(3..=32).contains(&name.len()) {
        return Err(wrong.to_owned());
    }
    if names::is_reserved(&name) {
        return Err("is reserved".to_owned());
    }
    Ok(name)
}

/// Parses a first or last name.
fn name(raw: &str) -> Result<String, String> {
    let name = names::normalized(&text(raw, NAME_MAX)?)?;
    // Normalization can lengthen a name or leave it empty, so the length is checked again.
    if (1..=NAME_MAX).contains(&name.chars().count()) {
        Ok(name)
    } else {
        Err(format!("must have 1 to {NAME_MAX} characters"))
    }
}

fn email(raw: &str) -> Result<String, String> {
    let address = names::normalized_email(&text(raw, EMAIL_MAX)?)?;
    let address = address.as_str();
    if address.chars().count() > EMAIL_MAX {
        return Err(format!("must have 1 to {EMAIL_MAX} characters"));
    }
    let is_valid_part = |part: &str| {
        !part.is_empty()
            && !part.contains(|c: char| {
                c.is_whitespace() || c.is_control() || "@<>,;:\"()[]\\".contains(c)
            })
    };
    match address.rsplit_once('@') {
        Some((local, domain))
            if is_valid_part(local) && is_valid_part(domain) && is_domain(domain) =>
        {
            Ok(address.to_owned())
        }
        _ => Err("must be an e-mail address".to_owned()),
    }
}

/// Whether a text has the form of a domain name: at least two labels separated by dots, none of them empty.
fn is_domain(text: &str) -> bool {
    text.split('.').count() >= 2 && text.split('.').all(|part| !part.is_empty())
}

/// Parses a password. The password policy is checked later, because the check needs the names of the user.
fn password(raw: &str) -> Result<Secret, String> {
    text(raw, PASSWORD_MAX).map(Secret::from)
}

fn age(raw: &str, age_min: i16) -> Result<i16, String> {
    let age = raw.parse::<i16>().ok().filter(|age| (0..=150).contains(age));
    let age = age.ok_or("must be a whole number of years")?;
    if age < age_min { Err(format!("must be at least {age_min}")) } else { Ok(age) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_email_addresses_are_accepted() {
        for text in ["ada@example.com", "a.b+c@sub.example.co", "ü@example.org"] {
            assert!(email(&format!("{text:?}")).is_ok(), "{text}");
        }
        for text in [
            "",
            "ada",
            "@example.com",
            "ada@",
            "a b@example.com",
            "ada@example",
            "a@b@example.com",
            "ada@.com",
        ] {
            assert!(email(&format!("{text:?}")).is_err(), "{text}");
        }
    }

    #[test]
    fn user_names_cannot_look_like_email_addresses() {
        assert!(username("\"ada_1.x-y\"").is_ok());
        for text in ["ab", "a@b", "ada lovelace", "ädä"] {
            assert!(username(&format!("{text:?}")).is_err(), "{text}");
        }
    }

    #[test]
    fn names_are_normalized_and_reserved_names_refused() {
        assert_eq!(username("\"\u{ff41}da\"").as_deref(), Ok("ada"));
        assert_eq!(email("\" \u{ff41}da@example.com \"").as_deref(), Ok("ada@example.com"));
        assert_eq!(email("\"\u{dc}@Example.org\"").as_deref(), Ok("\u{fc}@Example.org"));
        assert_eq!(name("\"Zoe\u{308}\"").as_deref(), Ok("Zo\u{eb}"));
        for reserved in
            ["admin", "ADMIN", "\u{ff21}dmin", "Root", "rev-wallet", "support", "o.p.e.r.a.t.o.r"]
        {
            assert_eq!(username(&format!("\"{reserved}\"")), Err("is reserved".to_owned()));
        }
    }

    #[test]
    fn characters_that_deceive_a_reader_are_refused() {
        for hidden in [
            '\u{202e}',
            '\u{2066}',
            '\u{200b}',
            '\u{200f}',
            '\u{feff}',
            '\u{7}',
            '\u{ad}',
            '\u{e0041}',
        ] {
            let raw = |text: String| serde_json::to_string(&text).expect("a string");
            assert!(email(&raw(format!("a{hidden}b@example.com"))).is_err(), "{hidden:?}");
            assert!(name(&raw(format!("a{hidden}b"))).is_err(), "{hidden:?}");
            assert!(username(&raw(format!("ada{hidden}"))).is_err(), "{hidden:?}");
        }
    }
}
