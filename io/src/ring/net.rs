//! TCP and local sockets. Readiness based: a read is one `recv`, and only when nothing is there yet a poll on the ring.
//!
//! System calls: an accepted connection costs `accept4`, which also tells the peer, and `TCP_NODELAY` is inherited from the
//! listening socket (of a local one, `getsockopt` tells the peer). Waiting costs one operation on the ring; where nothing can
//! be there yet (before the first read of an accepted connection, after a read that did not fill the buffer) that comes
//! first, so no `recv` is wasted.

use std::cell::{OnceCell, RefCell};
use std::future::{Future, poll_fn};
use std::io;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::Path;
use std::pin::Pin;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use rustix::event::PollFlags;
use rustix::io::Errno;
use rustix::net::{RecvFlags, SendFlags, SocketFlags, recv, send};

use super::RingRuntime;
use super::reactor::{Operation, outcome};
use crate::limits::UNIX_CONNECT_PAUSE;
use crate::{Listener, Peer, Runtime, Stream, sys};

/// A listening socket of one shard, or its share of a local one. One task accepts from it at a time.
pub struct RingListener {
    runtime: RingRuntime,
    /// While the backlog is empty. Before the socket, so that it is taken back first.
    waiting: RefCell<Option<Operation>>,
    socket: OwnedFd,
    /// `None`: a local socket.
    local: Option<SocketAddr>,
}

/// Goes on with a wait for readiness, or begins one.
fn poll_ready(
    runtime: &RingRuntime,
    waiting: &mut Option<Operation>,
    socket: BorrowedFd<'_>,
    flags: PollFlags,
    context: &mut Context<'_>,
) -> Poll<io::Result<()>> {
    let operation = waiting.get_or_insert_with(|| runtime.reactor().readiness(socket, flags));
    let (result, _) = ready!(Pin::new(operation).poll(context));
    *waiting = None;
    Poll::Ready(outcome(result).map(drop))
}

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
        Ok(Self { runtime, waiting: RefCell::new(None), socket, local })
    }

    fn accept_now(&self) -> rustix::io::Result<io::Result<(RingStream, Peer)>> {
        let (socket, peer) = rustix::net::acceptfrom_with(&self.socket, SocketFlags::CLOEXEC | SocketFlags::NONBLOCK)?;
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
                    Err(Errno::AGAIN) => {
                        let mut waiting = self.waiting.borrow_mut();
                        ready!(poll_ready(&self.runtime, &mut waiting, self.socket.as_fd(), PollFlags::IN, context))?;
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

/// Of a local socket.
const NO_ADDRESS: SocketAddr = SocketAddr::new(IpAddr::V4(Ipv4Addr::UNSPECIFIED), 0);

/// A connection of one shard.
pub struct RingStream {
    runtime: RingRuntime,
    /// Before the socket, so that it is taken back first.
    reading: Option<Operation>,
    writing: Option<Operation>,
    socket: OwnedFd,
    /// The last read took all that was there.
    drained: bool,
    local: OnceCell<SocketAddr>,
}

impl RingStream {
    pub(super) fn new(runtime: RingRuntime, socket: OwnedFd, local: Option<SocketAddr>) -> Self {
        let local = local.map(OnceCell::from).unwrap_or_default();
        Self { runtime, reading: None, writing: None, socket, drained: true, local }
    }

    fn poll_read(&mut self, buffer: &mut Vec<u8>, max: usize, context: &mut Context<'_>) -> Poll<io::Result<usize>> {
        loop {
            if self.drained {
                let socket = self.socket.as_fd();
                ready!(poll_ready(&self.runtime, &mut self.reading, socket, PollFlags::IN, context))?;
                self.drained = false;
            }
            let mut scratch = self.runtime.scratch().borrow_mut();
            let room = max.min(scratch.len());
            match recv(&self.socket, &mut scratch[..room], RecvFlags::empty()) {
                Ok((got, _)) => {
                    self.drained = got < room;
                    buffer.extend_from_slice(&scratch[..got]);
                    return Poll::Ready(Ok(got));
                }
                Err(Errno::AGAIN) => self.drained = true,
                Err(Errno::INTR) => {}
                Err(error) => return Poll::Ready(Err(error.into())),
            }
        }
    }

    fn poll_writable(&mut self, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        poll_ready(&self.runtime, &mut self.writing, self.socket.as_fd(), PollFlags::OUT, context)
    }
}

impl AsFd for RingStream {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.socket.as_fd()
    }
}

impl Stream for RingStream {
    async fn read(&mut self, buffer: &mut Vec<u8>, max: usize) -> io::Result<usize> {
        poll_fn(|context| self.poll_read(buffer, max, context)).await
    }

    async fn write_all(&mut self, bytes: &[u8]) -> io::Result<()> {
        let mut left = bytes;
        while !left.is_empty() {
            match send(&self.socket, left, SendFlags::NOSIGNAL) {
                Ok(0) => return Err(io::ErrorKind::WriteZero.into()),
                Ok(sent) => left = &left[sent..],
                Err(Errno::AGAIN) => poll_fn(|context| self.poll_writable(context)).await?,
                Err(Errno::INTR) => {}
                Err(error) => return Err(error.into()),
            }
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
    let mut connection = RingStream::new(runtime.clone(), socket, None);
    let done = poll_fn(|context| connection.poll_writable(context));
    runtime.timeout(time, done).await.unwrap_or_else(|| Err(io::ErrorKind::TimedOut.into()))?;
    rustix::net::sockopt::socket_error(&connection.socket)??;
    Ok(connection)
}

/// A local socket is connected at once, or its server has too many waiting: then again, until the time is over.
pub(super) async fn connect_unix(runtime: RingRuntime, path: &Path, time: Duration) -> io::Result<RingStream> {
    let trying = async {
        loop {
            match sys::unix_socket(path) {
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => runtime.sleep(UNIX_CONNECT_PAUSE).await,
                other => return other,
            }
        }
    };
    let socket = runtime.timeout(time, trying).await.unwrap_or_else(|| Err(io::ErrorKind::TimedOut.into()))?;
    Ok(RingStream::new(runtime, socket, None))
}
