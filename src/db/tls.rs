//! Whom the ledger's connection believes to be its server: as much as `sslmode` asks for, as the pool does.

use std::sync::Arc;

use anyhow::{Context, anyhow, bail};
use rustls::client::WebPkiServerVerifier;
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::crypto::{CryptoProvider, ring, verify_tls12_signature, verify_tls13_signature};
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, ServerName, UnixTime};
use rustls::{
    CertificateError, ClientConfig, DigitallySignedStruct, Error, RootCertStore, SignatureScheme,
};
use tokio_postgres_rustls::MakeRustlsConnect;

/// Who counts as the server.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Trust {
    /// Whoever answers: against listeners, not against impostors.
    Anonymous,
    /// Who has a certificate of an authority that we know, whatever its name.
    Authority,
    /// And in that name.
    Name,
}

/// `roots` is a file of authorities; without it those of this machine are known.
pub(super) fn connector(trust: Trust, roots: Option<&str>) -> anyhow::Result<MakeRustlsConnect> {
    let provider = Arc::new(ring::default_provider());
    let builder = ClientConfig::builder_with_provider(Arc::clone(&provider))
        .with_safe_default_protocol_versions()
        .context("no version of TLS")?;
    let verifier: Arc<dyn ServerCertVerifier> = if trust == Trust::Anonymous {
        Arc::new(Lenient { provider, chain: None })
    } else {
        let known = Arc::new(authorities(roots)?);
        let chain = WebPkiServerVerifier::builder_with_provider(known, Arc::clone(&provider));
        let chain = chain.build().context("the authorities cannot be used")?;
        if trust == Trust::Name {
            chain
        } else {
            Arc::new(Lenient { provider, chain: Some(chain) })
        }
    };
    let config = builder.dangerous().with_custom_certificate_verifier(verifier);
    Ok(MakeRustlsConnect::new(config.with_no_client_auth()))
}

fn authorities(file: Option<&str>) -> anyhow::Result<RootCertStore> {
    let mut known = RootCertStore::empty();
    match file {
        Some(file) => {
            let unreadable = || format!("the authorities in `{file}` (sslrootcert) cannot be read");
            let found = CertificateDer::pem_file_iter(file).map_err(|cause| anyhow!("{cause}"));
            for certificate in found.with_context(unreadable)? {
                let certificate = certificate.map_err(|cause| anyhow!("{cause}"));
                known.add(certificate.with_context(unreadable)?).with_context(unreadable)?;
            }
        }
        None => {
            known.add_parsable_certificates(rustls_native_certs::load_native_certs().certs);
        }
    }
    if known.is_empty() {
        bail!(
            "no authority is known that could vouch for the database; name a file by sslrootcert"
        );
    }
    Ok(known)
}

/// Believes more than a browser would, but never a signature that is wrong.
#[derive(Debug)]
struct Lenient {
    provider: Arc<CryptoProvider>,
    /// Who must have vouched for it, if anybody.
    chain: Option<Arc<WebPkiServerVerifier>>,
}

impl ServerCertVerifier for Lenient {
    fn verify_server_cert(
        &self,
        certificate: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        name: &ServerName<'_>,
        ocsp: &[u8],
        now: UnixTime,
    ) -> Result<ServerCertVerified, Error> {
        let Some(chain) = &self.chain else { return Ok(ServerCertVerified::assertion()) };
        match chain.verify_server_cert(certificate, intermediates, name, ocsp, now) {
            // The chain is looked at before the name.
            Err(Error::InvalidCertificate(
                CertificateError::NotValidForName | CertificateError::NotValidForNameContext { .. },
            )) => Ok(ServerCertVerified::assertion()),
            verdict => verdict,
        }
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        let algorithms = &self.provider.signature_verification_algorithms;
        verify_tls12_signature(message, certificate, signature, algorithms)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        let algorithms = &self.provider.signature_verification_algorithms;
        verify_tls13_signature(message, certificate, signature, algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.provider.signature_verification_algorithms.supported_schemes()
    }
}
