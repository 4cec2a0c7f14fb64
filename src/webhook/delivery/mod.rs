//! Deliveries, each of which is an event that has been or will be sent to a webhook.

pub(super) mod sql;

use std::str::FromStr;

use time::OffsetDateTime;

use crate::error::{Error, Result};
use crate::ids::{DeliveryId, TransferId, WalletId};

/// State of a delivery.
#[derive(Debug, Clone, Copy, PartialEq, Eq, utoipa::ToSchema)]
#[schema(rename_all = "snake_case")]
pub enum DeliveryState {
    /// The delivery is waiting for its first or next attempt.
    Pending,
    /// The receiver has accepted the delivery.
    Delivered,
    /// The delivery failed for a day and is not retried unless the client replays it.
    Dead,
}

impl DeliveryState {
    pub const fn name(self) -> &'static str {
        match self {
            Self::Pending => "pending",
            Self::Delivered => "delivered",
            Self::Dead => "dead",
        }
    }
}

impl FromStr for DeliveryState {
    type Err = Error;

    fn from_str(name: &str) -> Result<Self> {
        [Self::Pending, Self::Delivered, Self::Dead]
            .into_iter()
            .find(|state| state.name() == name)
            .ok_or_else(|| Error::Internal(anyhow::anyhow!("unknown state of a delivery: {name}")))
    }
}

/// An entry of the delivery log of a webhook.
#[derive(Debug)]
pub struct WebhookDelivery {
    pub id: DeliveryId,
    /// The wallet that the event is about; `None` if it is not about a wallet.
    pub wallet: Option<WalletId>,
    /// The transfer that caused the event; `None` if the event is not about a wallet.
    pub transfer: Option<TransferId>,
    pub event: String,
    pub state: DeliveryState,
    pub attempts: i32,
    /// HTTP status of the receiver's last response.
    pub status: Option<i16>,
    /// Reason why the last attempt failed.
    pub error: Option<String>,
    pub created_at: OffsetDateTime,
    pub attempted_at: Option<OffsetDateTime>,
}
