//! What users tell of themselves, and may change.

use anyhow::anyhow;
use sqlx::Connection;

use super::{Parts, Users, login_throttle, password_policy, sql, subject};
use crate::audit_log::{self, Actor, AuditAction, Outcome};
use crate::auth::{Caller, Principal, Scope};
use crate::error::{Error, FieldError, Result};
use crate::http::origin::Origin;
use crate::ids::UserId;
use crate::secret::Secret;

/// What a user tells about themselves.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Profile {
    pub username: Option<String>,
    pub email: String,
    pub first_name: Option<String>,
    pub last_name: Option<String>,
    pub age: Option<i16>,
}

/// What a user wants to tell otherwise.
#[derive(Debug, Clone, Default)]
pub struct ProfileChanges {
    pub username: Option<String>,
    pub email: Option<String>,
    pub first_name: Option<String>,
    pub last_name: Option<String>,
    pub age: Option<i16>,
    pub password: Option<Secret>,
}

impl Users {
    /// Changes what a user tells; a new password ends all sessions but the one that changes it.
    pub async fn update(
        &self,
        caller: &Caller,
        origin: Origin,
        id: UserId,
        changes: &ProfileChanges,
    ) -> Result<()> {
        caller.require_user_or_scope(id, Scope::Admin)?;
        let Parts { db, hasher, metrics, .. } = &*self.0;
        // Names can be tried out here as well as at the door, and each password costs as much as a login.
        self.count(&login_throttle::of_change(id), "profile").await?;
        let hash = match &changes.password {
            Some(password) => {
                let before = self.find(id).await?.profile;
                refuse_common(&changes.applied(before), password)?;
                Some(hasher.hash(password).await?)
            }
            None => None,
        };
        let session = match caller.principal() {
            Principal::User(user) => Some(user.session),
            Principal::Anonymous | Principal::ApiKey(_) | Principal::Operator => None,
        };
        let mut db = db.acquire("users.update").await?;
        let mut tx = db.begin().await?;
        let before = sql::lock(&mut tx, id).await?.ok_or(Error::UserNotFound)?;
        // Whoever was signed out while this waited for its turn changes nothing any more.
        if let Some(session) = session
            && sql::session(&mut tx, session).await?.is_none()
        {
            return Err(Error::Unauthenticated);
        }
        let profile = changes.applied(before.clone());
        if profile == before && hash.is_none() {
            return Ok(());
        }
        match sql::update(&mut tx, id, &profile, hash.as_deref()).await {
            Ok(true) => {}
            Ok(false) => return Err(Error::UserNotFound),
            Err(sqlx::Error::Database(cause)) if cause.is_unique_violation() => {
                tx.rollback().await?;
                return Err(taken_error(sql::taken(&mut db, &profile, Some(id)).await?));
            }
            Err(cause) => return Err(cause.into()),
        }
        let name = subject(id);
        let by = Actor { name: caller.name(), origin: Some(origin) };
        if hash.is_some() {
            let own = session.filter(|_| caller.name() == name);
            sql::end_sessions(&mut tx, id, own).await?;
            audit_log::append(
                &mut tx,
                metrics,
                by,
                AuditAction::PasswordChanged,
                Some(&name),
                Outcome::Done,
            )
            .await?;
        }
        if profile != before {
            audit_log::append(
                &mut tx,
                metrics,
                by,
                AuditAction::ProfileChanged,
                Some(&name),
                Outcome::Done,
            )
            .await?;
        }
        tx.commit().await?;
        Ok(())
    }
}

impl Profile {
    /// For the idempotency key.
    pub(super) fn content(&self) -> [String; 5] {
        let text = |text: &Option<String>| text.clone().unwrap_or_default();
        [
            text(&self.username),
            self.email.clone(),
            text(&self.first_name),
            text(&self.last_name),
            self.age.map_or_else(String::new, |age| age.to_string()),
        ]
    }
}

impl ProfileChanges {
    /// What is absent stays as it was.
    fn applied(&self, before: Profile) -> Profile {
        let Self { username, email, first_name, last_name, age, .. } = self.clone();
        Profile {
            username: username.or(before.username),
            email: email.unwrap_or(before.email),
            first_name: first_name.or(before.first_name),
            last_name: last_name.or(before.last_name),
            age: age.or(before.age),
        }
    }
}

pub(super) fn refuse_common(profile: &Profile, password: &Secret) -> Result<()> {
    let local = profile.email.split('@').next().unwrap_or_default();
    let names = [profile.username.as_deref().unwrap_or_default(), &profile.email, local];
    password_policy::refuse(password.reveal(), &names).map_err(|detail| {
        Error::InvalidProfile(vec![FieldError { pointer: "/password".to_owned(), detail }])
    })
}

pub(super) fn taken_error((username, email): (bool, bool)) -> Error {
    let field =
        |pointer: &str| FieldError { pointer: pointer.to_owned(), detail: "is taken".to_owned() };
    let mut fields = Vec::new();
    if username {
        fields.push(field("/username"));
    }
    if email {
        fields.push(field("/email"));
    }
    if fields.is_empty() {
        return Error::Internal(anyhow!("a user could not be written, and no name is taken"));
    }
    Error::InvalidProfile(fields)
}
