//! TLS of a client's connection: the handshake, whose one slow step is taken elsewhere (`ask.rs`), and from then on a wire
//! that encrypts. What TLS is, `ringpost_tls` knows; when it begins, the session.

use std::io;
use std::rc::Rc;
use std::sync::Arc;

use futures_lite::future::or;
use ringpost_io::{Runtime, Stream};
use ringpost_perf::Counter;
use ringpost_tls::{Channel, Failure, Flight, Hello, Rejected, Secured, Server};

use crate::ask::Ask;
use crate::event::Event;
use crate::limits;
use crate::recipient::Client;
use crate::shard::{Shard, World};
use crate::wire::Wire;

/// What handshakes are made with, by the number of the listener; `None` where there is no TLS.
pub type Servers = Arc<[Option<Server>]>;

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
    let shaken =
        shard.runtime.timeout(limits::HANDSHAKE_OF_CLIENT, or(shake(shard, wire.stream(), server, plain), stopped));
    let channel = match shaken.await {
        Some(outcome) => outcome?,
        None => {
            let seconds = limits::HANDSHAKE_OF_CLIENT.as_secs();
            return Err(Failure::peer(format!("the handshake was not finished within {seconds} s")));
        }
    };
    let secured = channel.secured().ok_or_else(|| Failure::ours("the handshake has settled nothing"))?;
    wire.encrypt(channel);
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
                    return Err(refuse(stream, Rejected { failure, alert }).await);
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

async fn refuse(stream: &mut impl Stream, refused: Rejected) -> Failure {
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
