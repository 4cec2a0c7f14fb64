//! Combines the calls of concurrent callers, such as statements that answer for many rows as quickly as for one.

use std::sync::{Mutex, PoisonError};

use anyhow::anyhow;
use tokio::sync::oneshot;

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

impl<I, O> Combiner<I, O> {
    /// Runs `all` for this input and those of other callers.
    pub async fn run<F>(&self, input: I, all: impl Fn(Vec<I>) -> F) -> Result<O>
    where
        F: Future<Output = Result<Vec<Result<O>>>> + Send,
    {
        let (sender, mut answer) = oneshot::channel();
        self.waiting.lock().unwrap_or_else(PoisonError::into_inner).push((input, sender));
        let _turn = self.turn.lock().await;
        loop {
            // Another caller may have taken this input along.
            if let Ok(answer) = answer.try_recv() {
                return answer;
            }
            let (inputs, senders): (Vec<I>, Vec<_>) = {
                let mut waiting = self.waiting.lock().unwrap_or_else(PoisonError::into_inner);
                let count = waiting.len().min(BATCH_MAX);
                waiting.drain(..count).unzip()
            };
            if inputs.is_empty() {
                // The caller that took it along gave up.
                return Err(Error::Internal(anyhow!("the call was given up")));
            }
            let answers = all(inputs).await.unwrap_or_else(|error| {
                let why = error.into_cause().to_string();
                senders.iter().map(|_| Err(Error::Internal(anyhow!(why.clone())))).collect()
            });
            for (sender, answer) in senders.into_iter().zip(answers) {
                // A caller that gave up needs no answer.
                let _gone = sender.send(answer);
            }
        }
    }
}
