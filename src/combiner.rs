//! Combines the calls of concurrent callers, such as statements that answer for many rows as quickly as for one.

use std::sync::{Mutex, PoisonError};

use anyhow::anyhow;
use tokio::sync::oneshot;
use tokio::sync::oneshot::error::TryRecvError;

use crate::error::{Error, Result};

/// Most callers that share a call.
const BATCH_MAX: usize = 512;

/// Combines calls that are made while others are on their way into one.
pub struct Combiner<I, O> {
    waiting: Mutex<Vec<(I, oneshot::Sender<Result<O>>)>>,
    turn: tokio::sync::Mutex<()>,
}

impl<I, O> Default for Combiner<I, O> {
    fn default() -> Self {
        Self { waiting: Mutex::default(), turn: tokio::sync::Mutex::default() }
    }
}

impl<I: Clone, O> Combiner<I, O> {
    /// Runs `all` for this input and those of other callers; `all` answers them in their order. It may run again for an input
    /// whose call was dropped.
    pub async fn run<F>(&self, input: I, all: impl Fn(Vec<I>) -> F) -> Result<O>
    where
        F: Future<Output = Result<Vec<Result<O>>>> + Send,
    {
        let mut answer = self.wait(input.clone());
        let _turn = self.turn.lock().await;
        loop {
            match answer.try_recv() {
                // Another caller has taken this input along.
                Ok(answer) => return answer,
                // It did, and was dropped before the answer came.
                Err(TryRecvError::Closed) => answer = self.wait(input.clone()),
                Err(TryRecvError::Empty) => {}
            }
            let (inputs, senders): (Vec<I>, Vec<_>) = {
                let mut waiting = self.waiting.lock().unwrap_or_else(PoisonError::into_inner);
                let count = waiting.len().min(BATCH_MAX);
                waiting.drain(..count).unzip()
            };
            let answers = all(inputs)
                .await
                .unwrap_or_else(|error| senders.iter().map(|_| Err(copy_of(&error))).collect());
            for (sender, answer) in senders.into_iter().zip(answers) {
                // A caller that gave up needs no answer.
                let _gone = sender.send(answer);
            }
        }
    }

    fn wait(&self, input: I) -> oneshot::Receiver<Result<O>> {
        let (sender, answer) = oneshot::channel();
        self.waiting.lock().unwrap_or_else(PoisonError::into_inner).push((input, sender));
        answer
    }
}

/// The failure of a call, for one of its callers.
fn copy_of(error: &Error) -> Error {
    match error {
        Error::Overloaded => Error::Overloaded,
        Error::DatabaseUnavailable(cause) => Error::DatabaseUnavailable(anyhow!("{cause:#}")),
        Error::Internal(cause) => Error::Internal(anyhow!("{cause:#}")),
        other => Error::Internal(anyhow!("{other}")),
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[tokio::test]
    async fn callers_that_wait_share_a_call() {
        let combiner = Combiner::<u32, (u32, usize)>::default();
        let all = |inputs: Vec<u32>| async move {
            tokio::time::sleep(Duration::from_millis(50)).await;
            let count = inputs.len();
            Ok(inputs.into_iter().map(|input| Ok((input, count))).collect())
        };

        let answers = futures_util::future::join_all((0..5).map(|n| combiner.run(n, all))).await;

        let answers: Vec<_> = answers.into_iter().map(Result::unwrap).collect();
        assert_eq!(answers, [(0, 1), (1, 4), (2, 4), (3, 4), (4, 4)]);
    }

    #[tokio::test]
    async fn a_caller_that_is_dropped_takes_no_other_along() {
        let combiner = Combiner::<u32, u32>::default();
        let all = |inputs: Vec<u32>| async move {
            tokio::time::sleep(Duration::from_millis(50)).await;
            Ok(inputs.into_iter().map(Ok).collect())
        };

        let dropped = tokio::time::timeout(Duration::from_millis(10), combiner.run(1, all));
        let (dropped, other) = tokio::join!(dropped, combiner.run(2, all));

        assert!(dropped.is_err());
        assert_eq!(other.unwrap(), 2);
    }

    #[tokio::test]
    async fn a_failure_reaches_every_caller_as_what_it_is() {
        let combiner = Combiner::<u32, ()>::default();
        let all = |_| async { Err(Error::DatabaseUnavailable(anyhow!("gone"))) };

        let answers = futures_util::future::join_all((0..3).map(|n| combiner.run(n, all))).await;

        for answer in answers {
            assert!(matches!(answer, Err(Error::DatabaseUnavailable(_))));
        }
    }
}
