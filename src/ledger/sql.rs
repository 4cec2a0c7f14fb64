//! SQL statements of the ledger. The ledger writer's statements are plain text, not queries that are checked at compile
//! time, because the writer pipelines them over its own connection.

use sqlx::PgConnection;
use uuid::Uuid;

use super::account::AccountId;
use super::money::Minor;
use super::transfer::{Posted, TransferKind, TransferRow};
use crate::error::Result;

/// Writes a batch of postings with one call of the function `ledger.post`, which is defined in a migration.
pub(super) const POST: &str = "select ledger.post(\
    $1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12, $13, $14, $15, $16, $17, $18, $19, $20, $21, $22, $23, $24, $25, $26, $27)";

/// Wakes the tasks that read new transfers from the ledger, after batches that were sent without a notification. A lost
/// notification is harmless, because these tasks also poll.
pub(super) const NOTIFY: &str = "select pg_notify('book', ($1::int)::text)";

/// Begins an explicit transaction, for a batch that also writes rows of other modules or that is written under the
/// book's lock.
pub(super) const BEGIN: &str = "begin";

/// Commits the transaction that `BEGIN` started; rolls it back if any statement in it failed.
pub(super) const COMMIT: &str = "commit";

/// Rolls back the transaction that `BEGIN` started.
pub(super) const ROLLBACK: &str = "rollback";

/// Locks these books until the end of the transaction: waits for their batches in progress, and keeps new batches from
/// starting. The books must be in ascending order, so that two transactions that lock several books never deadlock.
pub(super) const LOCK_BOOKS: &str =
    "select pg_advisory_xact_lock(1885434485, book) from unnest($1::int[]) book";

/// Finds the successor of a batch: the committed batch whose predecessor ends at this seq.
pub(super) const NEXT_SEAL: &str = "
    select batch_id, at
    from ledger.seal
    where book = $1 and prev_seq = $2";

/// Finds the head of a book: the last seq of its newest committed batch, and the id of that batch.
pub(super) const HEAD: &str = "
    select seq, batch_id
    from ledger.seal
    where book = $1
    order by seq desc
    limit 1";

/// Counts the books.
pub(super) const BOOKS: &str = "select count(*)::int from ledger.book";

/// Finds the postings of these idempotency keys. The keys of all books are stored with the first book, so that each key
/// takes effect only once across all books.
///
/// `offset 0` keeps the planner from merging the inner query into the outer query. Otherwise the planner would choose
/// to read all postings of the book while the table is small, and would keep this slow plan when the table grows.
pub(super) const KEYS: &str = "
    select p.key_hash, p.content_hash, p.first_seq, p.last_seq
    from unnest($1::uuid[]) wanted (key_hash)
    cross join lateral (
        select key_hash, content_hash, first_seq, last_seq
        from ledger.posting
        where book = 1 and key_hash = wanted.key_hash
        offset 0
    ) p";

/// Like [`KEYS`], for the keys of refused postings. On a Citus cluster, first waits for the transactions that are
/// writing these keys. The refusal may be based on an account that such a transaction has already changed on another
/// server.
pub(super) const LATE_KEYS: &str =
    "select key_hash, content_hash, first_seq, last_seq from ledger.late_keys($1)";

