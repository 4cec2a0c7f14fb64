//! How one becomes a user.

use sqlx::Connection;

use super::password::PasswordVerdict;
use super::profile::{Profile, refuse_common, taken_error};
use super::{Parts, Users, login_throttle, sql, subject};
use crate::audit_log::{self, Actor, AuditAction, Outcome};
use crate::error::{Error, Result};
use crate::http::origin::Origin;
use crate::idempotency::HashedKey;
use crate::idempotency::IdempotencyKey;
use crate::ids::UserId;
use crate::secret::Secret;

/// A user who was just made, or had been by the first attempt of the same request.
#[derive(Debug, Clone, Copy)]
pub struct Registered {
    pub id: UserId,
    pub replayed: bool,
}

impl Users {
    pub async fn register(
        &self,
        profile: &Profile,
        password: &Secret,
        key: &IdempotencyKey,
        origin: Origin,
    ) -> Result<Registered> {
        let Parts { db, hasher, metrics, .. } = &*self.0;
        // Not the password: a quick hash of it must not be kept.
        let key =
            key.hashed("anybody", "register", &profile.content().each_ref().map(String::as_str));
        let limits = login_throttle::of_registration(origin.address, self.0.registrations_max);
        self.count(&limits, "registration").await?;
        if let Some(done) = self.replayed(key, password).await? {
            return Ok(done);
        }
        refuse_common(profile, password)?;
        let hash = hasher.hash(password).await?;
        let mut db = db.acquire("users.register").await?;
        let mut tx = db.begin().await?;
        let Some(id) = sql::create(&mut tx, profile, &hash, key).await? else {
            let taken = sql::taken(&mut tx, profile, None).await?;
            tx.rollback().await?;
            drop(db);
            // The same request may have come first a moment ago.
            return self.replayed(key, password).await?.ok_or_else(|| taken_error(taken));
        };
        let by = Actor { name: "anybody", origin: Some(origin) };
        audit_log::append(
            &mut tx,
            metrics,
            by,
            AuditAction::Registered,
            Some(&subject(id)),
            Outcome::Done,
        )
        .await?;
        tx.commit().await?;
        Ok(Registered { id, replayed: false })
    }

    /// The user whom the same request has made already: the same profile, and the same password.
    async fn replayed(
        &self,
        key: Option<HashedKey>,
        password: &Secret,
    ) -> Result<Option<Registered>> {
        let Parts { db, hasher, .. } = &*self.0;
        let Some(key) = key else { return Ok(None) };
        let mut connection = db.acquire("users.of_key").await?;
        let Some((id, content)) = sql::of_key(&mut connection, key.hash).await? else {
            return Ok(None);
        };
        let hash = sql::password_hash(&mut connection, id).await?;
        drop(connection);
        let same = content == Some(key.content)
            && hasher.verify(password, hash.as_deref()).await? != PasswordVerdict::Wrong;
        if same {
            Ok(Some(Registered { id, replayed: true }))
        } else {
            Err(Error::IdempotencyKeyReused)
        }
    }
}
