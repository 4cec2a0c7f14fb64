//! Election of the leader. A process is the leader while its database session holds the leader's lock; it publishes its
//! address for the other processes.

use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::watch;
use tokio_postgres::{Client, Error};
use tokio_util::sync::CancellationToken;
use uuid::Uuid;

use super::{Candidacy, LeaderAddress, Leadership};
use crate::db::Pipelined;
use crate::ledger::connect::{connect, drive};
use crate::ledger::sql;
use crate::telemetry::Metrics;

/// Interval at which a follower tries to become the leader, and checks which process leads.
const FOLLOWER_INTERVAL: Duration = Duration::from_secs(1);

/// Interval at which a leader checks that its session, which holds the lock, still exists.
const LEADER_INTERVAL: Duration = Duration::from_secs(5);

/// Longest time that a check may take. The limit is needed because a suspended database server never replies.
const CHECK_TIMEOUT: Duration = Duration::from_secs(10);

/// The task that takes part in the election of a book's leader.
pub(super) struct Election {
    pub(super) database: Pipelined,
    pub(super) book: i32,
    pub(super) candidacy: Candidacy,
    /// Canceled when the process begins to stop: another process then becomes the leader, while this process finishes
    /// its requests.
    pub(super) stopping: CancellationToken,
    pub(super) leadership: watch::Sender<Leadership>,
    pub(super) metrics: Arc<Metrics>,
}

impl Election {
    /// Takes part in the election until the token is canceled. The end of the database session then releases the
    /// leader's lock.
    pub(super) async fn run(self, token: CancellationToken) -> anyhow::Result<()> {
        while !token.is_cancelled() {
            let Some(outcome) = token.run_until_cancelled(self.hold_session()).await else { break };
            if let Err(error) = outcome {
                tracing::debug!(
                    error.message = %error,
                    "lost the database session of the leader election; opening a new one"
                );
            }
            self.set(Leadership::Unknown);
            let _stopped = token.run_until_cancelled(tokio::time::sleep(FOLLOWER_INTERVAL)).await;
        }
        self.set(Leadership::Unknown);
        Ok(())
    }

    /// Checks periodically which process is the leader. Returns when the database session is lost, or when this process
    /// is the leader and begins to shut down.
    async fn hold_session(&self) -> anyhow::Result<()> {
        let mut database = self.database.clone();
        database.config.application_name("revwallet election");
        let opening = connect(&database, async |client| {
            client.batch_execute(sql::DETECT_LOST_CLIENT).await?;
            client.query_one(sql::OWN_ADDRESS, &[]).await?.try_get::<_, Option<IpAddr>>(0)
        });
        let (client, mut driver, own) = tokio::time::timeout(CHECK_TIMEOUT, opening).await??;
        let mut key = None;
        loop {
            let check = drive(&mut driver, self.check(&client, key, own));
            let leadership = tokio::time::timeout(CHECK_TIMEOUT, check).await??;
            key = match leadership {
                Leadership::Leads { key } => Some(key),
                _ => None,
            };
            self.set(leadership);
            if key.is_none() {
                tokio::time::sleep(FOLLOWER_INTERVAL).await;
                continue;
            }
            let pause = tokio::time::sleep(LEADER_INTERVAL);
            if self.stopping.run_until_cancelled(pause).await.is_none() {
                // The end of the session releases the lock.
                return Ok(());
            }
        }
    }

    /// Determines which process leads now. `key` is the key that followers present to this process, if this process
    /// already led at the previous check.
    async fn check(
        &self,
        client: &Client,
        key: Option<Uuid>,
        own: Option<IpAddr>,
    ) -> Result<Leadership, Error> {
        if let Some(key) = key {
            client.batch_execute("").await?;
            return Ok(Leadership::Leads { key });
        }
        if let Candidacy::Leader { address, .. } = &self.candidacy
            && !self.stopping.is_cancelled()
            && client.query_one(sql::TRY_TO_LEAD, &[&self.book]).await?.try_get(0)?
        {
            let (key, address) = (Uuid::new_v4(), address.resolve(own));
            client.execute(sql::PUBLISH_LEADER, &[&self.book, &address, &key]).await?;
            return Ok(Leadership::Leads { key });
        }
        let Some(row) = client.query_opt(sql::LEADER, &[&self.book]).await? else {
            return Ok(Leadership::Unknown);
        };
        Ok(Leadership::Follows(LeaderAddress { address: row.try_get(0)?, key: row.try_get(1)? }))
    }

    fn set(&self, leadership: Leadership) {
        self.leadership.send_if_modified(|current| {
            if *current == leadership {
                return false;
            }
            match &leadership {
                Leadership::Leads { .. } => {
                    self.metrics.wallet_ledger_leader_changes_total.increment(1);
                    // Not logged if the process becomes the leader when it starts, because it is usually the only
                    // process.
                    if matches!(current, Leadership::Follows(_)) {
                        tracing::info!(
                            event = "ledger.leads",
                            "this process has replaced the former leader of the ledger, and now writes the transfers of all processes"
                        );
                    }
                }
                Leadership::Follows(leader) => tracing::info!(
                    event = "ledger.follows",
                    leader = leader.address,
                    "the ledger's leader is the process at {}; this process will send its transfers there",
                    leader.address
                ),
                Leadership::Unknown => {}
            }
            *current = leadership;
            true
        });
    }
}
