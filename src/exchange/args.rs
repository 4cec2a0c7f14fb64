//! Settings of the exchange.

use std::time::Duration;

use rust_decimal::Decimal;

use super::outside::simulated::SimulationSettings;
use crate::error::Result;
use crate::ledger::currency::Currency;
use crate::ledger::money::{AmountError, Minor, Rate};
use crate::saga::SagaSettings;
use crate::secret::{Secret, from_setting};
use crate::settings;

/// Settings of the exchange. Amounts are in the default currency.
#[derive(Debug, Clone, clap::Args)]
#[command(next_help_heading = "Exchange")]
pub struct ExchangeArgs {
    /// Fee that the exchange charges on each order, as a percentage of the traded amount.
    #[arg(long, env = "REVWALLET_EXCHANGE_FEE", global = true, default_value = "0", value_parser = fee)]
    pub exchange_fee: Rate,
    /// Smallest allowed amount of an order, in the default currency.
    #[arg(long, env = "REVWALLET_EXCHANGE_MIN", global = true)]
    pub exchange_min: Option<String>,
    /// Largest allowed amount of an order, in the default currency.
    #[arg(long, env = "REVWALLET_EXCHANGE_MAX", global = true)]
    pub exchange_max: Option<String>,
    /// Maximum total amount of a user's orders within 24 hours; failed orders do not count.
    #[arg(long, env = "REVWALLET_EXCHANGE_DAY_MAX", global = true)]
    pub exchange_day_max: Option<String>,
    /// Maximum total amount of a user's orders within 30 days; failed orders do not count.
    #[arg(long, env = "REVWALLET_EXCHANGE_MONTH_MAX", global = true)]
    pub exchange_month_max: Option<String>,
    /// Amount above which an order waits for an operator's approval.
    #[arg(long, env = "REVWALLET_EXCHANGE_APPROVAL", global = true)]
    pub exchange_approval: Option<String>,
    /// Time for which a quote locks its price.
    #[arg(long, env = "REVWALLET_QUOTE_LIFETIME", global = true, default_value = "30s", value_parser = settings::positive_duration)]
    pub quote_lifetime: Duration,
    /// Time after which an incomplete order is undone.
    #[arg(long, env = "REVWALLET_ORDER_DEADLINE", global = true, default_value = "15m", value_parser = settings::positive_duration)]
    pub order_deadline: Duration,
    /// Maximum number of attempts at a call to the external exchange or the blockchain. If all fail, the call is given
    /// up, or its outcome counts as unknown.
    #[arg(long, env = "REVWALLET_ORDER_ATTEMPTS", global = true, default_value_t = 8, value_parser = clap::value_parser!(i32).range(1..=100))]
    pub order_attempts: i32,
    /// Longest time that a call to the external exchange or the blockchain may take.
    #[arg(long, env = "REVWALLET_ORDER_CALL_TIMEOUT", global = true, default_value = "10s", value_parser = settings::positive_duration)]
    pub order_call_timeout: Duration,
    /// Interval at which the external exchange or the blockchain is asked about a call whose outcome is unknown.
    #[arg(long, env = "REVWALLET_ORDER_UNKNOWN_INTERVAL", global = true, default_value = "30s", value_parser = settings::positive_duration)]
    pub order_unknown_interval: Duration,
    /// Mail server that notifies users when their orders have ended: `smtps://user:password@host`, or `smtp://host:25`
    /// [default: no mail].
    #[arg(long, env = "REVWALLET_SMTP_URL", global = true, hide_env_values = true, value_parser = from_setting)]
    pub smtp_url: Option<Secret>,
    /// Sender address of mail to users.
    #[arg(
        long,
        env = "REVWALLET_MAIL_FROM",
        global = true,
        default_value = "revwallet@localhost.localdomain"
    )]
    pub mail_from: String,
    /// Price of one bitcoin at the simulated exchange.
    #[arg(long, env = "REVWALLET_EXCHANGE_PRICE", global = true, default_value = "10", value_parser = price)]
    pub exchange_price: Decimal,
    /// Time that each call to the simulated exchange and blockchain takes.
    #[arg(long, env = "REVWALLET_SIMULATED_LATENCY", global = true, default_value = "0s", value_parser = settings::duration)]
    pub simulated_latency: Duration,
    /// Share of the calls to the simulated exchange and blockchain that fail, from 0 to 1.
    #[arg(long, env = "REVWALLET_SIMULATED_FAILURES", global = true, default_value = "0", value_parser = share)]
    pub simulated_failures: f64,
    /// Seed that makes the simulated failures repeatable.
    #[arg(long, env = "REVWALLET_SIMULATED_SEED", global = true, default_value_t = 0)]
    pub simulated_seed: u64,
}

