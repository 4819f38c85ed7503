//! The server's side of a handshake: what the client says first, and the answer that needs the private key.

use std::sync::Arc;

use rustls::crypto::CryptoProvider;
use rustls::server::{Accepted, AcceptedAlert, Acceptor, NoServerSessionStorage, ProducesTickets};
use rustls::{Connection, ServerConfig};

use crate::channel::{Channel, Secured};
use crate::clients::Clients;
use crate::failure::{Failure, Fault};
use crate::names::Offer;
use crate::terms::Terms;
use crate::ticket;
use crate::tickets::Marked;

/// What a listener is, as far as TLS goes. Cheap to clone; connections keep the one they began with.
#[derive(Clone, Debug)]
pub struct Server {
    config: Arc<ServerConfig>,
    clients: Option<Clients>,
    /// Where certificates may still come to.
    shelf: Option<Arc<str>>,
}

impl Server {
    /// TLS 1.2 and 1.3 with these certificates, as far as the terms allow. Sessions are resumed by tickets alone, which all
    /// servers with the same `tickets` take from each other that ask the same of clients; early data is refused.
    ///
    /// # Errors
    /// The provider has nothing for these terms.
    pub fn new(
        provider: Arc<CryptoProvider>,
        offer: Offer,
        tickets: Arc<dyn ProducesTickets>,
        terms: &Terms,
        clients: Option<Clients>,
    ) -> Result<Self, Failure> {
        let (provider, versions) = terms.apply(provider)?;
        let builder = ServerConfig::builder_with_provider(provider).with_protocol_versions(&versions);
        let builder = builder.map_err(|error| Failure::ours(error.to_string()))?;
        let builder = match &clients {
            Some(clients) => builder.with_client_cert_verifier(clients.verifier()),
            None => builder.with_no_client_auth(),
        };
        let shelf = offer.shelf();
        let mut config = builder.with_cert_resolver(Arc::new(offer));
        let mark = clients.as_ref().map_or(0, Clients::mark);
        config.ticketer = Arc::new(Marked { tickets, mark });
        config.session_storage = Arc::new(NoServerSessionStorage {});
        // One is enough for a client that comes again; each costs a record and a derivation.
        config.send_tls13_tickets = 1;
        config.ignore_client_order = true;
        // RFC 8446 §8: what comes early may come twice.
        config.max_early_data_size = 0;
        Ok(Self { config: Arc::new(config), clients, shelf })
    }

    /// What a handshake with this server has settled, and what the client has shown in it.
    ///
    /// # Errors
    /// It has not ended; the client's certificate is not good, or not any more, where one is required.
    pub fn secured(&self, channel: &Channel) -> Result<Secured, Failure> {
        let secured = channel.secured().ok_or_else(|| Failure::ours("the handshake has settled nothing"))?;
        match &self.clients {
            None => Ok(secured),
            Some(clients) => Ok(Secured { client: clients.judge(channel)?, ..secured }),
        }
    }
}

/// A handshake that has failed, and the alert that says so to the client.
#[derive(Debug)]
pub struct Rejected {
    /// Why.
    pub failure: Failure,
    /// For the wire; may be empty.
    pub alert: Vec<u8>,
}

impl Rejected {
    /// Without a word to the client.
    pub fn silently(failure: Failure) -> Self {
        Self { failure, alert: Vec::new() }
    }

    fn new(failure: Failure, mut alert: AcceptedAlert) -> Self {
        let mut bytes = Vec::new();
        alert.write_all(&mut bytes).expect("a vector takes everything");
        Self { failure, alert: bytes }
    }
}

/// A client's first message, as far as it has come.
pub struct Hello {
    acceptor: Acceptor,
    heard: Vec<u8>,
}

impl Hello {
    /// Nothing has come.
    pub fn new() -> Self {
        Self { acceptor: Acceptor::default(), heard: Vec::new() }
    }

