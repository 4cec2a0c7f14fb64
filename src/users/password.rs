//! Passwords: argon2id, off the threads that answer requests, only so many at once.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Instant;

use anyhow::anyhow;
use argon2::password_hash::phc::PasswordHash;
use argon2::password_hash::{PasswordHasher, PasswordVerifier};
use argon2::{Algorithm, Argon2, Params, Version};
use tokio::sync::Semaphore;

use super::PasswordArgs;
use crate::error::{Error, Result};
use crate::secret::Secret;
use crate::telemetry::Metrics;

/// Makes and checks hashes of passwords.
pub(super) struct Hasher {
    argon2: Argon2<'static>,
    /// The hash of a password that nobody has: checking it takes as long as checking a real one.
    nobody: String,
    /// One permit for each hash that is being computed.
    room: Arc<Semaphore>,
    waiting: AtomicUsize,
    waiting_max: usize,
    metrics: Arc<Metrics>,
}

/// What a check found.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum PasswordVerdict {
    Wrong,
    Right,
    /// Right, and this hash should be kept instead: the old one was cheaper than the settings want.
    RightButCheap(String),
}

impl Hasher {
    pub(super) fn new(args: &PasswordArgs, metrics: Arc<Metrics>) -> anyhow::Result<Self> {
        let params = Params::new(args.password_memory, args.password_passes, 1, None)
            .map_err(|cause| anyhow!("--password-memory or --password-passes: {cause}"))?;
        let argon2 = Argon2::new(Algorithm::Argon2id, Version::V0x13, params);
        let nobody = argon2.hash_password(&crate::secret::random());
        let nobody = nobody.map_err(|cause| anyhow!("argon2: {cause}"))?.to_string();
        Ok(Self {
            argon2,
            nobody,
            room: Arc::new(Semaphore::new(
                args.password_hashes_max.unwrap_or_else(half_of_the_cores).max(1),
            )),
            waiting: AtomicUsize::new(0),
            waiting_max: args.password_waiting_max,
            metrics,
        })
    }

    pub(super) async fn hash(&self, password: &Secret) -> Result<String> {
        let (argon2, password) = (self.argon2.clone(), password.clone());
        self.compute(move || {
            let hash = argon2.hash_password(password.reveal().as_bytes());
            hash.map(|hash| hash.to_string()).map_err(|cause| anyhow!("argon2: {cause}"))
        })
        .await
    }

    /// Takes as long when there is no hash to compare with.
    pub(super) async fn verify(
        &self,
        password: &Secret,
        hash: Option<&str>,
    ) -> Result<PasswordVerdict> {
        let (argon2, password) = (self.argon2.clone(), password.clone());
        let is_somebody = hash.is_some();
        let hash = hash.unwrap_or(&self.nobody).to_owned();
        self.compute(move || {
            let known = PasswordHash::new(&hash).map_err(|cause| anyhow!("a hash: {cause}"))?;
            let right = argon2.verify_password(password.reveal().as_bytes(), &known).is_ok();
            if !(right && is_somebody) {
                return Ok(PasswordVerdict::Wrong);
            }
            if Params::try_from(&known).is_ok_and(|params| is_as_dear(&params, argon2.params())) {
                return Ok(PasswordVerdict::Right);
            }
            let dearer = argon2.hash_password(password.reveal().as_bytes());
            let dearer = dearer.map_err(|cause| anyhow!("argon2: {cause}"))?;
            Ok(PasswordVerdict::RightButCheap(dearer.to_string()))
        })
        .await
    }

    async fn compute<T: Send + 'static>(
        &self,
        work: impl FnOnce() -> anyhow::Result<T> + Send + 'static,
    ) -> Result<T> {
        let waiting = Waiting::begin(self).ok_or(Error::Overloaded)?;
        let room = Arc::clone(&self.room).acquire_owned().await;
        drop(waiting);
        let began = Instant::now();
        let computed = tokio::task::spawn_blocking(move || {
            // Held to the end of the work, also when nobody waits for it any more.
            let _room = room;
            work()
        });
        let computed = computed.await.map_err(|cause| Error::Internal(cause.into()))?;
        let seconds = began.elapsed().as_secs_f64();
        self.metrics.wallet_password_hash_duration_seconds.record(seconds);
        computed.map_err(Error::Internal)
    }
}

