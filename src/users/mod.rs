//! Users: people who sign in with a password and go on with a token.
//!
//! A token names a session, and a session is a row: a logout deletes it, a changed password deletes all the others,
//! and every process looks it up with each request, so both work at once and everywhere.

pub mod cli;
pub mod http;
mod login_throttle;
mod password;
mod password_policy;
mod profile;
mod registration;
mod session;
mod sql;
mod token;

use std::sync::Arc;
use std::time::Duration;

use time::OffsetDateTime;
use tokio_util::sync::CancellationToken;

use crate::auth::{Caller, Scope};
use crate::db::Database;
use crate::duration::duration;
use crate::error::{Error, Result};
use crate::ids::UserId;
use crate::secret::{Secret, from_setting};
use crate::telemetry::{Metrics, gauge_value};

use self::password::Hasher;
pub use self::profile::{Profile, ProfileChanges};
pub use self::registration::Registered;
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
    #[arg(long, env = "REVWALLET_JWT_SECRET", global = true, hide_env_values = true, value_parser = from_setting)]
    pub jwt_secret: Option<Secret>,
    /// The secret before it: tokens that it has signed are believed as well.
    #[arg(long, env = "REVWALLET_JWT_SECRET_BEFORE", global = true, hide_env_values = true, value_parser = from_setting)]
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

#[derive(Debug, Clone)]
pub struct User {
    pub id: UserId,
    pub profile: Profile,
    pub is_admin: bool,
    pub created_at: OffsetDateTime,
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
            metrics.wallet_auth_attempts_total.preregister(["password", outcome]);
        }
        for outcome in ["ok", "bad_credentials"] {
            metrics.wallet_auth_attempts_total.preregister(["token", outcome]);
        }
        for scope in ["login", "registration", "profile"] {
            metrics.wallet_rate_limited_total.preregister([scope]);
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
                sql::prune(&mut db, login_throttle::FORGET_AFTER).await?;
                let active = gauge_value(sql::active(&mut db).await?);
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

    async fn count(&self, limits: &[login_throttle::Limit], scope: &'static str) -> Result<bool> {
        let counted = login_throttle::count(&self.0.db, limits, "users.count_attempt").await;
        if matches!(counted, Err(Error::TooManyRequests { .. })) {
            self.0.metrics.wallet_rate_limited_total.with([scope]).increment(1);
            if scope == "login" {
                self.0.metrics.wallet_auth_attempts_total.with(["password", "locked"]).increment(1);
            }
        }
        counted
    }

    /// A user, for that user and for keys with `users:read`.
    pub async fn get(&self, caller: &Caller, id: UserId) -> Result<User> {
        caller.require_user_or_scope(id, Scope::UsersRead)?;
        self.find(id).await
    }

    /// A user, for other services: only with a key.
    pub async fn get_internal(&self, caller: &Caller, id: UserId) -> Result<User> {
        caller.require_scope(Scope::UsersRead)?;
        self.find(id).await
    }

    async fn find(&self, id: UserId) -> Result<User> {
        let found = sql::find(&mut *self.0.db.acquire("users.get").await?, id).await?;
        found.ok_or(Error::UserNotFound)
    }

    /// Youngest age that a user may change theirs to: the minimum, if they have given an age.
    pub async fn age_min_of(&self, caller: &Caller, id: UserId) -> Result<i16> {
        caller.require_user_or_scope(id, Scope::Admin)?;
        let has_age = self.find(id).await?.profile.age.is_some();
        Ok(if has_age { self.0.age_min } else { 0 })
    }

    pub fn age_min(&self) -> i16 {
        self.0.age_min
    }
}

/// Name of a user in the audit log.
fn subject(id: UserId) -> String {
    format!("user:{id}")
}