/// Limits of orders, in minor units of the default currency; `None` means no limit.
#[derive(Debug, Clone, Copy)]
pub(super) struct OrderLimits {
    pub min: Option<Minor>,
    pub max: Option<Minor>,
    pub day_max: Option<Minor>,
    pub month_max: Option<Minor>,
    pub approval: Option<Minor>,
}

impl ExchangeArgs {
    /// Parses the limits of orders as amounts in the default currency.
    pub(super) fn limits(&self, currency: Currency) -> anyhow::Result<OrderLimits> {
        let parse = |name: &str, text: &Option<String>| {
            let parsed = text.as_deref().map(|text| Minor::parse_amount(text, currency));
            parsed.transpose().map_err(|cause: AmountError| {
                anyhow::anyhow!("{name} {cause}; give an amount in {}", currency.code())
            })
        };
        Ok(OrderLimits {
            min: parse("--exchange-min", &self.exchange_min)?,
            max: parse("--exchange-max", &self.exchange_max)?,
            day_max: parse("--exchange-day-max", &self.exchange_day_max)?,
            month_max: parse("--exchange-month-max", &self.exchange_month_max)?,
            approval: parse("--exchange-approval", &self.exchange_approval)?,
        })
    }

    pub(super) fn simulation(&self) -> SimulationSettings {
        SimulationSettings {
            price: self.exchange_price,
            latency: self.simulated_latency,
            failure_rate: self.simulated_failures,
            seed: self.simulated_seed,
        }
    }

    pub(super) fn sagas(&self, notifies: bool) -> SagaSettings {
        SagaSettings {
            attempts_max: self.order_attempts,
            backoff_min: Duration::from_millis(100),
            backoff_max: Duration::from_secs(10),
            unknown_interval: self.order_unknown_interval,
            call_timeout: self.order_call_timeout,
            // A worker makes at most four calls for a step before it writes the outcome, and all must end within the
            // lease.
            lease: self.order_call_timeout * 4 + Duration::from_secs(2),
            notifies,
        }
    }
}

fn fee(text: &str) -> Result<Rate, String> {
    let rate = Rate::parse_share(text)?;
    if rate.to_stored() < 10_000 { Ok(rate) } else { Err("must be below 100".to_owned()) }
}

/// Parses the price of a unit of crypto: a decimal above zero.
pub(super) fn price(text: &str) -> Result<Decimal, String> {
    let price: Decimal = text.parse().map_err(|_| "must be a decimal, such as 10.5".to_owned())?;
    if price > Decimal::ZERO && price.scale() <= 8 && price < Decimal::from(1_000_000_000_000_i64) {
        Ok(price.normalize())
    } else {
        Err("must be above zero, below 10^12, with at most 8 decimals".to_owned())
    }
}

/// Parses the share of calls that fail: a number from 0 to 1.
pub(super) fn share(text: &str) -> Result<f64, String> {
    match text.parse::<f64>() {
        Ok(share) if (0.0..=1.0).contains(&share) => Ok(share),
        _ => Err("must be from 0 to 1".to_owned()),
    }
}
