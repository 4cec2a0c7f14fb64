//! Request body to add or change a game, and its conversion to `NewGame` or `GameChanges`.

use serde::Deserialize;
use utoipa::ToSchema;

use crate::error::{Error, Result};
use crate::games::catalog::{
    CopiesChange, DESCRIPTION_MAX, GENRE_MAX, GameChanges, GameState, NewGame, PRICES_MAX, Price,
    TITLE_MAX,
};
use crate::http::body::BoundedList;
use crate::http::extract::{RawField, Validator};
use crate::http::fields::{self, id, string, text};
use crate::ids::GameId;
use crate::ledger::currency::{Currencies, Currency};
use crate::ledger::money::{MAX_BALANCE, Minor};

/// Highest limit on copies that a request can set for a game.
const COPIES_MAX: i32 = 1_000_000_000;

/// A price in a currency other than the main currency.
#[derive(Deserialize, ToSchema)]
pub(in crate::games) struct PutPrice<'a> {
    #[serde(borrow, default)]
    #[schema(required, value_type = String, example = "USD")]
    currency: RawField<'a>,
    #[serde(borrow, default)]
    #[schema(required, value_type = String, example = "21.99")]
    price: RawField<'a>,
}

/// A game to add or change. The fields `currency`, `prices`, `publisher`, `state`, `base` and `copies` are optional.
#[derive(Deserialize, ToSchema)]
pub(in crate::games) struct PutGame<'a> {
    /// Title of the game, 1 to 200 characters.
    #[serde(borrow, default)]
    #[schema(required, value_type = String, example = "Alpha")]
    pub(in crate::games) title: RawField<'a>,
    /// Genre of the game, 1 to 64 characters.
    #[serde(borrow, default)]
    #[schema(required, value_type = String, example = "puzzle")]
    pub(in crate::games) genre: RawField<'a>,
    /// Price of the game, a decimal number with at most as many decimal places as the currency has; 0 means free.
    #[serde(borrow, default)]
    #[schema(required, value_type = String, example = "19.99")]
    pub(in crate::games) price: RawField<'a>,
    /// Description of the game, at most 4,000 characters.
    #[serde(borrow, default)]
    #[schema(required, value_type = String, example = "The first game")]
    pub(in crate::games) description: RawField<'a>,
    /// Main currency of the game, in which `price` is given. If absent, a new game gets the default currency.
    #[serde(borrow, default)]
    #[schema(value_type = Option<String>, example = "EUR")]
    pub(in crate::games) currency: RawField<'a>,
    /// Prices of the game in currencies other than its main currency.
    #[serde(borrow)]
    #[schema(value_type = Option<Vec<PutPrice<'static>>>)]
    pub(in crate::games) prices: Option<BoundedList<PutPrice<'a>, PRICES_MAX>>,
    /// Id of the publisher. If absent, the game belongs to the operator. The publisher cannot be changed later.
    #[serde(borrow, default)]
    #[schema(value_type = Option<String>, example = "1")]
    pub(in crate::games) publisher: RawField<'a>,
    /// State of the game; `published` if absent.
    #[serde(borrow, default)]
    #[schema(value_type = Option<GameState>)]
    pub(in crate::games) state: RawField<'a>,
    /// Id of the base game, if this game is downloadable content. The base game cannot be changed later.
    #[serde(borrow, default)]
    #[schema(value_type = Option<i64>, example = 7)]
    pub(in crate::games) base: RawField<'a>,
    /// Maximum number of copies that all users together can own at a time, or `unlimited` (the default).
    #[serde(borrow, default)]
    #[schema(value_type = Option<i32>, example = 1000)]
    pub(in crate::games) copies: RawField<'a>,
}

