//! Signing in and out, and whose token it is in between.

use sqlx::Connection;
use time::OffsetDateTime;
use uuid::Uuid;

use super::password::PasswordVerdict;
use super::{Parts, Users, login_throttle, sql, subject};
use crate::audit_log::{self, Actor, AuditAction, Outcome};
use crate::auth::SignedIn;
use crate::error::{Error, Result};
use crate::http::origin::Origin;
use crate::ids::UserId;
use crate::secret::{Secret, digest};

impl Users {
    /// A token, for who knows the password.
    pub async fn sign_in(&self, login: &str, password: &Secret, origin: Origin) -> Result<Secret> {
        let Parts { db, hasher, tokens, metrics, .. } = &*self.0;
        let known = sql::credentials(&mut *db.acquire("users.credentials").await?, login).await?;
        let limits =
            login_throttle::of_login(known.as_ref().map(|(id, _)| *id), login, origin.address);
        let locks = self.count(&limits, "login").await?;
        let hash = known.as_ref().map(|(_, hash)| hash.as_str());
        let verdict = hasher.verify(password, hash).await?;
        let Some((user, hash)) = known.filter(|_| verdict != PasswordVerdict::Wrong) else {
            self.note_failure(login, locks, origin).await?;
            return Err(Error::InvalidCredentials);
        };
        let hash = match verdict {
            PasswordVerdict::RightButCheap(dearer) => {
                self.rehash(user, password, hash, dearer).await?
            }
            _ => hash,
        };
        let jti = Uuid::new_v4();
        let session = session_of(jti);
        let until = OffsetDateTime::now_utc() + tokens.lifetime;
        let mut connection = db.acquire("users.sign_in").await?;
        let mut tx = connection.begin().await?;
        if !sql::begin_session(&mut tx, session, user, &hash, until).await? {
            // The password was changed in this very moment.
            return Err(Error::InvalidCredentials);
        }
        let name = subject(user);
        let by = Actor { name: &name, origin: Some(origin) };
        audit_log::append(&mut tx, metrics, by, AuditAction::SignedIn, Some(&name), Outcome::Done)
            .await?;
        tx.commit().await?;
        drop(connection);
        login_throttle::forgive(db, &limits).await?;
        metrics.wallet_auth_attempts_total.with(["password", "ok"]).increment(1);
        tokens.sign(user, jti, until).await.map(Secret::from)
    }

    /// Keeps a dearer hash of a password that was right. Another login may have done so a moment ago.
    async fn rehash(
        &self,
        user: UserId,
        password: &Secret,
        hash: String,
        dearer: String,
    ) -> Result<String> {
        let Parts { db, hasher, .. } = &*self.0;
        let mut connection = db.acquire("users.rehash").await?;
        if sql::rehash(&mut connection, user, &hash, &dearer).await? {
            return Ok(dearer);
        }
        let now = sql::password_hash(&mut connection, user).await?;
        drop(connection);
        match now {
            Some(now) if hasher.verify(password, Some(&now)).await? != PasswordVerdict::Wrong => {
                Ok(now)
            }
            _ => Err(Error::InvalidCredentials),
        }
    }

    async fn note_failure(&self, login: &str, locks: bool, origin: Origin) -> Result<()> {
        let Parts { db, metrics, .. } = &*self.0;
        metrics.wallet_auth_attempts_total.with(["password", "bad_credentials"]).increment(1);
        let mut db = db.acquire("users.note_failure").await?;
        // Looked up again for everybody, so that it takes as long for nobody.
        let user = sql::credentials(&mut db, login).await?.map(|(id, _)| subject(id));
        let by = Actor { name: "anybody", origin: Some(origin) };
        let subject = user.as_deref();
        audit_log::append(&mut db, metrics, by, AuditAction::SignedIn, subject, Outcome::Refused)
            .await?;
        if locks {
            audit_log::append(&mut db, metrics, by, AuditAction::Locked, subject, Outcome::Done)
                .await?;
        }
        Ok(())
    }

    /// Whose token it is, if its session is still there.
    pub async fn identify(&self, token: &Secret) -> Result<SignedIn> {
        let Parts { db, tokens, metrics, .. } = &*self.0;
        let found = match tokens.read(token).await? {
            Some(claims) => {
                let session = session_of(claims.jti);
                let row = sql::session(&mut *db.acquire("users.session").await?, session).await?;
                row.map(|(id, is_admin)| SignedIn { id, is_admin, session })
            }
            None => None,
        };
        let outcome = if found.is_some() { "ok" } else { "bad_credentials" };
        metrics.wallet_auth_attempts_total.with(["token", outcome]).increment(1);
        found.ok_or(Error::Unauthenticated)
    }

    /// Ends the session of a token, which may have ended before.
    pub async fn sign_out(&self, token: &Secret, origin: Origin) -> Result<()> {
        let Parts { db, tokens, metrics, .. } = &*self.0;
        let claims = tokens.read(token).await?.ok_or(Error::NoToken)?;
        let mut db = db.acquire("users.sign_out").await?;
        let mut tx = db.begin().await?;
        if sql::end_session(&mut tx, session_of(claims.jti)).await? {
            let name = format!("user:{}", claims.sub);
            let by = Actor { name: &name, origin: Some(origin) };
            audit_log::append(
                &mut tx,
                metrics,
                by,
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

/// The session that a token names. Whoever reads the database cannot tell the token's id from it.
fn session_of(jti: Uuid) -> Uuid {
    digest(&["session", &jti.to_string()])
}
