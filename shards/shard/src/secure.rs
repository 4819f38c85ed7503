//! TLS of a client's connection: the handshake, whose one slow step is taken elsewhere (`ask.rs`), and from then on a wire
//! that encrypts. What TLS is, `ringpost_tls` knows; when it begins, the session.

use std::collections::HashMap;
use std::io;
use std::rc::Rc;
use std::sync::Arc;

use futures_lite::future::or;
use ringpost_io::{Runtime, Stream};
use ringpost_perf::Counter;
use ringpost_tls::{Channel, Connector, Failure, Flight, Hello, Rejected, Secured, Server, Shown};

use crate::ask::Ask;
use crate::event::Event;
use crate::limits;
use crate::recipient::Client;
use crate::shard::{Shard, World};
use crate::wire::Wire;

/// What handshakes are made with. Cheap to clone.
#[derive(Clone, Debug, Default)]
pub struct Servers {
    /// By the number of the listener; `None` where there is no TLS.
    pub listeners: Arc<[Option<Server>]>,
    /// By [`ringpost_conf::Relay::terms`], where those are not the usual ones.
    pub relays: Arc<HashMap<String, Connector>>,
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
    let (session, from) = (client.session, client.origin);
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
    let shaken = shard
        .runtime
        .timeout(limits::HANDSHAKE_OF_CLIENT, or(shake(&shard.ask, wire.stream(), server, plain), stopped));
    let channel = match shaken.await {
        Some(outcome) => outcome?,
        None => {
            let seconds = limits::HANDSHAKE_OF_CLIENT.as_secs();
            return Err(Failure::peer(format!("the handshake was not finished within {seconds} s")));
        }
    };
    let secured = server.secured(&channel)?;
    wire.encrypt(channel, Vec::new());
    Ok(secured)
}

/// A client's handshake with this server, from its first byte to its end. What has come behind it is appended to `plain`. Who
/// waits for this limits its time.
///
/// # Errors
/// The client has gone, or it and the server have nothing in common. What can be said of it was said.
pub async fn shake(
    ask: &impl Ask,
    stream: &mut impl Stream,
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
    // A client that comes again needs no signature, and so no other thread.
    let channel = match first.resume() {
        Ok(Ok(channel)) => channel,
        Ok(Err(refused)) => return Err(refuse(stream, refused).await),
        Err(first) => {
            if let Some((shelf, name)) = first.wants() {
                // Boxed: most servers have all their certificates.
                Box::pin(ask.find_certificate(&shelf, &name)).await;
            }
            signed(ask, stream, first).await?
        }
    };
    conclude(ask, stream, channel, plain).await
}

/// Brings a handshake to its end, of either side; the steps that need the private key are taken elsewhere. What has come behind
/// it is appended to `plain`.
async fn conclude(
    ask: &impl Ask,
    stream: &mut impl Stream,
    mut channel: Channel,
    plain: &mut Vec<u8>,
) -> Result<Channel, Failure> {
    loop {
        // A ticket goes with the first reply: a segment of its own would cost both sides as much as a command does.
        if !channel.is_patient() {
            let mut answer = Vec::new();
            channel.take_output(&mut answer);
            stream.write_all(&answer).await.map_err(gone)?;
        }
        channel.take_early(plain);
        if !channel.is_handshaking() {
            return Ok(channel);
        }
        let raw = read(stream).await?;
        channel = match Flight::again(channel, &raw) {
            Ok(flight) => signed(ask, stream, flight).await?,
            Err(mut channel) => {
                if let Err(failure) = channel.receive(&raw, plain) {
                    let mut alert = Vec::new();
                    channel.take_output(&mut alert);
                    return Err(refuse(stream, Rejected { failure, alert }).await);
                }
                channel
            }
        };
    }
}

/// The client's side of a handshake in which a certificate of ours may be shown. Who waits for this limits its time.
///
/// # Errors
/// The connection broke, or the peer is not who it must be. It is of no use any more.
pub(crate) async fn show<W: World>(
    shard: &Rc<Shard<W>>,
    wire: &mut Wire<<W::R as Runtime>::Stream>,
    channel: Channel,
) -> io::Result<()> {
    let mut plain = Vec::new();
    let channel = conclude(&shard.ask, wire.stream(), channel, &mut plain).await;
    let channel = channel.map_err(|failure| io::Error::new(io::ErrorKind::InvalidData, failure.text))?;
    wire.encrypt(channel, plain);
    Ok(())
}

async fn signed(ask: &impl Ask, stream: &mut impl Stream, flight: Flight) -> Result<Channel, Failure> {
    match ask.sign(flight).await {
        Ok(channel) => Ok(channel),
        Err(refused) => Err(refuse(stream, refused).await),
    }
}

async fn read(stream: &mut impl Stream) -> Result<Vec<u8>, Failure> {
    let mut raw = Vec::new();
    match stream.read(&mut raw, limits::REPLY_READ_BYTES).await {
        Ok(0) => Err(Failure::peer("the connection was closed in the handshake")),
        Ok(_) => Ok(raw),
        Err(error) => Err(gone(error)),
    }
}

async fn refuse(stream: &mut impl Stream, refused: Rejected) -> Failure {
    // Told for courtesy; the reason goes to the log.
    let _ = stream.write_all(&refused.alert).await;
    refused.failure
}

fn gone(error: io::Error) -> Failure {
    Failure::peer(format!("the connection is lost: {error}"))
}

/// What `Received:` tells of it: version, cipher, bits of its key; `YES` for a client's certificate that is good, `FAIL` for one
/// that is not, `NO` where there is none.
pub(crate) fn in_trace(secured: &Secured) -> String {
    let Secured { version, cipher, bits, client, .. } = secured;
    let verified = match client {
        Shown::NotAsked | Shown::Nothing => "NO",
        Shown::Good(_) => "YES",
        Shown::Bad { .. } => "FAIL",
    };
    format!("{version}:{cipher}:{bits}:{verified}")
}
