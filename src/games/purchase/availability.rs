//! Availability of a game for a recipient: the game is published and not sold out, and the recipient can own it.

use super::sql::QuoteRow;
use crate::error::{Result, StoreRefusal};

impl QuoteRow {
    /// Refuses a game that is not published. Buyers learn that a retired game exists, but not that a draft does.
    pub(super) fn require_published(&self) -> Result<()> {
        match self.state.as_str() {
            "published" => Ok(()),
            "retired" => Err(StoreRefusal::NotForSale.into()),
            _ => Err(StoreRefusal::GameNotFound.into()),
        }
    }

    /// Refuses a sold-out game: the number of its copies is limited, and none is left.
    pub(super) fn require_copy_left(&self) -> Result<()> {
        match self.left {
            Some(..=0) => Err(StoreRefusal::SoldOut.into()),
            _ => Ok(()),
        }
    }

    /// Refuses a recipient that owns the game, or does not own its base.
    pub(super) fn require_eligible(&self) -> Result<()> {
        match self.base {
            _ if self.is_owned => Err(StoreRefusal::AlreadyOwned.into()),
            Some(base) if !self.owns_base => Err(StoreRefusal::BaseGameMissing(base.0).into()),
            _ => Ok(()),
        }
    }
}
