//! What is spoken: which versions of TLS and which cipher suites, of those that the library has.

use std::sync::Arc;

use rustls::crypto::CryptoProvider;
use rustls::version::{TLS12, TLS13};
use rustls::{CipherSuite, SupportedProtocolVersion};

use crate::failure::Failure;

/// Versions and cipher suites; the default is all that the library has, the quickest first. A server goes by its own order, not
/// by the client's.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Terms {
    /// Versions that are not spoken.
    pub without: Vec<Version>,
    /// Cipher suites by their names in the registry (`TLS_AES_128_GCM_SHA256`), the preferred first; none: all.
    pub suites: Vec<String>,
}

/// A version.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Version {
    /// RFC 5246.
    Tls12,
    /// RFC 8446.
    Tls13,
}

impl Terms {
    /// The library with these suites alone, and the versions.
    ///
    /// # Errors
    /// It has nothing that they leave.
    pub(crate) fn apply(
        &self,
        provider: Arc<CryptoProvider>,
    ) -> Result<(Arc<CryptoProvider>, Vec<&'static SupportedProtocolVersion>), Failure> {
        let spoken = [(Version::Tls13, &TLS13), (Version::Tls12, &TLS12)];
        let mut versions: Vec<_> = spoken.into_iter().filter(|(version, _)| !self.without.contains(version)).collect();
        if self.suites.is_empty() {
            let mut cipher_suites = provider.cipher_suites.clone();
            cipher_suites.sort_by_key(|suite| cost(suite.suite()));
            let provider = CryptoProvider { cipher_suites, ..(*provider).clone() };
            return Ok((Arc::new(provider), versions.into_iter().map(|(_, spoken)| spoken).collect()));
        }
        let named = self.suites.iter().map(|name| {
            let found = provider.cipher_suites.iter().find(|suite| in_registry(suite.suite()) == *name);
            found.copied().ok_or_else(|| Failure::ours(format!("the library for the cryptography has no {name}")))
        });
        let cipher_suites = named.collect::<Result<Vec<_>, _>>()?;
        let has =
            |version: Version| cipher_suites.iter().any(|one| one.tls13().is_some() == (version == Version::Tls13));
        versions.retain(|(version, _)| has(*version));
        let provider = CryptoProvider { cipher_suites, ..(*provider).clone() };
        Ok((Arc::new(provider), versions.into_iter().map(|(_, spoken)| spoken).collect()))
    }
}

/// Rank of a suite by what a handshake with it costs. Its keys are made with its hash, of which processors have the one of 256
/// bits in hardware and that of 384 bits mostly not: a fifth more handshakes, measured (docs/performance.md).
fn cost(suite: CipherSuite) -> u8 {
    let name = in_registry(suite);
    match (name.contains("_AES_128_"), name.contains("_AES_256_")) {
        (true, _) => 0,
        (_, true) => 1,
        _ => 2,
    }
}

/// A suite's name in the registry (RFC 8446 §B.4, RFC 5289): the library distinguishes by prefix what the registry does not.
pub(crate) fn in_registry(suite: CipherSuite) -> String {
    suite.as_str().unwrap_or("unknown").replacen("TLS13_", "TLS_", 1)
}
