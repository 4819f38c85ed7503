//! TLS of a client's connection: the handshake, whose one slow step is taken elsewhere (`ask.rs`), and from then on a wire
//! that encrypts. What TLS is, `ringpost_tls` knows; when it begins, the session.

use std::io;
use std::net::SocketAddr;
use std::rc::Rc;
use std::sync::Arc;

use futures_lite::future::or;
use ringpost_io::{Runtime, Stream};
use ringpost_perf::Counter;
use ringpost_tls::{Channel, Failure, Flight, Hello, Refused, Secured, Server};

use crate::ask::Ask;
use crate::event::Event;
use crate::limits;
use crate::recipient::Client;
use crate::shard::{Shard, World};

/// What handshakes are made with, by the number of the listener; `None` where there is no TLS.
pub type Servers = Arc<[Option<Server>]>;

/// A connection's bytes, encrypted or not.
pub(crate) struct Wire<S> {
    stream: S,
    channel: Option<Channel>,
}

impl<S: Stream> Wire<S> {
    /// Not encrypted.
    pub(crate) fn plain(stream: S) -> Self {
        Self { stream, channel: None }
    }

    /// Our end's address.
    pub(crate) fn local_addr(&self) -> SocketAddr {
        self.stream.local_addr()
    }

    /// As [`Stream::read`], of plain bytes: waits until there are some.
    pub(crate) async fn read(&mut self, buffer: &mut Vec<u8>, max: usize) -> io::Result<usize> {
        let Self { stream, channel: Some(channel) } = self else { return self.stream.read(buffer, max).await };
        let start = buffer.len();
        let (mut raw, mut answer) = (Vec::new(), Vec::new());
        while !channel.peer_has_closed() && stream.read(&mut raw, max).await? > 0 {
            let received = channel.receive(&raw, buffer);
            raw.clear();
            // Keys are changed, or an alert says what was wrong.
            channel.take_output(&mut answer);
            if !answer.is_empty() {
                stream.write_all(&answer).await?;
                answer.clear();
            }
            received.map_err(io::Error::other)?;
            if buffer.len() > start {
                return Ok(buffer.len() - start);
            }
        }
        Ok(0)
    }

    /// As [`Stream::write_all`].
    pub(crate) async fn write_all(&mut self, bytes: &[u8]) -> io::Result<()> {
        let Some(channel) = &mut self.channel else { return self.stream.write_all(bytes).await };
        let mut encrypted = Vec::new();
        channel.send(bytes, &mut encrypted);
        self.stream.write_all(&encrypted).await
    }

    /// Says that no more will come, for those who would otherwise suspect that something was cut off (RFC 8446 §6.1).
    pub(crate) async fn end(&mut self) {
        let Some(channel) = &mut self.channel else { return };
        let mut farewell = Vec::new();
        channel.close(&mut farewell);
        // The peer may be gone.
        let _ = self.stream.write_all(&farewell).await;
    }
}

/// Makes the handshake; from then on the wire encrypts. What the client has sent behind it is appended to `plain`. Counted
/// and logged, however it ends.
pub(crate) async fn handshake<W: World>(
    shard: &Rc<Shard<W>>,
    wire: &mut Wire<<W::R as Runtime>::Stream>,
    server: Option<Server>,
    client: &Client,
    plain: &mut Vec<u8>,
) -> Option<Box<Secured>> {
    let outcome = match server {
        Some(server) => in_time(shard, wire, &server, plain).await,
        None => Err(Failure::ours("there is no certificate")),
    };
    let (session, from) = (client.session, client.peer);
    match outcome {
        Ok(secured) => {
            shard.counters.add(Counter::TlsHandshakes, 1);
            shard.counters.add(Counter::TlsResumed, u64::from(secured.resumed));
            shard.event(&Event::Encrypted { session, from, secured: &secured });
            Some(Box::new(secured))
        }
        Err(failure) => {
            shard.counters.add(Counter::TlsFailed, 1);
            shard.event(&Event::HandshakeFailed { session, from, why: &failure.text });
            None
        }
    }
}

async fn in_time<W: World>(
    shard: &Rc<Shard<W>>,
    wire: &mut Wire<<W::R as Runtime>::Stream>,
    server: &Server,
    plain: &mut Vec<u8>,
) -> Result<Secured, Failure> {
    let stopped = async {
        shard.stop.raised().await;
        Err(Failure::ours("the server stops"))
    };
    let shaken = shard.runtime.timeout(limits::HANDSHAKE, or(shake(shard, &mut wire.stream, server, plain), stopped));
    let channel = match shaken.await {
        Some(outcome) => outcome?,
        None => {
            let seconds = limits::HANDSHAKE.as_secs();
            return Err(Failure::peer(format!("the handshake was not finished within {seconds} s")));
        }
    };
    let secured = channel.secured().ok_or_else(|| Failure::ours("the handshake has settled nothing"))?;
    wire.channel = Some(channel);
    Ok(secured)
}

async fn shake<W: World>(
    shard: &Rc<Shard<W>>,
    stream: &mut <W::R as Runtime>::Stream,
    server: &Server,
    plain: &mut Vec<u8>,
) -> Result<Channel, Failure> {
    let mut hello = Hello::new();
    let first = loop {
        let raw = read(stream).await?;
        match hello.receive(&raw, server) {
            Ok(None) => {}
            Ok(Some(flight)) => break flight,
            Err(refused) => return Err(refuse(stream, refused).await),
        }
    };
    let mut channel = signed(shard, stream, first).await?;
    loop {
        let mut answer = Vec::new();
        channel.take_output(&mut answer);
        stream.write_all(&answer).await.map_err(gone)?;
        if !channel.is_handshaking() {
            return Ok(channel);
        }
        let raw = read(stream).await?;
        channel = match Flight::again(channel, &raw) {
            Ok(flight) => signed(shard, stream, flight).await?,
            Err(mut channel) => {
                if let Err(failure) = channel.receive(&raw, plain) {
                    let mut alert = Vec::new();
                    channel.take_output(&mut alert);
                    return Err(refuse(stream, Refused { failure, alert }).await);
                }
                channel
            }
        };
    }
}

async fn signed<W: World>(
    shard: &Rc<Shard<W>>,
    stream: &mut <W::R as Runtime>::Stream,
    flight: Flight,
) -> Result<Channel, Failure> {
    match shard.ask.sign(flight).await {
        Ok(channel) => Ok(channel),
        Err(refused) => Err(refuse(stream, refused).await),
    }
}

async fn read(stream: &mut impl Stream) -> Result<Vec<u8>, Failure> {
    let mut raw = Vec::new();
    match stream.read(&mut raw, limits::REPLY_READ_BYTES).await {
        Ok(0) => Err(Failure::peer("the client has closed the connection")),
        Ok(_) => Ok(raw),
        Err(error) => Err(gone(error)),
    }
}

async fn refuse(stream: &mut impl Stream, refused: Refused) -> Failure {
    // Told for courtesy; the reason goes to the log.
    let _ = stream.write_all(&refused.alert).await;
    refused.failure
}

fn gone(error: io::Error) -> Failure {
    Failure::peer(format!("the connection is lost: {error}"))
}

/// What `Received:` tells of it: version, cipher, bits of its key, whether a client's certificate was verified.
pub(crate) fn in_trace(secured: &Secured) -> String {
    let Secured { version, cipher, bits, .. } = secured;
    format!("{version}:{cipher}:{bits}:NO")
}
