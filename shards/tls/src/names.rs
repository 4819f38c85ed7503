//! Which certificate a client is shown: by the name that it asks for, and by what it can verify.

use std::collections::HashMap;
use std::sync::Arc;

use rustls::SignatureScheme;
use rustls::client::ResolvesClientCert;
use rustls::server::{ClientHello, ResolvesServerCert};
use rustls::sign::CertifiedKey;

use crate::certificate::{Algorithm, Certificate};
use crate::remote_key::{KeyId, RemoteKey, Signs};
use crate::shelf::Shelf;

/// The certificates of a server, the default first.
#[derive(Debug, Default)]
pub struct Offer {
    shown: Vec<Shown>,
    by_name: HashMap<String, Vec<usize>>,
    /// By the name that they are listed under, whatever names are in them.
    listed: HashMap<String, usize>,
    /// For those that ask for nobody, or for somebody unknown.
    default: Vec<usize>,
    /// Where certificates come to while the server runs, and what it is called.
    shelf: Option<(Arc<str>, Shelf)>,
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
        let related = self.default.is_empty() || certificate.names().iter().any(|name| self.names_default(name));
        let number = self.show(certificate, key, holder);
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

    /// Adds a certificate for those who ask for this name, in lower case, whatever names are in it: after those that have the
    /// name in them. `*.` in front stands for all names below, `*` for all names. The first of all is the default.
    pub fn add_listed(&mut self, name: &str, certificate: &Certificate, key: KeyId, holder: Arc<dyn Signs>) {
        let number = self.show(certificate, key, holder);
        self.listed.insert(name.to_owned(), number);
        if self.default.is_empty() {
            self.default.push(number);
        }
    }

    fn show(&mut self, certificate: &Certificate, key: KeyId, holder: Arc<dyn Signs>) -> usize {
        let remote = Arc::new(RemoteKey::of(certificate, key, holder));
        let key = Arc::new(CertifiedKey::new(certificate.chain().to_vec(), remote));
        self.shown.push(Shown { algorithm: certificate.algorithm(), key });
        self.shown.len() - 1
    }

    /// With those that will lie on this shelf, which is found by that name.
    pub fn with_shelf(self, called: &str, shelf: Shelf) -> Self {
        Self { shelf: Some((called.into(), shelf)), ..self }
    }

    /// Whether there is none, and none will come.
    pub fn is_empty(&self) -> bool {
        self.shown.is_empty() && self.shelf.is_none()
    }

    /// Where others may come to.
    pub(crate) fn shelf(&self) -> Option<Arc<str>> {
        self.shelf.as_ref().map(|(called, _)| called.clone())
    }

    fn names_default(&self, name: &str) -> bool {
        self.by_name.get(name).is_some_and(|numbers| numbers.iter().any(|number| self.default.contains(number)))
    }

    /// The certificate for this name and these signatures: that of the name itself before one with `*`, before the default;
    /// among them RSA last, for it costs most.
    fn choose(&self, name: Option<&str>, schemes: &[SignatureScheme]) -> Option<Arc<CertifiedKey>> {
        let name = name.map(str::to_ascii_lowercase);
        let exact = name.as_ref().and_then(|name| self.by_name.get(name));
        let listed = || self.best(&[self.find_listed(name.as_deref()?)?], schemes);
        let lying =
            || self.shelf.as_ref().zip(name.as_ref()).and_then(|((_, shelf), name)| shelf.choose(name, schemes));
        if let Some(key) = exact.and_then(|numbers| self.best(numbers, schemes)).or_else(listed).or_else(lying) {
            return Some(key);
        }
        // `*` stands for one label, and never for a part of one (RFC 9525 §6.3).
        let wildcard = name.as_ref().and_then(|name| name.split_once('.')).map(|(_, parent)| format!("*.{parent}"));
        let wildcard = wildcard.and_then(|name| self.by_name.get(&name));
        [wildcard, Some(&self.default)].into_iter().flatten().find_map(|numbers| self.best(numbers, schemes))
    }

    /// That of the name itself before those of names above it, the nearest first, before `*`.
    fn find_listed(&self, name: &str) -> Option<usize> {
        if self.listed.is_empty() {
            return None;
        }
        let above = std::iter::successors(name.split_once('.'), |(_, parent)| parent.split_once('.'));
        let above = above.map(|(_, parent)| format!("*.{parent}"));
        let mut keys = std::iter::once(name.to_owned()).chain(above).chain(["*".to_owned()]);
        keys.find_map(|key| self.listed.get(&key).copied())
    }

    fn best(&self, numbers: &[usize], schemes: &[SignatureScheme]) -> Option<Arc<CertifiedKey>> {
        let fits = |shown: &&Shown| shown.algorithm.schemes().iter().any(|scheme| schemes.contains(scheme));
        let shown = numbers.iter().map(|number| &self.shown[*number]).filter(fits);
        Some(shown.min_by_key(|shown| shown.algorithm == Algorithm::Rsa)?.key.clone())
    }
}

/// A server says whom it trusts, but mail servers take what they are shown and look themselves.
impl ResolvesClientCert for Offer {
    fn resolve(&self, _: &[&[u8]], schemes: &[SignatureScheme]) -> Option<Arc<CertifiedKey>> {
        self.choose(None, schemes)
    }

    fn has_certs(&self) -> bool {
        !self.is_empty()
    }
}

impl ResolvesServerCert for Offer {
    fn resolve(&self, hello: ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        self.choose(hello.server_name(), hello.signature_schemes())
    }
}
