//! Publishers: users who sell games, and the fee that the operator keeps of their sales.

pub mod debt;
pub mod payout;
mod sql;
pub mod statement;

use sqlx::PgConnection;

use crate::auth::{Caller, Scope};
use crate::error::{Error, Result, StoreRefusal};
use crate::games::{Games, require_manager};
use crate::idempotency_key::{HashedKey, IdempotencyKey};
use crate::ids::{PublisherId, UserId};
use crate::ledger::money::Rate;

/// Longest name of a publisher, in characters.
pub const NAME_MAX: usize = 100;

/// A publisher: a user who sells games.
#[derive(Debug, Clone)]
pub struct Publisher {
    pub id: PublisherId,
    pub user: UserId,
    pub name: String,
    /// Share that the operator keeps of each sale; `None` means the setting `--store-fee`.
    pub fee: Option<Rate>,
    pub replayed: bool,
}

impl Games {
    /// Makes a user a publisher, so that the user can sell games.
    pub async fn add_publisher(
        &self,
        user: UserId,
        name: &str,
        fee: Option<Rate>,
        caller: &Caller,
        key: &IdempotencyKey,
    ) -> Result<Publisher> {
        caller.require_scope(Scope::Admin)?;
        let stored_fee = fee.map(Rate::to_stored);
        let content = [
            user.to_string(),
            name.to_owned(),
            stored_fee.map(|f| f.to_string()).unwrap_or_default(),
        ];
        let content = content.each_ref().map(String::as_str);
        let key = key.hashed(caller.name(), "publisher", &content);
        let mut db = self.db.acquire("games.add_publisher").await?;
        let publisher = |id, replayed| Publisher { id, user, name: name.to_owned(), fee, replayed };
        if let Some(id) = find_replay(&mut db, key).await? {
            return Ok(publisher(id, true));
        }
        if !sql::user_exists(&mut db, user).await? {
            return Err(Error::UserNotFound);
        }
        match sql::insert(&mut db, user, name, stored_fee, key).await? {
            Some(id) => Ok(publisher(id, false)),
            // A concurrent duplicate of this request may have created the publisher.
            None => match find_replay(&mut db, key).await? {
                Some(id) => Ok(publisher(id, true)),
                None => Err(StoreRefusal::PublisherExists.into()),
            },
        }
    }

    /// Changes the name or the fee of a publisher. The new fee applies to purchases from now on.
    pub async fn change_publisher(
        &self,
        id: PublisherId,
        name: Option<&str>,
        fee: Option<Rate>,
        caller: &Caller,
    ) -> Result<Publisher> {
        caller.require_scope(Scope::Admin)?;
        let mut db = self.db.acquire("games.change_publisher").await?;
        let row = sql::update(&mut db, id, name, fee.map(Rate::to_stored)).await?;
        row.map(Publisher::from).ok_or_else(no_publisher)
    }

    /// Returns a publisher. The caller must have permission to manage the publisher's games.
    pub async fn publisher(&self, id: PublisherId, caller: &Caller) -> Result<Publisher> {
        let found = sql::find(&mut *self.db.snapshot("games.publisher").await?, id).await?;
        require_manager(caller, found.as_ref().map(|row| row.user))?;
        found.map(Publisher::from).ok_or_else(no_publisher)
    }
}

/// Finds the publisher that an earlier request with this idempotency key created.
async fn find_replay(db: &mut PgConnection, key: Option<HashedKey>) -> Result<Option<PublisherId>> {
    let Some(key) = key else { return Ok(None) };
    let Some((id, content)) = sql::find_by_key(db, key.hash).await? else { return Ok(None) };
    key.require_same_content(content)?;
    Ok(Some(id))
}

fn no_publisher() -> Error {
    Error::NotFound("publisher")
}

impl From<sql::PublisherRow> for Publisher {
    fn from(row: sql::PublisherRow) -> Self {
        let sql::PublisherRow { id, user, name, fee } = row;
        Self { id, user, name, fee: fee.map(Rate::from_stored), replayed: false }
    }
}
