//! Settings of the games store.

use std::time::Duration;

use anyhow::Context;

use super::purchase::TaxRates;
use crate::ledger::currency::Currencies;
use crate::ledger::money::Rate;
use crate::settings;

/// Settings of the games store.
#[derive(Debug, Clone, clap::Args)]
#[command(next_help_heading = "Games store")]
pub struct GamesArgs {
    /// Fee that the operator keeps of each sale of a publisher's game, as a percentage of the price before tax; a
    /// publisher can have a different fee.
    #[arg(long, env = "REVWALLET_STORE_FEE", global = true, default_value = "0", value_parser = Rate::parse_share)]
    pub store_fee: Rate,
    /// Tax rate for each currency, as a percentage that prices already include: `EUR=19,USD=8.25`.
    #[arg(
        long,
        env = "REVWALLET_TAX_RATES",
        global = true,
        default_value = "",
        hide_default_value = true
    )]
    pub tax_rates: TaxRates,
    /// Time after a purchase within which the buyer can request a refund.
    #[arg(long, env = "REVWALLET_REFUND_WINDOW", global = true, default_value = "14d", value_parser = settings::duration)]
    pub refund_window: Duration,
}

impl GamesArgs {
    /// Returns an error if a tax rate is set for a currency that is not supported.
    pub(super) fn require_currencies(&self, currencies: &Currencies) -> anyhow::Result<()> {
        for code in self.tax_rates.currencies() {
            currencies
                .find(code)
                .with_context(|| format!("--tax-rates: {code} is not a supported currency"))?;
        }
        Ok(())
    }
}
