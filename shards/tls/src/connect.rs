//! The client's side: what is demanded of a server's certificate, and what is noted of it where nothing is demanded.

use std::fmt;
use std::sync::Arc;

use rustls::client::danger::ServerCertVerifier;
use rustls::client::{Resumption, WebPkiServerVerifier};
use rustls::crypto::CryptoProvider;
use rustls::pki_types::{ServerName, UnixTime};
use rustls::{ClientConfig, ClientConnection, RootCertStore};

use crate::channel::Channel;
use crate::dane::{Digests, Pinned};
use crate::judge::{Anybody, Judged};
use crate::limits::SESSIONS_MAX;
use crate::names::Offer;
use crate::terms::Terms;

/// Opens connections to servers. Cheap to clone; clones share what was learned to resume sessions.
///
/// The default one opens none, for worlds without cryptography.
#[derive(Clone, Default)]
pub struct Connector(Option<Configs>);

#[derive(Clone)]
struct Configs {
    trusting: Arc<ClientConfig>,
    /// None without any authority.
    verifying: Option<(Arc<ClientConfig>, Arc<WebPkiServerVerifier>)>,
    /// There is a certificate to show.
    signs: bool,
    provider: Arc<CryptoProvider>,
    /// None where TLSA records are not understood.
    digests: Option<Digests>,
}

/// Why no connection can be begun.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Refused(pub String);

impl fmt::Debug for Connector {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Connector")
    }
}

impl Connector {
    /// With these authorities' certificates; without any, no server can be verified.
    ///
    /// # Errors
    /// The library for the cryptography lacks what TLS 1.2 and 1.3 need.
    pub fn new(provider: Arc<CryptoProvider>, roots: RootCertStore) -> Result<Self, Refused> {
        Self::with(provider, roots, &Terms::default(), Offer::new())
    }

    /// The same on these terms; a server that asks for a certificate is shown one of these.
    ///
    /// # Errors
    /// The library has nothing for the terms.
    pub fn with(
        provider: Arc<CryptoProvider>,
        roots: RootCertStore,
        terms: &Terms,
        offer: Offer,
    ) -> Result<Self, Refused> {
        let (provider, versions) = terms.apply(provider).map_err(|failure| Refused(failure.text))?;
        let signs = !offer.is_empty();
        let offer = Arc::new(offer);
        let verifier = match roots.is_empty() {
            true => None,
            false => {
                let builder = WebPkiServerVerifier::builder_with_provider(Arc::new(roots), provider.clone());
                Some(builder.build().map_err(|error| Refused(error.to_string()))?)
            }
        };
        let config = |judge: Arc<dyn ServerCertVerifier>| {
            let builder = ClientConfig::builder_with_provider(provider.clone()).with_protocol_versions(&versions);
            let builder = builder.map_err(|error| Refused(error.to_string()))?.dangerous();
            let builder = builder.with_custom_certificate_verifier(judge);
            let mut config = match signs {
                true => builder.with_client_cert_resolver(offer.clone()),
                false => builder.with_no_client_auth(),
            };
            config.resumption = Resumption::in_memory_sessions(SESSIONS_MAX);
            Ok::<_, Refused>(Arc::new(config))
        };
        let trusting = config(Arc::new(Judged { judge: Anybody, provider: provider.clone() }))?;
        let verifying = match verifier {
            Some(verifier) => Some((config(verifier.clone())?, verifier)),
            None => None,
        };
        Ok(Self(Some(Configs { trusting, verifying, provider, digests: None, signs })))
    }

    /// Makes it understand TLSA records.
    pub fn with_digests(self, digests: Digests) -> Self {
        Self(self.0.map(|configs| Configs { digests: Some(digests), ..configs }))
    }

    /// Begins a connection to a server whose certificate must be one that these TLSA records name (RFC 7672), DNSSEC having
    /// vouched for them. An authority's certificates may be for `also` instead of `name`. No session is resumed.
    ///
    /// # Errors
    /// No record is usable; the name is none that a certificate can be for.
    pub fn connect_pinned(&self, name: &str, also: Option<&str>, records: &[Box<[u8]>]) -> Result<Channel, Refused> {
        let configs = self.configs()?;
        let digests = configs.digests.ok_or_else(|| Refused("this server does not understand TLSA records".into()))?;
        let also = also.map(server_name).transpose()?;
        let pinned = Pinned::new(records, also, digests, configs.provider.clone());
        let pinned = pinned.ok_or_else(|| Refused("no TLSA record of the host is usable".to_owned()))?;
        let mut config = (*configs.trusting).clone();
        config.resumption = Resumption::disabled();
        config
            .dangerous()
            .set_certificate_verifier(Arc::new(Judged { judge: pinned, provider: configs.provider.clone() }));
        let connection = ClientConnection::new(Arc::new(config), server_name(name)?);
        Ok(Channel::of(connection.map_err(|error| Refused(error.to_string()))?.into()).signing(self.signs()))
    }

    /// Begins a connection to the server of this name or address. With `verify` its certificate must be good for it.
    ///
    /// # Errors
    /// The name is none that a certificate can be for; nobody can be verified.
    ///
    /// Where [`Connector::signs`], steps of the handshake need the private key: see [`crate::Flight::again`].
    pub fn connect(&self, name: &str, verify: bool) -> Result<Channel, Refused> {
        let config = if verify { self.verifying()?.0 } else { &self.configs()?.trusting };
        let connection = ClientConnection::new(config.clone(), server_name(name)?);
        let connection = connection.map_err(|error| Refused(error.to_string()))?;
        Ok(Channel::of(connection.into()).signing(self.signs()))
    }

    /// Whether servers are shown a certificate, so that handshakes need the private key.
    pub fn signs(&self) -> bool {
        self.0.as_ref().is_some_and(|configs| configs.signs)
    }

    /// What [`Connector::connect`] with `verify` would have said of the certificate of a server that was not verified.
    ///
    /// # Errors
    /// What is wrong with it.
    pub fn judge(&self, channel: &Channel, name: &str) -> Result<(), Refused> {
        let (_, verifier) = self.verifying()?;
        let Some((own, others)) = channel.peer_chain().split_first() else {
            return Err(Refused("it has shown no certificate".to_owned()));
        };
        let verified = verifier.verify_server_cert(own, others, &server_name(name)?, &[], UnixTime::now());
        verified.map(|_| ()).map_err(|error| Refused(error.to_string()))
    }

    fn configs(&self) -> Result<&Configs, Refused> {
        self.0.as_ref().ok_or_else(|| Refused("this world has no cryptography".to_owned()))
    }

    fn verifying(&self) -> Result<(&Arc<ClientConfig>, &Arc<WebPkiServerVerifier>), Refused> {
        let verifying = self.configs()?.verifying.as_ref().map(|(config, verifier)| (config, verifier));
        verifying.ok_or_else(|| Refused("no authority's certificate is known to this server".to_owned()))
    }
}

fn server_name(name: &str) -> Result<ServerName<'static>, Refused> {
    ServerName::try_from(name.trim_end_matches('.').to_owned())
        .map_err(|_| Refused(format!("`{name}` is no name that a certificate can be for")))
}
