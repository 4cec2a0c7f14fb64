//! SQL statements for users, sessions and signing keys.

use std::collections::HashMap;
use std::time::Duration;

use sqlx::PgConnection;
use time::OffsetDateTime;
use uuid::Uuid;

use super::profile::TakenNames;
use super::{Profile, User, UserRole};
use crate::auth::SignedIn;
use crate::error::Result;
use crate::idempotency_key::HashedKey;
use crate::ids::UserId;

/// Inserts a user. Returns `None` if the idempotency key was already used, or if a name is taken.
pub(super) async fn create(
    db: &mut PgConnection,
    profile: &Profile,
    password_hash: Option<&str>,
    key: Option<HashedKey>,
) -> Result<Option<UserId>> {
    let Profile { username, email, first_name, last_name, age } = profile;
    let id = sqlx::query_scalar!(
        "insert into app_user (username, email, first_name, last_name, age, password_hash, key_hash, content_hash)
        values ($1, $2, $3, $4, $5, $6, $7, $8)
        on conflict do nothing
        returning id",
        username.as_deref(),
        email,
        first_name.as_deref(),
        last_name.as_deref(),
        *age,
        password_hash,
        key.map(|key| key.hash),
        key.map(|key| key.content),
    );
    Ok(id.fetch_optional(db).await?.map(UserId))
}

/// Returns the user that was created with this idempotency key, and the hash of the request that created the user.
pub(super) async fn find_by_key(
    db: &mut PgConnection,
    hash: Uuid,
) -> Result<Option<(UserId, Option<Uuid>)>> {
    let row = sqlx::query!("select id, content_hash from app_user where key_hash = $1", hash);
    Ok(row.fetch_optional(db).await?.map(|row| (UserId(row.id), row.content_hash)))
}

/// Returns the password hash of a user; `None` for a user without a password.
pub(super) async fn password_hash(db: &mut PgConnection, id: UserId) -> Result<Option<String>> {
    let hash = sqlx::query_scalar!("select password_hash from app_user where id = $1", id.0);
    Ok(hash.fetch_optional(db).await?.flatten())
}

/// Returns whether users other than `except` already have the user name or the e-mail address of a profile.
pub(super) async fn find_taken(
    db: &mut PgConnection,
    profile: &Profile,
    except: Option<UserId>,
) -> Result<TakenNames> {
    let row = sqlx::query!(
        r#"select
            exists (select from app_user where lower(username) = lower($1) and id is distinct from $3) as "username!",
            exists (
                select from app_user
                where lower(email) = lower($2) and id is distinct from $3 and password_hash is not null
            ) as "email!""#,
        profile.username.as_deref(),
        profile.email,
        except.map(|id| id.0),
    );
    let row = row.fetch_one(db).await?;
    Ok(TakenNames { username: row.username, email: row.email })
}

pub(super) async fn find(db: &mut PgConnection, id: UserId) -> Result<Option<User>> {
    let row = sqlx::query!(
        "select id, username, email, first_name, last_name, age, role, created_at from app_user where id = $1",
        id.0
    );
    let Some(row) = row.fetch_optional(db).await? else { return Ok(None) };
    let profile = Profile {
        username: row.username,
        email: row.email,
        first_name: row.first_name,
        last_name: row.last_name,
        age: row.age,
    };
    let role = row.role.parse()?;
    Ok(Some(User { id: UserId(row.id), profile, role, created_at: row.created_at }))
}

/// Returns the id and the password hash of the user with this user name or e-mail address, if the user has a password.
pub(super) async fn credentials(
    db: &mut PgConnection,
    login: &str,
) -> Result<Option<(UserId, String)>> {
    let row = sqlx::query!(
        r#"
        select id as "id!", password_hash as "password_hash!"
        from app_user where lower(username) = lower($1) and password_hash is not null and role <> 'house'
        union all
        select id, password_hash from app_user
        where lower(email) = lower($1) and password_hash is not null and role <> 'house'
        limit 1"#,
        login
    );
    Ok(row.fetch_optional(db).await?.map(|row| (UserId(row.id), row.password_hash)))
}

/// Replaces the password hash `old`, unless a concurrent request has changed it. Returns whether the hash was replaced.
pub(super) async fn replace_hash(
    db: &mut PgConnection,
    id: UserId,
    old: &str,
    new: &str,
) -> Result<bool> {
    let update = sqlx::query!(
        "update app_user set password_hash = $3 where id = $1 and password_hash = $2",
        id.0,
        old,
        new
    );
    Ok(update.execute(db).await?.rows_affected() == 1)
}

/// Locks the row of a user until the transaction ends, and returns the profile.
pub(super) async fn lock(db: &mut PgConnection, id: UserId) -> Result<Option<Profile>> {
    let row = sqlx::query!(
        "select username, email, first_name, last_name, age from app_user where id = $1 and role <> 'house' for update",
        id.0
    );
    Ok(row.fetch_optional(db).await?.map(|row| Profile {
        username: row.username,
        email: row.email,
        first_name: row.first_name,
        last_name: row.last_name,
        age: row.age,
    }))
}

