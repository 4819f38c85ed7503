//! Which certificate a client is shown: by the name that it asks for, and by what it can verify.

use std::collections::HashMap;
use std::sync::Arc;

use rustls::SignatureScheme;
use rustls::server::{ClientHello, ResolvesServerCert};
use rustls::sign::CertifiedKey;

use crate::certificate::{Algorithm, Certificate};
use crate::remote_key::{KeyId, RemoteKey, Signs};

/// The certificates of a server, the default first.
#[derive(Debug, Default)]
pub struct Offer {
    shown: Vec<Shown>,
    by_name: HashMap<String, Vec<usize>>,
    /// For those that ask for nobody, or for somebody unknown.
    default: Vec<usize>,
}

#[derive(Debug)]
struct Shown {
    algorithm: Algorithm,
    key: Arc<CertifiedKey>,
}

impl Offer {
    /// Nothing yet.
    pub fn new() -> Self {
        Self::default()
    }

    /// Adds a certificate whose key `holder` has under that number. Several may have the same names and different kinds of
    /// keys; those with the names of the first are the default.
    pub fn add(&mut self, certificate: &Certificate, key: KeyId, holder: Arc<dyn Signs>) {
        let number = self.shown.len();
        let related = self.default.is_empty() || certificate.names().iter().any(|name| self.names_default(name));
        let remote = Arc::new(RemoteKey::of(certificate, key, holder));
        let key = Arc::new(CertifiedKey::new(certificate.chain().to_vec(), remote));
        self.shown.push(Shown { algorithm: certificate.algorithm(), key });
        for name in certificate.names() {
            let numbers = self.by_name.entry(name.clone()).or_default();
            if !numbers.contains(&number) {
                numbers.push(number);
            }
        }
        if related {
            self.default.push(number);
        }
    }

    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.shown.is_empty()
    }

    fn names_default(&self, name: &str) -> bool {
        self.by_name.get(name).is_some_and(|numbers| numbers.iter().any(|number| self.default.contains(number)))
    }

    /// The certificate for this name and these signatures: that of the name itself before one with `*`, before the default;
    /// among them RSA last, for it costs most.
    fn choose(&self, name: Option<&str>, schemes: &[SignatureScheme]) -> Option<Arc<CertifiedKey>> {
        let name = name.map(str::to_ascii_lowercase);
        let exact = name.as_ref().and_then(|name| self.by_name.get(name));
        // `*` stands for one label, and never for a part of one (RFC 9525 §6.3).
        let wildcard = name.as_ref().and_then(|name| name.split_once('.')).map(|(_, parent)| format!("*.{parent}"));
        let wildcard = wildcard.and_then(|name| self.by_name.get(&name));
        [exact, wildcard, Some(&self.default)].into_iter().flatten().find_map(|numbers| self.best(numbers, schemes))
    }

    fn best(&self, numbers: &[usize], schemes: &[SignatureScheme]) -> Option<Arc<CertifiedKey>> {
        let fits = |shown: &&Shown| shown.algorithm.schemes().iter().any(|scheme| schemes.contains(scheme));
        let shown = numbers.iter().map(|number| &self.shown[*number]).filter(fits);
        Some(shown.min_by_key(|shown| shown.algorithm == Algorithm::Rsa)?.key.clone())
    }
}

impl ResolvesServerCert for Offer {
    fn resolve(&self, hello: ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        self.choose(hello.server_name(), hello.signature_schemes())
    }
}
