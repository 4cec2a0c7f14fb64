//! API keys: credentials for programs. A key is shown only when it is created or rotated, is stored as a hash, and
//! grants its scopes until it is revoked.

pub mod cli;
pub mod http;
mod sql;

use std::sync::Arc;
use std::time::{Duration, Instant};

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use sqlx::Connection;

use crate::audit_log::{self, Actor, AuditAction, Outcome};
use crate::auth::{ApiKeyGrant, CREDENTIAL_CACHED_FOR, Caller, Scope};
use crate::cache::Cache;
use crate::db::Database;
use crate::error::{CredentialFault, Error, Result};
use crate::http::origin::Origin;
use crate::ids::{ApiKeyId, PublisherId};
use crate::secret::{self, Secret};
use crate::telemetry::Metrics;

pub use self::sql::ApiKeyRow;

/// Prefix of every API key. Secret scanners recognize leaked API keys by this prefix.
const PREFIX: &str = "rwk_";

/// Longest name of an API key, in characters.
pub const NAME_MAX: usize = 100;

/// Time for which the previous secret of an API key stays valid after a rotation.
const OVERLAP: Duration = Duration::from_hours(24);

/// Maximum number of API keys that a process caches.
const CACHE_MAX: usize = 10_000;

/// A new key with its secret, which is never shown again.
#[derive(Debug)]
pub struct NewApiKey {
    pub row: ApiKeyRow,
    pub key: Secret,
}

struct CachedKey {
    grant: ApiKeyGrant,
    /// Hashes of the secrets that are valid for the key; empty if the key does not exist or is revoked.
    hashes: Vec<Vec<u8>>,
    /// Whether a use of the key was recorded less than a minute ago. If so, the process does not record the current
    /// use.
    is_recently_used: bool,
    read: Instant,
}

impl CachedKey {
    fn missing(read: Instant) -> Self {
        Self { grant: ApiKeyGrant::default(), hashes: Vec::new(), is_recently_used: true, read }
    }
}

/// Creates, checks, lists, rotates and revokes API keys. Cheap to clone.
#[derive(Clone)]
pub struct ApiKeys {
    db: Database,
    cache: Arc<Cache<ApiKeyId, Arc<CachedKey>>>,
    metrics: Arc<Metrics>,
}

/// Whether a credential is an API key; otherwise it is a user token.
pub fn is_key(credential: &Secret) -> bool {
    credential.reveal().starts_with(PREFIX)
}

impl ApiKeys {
    pub fn new(db: Database, metrics: Arc<Metrics>) -> Self {
        for outcome in ["ok", "bad_credentials"] {
            metrics.wallet_auth_attempts_total.preregister(["key", outcome]);
        }
        Self { db, cache: Arc::new(Cache::new(CACHE_MAX)), metrics }
    }

    /// Checks an API key that a client presented. Returns the id and the permissions of the key, or an error if the key
    /// is not valid. A cache entry is used only if it was read from the database at `not_before` or later.
    pub async fn identify(
        &self,
        credential: &Secret,
        not_before: Option<Instant>,
    ) -> Result<(ApiKeyId, ApiKeyGrant)> {
        let found = match parse(credential) {
            Some((id, secret)) => {
                self.check(id, &secret, not_before).await?.map(|grant| (id, grant))
            }
            None => None,
        };
        let outcome = if found.is_some() { "ok" } else { "bad_credentials" };
        self.metrics.wallet_auth_attempts_total.with(["key", outcome]).increment(1);
        found.ok_or(Error::Unauthenticated(CredentialFault::Invalid))
    }

    async fn check(
        &self,
        id: ApiKeyId,
        secret: &Secret,
        not_before: Option<Instant>,
    ) -> Result<Option<ApiKeyGrant>> {
        let is_usable = |cached: &CachedKey| {
            cached.read.elapsed() < CREDENTIAL_CACHED_FOR
                && not_before.is_none_or(|not_before| cached.read >= not_before)
        };
        let (cached, is_fresh) = match self.cache.get(&id) {
            Some(cached) if is_usable(&cached) => (cached, false),
            _ => (self.read(id).await?, true),
        };
        let hash = secret.hash();
        let is_right = cached
            .hashes
            .iter()
            .fold(false, |found, known| found | secret::constant_time_eq(known, &hash));
        if is_right && is_fresh && !cached.is_recently_used {
            sql::note_use(&mut *self.db.acquire("keys.note_use").await?, id).await?;
        }
        Ok(is_right.then(|| cached.grant.clone()))
    }

    async fn read(&self, id: ApiKeyId) -> Result<Arc<CachedKey>> {
        let read = Instant::now();
        let mut db = self.db.acquire("keys.find").await?;
        let cached = match sql::find(&mut db, id).await? {
            Some(stored) => {
                let scopes = stored.scopes.iter().filter_map(|name| name.parse().ok()).collect();
                let hashes =
                    [Some(stored.hash), stored.hash_before].into_iter().flatten().collect();
                let grant = ApiKeyGrant { scopes, user: stored.user };
                CachedKey { grant, hashes, is_recently_used: stored.is_recently_used, read }
            }
            None => CachedKey::missing(read),
        };
        let cached = Arc::new(cached);
        self.cache.insert(id, Arc::clone(&cached));
        Ok(cached)
    }

