//! What handshakes are made with: for each listener its certificates and whom it trusts, for each kind of relay what it shows
//! and whom it believes.

use std::collections::HashMap;
use std::io;
use std::sync::{Arc, RwLock};

use ringpost_conf::{ActionKind, Cipher, Config, Listener, Relay, TlsMode, TlsVersion};
use ringpost_shard::Servers;
use ringpost_tls::{Certificate, Clients, Connector, Demand, KeyId, Offer, Server, Signs, Terms, Version};
use rustls::RootCertStore;
use rustls::crypto::CryptoProvider;
use rustls::server::ProducesTickets;

use super::{Shelves, signing};
use crate::authorities::Authority;
use crate::certificates::{self, Identity, Name};
use crate::encryption;

/// What makes handshakes of certificates.
pub struct Handshakes {
    provider: Arc<CryptoProvider>,
    tickets: Arc<dyn ProducesTickets>,
    holder: Arc<dyn Signs>,
    /// The system's authorities.
    roots: RwLock<RootCertStore>,
    /// Certificates of tables.
    shelves: Option<Shelves>,
}

impl Handshakes {
    /// Nothing is offered yet. Who names no authority trusts these.
    ///
    /// # Errors
    /// A thread cannot be had.
    pub fn new(roots: RootCertStore) -> io::Result<Self> {
        let (provider, tickets) = (encryption::provider(), signing::tickets()?);
        Ok(Self { provider, tickets, holder: signing::keyholder(), roots: RwLock::new(roots), shelves: None })
    }

    /// From the next configuration on, who names no authority trusts these.
    pub fn trust(&self, roots: RootCertStore) {
        *self.roots.write().expect("nobody panics with it") = roots;
    }

    /// Whom those trust who name no authority.
    pub(super) fn roots(&self) -> RootCertStore {
        self.roots.read().expect("nobody panics with it").clone()
    }

    /// Tickets are given: their first key is made beside.
    #[cfg(test)]
    pub(super) fn tickets_are_ready(&self) -> bool {
        self.tickets.enabled()
    }

    /// With certificates of tables.
    pub fn with_shelves(self, shelves: Shelves) -> Self {
        Self { shelves: Some(shelves), ..self }
    }

    /// What the handshakes of a configuration are made with, on both sides.
    ///
    /// # Errors
    /// A certificate cannot be used.
    pub fn servers(
        &self,
        config: &Config,
        identities: &[Identity],
        authorities: &[Authority],
    ) -> Result<Servers, String> {
        let given = Given { identities, authorities };
        self.shelves.iter().for_each(|shelves| shelves.follow(config));
        let listeners = config
            .listeners
            .iter()
            .map(|listener| self.server(listener, &given).map_err(|why| format!("{}: {why}", listener.line)));
        let mut relays = HashMap::new();
        for action in &config.actions {
            let ActionKind::Relay(relay) = &action.kind else { continue };
            let terms = relay.terms();
            if !terms.is_empty() && !relays.contains_key(&terms) {
                let connector = self.connector(relay, &given).map_err(|why| format!("{}: {why}", action.line))?;
                relays.insert(terms, connector);
            }
        }
        Ok(Servers { listeners: listeners.collect::<Result<_, _>>()?, relays: Arc::new(relays) })
    }

    /// What the page is encrypted with; `None`: it is in clear.
    ///
    /// # Errors
    /// Its certificate cannot be used.
    pub fn page(&self, config: &Config, identities: &[Identity]) -> Result<Option<Server>, String> {
        let Some((http, pki)) = config.http.as_ref().and_then(|http| Some((http, http.pki.clone()?))) else {
            return Ok(None);
        };
        let given = Given { identities, authorities: &[] };
        let offer = self.offer_with_shelves(&given, &[Name::Pki(pki)])?;
        let server = Server::new(self.provider.clone(), offer, self.tickets.clone(), &Terms::default(), None);
        server.map(Some).map_err(|failure| format!("{}: {}", http.line, failure.text))
    }