/// Updates a profile. Returns whether the user exists. Fails with a unique violation if a name is taken.
pub(super) async fn update(
    db: &mut PgConnection,
    id: UserId,
    profile: &Profile,
    password_hash: Option<&str>,
) -> sqlx::Result<bool> {
    let Profile { username, email, first_name, last_name, age } = profile;
    let done = sqlx::query!(
        "update app_user
        set username = $2, email = $3, first_name = $4, last_name = $5, age = $6,
            password_hash = coalesce($7, password_hash)
        where id = $1",
        id.0,
        username.as_deref(),
        email,
        first_name.as_deref(),
        last_name.as_deref(),
        *age,
        password_hash,
    );
    Ok(done.execute(db).await?.rows_affected() == 1)
}

/// Sets the role of a user that has a password. `login` is a user name or an e-mail address. Returns the id of the
/// user, or `None` if no user with a password has this login.
pub(super) async fn set_role(
    db: &mut PgConnection,
    login: &str,
    role: UserRole,
) -> Result<Option<UserId>> {
    let id = sqlx::query_scalar!(
        "update app_user set role = $2
        where (lower(username) = lower($1) or lower(email) = lower($1)) and password_hash is not null and role <> 'house'
        returning id",
        login,
        role.name()
    );
    Ok(id.fetch_optional(db).await?.map(UserId))
}

/// Inserts a session, unless the password has changed since it was verified. Returns whether the session was inserted.
pub(super) async fn begin_session(
    db: &mut PgConnection,
    id: Uuid,
    user: UserId,
    password_hash: &str,
    until: OffsetDateTime,
) -> Result<bool> {
    let done = sqlx::query!(
        "insert into session (id, app_user, expires_at)
        select $1, u.id, $4 from app_user u where u.id = $2 and u.password_hash = $3 for share",
        id,
        user.0,
        password_hash,
        until
    );
    Ok(done.execute(db).await?.rows_affected() == 1)
}

/// Returns the users of these sessions, in the same order; `None` for a session that has ended or expired.
pub(super) async fn find_sessions(
    db: &mut PgConnection,
    sessions: &[Uuid],
) -> Result<Vec<Option<SignedIn>>> {
    let rows = sqlx::query!(
        r#"select s.id as session, u.id, u.role = 'admin' as "is_admin!", s.expires_at
        from session s join app_user u on u.id = s.app_user
        where s.id = any ($1) and s.expires_at > now()"#,
        sessions,
    );
    let rows = rows.fetch_all(db).await?;
    let found = rows.into_iter().map(|row| SignedIn {
        id: UserId(row.id),
        is_admin: row.is_admin,
        session: row.session,
        expires_at: row.expires_at,
    });
    let found: HashMap<Uuid, SignedIn> = found.map(|user| (user.session, user)).collect();
    Ok(sessions.iter().map(|session| found.get(session).cloned()).collect())
}

/// Deletes a session. Returns whether it existed.
pub(super) async fn end_session(db: &mut PgConnection, id: Uuid) -> Result<bool> {
    let done = sqlx::query!("delete from session where id = $1", id).execute(db).await?;
    Ok(done.rows_affected() == 1)
}

/// Deletes the sessions of a user, except the given session.
pub(super) async fn end_sessions(
    db: &mut PgConnection,
    user: UserId,
    except: Option<Uuid>,
) -> Result<()> {
    let done = sqlx::query!(
        "delete from session where app_user = $1 and id is distinct from $2",
        user.0,
        except
    );
    done.execute(db).await?;
    Ok(())
}

/// Deletes all sessions. Returns their number.
pub(crate) async fn end_all_sessions(db: &mut PgConnection) -> Result<u64> {
    Ok(sqlx::query!("delete from session").execute(db).await?.rows_affected())
}

/// Returns the number of users with a session that has not expired.
pub(super) async fn count_signed_in(db: &mut PgConnection) -> Result<i64> {
    let count = sqlx::query_scalar!(
        r#"select count(distinct app_user) as "count!" from session where expires_at > now()"#
    );
    Ok(count.fetch_one(db).await?)
}

/// Deletes expired sessions and expired attempt counters. Skips counters that a concurrent attempt has locked.
pub(super) async fn prune(db: &mut PgConnection, attempts_age_max: Duration) -> Result<()> {
    sqlx::query!("delete from session where expires_at < now()").execute(&mut *db).await?;
    let age = attempts_age_max.as_secs_f64();
    sqlx::query!(
        "delete from attempt where key in (
            select key from attempt
            where last_at < now() - make_interval(secs => $1)
                and (locked_until is null or locked_until < now())
            for update skip locked
        )",
        age
    )
    .execute(db)
    .await?;
    Ok(())
}

/// Returns the ids and secrets of the valid signing keys. The first key signs new tokens.
pub(super) async fn jwt_keys(db: &mut PgConnection) -> Result<Vec<(String, String)>> {
    let rows = sqlx::query!(
        "select kid, secret from jwt_key
        where retires_at is null or retires_at > now()
        order by retires_at is not null, created_at desc"
    );
    Ok(rows.fetch_all(db).await?.into_iter().map(|row| (row.kid, row.secret)).collect())
}

/// Adds a key that signs new tokens. The previous keys stay valid for `overlap`.
pub(super) async fn add_jwt_key(
    db: &mut PgConnection,
    kid: &str,
    secret: &str,
    overlap: Duration,
) -> Result<()> {
    sqlx::query!(
        "with retired as (
            update jwt_key set retires_at = now() + make_interval(secs => $3) where retires_at is null
        ), forgotten as (
            delete from jwt_key where retires_at < now()
        )
        insert into jwt_key (kid, secret) values ($1, $2)",
        kid,
        secret,
        overlap.as_secs_f64(),
    )
    .execute(db)
    .await?;
    Ok(())
}
