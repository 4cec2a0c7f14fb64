//! Password hashes: argon2id, computed on blocking threads with bounded concurrency.

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
use crate::settings;
use crate::telemetry::Metrics;

/// Computes and verifies password hashes.
pub(super) struct Hasher {
    argon2: Argon2<'static>,
    /// Hash of a random password. If the user is unknown, the password is checked against this hash, so that the
    /// response takes as long as for a known user.
    dummy_hash: String,
    /// Semaphore with a permit for each hash that may be computed at the same time.
    permits: Arc<Semaphore>,
    waiting: AtomicUsize,
    waiting_max: usize,
    metrics: Arc<Metrics>,
}

/// Result of verifying a password.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum PasswordVerdict {
    Wrong,
    Right,
    /// The password is right, but its hash is weaker than the settings require. Contains a stronger hash to store.
    RightButWeak(String),
}

impl Hasher {
    pub(super) fn new(args: &PasswordArgs, metrics: Arc<Metrics>) -> anyhow::Result<Self> {
        let params = Params::new(args.password_memory, args.password_passes, 1, None)
            .map_err(|cause| anyhow!("--password-memory or --password-passes: {cause}"))?;
        let argon2 = Argon2::new(Algorithm::Argon2id, Version::V0x13, params);
        let dummy_hash = argon2.hash_password(&crate::secret::random_bytes());
        let dummy_hash = dummy_hash.map_err(|cause| anyhow!("argon2: {cause}"))?.to_string();
        Ok(Self {
            argon2,
            dummy_hash,
            permits: Arc::new(Semaphore::new(
                args.password_hashes_max.unwrap_or_else(settings::half_of_the_cores),
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

    /// Verifies a password. `hash` is `None` if the user is unknown or has no password; the password then counts as
    /// wrong, but the verification takes as long as for a known user.
    pub(super) async fn verify(
        &self,
        password: &Secret,
        hash: Option<&str>,
    ) -> Result<PasswordVerdict> {
        let (argon2, password) = (self.argon2.clone(), password.clone());
        let is_known_user = hash.is_some();
        let hash = hash.unwrap_or(&self.dummy_hash).to_owned();
        self.compute(move || {
            let known = PasswordHash::new(&hash)
                .map_err(|cause| anyhow!("stored password hash: {cause}"))?;
            let is_right = argon2.verify_password(password.reveal().as_bytes(), &known).is_ok();
            if !(is_right && is_known_user) {
                return Ok(PasswordVerdict::Wrong);
            }
            if Params::try_from(&known).is_ok_and(|params| is_strong(&params, argon2.params())) {
                return Ok(PasswordVerdict::Right);
            }
            let stronger = argon2.hash_password(password.reveal().as_bytes());
            let stronger = stronger.map_err(|cause| anyhow!("argon2: {cause}"))?;
            Ok(PasswordVerdict::RightButWeak(stronger.to_string()))
        })
        .await
    }

    async fn compute<T: Send + 'static>(
        &self,
        work: impl FnOnce() -> anyhow::Result<T> + Send + 'static,
    ) -> Result<T> {
        let slot = QueueSlot::new(self).ok_or(Error::Overloaded)?;
        let permit = Arc::clone(&self.permits).acquire_owned().await;
        drop(slot);
        let started = Instant::now();
        let computed = tokio::task::spawn_blocking(move || {
            // The permit is held until the work ends, even if the request was canceled.
            let _permit = permit;
            work()
        });
        let computed = computed.await.map_err(|cause| Error::Internal(cause.into()))?;
        let seconds = started.elapsed().as_secs_f64();
        self.metrics.wallet_password_hash_duration_seconds.record(seconds);
        computed.map_err(Error::Internal)
    }
}

/// Whether a hash costs at least as much as the settings require.
fn is_strong(params: &Params, required: &Params) -> bool {
    params.m_cost() >= required.m_cost() && params.t_cost() >= required.t_cost()
}

/// Place of a request in the password hashing queue. Dropping the slot removes the request from the queue.
struct QueueSlot<'a>(&'a Hasher);

impl<'a> QueueSlot<'a> {
    /// Adds a request to the queue. Returns `None` if the queue is full.
    fn new(hasher: &'a Hasher) -> Option<Self> {
        let before = hasher.waiting.fetch_add(1, Ordering::Relaxed);
        let slot = Self(hasher);
        hasher.metrics.wallet_password_hashes_waiting.increment(1.0);
        (before < hasher.waiting_max).then_some(slot)
    }
}

impl Drop for QueueSlot<'_> {
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
    async fn only_the_right_password_is_verified() {
        let hasher = hasher(64);
        let hash = hasher.hash(&secret("correct horse")).await.unwrap();

        assert!(hash.starts_with("$argon2id$"));
        let verdict = async |text, hash| hasher.verify(&secret(text), hash).await.unwrap();
        assert_eq!(verdict("correct horse", Some(hash.as_str())).await, PasswordVerdict::Right);
        assert_eq!(verdict("wrong horse", Some(hash.as_str())).await, PasswordVerdict::Wrong);
        assert_eq!(verdict("correct horse", None).await, PasswordVerdict::Wrong);
    }

    #[tokio::test]
    async fn a_weak_hash_is_replaced() {
        let (weak, strong) = (hasher(64), hasher(128));
        let hash = weak.hash(&secret("correct horse")).await.unwrap();

        let verdict = strong.verify(&secret("correct horse"), Some(&hash)).await.unwrap();

        let PasswordVerdict::RightButWeak(better) = verdict else { panic!("{verdict:?}") };
        assert!(better.contains("m=128"), "{better}");
        let again = strong.verify(&secret("correct horse"), Some(&better)).await.unwrap();
        assert_eq!(again, PasswordVerdict::Right);
        let by_weak = weak.verify(&secret("correct horse"), Some(&better)).await.unwrap();
        assert_eq!(by_weak, PasswordVerdict::Right, "a stronger hash is kept");
    }

    #[tokio::test]
    async fn a_full_queue_refuses_further_passwords() {
        let hasher = hasher(64);
        let _working = Arc::clone(&hasher.permits).acquire_owned().await.unwrap();

        let (first, second) = (secret("a"), secret("b"));
        let mut waiting =
            Box::pin(async { tokio::join!(hasher.hash(&first), hasher.hash(&second)) });
        assert!(futures_util::poll!(&mut waiting).is_pending());
        let third = hasher.hash(&secret("c")).await;

        assert!(matches!(third, Err(Error::Overloaded)));
    }
}
