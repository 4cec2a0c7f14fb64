//! Availability of a game for a recipient: the game is published and not sold out, and the recipient can own it.

use super::sql::QuoteRow;
use crate::error::{Result, StoreRefusal};

impl QuoteRow {
    /// Returns an error unless the game is published. The error reveals the existence of a retired game, but not of a
    /// draft.
    pub(super) fn require_published(&self) -> Result<()> {
        match self.state.as_str() {
            "published" => Ok(()),
            "retired" => Err(StoreRefusal::NotForSale.into()),
            _ => Err(StoreRefusal::GameNotFound.into()),
        }
    }

    /// Returns an error if the number of copies of the game is limited and no copy is left.
    pub(super) fn require_copy_left(&self) -> Result<()> {
        match self.left {
            Some(..=0) => Err(StoreRefusal::SoldOut.into()),
            _ => Ok(()),
        }
    }

    /// Returns an error if the recipient owns the game already, or does not own its base game.
    pub(super) fn require_eligible(&self) -> Result<()> {
        match self.base {
            _ if self.is_owned => Err(StoreRefusal::AlreadyOwned.into()),
            Some(base) if !self.owns_base => Err(StoreRefusal::BaseGameMissing(base.0).into()),
            _ => Ok(()),
        }
    }
}
