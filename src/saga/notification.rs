//! Notifies the owners of sagas that have ended.

use std::time::Duration;

use serde_json::value::RawValue;

use super::Sagas;
use super::handler::{Ended, SagaHandler};
use super::sql::{self, ClaimedRow};
use super::transitions::SagaState;
use crate::error::{Error, Result};

/// Longest pause between two attempts to notify the owner of a saga.
const NOTIFICATION_PAUSE_MAX: Duration = Duration::from_hours(1);

impl<H: SagaHandler> Sagas<H> {
    /// Notifies the owner that the saga has ended. After a failure, schedules another attempt; the number of attempts
    /// is not limited.
    pub(super) async fn notify(&self, row: ClaimedRow, state: SagaState) -> Result<()> {
        let input =
            RawValue::from_string(row.input).map_err(|cause| Error::Internal(cause.into()))?;
        let ended = Ended {
            saga: row.saga,
            owner: row.owner,
            state,
            reason: row.reason.as_deref(),
            input: &input,
            reference: row.reference,
        };
        let sent = self.in_time(self.handler.notify(&ended)).await;
        let (outcome, pause) = match sent {
            Ok(()) => ("ok", None),
            Err(why) => {
                tracing::warn!(
                    event = "saga.notification_failed",
                    error.message = why,
                    "could not notify the owner of a finished saga; a worker will retry later"
                );
                let pause = self.settings.backoff_min
                    * 2_u32.pow(u32::from(row.notifications.clamp(0, 20).unsigned_abs()));
                ("failed", Some(pause.min(NOTIFICATION_PAUSE_MAX).as_secs_f64()))
            }
        };
        self.metrics.wallet_saga_notifications_total.with([outcome]).increment(1);
        let mut db = self.db.acquire("saga.notified").await?;
        sql::end_notification(&mut db, row.saga, row.fence, pause).await?;
        if pause.is_some() {
            self.put_off.notify_one();
        }
        Ok(())
    }
}
