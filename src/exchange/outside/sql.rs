//! SQL statements of the simulated exchange and blockchain.

use rust_decimal::Decimal;
use serde::Serialize;
use sqlx::PgConnection;

use crate::error::{Error, Result};

/// Settings of the simulation that an operator has changed; for a field that is `None`, each process uses its own
/// setting.
#[derive(Debug, Clone, Default)]
pub(super) struct SimulationRow {
    pub price: Option<String>,
    pub failure_rate: Option<f64>,
    pub latency_seconds: Option<f64>,
    pub is_down: bool,
    /// Whether a test has prepared faults.
    pub has_faults: bool,
}

pub(super) async fn simulation(db: &mut PgConnection) -> Result<SimulationRow> {
    let row = sqlx::query_as!(
        SimulationRow,
        r#"select price::text as price, failure_rate, latency_seconds,
            coalesce(clock_timestamp() < down_until, false) as "is_down!",
            exists (select from simulated_fault) as "has_faults!"
        from simulated_outside"#
    );
    Ok(row.fetch_one(db).await?)
}

/// Changes the settings of the simulation; `None` leaves a setting unchanged.
pub(super) async fn simulate(
    db: &mut PgConnection,
    price: Option<Decimal>,
    failure_rate: Option<f64>,
    latency_seconds: Option<f64>,
    down_seconds: Option<f64>,
) -> Result<()> {
    sqlx::query!(
        "update simulated_outside
        set price = coalesce($1::text::numeric, price), failure_rate = coalesce($2, failure_rate),
            latency_seconds = coalesce($3, latency_seconds),
            down_until = case when $4::float8 is null then down_until else clock_timestamp() + make_interval(secs => $4) end",
        price.map(|price| price.to_string()),
        failure_rate,
        latency_seconds,
        down_seconds,
    )
    .execute(db)
    .await?;
    Ok(())
}

/// Removes and returns the next fault that a test has prepared for each reference, if any.
pub(super) async fn take_faults(
    db: &mut PgConnection,
    references: &[&str],
    kinds: &[&str],
) -> Result<Vec<Option<String>>> {
    let faults = sqlx::query_scalar!(
        "select take_simulated_fault(r.reference, $2)
        from unnest($1::text[]) with ordinality r (reference, n)
        order by r.n",
        references as &[&str],
        kinds as &[&str],
    );
    Ok(faults.fetch_all(db).await?)
}

/// A call that arrives at the simulated systems.
#[derive(Debug, Serialize)]
pub(super) struct CallRow<'a> {
    pub reference: &'a str,
    /// Side of a trade; `None` for a transfer on the blockchain.
    pub side: Option<&'a str>,
    pub crypto: i64,
    /// Time until the call takes effect, in seconds.
    pub seconds: f64,
    pub is_refused: bool,
}

/// Records calls. A call takes effect once, even if its reference arrives again. `scale` is the number of decimal
/// places of the cryptocurrency minus that of the fiat currency.
pub(super) async fn arrive(
    db: &mut PgConnection,
    calls: &[CallRow<'_>],
    default_price: Decimal,
    scale: i32,
) -> Result<()> {
    let calls = serde_json::to_string(calls).map_err(|cause| Error::Internal(cause.into()))?;
    // The commit does not wait for the disk: calls that a crash of the database server loses look as if they had never
    // arrived.
    sqlx::query!(
        "with setting as (select set_config('synchronous_commit', 'off', true)),
        input as (
            select distinct on (reference) * from json_to_recordset($1::text::json)
                as i (reference text, side text, crypto bigint, seconds float8, is_refused boolean)
        )
        insert into simulated_call as c (reference, due_at, answer)
        select i.reference, clock_timestamp() + make_interval(secs => i.seconds),
            case
                when i.is_refused then null
                when i.side = 'buy' then json_build_object('fiat', greatest(1, ceil(i.crypto * p.price / 10::numeric ^ $3::int))::bigint)
                when i.side = 'sell' then json_build_object('fiat', floor(i.crypto * p.price / 10::numeric ^ $3::int)::bigint)
                else json_build_object('transaction', md5(i.reference))
            end
        from input i
        cross join setting
        cross join (select coalesce(price, $2::text::numeric) as price from simulated_outside) p
        order by i.reference
        on conflict (reference) do update set arrivals = c.arrivals + 1",
        calls,
        default_price.to_string(),
        scale,
    )
    .execute(db)
    .await?;
    Ok(())
}

/// A call that the simulated systems have recorded.
pub(super) struct KnownCall {
    pub reference: String,
    /// Result of the call; `None` if the call is refused.
    pub answer: Option<String>,
    pub is_due: bool,
}

pub(super) async fn find(db: &mut PgConnection, references: &[&str]) -> Result<Vec<KnownCall>> {
    let rows = sqlx::query_as!(
        KnownCall,
        r#"select reference, answer::text as answer, due_at <= clock_timestamp() as "is_due!"
        from simulated_call where reference = any ($1)"#,
        references as &[&str],
    );
    Ok(rows.fetch_all(db).await?)
}

/// Cancels a call, so that it never takes effect. If the call has already taken effect, returns its result instead.
pub(super) async fn cancel(db: &mut PgConnection, reference: &str) -> Result<Option<String>> {
    let answer = sqlx::query_scalar!(
        r#"insert into simulated_call as c (reference, due_at) values ($1, clock_timestamp())
        on conflict (reference) do update
        set answer = case when c.due_at <= clock_timestamp() then c.answer end, due_at = least(c.due_at, clock_timestamp())
        returning answer::text"#,
        reference,
    );
    Ok(answer.fetch_one(db).await?)
}
