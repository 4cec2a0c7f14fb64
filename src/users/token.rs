//! User tokens, which are JSON Web Tokens. Each token names a session, and the key id (`kid`) in its header tells which
//! key signed the token.

use std::sync::{Arc, PoisonError, RwLock};
use std::time::{Duration, Instant};

use anyhow::bail;
use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use jsonwebtoken::crypto::{CryptoProvider, JwtSigner, JwtVerifier, KeyUtils};
use jsonwebtoken::errors::ErrorKind;
use jsonwebtoken::signature::{self, Signer, Verifier};
use jsonwebtoken::{Algorithm, DecodingKey, EncodingKey, Header, Validation};
use ring::hmac;
use serde::{Deserialize, Serialize};
use time::OffsetDateTime;
use uuid::Uuid;

use super::sql;
use crate::db::Database;
use crate::error::{CredentialFault, Error, Result};
use crate::ids::UserId;
use crate::secret::{self, Secret};

/// The only signature algorithm that is supported.
const ALGORITHM: Algorithm = Algorithm::HS256;

/// Value of the `iss` claim, which names the issuer of a token.
const ISSUER: &str = "revwallet";

/// Minimum length of a secret in the settings, in characters.
const SECRET_MIN: usize = 32;

/// Longest token that is accepted, in bytes.
pub(super) const TOKEN_MAX: usize = 1_024;

/// Longest time that cached keys are used to sign tokens, before they are read from the database again.
const KEYS_AGE_MAX: Duration = Duration::from_secs(30);

/// Claims of a token.
#[derive(Debug, Serialize, Deserialize)]
pub(super) struct Claims {
    iss: String,
    /// Id of the user.
    pub(super) sub: String,
    /// Id of the token. The id of the session is a hash of this id.
    pub(super) jti: Uuid,
    iat: i64,
    exp: i64,
}

struct JwtKey {
    kid: String,
    secret: Secret,
}

struct LoadedKeys {
    /// The valid keys. The first key signs new tokens; all keys verify tokens.
    keys: Vec<JwtKey>,
    read: Instant,
}

/// Signs and verifies tokens.
pub(super) struct Tokens {
    db: Database,
    known: RwLock<Arc<LoadedKeys>>,
    /// Whether the keys come from the settings and are never read from the database.
    are_given: bool,
    pub(super) lifetime: Duration,
}

impl Tokens {
    /// Loads the keys. `given` contains the secrets in the settings; the first secret signs new tokens. Without secrets
    /// in the settings, the keys come from the database.
    pub(super) async fn open(
        db: &Database,
        given: &[Secret],
        lifetime: Duration,
    ) -> anyhow::Result<Self> {
        // Installation fails if a provider is already installed, which is harmless because it is the same provider.
        let _installed = PROVIDER.install_default();
        if given.iter().any(|secret| secret.reveal().len() < SECRET_MIN) {
            bail!("--jwt-secret must have at least {SECRET_MIN} characters; use a random secret");
        }
        let keys =
            given.iter().map(|secret| JwtKey { kid: kid_of(secret), secret: secret.clone() });
        let known = LoadedKeys { keys: keys.collect(), read: Instant::now() };
        let tokens = Self {
            db: db.clone(),
            are_given: !given.is_empty(),
            known: RwLock::new(Arc::new(known)),
            lifetime,
        };
        if !tokens.are_given {
            let known = tokens.look_up().await.map_err(Error::into_cause)?;
            if known.keys.is_empty() {
                rotate(db, lifetime).await.map_err(Error::into_cause)?;
                tokens.look_up().await.map_err(Error::into_cause)?;
            }
        }
        Ok(tokens)
    }

    /// Signs a token for a session.
    pub(super) async fn sign(
        &self,
        user: UserId,
        session: Uuid,
        until: OffsetDateTime,
    ) -> Result<String> {
        let mut known = self.known();
        if !self.are_given && known.read.elapsed() > KEYS_AGE_MAX {
            known = self.look_up().await?;
        }
        let key = known.keys.first();
        let key =
            key.ok_or_else(|| Error::Internal(anyhow::anyhow!("there is no key to sign with")))?;
        let header = Header { kid: Some(key.kid.clone()), ..Header::new(ALGORITHM) };
        let claims = Claims {
            iss: ISSUER.to_owned(),
            sub: user.to_string(),
            jti: session,
            iat: OffsetDateTime::now_utc().unix_timestamp(),
            exp: until.unix_timestamp(),
        };
        let signing = EncodingKey::from_secret(key.secret.reveal().as_bytes());
        jsonwebtoken::encode(&header, &claims, &signing)
            .map_err(|cause| Error::Internal(cause.into()))
    }