impl PutGame<'_> {
    /// Converts the body to a new game.
    pub(in crate::games) fn into_new(
        self,
        currencies: &Currencies,
        default_currency: Currency,
    ) -> Result<NewGame> {
        let mut validator = Validator::default();
        let is_plain = self.is_plain();
        let title = validator.required("/title", &self.title, |raw| text(raw, TITLE_MAX));
        let genre = validator.required("/genre", &self.genre, |raw| text(raw, GENRE_MAX));
        let description = validator.optional("/description", &self.description, description);
        let currency = match self.currency.raw() {
            None => Some(default_currency),
            Some(_) => self.main_currency(&mut validator, currencies),
        };
        let price = currency.and_then(|currency| {
            let amount = validator.required("/price", &self.price, |raw| amount(raw, currency));
            Some(Price { currency, amount: amount? })
        });
        let changes = self.rest(&mut validator, currencies, currency);
        let game = title.zip(genre).zip(price).map(|((title, genre), price)| NewGame {
            title,
            genre,
            description: description.unwrap_or_default(),
            price,
            prices: changes.prices.unwrap_or_default(),
            publisher: changes.publisher,
            state: changes.state.unwrap_or(GameState::Published),
            base: changes.base,
            copies: match changes.copies {
                Some(CopiesChange::Limit(limit)) => Some(limit),
                Some(CopiesChange::Unlimited) | None => None,
            },
            is_plain,
        });
        validator.finish(game).map_err(into_game_error)
    }

    /// Returns the main currency that the request specifies, if any.
    pub(super) fn currency(&self, currencies: &Currencies) -> Result<Option<Currency>> {
        let mut validator = Validator::default();
        let currency = self.main_currency(&mut validator, currencies);
        validator.finish(Some(currency)).map_err(into_game_error)
    }

    /// Converts the body to changes to a game. `currency` is the main currency of the game after the change.
    pub(super) fn into_changes(
        self,
        currencies: &Currencies,
        currency: Currency,
    ) -> Result<GameChanges> {
        let is_plain = self.is_plain();
        let mut validator = Validator::default();
        let title = validator.optional("/title", &self.title, |raw| text(raw, TITLE_MAX));
        let genre = validator.optional("/genre", &self.genre, |raw| text(raw, GENRE_MAX));
        let description = validator.optional("/description", &self.description, description);
        if self.currency.raw().is_some() && self.price.raw().is_none() {
            validator.refuse("/price", "is required with a currency");
        }
        let amount = validator.optional("/price", &self.price, |raw| amount(raw, currency));
        let price = amount.map(|amount| Price { currency, amount });
        let rest = self.rest(&mut validator, currencies, Some(currency));
        let changes = GameChanges { title, genre, description, price, is_plain, ..rest };
        validator.finish(Some(changes)).map_err(into_game_error)
    }

    /// Returns whether the request sets only the title, genre, price and description.
    fn is_plain(&self) -> bool {
        let Self { currency, prices, publisher, state, base, copies, .. } = self;
        prices.is_none()
            && [currency, publisher, state, base, copies].iter().all(|field| field.raw().is_none())
    }

    fn main_currency(
        &self,
        validator: &mut Validator,
        currencies: &Currencies,
    ) -> Option<Currency> {
        validator.optional("/currency", &self.currency, |raw| currencies.supported(&string(raw)?))
    }

    /// Parses the optional fields: prices, publisher, state, base and copies.
    fn rest(
        self,
        validator: &mut Validator,
        currencies: &Currencies,
        main: Option<Currency>,
    ) -> GameChanges {
        let publisher = validator.optional("/publisher", &self.publisher, fields::publisher);
        let state = validator.optional("/state", &self.state, |raw| string(raw)?.parse());
        let base = validator.optional("/base", &self.base, |raw| {
            id(raw).map(GameId).ok_or_else(|| "must be the id of a game".to_owned())
        });
        let copies = validator.optional("/copies", &self.copies, copies);
        let prices = match self.prices.map(BoundedList::within) {
            None => None,
            Some(None) => {
                validator.refuse("/prices", format!("must have at most {PRICES_MAX} prices"));
                None
            }
            Some(Some(prices)) => Some(further_prices(validator, &prices, currencies, main)),
        };
        GameChanges { prices, publisher, state, base, copies, ..GameChanges::default() }
    }
}

fn further_prices(
    validator: &mut Validator,
    prices: &[PutPrice<'_>],
    currencies: &Currencies,
    main: Option<Currency>,
) -> Vec<Price> {
    let mut parsed: Vec<Price> = Vec::new();
    for (n, price) in prices.iter().enumerate() {
        let pointer = format!("/prices/{n}/currency");
        let currency = validator
            .required(&pointer, &price.currency, |raw| currencies.supported(&string(raw)?));
        let Some(currency) = currency else { continue };
        if main == Some(currency) || parsed.iter().any(|other| other.currency == currency) {
            validator.refuse(&pointer, "has a price already");
        }
        let pointer = format!("/prices/{n}/price");
        let amount = validator.required(&pointer, &price.price, |raw| amount(raw, currency));
        parsed.extend(amount.map(|amount| Price { currency, amount }));
    }
    parsed
}

pub(super) fn amount(raw: &str, currency: Currency) -> Result<Minor, String> {
    let text = Currencies::amount_text(raw)?;
    let amount = Minor::parse_balance(text, currency).map_err(|cause| cause.to_string())?;
    if amount <= MAX_BALANCE {
        Ok(amount)
    } else {
        Err("is more than any wallet can pay".to_owned())
    }
}

fn description(raw: &str) -> Result<String, String> {
    let text = string(raw)?;
    if text.chars().count() <= DESCRIPTION_MAX {
        Ok(text)
    } else {
        Err(format!("must have at most {DESCRIPTION_MAX} characters"))
    }
}

fn copies(raw: &str) -> Result<CopiesChange, String> {
    if raw == "\"unlimited\"" {
        return Ok(CopiesChange::Unlimited);
    }
    let limit = raw.parse().ok().filter(|limit| (0..=COPIES_MAX).contains(limit));
    limit
        .map(CopiesChange::Limit)
        .ok_or_else(|| format!("must be a whole number up to {COPIES_MAX}, or unlimited"))
}

/// Converts field errors into the problem `invalid-game` with status 400, which existing clients expect.
pub(super) fn into_game_error(error: Error) -> Error {
    match error {
        Error::Invalid(fields) => Error::InvalidGame(fields),
        other => other,
    }
}
