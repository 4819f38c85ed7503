//! Who comes to the page: connections are taken, and encrypted where `http … pki` says so, each by a task of its own, so that
//! one that is slow keeps nobody waiting.

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;

use axum::serve::{IncomingStream, Listener};
use ringpost_tls::Server;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{OwnedSemaphorePermit, Semaphore, mpsc};

use super::secure::{Bare, Connection};
use crate::coordinator::Coordinator;
use crate::limits::{PAGE_ACCEPT_PAUSE, PAGE_CONNECTIONS, PAGE_HANDSHAKE, PAGE_HANDSHAKES};

/// Where connections that are ready come in.
pub struct Door {
    ready: mpsc::Receiver<(Connection, SocketAddr)>,
    local: io::Result<SocketAddr>,
}

/// Where a request comes from.
#[derive(Clone, Copy, Debug)]
pub struct Visitor {
    /// The client's address.
    pub from: SocketAddr,
    /// Whether nobody between hears what is said.
    pub is_encrypted: bool,
}

impl axum::extract::connect_info::Connected<IncomingStream<'_, Door>> for Visitor {
    fn connect_info(stream: IncomingStream<'_, Door>) -> Self {
        Self { from: *stream.remote_addr(), is_encrypted: stream.io().is_encrypted() }
    }
}

impl Door {
    /// Opens it.
    pub fn open(listener: TcpListener, coordinator: Arc<Coordinator>) -> Self {
        let (hand, ready) = mpsc::channel(1);
        let local = listener.local_addr();
        tokio::spawn(accept(listener, coordinator, hand));
        Self { ready, local }
    }
}

impl Listener for Door {
    type Io = Connection;
    type Addr = SocketAddr;

    async fn accept(&mut self) -> (Connection, SocketAddr) {
        match self.ready.recv().await {
            Some(visitor) => visitor,
            // The engine ends, and whoever serves with it.
            None => std::future::pending().await,
        }
    }

    fn local_addr(&self) -> io::Result<SocketAddr> {
        match &self.local {
            Ok(address) => Ok(*address),
            Err(error) => Err(error.kind().into()),
        }
    }
}

async fn accept(listener: TcpListener, coordinator: Arc<Coordinator>, hand: mpsc::Sender<(Connection, SocketAddr)>) {
    let shaking = Arc::new(Semaphore::new(PAGE_HANDSHAKES));
    let places = Arc::new(Semaphore::new(PAGE_CONNECTIONS));
    loop {
        let Ok(place) = places.clone().acquire_owned().await else { return };
        let (stream, from) = match listener.accept().await {
            Ok(visitor) => visitor,
            // Out of descriptors, or the visitor has gone already.
            Err(_) => {
                tokio::time::sleep(PAGE_ACCEPT_PAUSE).await;
                continue;
            }
        };
        // Connections keep what was in force when they came.
        let is_secure = coordinator.config().http.as_ref().is_some_and(|http| http.pki.is_some());
        if !is_secure {
            if hand.send((Connection::plain(stream, place), from)).await.is_err() {
                return;
            }
            continue;
        }
        // Never in clear instead: whoever is turned away comes again.
        let Some(server) = coordinator.page_server() else { continue };
        let Ok(shakes) = shaking.clone().try_acquire_owned() else { continue };
        let (hand, coordinator) = (hand.clone(), coordinator.clone());
        tokio::spawn(async move {
            let shaken = tokio::time::timeout(PAGE_HANDSHAKE, encrypt(stream, &server, &coordinator, place)).await;
            drop(shakes);
            match shaken {
                Ok(Ok(connection)) => drop(hand.send((connection, from)).await),
                Ok(Err(why)) => tracing::debug!("page: no handshake with {from}: {why}"),
                Err(_) => tracing::debug!("page: no handshake with {from} in time"),
            }
        });
    }
}

async fn encrypt(
    stream: TcpStream,
    server: &Server,
    coordinator: &Coordinator,
    place: OwnedSemaphorePermit,
) -> Result<Connection, String> {
    let (mut bare, mut plain) = (Bare(stream), Vec::new());
    let channel = ringpost_shard::shake(coordinator.line(), &mut bare, server, &mut plain).await;
    let channel = channel.map_err(|failure| failure.text)?;
    Ok(Connection::encrypted(bare.0, channel, plain, place))
}