/// Reads the account data that the rules for postings need: currency, balance, held balance and state. Each account
/// takes two index probes for the balance, two for the held balance, and one for the state. `offset 0` has the same
/// purpose as in [`KEYS`].
pub(super) const ACCOUNTS: &str = "
    select a.account, a.currency, a.decimals, d.seq, d.debit_balance, c.seq, c.credit_balance, s.kind,
        coalesce(case when coalesce(hc.seq, 0) < hd.seq then hd.debit_balance else hc.credit_balance end, 0)
    from unnest($2::bigint[]) wanted (account)
    cross join lateral (
        select book, account, currency, decimals,
            case when account > 0 then -1099511627776 - account end as hold
        from ledger.account
        where book = $1 and account = wanted.account
        offset 0
    ) a
    left join lateral (
        select t.seq, t.debit_balance from ledger.transfer t
        where t.book = $1 and t.debit = a.account order by t.seq desc limit 1
    ) d on true
    left join lateral (
        select t.seq, t.credit_balance from ledger.transfer t
        where t.book = $1 and t.credit = a.account order by t.seq desc limit 1
    ) c on true
    left join lateral (
        select t.kind from ledger.transfer t
        where t.book = $1 and t.debit = a.account and t.kind < 10 order by t.seq desc limit 1
    ) s on true
    left join lateral (
        select t.seq, t.debit_balance from ledger.transfer t
        where t.book = $1 and t.debit = a.hold order by t.seq desc limit 1
    ) hd on true
    left join lateral (
        select t.seq, t.credit_balance from ledger.transfer t
        where t.book = $1 and t.credit = a.hold order by t.seq desc limit 1
    ) hc on true
    ";

/// Reads the transfers that other processes wrote after a seq, and the id of the batch that ends at this seq. If that
/// id differs from the id that the writer knows, the database has lost commits.
pub(super) const CATCH_UP: &str = "
    select head_seq, head_batch, kind, debit, credit, debit_balance, credit_balance,
        (select batch_id from ledger.last_seal($1, $2 + 1) where seq = $2)
    from ledger.catch_up($1, $2, $3, $4)";

/// Identifies the server process (backend) of this connection, so that a later connection can terminate it.
pub(super) const BACKEND: &str = "
    select pid, backend_start from pg_stat_activity where pid = pg_backend_pid()";

/// Terminates the backend of a lost connection. Returns a row as long as that backend is running.
pub(super) const TERMINATE_BACKEND: &str = "
    select pg_terminate_backend(pid) from pg_stat_activity where pid = $1 and backend_start = $2";

/// On a Citus cluster, completes the commits to these books that a failure interrupted, and returns whether it has found
/// any; fails if it cannot complete them.
pub(super) const COMPLETE_COMMITS: &str = "select ledger.complete_commits($1)";

/// Tries to become the leader of a book (the process that writes its postings): takes the book's leader lock, unless
/// another session holds it. A session keeps the lock until the session ends. The constant number distinguishes the
/// leader locks from all other advisory locks.
pub(super) const TRY_TO_LEAD: &str = "select pg_try_advisory_lock(1819042162, $1)";

/// Stores the address of a book's leader, and the secret key that other processes present when they send postings to
/// it.
pub(super) const PUBLISH_LEADER: &str = "
    insert into ledger.leader (book, address, key)
    values ($1, $2, $3)
    on conflict (book) do update set address = excluded.address, key = excluded.key, since = clock_timestamp()";

/// Finds the address and the secret key of the process that last became leader of a book.
pub(super) const LEADER: &str = "select address, key from ledger.leader where book = $1";

/// Makes the database server end the session, which releases its locks, soon after the server loses contact with this
/// process's machine. Has no effect over a Unix socket.
pub(super) const DETECT_LOST_CLIENT: &str = "set tcp_keepalives_idle = 10; set tcp_keepalives_interval = 5; set tcp_keepalives_count = 3; set tcp_user_timeout = 25000";

/// The address from which this session was opened; null over a Unix socket.
pub(super) const OWN_ADDRESS: &str = "select inet_client_addr()";

/// Reads the server settings that decide whether a commit survives a crash.
pub(super) const DURABILITY: &str = "
    select name, setting from pg_settings
    where name in ('fsync', 'full_page_writes', 'synchronous_commit')";

/// Switches to the application's role.
pub(super) const SET_ROLE: &str = "set role revwallet_app";

