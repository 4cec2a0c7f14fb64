//! Every task that is spawned: counted, named, and missed when it dies.

use std::sync::{Arc, OnceLock};
use std::time::Duration;

use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use tracing::{Instrument, Span, error};

/// A group of tasks that start and stop together.
///
/// The program has two: the edge (listeners, connections) stops first, so that what
/// it has promised is still done by the core (writer, readers, jobs), which stops second.
#[derive(Debug, Clone, Default)]
pub struct Tasks {
    tracker: TaskTracker,
    stopping: CancellationToken,
    died: FirstFailure,
}

/// The first task that ended although nobody asked it to.
#[derive(Debug, Clone, Default)]
pub struct FirstFailure {
    name: Arc<OnceLock<&'static str>>,
    noticed: CancellationToken,
}

impl FirstFailure {
    /// Waits for the first death.
    pub async fn wait(&self) -> &'static str {
        self.noticed.cancelled().await;
        self.name.get().copied().unwrap_or("unknown")
    }

    fn report(&self, name: &'static str) {
        // Only the first is kept: the others usually follow from it.
        if self.name.set(name).is_ok() {
            self.noticed.cancel();
        }
    }
}

impl Tasks {
    /// A group that reports its deaths to `died`.
    pub fn new(died: FirstFailure) -> Self {
        Self { died, ..Self::default() }
    }

    /// Is cancelled when the group is asked to stop.
    pub fn stopping(&self) -> &CancellationToken {
        &self.stopping
    }

    /// Runs `work` until the group stops. Ending earlier, failing or panicking ends the program.
    pub fn spawn(
        &self,
        name: &'static str,
        work: impl Future<Output = anyhow::Result<()>> + Send + 'static,
    ) {
        let (died, stopping) = (self.died.clone(), self.stopping.clone());
        let work = self.tracker.track_future(work).in_current_span();
        #[expect(clippy::disallowed_methods, reason = "this is the tracked spawn")]
        tokio::spawn(async move {
            #[expect(clippy::disallowed_methods, reason = "joined on the next line to see a panic")]
            let outcome = tokio::spawn(work).await;
            match outcome {
                Ok(Ok(())) if stopping.is_cancelled() => return,
                Ok(Ok(())) => error!(task = name, "the task {name} ended unasked"),
                Ok(Err(cause)) => {
                    error!(
                        task = name,
                        error.message = format!("{cause:#}"),
                        "the task {name} failed"
                    );
                }
                Err(cause) => {
                    error!(
                        task = name,
                        error.message = cause.to_string(),
                        "the task {name} panicked"
                    );
                }
            }
            died.report(name);
        });
    }

    /// Runs `work` that may end at any time, such as one connection.
    pub fn spawn_brief(&self, work: impl Future<Output = ()> + Send + 'static) {
        self.tracker.spawn(work.instrument(Span::none()));
    }

    /// Asks every task of the group to stop and waits at most `limit`; says whether all did.
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
    async fn a_task_that_fails_is_noticed_by_name() {
        let died = FirstFailure::default();
        let tasks = Tasks::new(died.clone());

        tasks.spawn("fragile", async { anyhow::bail!("out of luck") });

        assert_eq!(died.wait().await, "fragile");
    }

    #[tokio::test]
    async fn a_task_that_panics_is_noticed_by_name() {
        let died = FirstFailure::default();
        let tasks = Tasks::new(died.clone());

        tasks.spawn("fragile", async { panic!("out of luck") });

        assert_eq!(died.wait().await, "fragile");
    }

    #[tokio::test]
    async fn a_task_that_stops_when_asked_is_no_death() {
        let died = FirstFailure::default();
        let tasks = Tasks::new(died.clone());
        let stopping = tasks.stopping().clone();
        tasks.spawn("obedient", async move {
            stopping.cancelled().await;
            Ok(())
        });

        assert!(tasks.stop(Duration::from_secs(5)).await);
        assert!(tokio::time::timeout(Duration::from_millis(20), died.wait()).await.is_err());
    }

    #[tokio::test]
    async fn a_task_that_does_not_stop_is_waited_for_no_longer_than_the_limit() {
        let tasks = Tasks::default();
        tasks.spawn("stubborn", std::future::pending());

        assert!(!tasks.stop(Duration::from_millis(10)).await);
    }
}
