//! Simulation of an external exchange and a blockchain, with the faults of real systems. A call can arrive twice, or
//! take effect late, without a response, or despite an error response. Settings add latency or an outage, or make a
//! share of the calls fail; a seed makes these failures repeatable.
//!
//! The simulation keeps its state in database tables that no other code reads. The state survives restarts, and all
//! processes share it.

use std::hash::{DefaultHasher, Hash, Hasher};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use anyhow::anyhow;
use futures_util::FutureExt;
use futures_util::future::BoxFuture;
use rust_decimal::Decimal;
use serde_json::value::RawValue;
use sqlx::PgConnection;

use super::sql::{self, CallRow, SimulationRow};
use super::{ChainGateway, ChainTransfer, Exchanger, Trade};
use crate::combiner::Combiner;
use crate::db::Database;
use crate::error::{Error, Result};
use crate::exchange::terms::Pair;
use crate::saga::CallOutcome;

/// Delay after which a call with the fault `late` takes effect.
const LATE: Duration = Duration::from_millis(300);

/// Faults that can happen to a call to the simulated systems.
const CALL_FAULTS: [&str; 6] = ["refused", "lost", "silent", "late", "contradictory", "twice"];

/// Faults that can happen when a worker cancels a call or asks for its outcome.
const QUESTION_FAULTS: [&str; 1] = ["mute"];

/// Settings of the simulation.
#[derive(Debug, Clone, Copy)]
pub struct SimulationSettings {
    pub price: Decimal,
    pub latency: Duration,
    /// Share of calls that fail, from 0 to 1.
    pub failure_rate: f64,
    /// Seed of the failures. With the same seed, calls with the same reference fail in the same way.
    pub seed: u64,
}

/// Changes to the settings of the simulation; `None` leaves a setting unchanged.
#[derive(Debug, Clone, Copy, Default)]
pub struct SimulationChange {
    pub price: Option<Decimal>,
    pub failure_rate: Option<f64>,
    pub latency: Option<Duration>,
    /// Duration of an outage that begins now, in which every call fails.
    pub down: Option<Duration>,
}

/// The simulated exchange and blockchain. Cheap to clone.
#[derive(Clone)]
pub struct SimulatedOutside(Arc<Simulation>);

struct Simulation {
    db: Database,
    settings: SimulationSettings,
    pair: Pair,
    calls: Combiner<ArrivingCall, ()>,
    questions: Combiner<String, CallOutcome>,
    /// Number of times that a worker has asked for the outcome of a call. The number is part of the seed, so that the
    /// same question can fail now and succeed later.
    asked: AtomicU64,
}

/// A call that arrives at the simulated systems.
#[derive(Debug, Clone)]
struct ArrivingCall {
    reference: String,
    side: Option<&'static str>,
    crypto: i64,
}

impl SimulatedOutside {
    pub fn new(db: Database, settings: SimulationSettings, pair: Pair) -> Self {
        Self(Arc::new(Simulation {
            db,
            settings,
            pair,
            calls: Combiner::default(),
            questions: Combiner::default(),
            asked: AtomicU64::default(),
        }))
    }

    /// Changes the settings of the simulation for all processes.
    pub async fn simulate(&self, change: &SimulationChange) -> Result<()> {
        let mut db = self.0.db.acquire("simulation.change").await?;
        let seconds = |time: Option<Duration>| time.map(|time| time.as_secs_f64());
        let (latency, down) = (seconds(change.latency), seconds(change.down));
        sql::simulate(&mut db, change.price, change.failure_rate, latency, down).await
    }

    async fn call(&self, call: ArrivingCall) -> Result<()> {
        let simulation = &self.0;
        simulation.calls.run(call, |calls| async move { simulation.arrive(&calls).await }).await
    }

    async fn question(&self, reference: &str) -> Result<CallOutcome> {
        let simulation = &self.0;
        let ask = |references: Vec<String>| async move { simulation.answer(&references).await };
        simulation.questions.run(reference.to_owned(), ask).await
    }

