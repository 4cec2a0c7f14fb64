//! Activation keys. Redeeming a key adds the game of the key to the user's library; each key can be redeemed once. A
//! key is shown only when it is created, because the database stores only its hash.

mod sql;

use std::net::IpAddr;

use crate::auth::Caller;
use crate::error::{Error, Result, StoreRefusal};
use crate::games::Games;
use crate::games::catalog::require_game_manager;
use crate::games::code::{ALPHABET, drawn};
use crate::games::guess::Guess;
use crate::idempotency_key::IdempotencyKey;
use crate::ids::{ActivationKeyId, GameId, UserId};
use crate::secret::Secret;
use crate::telemetry::Metrics;
use crate::wallet::RequestMeta;

/// Maximum number of activation keys that a request can create.
pub const KEYS_MAX: i32 = 1_000;

/// Maximum number of attempts to create or redeem keys. An attempt fails if another transaction holds a lock that the
/// attempt needs.
const ATTEMPTS_MAX: usize = 20;

/// Length of an activation key without its hyphens, in characters. The key has 123 random bits.
const KEY_LEN: usize = 25;

/// Number of characters of an activation key between two hyphens.
const GROUP_LEN: usize = 5;

/// Activation keys created by a request, or by an earlier request with the same idempotency key.
#[derive(Debug)]
pub struct KeyBatch {
    /// The id of each key, and the key itself. The key is absent if an earlier request with the same idempotency key
    /// created it, because the database stores only its hash.
    pub keys: Vec<(ActivationKeyId, Option<Secret>)>,
    pub replayed: bool,
}

pub(super) fn preregister(metrics: &Metrics) {
    for outcome in ["redeemed", "unknown", "refused", "throttled"] {
        metrics.wallet_store_redeems_total.preregister([outcome]);
    }
}

/// Converts an activation key to the form that is hashed: in capitals, without hyphens and spaces, and with digits in
/// place of the letters that look like digits. Returns `None` for a text that cannot be a key.
fn normalized(text: &str) -> Option<Secret> {
    let digits =
        text.chars().filter(|c| !matches!(c, '-' | ' ')).map(|c| match c.to_ascii_uppercase() {
            'O' => '0',
            'I' | 'L' => '1',
            other => other,
        });
    let key: String = digits.take(KEY_LEN + 1).collect();
    let is_valid = key.len() == KEY_LEN && key.bytes().all(|byte| ALPHABET.contains(&byte));
    is_valid.then(|| Secret::from(key))
}

/// Returns an activation key in groups of characters, separated by hyphens.
fn grouped(key: &str) -> String {
    let mut text = String::new();
    for (n, c) in key.chars().enumerate() {
        if n > 0 && n % GROUP_LEN == 0 {
            text.push('-');
        }
        text.push(c);
    }
    text
}

impl Games {
    /// Creates activation keys for a game. If the game has a limited number of copies, each key takes one.
    pub async fn make_keys(
        &self,
        game: GameId,
        count: i32,
        caller: &Caller,
        key: &IdempotencyKey,
    ) -> Result<KeyBatch> {
        let content = [game.to_string(), count.to_string()];
        let content = content.each_ref().map(String::as_str);
        let hashed = key.hashed(caller.name(), "keys", &content);
        let mut db = self.db.acquire("games.make_keys").await?;
        require_game_manager(&mut db, game, caller).await?;
        for _ in 0..ATTEMPTS_MAX {
            if let Some(hashed) = hashed
                && let Some((ids, content)) = sql::find_batch(&mut db, hashed.hash).await?
            {
                hashed.require_same_content(content)?;
                let keys = ids.into_iter().map(|id| (id, None)).collect();
                return Ok(KeyBatch { keys, replayed: true });
            }
            let secrets: Vec<String> = (0..count).map(|_| drawn(KEY_LEN)).collect();
            let hashes: Vec<Vec<u8>> =
                secrets.iter().map(|key| Secret::from(key.clone()).hash().to_vec()).collect();
            if !sql::make_keys(&mut db, game, caller.name(), &hashes, hashed).await? {
                continue;
            }
            let ids = sql::ids_of(&mut db, &hashes).await?;
            let keys = ids.into_iter().zip(secrets);
            let keys = keys.map(|(id, key)| (id, Some(Secret::from(grouped(&key)))));
            return Ok(KeyBatch { keys: keys.collect(), replayed: false });
        }
        Err(Error::Overloaded)
    }

    /// Redeems an activation key: adds its game to the library of the caller. Returns the game.
    pub async fn redeem(
        &self,
        key: &str,
        address: Option<IpAddr>,
        meta: RequestMeta<'_>,
    ) -> Result<GameId> {
        let user = meta.caller.require_user()?;
        let guess = match self.begin_guess(Guess::Key, user, address).await {
            Ok(guess) => guess,
            Err(error) => {
                self.metrics.wallet_store_redeems_total.with(["throttled"]).increment(1);
                return Err(error);
            }
        };
        let redeemed = self.try_redeem(key, user, meta).await;
        let outcome = match &redeemed {
            Ok(_) => "redeemed",
            Err(Error::Store(StoreRefusal::KeyNotFound)) => "unknown",
            Err(_) => "refused",
        };
        self.metrics.wallet_store_redeems_total.with([outcome]).increment(1);
        self.end_guess(guess, outcome == "unknown").await?;
        redeemed
    }

    async fn try_redeem(&self, key: &str, user: UserId, meta: RequestMeta<'_>) -> Result<GameId> {
        let key = normalized(key).ok_or(StoreRefusal::KeyNotFound)?;
        let mut db = self.db.acquire("games.redeem").await?;
        for _ in 0..ATTEMPTS_MAX {
            let Some(found) = sql::redeem(&mut db, &key.hash(), user, meta.trace).await? else {
                continue;
            };
            let sql::RedeemRow { outcome, game, base } = found;
            let refusal = match (outcome.as_str(), game, base) {
                ("redeemed", Some(game), _) => return Ok(game),
                ("used", ..) => StoreRefusal::KeyRedeemed,
                ("owned", ..) => StoreRefusal::AlreadyOwned,
                ("base_missing", _, Some(base)) => StoreRefusal::BaseGameMissing(base.0),
                _ => StoreRefusal::KeyNotFound,
            };
            return Err(refusal.into());
        }
        Err(Error::Overloaded)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_key_is_read_however_it_is_written() {
        let key = drawn(KEY_LEN);
        let written = grouped(&key);
        assert_eq!(written.len(), KEY_LEN + 4);
        let sloppy = written.to_lowercase().replace('0', "o").replace('1', "l").replace('-', " ");

        for text in [&written, &key, &sloppy] {
            assert_eq!(normalized(text).unwrap().reveal(), key);
        }
        for text in ["", "UUUUU-UUUUU-UUUUU-UUUUU-UUUUU", &key[1..], &format!("{key}0")] {
            assert!(normalized(text).is_none(), "{text}");
        }
    }
}
