//! Users: people who sign in with a password and go on with a token.
//!
//! A token names a session, and a session is a row: a logout deletes it, a changed password deletes all the others,
//! and every process looks it up with each request, so both work at once and everywhere.

pub mod cli;
mod common;
pub mod http;
mod limit;
mod password;
mod sql;
mod token;

use std::sync::Arc;
use std::time::Duration;

use anyhow::anyhow;
use sqlx::Connection;
use time::OffsetDateTime;
use tokio_util::sync::CancellationToken;
use uuid::Uuid;

use crate::config::duration;
use crate::db::Database;
use crate::error::{Error, FieldError, Result};
use crate::http::auth::{Caller, Origin, SignedIn, Who};
use crate::http::idempotency::IdempotencyKey;
use crate::ledger::transfer::Key;
use crate::secret::{Secret, digest};
use crate::telemetry::Metrics;
use crate::trail::{self, Action, By};

use self::password::{Hasher, Verdict};
pub(crate) use self::sql::end_all_sessions;
use self::token::Tokens;

/// How often what is over is forgotten.
const PRUNE_INTERVAL: Duration = Duration::from_mins(10);

#[derive(Debug, Clone, clap::Args)]
#[command(next_help_heading = "Users")]
pub struct UsersArgs {
    #[command(flatten)]
    pub password: PasswordArgs,
    /// What tokens are signed with: at least 32 characters that nobody can guess [default: keys in the database].
    #[arg(long, env = "REVWALLET_JWT_SECRET", global = true, hide_env_values = true)]
    pub jwt_secret: Option<Secret>,
    /// The secret before it: tokens that it has signed are believed as well.
    #[arg(long, env = "REVWALLET_JWT_SECRET_BEFORE", global = true, hide_env_values = true)]
    pub jwt_secret_before: Option<Secret>,
    /// How long a sign-in lasts.
    #[arg(long, env = "REVWALLET_TOKEN_LIFETIME", global = true, default_value = "1d", value_parser = duration)]
    pub token_lifetime: Duration,
    /// Youngest age at which one may register, where the age is asked.
    #[arg(long, env = "REVWALLET_AGE_MIN", global = true, default_value_t = 18)]
    pub age_min: i16,
    /// Registrations from one address before the next one has to wait.
    #[arg(long, env = "REVWALLET_REGISTRATIONS_MAX", global = true, default_value_t = 60)]
    pub registrations_max: i32,
}

/// What a hash of a password costs. Hashes that cost less are replaced when their owner signs in.
#[derive(Debug, Clone, clap::Args)]
#[command(next_help_heading = "Users")]
pub struct PasswordArgs {
    /// Memory of one hash, in KiB.
    #[arg(long, env = "REVWALLET_PASSWORD_MEMORY", global = true, default_value_t = 19_456)]
    pub password_memory: u32,
    /// Passes over that memory.
    #[arg(long, env = "REVWALLET_PASSWORD_PASSES", global = true, default_value_t = 2)]
    pub password_passes: u32,
    /// Most hashes that are computed at once: each takes a whole core for a while [default: half of the cores].
    #[arg(long, env = "REVWALLET_PASSWORD_HASHES_MAX", global = true)]
    pub password_hashes_max: Option<usize>,
    /// Most that wait for one; the next is told to come back.
    #[arg(long, env = "REVWALLET_PASSWORD_WAITING_MAX", global = true, default_value_t = 256)]
    pub password_waiting_max: usize,
}

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
pub struct Changes {
    pub username: Option<String>,
    pub email: Option<String>,
    pub first_name: Option<String>,
    pub last_name: Option<String>,
    pub age: Option<i16>,
    pub password: Option<Secret>,
}

#[derive(Debug, Clone)]
pub struct User {
    pub id: i64,
    pub profile: Profile,
    pub is_admin: bool,
    pub created_at: OffsetDateTime,
}

/// A user who was just made, or had been by the first attempt of the same request.
#[derive(Debug, Clone, Copy)]
pub struct Registered {
    pub id: i64,
    pub replayed: bool,
}

/// Everything one can do with users. A cheap handle.
#[derive(Clone)]
pub struct Users(Arc<Parts>);

struct Parts {
    db: Database,
    hasher: Hasher,
    tokens: Tokens,
    age_min: i16,
    registrations_max: i32,
    metrics: Arc<Metrics>,
}