    /// Takes bytes from the wire. `None`: it needs more. Not to be called again after anything else.
    ///
    /// # Errors
    /// This is no TLS, or none that is understood.
    pub fn receive(&mut self, mut wire: &[u8], server: &Server) -> Result<Option<Flight>, Rejected> {
        self.heard.extend_from_slice(wire);
        while !wire.is_empty() {
            if let Err(error) = self.acceptor.read_tls(&mut wire) {
                return Err(Rejected::silently(Failure::peer(error.to_string())));
            }
            match self.acceptor.accept() {
                Ok(None) => {}
                Ok(Some(accepted)) => {
                    let (heard, rest) = (std::mem::take(&mut self.heard), wire.to_vec());
                    return Ok(Some(Flight(Inner::First {
                        accepted: Box::new(accepted),
                        server: server.clone(),
                        heard,
                        rest,
                    })));
                }
                Err((error, alert)) => return Err(Rejected::new(error.into(), alert)),
            }
        }
        Ok(None)
    }
}

impl Default for Hello {
    fn default() -> Self {
        Self::new()
    }
}

/// The step of a handshake that needs the private key. May go to another thread.
pub struct Flight(Inner);

enum Inner {
    First {
        accepted: Box<Accepted>,
        server: Server,
        /// All that has come.
        heard: Vec<u8>,
        /// What came behind the client's first message.
        rest: Vec<u8>,
    },
    Again(Channel, Vec<u8>),
}

impl Flight {
    /// The same step of a client that had to begin once more: `wire` is what has come from it. `Err` gives the channel back:
    /// nothing of the kind is due, and [`Channel::receive`] takes the bytes.
    #[allow(clippy::result_large_err)]
    pub fn again(channel: Channel, wire: &[u8]) -> Result<Self, Channel> {
        match channel.owes_signature() {
            true => Ok(Self(Inner::Again(channel, wire.to_vec()))),
            false => Err(channel),
        }
    }

    /// Which certificate should be looked for before the step is taken, if more than those that are there can be had: what the
    /// shelf is called, and the name that the client asks for.
    pub fn wants(&self) -> Option<(Arc<str>, String)> {
        match &self.0 {
            Inner::First { accepted, server, .. } => {
                let name = accepted.client_hello().server_name()?.to_owned();
                Some((server.shelf.clone()?, name))
            }
            Inner::Again(..) => None,
        }
    }

    /// Takes the step of a client that comes again with a ticket of ours, which needs no signature. `Err`: it needs one after
    /// all, and [`Flight::complete`] takes the step.
    #[allow(clippy::result_large_err)]
    pub fn resume(self) -> Result<Result<Channel, Rejected>, Self> {
        let Inner::First { accepted, server, heard, rest } = self.0 else { return Err(self) };
        let has_ours = ticket::of_hello(&heard).is_some_and(|ticket| server.config.ticketer.decrypt(ticket).is_some());
        if !has_ours {
            return Err(Self(Inner::First { accepted, server, heard, rest }));
        }
        match complete(*accepted, server.config.clone(), &rest) {
            // The ticket does not fit the rest of what the client wants: begun anew, so that nothing is lost.
            Err(refused) if refused.failure.fault == Fault::Key => match Hello::new().receive(&heard, &server) {
                Ok(Some(flight)) => Err(flight),
                Ok(None) => Ok(Err(refused)),
                Err(refused) => Ok(Err(refused)),
            },
            taken => Ok(taken),
        }
    }

    /// Takes the step. Waits as long as [`crate::Signs::sign`] does. The channel has something to send then, and plain bytes may
    /// have come: [`Channel::take_early`].
    ///
    /// # Errors
    /// The client and we have nothing in common, or there is no signature.
    pub fn complete(self) -> Result<Channel, Rejected> {
        match self.0 {
            Inner::First { accepted, server, rest, .. } => complete(*accepted, server.config, &rest),
            Inner::Again(channel, wire) => go_on(channel, &wire),
        }
    }
}

fn complete(accepted: Accepted, config: Arc<ServerConfig>, rest: &[u8]) -> Result<Channel, Rejected> {
    match accepted.into_connection(config) {
        Ok(connection) => go_on(Channel::of(Connection::Server(connection)), rest),
        Err((error, alert)) => Err(Rejected::new(error.into(), alert)),
    }
}

fn go_on(mut channel: Channel, wire: &[u8]) -> Result<Channel, Rejected> {
    match channel.receive_early(wire) {
        Ok(()) => Ok(channel),
        Err(failure) => {
            let mut alert = Vec::new();
            channel.take_output(&mut alert);
            Err(Rejected { failure, alert })
        }
    }
}
