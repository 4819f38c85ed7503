//! Certificates that are found while a server runs, by the name that a client asks for. Whoever finds them puts them here
//! before the handshake goes on; looking never waits.

use std::collections::{HashMap, VecDeque};
use std::sync::{Arc, Mutex, PoisonError};

use rustls::SignatureScheme;
use rustls::sign::CertifiedKey;

use crate::certificate::Certificate;
use crate::limits::SHELF_MAX;
use crate::remote_key::{KeyId, RemoteKey, Signs};

/// A shelf. Clones are the same.
#[derive(Clone, Debug, Default)]
pub struct Shelf(Arc<Mutex<Lying>>);

#[derive(Debug, Default)]
struct Lying {
    by_name: HashMap<String, Shown>,
    /// The oldest first.
    order: VecDeque<String>,
}

#[derive(Debug)]
struct Shown {
    schemes: &'static [SignatureScheme],
    key: Arc<CertifiedKey>,
}

impl Shelf {
    /// What clients are shown from now on that ask for this name, in lower case.
    pub fn put(&self, name: &str, certificate: &Certificate, key: KeyId, holder: Arc<dyn Signs>) {
        let remote = Arc::new(RemoteKey::of(certificate, key, holder));
        let key = Arc::new(CertifiedKey::new(certificate.chain().to_vec(), remote));
        let mut lying = self.lock();
        let shown = Shown { schemes: certificate.algorithm().schemes(), key };
        if lying.by_name.insert(name.to_owned(), shown).is_none() {
            lying.order.push_back(name.to_owned());
        }
        if lying.order.len() > SHELF_MAX
            && let Some(oldest) = lying.order.pop_front()
        {
            lying.by_name.remove(&oldest);
        }
    }

    /// The own certificate in DER that lies there for a name.
    pub fn get(&self, name: &str) -> Option<Vec<u8>> {
        self.lock().by_name.get(name).and_then(|shown| shown.key.cert.first()).map(|own| own.to_vec())
    }

    /// Nothing is shown for this name any more.
    pub fn remove(&self, name: &str) {
        let mut lying = self.lock();
        if lying.by_name.remove(name).is_some() {
            lying.order.retain(|other| other != name);
        }
    }

    /// Nothing is shown any more.
    pub fn clear(&self) {
        *self.lock() = Lying::default();
    }

    pub(crate) fn choose(&self, name: &str, schemes: &[SignatureScheme]) -> Option<Arc<CertifiedKey>> {
        let lying = self.lock();
        let shown = lying.by_name.get(name)?;
        shown.schemes.iter().any(|scheme| schemes.contains(scheme)).then(|| shown.key.clone())
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, Lying> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
