//! `revwallet user` and `revwallet jwt`: manage roles and signing keys from the command line.

use anyhow::{Context, bail};
use serde::Serialize;
use sqlx::Connection;

use super::http::UserBody;
use super::{UserRole, UsersArgs, sql, subject, token};
use crate::audit_log::{self, Actor, AuditAction, Outcome};
use crate::db::Database;
use crate::error::Error;
use crate::output::OutputArgs;
use crate::telemetry::Metrics;

#[derive(Debug, clap::Subcommand)]
pub enum UserCommand {
    /// Give a user a role.
    Role {
        /// User name or e-mail address of the user.
        login: String,
        #[arg(value_enum)]
        role: UserRole,
    },
}

#[derive(Debug, clap::Subcommand)]
pub enum JwtCommand {
    /// Sign new tokens with a new key. Tokens that were signed with an earlier key stay valid until they expire.
    Rotate,
}

/// Runs a `user` command and prints its result.
pub async fn run_user(
    db: &Database,
    metrics: &Metrics,
    command: UserCommand,
    output: OutputArgs,
) -> anyhow::Result<()> {
    let UserCommand::Role { login, role } = command;
    let changed = async {
        let mut db = db.acquire("users.set_role").await?;
        let mut tx = db.begin().await?;
        let id = sql::set_role(&mut tx, &login, role).await?;
        if let Some(id) = id {
            audit_log::append(
                &mut tx,
                metrics,
                Actor::OPERATOR,
                AuditAction::RoleChanged,
                Some(&subject(id)),
                Outcome::Done,
            )
            .await?;
        }
        let user = match id {
            Some(id) => sql::find(&mut tx, id).await?,
            None => None,
        };
        tx.commit().await?;
        Ok(user)
    };
    let user = changed.await.map_err(Error::into_cause)?;
    let user = user.with_context(|| format!("there is no user `{login}`"))?;
    output.print(
        user,
        |user| UserBody::try_from(user).map_err(Error::into_cause),
        |user| Ok(format!("user {} has the role {}", user.id, role.name())),
    )
}

/// The key that signs new tokens.
#[derive(Serialize)]
struct SigningKeyBody {
    kid: String,
}

/// Runs a `jwt` command, which manages signing keys, and prints its result.
pub async fn run_jwt(
    db: &Database,
    metrics: &Metrics,
    args: &UsersArgs,
    command: &JwtCommand,
    output: OutputArgs,
) -> anyhow::Result<()> {
    let JwtCommand::Rotate = command;
    if args.jwt_secret.is_some() {
        bail!(
            "tokens are signed with --jwt-secret: set --jwt-secret to a new secret, and --jwt-secret-before to the old secret"
        );
    }
    let rotated = async {
        let kid = token::rotate(db, args.token_lifetime).await?;
        let mut db = db.acquire("users.note_rotation").await?;
        audit_log::append(
            &mut db,
            metrics,
            Actor::OPERATOR,
            AuditAction::JwtRotated,
            Some(&kid),
            Outcome::Done,
        )
        .await?;
        Ok(kid)
    };
    let kid = rotated.await.map_err(Error::into_cause)?;
    output.print(
        kid,
        |kid| Ok(SigningKeyBody { kid }),
        |kid| Ok(format!("key {kid} signs new tokens")),
    )
}
