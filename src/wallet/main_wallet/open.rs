//! Opens main wallets without a deposit.

use super::{ATTEMPTS_MAX, is_overtaken};
use crate::error::{Error, Result};
use crate::ids::PlayerId;
use crate::ledger::currency::Currency;
use crate::ledger::transfer::Posting;
use crate::wallet::{RequestMeta, Wallets, from_post_error};

impl Wallets {
    /// Opens a main wallet for a player in each of the given currencies, except the currencies in which the player
    /// already has an open main wallet. Returns whether any wallet was opened.
    pub async fn open_main(
        &self,
        player: &PlayerId,
        currencies: &[Currency],
        meta: RequestMeta<'_>,
    ) -> Result<bool> {
        for _ in 0..ATTEMPTS_MAX {
            let mut posting = Posting { trace_id: Some(meta.trace), ..Posting::default() };
            let mut holder = None;
            for currency in currencies {
                let main = self.find_main(player, *currency).await?;
                meta.caller.require_spend_player(main.map(|main| main.player))?;
                let main = main.ok_or(Error::UserNotFound)?;
                if main.wallet.is_none() {
                    self.open_with(&mut posting, player, main.player, *currency).await?;
                    holder = Some(main.player);
                }
            }
            let Some(holder) = holder else { return Ok(false) };
            match self.ledger.post(posting).await {
                Ok(_) => {
                    self.note_opened(holder);
                    return Ok(true);
                }
                Err(error) if is_overtaken(&error) => {}
                Err(error) => return Err(from_post_error(&error, None)),
            }
        }
        Err(Error::Overloaded)
    }
}
