//! SQL statements on activation keys.

use sqlx::PgConnection;
use uuid::Uuid;

use crate::error::{Result, StoreRefusal};
use crate::games::purchase::sql::took_effect;
use crate::idempotency_key::HashedKey;
use crate::ids::{ActivationKeyId, GameId, UserId};

/// Error code that the SQL function `make_keys` raises if the request asks for more keys than there are copies left.
const TOO_FEW: &str = "RW003";

/// Error code that the SQL function `make_keys` raises if the game has been deleted.
const DELETED: &str = "RW004";

/// Finds the activation keys that an earlier request with this idempotency key created, and the content hash of that
/// request.
pub(super) async fn find_batch(
    db: &mut PgConnection,
    key: Uuid,
) -> Result<Option<(Vec<ActivationKeyId>, Option<Uuid>)>> {
    let row = sqlx::query!(
        r#"select content_hash, array(select k.id from activation_key k where k.batch = b.id order by k.id) as "ids!"
        from key_batch b where key_hash = $1"#,
        key
    );
    let row = row.fetch_optional(db).await?;
    Ok(row.map(|row| (row.ids.into_iter().map(ActivationKeyId).collect(), row.content_hash)))
}

/// Inserts activation keys. If the game has a limited number of copies, each key takes one. Returns false if the caller
/// must retry.
pub(super) async fn make_keys(
    db: &mut PgConnection,
    game: GameId,
    caller: &str,
    hashes: &[Vec<u8>],
    key: Option<HashedKey>,
) -> Result<bool> {
    let made = sqlx::query!(
        r#"select make_keys($1, $2, $3, $4, $5) as "made""#,
        game.0,
        caller,
        hashes,
        key.map(|key| key.hash),
        key.map(|key| key.content),
    );
    match made.fetch_one(db).await {
        Err(sqlx::Error::Database(error)) if error.code().as_deref() == Some(TOO_FEW) => {
            Err(StoreRefusal::SoldOut.into())
        }
        Err(sqlx::Error::Database(error)) if error.code().as_deref() == Some(DELETED) => {
            Err(StoreRefusal::GameNotFound.into())
        }
        // A concurrent duplicate of this request has already created the keys.
        Err(sqlx::Error::Database(error)) if error.constraint() == Some("key_batch_key") => {
            Ok(false)
        }
        outcome => took_effect(outcome),
    }
}

/// Returns the ids of the activation keys with these hashes, in the order of `hashes`.
pub(super) async fn ids_of(
    db: &mut PgConnection,
    hashes: &[Vec<u8>],
) -> Result<Vec<ActivationKeyId>> {
    let ids = sqlx::query_scalar!(
        r#"select id as "id: ActivationKeyId" from unnest($1::bytea[]) with ordinality given (hash, place)
        join activation_key using (hash) order by place"#,
        hashes,
    );
    Ok(ids.fetch_all(db).await?)
}

/// Outcome of redeeming an activation key.
pub(super) struct RedeemRow {
    pub outcome: String,
    pub game: Option<GameId>,
    pub base: Option<GameId>,
}

/// Redeems an activation key. Returns `None` if the caller must retry.
pub(super) async fn redeem(
    db: &mut PgConnection,
    hash: &[u8],
    user: UserId,
    trace: Uuid,
) -> Result<Option<RedeemRow>> {
    let row = sqlx::query_as!(
        RedeemRow,
        r#"select outcome as "outcome!", game as "game: GameId", base as "base: GameId" from redeem_key($1, $2, $3)"#,
        hash,
        user.0,
        trace,
    );
    match row.fetch_one(db).await {
        Ok(row) => Ok(Some(row)),
        Err(error) => took_effect::<()>(Err(error)).map(|_| None),
    }
}
