//! Tracked tasks: shutdown waits for every spawned task, and the unexpected end of a long-running task stops the
//! program.

use std::sync::{Arc, OnceLock};
use std::time::Duration;

use tokio::runtime::Handle;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use tracing::{Instrument, Span, error};

/// A group of tasks that start and stop together.
///
/// A server has three groups. The group of listeners and connections stops first. The second group contains the ledger
/// writer, the tasks that follow the ledger, and the jobs. It stops after the first group, because requests in progress
/// rely on it. The group that supervises the embedded Postgres stops last.
#[derive(Debug, Clone, Default)]
pub struct Tasks {
    tracker: TaskTracker,
    stopping: CancellationToken,
    failure: FirstFailure,
}

/// The first long-running task that ended before its group was asked to stop. The program then shuts down, and names
/// the task as the reason.
#[derive(Debug, Clone, Default)]
pub struct FirstFailure {
    name: Arc<OnceLock<&'static str>>,
    reported: CancellationToken,
}

impl FirstFailure {
    /// Waits until a task ends unexpectedly, and returns the name of the first task that did.
    pub async fn wait(&self) -> &'static str {
        self.reported.cancelled().await;
        self.name.get().copied().unwrap_or("unknown")
    }

    fn report(&self, name: &'static str) {
        // Only the first failure is reported, because it usually causes the later failures.
        if self.name.set(name).is_ok() {
            self.reported.cancel();
        }
    }
}

impl Tasks {
    /// Creates a group that reports to `failure` when a long-running task ends unexpectedly.
    pub fn new(failure: FirstFailure) -> Self {
        Self { failure, ..Self::default() }
    }

    /// Returns the token that is canceled when this group of tasks is asked to stop.
    pub fn stopping(&self) -> &CancellationToken {
        &self.stopping
    }

    /// Spawns a task that must run until this group is stopped. If it ends earlier, fails or panics, the program shuts
    /// down.
    pub fn spawn(
        &self,
        name: &'static str,
        work: impl Future<Output = anyhow::Result<()>> + Send + 'static,
    ) {
        let (failure, stopping) = (self.failure.clone(), self.stopping.clone());
        let work = self.tracker.track_future(work).in_current_span();
        #[expect(clippy::disallowed_methods, reason = "this is the tracked spawn")]
        tokio::spawn(async move {
            #[expect(clippy::disallowed_methods, reason = "joined on the next line to see a panic")]
            let outcome = tokio::spawn(work).await;
            match outcome {
                Ok(Ok(())) if stopping.is_cancelled() => return,
                Ok(Ok(())) => error!(task = name, "task {name} ended unexpectedly; shutting down"),
                Ok(Err(cause)) => {
                    error!(
                        task = name,
                        error.message = format!("{cause:#}"),
                        "task {name} failed; shutting down"
                    );
                }
                Err(cause) => {
                    error!(
                        task = name,
                        error.message = cause.to_string(),
                        "task {name} panicked; shutting down"
                    );
                }
            }
            failure.report(name);
        });
    }

    /// Spawns a task that may end at any time, such as a connection. Shutdown still waits for it.
    pub fn spawn_short_lived(&self, work: impl Future<Output = ()> + Send + 'static) {
        self.tracker.spawn(work.instrument(Span::none()));
    }

    /// Spawns a task on another runtime. Otherwise works like [`Self::spawn_short_lived`].
    pub fn spawn_short_lived_on(
        &self,
        runtime: &Handle,
        work: impl Future<Output = ()> + Send + 'static,
    ) {
        self.tracker.spawn_on(work.instrument(Span::none()), runtime);
    }

    /// Asks every task of the group to stop, and waits for at most `limit`. Returns whether all tasks ended in time.
    pub async fn stop(&self, limit: Duration) -> bool {
        self.stopping.cancel();
        self.tracker.close();
        tokio::time::timeout(limit, self.tracker.wait()).await.is_ok()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn the_failure_of_a_task_is_reported_with_its_name() {
        let failure = FirstFailure::default();
        let tasks = Tasks::new(failure.clone());

        tasks.spawn("failing", async { anyhow::bail!("planted failure") });

        assert_eq!(failure.wait().await, "failing");
    }

    #[tokio::test]
    async fn the_panic_of_a_task_is_reported_with_its_name() {
        let failure = FirstFailure::default();
        let tasks = Tasks::new(failure.clone());

        tasks.spawn("failing", async { panic!("planted panic") });

        assert_eq!(failure.wait().await, "failing");
    }

    #[tokio::test]
    async fn a_task_that_ends_when_the_group_stops_is_not_a_failure() {
        let failure = FirstFailure::default();
        let tasks = Tasks::new(failure.clone());
        let stopping = tasks.stopping().clone();
        tasks.spawn("well-behaved", async move {
            stopping.cancelled().await;
            Ok(())
        });

        assert!(tasks.stop(Duration::from_secs(5)).await);
        assert!(tokio::time::timeout(Duration::from_millis(20), failure.wait()).await.is_err());
    }

    #[tokio::test]
    async fn stop_waits_no_longer_than_its_limit() {
        let tasks = Tasks::default();
        tasks.spawn("endless", std::future::pending());

        assert!(!tasks.stop(Duration::from_millis(10)).await);
    }
}
