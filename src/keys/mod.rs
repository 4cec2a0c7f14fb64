//! API keys: how programs sign in. Shown once, stored as a hash, good for their scopes until they are revoked.

pub mod cli;
pub mod http;
mod sql;

use std::sync::Arc;
use std::time::{Duration, Instant};

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use sqlx::Connection;

use crate::db::Database;
use crate::error::{Error, Result};
use crate::http::auth::Scope;
use crate::recent::Recent;
use crate::secret::{self, Secret};
use crate::telemetry::Metrics;
use crate::trail::{self, Action, By};

pub use sql::Row;

/// Before every key, so that a scanner of source code recognizes one.
const PREFIX: &str = "rwk_";

/// Longest name, in characters.
pub const NAME_MAX: usize = 100;

/// For so long a process believes what it has read of a key: a revoked key is dead everywhere after it.
const BELIEVED: Duration = Duration::from_secs(1);

/// For so long the secret before a rotation is believed.
const OVERLAP: Duration = Duration::from_hours(24);

/// Most keys that are remembered.
const KNOWN_MAX: usize = 10_000;

/// A key that was just made, the one time that it can be seen.
#[derive(Debug)]
pub struct New {
    pub row: Row,
    pub key: Secret,
}

struct Believed {
    scopes: Vec<Scope>,
    /// None of a key that is not there.
    hashes: Vec<Vec<u8>>,
    /// Within the last minute, when it was read.
    is_used_lately: bool,
    read: Instant,
}

impl Believed {
    fn nothing(read: Instant) -> Self {
        Self { scopes: Vec::new(), hashes: Vec::new(), is_used_lately: true, read }
    }
}

/// Everything one can do with API keys. A cheap handle.
#[derive(Clone)]
pub struct Keys {
    db: Database,
    believed: Arc<Recent<i64, Arc<Believed>>>,
    metrics: Arc<Metrics>,
}

/// Whether a credential is a key, and not a token.
pub fn is_key(credential: &Secret) -> bool {
    credential.reveal().starts_with(PREFIX)
}

impl Keys {
    pub fn new(db: Database, metrics: Arc<Metrics>) -> Self {
        for outcome in ["ok", "bad_credentials"] {
            metrics.wallet_auth_attempts_total.announce(["key", outcome]);
        }
        Self { db, believed: Arc::new(Recent::new(KNOWN_MAX)), metrics }
    }

    /// Whose key it is, and what it is good for.
    pub async fn identify(&self, credential: &Secret) -> Result<(i64, Vec<Scope>)> {
        let found = match parse(credential) {
            Some((id, secret)) => self.check(id, &secret).await?.map(|scopes| (id, scopes)),
            None => None,
        };
        let outcome = if found.is_some() { "ok" } else { "bad_credentials" };
        self.metrics.wallet_auth_attempts_total.with(["key", outcome]).increment(1);
        found.ok_or(Error::Unauthenticated)
    }

    async fn check(&self, id: i64, secret: &Secret) -> Result<Option<Vec<Scope>>> {
        let (believed, fresh) = match self.believed.get(&id) {
            Some(believed) if believed.read.elapsed() < BELIEVED => (believed, false),
            _ => (self.read(id).await?, true),
        };
        let hash = secret.hash();
        let is_right =
            believed.hashes.iter().fold(false, |found, known| found | secret::same(known, &hash));
        if is_right && fresh && !believed.is_used_lately {
            sql::note_use(&mut *self.db.acquire("keys.note_use").await?, id).await?;
        }
        Ok(is_right.then(|| believed.scopes.clone()))
    }

