//! What people tell about themselves, and what is wrong with it.

use serde::Deserialize;
use utoipa::ToSchema;

use crate::error::{Error, Result};
use crate::http::extract::{RawField, Validator};
use crate::http::fields::text;
use crate::secret::Secret;
use crate::users::{Profile, ProfileChanges};

/// Longest e-mail address, as RFC 5321 has it.
const EMAIL_MAX: usize = 254;

/// Longest first or last name, in characters.
const NAME_MAX: usize = 100;

/// Longest password that is looked at at all.
const PASSWORD_MAX: usize = 1_000;

#[derive(Deserialize, ToSchema)]
#[schema(as = ProfileChange)]
#[serde(rename_all = "camelCase")]
pub(super) struct ProfileBody<'a> {
    /// 3 to 32 letters, digits, `_`, `-` or `.`.
    #[serde(borrow, default)]
    #[schema(value_type = Option<String>, example = "ada")]
    username: RawField<'a>,
    #[serde(borrow, default)]
    #[schema(value_type = Option<String>, example = "ada@example.com")]
    email: RawField<'a>,
    /// 8 to 128 characters, and none of those that are tried first.
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

/// What a way to register asks for besides an address and a password.
pub(super) struct RequiredFields {
    pub(super) username: bool,
    /// The youngest that may; then the names are asked for too.
    pub(super) age: Option<i16>,
}

/// A whole profile.
pub(super) struct Given {
    pub(super) profile: Profile,
    pub(super) password: Secret,
}

impl ProfileBody<'_> {
    pub(super) fn whole(&self, required: &RequiredFields) -> Result<Given> {
        let mut check = Validator::default();
        let username = if required.username {
            check.required("/username", &self.username, username)
        } else {
            check.optional("/username", &self.username, username)
        };
        let email = check.required("/email", &self.email, email);
        let password = check.required("/password", &self.password, password);
        let name = |raw: &str| text(raw, NAME_MAX);
        let (first_name, last_name, age) = match required.age {
            Some(least) => (
                check.required("/firstName", &self.first_name, name),
                check.required("/lastName", &self.last_name, name),
                check.required("/age", &self.age, |raw| age(raw, least)),
            ),
            None => (
                check.optional("/firstName", &self.first_name, name),
                check.optional("/lastName", &self.last_name, name),
                check.optional("/age", &self.age, |raw| age(raw, 0)),
            ),
        };
        let (email, password) = check.finish(email.zip(password))?;
        Ok(Given { profile: Profile { username, email, first_name, last_name, age }, password })
    }

    /// What is to be told otherwise; at least of this age.
    pub(super) fn changes(&self, least: i16) -> Result<ProfileChanges> {
        let mut check = Validator::default();
        let name = |raw: &str| text(raw, NAME_MAX);
        let changes = ProfileChanges {
            username: check.optional("/username", &self.username, username),
            email: check.optional("/email", &self.email, email),
            first_name: check.optional("/firstName", &self.first_name, name),
            last_name: check.optional("/lastName", &self.last_name, name),
            age: check.optional("/age", &self.age, |raw| age(raw, least)),
            password: check.optional("/password", &self.password, password),
        };
        check.finish(Some(changes))
    }
}

/// What is wrong with a profile is answered 400 by the contract of these routes.
pub(super) fn as_profile(error: Error) -> Error {
    match error {
        Error::Invalid(fields) => Error::InvalidProfile(fields),
        other => other,
    }
}

fn username(raw: &str) -> Result<String, String> {
    let wrong = "must have 3 to 32 letters, digits, `_`, `-` or `.`";
    let name = text(raw, 32).map_err(|_| wrong)?;
    let plain = name.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"_-.".contains(&byte));
    if plain && name.len() >= 3 { Ok(name) } else { Err(wrong.to_owned()) }
}

fn email(raw: &str) -> Result<String, String> {
    let address = text(raw, EMAIL_MAX)?;
    let address = address.trim();
    let sane = |part: &str| {
        !part.is_empty()
            && !part.contains(|c: char| {
                c.is_whitespace() || c.is_control() || "@<>,;:\"()[]\\".contains(c)
            })
    };
    match address.rsplit_once('@') {
        Some((local, domain)) if sane(local) && sane(domain) && is_domain(domain) => {
            Ok(address.to_owned())
        }
        _ => Err("must be an e-mail address".to_owned()),
    }
}

/// At least two parts, none of them empty.
fn is_domain(text: &str) -> bool {
    text.split('.').count() >= 2 && text.split('.').all(|part| !part.is_empty())
}

/// What it is worth is looked at where the names are known.
fn password(raw: &str) -> Result<Secret, String> {
    text(raw, PASSWORD_MAX).map(Secret::from)
}

fn age(raw: &str, least: i16) -> Result<i16, String> {
    let age = raw.parse::<i16>().ok().filter(|age| (0..=150).contains(age));
    let age = age.ok_or("must be a whole number of years")?;
    if age < least { Err(format!("must be at least {least}")) } else { Ok(age) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_are_told_from_what_is_none() {
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
    fn user_names_cannot_be_taken_for_addresses() {
        assert!(username("\"ada_1.x-y\"").is_ok());
        for text in ["ab", "a@b", "ada lovelace", "ädä"] {
            assert!(username(&format!("{text:?}")).is_err(), "{text}");
        }
    }
}
