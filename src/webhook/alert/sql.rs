//! SQL statements for balance alerts.

use sqlx::PgConnection;
use time::OffsetDateTime;
use uuid::Uuid;

use super::{Alert, AlertDirection};
use crate::error::{Error, Result};
use crate::idempotency_key::HashedKey;
use crate::ids::{AlertId, WalletId};
use crate::ledger::money::Minor;

/// Locks a wallet until the transaction ends, so that concurrent requests cannot create more alerts than a wallet may
/// have.
pub(super) async fn lock_wallet(db: &mut PgConnection, wallet: WalletId) -> Result<()> {
    sqlx::query!(
        "select pg_advisory_xact_lock(hashtextextended('alert ' || $1::bigint, 0))",
        wallet.0
    )
    .execute(db)
    .await?;
    Ok(())
}

/// Row of the table `alert`.
struct AlertRow {
    id: AlertId,
    wallet: WalletId,
    from_seq: i64,
    line: i64,
    direction: String,
    created_at: OffsetDateTime,
}

impl TryFrom<AlertRow> for Alert {
    type Error = Error;

    fn try_from(row: AlertRow) -> Result<Self> {
        let AlertRow { id, wallet, from_seq, line, direction, created_at } = row;
        let direction = direction.parse()?;
        Ok(Self { id, wallet, from_seq, threshold: Minor(line), direction, created_at })
    }
}

/// Returns the alerts of these wallets, oldest first.
pub(in crate::webhook) async fn list_alerts(
    db: &mut PgConnection,
    wallets: &[WalletId],
) -> Result<Vec<Alert>> {
    let ids: Vec<i64> = wallets.iter().map(|wallet| wallet.0).collect();
    let rows = sqlx::query_as!(
        AlertRow,
        r#"select id as "id: AlertId", wallet as "wallet: WalletId", from_seq, line, direction, created_at
        from alert where wallet = any ($1) order by id"#,
        &ids
    );
    rows.fetch_all(db).await?.into_iter().map(Alert::try_from).collect()
}

/// Inserts an alert. Returns `None` if the idempotency key was already used.
pub(super) async fn create_alert(
    db: &mut PgConnection,
    caller: &str,
    wallet: WalletId,
    direction: AlertDirection,
    threshold: Minor,
    key: Option<HashedKey>,
) -> Result<Option<Alert>> {
    let row = sqlx::query_as!(
        AlertRow,
        r#"insert into alert (caller, wallet, direction, line, key_hash, content_hash, from_seq)
        values ($1, $2, $3, $4, $5, $6, (select seq from ledger.last_seal(ledger.book_of($2))))
        on conflict do nothing
        returning id as "id: AlertId", wallet as "wallet: WalletId", from_seq, line, direction, created_at"#,
        caller,
        wallet.0,
        direction.name(),
        threshold.0,
        key.map(|key| key.hash),
        key.map(|key| key.content),
    );
    row.fetch_optional(db).await?.map(Alert::try_from).transpose()
}

/// Returns the alert that was created with this idempotency key, and the hash of the request that created it.
pub(super) async fn find_alert_by_key(
    db: &mut PgConnection,
    key: Uuid,
) -> Result<Option<(Alert, Option<Uuid>)>> {
    let row = sqlx::query!(
        "select id, wallet, from_seq, line, direction, created_at, content_hash
        from alert where key_hash = $1",
        key
    );
    let Some(row) = row.fetch_optional(db).await? else { return Ok(None) };
    let alert = Alert {
        id: AlertId(row.id),
        wallet: WalletId(row.wallet),
        from_seq: row.from_seq,
        threshold: Minor(row.line),
        direction: row.direction.parse()?,
        created_at: row.created_at,
    };
    Ok(Some((alert, row.content_hash)))
}

/// Deletes an alert. Returns whether it existed.
pub(super) async fn delete_alert(
    db: &mut PgConnection,
    wallet: WalletId,
    id: AlertId,
) -> Result<bool> {
    let done = sqlx::query!("delete from alert where id = $1 and wallet = $2", id.0, wallet.0);
    Ok(done.execute(db).await?.rows_affected() == 1)
}
