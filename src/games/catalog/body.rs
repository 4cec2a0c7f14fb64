//! JSON bodies of games in responses and in events.

use serde::Serialize;
use utoipa::ToSchema;

use super::GameState;
use super::list::ListedGame;
use super::{Game, ListedPrice, Price};
use crate::error::{Error, Result};
use crate::http::decimal::JsonDecimal;
use crate::http::fields::moment;
use crate::wallet::http::body::number;

/// A game in a list.
#[derive(Serialize, ToSchema)]
#[schema(as = ListedGame)]
#[serde(rename_all = "camelCase")]
pub(in crate::games) struct ListedGameBody<'a> {
    #[schema(example = 1)]
    game_id: i64,
    #[schema(example = "Alpha")]
    title: &'a str,
    #[schema(example = "puzzle")]
    genre: &'a str,
    #[schema(value_type = f64, example = 19.99)]
    price: JsonDecimal,
    #[schema(example = "The first game")]
    description: &'a str,
}

impl<'a> TryFrom<&'a ListedGame> for ListedGameBody<'a> {
    type Error = Error;

    fn try_from(game: &'a ListedGame) -> Result<Self> {
        let ListedGame { id, title, genre, description, price } = game;
        let price = number(price.amount, price.currency)?;
        Ok(Self { game_id: id.0, title, genre, price, description })
    }
}

/// A price in a currency.
#[derive(Serialize, ToSchema)]
#[schema(as = GamePrice)]
pub(in crate::games) struct PriceBody {
    #[schema(example = "EUR")]
    currency: String,
    #[schema(value_type = f64, example = 19.99)]
    price: JsonDecimal,
    /// The sale that lowers the price now.
    #[serde(skip_serializing_if = "Option::is_none")]
    sale: Option<SalePriceBody>,
}

/// Price of a game during a sale.
#[derive(Serialize, ToSchema)]
#[schema(as = GameSalePrice)]
pub(in crate::games) struct SalePriceBody {
    #[schema(value_type = f64, example = 15.99)]
    price: JsonDecimal,
    #[schema(example = "2026-01-31T12:00:00Z", format = DateTime)]
    starts_at: String,
    #[schema(example = "2026-02-07T12:00:00Z", format = DateTime)]
    ends_at: String,
}

impl TryFrom<&ListedPrice> for PriceBody {
    type Error = Error;

    fn try_from(ListedPrice { price, sale }: &ListedPrice) -> Result<Self> {
        let Price { currency, amount } = price;
        let sale = sale.map(|sale| {
            Ok::<_, Error>(SalePriceBody {
                price: number(sale.amount, *currency)?,
                starts_at: moment(sale.starts_at)?,
                ends_at: moment(sale.ends_at)?,
            })
        });
        let price = number(*amount, *currency)?;
        Ok(Self { currency: currency.code().to_owned(), price, sale: sale.transpose()? })
    }
}

/// A game in detail.
#[derive(Serialize, ToSchema)]
#[schema(as = Game)]
#[serde(rename_all = "camelCase")]
pub(in crate::games) struct GameBody {
    #[schema(example = 1)]
    game_id: i64,
    #[schema(example = "Alpha")]
    title: String,
    #[schema(example = "puzzle")]
    genre: String,
    /// Price in the main currency of the game.
    #[schema(value_type = f64, example = 19.99)]
    price: JsonDecimal,
    #[schema(example = "The first game")]
    description: String,
    /// Main currency of the game.
    #[schema(example = "EUR")]
    currency: String,
    /// Prices in all currencies; the price in the main currency comes first.
    prices: Vec<PriceBody>,
    /// Id of the publisher; null if the game belongs to the operator.
    #[schema(required, example = "1")]
    publisher: Option<String>,
    #[schema(value_type = GameState)]
    state: &'static str,
    /// Id of the base game, if this game is downloadable content.
    #[schema(required, example = 7)]
    base: Option<i64>,
    /// Maximum number of copies that all users together can own at a time; null if unlimited.
    #[schema(required, example = 1000)]
    copies: Option<i32>,
    /// Number of copies that are left; null if unlimited.
    #[schema(required, example = 37)]
    limited: Option<i32>,
}

impl TryFrom<&Game> for GameBody {
    type Error = Error;

    fn try_from(game: &Game) -> Result<Self> {
        let prices = game.prices.iter().map(PriceBody::try_from);
        Ok(Self {
            game_id: game.id.0,
            title: game.title.clone(),
            genre: game.genre.clone(),
            price: number(game.price.amount, game.price.currency)?,
            description: game.description.clone(),
            currency: game.price.currency.code().to_owned(),
            prices: prices.collect::<Result<_>>()?,
            publisher: game.publisher.map(|id| id.to_string()),
            state: game.state.name(),
            base: game.base.map(|id| id.0),
            copies: game.copies.map(|copies| copies.limit),
            limited: game.copies.map(|copies| copies.left),
        })
    }
}