impl Users {
    pub async fn open(
        db: &Database,
        args: &UsersArgs,
        metrics: &Arc<Metrics>,
    ) -> anyhow::Result<Self> {
        for outcome in ["ok", "bad_credentials", "locked"] {
            metrics.wallet_auth_attempts_total.announce(["password", outcome]);
        }
        for outcome in ["ok", "bad_credentials"] {
            metrics.wallet_auth_attempts_total.announce(["token", outcome]);
        }
        for scope in ["login", "registration", "profile"] {
            metrics.wallet_rate_limited_total.announce([scope]);
        }
        let given = [&args.jwt_secret, &args.jwt_secret_before].into_iter().flatten();
        let given: Vec<Secret> =
            given.filter(|secret| !secret.reveal().is_empty()).cloned().collect();
        Ok(Self(Arc::new(Parts {
            hasher: Hasher::new(&args.password, Arc::clone(metrics))?,
            tokens: Tokens::open(db, &given, args.token_lifetime).await?,
            db: db.clone(),
            age_min: args.age_min,
            registrations_max: args.registrations_max,
            metrics: Arc::clone(metrics),
        })))
    }

    /// Forgets what is over and counts who is there, until the program stops.
    pub async fn keep(self, stopping: CancellationToken) -> anyhow::Result<()> {
        let mut clock = tokio::time::interval(PRUNE_INTERVAL);
        while stopping.run_until_cancelled(clock.tick()).await.is_some() {
            let pruned = async {
                let mut db = self.0.db.acquire("users.prune").await?;
                sql::prune(&mut db, limit::FORGET_AFTER).await?;
                let active = crate::ledger::to_metric(sql::active(&mut db).await?);
                self.0.metrics.wallet_active_users.set(active);
                Ok::<_, Error>(())
            };
            if let Err(error) = pruned.await {
                let cause = format!("{:#}", error.into_cause());
                tracing::warn!(error.message = cause, "old sessions could not be forgotten");
            }
        }
        Ok(())
    }

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
        let limits = limit::of_registration(origin.address, self.0.registrations_max);
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
        let by = By { actor: "anybody", origin: Some(origin) };
        trail::note(&mut tx, metrics, by, Action::Registered, Some(&subject(id)), true).await?;
        tx.commit().await?;
        Ok(Registered { id, replayed: false })
    }

    /// The user whom the same request has made already: the same profile, and the same password.
    async fn replayed(&self, key: Option<Key>, password: &Secret) -> Result<Option<Registered>> {
        let Parts { db, hasher, .. } = &*self.0;
        let Some(key) = key else { return Ok(None) };
        let mut connection = db.acquire("users.of_key").await?;
        let Some((id, content)) = sql::of_key(&mut connection, key.hash).await? else {
            return Ok(None);
        };
        let hash = sql::password_hash(&mut connection, id).await?;
        drop(connection);
        let same = content == Some(key.content)
            && hasher.verify(password, hash.as_deref()).await? != Verdict::Wrong;
        if same {
            Ok(Some(Registered { id, replayed: true }))
        } else {
            Err(Error::IdempotencyKeyReused)
        }
    }

    /// A token, for who knows the password.
    pub async fn sign_in(&self, login: &str, password: &Secret, origin: Origin) -> Result<Secret> {
        let Parts { db, hasher, tokens, metrics, .. } = &*self.0;
        let known = sql::credentials(&mut *db.acquire("users.credentials").await?, login).await?;
        let limits = limit::of_login(known.as_ref().map(|(id, _)| *id), login, origin.address);
        let locks = self.count(&limits, "login").await?;
        let hash = known.as_ref().map(|(_, hash)| hash.as_str());
        let verdict = hasher.verify(password, hash).await?;
        let Some((user, hash)) = known.filter(|_| verdict != Verdict::Wrong) else {
            self.note_failure(login, locks, origin).await?;
            return Err(Error::InvalidCredentials);
        };
        let hash = match verdict {
            Verdict::RightButCheap(dearer) => self.rehash(user, password, hash, dearer).await?,
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
        let by = By { actor: &name, origin: Some(origin) };
        trail::note(&mut tx, metrics, by, Action::SignedIn, Some(&name), true).await?;
        tx.commit().await?;
        drop(connection);
        limit::forgive(db, &limits).await?;
        metrics.wallet_auth_attempts_total.with(["password", "ok"]).increment(1);
        tokens.sign(user, jti, until).await.map(Secret::from)
    }

    /// Keeps a dearer hash of a password that was right. Another login may have done so a moment ago.
    async fn rehash(
        &self,
        user: i64,
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
            Some(now) if hasher.verify(password, Some(&now)).await? != Verdict::Wrong => Ok(now),
            _ => Err(Error::InvalidCredentials),
        }
    }

    async fn note_failure(&self, login: &str, locks: bool, origin: Origin) -> Result<()> {
        let Parts { db, metrics, .. } = &*self.0;
        metrics.wallet_auth_attempts_total.with(["password", "bad_credentials"]).increment(1);
        let mut db = db.acquire("users.note_failure").await?;
        // Looked up again for everybody, so that it takes as long for nobody.
        let user = sql::credentials(&mut db, login).await?.map(|(id, _)| subject(id));
        let by = By { actor: "anybody", origin: Some(origin) };
        let subject = user.as_deref();
        trail::note(&mut db, metrics, by, Action::SignedIn, subject, false).await?;
        if locks {
            trail::note(&mut db, metrics, by, Action::Locked, subject, true).await?;
        }
        Ok(())
    }

    async fn count(&self, limits: &[limit::Limit], scope: &'static str) -> Result<bool> {
        let counted = limit::count(&self.0.db, limits, "users.count_attempt").await;
        if matches!(counted, Err(Error::TooManyRequests { .. })) {
            self.0.metrics.wallet_rate_limited_total.with([scope]).increment(1);
            if scope == "login" {
                self.0.metrics.wallet_auth_attempts_total.with(["password", "locked"]).increment(1);
            }
        }
        counted
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
            let by = By { actor: &name, origin: Some(origin) };
            trail::note(&mut tx, metrics, by, Action::SignedOut, Some(&name), true).await?;
        }
        tx.commit().await?;
        Ok(())
    }

    pub async fn get(&self, id: i64) -> Result<User> {
        let found = sql::find(&mut *self.0.db.acquire("users.get").await?, id).await?;
        found.ok_or(Error::UserNotFound)
    }

    /// Changes what a user tells; a new password ends all sessions but the one that changes it.
    pub async fn update(
        &self,
        id: i64,
        changes: &Changes,
        caller: &Caller,
        origin: Origin,
    ) -> Result<()> {
        let Parts { db, hasher, metrics, .. } = &*self.0;
        // Names can be tried out here as well as at the door, and each password costs as much as a login.
        self.count(&limit::of_change(id), "profile").await?;
        let hash = match &changes.password {
            Some(password) => {
                let before = self.get(id).await?.profile;
                refuse_common(&changes.applied(before), password)?;
                Some(hasher.hash(password).await?)
            }
            None => None,
        };
        let session = match caller.who() {
            Who::User(user) => Some(user.session),
            Who::Anybody | Who::Key(_) => None,
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
        let by = By { actor: caller.name(), origin: Some(origin) };
        if hash.is_some() {
            let own = session.filter(|_| caller.name() == name);
            sql::end_sessions(&mut tx, id, own).await?;
            trail::note(&mut tx, metrics, by, Action::PasswordChanged, Some(&name), true).await?;
        }
        if profile != before {
            trail::note(&mut tx, metrics, by, Action::ProfileChanged, Some(&name), true).await?;
        }
        tx.commit().await?;
        Ok(())
    }

    pub fn age_min(&self) -> i16 {
        self.0.age_min
    }
}

impl Profile {
    /// For the idempotency key.
    fn content(&self) -> [String; 5] {
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

impl Changes {
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

/// The session that a token names. Whoever reads the database cannot tell the token's id from it.
fn session_of(jti: Uuid) -> Uuid {
    digest(&["session", &jti.to_string()])
}

/// How the trail names a user.
fn subject(id: i64) -> String {
    format!("user:{id}")
}

fn refuse_common(profile: &Profile, password: &Secret) -> Result<()> {
    let local = profile.email.split('@').next().unwrap_or_default();
    let names = [profile.username.as_deref().unwrap_or_default(), &profile.email, local];
    common::refuse(password.reveal(), &names).map_err(|detail| {
        Error::InvalidProfile(vec![FieldError { pointer: "/password".to_owned(), detail }])
    })
}

fn taken_error((username, email): (bool, bool)) -> Error {
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