/// Checks that the application's role exists and that this user may switch to it. The role is missing if the user that
/// ran the migrations was not permitted to create roles. Before PostgreSQL 16, every member of a role may switch to the
/// role.
pub(super) const HAS_ROLE: &str = "
    select coalesce((
        select pg_has_role(r.oid,
            case when current_setting('server_version_num')::int < 160000 then 'member' else 'set' end)
        from pg_roles r where r.rolname = 'revwallet_app'), false)";

/// Settings of each connection of the ledger. The timeouts keep a hanging process from blocking the ledger. Plans use
/// only indexes, because a table that is small at planning time grows later.
pub(super) const SESSION: &str = "
    set lock_timeout = '10s';
    set idle_in_transaction_session_timeout = '5s';
    set jit = off;
    set enable_seqscan = off;
    set enable_hashjoin = off;
    set enable_mergejoin = off";

/// Reads the transfers of an earlier posting, as they were first acknowledged; `None` if the idempotency key does not
/// refer to these transfers, or if some of them are missing.
pub(super) async fn find_posted(
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
                select 1 from ledger.posting p
                where p.book = 1 and p.key_hash = $4 and p.first_seq = $2 and p.last_seq = $3
            )
        order by seq"#,
        book,
        first_seq,
        last_seq,
        key_hash,
    )
    .fetch_all(db)
    .await?;
    let is_complete = i64::try_from(rows.len()) == Ok(last_seq - first_seq + 1);
    let Some(at) = rows.first().map(|row| row.at).filter(|_| is_complete) else { return Ok(None) };
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

/// Copy of a leg of a posting to several books. The home book of the posting contains the original of every leg; each
/// other book contains copies of the legs that touch it.
pub(super) struct LegCopy {
    pub home: i64,
    pub book: i32,
    pub seq: i64,
    /// Balance of the debited account after the leg, as stored in the copy; `None` if the copy is archived.
    pub debit_balance: Option<i64>,
    pub credit_balance: Option<i64>,
}

/// Reads the copies of legs that other books contain. The original legs have the seqs from `first_seq` to `last_seq`.
pub(super) async fn copies(
    db: &mut PgConnection,
    first_seq: i64,
    last_seq: i64,
) -> sqlx::Result<Vec<LegCopy>> {
    sqlx::query_as!(
        LegCopy,
        r#"
        select c.home, c.book, c.seq, t.debit_balance as "debit_balance?", t.credit_balance as "credit_balance?"
        from ledger.transfer_copy c
        left join ledger.transfer t on t.book = c.book and t.seq = c.seq
        where c.home between $1 and $2
        order by c.home, c.book"#,
        first_seq,
        last_seq,
    )
    .fetch_all(db)
    .await
}

/// Finds the posting that was written under an idempotency key. Returns its content hash, first seq and last seq.
pub(super) async fn find_key(
    db: &mut PgConnection,
    key_hash: Uuid,
) -> sqlx::Result<Option<(Uuid, i64, i64)>> {
    let row = sqlx::query!(
        r#"select content_hash as "content_hash!", first_seq as "first_seq!", last_seq as "last_seq!"
        from ledger.late_keys(array[$1]::uuid[])"#,
        key_hash,
    )
    .fetch_optional(db)
    .await?;
    Ok(row.map(|row| (row.content_hash, row.first_seq, row.last_seq)))
}

/// Stores a currency, unless it is stored already.
pub(super) async fn store_currency(db: &mut PgConnection, code: &str, decimals: i16) -> Result<()> {
    let insert = sqlx::query!(
        "insert into currency (code, decimals) values ($1, $2) on conflict do nothing",
        code,
        decimals
    );
    insert.execute(db).await?;
    Ok(())
}

/// Reads the codes and decimals of all stored currencies.
pub(super) async fn stored_currencies(db: &mut PgConnection) -> Result<Vec<(String, i16)>> {
    let rows = sqlx::query!("select code, decimals from currency order by code");
    Ok(rows.fetch_all(db).await?.into_iter().map(|row| (row.code, row.decimals)).collect())
}