    /// Returns the claims of a token, if the signature is valid and the token has not expired. The caller must check
    /// that the session still exists.
    pub(super) async fn read(&self, token: &Secret) -> Result<Result<Claims, CredentialFault>> {
        let text = token.reveal();
        let Some(header) = Some(text)
            .filter(|text| text.len() <= TOKEN_MAX)
            .and_then(|text| jsonwebtoken::decode_header(text).ok())
            .filter(|header| header.alg == ALGORITHM)
        else {
            return Ok(Err(CredentialFault::Invalid));
        };
        let Some(kid) = header.kid else { return Ok(Err(CredentialFault::Invalid)) };
        let mut known = self.known();
        let has = |known: &LoadedKeys| known.keys.iter().any(|key| key.kid == kid);
        if !has(&known) && !self.are_given {
            // Another process may have added the key a moment ago.
            known = self.look_up().await?;
        }
        let Some(key) = known.keys.iter().find(|key| key.kid == kid) else {
            return Ok(Err(CredentialFault::Invalid));
        };
        let mut validation = Validation::new(ALGORITHM);
        validation.leeway = 0;
        validation.set_issuer(&[ISSUER]);
        validation.set_required_spec_claims(&["exp", "sub", "iss"]);
        let key = DecodingKey::from_secret(key.secret.reveal().as_bytes());
        let decoded = jsonwebtoken::decode::<Claims>(text, &key, &validation);
        Ok(decoded.map(|data| data.claims).map_err(|error| match error.kind() {
            // The library checks the signature before the expiry.
            ErrorKind::ExpiredSignature => CredentialFault::Expired,
            _ => CredentialFault::Invalid,
        }))
    }

    fn known(&self) -> Arc<LoadedKeys> {
        Arc::clone(&self.known.read().unwrap_or_else(PoisonError::into_inner))
    }

    async fn look_up(&self) -> Result<Arc<LoadedKeys>> {
        let keys = sql::jwt_keys(&mut *self.db.acquire("users.jwt_keys").await?).await?;
        let keys =
            keys.into_iter().map(|(kid, secret)| JwtKey { kid, secret: Secret::from(secret) });
        let known = Arc::new(LoadedKeys { keys: keys.collect(), read: Instant::now() });
        *self.known.write().unwrap_or_else(PoisonError::into_inner) = Arc::clone(&known);
        Ok(known)
    }
}

/// Adds a new key and returns its id. The previous keys stay valid until the last token that they signed has expired.
pub(super) async fn rotate(db: &Database, lifetime: Duration) -> Result<String> {
    let secret = Secret::from(URL_SAFE_NO_PAD.encode(secret::random_bytes()));
    let kid = kid_of(&secret);
    // Other processes sign with the old key until they reload the keys.
    let overlap = lifetime + 2 * KEYS_AGE_MAX;
    sql::add_jwt_key(&mut *db.acquire("users.rotate_jwt").await?, &kid, secret.reveal(), overlap)
        .await?;
    Ok(kid)
}

/// Returns the id of a key, which reveals nothing about its secret.
fn kid_of(secret: &Secret) -> String {
    let named = Secret::from(format!("kid of {}", secret.reveal()));
    URL_SAFE_NO_PAD.encode(&named.hash()[..6])
}

/// HMAC-SHA256 from the `ring` library, which TLS uses as well.
struct Hs256(hmac::Key);

static PROVIDER: CryptoProvider = CryptoProvider {
    signer_factory: |algorithm, key| Ok(Box::new(Hs256::new(*algorithm, key.as_bytes())?)),
    verifier_factory: |algorithm, key| {
        Ok(Box::new(Hs256::new(*algorithm, key.try_get_as_bytes()?)?))
    },
    key_utils: KeyUtils::new_unimplemented(),
};

impl Hs256 {
    fn new(algorithm: Algorithm, key: &[u8]) -> jsonwebtoken::errors::Result<Self> {
        if algorithm != ALGORITHM {
            return Err(jsonwebtoken::errors::ErrorKind::InvalidAlgorithm.into());
        }
        Ok(Self(hmac::Key::new(hmac::HMAC_SHA256, key)))
    }
}

impl Signer<Vec<u8>> for Hs256 {
    fn try_sign(&self, message: &[u8]) -> Result<Vec<u8>, signature::Error> {
        Ok(hmac::sign(&self.0, message).as_ref().to_vec())
    }
}

impl JwtSigner for Hs256 {
    fn algorithm(&self) -> Algorithm {
        ALGORITHM
    }
}

impl Verifier<Vec<u8>> for Hs256 {
    fn verify(&self, message: &[u8], signature: &Vec<u8>) -> Result<(), signature::Error> {
        hmac::verify(&self.0, message, signature).map_err(|_| signature::Error::new())
    }
}

impl JwtVerifier for Hs256 {
    fn algorithm(&self) -> Algorithm {
        ALGORITHM
    }
}
