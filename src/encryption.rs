//! The library for the cryptography, and the authorities that this machine trusts.

use std::sync::Arc;

use aws_lc_rs::digest::{SHA256, SHA512, digest};
use ringpost_tls::{Connector, Digests};
use rustls::crypto::{CryptoProvider, aws_lc_rs as library};
use rustls::{ClientConfig, RootCertStore};

/// The one library that is linked for it.
pub fn provider() -> Arc<CryptoProvider> {
    Arc::new(library::default_provider())
}

/// What TLSA records are compared by.
pub const DIGESTS: Digests = Digests {
    sha256: |bytes| digest(&SHA256, bytes).as_ref().to_vec(),
    sha512: |bytes| digest(&SHA512, bytes).as_ref().to_vec(),
};

/// What encrypts connections to web servers that these authorities vouch for. `None`: none can be verified.
pub fn web(roots: RootCertStore) -> Option<Arc<ClientConfig>> {
    let builder = ClientConfig::builder_with_provider(provider()).with_safe_default_protocol_versions().ok()?;
    (!roots.is_empty()).then(|| Arc::new(builder.with_root_certificates(roots).with_no_client_auth()))
}

/// Certificates in DER of the authorities that this system trusts, or of those that SSL_CERT_FILE and SSL_CERT_DIR name.
/// The supervisor reads them; the engine may not.
pub fn system_certificates() -> Vec<Vec<u8>> {
    rustls_native_certs::load_native_certs().certs.iter().map(|certificate| certificate.to_vec()).collect()
}

/// These authorities, and what an administrator should know about them.
pub fn roots(authorities: &[Vec<u8>]) -> (RootCertStore, Option<String>) {
    let mut roots = RootCertStore::empty();
    let (taken, _) = roots.add_parsable_certificates(authorities.iter().map(|der| der.as_slice().into()));
    let warning = (taken == 0).then(|| {
        "no authority's certificate was found on this system (Debian: install ca-certificates); mail that needs a \
         verified server waits"
            .to_owned()
    });
    (roots, warning)
}

/// What encrypts connections to other servers whose certificates these authorities vouch for, and what an administrator should
/// know about that.
pub fn connector(roots: RootCertStore) -> (Connector, Option<String>) {
    match Connector::new(provider(), roots) {
        Ok(connector) => (connector.with_digests(DIGESTS), None),
        Err(refused) => {
            (Connector::default(), Some(format!("connections to other servers stay in clear: {}", refused.0)))
        }
    }
}
