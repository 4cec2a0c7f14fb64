//! Sessions: signing in, signing out, and finding the user that a token belongs to.

use std::time::Duration;

use anyhow::anyhow;
use sqlx::Connection;
use time::OffsetDateTime;
use uuid::Uuid;

use super::login_throttle;
use super::password::PasswordVerdict;
use super::{ThrottleScope, Users, UsersParts, sql, subject};
use crate::audit_log::{self, Actor, AuditAction, Outcome};
use crate::auth::SignedIn;
use crate::error::{CredentialFault, Error, Result};
use crate::http::origin::Origin;
use crate::ids::UserId;
use crate::secret::{Secret, digest};
use crate::throttle::{self, NextAttempt};

/// Timeout of a session lookup. Without a timeout, a stuck lookup would block all requests that share it.
const LOOKUP_TIMEOUT: Duration = Duration::from_secs(5);

impl Users {
    /// Begins a session and returns its token, if the password is right.
    pub async fn sign_in(&self, login: &str, password: &Secret, origin: Origin) -> Result<Secret> {
        let UsersParts { db, hasher, tokens, metrics, .. } = &*self.0;
        let known = sql::credentials(&mut *db.acquire("users.credentials").await?, login).await?;
        let limits =
            login_throttle::login_limits(known.as_ref().map(|(id, _)| *id), login, origin.address);
        let next = self.throttle(&limits, ThrottleScope::Login).await?;
        let hash = known.as_ref().map(|(_, hash)| hash.as_str());
        let verdict = hasher.verify(password, hash).await?;
        let Some((user, hash)) = known.filter(|_| verdict != PasswordVerdict::Wrong) else {
            self.record_failure(login, next, origin).await?;
            return Err(Error::InvalidCredentials);
        };
        let hash = match verdict {
            PasswordVerdict::RightButWeak(stronger) => {
                self.replace_hash(user, password, hash, stronger).await?
            }
            _ => hash,
        };
        let jti = Uuid::new_v4();
        let session = session_id(jti);
        let until = OffsetDateTime::now_utc() + tokens.lifetime;
        let mut connection = db.acquire("users.sign_in").await?;
        let mut tx = connection.begin().await?;
        if !sql::begin_session(&mut tx, session, user, &hash, until).await? {
            // The password was changed after it was verified.
            return Err(Error::InvalidCredentials);
        }
        let name = subject(user);
        let actor = Actor { name: &name, origin: Some(origin) };
        let action = AuditAction::SignedIn;
        audit_log::append(&mut tx, metrics, actor, action, Some(&name), Outcome::Done).await?;
        tx.commit().await?;
        drop(connection);
        throttle::record_success(db, &limits).await?;
        metrics.wallet_auth_attempts_total.with(["password", "ok"]).increment(1);
        tokens.sign(user, jti, until).await.map(Secret::from)
    }

    /// Replaces the stored hash of a verified password with a stronger hash, and returns the new hash. If a concurrent
    /// request has replaced the hash first, returns the hash that the concurrent request stored.
    async fn replace_hash(
        &self,
        user: UserId,
        password: &Secret,
        hash: String,
        stronger: String,
    ) -> Result<String> {
        let UsersParts { db, hasher, .. } = &*self.0;
        let mut connection = db.acquire("users.rehash").await?;
        if sql::replace_hash(&mut connection, user, &hash, &stronger).await? {
            return Ok(stronger);
        }
        let current = sql::password_hash(&mut connection, user).await?;
        drop(connection);
        match current {
            Some(current)
                if hasher.verify(password, Some(&current)).await? != PasswordVerdict::Wrong =>
            {
                Ok(current)
            }
            _ => Err(Error::InvalidCredentials),
        }
    }

    async fn record_failure(&self, login: &str, next: NextAttempt, origin: Origin) -> Result<()> {
        let UsersParts { db, metrics, .. } = &*self.0;
        metrics.wallet_auth_attempts_total.with(["password", "bad_credentials"]).increment(1);
        let mut db = db.acquire("users.note_failure").await?;
        // The user is looked up again, so that known and unknown names take the same time.
        let user = sql::credentials(&mut db, login).await?.map(|(id, _)| subject(id));
        let actor = Actor { name: "anybody", origin: Some(origin) };
        let subject = user.as_deref();
        let action = AuditAction::SignedIn;
        audit_log::append(&mut db, metrics, actor, action, subject, Outcome::Refused).await?;
        if next == NextAttempt::HasToWait {
            let action = AuditAction::Locked;
            audit_log::append(&mut db, metrics, actor, action, subject, Outcome::Done).await?;
        }
        Ok(())
    }

    /// Returns the user that a token belongs to, or an error if the token is invalid or its session has ended.
    pub async fn identify(&self, token: &Secret) -> Result<SignedIn> {
        let UsersParts { db, tokens, sessions, metrics, .. } = &*self.0;
        // Every request with a token needs this lookup, so concurrent requests share an SQL statement.
        let find = |sessions: Vec<Uuid>| async move {
            let mut db = db.acquire("users.session").await?;
            let found =
                tokio::time::timeout(LOOKUP_TIMEOUT, sql::find_sessions(&mut db, &sessions));
            let found = found.await.map_err(|_| {
                Error::DatabaseUnavailable(anyhow!("looking up sessions takes too long"))
            })?;
            Ok(found?.into_iter().map(Ok).collect())
        };
        let found = match tokens.read(token).await? {
            Ok(claims) => {
                let session = sessions.run(session_id(claims.jti), find).await?;
                session.ok_or(CredentialFault::Invalid)
            }
            Err(fault) => Err(fault),
        };
        let outcome = if found.is_ok() { "ok" } else { "bad_credentials" };
        metrics.wallet_auth_attempts_total.with(["token", outcome]).increment(1);
        found.map_err(Error::Unauthenticated)
    }

    /// Ends the session of a token. Succeeds if the session has already ended.
    pub async fn sign_out(&self, token: &Secret, origin: Origin) -> Result<()> {
        let UsersParts { db, tokens, metrics, .. } = &*self.0;
        let claims = tokens.read(token).await?.map_err(|_| Error::NoToken)?;
        let mut db = db.acquire("users.sign_out").await?;
        let mut tx = db.begin().await?;
        if sql::end_session(&mut tx, session_id(claims.jti)).await? {
            let name = format!("user:{}", claims.sub);
            let actor = Actor { name: &name, origin: Some(origin) };
            audit_log::append(
                &mut tx,
                metrics,
                actor,
                AuditAction::SignedOut,
                Some(&name),
                Outcome::Done,
            )
            .await?;
        }
        tx.commit().await?;
        Ok(())
    }
}

/// Returns the id under which the session of a token is stored. The id is a hash, so that a leaked copy of the database
/// does not reveal the ids of tokens.
fn session_id(jti: Uuid) -> Uuid {
    digest(&["session", &jti.to_string()])
}
