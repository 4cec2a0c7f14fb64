//! Parser for a record of an imported file. A record can have the fields of `POST /api/games`, and fields that exist
//! only in files.

use serde::Deserialize;

use crate::error::{Error, FieldError};
use crate::games::catalog::{NewGame, PRICES_MAX};
use crate::games::http::body::{PutGame, PutPrice};
use crate::games::publisher::NAME_MAX;
use crate::http::body::BoundedList;
use crate::http::extract::{RawField, Validator};
use crate::http::fields::{id, text};
use crate::http::json;
use crate::ledger::currency::{Currencies, Currency};

/// Longest reference, in characters. A reference is the identifier of a game in the system that the imported file comes
/// from.
const REFERENCE_MAX: usize = 255;

/// A game from a valid record. The import may still refuse the game, because it looks up the publisher and the base
/// game only when it adds the batch.
#[derive(Debug)]
pub(super) struct Candidate {
    pub line: u64,
    /// Identifier of the game in the system that the file comes from.
    pub reference: Option<String>,
    /// Name of the publisher, if the record has the name instead of the id.
    pub publisher_name: Option<String>,
    /// Identifier of the base game in the system that the file comes from, if the record has this identifier instead of
    /// the catalog id.
    pub base_reference: Option<String>,
    pub game: NewGame,
}

/// The fields of a record: those of [`PutGame`], and fields that exist only in files.
#[derive(Deserialize)]
struct ImportedGame<'a> {
    #[serde(borrow, default)]
    reference: RawField<'a>,
    #[serde(borrow, default)]
    base_reference: RawField<'a>,
    #[serde(borrow, default)]
    title: RawField<'a>,
    #[serde(borrow, default)]
    genre: RawField<'a>,
    #[serde(borrow, default)]
    price: RawField<'a>,
    #[serde(borrow, default)]
    description: RawField<'a>,
    #[serde(borrow, default)]
    currency: RawField<'a>,
    #[serde(borrow)]
    prices: Option<BoundedList<PutPrice<'a>, PRICES_MAX>>,
    #[serde(borrow, default)]
    publisher: RawField<'a>,
    #[serde(borrow, default)]
    state: RawField<'a>,
    #[serde(borrow, default)]
    base: RawField<'a>,
    #[serde(borrow, default)]
    copies: RawField<'a>,
}

impl Candidate {
    /// Parses a record from a JSON object. Returns an error for each invalid field.
    pub(super) fn parse(
        line: u64,
        object: &[u8],
        currencies: &Currencies,
        default_currency: Currency,
    ) -> Result<Self, Vec<FieldError>> {
        let game: ImportedGame<'_> = json::read(object).map_err(field_errors)?;
        let mut validator = Validator::default();
        let reference =
            validator.optional("/reference", &game.reference, |raw| text(raw, REFERENCE_MAX));
        let base_reference = validator
            .optional("/base_reference", &game.base_reference, |raw| text(raw, REFERENCE_MAX));
        if game.base.raw().is_some() && game.base_reference.raw().is_some() {
            validator.refuse("/base_reference", "cannot be given with a base");
        }
        let is_named = game.publisher.raw().is_some_and(|raw| id(raw).is_none());
        let (named, publisher) = if is_named {
            (game.publisher, RawField::default())
        } else {
            (RawField::default(), game.publisher)
        };
        let publisher_name = validator.optional("/publisher", &named, |raw| text(raw, NAME_MAX));
        let put = PutGame {
            title: game.title,
            genre: game.genre,
            price: game.price,
            description: game.description,
            currency: game.currency,
            prices: game.prices,
            publisher,
            state: game.state,
            base: game.base,
            copies: game.copies,
        };
        let game = put.into_new(currencies, default_currency);
        match (validator.finish(Some(())), game) {
            (Ok(()), Ok(mut game)) => {
                // The prices are sorted, so that the idempotency key of a game does not depend on the order of the
                // columns.
                game.prices.sort_by_key(|price| price.currency);
                Ok(Self { line, reference, publisher_name, base_reference, game })
            }
            (own, game) => {
                let errors = [own.err(), game.err()].into_iter().flatten();
                Err(errors.flat_map(field_errors).collect())
            }
        }
    }

    /// Returns whether the game is downloadable content.
    pub(super) fn has_base(&self) -> bool {
        self.game.base.is_some() || self.base_reference.is_some()
    }
}

fn field_errors(error: Error) -> Vec<FieldError> {
    let whole = |detail| vec![FieldError { pointer: String::new(), detail }];
    match error {
        Error::Invalid(mut errors) | Error::InvalidGame(mut errors) => {
            for error in &mut errors {
                error.detail = place_in_line(&error.detail);
            }
            errors
        }
        Error::MalformedJson(why) => whole(format!("is not valid JSON: {}", place_in_line(&why))),
        other => whole(other.to_string()),
    }
}

/// Removes the line number from an error of the JSON parser. The parser counts lines within the record, which is a
/// single line, so the number is always 1 and would mislead.
fn place_in_line(detail: &str) -> String {
    detail.replace("line 1, column", "column").replace("line 1 column", "column")
}
