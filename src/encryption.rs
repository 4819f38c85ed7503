//! The library for the cryptography, and the authorities that this machine trusts.

use std::sync::Arc;

use ringpost_tls::Connector;
use rustls::RootCertStore;
use rustls::crypto::{CryptoProvider, aws_lc_rs};

/// The one library that is linked for it.
pub fn provider() -> Arc<CryptoProvider> {
    Arc::new(aws_lc_rs::default_provider())
}

/// What encrypts connections to other servers, whose certificates the system's authorities vouch for (or those that
/// SSL_CERT_FILE and SSL_CERT_DIR name), and what an administrator should know about that.
pub fn connector() -> (Connector, Option<String>) {
    let found = rustls_native_certs::load_native_certs();
    let mut roots = RootCertStore::empty();
    let (taken, _) = roots.add_parsable_certificates(found.certs);
    let warning = (taken == 0).then(|| {
        let why = found.errors.first().map_or_else(String::new, |error| format!(": {error}"));
        format!(
            "no authority's certificate was found on this system (Debian: install ca-certificates){why}; mail that \
                 needs a verified server waits"
        )
    });
    match Connector::new(provider(), roots) {
        Ok(connector) => (connector, warning),
        Err(refused) => {
            (Connector::default(), Some(format!("connections to other servers stay in clear: {}", refused.0)))
        }
    }
}
