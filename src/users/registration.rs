//! Registration of users.

use sqlx::Connection;

use super::password::PasswordVerdict;
use super::profile::{Profile, require_strong_password};
use super::{ThrottleScope, Users, UsersParts, login_throttle, sql, subject};
use crate::audit_log::{self, Actor, AuditAction, Outcome};
use crate::auth::Access;
use crate::error::{Error, FieldError, Result};
use crate::http::origin::Origin;
use crate::idempotency_key::{HashedKey, IdempotencyKey};
use crate::ids::UserId;
use crate::secret::Secret;

/// A user that this request, or an earlier request with the same idempotency key, has created.
#[derive(Debug, Clone, Copy)]
pub struct Registered {
    pub id: UserId,
    pub replayed: bool,
}

impl Users {
    /// Creates a user. The password may be absent only if access is open. A user without a password cannot sign in and
    /// is treated as a guest.
    pub async fn register(
        &self,
        profile: &Profile,
        password: Option<&Secret>,
        key: &IdempotencyKey,
        origin: Origin,
    ) -> Result<Registered> {
        let UsersParts { db, hasher, metrics, access, .. } = &*self.0;
        if password.is_none() && *access != Access::Open {
            let (pointer, detail) = ("/password".to_owned(), "is required".to_owned());
            return Err(Error::InvalidProfile(vec![FieldError { pointer, detail }]));
        }
        // The hashed content excludes the password, because a fast hash of a password must not be stored.
        let key =
            key.hashed("anybody", "register", &profile.content().each_ref().map(String::as_str));
        let limits = login_throttle::registration_limits(origin.address, self.0.registrations_max);
        self.throttle(&limits, ThrottleScope::Registration).await?;
        if let Some(replay) = self.find_replay(key, password).await? {
            return Ok(replay);
        }
        let hash = match password {
            Some(password) => {
                require_strong_password(profile, password, self.0.password_policy)?;
                Some(hasher.hash(password).await?)
            }
            None => None,
        };
        let mut db = db.acquire("users.register").await?;
        let mut tx = db.begin().await?;
        let Some(id) = sql::create(&mut tx, profile, hash.as_deref(), key).await? else {
            let taken = sql::find_taken(&mut tx, profile, None).await?;
            tx.rollback().await?;
            drop(db);
            // A concurrent request with the same idempotency key may have created the user.
            return self.find_replay(key, password).await?.ok_or_else(|| taken.into_error());
        };
        let actor = Actor { name: "anybody", origin: Some(origin) };
        audit_log::append(
            &mut tx,
            metrics,
            actor,
            AuditAction::Registered,
            Some(&subject(id)),
            Outcome::Done,
        )
        .await?;
        tx.commit().await?;
        Ok(Registered { id, replayed: false })
    }

    /// Returns the user that an earlier request with this idempotency key has created. Returns an error if the earlier
    /// request had a different profile or password.
    async fn find_replay(
        &self,
        key: Option<HashedKey>,
        password: Option<&Secret>,
    ) -> Result<Option<Registered>> {
        let UsersParts { db, hasher, .. } = &*self.0;
        let Some(key) = key else { return Ok(None) };
        let mut connection = db.acquire("users.of_key").await?;
        let Some((id, content)) = sql::find_by_key(&mut connection, key.hash).await? else {
            return Ok(None);
        };
        let hash = sql::password_hash(&mut connection, id).await?;
        drop(connection);
        let is_same_password = match password {
            Some(password) => {
                hasher.verify(password, hash.as_deref()).await? != PasswordVerdict::Wrong
            }
            None => hash.is_none(),
        };
        // A request with a different password counts as a request with different content.
        key.require_same_content(content.filter(|_| is_same_password))?;
        Ok(Some(Registered { id, replayed: true }))
    }
}
