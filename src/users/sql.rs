//! The statements of users, sessions and signing keys.

use std::time::Duration;

use sqlx::PgConnection;
use time::OffsetDateTime;
use uuid::Uuid;

use super::{Profile, User};
use crate::error::Result;
use crate::idempotency::HashedKey;
use crate::ids::UserId;

/// A new user; nothing when the key was used or a name is taken.
pub(super) async fn create(
    db: &mut PgConnection,
    profile: &Profile,
    password_hash: &str,
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

/// The user that was made under this key, and the content it was made of.
pub(super) async fn of_key(
    db: &mut PgConnection,
    hash: Uuid,
) -> Result<Option<(UserId, Option<Uuid>)>> {
    let row = sqlx::query!("select id, content_hash from app_user where key_hash = $1", hash);
    Ok(row.fetch_optional(db).await?.map(|row| (UserId(row.id), row.content_hash)))
}

/// What a user's password is held against.
pub(super) async fn password_hash(db: &mut PgConnection, id: UserId) -> Result<Option<String>> {
    let hash = sqlx::query_scalar!("select password_hash from app_user where id = $1", id.0);
    Ok(hash.fetch_optional(db).await?)
}

/// Which of these names belong to somebody else.
pub(super) async fn taken(
    db: &mut PgConnection,
    profile: &Profile,
    except: Option<UserId>,
) -> Result<(bool, bool)> {
    let row = sqlx::query!(
        r#"select
            exists (select from app_user where lower(username) = lower($1) and id is distinct from $3) as "username!",
            exists (select from app_user where lower(email) = lower($2) and id is distinct from $3) as "email!""#,
        profile.username.as_deref(),
        profile.email,
        except.map(|id| id.0),
    );
    let row = row.fetch_one(db).await?;
    Ok((row.username, row.email))
}

pub(super) async fn find(db: &mut PgConnection, id: UserId) -> Result<Option<User>> {
    let row = sqlx::query!(
        "select id, username, email, first_name, last_name, age, role, created_at from app_user where id = $1",
        id.0
    );
    Ok(row.fetch_optional(db).await?.map(|row| User {
        id: UserId(row.id),
        profile: Profile {
            username: row.username,
            email: row.email,
            first_name: row.first_name,
            last_name: row.last_name,
            age: row.age,
        },
        is_admin: row.role == "admin",
        created_at: row.created_at,
    }))
}

/// Id and hash of whoever signs in under this name, or this address when it has an `@`.
pub(super) async fn credentials(
    db: &mut PgConnection,
    login: &str,
) -> Result<Option<(UserId, String)>> {
    let row = sqlx::query!(
        r#"
        select id as "id!", password_hash as "password_hash!" from app_user where lower(username) = lower($1)
        union all
        select id, password_hash from app_user where lower(email) = lower($1)
        limit 1"#,
        login
    );
    Ok(row.fetch_optional(db).await?.map(|row| (UserId(row.id), row.password_hash)))
}

/// Replaces a hash, if it is still the one that was checked; whether it was.
pub(super) async fn rehash(
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

/// Lets nobody else change this user until the transaction ends; as they are then.
pub(super) async fn lock(db: &mut PgConnection, id: UserId) -> Result<Option<Profile>> {
    let row = sqlx::query!(
        "select username, email, first_name, last_name, age from app_user where id = $1 for update",
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

/// Whether there is such a user. A name that is taken meanwhile is an error of the database.
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

/// Gives a user a role; the id, if there is one.
pub(super) async fn set_role(
    db: &mut PgConnection,
    login: &str,
    role: &str,
) -> Result<Option<UserId>> {
    let id = sqlx::query_scalar!(
        "update app_user set role = $2 where lower(username) = lower($1) or lower(email) = lower($1) returning id",
        login,
        role
    );
    Ok(id.fetch_optional(db).await?.map(UserId))
}

/// Begins a session, unless the password has changed since it was checked.
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

/// Whose session it is, and whether they are an admin.
pub(super) async fn session(db: &mut PgConnection, id: Uuid) -> Result<Option<(UserId, bool)>> {
    let row = sqlx::query!(
        r#"select u.id, u.role = 'admin' as "is_admin!"
        from session s join app_user u on u.id = s.app_user
        where s.id = $1 and s.expires_at > now()"#,
        id
    );
    Ok(row.fetch_optional(db).await?.map(|row| (UserId(row.id), row.is_admin)))
}

pub(super) async fn end_session(db: &mut PgConnection, id: Uuid) -> Result<bool> {
    let gone = sqlx::query!("delete from session where id = $1", id).execute(db).await?;
    Ok(gone.rows_affected() == 1)
}

/// Ends every session of a user but one.
pub(super) async fn end_sessions(
    db: &mut PgConnection,
    user: UserId,
    but: Option<Uuid>,
) -> Result<()> {
    let gone = sqlx::query!(
        "delete from session where app_user = $1 and id is distinct from $2",
        user.0,
        but
    );
    gone.execute(db).await?;
    Ok(())
}

/// Ends every session of everybody; how many.
pub(crate) async fn end_all_sessions(db: &mut PgConnection) -> Result<u64> {
    Ok(sqlx::query!("delete from session").execute(db).await?.rows_affected())
}

/// How many users are signed in.
pub(super) async fn active(db: &mut PgConnection) -> Result<i64> {
    let count = sqlx::query_scalar!(
        r#"select count(distinct app_user) as "count!" from session where expires_at > now()"#
    );
    Ok(count.fetch_one(db).await?)
}

/// Forgets sessions that are over and attempts that count no more, but for what somebody is working on.
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

/// The keys that are believed, the one that signs first: ids and secrets.
pub(super) async fn jwt_keys(db: &mut PgConnection) -> Result<Vec<(String, String)>> {
    let rows = sqlx::query!(
        "select kid, secret from jwt_key
        where retires_at is null or retires_at > now()
        order by retires_at is not null, created_at desc"
    );
    Ok(rows.fetch_all(db).await?.into_iter().map(|row| (row.kid, row.secret)).collect())
}

/// Adds a key that signs from now on; the others retire after the overlap.
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
