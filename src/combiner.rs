//! Combines concurrent calls into batches. Suits, for example, SQL statements that process many rows about as quickly
//! as a single row.

use std::collections::VecDeque;
use std::sync::{Mutex, MutexGuard, PoisonError};

use anyhow::anyhow;
use tokio::sync::oneshot;
use tokio::sync::oneshot::error::TryRecvError;

use crate::error::{Error, Result};

/// Maximum number of inputs in one shared call.
const BATCH_MAX: usize = 512;

/// Collects the inputs that arrive while a call is running, and passes them together to the next call.
pub struct Combiner<I, O> {
    waiting: Mutex<VecDeque<Caller<I, O>>>,
    turn: tokio::sync::Mutex<()>,
}

struct Caller<I, O> {
    input: I,
    answer: oneshot::Sender<Result<O>>,
}

impl<I, O> Default for Combiner<I, O> {
    fn default() -> Self {
        Self { waiting: Mutex::default(), turn: tokio::sync::Mutex::default() }
    }
}

impl<I: Clone, O> Combiner<I, O> {
    /// Calls `all` with `input` and the inputs of other waiting callers, and returns the result for `input`. `all` must
    /// return one result for each input, in the same order. If the caller that runs `all` is dropped before `all`
    /// returns, the inputs become part of the next call.
    pub async fn run<F>(&self, input: I, all: impl Fn(Vec<I>) -> F) -> Result<O>
    where
        F: Future<Output = Result<Vec<Result<O>>>> + Send,
    {
        let (sender, mut answer) = oneshot::channel();
        self.waiting().push_back(Caller { input, answer: sender });
        // While this caller waits for the lock, the caller that holds the lock may process this input and send the
        // result.
        let _turn = tokio::select! {
            biased;
            answered = &mut answer => return answered.unwrap_or_else(|_| Err(given_up())),
            turn = self.turn.lock() => turn,
        };
        loop {
            match answer.try_recv() {
                Ok(answer) => return answer,
                Err(TryRecvError::Closed) => return Err(given_up()),
                Err(TryRecvError::Empty) => {}
            }
            let callers = {
                let mut waiting = self.waiting();
                let count = waiting.len().min(BATCH_MAX);
                waiting.drain(..count).filter(|caller| !caller.answer.is_closed()).collect()
            };
            let mut taken = Taken { combiner: self, callers };
            let inputs = taken.callers.iter().map(|caller| caller.input.clone()).collect();
            let answers = all(inputs).await;
            let callers = std::mem::take(&mut taken.callers);
            let answers = answers
                .unwrap_or_else(|error| callers.iter().map(|_| Err(copy_of(&error))).collect());
            for (caller, answer) in callers.into_iter().zip(answers) {
                // The send fails if the caller was dropped while it waited; then there is nothing left to do.
                let _gone = caller.answer.send(answer);
            }
        }
    }
}

impl<I, O> Combiner<I, O> {
    fn waiting(&self) -> MutexGuard<'_, VecDeque<Caller<I, O>>> {
        self.waiting.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The callers whose inputs are part of the running call. If the call is dropped, the callers return to the front of
/// the queue.
struct Taken<'a, I, O> {
    combiner: &'a Combiner<I, O>,
    callers: Vec<Caller<I, O>>,
}

impl<I, O> Drop for Taken<'_, I, O> {
    fn drop(&mut self) {
        let mut waiting = self.combiner.waiting();
        for caller in self.callers.drain(..).rev() {
            waiting.push_front(caller);
        }
    }
}

fn given_up() -> Error {
    Error::Internal(anyhow!("a shared call ended without a result"))
}

/// Copies the error of a shared call, because each of its callers receives the error.
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
        let calls = Mutex::new(Vec::new());
        let all = |inputs: Vec<u32>| {
            calls.lock().unwrap().push(inputs.len());
            async move {
                tokio::time::sleep(Duration::from_millis(50)).await;
                Ok(inputs.into_iter().map(Ok).collect())
            }
        };

        let short = Duration::from_millis(10);
        let first = tokio::time::timeout(short, combiner.run(1, all));
        let second = tokio::time::timeout(short * 3, combiner.run(2, all));
        let (first, second, third, fourth) =
            tokio::join!(first, second, combiner.run(3, all), combiner.run(4, all));

        assert!(first.is_err() && second.is_err());
        assert_eq!((third.unwrap(), fourth.unwrap()), (3, 4));
        assert_eq!(*calls.lock().unwrap(), [1, 3, 2], "the others stay together");
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
