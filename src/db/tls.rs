//! Verifies the certificate of the database server on pipelined connections. The `sslmode` of the database URL
//! determines how strict the verification is, as it does for the connections of the connection pool.

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

/// Requirement on the certificate of the database server.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Trust {
    /// Any certificate. Protects against eavesdropping, but not against a server that impersonates the database.
    Anonymous,
    /// A certificate from a trusted authority, for any server name.
    Authority,
    /// A certificate from a trusted authority, issued for the name of the server.
    Name,
}

/// Creates a TLS connector. `roots` is a file of trusted certificate authorities; without it, the connector trusts the
/// authorities that the operating system trusts.
pub(super) fn connector(trust: Trust, roots: Option<&str>) -> anyhow::Result<MakeRustlsConnect> {
    let provider = Arc::new(ring::default_provider());
    let builder = ClientConfig::builder_with_provider(Arc::clone(&provider))
        .with_safe_default_protocol_versions()
        .context("no supported version of TLS")?;
    let verifier: Arc<dyn ServerCertVerifier> = if trust == Trust::Anonymous {
        Arc::new(LenientVerifier { provider, chain: None })
    } else {
        let roots = Arc::new(trusted_authorities(roots)?);
        let chain = WebPkiServerVerifier::builder_with_provider(roots, Arc::clone(&provider));
        let chain = chain.build().context("the trusted authorities cannot be used")?;
        if trust == Trust::Name {
            chain
        } else {
            Arc::new(LenientVerifier { provider, chain: Some(chain) })
        }
    };
    let config = builder.dangerous().with_custom_certificate_verifier(verifier);
    Ok(MakeRustlsConnect::new(config.with_no_client_auth()))
}

fn trusted_authorities(file: Option<&str>) -> anyhow::Result<RootCertStore> {
    let mut roots = RootCertStore::empty();
    match file {
        Some(file) => {
            let unreadable = || format!("the authorities in `{file}` (sslrootcert) cannot be read");
            let found = CertificateDer::pem_file_iter(file).map_err(|cause| anyhow!("{cause}"));
            for certificate in found.with_context(unreadable)? {
                let certificate = certificate.map_err(|cause| anyhow!("{cause}"));
                roots.add(certificate.with_context(unreadable)?).with_context(unreadable)?;
            }
        }
        None => {
            roots.add_parsable_certificates(rustls_native_certs::load_native_certs().certs);
        }
    }
    if roots.is_empty() {
        bail!(
            "there is no trusted authority to verify the database server; set sslrootcert to a file of authorities"
        );
    }
    Ok(roots)
}

/// A certificate verifier that accepts any server name, and any authority if `chain` is `None`, but never an invalid
/// signature.
#[derive(Debug)]
struct LenientVerifier {
    provider: Arc<CryptoProvider>,
    /// Verifier of the certificate chain, if the certificate must come from a trusted authority.
    chain: Option<Arc<WebPkiServerVerifier>>,
}

impl ServerCertVerifier for LenientVerifier {
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
            // The verifier reports a wrong name only after it has accepted the authority, so the certificate is
            // trusted.
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