/// The other half serves everybody else.
fn half_of_the_cores() -> usize {
    std::thread::available_parallelism().map_or(1, |cores| cores.get() / 2)
}

fn is_as_dear(params: &Params, wanted: &Params) -> bool {
    params.m_cost() >= wanted.m_cost() && params.t_cost() >= wanted.t_cost()
}

/// A place in the queue for a hash.
struct Waiting<'a>(&'a Hasher);

impl<'a> Waiting<'a> {
    /// Nothing when the queue is so long that an answer would come too late.
    fn begin(hasher: &'a Hasher) -> Option<Self> {
        let before = hasher.waiting.fetch_add(1, Ordering::Relaxed);
        let place = Self(hasher);
        hasher.metrics.wallet_password_hashes_waiting.increment(1.0);
        (before < hasher.waiting_max).then_some(place)
    }
}

impl Drop for Waiting<'_> {
    fn drop(&mut self) {
        self.0.waiting.fetch_sub(1, Ordering::Relaxed);
        self.0.metrics.wallet_password_hashes_waiting.decrement(1.0);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn hasher(memory: u32) -> Hasher {
        let args = PasswordArgs {
            password_memory: memory,
            password_passes: 1,
            password_hashes_max: Some(1),
            password_waiting_max: 2,
        };
        Hasher::new(&args, Metrics::new()).unwrap()
    }

    fn secret(text: &str) -> Secret {
        Secret::from(text.to_owned())
    }

    #[tokio::test]
    async fn a_password_is_known_again_and_no_other() {
        let hasher = hasher(64);
        let hash = hasher.hash(&secret("correct horse")).await.unwrap();

        assert!(hash.starts_with("$argon2id$"));
        let verdict = async |text, hash| hasher.verify(&secret(text), hash).await.unwrap();
        assert_eq!(verdict("correct horse", Some(hash.as_str())).await, PasswordVerdict::Right);
        assert_eq!(verdict("wrong horse", Some(hash.as_str())).await, PasswordVerdict::Wrong);
        assert_eq!(verdict("correct horse", None).await, PasswordVerdict::Wrong);
    }

    #[tokio::test]
    async fn a_hash_that_has_become_too_cheap_is_replaced() {
        let (cheap, dear) = (hasher(64), hasher(128));
        let hash = cheap.hash(&secret("correct horse")).await.unwrap();

        let verdict = dear.verify(&secret("correct horse"), Some(&hash)).await.unwrap();

        let PasswordVerdict::RightButCheap(better) = verdict else { panic!("{verdict:?}") };
        assert!(better.contains("m=128"), "{better}");
        let again = dear.verify(&secret("correct horse"), Some(&better)).await.unwrap();
        assert_eq!(again, PasswordVerdict::Right);
        let cheaper = cheap.verify(&secret("correct horse"), Some(&better)).await.unwrap();
        assert_eq!(cheaper, PasswordVerdict::Right, "a dearer one stays");
    }

    #[tokio::test]
    async fn when_too_many_wait_the_next_is_told_to_come_back() {
        let hasher = hasher(64);
        let _working = Arc::clone(&hasher.room).acquire_owned().await.unwrap();

        let (first, second) = (secret("a"), secret("b"));
        let mut waiting =
            Box::pin(async { tokio::join!(hasher.hash(&first), hasher.hash(&second)) });
        assert!(futures_util::poll!(&mut waiting).is_pending());
        let third = hasher.hash(&secret("c")).await;

        assert!(matches!(third, Err(Error::Overloaded)));
    }
}