    async fn cancel_call(&self, reference: &str) -> Result<CallOutcome> {
        let row = self.0.settled().await?;
        let mut db = self.0.db.acquire("simulation.cancel").await?;
        let faults = take_faults(&mut db, &row, &[reference], &QUESTION_FAULTS).await?;
        if faults.into_iter().flatten().next().is_some() {
            return Err(unanswered());
        }
        match sql::cancel(&mut db, reference).await? {
            Some(answer) => outcome(answer),
            None => Ok(CallOutcome::Refused("canceled".to_owned())),
        }
    }
}

impl Simulation {
    /// Waits for the simulated latency and returns the current settings. Returns an error while the simulated systems
    /// are down.
    async fn settled(&self) -> Result<SimulationRow> {
        let mut db = self.db.acquire("simulation.settings").await?;
        let row = sql::simulation(&mut db).await?;
        drop(db);
        let latency = row.latency_seconds.map_or(self.settings.latency, Duration::from_secs_f64);
        if latency > Duration::ZERO {
            tokio::time::sleep(latency).await;
        }
        if row.is_down { Err(unanswered()) } else { Ok(row) }
    }

    /// Decides whether a call with this reference fails, and picks its fault from `kinds`. The same arguments and seed
    /// always give the same result.
    fn chance<'a>(
        &self,
        rate: f64,
        reference: &str,
        salt: u64,
        kinds: &[&'a str],
    ) -> Option<&'a str> {
        if rate <= 0.0 {
            return None;
        }
        let mut hasher = DefaultHasher::new();
        (self.settings.seed, reference, salt).hash(&mut hasher);
        let hash = hasher.finish();
        #[expect(clippy::cast_precision_loss, reason = "53 bits are exact")]
        let roll = (hash >> 11) as f64 / (1_u64 << 53) as f64;
        let index = usize::try_from(hash % 1_009).unwrap_or_default() % kinds.len();
        (roll < rate).then(|| kinds[index])
    }

    /// Records calls that arrive at the same time. Returns a response to each call.
    async fn arrive(&self, calls: &[ArrivingCall]) -> Result<Vec<Result<()>>> {
        let row = self.settled().await?;
        let rate = row.failure_rate.unwrap_or(self.settings.failure_rate);
        let mut db = self.db.acquire("simulation.arrive").await?;
        let references: Vec<&str> = calls.iter().map(|call| call.reference.as_str()).collect();
        let faults = take_faults(&mut db, &row, &references, &CALL_FAULTS).await?;
        let faults: Vec<Option<String>> = faults
            .into_iter()
            .zip(&references)
            .map(|(fault, reference)| {
                fault.or_else(|| self.chance(rate, reference, 0, &CALL_FAULTS).map(str::to_owned))
            })
            .collect();
        let mut rows = Vec::new();
        for (call, fault) in calls.iter().zip(&faults) {
            let fault = fault.as_deref();
            if fault == Some("lost") {
                continue;
            }
            rows.push(CallRow {
                reference: &call.reference,
                side: call.side,
                crypto: call.crypto,
                seconds: if fault == Some("late") { LATE.as_secs_f64() } else { 0.0 },
                is_refused: fault == Some("refused"),
            });
        }
        let (crypto, fiat) = (self.pair.crypto.decimals(), self.pair.fiat.decimals());
        let scale = i32::from(crypto) - i32::from(fiat);
        sql::arrive(&mut db, &rows, self.settings.price, scale).await?;
        let again: Vec<CallRow<'_>> = rows
            .into_iter()
            .zip(faults.iter().filter(|fault| fault.as_deref() != Some("lost")))
            .filter(|(_, fault)| fault.as_deref() == Some("twice"))
            .map(|(row, _)| row)
            .collect();
        if !again.is_empty() {
            sql::arrive(&mut db, &again, self.settings.price, scale).await?;
        }
        let answer = |fault: &Option<String>| match fault.as_deref() {
            Some("lost" | "silent") => Err(unanswered()),
            Some("refused" | "contradictory") => {
                Err(Error::Internal(anyhow!("the order was rejected")))
            }
            _ => Ok(()),
        };
        Ok(faults.iter().map(answer).collect())
    }

    /// Returns the outcomes of the calls about which workers have asked concurrently, in the order of `references`.
    async fn answer(&self, references: &[String]) -> Result<Vec<Result<CallOutcome>>> {
        let row = self.settled().await?;
        let rate = row.failure_rate.unwrap_or(self.settings.failure_rate) / 2.0;
        let mut db = self.db.acquire("simulation.find").await?;
        let references: Vec<&str> = references.iter().map(String::as_str).collect();
        let faults = take_faults(&mut db, &row, &references, &QUESTION_FAULTS).await?;
        let mut known = sql::find(&mut db, &references).await?;
        drop(db);
        known.sort_by(|a, b| a.reference.cmp(&b.reference));
        let answers = references.iter().zip(faults).map(|(reference, fault)| {
            let asked = self.asked.fetch_add(1, Ordering::Relaxed) + 1;
            if fault.is_some() || self.chance(rate, reference, asked, &QUESTION_FAULTS).is_some() {
                return Err(unanswered());
            }
            let found = known.binary_search_by(|call| call.reference.as_str().cmp(reference));
            let Ok(index) = found else { return Ok(CallOutcome::Absent) };
            let call = &known[index];
            match &call.answer {
                _ if !call.is_due => Ok(CallOutcome::Pending),
                Some(answer) => outcome(answer.clone()),
                None => Ok(CallOutcome::Refused("the order was rejected".to_owned())),
            }
        });
        Ok(answers.collect())
    }
}

