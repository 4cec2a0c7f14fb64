//! Users: people who sign in with a password and receive a token, which authenticates their requests.
//!
//! A token names a session, which is a row in the database. A logout deletes the session, and a new password deletes
//! the other sessions of the user. Every process looks up the session for each request, so a logout or a new password
//! takes effect at once in all processes.

pub mod cli;
pub mod http;
mod login_throttle;
mod names;
mod password;
mod password_policy;
mod profile;
mod registration;
mod role;
mod session;
mod sql;
mod token;

use std::sync::Arc;
use std::time::Duration;

use time::OffsetDateTime;
use tokio_util::sync::CancellationToken;
use uuid::Uuid;

use crate::auth::{Access, Caller, Policy, Scope, SignedIn};
use crate::combiner::Combiner;
use crate::db::Database;
use crate::error::{Error, Result};
use crate::ids::UserId;
use crate::secret::{Secret, from_setting};
use crate::settings;
use crate::telemetry::{Metrics, gauge_value};
use crate::throttle::{self, AttemptLimit, NextAttempt};

use self::password::Hasher;
pub use self::password_policy::PasswordPolicy;
pub use self::profile::{Profile, ProfileChanges};
pub use self::registration::Registered;
pub use self::role::UserRole;
pub(crate) use self::sql::end_all_sessions;
use self::token::Tokens;

/// Interval at which expired sessions are deleted and the signed-in users are counted.
const UPKEEP_INTERVAL: Duration = Duration::from_mins(10);

#[derive(Debug, Clone, clap::Args)]
#[command(next_help_heading = "Users")]
pub struct UsersArgs {
    #[command(flatten)]
    pub password: PasswordArgs,
    /// Secret that signs tokens: at least 32 random characters [default: keys in the database].
    #[arg(long, env = "REVWALLET_JWT_SECRET", global = true, hide_env_values = true, value_parser = from_setting)]
    pub jwt_secret: Option<Secret>,
    /// Previous secret: tokens that were signed with it stay valid.
    #[arg(long, env = "REVWALLET_JWT_SECRET_BEFORE", global = true, hide_env_values = true, value_parser = from_setting)]
    pub jwt_secret_before: Option<Secret>,
    /// Lifetime of a session.
    #[arg(long, env = "REVWALLET_TOKEN_LIFETIME", global = true, default_value = "1d", value_parser = settings::whole_seconds)]
    pub token_lifetime: Duration,
    /// Minimum age for registrations that require an age.
    #[arg(long, env = "REVWALLET_AGE_MIN", global = true, default_value_t = 18, value_parser = clap::value_parser!(i16).range(0..=150))]
    pub age_min: i16,
    /// Passwords that are accepted: any of 8 to 128 characters, or only uncommon ones [default: any with open access, else uncommon].
    #[arg(long, env = "REVWALLET_PASSWORD_POLICY", global = true, value_enum)]
    pub password_policy: Option<PasswordPolicy>,
    /// Number of registrations from one address after which further registrations have to wait.
    #[arg(long, env = "REVWALLET_REGISTRATIONS_MAX", global = true, default_value_t = 60, value_parser = clap::value_parser!(i32).range(1..))]
    pub registrations_max: i32,
}

/// Cost of password hashes. A stored hash that costs less is replaced when its user signs in.
#[derive(Debug, Clone, clap::Args)]
#[command(next_help_heading = "Users")]
pub struct PasswordArgs {
    /// Memory for computing a password hash, in KiB.
    #[arg(long, env = "REVWALLET_PASSWORD_MEMORY", global = true, default_value_t = 19_456, value_parser = clap::value_parser!(u32).range(8..=4_194_304))]
    pub password_memory: u32,
    /// Number of passes over the memory when computing a password hash.
    #[arg(long, env = "REVWALLET_PASSWORD_PASSES", global = true, default_value_t = 2, value_parser = clap::value_parser!(u32).range(1..=1_000))]
    pub password_passes: u32,
    /// Maximum number of password hashes that are computed at once, each on a core of its own [default: half of the
    /// cores].
    #[arg(long, env = "REVWALLET_PASSWORD_HASHES_MAX", global = true, value_parser = settings::count())]
    pub password_hashes_max: Option<usize>,
    /// Maximum number of requests that wait for a password hash; further requests get the status 503.
    #[arg(long, env = "REVWALLET_PASSWORD_WAITING_MAX", global = true, default_value_t = 256, value_parser = settings::count())]
    pub password_waiting_max: usize,
}

#[derive(Debug, Clone)]
pub struct User {
    pub id: UserId,
    pub profile: Profile,
    pub role: UserRole,
    pub created_at: OffsetDateTime,
}

/// Kind of attempt that is throttled.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum ThrottleScope {
    Login,
    Registration,
    Profile,
}

impl ThrottleScope {
    const ALL: [Self; 3] = [Self::Login, Self::Registration, Self::Profile];

    const fn name(self) -> &'static str {
        match self {
            Self::Login => "login",
            Self::Registration => "registration",
            Self::Profile => "profile",
        }
    }
}

