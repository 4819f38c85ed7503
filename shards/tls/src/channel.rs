//! An encrypted connection without its wire: bytes of the wire in and plain bytes out, plain bytes in and bytes for the wire
//! out. The same for a server and, later, for a client.

use std::io::{Read, Write};

use rustls::pki_types::CertificateDer;
use rustls::{Connection, HandshakeKind, ProtocolVersion};

use crate::clients::Shown;
use crate::failure::Failure;
use crate::limits::SERVER_NAME_BYTES_MAX;
use crate::terms::in_registry;

/// A connection.
#[derive(Debug)]
pub struct Channel {
    connection: Box<Connection>,
    peer_has_closed: bool,
    /// A client that has a certificate to show.
    signs: bool,
    /// Plain bytes that came with the last step of a handshake that was taken elsewhere.
    early: Vec<u8>,
}

/// What a finished handshake has settled.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Secured {
    /// `TLS1.2` or `TLS1.3`.
    pub version: &'static str,
    /// Its name in the registry (RFC 8446 §B.4, RFC 5289): `TLS_AES_128_GCM_SHA256`.
    pub cipher: String,
    /// Bits of the cipher's key.
    pub bits: u16,
    /// The name that the client asked for.
    pub server_name: Option<String>,
    /// An earlier session was taken up, with a ticket.
    pub resumed: bool,
    /// What the client has shown of itself; of a server's channel [`crate::Server::secured`] knows.
    pub client: Shown,
}

impl Channel {
    pub(crate) fn of(mut connection: Connection) -> Self {
        // What is written is the caller's to bound, who hands on at once all that comes out.
        connection.set_buffer_limit(None);
        Self { connection: Box::new(connection), peer_has_closed: false, signs: false, early: Vec::new() }
    }

    /// Takes bytes from the wire where nobody reads the plain ones yet: [`Channel::take_early`] gives them.
    pub(crate) fn receive_early(&mut self, wire: &[u8]) -> Result<(), Failure> {
        let mut early = std::mem::take(&mut self.early);
        let taken = self.receive(wire, &mut early);
        self.early = early;
        taken
    }

    /// Appends the plain bytes that came with the step of a [`crate::Flight`]: a server's first words may come right behind its
    /// part of the handshake.
    pub fn take_early(&mut self, plain: &mut Vec<u8>) {
        plain.append(&mut self.early);
    }

    pub(crate) fn signing(self, signs: bool) -> Self {
        Self { signs, ..self }
    }

    /// Takes bytes from the wire and appends the plain bytes in them. There may then be something to send, even after an
    /// error: fetch it with [`Channel::take_output`].
    ///
    /// # Errors
    /// The connection is over.
    pub fn receive(&mut self, mut wire: &[u8], plain: &mut Vec<u8>) -> Result<(), Failure> {
        loop {
            let state = self.connection.process_new_packets()?;
            self.peer_has_closed |= state.peer_has_closed();
            let count = state.plaintext_bytes_to_read();
            if count > 0 {
                let start = plain.len();
                plain.resize(start + count, 0);
                let read = self.connection.reader().read_exact(&mut plain[start..]);
                read.map_err(|error| Failure::peer(error.to_string()))?;
            }
            if wire.is_empty() || self.peer_has_closed {
                return Ok(());
            }
            // A slice is read without error; what is refused is a record beyond all bounds.
            self.connection.read_tls(&mut wire).map_err(|error| Failure::peer(error.to_string()))?;
        }
    }

    /// Encrypts `plain` and appends what goes to the wire. Before the handshake has ended it waits for that.
    pub fn send(&mut self, plain: &[u8], wire: &mut Vec<u8>) {
        self.connection.writer().write_all(plain).expect("its buffer has no limit");
        self.take_output(wire);
    }

    /// Appends what must go to the wire.
    pub fn take_output(&mut self, wire: &mut Vec<u8>) {
        while self.connection.wants_write() {
            self.connection.write_tls(wire).expect("a vector takes everything");
        }
    }

    /// Says that we send no more (RFC 8446 §6.1).
    pub fn close(&mut self, wire: &mut Vec<u8>) {
        self.connection.send_close_notify();
        self.take_output(wire);
    }

    /// The other side sends no more.
    pub fn peer_has_closed(&self) -> bool {
        self.peer_has_closed
    }

    /// The handshake has not ended.
    pub fn is_handshaking(&self) -> bool {
        self.connection.is_handshaking()
    }

    /// What is still to be sent keeps nobody waiting, and may go with the next words: a server of TLS 1.3 has nothing but
    /// tickets then.
    pub fn is_patient(&self) -> bool {
        let is_new = self.connection.protocol_version() == Some(ProtocolVersion::TLSv1_3);
        is_new && matches!(*self.connection, Connection::Server(_)) && !self.is_handshaking()
    }

    /// The signature is still to come: a client of ours may have to sign whatever the server says; a server's client had to be
    /// asked to begin once more.
    pub(crate) fn owes_signature(&self) -> bool {
        let asked_again = || self.connection.handshake_kind() == Some(HandshakeKind::FullWithHelloRetryRequest);
        self.is_handshaking() && (self.signs || asked_again())
    }

    /// The other side's certificates, its own first; none if it has shown none.
    pub(crate) fn peer_chain(&self) -> &[CertificateDer<'static>] {
        self.connection.peer_certificates().unwrap_or_default()
    }

    /// An earlier session was taken up.
    pub(crate) fn is_resumed(&self) -> bool {
        self.connection.handshake_kind() == Some(HandshakeKind::Resumed)
    }

    /// Bytes that only the two ends of this very connection know, for SCRAM (RFC 9266); `None` with a version that does not
    /// promise that.
    pub fn binding(&self) -> Option<[u8; 32]> {
        if self.is_handshaking() || self.connection.protocol_version() != Some(ProtocolVersion::TLSv1_3) {
            return None;
        }
        self.connection.export_keying_material([0; 32], b"EXPORTER-Channel-Binding", None).ok()
    }

    /// What was settled; `None` before the handshake has ended.
    pub fn secured(&self) -> Option<Secured> {
        if self.is_handshaking() {
            return None;
        }
        let version = match self.connection.protocol_version()? {
            ProtocolVersion::TLSv1_3 => "TLS1.3",
            _ => "TLS1.2",
        };
        let cipher = in_registry(self.connection.negotiated_cipher_suite()?.suite());
        let bits = if cipher.contains("AES_128") { 128 } else { 256 };
        let server_name = match &*self.connection {
            Connection::Server(server) => server.server_name(),
            Connection::Client(_) => None,
        };
        let server_name = server_name.map(|name| name.chars().take(SERVER_NAME_BYTES_MAX).collect());
        let (resumed, client) = (self.is_resumed(), Shown::NotAsked);
        Some(Secured { version, cipher, bits, server_name, resumed, client })
    }
}
