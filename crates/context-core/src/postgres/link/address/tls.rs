//! TLS by rustls with the ring provider.
//!
//! Roots are the system's (`rustls-native-certs`) and not Mozilla's list compiled in: a database's certificate is
//! mostly signed by a company's or a cloud's own authority, which an operator installs in the system or names in
//! `ca_file`; and the system's list is kept up to date by somebody.

use std::path::Path;
use std::sync::Arc;

use rustls::client::WebPkiServerVerifier;
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::crypto::{CryptoProvider, ring, verify_tls12_signature, verify_tls13_signature};
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, ServerName, UnixTime};
use rustls::{ClientConfig, DigitallySignedStruct, RootCertStore, SignatureScheme};
use tokio_postgres_rustls::MakeRustlsConnect;

use crate::error::{Error, Invalid, Result};

/// Encrypts, and verifies nothing.
pub(super) fn unverified() -> Result<MakeRustlsConnect> {
    let provider = Arc::new(ring::default_provider());
    let config = ClientConfig::builder_with_provider(provider.clone())
        .with_safe_default_protocol_versions()
        .map_err(|error| Error::internal(format!("TLS cannot be set up: {error}")))?
        .dangerous()
        .with_custom_certificate_verifier(Arc::new(Unverified(provider)))
        .with_no_client_auth();
    Ok(MakeRustlsConnect::new(config))
}

/// Verifies certificate and name against `ca_file`, else against the system's roots.
pub(super) fn verified(key: &str, ca_file: Option<&Path>) -> Result<MakeRustlsConnect> {
    let provider = Arc::new(ring::default_provider());
    let roots = Arc::new(match ca_file {
        Some(file) => from_file(key, file)?,
        None => from_system(key)?,
    });
    let verifier = WebPkiServerVerifier::builder_with_provider(roots, provider.clone())
        .build()
        .map_err(|error| Error::internal(format!("TLS cannot be set up: {error}")))?;
    let config = ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .map_err(|error| Error::internal(format!("TLS cannot be set up: {error}")))?
        .with_webpki_verifier(verifier)
        .with_no_client_auth();
    Ok(MakeRustlsConnect::new(config))
}

fn from_file(key: &str, file: &Path) -> Result<RootCertStore> {
    let key = sibling(key);
    let invalid = |problem: String| {
        Invalid::new(key.clone(), problem)
            .hint("name a PEM file with at least one certificate of an authority")
    };
    let certificates = CertificateDer::pem_file_iter(file)
        .and_then(Iterator::collect::<Result<Vec<_>, _>>)
        .map_err(|error| invalid(format!("{} cannot be read: {error}", file.display())))?;
    let mut roots = RootCertStore::empty();
    for certificate in certificates {
        roots.add(certificate).map_err(|error| {
            invalid(format!(
                "{} has a certificate that is no authority's: {error}",
                file.display()
            ))
        })?;
    }
    if roots.is_empty() {
        return Err(invalid(format!("{} has no certificate", file.display())).into());
    }
    Ok(roots)
}

fn from_system(key: &str) -> Result<RootCertStore> {
    let found = rustls_native_certs::load_native_certs();
    let mut roots = RootCertStore::empty();
    // The system's list may hold a few that rustls does not understand.
    let (usable, _) = roots.add_parsable_certificates(found.certs);
    if usable == 0 {
        return Err(Invalid::new(sibling(key), "is not set, and the system trusts no certificate")
            .hint("set it to the authority's PEM file, or install the system's certificates (Debian: ca-certificates)")
            .into());
    }
    Ok(roots)
}

/// `ca_file` beside the DSN's key.
fn sibling(key: &str) -> String {
    key.rsplit_once('.').map_or_else(
        || "ca_file".to_owned(),
        |(section, _)| format!("{section}.ca_file"),
    )
}

/// Takes any certificate; still checks that the other side holds its key, because TLS asks for it.
#[derive(Debug)]
struct Unverified(Arc<CryptoProvider>);

impl ServerCertVerifier for Unverified {
    fn verify_server_cert(
        &self,
        _end_entity: &CertificateDer<'_>,
        _intermediates: &[CertificateDer<'_>],
        _server_name: &ServerName<'_>,
        _ocsp_response: &[u8],
        _now: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        verify_tls12_signature(message, cert, dss, &self.0.signature_verification_algorithms)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        verify_tls13_signature(message, cert, dss, &self.0.signature_verification_algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.0.signature_verification_algorithms.supported_schemes()
    }
}