    /// Creates a key. If the key is limited to the games of a publisher, it may have only the scopes `games:read` and
    /// `games:write`.
    pub async fn create(
        &self,
        caller: &Caller,
        origin: Option<Origin>,
        name: &str,
        scopes: &[Scope],
        publisher: Option<PublisherId>,
    ) -> Result<NewApiKey> {
        caller.require_scope(Scope::Admin)?;
        let is_of_games = |scope: &Scope| matches!(scope, Scope::GamesRead | Scope::GamesWrite);
        if publisher.is_some() && !scopes.iter().all(is_of_games) {
            let why = "a key of a publisher can have only the scopes games:read and games:write";
            return Err(Error::field("/scopes", why));
        }
        let secret = new_secret();
        let scopes: Vec<String> = scopes.iter().map(|scope| scope.name().to_owned()).collect();
        let mut db = self.db.acquire("keys.create").await?;
        let mut tx = db.begin().await?;
        let row = sql::create(&mut tx, name, &scopes, &secret.hash(), publisher).await?;
        let row =
            row.ok_or_else(|| Error::field("/publisher", "there is no publisher with this id"))?;
        self.audit(&mut tx, caller, origin, AuditAction::KeyCreated, row.id).await?;
        tx.commit().await?;
        Ok(NewApiKey { key: format_key(row.id, &secret), row })
    }

    /// Returns at most `limit` keys with an id above `after`.
    pub async fn list(&self, caller: &Caller, after: i64, limit: i64) -> Result<Vec<ApiKeyRow>> {
        caller.require_scope(Scope::Admin)?;
        sql::list(&mut *self.db.snapshot("keys.list").await?, after, limit).await
    }

    /// Revokes a key. The revocation takes effect at once in this process, and within a second in the other processes.
    pub async fn revoke(
        &self,
        caller: &Caller,
        origin: Option<Origin>,
        id: ApiKeyId,
    ) -> Result<()> {
        caller.require_scope(Scope::Admin)?;
        let mut db = self.db.acquire("keys.revoke").await?;
        let mut tx = db.begin().await?;
        if !sql::revoke(&mut tx, id).await? {
            return Err(Error::NotFound("key"));
        }
        self.audit(&mut tx, caller, origin, AuditAction::KeyRevoked, id).await?;
        tx.commit().await?;
        self.invalidate(id);
        Ok(())
    }

    /// Gives a key a new secret. The current secret stays valid for a day. A second rotation within that day makes the
    /// secret from the first rotation invalid; the original secret stays valid until the day has passed.
    pub async fn rotate(
        &self,
        caller: &Caller,
        origin: Option<Origin>,
        id: ApiKeyId,
    ) -> Result<NewApiKey> {
        caller.require_scope(Scope::Admin)?;
        let secret = new_secret();
        let mut db = self.db.acquire("keys.rotate").await?;
        let mut tx = db.begin().await?;
        let row = sql::rotate(&mut tx, id, &secret.hash(), OVERLAP).await?;
        let row = row.ok_or(Error::NotFound("key"))?;
        self.audit(&mut tx, caller, origin, AuditAction::KeyRotated, id).await?;
        tx.commit().await?;
        self.invalidate(id);
        Ok(NewApiKey { key: format_key(id, &secret), row })
    }

    /// Replaces the cached key with an expired entry, so that the next request reads the key from the database.
    fn invalidate(&self, id: ApiKeyId) {
        let Some(expired) = Instant::now().checked_sub(CREDENTIAL_CACHED_FOR) else { return };
        self.cache.insert(id, Arc::new(CachedKey::missing(expired)));
    }

    async fn audit(
        &self,
        db: &mut sqlx::PgConnection,
        caller: &Caller,
        origin: Option<Origin>,
        action: AuditAction,
        id: ApiKeyId,
    ) -> Result<()> {
        let actor = Actor { name: caller.name(), origin };
        let subject = format!("key:{id}");
        audit_log::append(db, &self.metrics, actor, action, Some(&subject), Outcome::Done).await
    }
}

fn new_secret() -> Secret {
    Secret::from(URL_SAFE_NO_PAD.encode(secret::random_bytes()))
}

fn format_key(id: ApiKeyId, secret: &Secret) -> Secret {
    Secret::from(format!("{PREFIX}{id}_{}", secret.reveal()))
}

fn parse(credential: &Secret) -> Option<(ApiKeyId, Secret)> {
    let (id, secret) = credential.reveal().strip_prefix(PREFIX)?.split_once('_')?;
    let plain = id.bytes().all(|byte| byte.is_ascii_digit());
    Some((ApiKeyId(id.parse().ok().filter(|_| plain)?), Secret::from(secret.to_owned())))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_key_consists_of_its_id_and_its_secret() {
        let secret = new_secret();
        let (id, read) = parse(&format_key(ApiKeyId(12), &secret)).unwrap();

        assert_eq!((id, read.reveal()), (ApiKeyId(12), secret.reveal()));
        for text in ["rwk_", "rwk_12", "rwk__abc", "rwk_-1_abc", "rwk_1x_abc", "12_abc"] {
            assert!(parse(&Secret::from(text.to_owned())).is_none(), "{text}");
        }
    }
}
