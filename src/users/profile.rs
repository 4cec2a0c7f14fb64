//! Profiles of users, and their updates.

use anyhow::anyhow;
use sqlx::Connection;

use super::password_policy::{self, PasswordPolicy};
use super::{ThrottleScope, Users, UsersParts, login_throttle, sql, subject};
use crate::audit_log::{self, Actor, AuditAction, Outcome};
use crate::auth::{Caller, Principal, Scope};
use crate::error::{CredentialFault, Error, FieldError, Result};
use crate::http::origin::Origin;
use crate::ids::UserId;
use crate::secret::Secret;

/// Profile of a user.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Profile {
    pub username: Option<String>,
    pub email: String,
    pub first_name: Option<String>,
    pub last_name: Option<String>,
    pub age: Option<i16>,
}

/// Changes to a profile. Fields that are `None` stay unchanged.
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
    /// Updates a profile. A new password ends all sessions of the user, except the session that sets the password.
    pub async fn update(
        &self,
        caller: &Caller,
        origin: Origin,
        id: UserId,
        changes: &ProfileChanges,
    ) -> Result<()> {
        caller.require_user_or_scope(id, Scope::Admin)?;
        let UsersParts { db, hasher, metrics, password_policy, .. } = &*self.0;
        // Updates are throttled, because their errors reveal which names are taken, and because a new password costs as
        // much CPU time as a login.
        self.throttle(&login_throttle::profile_limits(id), ThrottleScope::Profile).await?;
        let hash = match &changes.password {
            Some(password) => {
                let before = self.find(id).await?.profile;
                require_strong_password(&changes.applied_to(before), password, *password_policy)?;
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
        // The session may have ended while the update waited for the lock.
        if let Some(session) = session
            && sql::find_sessions(&mut tx, &[session]).await?.iter().all(Option::is_none)
        {
            return Err(Error::Unauthenticated(CredentialFault::Invalid));
        }
        let profile = changes.applied_to(before.clone());
        if profile == before && hash.is_none() {
            return Ok(());
        }
        match sql::update(&mut tx, id, &profile, hash.as_deref()).await {
            Ok(true) => {}
            Ok(false) => return Err(Error::UserNotFound),
            Err(sqlx::Error::Database(cause)) if cause.is_unique_violation() => {
                tx.rollback().await?;
                let taken = sql::find_taken(&mut db, &profile, Some(id)).await?;
                return Err(taken.into_error());
            }
            Err(cause) => return Err(cause.into()),
        }
        let name = subject(id);
        let actor = Actor { name: caller.name(), origin: Some(origin) };
        if hash.is_some() {
            let own_session = session.filter(|_| caller.name() == name);
            sql::end_sessions(&mut tx, id, own_session).await?;
            audit_log::append(
                &mut tx,
                metrics,
                actor,
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
                actor,
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
    /// Returns the profile as text, to detect an idempotency key that is reused for another registration.
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
    /// Returns the profile `before` with these changes applied.
    fn applied_to(&self, before: Profile) -> Profile {
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

/// Returns an error if the policy refuses the password, for example because it is common or is the user's own name.
pub(super) fn require_strong_password(
    profile: &Profile,
    password: &Secret,
    policy: PasswordPolicy,
) -> Result<()> {
    let local = profile.email.split('@').next().unwrap_or_default();
    let names = [profile.username.as_deref().unwrap_or_default(), &profile.email, local];
    password_policy::refuse(password.reveal(), &names, policy).map_err(|detail| {
        Error::InvalidProfile(vec![FieldError { pointer: "/password".to_owned(), detail }])
    })
}

/// Whether other users already have the user name or the e-mail address of a profile.
#[derive(Debug, Clone, Copy)]
pub(super) struct TakenNames {
    pub(super) username: bool,
    pub(super) email: bool,
}

impl TakenNames {
    pub(super) fn into_error(self) -> Error {
        let taken = [("/username", self.username), ("/email", self.email)];
        let taken = taken.into_iter().filter(|(_, is_taken)| *is_taken);
        let fields: Vec<FieldError> = taken
            .map(|(pointer, _)| FieldError {
                pointer: pointer.to_owned(),
                detail: "is taken".to_owned(),
            })
            .collect();
        if fields.is_empty() {
            return Error::Internal(anyhow!(
                "a user could not be written although no name is taken"
            ));
        }
        Error::InvalidProfile(fields)
    }
}
