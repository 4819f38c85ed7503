//! A connection of the page, in clear or encrypted, as the library for HTTP reads and writes it.

use std::future::Future;
use std::io;
use std::net::SocketAddr;
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use ringpost_io::Stream;
use ringpost_tls::Channel;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, ReadBuf};
use tokio::net::TcpStream;
use tokio::sync::OwnedSemaphorePermit;
use tokio::time::{Instant, Sleep, sleep};

use crate::limits::{PAGE_IDLE, PAGE_OUT_BYTES, PAGE_READ_BYTES};

/// A connection before its handshake.
pub struct Bare(pub TcpStream);

impl Stream for Bare {
    async fn read(&mut self, buffer: &mut Vec<u8>, max: usize) -> io::Result<usize> {
        (&mut self.0).take(max as u64).read_buf(buffer).await
    }

    async fn write_all(&mut self, bytes: &[u8]) -> io::Result<()> {
        tokio::io::AsyncWriteExt::write_all(&mut self.0, bytes).await
    }

    fn local_addr(&self) -> SocketAddr {
        self.0.local_addr().unwrap_or_else(|_| SocketAddr::from(([0, 0, 0, 0], 0)))
    }
}

/// A connection that HTTP is spoken on.
pub struct Connection {
    stream: TcpStream,
    secure: Option<Box<Secure>>,
    /// When it has been silent for too long.
    silent: Pin<Box<Sleep>>,
    /// Its place among all; given up with it.
    _place: OwnedSemaphorePermit,
}

struct Secure {
    channel: Channel,
    /// What has come and is not read yet.
    plain: Vec<u8>,
    read: usize,
    /// What is to be sent, and how much of it has been.
    out: Vec<u8>,
    sent: usize,
    said_goodbye: bool,
}

impl Connection {
    /// In clear.
    pub fn plain(stream: TcpStream, place: OwnedSemaphorePermit) -> Self {
        Self { stream, secure: None, silent: Box::pin(sleep(PAGE_IDLE)), _place: place }
    }

    /// Encrypted, after its handshake; `plain` has come behind it.
    pub fn encrypted(stream: TcpStream, channel: Channel, plain: Vec<u8>, place: OwnedSemaphorePermit) -> Self {
        let secure = Secure { channel, plain, read: 0, out: Vec::new(), sent: 0, said_goodbye: false };
        Self { stream, secure: Some(Box::new(secure)), silent: Box::pin(sleep(PAGE_IDLE)), _place: place }
    }

    /// Whether it is encrypted.
    pub fn is_encrypted(&self) -> bool {
        self.secure.is_some()
    }

    /// What has come of an attempt to read or write; an error where it has been silent for too long.
    fn watched<T>(&mut self, outcome: Poll<io::Result<T>>, context: &mut Context<'_>) -> Poll<io::Result<T>> {
        if outcome.is_ready() {
            self.silent.as_mut().reset(Instant::now() + PAGE_IDLE);
            return outcome;
        }
        ready!(self.silent.as_mut().poll(context));
        Poll::Ready(Err(io::ErrorKind::TimedOut.into()))
    }

    fn read_now(&mut self, context: &mut Context<'_>, buffer: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let Self { stream, secure, .. } = self;
        let Some(secure) = secure else { return Pin::new(stream).poll_read(context, buffer) };
        let mut room = [0; PAGE_READ_BYTES];
        while secure.plain.is_empty() && !secure.channel.peer_has_closed() {
            let mut raw = ReadBuf::new(&mut room);
            ready!(Pin::new(&mut *stream).poll_read(context, &mut raw))?;
            if raw.filled().is_empty() {
                return Poll::Ready(Ok(()));
            }
            let taken = secure.channel.receive(raw.filled(), &mut secure.plain);
            // An answer of the protocol's own, or an alert; what does not leave now does with what is written next.
            let _ = secure.drain(stream, context)?;
            taken.map_err(|wrong| io::Error::new(io::ErrorKind::InvalidData, wrong.to_string()))?;
        }
        secure.give(buffer);
        Poll::Ready(Ok(()))
    }

    fn write_now(&mut self, context: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        let Self { stream, secure, .. } = self;
        let Some(secure) = secure else { return Pin::new(stream).poll_write(context, bytes) };
        if secure.out.len() - secure.sent >= PAGE_OUT_BYTES {
            ready!(secure.drain(stream, context))?;
        }
        let count = bytes.len().min(PAGE_OUT_BYTES);
        secure.channel.send(&bytes[..count], &mut secure.out);
        // What does not leave now does when it is flushed.
        let _ = secure.drain(stream, context)?;
        Poll::Ready(Ok(count))
    }

    fn flush_now(&mut self, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        let Self { stream, secure, .. } = self;
        if let Some(secure) = secure {
            ready!(secure.drain(stream, context))?;
        }
        Pin::new(stream).poll_flush(context)
    }
}

impl Secure {
    /// Gives the kernel what waits for it.
    fn drain(&mut self, stream: &mut TcpStream, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.channel.take_output(&mut self.out);
        while self.sent < self.out.len() {
            let count = ready!(Pin::new(&mut *stream).poll_write(context, &self.out[self.sent..]))?;
            if count == 0 {
                return Poll::Ready(Err(io::ErrorKind::WriteZero.into()));
            }
            self.sent += count;
        }
        self.out.clear();
        self.sent = 0;
        Poll::Ready(Ok(()))
    }

    fn give(&mut self, buffer: &mut ReadBuf<'_>) {
        let count = buffer.remaining().min(self.plain.len() - self.read);
        buffer.put_slice(&self.plain[self.read..self.read + count]);
        self.read += count;
        if self.read == self.plain.len() {
            self.plain.clear();
            self.read = 0;
        }
    }
}

impl AsyncRead for Connection {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let outcome = self.read_now(context, buffer);
        self.watched(outcome, context)
    }
}

impl AsyncWrite for Connection {
    fn poll_write(mut self: Pin<&mut Self>, context: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        let outcome = self.write_now(context, bytes);
        self.watched(outcome, context)
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        match self.flush_now(context) {
            // What is flushed again and again is no sign of life.
            Poll::Ready(outcome) => Poll::Ready(outcome),
            Poll::Pending => self.watched(Poll::Pending, context),
        }
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        let Self { stream, secure, .. } = &mut *self;
        if let Some(secure) = secure {
            if !std::mem::replace(&mut secure.said_goodbye, true) {
                secure.channel.close(&mut secure.out);
            }
            ready!(secure.drain(stream, context))?;
        }
        Pin::new(stream).poll_shutdown(context)
    }
}
