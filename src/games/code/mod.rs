//! Discount codes, which take a percentage or an amount off the price of a game. A code can be limited to a period of
//! time, and to a number of uses in total and per user.

mod sql;

use sqlx::{Connection as _, PgConnection};
use time::OffsetDateTime;

use crate::auth::{Caller, Scope};
use crate::error::{Error, Result, StoreRefusal};
use crate::games::catalog::{Price, require_game_manager};
use crate::games::sql::{create_stock, publisher_user};
use crate::games::{Games, require_manager};
use crate::idempotency_key::{HashedKey, IdempotencyKey};
use crate::ids::{CodeId, GameId, PublisherId, UserId};
use crate::ledger::currency::Currency;
use crate::ledger::money::{Minor, Rate};
use crate::secret::random_bytes;

/// Longest discount code, in characters.
pub const CODE_MAX: usize = 32;

/// Highest limit on uses per user that a request can set for a discount code.
pub const USES_PER_USER_MAX: i32 = 1_000;

/// Characters of generated discount codes and activation keys: digits and letters that are not easily confused.
pub(in crate::games) const ALPHABET: &[u8; 32] = b"0123456789ABCDEFGHJKMNPQRSTVWXYZ";

/// Length of a generated discount code, in characters. The code has 49 random bits.
const DRAWN_LEN: usize = 10;

/// Discount that a code gives.
#[derive(Debug, Clone, Copy)]
pub enum CodeDiscount {
    Percent(Rate),
    /// An amount off the price, in one currency.
    Amount(Price),
}

/// A discount code to create.
#[derive(Debug, Clone)]
pub struct NewCode {
    /// The code in capitals; `None` if a code is to be generated.
    pub code: Option<String>,
    pub discount: CodeDiscount,
    pub publisher: Option<PublisherId>,
    pub game: Option<GameId>,
    pub starts_at: Option<OffsetDateTime>,
    pub ends_at: Option<OffsetDateTime>,
    /// Maximum number of uses in total; `None` if unlimited.
    pub uses: Option<i32>,
    pub uses_per_user: Option<i32>,
}

impl NewCode {
    /// Returns the fields of the new code as texts. Their hash is stored with the idempotency key, to detect a client
    /// that reuses the key for a different code.
    fn content(&self) -> [String; 8] {
        fn text(value: Option<impl ToString>) -> String {
            value.map(|value| value.to_string()).unwrap_or_default()
        }
        let moment =
            |at: Option<OffsetDateTime>| text(at.map(OffsetDateTime::unix_timestamp_nanos));
        let discount = match self.discount {
            CodeDiscount::Percent(rate) => format!("{}%", rate.percent()),
            CodeDiscount::Amount(Price { currency, amount }) => {
                format!("{} {}", amount.0, currency.code())
            }
        };
        let Self { code, publisher, game, starts_at, ends_at, uses, uses_per_user, .. } = self;
        [
            text(code.as_ref()),
            discount,
            text(publisher.as_ref()),
            text(game.as_ref()),
            moment(*starts_at),
            moment(*ends_at),
            text(*uses),
            text(*uses_per_user),
        ]
    }
}

/// A discount code that this request, or an earlier request with the same idempotency key, has created.
#[derive(Debug)]
pub struct CreatedCode {
    pub id: CodeId,
    pub code: String,
    pub replayed: bool,
}

/// A discount code that a buyer may use now.
#[derive(Debug)]
pub(in crate::games) struct UsableCode {
    pub id: CodeId,
    discount: UsableDiscount,
    pub stock: Option<i64>,
    pub left: Option<i32>,
    /// Ordinal number of the buyer's next use of the code; `None` if the uses per user are not limited.
    pub next_use: Option<i32>,
    pub ends_at: Option<OffsetDateTime>,
    code: String,
}

#[derive(Debug)]
enum UsableDiscount {
    Percent(Rate),
    Amount { amount: i64, currency: String },
}

impl UsableCode {
    /// Returns the price after the discount. Returns an error if the discount is an amount in another currency.
    pub(in crate::games) fn discounted(&self, price: Minor, currency: Currency) -> Result<Minor> {
        match &self.discount {
            UsableDiscount::Percent(rate) => Ok(Minor(price.0 - rate.of(price.0))),
            UsableDiscount::Amount { amount, currency: code } if code == currency.code() => {
                Ok(Minor((price.0 - amount).max(0)))
            }
            UsableDiscount::Amount { .. } => {
                Err(StoreRefusal::CodeInvalid(self.code.clone()).into())
            }
        }
    }
}