    /// As [`Self::offer`], with what is still to be found in tables.
    fn offer_with_shelves(&self, given: &Given<'_>, names: &[Name]) -> Result<Offer, String> {
        let mut offer = self.offer(given, names)?;
        for pki in names.iter().filter_map(Name::pki) {
            if let Some(shelf) = self.shelves.as_ref().and_then(|shelves| shelves.shelf(pki)) {
                offer = offer.with_shelf(pki, shelf);
            }
        }
        Ok(offer)
    }

    fn server(&self, listener: &Listener, given: &Given<'_>) -> Result<Option<Server>, String> {
        let offer = self.offer_with_shelves(given, &certificates::names(listener))?;
        if offer.is_empty() {
            return Ok(None);
        }
        let terms = terms(listener.tls.protocols.as_deref(), listener.tls.ciphers.as_deref());
        let clients = self.clients(listener, given)?;
        let server = Server::new(self.provider.clone(), offer, self.tickets.clone(), &terms, clients);
        server.map(Some).map_err(|failure| failure.text)
    }

    fn offer(&self, given: &Given<'_>, names: &[Name]) -> Result<Offer, String> {
        let mut offer = Offer::new();
        for name in names {
            for identity in given.identities.iter().filter(|identity| identity.name == *name) {
                let certificate = Certificate::parse(identity.chain.clone()).map_err(|failure| failure.text)?;
                let (key, holder) = (KeyId(identity.key), self.holder.clone());
                match &identity.listed {
                    None => offer.add(&certificate, key, holder),
                    Some(name) => offer.add_listed(name, &certificate, key, holder),
                }
            }
        }
        Ok(offer)
    }

    /// Whom a listener asks for a certificate: everybody, where it names an authority, demands one, or takes it for a login.
    fn clients(&self, listener: &Listener, given: &Given<'_>) -> Result<Option<Clients>, String> {
        let demand = if listener.tls.verify { Demand::Required } else { Demand::Noted };
        let asks = listener.tls.verify || listener.tls.ca.is_some() || listener.auth.certificate.is_some();
        if listener.tls.mode == TlsMode::Off || !asks {
            return Ok(None);
        }
        let provider = self.provider.clone();
        let clients = match &listener.tls.ca {
            Some(name) => Clients::new(provider, given.roots(name)?, demand),
            None => Clients::of_many(provider, self.roots(), demand),
        };
        clients.map(Some).map_err(|failure| format!("clients cannot be verified: {failure}"))
    }

    fn connector(&self, relay: &Relay, given: &Given<'_>) -> Result<Connector, String> {
        let roots = relay.ca.as_ref().map_or_else(|| Ok(self.roots()), |name| given.roots(name))?;
        let terms = terms(relay.protocols.as_deref(), relay.ciphers.as_deref());
        let names: Vec<Name> = relay.pki.iter().cloned().map(Name::Client).collect();
        let offer = self.offer(given, &names)?;
        let connector = Connector::with(self.provider.clone(), roots, &terms, offer).map_err(|refused| refused.0)?;
        Ok(connector.with_digests(crate::encryption::DIGESTS))
    }
}

/// What the plan brings.
struct Given<'p> {
    identities: &'p [Identity],
    authorities: &'p [Authority],
}

impl Given<'_> {
    fn roots(&self, name: &str) -> Result<RootCertStore, String> {
        let found = self.authorities.iter().find(|authority| authority.name == name);
        found.map(Authority::roots).ok_or_else(|| format!("ca {name} was lost on its way"))
    }
}

fn terms(protocols: Option<&[TlsVersion]>, ciphers: Option<&[&'static Cipher]>) -> Terms {
    let is_out = |version| protocols.is_some_and(|spoken| !spoken.contains(&version));
    let versions = [(TlsVersion::V12, Version::Tls12), (TlsVersion::V13, Version::Tls13)];
    let without = versions.into_iter().filter(|(version, _)| is_out(*version)).map(|(_, version)| version).collect();
    let suites = ciphers.into_iter().flatten().map(|cipher| cipher.name.to_owned()).collect();
    Terms { without, suites }
}
