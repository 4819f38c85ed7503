//! The server's side of a handshake: what the client says first, and the answer that needs the private key.

use std::sync::Arc;

use rustls::crypto::CryptoProvider;
use rustls::server::{Accepted, AcceptedAlert, Acceptor, NoServerSessionStorage, ProducesTickets};
use rustls::{Connection, ServerConfig};

use crate::channel::Channel;
use crate::failure::Failure;
use crate::names::Offer;

/// What a listener is, as far as TLS goes. Cheap to clone; connections keep the one they began with.
#[derive(Clone, Debug)]
pub struct Server(Arc<ServerConfig>);

impl Server {
    /// TLS 1.2 and 1.3 with these certificates. Sessions are resumed by tickets alone, which all servers with the same
    /// `tickets` take from each other; early data is refused.
    ///
    /// # Errors
    /// The provider has nothing for these versions.
    pub fn new(
        provider: Arc<CryptoProvider>,
        offer: Offer,
        tickets: Arc<dyn ProducesTickets>,
    ) -> Result<Self, Failure> {
        let versions = [&rustls::version::TLS13, &rustls::version::TLS12];
        let builder = ServerConfig::builder_with_provider(provider).with_protocol_versions(&versions);
        let builder = builder.map_err(|error| Failure::ours(error.to_string()))?;
        let mut config = builder.with_no_client_auth().with_cert_resolver(Arc::new(offer));
        config.ticketer = tickets;
        config.session_storage = Arc::new(NoServerSessionStorage {});
        // One is enough for a client that comes again; each costs a record and a derivation.
        config.send_tls13_tickets = 1;
        // RFC 8446 §8: what comes early may come twice.
        config.max_early_data_size = 0;
        Ok(Self(Arc::new(config)))
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
pub struct Hello(Acceptor);

impl Hello {
    /// Nothing has come.
    pub fn new() -> Self {
        Self(Acceptor::default())
    }

    /// Takes bytes from the wire. `None`: it needs more. Not to be called again after anything else.
    ///
    /// # Errors
    /// This is no TLS, or none that is understood.
    pub fn receive(&mut self, mut wire: &[u8], server: &Server) -> Result<Option<Flight>, Rejected> {
        while !wire.is_empty() {
            if let Err(error) = self.0.read_tls(&mut wire) {
                return Err(Rejected::silently(Failure::peer(error.to_string())));
            }
            match self.0.accept() {
                Ok(None) => {}
                Ok(Some(accepted)) => {
                    return Ok(Some(Flight(Inner::First(Box::new(accepted), server.clone(), wire.to_vec()))));
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
    /// With what came behind the client's first message.
    First(Box<Accepted>, Server, Vec<u8>),
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

    /// Takes the step. Waits as long as [`crate::Signs::sign`] does. The channel has something to send then.
    ///
    /// # Errors
    /// The client and we have nothing in common, or there is no signature.
    pub fn complete(self) -> Result<Channel, Rejected> {
        let (mut channel, wire) = match self.0 {
            Inner::First(accepted, server, rest) => match accepted.into_connection(server.0) {
                Ok(connection) => (Channel::of(Connection::Server(connection)), rest),
                Err((error, alert)) => return Err(Rejected::new(error.into(), alert)),
            },
            Inner::Again(channel, wire) => (channel, wire),
        };
        // Nothing plain can come before the handshake has ended.
        match channel.receive(&wire, &mut Vec::new()) {
            Ok(()) => Ok(channel),
            Err(failure) => {
                let mut alert = Vec::new();
                channel.take_output(&mut alert);
                Err(Rejected { failure, alert })
            }
        }
    }
}
