//! One connection as a plain value: greeting, EHLO, STARTTLS, a handshake, QUIT. Bytes in, bytes out; never here: sockets.

use std::io::{Read, Write};
use std::sync::Arc;

use rustls::pki_types::ServerName;
use rustls::{ClientConfig, ClientConnection, HandshakeKind};

use crate::exchange::parse_reply;
use crate::limits::LINE_BYTES_MAX;

/// Which reply comes next, or that the handshake goes on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Awaited {
    Greeting,
    Hello,
    StartTls,
    Handshake,
    SecureGreeting,
    /// To NOOP.
    Nothing,
    /// To QUIT, in clear.
    PlainFarewell,
    Farewell,
}

/// How a connection becomes encrypted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Way {
    StartTls,
    AtOnce,
    /// Never: NOOP stands for the handshake.
    Not,
}

/// What bytes have led to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Met {
    /// Nothing new: send `out`, read on.
    More,
    /// The handshake has begun with what is in `out`.
    Begun,
    /// Our side of it is done.
    Shaken,
    /// The server has answered behind it, so that its side is done, too.
    Done {
        /// A session before was taken up.
        resumed: bool,
    },
}

/// One connection.
#[derive(Debug)]
pub(super) struct Dialogue {
    way: Way,
    awaited: Awaited,
    connection: ClientConnection,
    partial: Vec<u8>,
    /// To send.
    pub(super) out: Vec<u8>,
}

impl Dialogue {
    /// A connection that has just been made.
    pub(super) fn new(config: &Arc<ClientConfig>, name: &ServerName<'static>, way: Way) -> Result<Self, String> {
        let connection =
            ClientConnection::new(config.clone(), name.clone()).map_err(|error| format!("cannot begin: {error}"))?;
        let awaited = if way == Way::AtOnce { Awaited::SecureGreeting } else { Awaited::Greeting };
        Ok(Self { way, awaited, connection, partial: Vec::new(), out: Vec::new() })
    }

    /// What is to be said before anything was heard.
    pub(super) fn begin(&mut self) -> Met {
        if self.awaited != Awaited::SecureGreeting {
            return Met::More;
        }
        self.shake();
        Met::Begun
    }

    /// Takes bytes from the wire.
    ///
    /// # Errors
    /// The server refuses, or makes no sense.
    pub(super) fn on_bytes(&mut self, bytes: &[u8]) -> Result<Met, String> {
        match self.awaited {
            Awaited::Handshake | Awaited::SecureGreeting | Awaited::Farewell => self.encrypted(bytes),
            _ => self.in_clear(bytes),
        }
    }

    fn in_clear(&mut self, bytes: &[u8]) -> Result<Met, String> {
        self.partial.extend_from_slice(bytes);
        let Some(code) = self.reply()? else { return Ok(Met::More) };
        let (wanted, next, says): (u16, _, &[u8]) = match self.awaited {
            Awaited::Greeting => (220, Awaited::Hello, b"EHLO handshakes.example\r\n"),
            Awaited::Hello if self.way == Way::Not => (250, Awaited::Nothing, b"NOOP\r\n"),
            Awaited::Hello => (250, Awaited::StartTls, b"STARTTLS\r\n"),
            Awaited::Nothing => (250, Awaited::PlainFarewell, b"QUIT\r\n"),
            Awaited::PlainFarewell if code == 221 => return Ok(Met::Done { resumed: false }),
            _ => (220, Awaited::Handshake, b""),
        };
        if code != wanted {
            return Err(format!("{:?} was answered with {code}", self.awaited));
        }
        self.awaited = next;
        self.out.extend_from_slice(says);
        if next != Awaited::Handshake {
            return Ok(Met::More);
        }
        self.shake();
        Ok(Met::Begun)
    }

    fn encrypted(&mut self, mut bytes: &[u8]) -> Result<Met, String> {
        let was_shaking = self.connection.is_handshaking();
        while !bytes.is_empty() {
            self.connection.read_tls(&mut bytes).map_err(|error| error.to_string())?;
            let state = self.connection.process_new_packets().map_err(|error| error.to_string())?;
            let start = self.partial.len();
            self.partial.resize(start + state.plaintext_bytes_to_read(), 0);
            let read = self.connection.reader().read_exact(&mut self.partial[start..]);
            read.map_err(|error| error.to_string())?;
        }
        let shaken = was_shaking && !self.connection.is_handshaking();
        if shaken && self.awaited == Awaited::Handshake {
            self.say_quit();
        }
        self.shake();
        if self.connection.is_handshaking() {
            return Ok(Met::More);
        }
        while let Some(code) = self.reply()? {
            match self.awaited {
                Awaited::SecureGreeting if code == 220 => self.say_quit(),
                Awaited::Farewell if code == 221 => {
                    let resumed = self.connection.handshake_kind() == Some(HandshakeKind::Resumed);
                    return Ok(Met::Done { resumed });
                }
                other => return Err(format!("{other:?} was answered with {code}")),
            }
        }
        self.shake();
        Ok(if shaken { Met::Shaken } else { Met::More })
    }

    fn say_quit(&mut self) {
        self.awaited = Awaited::Farewell;
        self.connection.writer().write_all(b"QUIT\r\n").expect("an empty buffer has room");
    }

    /// What TLS has to say.
    fn shake(&mut self) {
        while self.connection.wants_write() {
            self.connection.write_tls(&mut self.out).expect("a Vec takes everything");
        }
    }

    /// The code of the next whole reply.
    fn reply(&mut self) -> Result<Option<u16>, String> {
        while let Some(end) = memchr::memchr(b'\n', &self.partial) {
            let parsed = parse_reply(&self.partial[..=end]);
            self.partial.drain(..=end);
            match parsed {
                Some((code, true)) => return Ok(Some(code)),
                Some((_, false)) => {}
                None => return Err("what came is no reply".to_owned()),
            }
        }
        match self.partial.len() > LINE_BYTES_MAX {
            true => Err("a line without an end".to_owned()),
            false => Ok(None),
        }
    }
}
