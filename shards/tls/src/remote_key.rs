//! A private key that is in another process: rustls asks it like any other, and the question travels.

use std::fmt::Debug;
use std::sync::Arc;

use rustls::pki_types::SubjectPublicKeyInfoDer;
use rustls::sign::{Signer, SigningKey};
use rustls::{Error, SignatureAlgorithm, SignatureScheme};

use crate::certificate::{Algorithm, Certificate};
use crate::failure::Unsigned;
use crate::limits::TRANSCRIPT_BYTES_MAX;

/// Number of a key, given by whoever holds it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct KeyId(pub u32);

/// Who has the keys, or asks those who have.
pub trait Signs: Debug + Send + Sync {
    /// Signs what was said in a handshake so far. May wait; a thread that must not wait has to refuse.
    ///
    /// # Errors
    /// Why there is no signature.
    fn sign(&self, key: KeyId, scheme: SignatureScheme, transcript: &[u8]) -> Result<Vec<u8>, String>;
}

/// One key.
#[derive(Debug)]
pub(crate) struct RemoteKey {
    id: KeyId,
    algorithm: Algorithm,
    public_key: Vec<u8>,
    holder: Arc<dyn Signs>,
}

impl RemoteKey {
    /// The key of this certificate.
    pub(crate) fn of(certificate: &Certificate, id: KeyId, holder: Arc<dyn Signs>) -> Self {
        Self { id, algorithm: certificate.algorithm(), public_key: certificate.public_key().to_vec(), holder }
    }
}

impl SigningKey for RemoteKey {
    fn choose_scheme(&self, offered: &[SignatureScheme]) -> Option<Box<dyn Signer>> {
        let scheme = *self.algorithm.schemes().iter().find(|scheme| offered.contains(scheme))?;
        Some(Box::new(RemoteSigner { id: self.id, scheme, holder: self.holder.clone() }))
    }

    fn public_key(&self) -> Option<SubjectPublicKeyInfoDer<'_>> {
        Some(SubjectPublicKeyInfoDer::from(&self.public_key[..]))
    }

    fn algorithm(&self) -> SignatureAlgorithm {
        match self.algorithm {
            Algorithm::Rsa => SignatureAlgorithm::RSA,
            Algorithm::Ed25519 => SignatureAlgorithm::ED25519,
            Algorithm::EcdsaP256 | Algorithm::EcdsaP384 | Algorithm::EcdsaP521 => SignatureAlgorithm::ECDSA,
        }
    }
}

/// One key for one handshake.
#[derive(Debug)]
struct RemoteSigner {
    id: KeyId,
    scheme: SignatureScheme,
    holder: Arc<dyn Signs>,
}

impl Signer for RemoteSigner {
    fn sign(&self, message: &[u8]) -> Result<Vec<u8>, Error> {
        // The other side has had its part in it.
        if message.len() > TRANSCRIPT_BYTES_MAX {
            return Err(Unsigned(format!("a handshake of {} bytes is not signed", message.len())).into());
        }
        self.holder.sign(self.id, self.scheme, message).map_err(|why| Unsigned(why).into())
    }

    fn scheme(&self) -> SignatureScheme {
        self.scheme
    }
}