/// The operations on users. Cheap to clone.
#[derive(Clone)]
pub struct Users(Arc<UsersParts>);

struct UsersParts {
    db: Database,
    hasher: Hasher,
    tokens: Tokens,
    sessions: Combiner<Uuid, Option<SignedIn>>,
    access: Access,
    password_policy: PasswordPolicy,
    age_min: i16,
    registrations_max: i32,
    metrics: Arc<Metrics>,
}

impl Users {
    pub async fn open(
        db: &Database,
        args: &UsersArgs,
        policy: Policy,
        metrics: &Arc<Metrics>,
    ) -> anyhow::Result<Self> {
        for outcome in ["ok", "bad_credentials", "locked"] {
            metrics.wallet_auth_attempts_total.preregister(["password", outcome]);
        }
        for outcome in ["ok", "bad_credentials"] {
            metrics.wallet_auth_attempts_total.preregister(["token", outcome]);
        }
        for scope in ThrottleScope::ALL {
            metrics.wallet_rate_limited_total.preregister([scope.name()]);
        }
        let secrets = [&args.jwt_secret, &args.jwt_secret_before].into_iter().flatten();
        let secrets: Vec<Secret> =
            secrets.filter(|secret| !secret.reveal().is_empty()).cloned().collect();
        Ok(Self(Arc::new(UsersParts {
            hasher: Hasher::new(&args.password, Arc::clone(metrics))?,
            tokens: Tokens::open(db, &secrets, args.token_lifetime).await?,
            sessions: Combiner::default(),
            db: db.clone(),
            access: policy.access,
            password_policy: args.password_policy.unwrap_or(match policy.access {
                Access::Open => PasswordPolicy::Length,
                Access::Closed => PasswordPolicy::Uncommon,
            }),
            age_min: args.age_min,
            registrations_max: args.registrations_max,
            metrics: Arc::clone(metrics),
        })))
    }

    /// Deletes expired sessions and expired attempt counters, and updates the signed-in users metric, at regular
    /// intervals until shutdown.
    pub async fn run_upkeep(self, stopping: CancellationToken) -> anyhow::Result<()> {
        let mut clock = tokio::time::interval(UPKEEP_INTERVAL);
        while stopping.run_until_cancelled(clock.tick()).await.is_some() {
            if let Err(error) = self.upkeep().await {
                let cause = format!("{:#}", error.into_cause());
                tracing::warn!(
                    error.message = cause,
                    "could not delete expired sessions or count signed-in users; retrying in ten minutes"
                );
            }
        }
        Ok(())
    }

    /// Deletes expired sessions and expired attempt counters, and updates the signed-in users metric.
    async fn upkeep(&self) -> Result<()> {
        let mut db = self.0.db.acquire("users.prune").await?;
        sql::prune(&mut db, throttle::EXPIRY).await?;
        let signed_in = sql::count_signed_in(&mut db).await?;
        self.0.metrics.wallet_active_users.set(gauge_value(signed_in));
        Ok(())
    }

    /// Counts an attempt, and refuses the attempt if the client has to wait.
    async fn throttle(&self, limits: &[AttemptLimit], scope: ThrottleScope) -> Result<NextAttempt> {
        let counted = throttle::count_attempt(&self.0.db, limits, "users.count_attempt").await;
        if matches!(counted, Err(Error::TooManyRequests { .. })) {
            self.0.metrics.wallet_rate_limited_total.with([scope.name()]).increment(1);
            if scope == ThrottleScope::Login {
                self.0.metrics.wallet_auth_attempts_total.with(["password", "locked"]).increment(1);
            }
        }
        counted
    }

    /// Returns a user. The caller must be this user or have the scope `users:read`.
    pub async fn get(&self, caller: &Caller, id: UserId) -> Result<User> {
        caller.require_user_or_scope(id, Scope::UsersRead)?;
        self.find(id).await
    }

    /// Returns a user to another service, which must have the scope `users:read`.
    pub async fn get_internal(&self, caller: &Caller, id: UserId) -> Result<User> {
        caller.require_scope(Scope::UsersRead)?;
        self.find(id).await
    }

    async fn find(&self, id: UserId) -> Result<User> {
        let found = sql::find(&mut *self.0.db.snapshot("users.get").await?, id).await?;
        found.ok_or(Error::UserNotFound)
    }

    /// Returns the lowest age that an update of this user's profile may set: the value of `--age-min`, or zero if the
    /// profile has no age yet.
    pub async fn age_min_for_update(&self, caller: &Caller, id: UserId) -> Result<i16> {
        caller.require_user_or_scope(id, Scope::Admin)?;
        let has_age = self.find(id).await?.profile.age.is_some();
        Ok(if has_age { self.0.age_min } else { 0 })
    }

    /// Minimum age for registrations that require an age.
    pub fn age_min(&self) -> i16 {
        self.0.age_min
    }
}

/// Returns the name that the audit log uses for a user.
fn subject(id: UserId) -> String {
    format!("user:{id}")
}