    async fn read(&self, id: i64) -> Result<Arc<Believed>> {
        let read = Instant::now();
        let mut db = self.db.acquire("keys.find").await?;
        let believed = match sql::find(&mut db, id).await? {
            Some(stored) => {
                let scopes = stored.scopes.iter().filter_map(|name| Scope::of_name(name)).collect();
                let hashes =
                    [Some(stored.hash), stored.hash_before].into_iter().flatten().collect();
                Believed { scopes, hashes, is_used_lately: stored.is_used_lately, read }
            }
            None => Believed::nothing(read),
        };
        let believed = Arc::new(believed);
        self.believed.insert(id, Arc::clone(&believed));
        Ok(believed)
    }

    pub async fn create(&self, name: &str, scopes: &[Scope], by: By<'_>) -> Result<New> {
        let secret = new_secret();
        let scopes: Vec<String> = scopes.iter().map(|scope| scope.name().to_owned()).collect();
        let mut db = self.db.acquire("keys.create").await?;
        let mut tx = db.begin().await?;
        let row = sql::create(&mut tx, name, &scopes, &secret.hash()).await?;
        self.note(&mut tx, by, Action::KeyCreated, row.id).await?;
        tx.commit().await?;
        Ok(New { key: whole(row.id, &secret), row })
    }

    /// Keys with an id above `after`.
    pub async fn list(&self, after: i64, limit: i64) -> Result<Vec<Row>> {
        sql::list(&mut *self.db.acquire("keys.list").await?, after, limit).await
    }

    /// Ends a key, here at once and on other processes within a second.
    pub async fn revoke(&self, id: i64, by: By<'_>) -> Result<()> {
        let mut db = self.db.acquire("keys.revoke").await?;
        let mut tx = db.begin().await?;
        if !sql::revoke(&mut tx, id).await? {
            return Err(Error::NotFound("key"));
        }
        self.note(&mut tx, by, Action::KeyRevoked, id).await?;
        tx.commit().await?;
        self.doubt(id);
        Ok(())
    }

    /// A new secret; the one before is believed for a day.
    pub async fn rotate(&self, id: i64, by: By<'_>) -> Result<New> {
        let secret = new_secret();
        let mut db = self.db.acquire("keys.rotate").await?;
        let mut tx = db.begin().await?;
        let row = sql::rotate(&mut tx, id, &secret.hash(), OVERLAP).await?;
        let row = row.ok_or(Error::NotFound("key"))?;
        self.note(&mut tx, by, Action::KeyRotated, id).await?;
        tx.commit().await?;
        self.doubt(id);
        Ok(New { key: whole(id, &secret), row })
    }

    /// What was read of a key is not true any more.
    fn doubt(&self, id: i64) {
        let Some(long_ago) = Instant::now().checked_sub(BELIEVED) else { return };
        self.believed.insert(id, Arc::new(Believed::nothing(long_ago)));
    }

    async fn note(
        &self,
        db: &mut sqlx::PgConnection,
        by: By<'_>,
        action: Action,
        id: i64,
    ) -> Result<()> {
        trail::note(db, &self.metrics, by, action, Some(&format!("key:{id}")), true).await
    }
}

fn new_secret() -> Secret {
    Secret::from(URL_SAFE_NO_PAD.encode(secret::random()))
}

fn whole(id: i64, secret: &Secret) -> Secret {
    Secret::from(format!("{PREFIX}{id}_{}", secret.reveal()))
}

fn parse(credential: &Secret) -> Option<(i64, Secret)> {
    let (id, secret) = credential.reveal().strip_prefix(PREFIX)?.split_once('_')?;
    let plain = id.bytes().all(|byte| byte.is_ascii_digit());
    Some((id.parse().ok().filter(|_| plain)?, Secret::from(secret.to_owned())))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_key_is_its_number_and_its_secret() {
        let secret = new_secret();
        let (id, read) = parse(&whole(12, &secret)).unwrap();

        assert_eq!((id, read.reveal()), (12, secret.reveal()));
        for text in ["rwk_", "rwk_12", "rwk__abc", "rwk_-1_abc", "rwk_1x_abc", "12_abc"] {
            assert!(parse(&Secret::from(text.to_owned())).is_none(), "{text}");
        }
    }
}
