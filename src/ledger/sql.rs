//! Every statement of the ledger. Those of the writer are plain texts, because it pipelines them itself.

use sqlx::PgConnection;
use uuid::Uuid;

use super::account::AccountId;
use super::money::Minor;
use super::transfer::{Posted, TransferKind, TransferRow};

/// One batch. See `ledger.post` in the migration.
pub(super) const POST: &str = "select ledger.post(\
    $1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12, $13, $14, $15, $16, $17, $18, $19, $20, $21, $22, $23, $24, $25, $26)";

/// Wakes who follows the book, when the last batches did not. Losing it in a crash loses nothing: readers also poll.
pub(super) const NOTIFY: &str = "select pg_notify('book', ($1::int)::text)";

/// Starts the transaction of a batch with companions, or of a turn under the book's lock.
pub(super) const BEGIN: &str = "begin";

/// Ends it; a rollback when anything in it failed.
pub(super) const COMMIT: &str = "commit";

/// Who has sealed this seq.
pub(super) const SEAL_BEHIND: &str = "
    select batch_id, at
    from ledger.seal
    where book = $1 and prev_seq = $2";

/// Where the book ends.
pub(super) const HEAD: &str = "
    select seq, batch_id
    from ledger.seal
    where book = $1
    order by seq desc
    limit 1";

/// The postings of these keys.
pub(super) const KEYS: &str = "
    select key_hash, content_hash, first_seq, last_seq
    from ledger.posting
    where book = $1 and key_hash = any ($2)";

/// What deciding needs to know of these accounts: two probes for the balance, two for what is held, one for the state.
pub(super) const ACCOUNTS: &str = "
    select a.account, a.currency, a.decimals, d.seq, d.debit_balance, c.seq, c.credit_balance, s.kind,
        coalesce(case when coalesce(hc.seq, 0) < hd.seq then hd.debit_balance else hc.credit_balance end, 0)
    from unnest($2::bigint[]) wanted (account)
    join ledger.account a on a.book = $1 and a.account = wanted.account
    left join lateral (
        select t.seq, t.debit_balance from ledger.transfer t
        where t.book = a.book and t.debit = a.account order by t.seq desc limit 1
    ) d on true
    left join lateral (
        select t.seq, t.credit_balance from ledger.transfer t
        where t.book = a.book and t.credit = a.account order by t.seq desc limit 1
    ) c on true
    left join lateral (
        select t.kind from ledger.transfer t
        where t.book = a.book and t.debit = a.account and t.kind < 10 order by t.seq desc limit 1
    ) s on true
    left join lateral (
        select t.seq, t.debit_balance from ledger.transfer t
        where t.book = a.book and t.debit = -1099511627776 - a.account and a.account > 0
        order by t.seq desc limit 1
    ) hd on true
    left join lateral (
        select t.seq, t.credit_balance from ledger.transfer t
        where t.book = a.book and t.credit = -1099511627776 - a.account and a.account > 0
        order by t.seq desc limit 1
    ) hc on true
    ";

/// What others wrote since this seq, and who has sealed that one: another than before when the database has lost commits.
pub(super) const CATCH_UP: &str = "
    select head_seq, head_batch, kind, debit, credit, debit_balance, credit_balance,
        (select batch_id from ledger.seal where book = $1 and seq = $2)
    from ledger.catch_up($1, $2, $3, $4)";

/// The backend of a connection, to recognize it later.
pub(super) const BACKEND: &str = "
    select pid, backend_start from pg_stat_activity where pid = pg_backend_pid()";

/// Asks a backend of a lost connection to end. A row for as long as it runs.
pub(super) const END_BACKEND: &str = "
    select pg_terminate_backend(pid) from pg_stat_activity where pid = $1 and backend_start = $2";

/// Settings on which it depends that a commit survives a crash.
pub(super) const DURABILITY: &str = "
    select name, setting from pg_settings
    where name in ('fsync', 'full_page_writes', 'synchronous_commit')";

/// The role that the program works as.
pub(super) const SET_ROLE: &str = "set role revwallet_app";

/// Whether this cluster let the migration create that role, and this user may become it: before PostgreSQL 16, who
/// belonged to a role could.
pub(super) const HAS_ROLE: &str = "
    select coalesce((
        select pg_has_role(r.oid,
            case when current_setting('server_version_num')::int < 160000 then 'member' else 'set' end)
        from pg_roles r where r.rolname = 'revwallet_app'), false)";

/// What every connection sets: a process that hangs must not hold the book.
/// The plans do not depend on the values, so planning once is enough; by index, because a table that was small when
/// it was planned will have grown.
pub(super) const SESSION: &str = "
    set lock_timeout = '10s';
    set idle_in_transaction_session_timeout = '5s';
    set jit = off;
    set enable_seqscan = off;
    set enable_hashjoin = off;
    set enable_mergejoin = off;
    set plan_cache_mode = force_generic_plan";

/// What the poster of these rows was told.
pub(super) async fn posted(
    db: &mut PgConnection,
    book: i32,
    key_hash: Uuid,
    first_seq: i64,
    last_seq: i64,
) -> sqlx::Result<Option<Posted>> {
    let rows = sqlx::query!(
        r#"
        select at, kind, leg, legs, debit, credit, amount, debit_balance, credit_balance
        from ledger.transfer
        where book = $1 and seq between $2 and $3
            and exists (
                select from ledger.posting p
                where p.book = $1 and p.key_hash = $4 and p.first_seq = $2 and p.last_seq = $3
            )
        order by seq"#,
        book,
        first_seq,
        last_seq,
        key_hash,
    )
    .fetch_all(db)
    .await?;
    let Some(at) = rows.first().map(|row| row.at) else { return Ok(None) };
    let rows = rows.into_iter().map(|row| {
        Some(TransferRow {
            kind: TransferKind::from_code(row.kind)?,
            leg: row.leg,
            legs: row.legs,
            debit: AccountId(row.debit),
            credit: AccountId(row.credit),
            amount: Minor(row.amount),
            debit_balance: Minor(row.debit_balance),
            credit_balance: Minor(row.credit_balance),
        })
    });
    let Some(rows) = rows.collect() else { return Ok(None) };
    Ok(Some(Posted { first_seq, last_seq, at, replayed: true, rows, held: Vec::new() }))
}

/// The posting of a key: its content, its first and its last seq.
pub(super) async fn keyed(
    db: &mut PgConnection,
    book: i32,
    key_hash: Uuid,
) -> sqlx::Result<Option<(Uuid, i64, i64)>> {
    let row = sqlx::query!(
        "select content_hash, first_seq, last_seq from ledger.posting where book = $1 and key_hash = $2",
        book,
        key_hash,
    )
    .fetch_optional(db)
    .await?;
    Ok(row.map(|row| (row.content_hash, row.first_seq, row.last_seq)))
}
