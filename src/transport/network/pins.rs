//! Which certificates relays may show: a pinned one by its hash, or one that the web's authorities vouch for.
//!
//! A relay that is pinned is believed for that certificate alone, whatever name or dates are in it, and whoever else
//! vouches for another. That it holds the certificate's key is checked in any case.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};

use iroh::tls::CaTlsConfig;
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::crypto::{CryptoProvider, verify_tls12_signature, verify_tls13_signature};
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, ServerName, UnixTime};
use rustls::{CertificateError, DigitallySignedStruct, Error, SignatureScheme};
use sha2::{Digest, Sha256};

/// The SHA-256 of the first certificate in a file, PEM or DER, as it is pinned. None: there is none.
pub fn certificate_sha256(file: &[u8]) -> Option<[u8; 32]> {
    // DER is a sequence, which no text begins like.
    let der = |file: &[u8]| file.starts_with(b"\x30").then(|| CertificateDer::from(file.to_vec()));
    let certificate = CertificateDer::from_pem_slice(file).ok().or_else(|| der(file))?;
    Some(Sha256::digest(&certificate).into())
}

/// The pinned certificates, by the host that shows them. Grows while the network runs.
#[derive(Debug, Clone, Default)]
pub(super) struct Pins(Arc<Mutex<HashMap<String, Vec<[u8; 32]>>>>);

impl Pins {
    /// Believes `host` (a name or an address) only with a certificate of this SHA-256, or one that was added before.
    pub(super) fn add(&self, host: &str, certificate: [u8; 32]) {
        let mut pins = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let pinned = pins.entry(host.to_ascii_lowercase()).or_default();
        if !pinned.contains(&certificate) {
            pinned.push(certificate);
        }
    }

    /// Whether the host's certificate is the pinned one. None: nothing is pinned for it.
    fn believes(&self, host: &str, certificate: &[u8]) -> Option<bool> {
        let pins = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let pinned = pins.get(&host.to_ascii_lowercase())?;
        Some(pinned.contains(&<[u8; 32]>::from(Sha256::digest(certificate))))
    }

    /// How the network verifies the certificates of relays.
    pub(super) fn tls(&self) -> CaTlsConfig {
        let pins = self.clone();
        CaTlsConfig::custom_server_cert_verifier(Arc::new(move |provider| {
            let web = CaTlsConfig::embedded().server_cert_verifier(Arc::clone(&provider))?;
            Ok(Arc::new(Verifier { pins: pins.clone(), web, provider }) as Arc<dyn ServerCertVerifier>)
        }))
    }
}

#[derive(Debug)]
struct Verifier {
    pins: Pins,
    web: Arc<dyn ServerCertVerifier>,
    provider: Arc<CryptoProvider>,
}

impl ServerCertVerifier for Verifier {
    fn verify_server_cert(
        &self,
        certificate: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        name: &ServerName<'_>,
        ocsp: &[u8],
        now: UnixTime,
    ) -> Result<ServerCertVerified, Error> {
        match self.pins.believes(&name.to_str(), certificate) {
            Some(true) => Ok(ServerCertVerified::assertion()),
            Some(false) => Err(CertificateError::ApplicationVerificationFailure.into()),
            None => self.web.verify_server_cert(certificate, intermediates, name, ocsp, now),
        }
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        verify_tls12_signature(message, certificate, signed, &self.provider.signature_verification_algorithms)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        verify_tls13_signature(message, certificate, signed, &self.provider.signature_verification_algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.provider.signature_verification_algorithms.supported_schemes()
    }
}
