//! TCP and local sockets. Readiness based: a read is one `recv`, and only when nothing is there yet a poll on the ring.
//!
//! System calls: an accepted connection costs `accept4`, which also tells the peer (glommio's own way takes five), and
//! `TCP_NODELAY` is inherited from the listening socket (of a local one, `getsockopt` tells the peer). Waiting costs one operation on the ring; after a read that did
//! not fill the buffer glommio polls before it asks again, so no `recv` is wasted.

use std::cell::{OnceCell, RefCell};
use std::future::poll_fn;
use std::io;
use std::mem::ManuallyDrop;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, FromRawFd, IntoRawFd, OwnedFd};
use std::path::Path;
use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Duration;

use futures_lite::{AsyncRead, AsyncWrite};
use glommio::net::TcpStream;
use rustix::io::Errno;
use rustix::net::SocketFlags;

use super::{RingRuntime, timer};
use crate::limits::UNIX_CONNECT_PAUSE;
use crate::{Listener, Peer, Stream, sys};

/// A listening socket of one shard, or its share of a local one. One task accepts from it at a time.
pub struct RingListener {
    runtime: RingRuntime,
    socket: ManuallyDrop<OwnedFd>,
    /// `None`: a local socket.
    local: Option<SocketAddr>,
    /// While the backlog is empty: glommio's handle on the listening socket, which has a poll in flight.
    watcher: RefCell<Option<Watcher>>,
}

/// glommio waits for readiness only on behalf of a stream. So the listening socket is wrapped in one: its "read" stays
/// pending until the poll fires, and then fails, for one cannot receive from a listening socket. The handle shares the
/// number of [`RingListener::socket`], hence it must be dropped (which closes it) in only one of the two places.
struct Watcher(ManuallyDrop<TcpStream>);

impl RingListener {
    pub(super) fn new(runtime: RingRuntime, socket: OwnedFd) -> io::Result<Self> {
        rustix::io::ioctl_fionbio(&socket, true)?;
        let local = match sys::is_unix(&socket)? {
            true => None,
            false => {
                rustix::net::sockopt::set_tcp_nodelay(&socket, true)?;
                Some(sys::local_address(&socket)?)
            }
        };
        Ok(Self { runtime, socket: ManuallyDrop::new(socket), local, watcher: RefCell::new(None) })
    }

    fn accept_now(&self) -> rustix::io::Result<io::Result<(RingStream, Peer)>> {
        let (socket, peer) = rustix::net::acceptfrom_with(&*self.socket, SocketFlags::CLOEXEC | SocketFlags::NONBLOCK)?;
        let Some(local) = self.local else {
            let peer = sys::credentials(&socket).map(Peer::Process);
            let stream = RingStream::new(self.runtime.clone(), socket, Some(NO_ADDRESS));
            return Ok(peer.map(|peer| (stream, peer)));
        };
        let known = (!local.ip().is_unspecified()).then_some(local);
        let peer = peer.and_then(|peer| SocketAddr::try_from(peer).ok());
        let peer = peer.ok_or_else(|| io::Error::other("a peer without an IP address"));
        Ok(peer.map(|peer| (RingStream::new(self.runtime.clone(), socket, known), Peer::Address(peer))))
    }

    fn poll_readable(&self, context: &mut Context<'_>) -> Poll<()> {
        let mut watcher = self.watcher.borrow_mut();
        let stream = watcher.get_or_insert_with(|| {
            // SAFETY: the descriptor is open as long as `self.socket`; `Watcher` says who closes it.
            Watcher(ManuallyDrop::new(unsafe { TcpStream::from_raw_fd(self.socket.as_raw_fd()) }))
        });
        let ready = Pin::new(&mut *stream.0).poll_read(context, &mut [0]);
        ready.map(|_| {
            // Its poll is over, so forgetting it gives up nothing but one weak count on the reactor.
            *watcher = None;
        })
    }
}

impl Listener for RingListener {
    type Stream = RingStream;

    async fn accept(&self) -> io::Result<(RingStream, Peer)> {
        poll_fn(|context| {
            loop {
                match self.accept_now() {
                    Ok(accepted) => return Poll::Ready(accepted),
                    // The client was gone before its turn came: not our listener's fault. accept(2).
                    Err(Errno::CONNABORTED | Errno::INTR) => {}
                    // The first may be over since the last connection came: then the second is new, and tells if one has
                    // come since. Another shard may have been quicker at a socket that is shared.
                    Err(Errno::AGAIN) => {
                        if self.poll_readable(context).is_pending() || self.poll_readable(context).is_pending() {
                            return Poll::Pending;
                        }
                    }
                    Err(error) => return Poll::Ready(Err(error.into())),
                }
            }
        })
        .await
    }