/// For each of the references, removes and returns the next fault that a test has prepared for it; `None` if there is no
/// such fault.
async fn take_faults(
    db: &mut PgConnection,
    row: &SimulationRow,
    references: &[&str],
    kinds: &[&str],
) -> Result<Vec<Option<String>>> {
    if row.has_faults {
        return sql::take_faults(db, references, kinds).await;
    }
    Ok(vec![None; references.len()])
}

fn outcome(answer: String) -> Result<CallOutcome> {
    let answer = RawValue::from_string(answer).map_err(|cause| Error::Internal(cause.into()))?;
    Ok(CallOutcome::Done(answer))
}

fn unanswered() -> Error {
    Error::Internal(anyhow!("the connection was closed without a response"))
}

impl Exchanger for SimulatedOutside {
    fn price(&self) -> BoxFuture<'_, Result<Decimal>> {
        async {
            let row = self.0.settled().await?;
            let changed = row.price.as_deref().map(str::parse).transpose();
            let changed =
                changed.map_err(|cause: rust_decimal::Error| Error::Internal(cause.into()))?;
            Ok(changed.unwrap_or(self.0.settings.price))
        }
        .boxed()
    }

    fn trade<'a>(&'a self, reference: &'a str, trade: Trade) -> BoxFuture<'a, Result<()>> {
        let side = Some(trade.side.name());
        let call = ArrivingCall { reference: reference.to_owned(), side, crypto: trade.crypto.0 };
        self.call(call).boxed()
    }

    fn find<'a>(&'a self, reference: &'a str) -> BoxFuture<'a, Result<CallOutcome>> {
        self.question(reference).boxed()
    }

    fn cancel<'a>(&'a self, reference: &'a str) -> BoxFuture<'a, Result<CallOutcome>> {
        self.cancel_call(reference).boxed()
    }
}

impl ChainGateway for SimulatedOutside {
    fn withdraw<'a>(
        &'a self,
        reference: &'a str,
        transfer: ChainTransfer,
    ) -> BoxFuture<'a, Result<()>> {
        let crypto = transfer.crypto.0;
        self.call(ArrivingCall { reference: reference.to_owned(), side: None, crypto }).boxed()
    }

    fn find<'a>(&'a self, reference: &'a str) -> BoxFuture<'a, Result<CallOutcome>> {
        self.question(reference).boxed()
    }

    fn cancel<'a>(&'a self, reference: &'a str) -> BoxFuture<'a, Result<CallOutcome>> {
        self.cancel_call(reference).boxed()
    }
}
