//! A connection in clear or encrypted: the same stream of bytes to who talks on it.

use std::io;
use std::net::SocketAddr;

use ringpost_io::Stream;
use ringpost_tls::Channel;

use crate::limits::WIRE_READ_BYTES;

/// A stream that may be encrypted.
pub(crate) struct Wire<S> {
    stream: S,
    secure: Option<Box<Secure>>,
}

struct Secure {
    channel: Channel,
    /// What goes to the wire.
    out: Vec<u8>,
    /// What came from it.
    incoming: Vec<u8>,
    /// What was in it, as far as nobody has read it.
    plain: Vec<u8>,
}

impl<S: Stream> Wire<S> {
    /// In clear.
    pub(crate) fn new(stream: S) -> Self {
        Self { stream, secure: None }
    }

    /// Encrypts all that follows. Who waits for this limits its time.
    ///
    /// # Errors
    /// The connection broke, or the peer is not who it must be. It is of no use any more.
    pub(crate) async fn secure(&mut self, channel: Channel) -> io::Result<()> {
        let secure = self.secure.insert(Secure::of(channel));
        loop {
            secure.flush(&mut self.stream).await?;
            if !secure.channel.is_handshaking() {
                return Ok(());
            }
            if !secure.take(&mut self.stream).await? {
                return Err(io::Error::new(io::ErrorKind::UnexpectedEof, "the connection was closed in the handshake"));
            }
        }
    }

    /// Encrypts all that follows, after a handshake that has been made on [`Wire::stream`]; `plain` has come behind it and is not
    /// read yet.
    pub(crate) fn encrypt(&mut self, channel: Channel, plain: Vec<u8>) {
        self.secure = Some(Box::new(Secure { plain, ..*Secure::of(channel) }));
    }

    /// What only the two ends of its encryption know.
    pub(crate) fn binding(&self) -> Option<[u8; 32]> {
        self.secure.as_ref()?.channel.binding()
    }

    /// What is below the encryption.
    pub(crate) fn stream(&mut self) -> &mut S {
        &mut self.stream
    }

    /// Writes the last words, and what [`Wire::end`] would say, in one piece.
    pub(crate) async fn write_last(&mut self, bytes: &[u8]) -> io::Result<()> {
        if let Some(secure) = &mut self.secure {
            secure.channel.send(bytes, &mut secure.out);
            secure.channel.close(&mut secure.out);
            return secure.flush(&mut self.stream).await;
        }
        self.stream.write_all(bytes).await
    }

    /// Says that no more will come, if that was not said, for those who would otherwise suspect that something was cut off (RFC 8446 §6.1).
    pub(crate) async fn end(&mut self) {
        let Some(secure) = &mut self.secure else { return };
        secure.channel.close(&mut secure.out);
        // The peer may be gone.
        let _ = secure.flush(&mut self.stream).await;
    }

    /// The encryption, if there is one.
    pub(crate) fn channel(&self) -> Option<&Channel> {
        self.secure.as_ref().map(|secure| &secure.channel)
    }
}

impl<S: Stream> Stream for Wire<S> {
    async fn read(&mut self, buffer: &mut Vec<u8>, max: usize) -> io::Result<usize> {
        let Some(secure) = &mut self.secure else { return self.stream.read(buffer, max).await };
        while secure.plain.is_empty() {
            if secure.channel.peer_has_closed() || !secure.take(&mut self.stream).await? {
                return Ok(0);
            }
            // An answer of the protocol's own, such as a new key: where a reply follows, it goes with that.
            if secure.plain.is_empty() {
                secure.flush(&mut self.stream).await?;
            }
        }
        let count = secure.plain.len().min(max);
        buffer.extend(secure.plain.drain(..count));
        Ok(count)
    }

    async fn write_all(&mut self, bytes: &[u8]) -> io::Result<()> {
        let Some(secure) = &mut self.secure else { return self.stream.write_all(bytes).await };
        secure.channel.send(bytes, &mut secure.out);
        secure.flush(&mut self.stream).await
    }

    fn local_addr(&self) -> SocketAddr {
        self.stream.local_addr()
    }
}

impl Secure {
    fn of(channel: Channel) -> Box<Self> {
        Box::new(Self { channel, out: Vec::new(), incoming: Vec::new(), plain: Vec::new() })
    }

    async fn flush<S: Stream>(&mut self, stream: &mut S) -> io::Result<()> {
        self.channel.take_output(&mut self.out);
        if self.out.is_empty() {
            return Ok(());
        }
        let written = stream.write_all(&self.out).await;
        self.out.clear();
        written
    }

    /// False: the peer has closed its side.
    async fn take<S: Stream>(&mut self, stream: &mut S) -> io::Result<bool> {
        if stream.read(&mut self.incoming, WIRE_READ_BYTES).await? == 0 {
            return Ok(false);
        }
        let taken = self.channel.receive(&self.incoming, &mut self.plain);
        self.incoming.clear();
        if let Err(wrong) = taken {
            // The alert; nobody minds if it does not arrive.
            let _ = self.flush(stream).await;
            return Err(io::Error::new(io::ErrorKind::InvalidData, wrong.to_string()));
        }
        Ok(true)
    }
}