    fn local_addr(&self) -> SocketAddr {
        self.local.unwrap_or(NO_ADDRESS)
    }
}

impl Drop for RingListener {
    fn drop(&mut self) {
        match self.watcher.get_mut().take() {
            // Dropped as a whole: its poll is taken off the ring, and the descriptor is closed.
            Some(Watcher(stream)) => drop(ManuallyDrop::into_inner(stream)),
            // SAFETY: nobody uses the field after this.
            None => unsafe { ManuallyDrop::drop(&mut self.socket) },
        }
    }
}

/// Of a local socket.
const NO_ADDRESS: SocketAddr = SocketAddr::new(IpAddr::V4(Ipv4Addr::UNSPECIFIED), 0);

/// A connection of one shard.
pub struct RingStream {
    runtime: RingRuntime,
    stream: TcpStream,
    local: OnceCell<SocketAddr>,
}

impl RingStream {
    pub(super) fn new(runtime: RingRuntime, socket: OwnedFd, local: Option<SocketAddr>) -> Self {
        // SAFETY: the descriptor is given up here and owned by the stream from now on.
        let stream = unsafe { TcpStream::from_raw_fd(socket.into_raw_fd()) };
        Self { runtime, stream, local: local.map(OnceCell::from).unwrap_or_default() }
    }
}

impl AsFd for RingStream {
    fn as_fd(&self) -> BorrowedFd<'_> {
        // SAFETY: the stream owns the descriptor and outlives the borrow.
        unsafe { BorrowedFd::borrow_raw(self.stream.as_raw_fd()) }
    }
}

impl Stream for RingStream {
    async fn read(&mut self, buffer: &mut Vec<u8>, max: usize) -> io::Result<usize> {
        poll_fn(|context| {
            let mut scratch = self.runtime.scratch().borrow_mut();
            let room = max.min(scratch.len());
            let scratch = &mut scratch[..room];
            match Pin::new(&mut self.stream).poll_read(context, scratch) {
                Poll::Ready(Ok(got)) => {
                    buffer.extend_from_slice(&scratch[..got]);
                    Poll::Ready(Ok(got))
                }
                other => other,
            }
        })
        .await
    }

    async fn write_all(&mut self, bytes: &[u8]) -> io::Result<()> {
        let mut left = bytes;
        while !left.is_empty() {
            let sent = poll_fn(|context| Pin::new(&mut self.stream).poll_write(context, left)).await?;
            if sent == 0 {
                return Err(io::ErrorKind::WriteZero.into());
            }
            left = &left[sent..];
        }
        self.runtime.mind_writes().await;
        Ok(())
    }

    fn local_addr(&self) -> SocketAddr {
        // A connected TCP socket has an address; if the peer's reset came first, the one that says "none" must do.
        *self.local.get_or_init(|| sys::local_address(self).unwrap_or(NO_ADDRESS))
    }
}

pub(super) async fn connect(
    runtime: RingRuntime,
    to: SocketAddr,
    source: Option<IpAddr>,
    time: Duration,
) -> io::Result<RingStream> {
    let socket = sys::connecting_socket(to, source)?;
    let mut connection = RingStream::new(runtime, socket, None);
    // Sending nothing waits until the handshake is over, and gives its error.
    let done = poll_fn(|context| Pin::new(&mut connection.stream).poll_write(context, &[]));
    match timer::timeout(time, done).await {
        Some(result) => result.map(|_| connection),
        None => Err(io::ErrorKind::TimedOut.into()),
    }
}

/// A local socket is connected at once, or its server has too many waiting: then again, until the time is over.
pub(super) async fn connect_unix(runtime: RingRuntime, path: &Path, time: Duration) -> io::Result<RingStream> {
    let trying = async {
        loop {
            match sys::unix_socket(path) {
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => timer::sleep(UNIX_CONNECT_PAUSE).await,
                other => return other,
            }
        }
    };
    let socket = timer::timeout(time, trying).await.unwrap_or_else(|| Err(io::ErrorKind::TimedOut.into()))?;
    Ok(RingStream::new(runtime, socket, None))
}
