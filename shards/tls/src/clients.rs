//! Certificates of clients: whom a listener trusts to vouch for them, what it demands, and what is noted of each.

use std::fmt;
use std::hash::{DefaultHasher, Hash, Hasher};
use std::sync::Arc;

use rustls::client::danger::HandshakeSignatureValid;
use rustls::crypto::CryptoProvider;
use rustls::pki_types::{CertificateDer, UnixTime};
use rustls::server::WebPkiClientVerifier;
use rustls::server::danger::{ClientCertVerified, ClientCertVerifier};
use rustls::{DigitallySignedStruct, DistinguishedName, Error, RootCertStore, SignatureScheme};

use crate::channel::Channel;
use crate::failure::Failure;
use crate::subject::Subject;

/// What a listener does about a certificate that is not good, or missing.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Demand {
    /// Notes it.
    Noted,
    /// Ends the handshake.
    Required,
}

/// What a client has shown of itself.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum Shown {
    /// It was not asked for a certificate.
    #[default]
    NotAsked,
    /// It has none.
    Nothing,
    /// A certificate that is good.
    Good(Subject),
    /// One that proves nothing.
    Bad {
        /// Whom it says to be for.
        subject: Subject,
        /// What is wrong with it.
        why: String,
    },
}

impl Shown {
    /// The names in a certificate that is good.
    pub fn names(&self) -> Option<&[String]> {
        match self {
            Self::Good(subject) => Some(&subject.names),
            Self::NotAsked | Self::Nothing | Self::Bad { .. } => None,
        }
    }
}

/// Who may come.
#[derive(Clone)]
pub struct Clients(Arc<Judge>);

impl Clients {
    /// Clients whose certificates these authorities vouch for.
    ///
    /// # Errors
    /// There is no authority.
    pub fn new(provider: Arc<CryptoProvider>, roots: RootCertStore, demand: Demand) -> Result<Self, Failure> {
        let mut hasher = DefaultHasher::new();
        demand.hash(&mut hasher);
        for root in &roots.roots {
            (root.subject.as_ref(), root.subject_public_key_info.as_ref()).hash(&mut hasher);
        }
        let hints = roots.subjects();
        let builder = WebPkiClientVerifier::builder_with_provider(Arc::new(roots), provider.clone());
        let verifier = builder.build().map_err(|error| Failure::ours(error.to_string()))?;
        // Zero is what listeners have that ask for no certificate.
        let mark = hasher.finish().max(1);
        Ok(Self(Arc::new(Judge { provider, verifier, demand, hints, mark })))
    }

    /// The same, but clients are not told by whom: there are too many.
    ///
    /// # Errors
    /// As [`Clients::new`].
    pub fn of_many(provider: Arc<CryptoProvider>, roots: RootCertStore, demand: Demand) -> Result<Self, Failure> {
        let Self(judge) = Self::new(provider, roots, demand)?;
        let Judge { provider, verifier, demand, mark, .. } = &*judge;
        let (provider, verifier) = (provider.clone(), verifier.clone());
        Ok(Self(Arc::new(Judge { provider, verifier, demand: *demand, hints: Vec::new(), mark: *mark })))
    }

    /// For rustls.
    pub(crate) fn verifier(&self) -> Arc<dyn ClientCertVerifier> {
        self.0.clone()
    }

    /// Tells listeners apart that do not ask the same: a session of one is not taken up at another.
    pub(crate) fn mark(&self) -> u64 {
        self.0.mark
    }

    /// What a client has shown in a handshake that has ended.
    ///
    /// # Errors
    /// A certificate is required, and the one of the session that was taken up is not good any more.
    pub(crate) fn judge(&self, channel: &Channel) -> Result<Shown, Failure> {
        let judge = &self.0;
        let shown = match channel.peer_chain().split_first() {
            None => Shown::Nothing,
            Some((own, others)) => {
                let subject = Subject::of(own, &judge.provider);
                // Where one is required, the handshake itself has looked; a session that is taken up had none.
                let is_seen = judge.demand == Demand::Required && !channel.is_resumed();
                let verified = match is_seen {
                    true => Ok(()),
                    false => judge.verifier.verify_client_cert(own, others, UnixTime::now()).map(|_| ()),
                };
                match verified {
                    Ok(()) => Shown::Good(subject),
                    Err(error) => Shown::Bad { subject, why: error.to_string() },
                }
            }
        };
        match (judge.demand, shown) {
            (Demand::Required, Shown::Bad { why, .. }) => Err(Failure::peer(why)),
            (Demand::Required, Shown::Nothing) => Err(Error::NoCertificatesPresented.into()),
            (_, shown) => Ok(shown),
        }
    }
}

impl fmt::Debug for Clients {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Clients({:?})", self.0.demand)
    }
}

/// Where certificates are only noted, the handshake takes each, and a look at it follows. Where one is required, the
/// handshake itself refuses, so that the client is told by an alert.
struct Judge {
    provider: Arc<CryptoProvider>,
    verifier: Arc<dyn ClientCertVerifier>,
    demand: Demand,
    hints: Vec<DistinguishedName>,
    mark: u64,
}

impl fmt::Debug for Judge {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Judge")
    }
}

impl ClientCertVerifier for Judge {
    fn client_auth_mandatory(&self) -> bool {
        self.demand == Demand::Required
    }

    fn root_hint_subjects(&self) -> &[DistinguishedName] {
        &self.hints
    }

    fn verify_client_cert(
        &self,
        own: &CertificateDer<'_>,
        others: &[CertificateDer<'_>],
        now: UnixTime,
    ) -> Result<ClientCertVerified, Error> {
        match self.demand {
            Demand::Noted => Ok(ClientCertVerified::assertion()),
            Demand::Required => self.verifier.verify_client_cert(own, others, now),
        }
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        self.verifier.verify_tls12_signature(message, certificate, signed)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        self.verifier.verify_tls13_signature(message, certificate, signed)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.verifier.supported_verify_schemes()
    }
}