/// Converts a discount code to the form that is stored and compared. Returns `None` for a text that cannot be a code.
pub fn normalized(text: &str) -> Option<String> {
    let is_valid = (1..=CODE_MAX).contains(&text.len())
        && text.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"-_".contains(&byte));
    is_valid.then(|| text.to_ascii_uppercase())
}

/// Finds a discount code that the buyer may use for the game now.
pub(in crate::games) async fn find_usable(
    db: &mut PgConnection,
    code: &str,
    game: GameId,
    buyer: UserId,
) -> Result<UsableCode> {
    let invalid = || StoreRefusal::CodeInvalid(code.to_owned());
    let row = sql::find_usable(db, code, game, buyer).await?.ok_or_else(invalid)?;
    let is_used_up = row.left.is_some_and(|left| left <= 0)
        || (row.uses_per_user.is_some() && row.next_use.is_none());
    if is_used_up {
        return Err(StoreRefusal::CodeUsedUp.into());
    }
    let discount = match (row.percent, row.amount.zip(row.currency)) {
        (Some(percent), _) => UsableDiscount::Percent(Rate::from_stored(percent)),
        (None, Some((amount, currency))) => UsableDiscount::Amount { amount, currency },
        (None, None) => return Err(Error::Internal(anyhow::anyhow!("a code has no discount"))),
    };
    Ok(UsableCode {
        id: row.id,
        discount,
        stock: row.stock,
        left: row.left,
        next_use: row.next_use,
        ends_at: row.ends_at,
        code: code.to_owned(),
    })
}

impl Games {
    /// Creates a discount code. A publisher may create codes for its own games only.
    pub async fn create_code(
        &self,
        new: &NewCode,
        caller: &Caller,
        key: &IdempotencyKey,
    ) -> Result<CreatedCode> {
        let content = new.content();
        let content = content.each_ref().map(String::as_str);
        let key = key.hashed(caller.name(), "code", &content);
        let mut db = self.db.acquire("games.create_code").await?;
        let mut tx = db.begin().await?;
        match (new.game, new.publisher) {
            (Some(game), None) => require_game_manager(&mut tx, game, caller).await?,
            (None, Some(publisher)) => {
                let user = publisher_user(&mut tx, publisher).await?;
                require_manager(caller, user)?;
                if user.is_none() {
                    return Err(Error::field("/publisher", "is not a publisher"));
                }
            }
            _ => caller.require_scope(Scope::GamesWrite)?,
        }
        if let Some(earlier) = find_replay(&mut tx, key).await? {
            return Ok(earlier);
        }
        let stock = match new.uses {
            Some(uses) => Some(create_stock(&mut tx, uses).await?),
            None => None,
        };
        let code = new.code.clone().unwrap_or_else(|| drawn(DRAWN_LEN));
        match sql::insert(&mut tx, new, &code, stock, key).await? {
            Some(id) => {
                tx.commit().await?;
                Ok(CreatedCode { id, code, replayed: false })
            }
            // A concurrent duplicate of this request may have created the code.
            None => match find_replay(&mut tx, key).await? {
                Some(earlier) => Ok(earlier),
                None => Err(StoreRefusal::CodeExists(code).into()),
            },
        }
    }
}

/// Finds the discount code that an earlier request with this idempotency key created.
async fn find_replay(db: &mut PgConnection, key: Option<HashedKey>) -> Result<Option<CreatedCode>> {
    let Some(key) = key else { return Ok(None) };
    let Some((id, code, content)) = sql::find_by_key(db, key.hash).await? else { return Ok(None) };
    key.require_same_content(content)?;
    Ok(Some(CreatedCode { id, code, replayed: true }))
}

/// Returns a random text of `len` characters, at most 40. Each character has four or five random bits.
pub(in crate::games) fn drawn(len: usize) -> String {
    let bytes: Vec<u8> = std::iter::repeat_with(random_bytes).take(2).flatten().collect();
    let text = bytes.iter().map(|byte| char::from(ALPHABET[usize::from(*byte) % ALPHABET.len()]));
    text.take(len).collect()
}
