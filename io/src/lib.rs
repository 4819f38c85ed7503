//! Executor, sockets, disk and time, as traits: the facade that everything in `shards/` is generic over.
//!
//! Two worlds implement it: `ring` (glommio, io_uring; the only place that names glommio) and `sim`
//! (virtual clock, in-memory network, a disk that fails on purpose). It knows no mail.
//!
//! A task ends because it is told to: nothing here cancels one (glommio leaks cancelled tasks).

use std::cell::Cell;
use std::future::Future;
use std::io;
use std::net::{IpAddr, SocketAddr};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

pub mod limits;
mod mailbox;
pub mod ring;
mod signal;
pub mod sim;
pub mod sys;

pub use limits::BLOCK_BYTES;
pub use mailbox::{Mailbox, Sender};
pub use signal::Signal;
pub use sys::Credentials;

/// What a task is for; decides its share of the executor.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Class {
    /// Making batches durable.
    Commit,
    /// A client's session.
    Session,
    /// A delivery.
    Delivery,
    /// Checkpoints, compaction, export.
    Background,
}

/// One executor with its clock, sockets and disk. Cheap to clone; never leaves its thread.
#[allow(async_fn_in_trait)]
pub trait Runtime: Clone + 'static {
    /// Accepts connections.
    type Listener: Listener<Stream = Self::Stream>;
    /// A connection.
    type Stream: Stream;
    /// The disk.
    type Disk: Disk;

    /// Monotonic time (virtual in the simulation).
    fn now(&self) -> Instant;
    /// Milliseconds since 1970-01-01 UTC.
    fn unix_ms(&self) -> u64;
    /// Randomness (seeded in the simulation).
    fn random_u64(&self) -> u64;
    /// Runs a task to its end, detached.
    fn spawn(&self, class: Class, task: impl Future<Output = ()> + 'static);
    /// Waits.
    async fn sleep(&self, time: Duration);
    /// Waits for `future`, at most `time`; `None` when that passed.
    ///
    /// `future` is asked first: one that is ready at once costs no timer, so hot paths need not look for themselves.
    async fn timeout<T>(&self, time: Duration, future: impl Future<Output = T>) -> Option<T>;
    /// Lets other tasks run if this one has had its turn.
    async fn yield_now(&self);
    /// Connects, from `source` if given, within `time` (`ErrorKind::TimedOut`).
    async fn connect(&self, to: SocketAddr, source: Option<IpAddr>, time: Duration) -> io::Result<Self::Stream>;
    /// Connects to a local socket by its path, within `time`.
    async fn connect_unix(&self, path: &Path, time: Duration) -> io::Result<Self::Stream>;
    /// The disk.
    fn disk(&self) -> &Self::Disk;
}

/// Who is at the other end of a connection that was accepted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Peer {
    /// By TCP: an address, which may be anybody's.
    Address(SocketAddr),
    /// By a local socket: a process of this machine, for whose user the kernel vouches.
    Process(Credentials),
}

impl Peer {
    /// The address, if it came by TCP.
    pub fn address(self) -> Option<SocketAddr> {
        match self {
            Self::Address(address) => Some(address),
            Self::Process(_) => None,
        }
    }
}

/// A listening socket of one shard, or a local socket that the shards share.
#[allow(async_fn_in_trait)]
pub trait Listener: 'static {
    /// See [`Stream`].
    type Stream: Stream;
    /// The next connection and its peer.
    async fn accept(&self) -> io::Result<(Self::Stream, Peer)>;
    /// Where it listens; the unspecified address and port 0 for a local socket, which has none.
    fn local_addr(&self) -> SocketAddr;
}

/// A connection, by TCP or a local socket. Dropping it closes it.
#[allow(async_fn_in_trait)]
pub trait Stream: 'static {
    /// Waits for bytes and appends at most `max` of them to `buffer` (which is not grown before they are there, so that
    /// an idle connection pins no memory). `Ok(0)`: the peer has closed its side.
    async fn read(&mut self, buffer: &mut Vec<u8>, max: usize) -> io::Result<usize>;
    /// Writes all of it.
    async fn write_all(&mut self, bytes: &[u8]) -> io::Result<()>;
    /// Our end's address; the unspecified one and port 0 for a local socket, which has none.
    fn local_addr(&self) -> SocketAddr;
}

/// The files below one directory tree. Paths are absolute or relative to the process.
#[allow(async_fn_in_trait)]
pub trait Disk: Clone + 'static {
    /// A file of fixed size.
    type File: File;
    /// A file that is being made.
    type Writer: Writer;
    /// Creates a file of `bytes` zeros. `Prewritten`: every block is written and synced before it returns (slow once, then
    /// overwrites need no metadata); `Allocated`: space is reserved only. The directory entry is durable on return.
    async fn create(&self, path: &Path, bytes: u64, how: Create<'_>) -> io::Result<Self::File>;
    /// Opens an existing file for [`File::read`] and [`File::write_durable`].
    async fn open(&self, path: &Path) -> io::Result<Self::File>;
    /// Names and sizes in a directory, sorted by name; empty if it does not exist.
    async fn list(&self, dir: &Path) -> io::Result<Vec<(String, u64)>>;
    /// Makes a directory and its parents.
    async fn make_dir(&self, dir: &Path) -> io::Result<()>;
    /// Makes a directory with these directories in it, and its parents. All are durable on return, also those that were
    /// there before: who made them may have had no time for that.
    async fn make_tree(&self, dir: &Path, parts: &[&'static str]) -> io::Result<()> {
        for part in parts {
            self.make_dir(&dir.join(part)).await?;
        }
        Ok(())
    }
    /// Removes a file.
    async fn remove(&self, path: &Path) -> io::Result<()>;
    /// Bytes free for this process on the file system of `dir`.
    async fn free_bytes(&self, dir: &Path) -> io::Result<u64>;
    /// A whole small file.
    async fn read_whole(&self, path: &Path) -> io::Result<Vec<u8>>;
    /// Creates (or empties) `temporary` for a file that is written once, from front to back.
    async fn writer(&self, temporary: &Path) -> io::Result<Self::Writer>;
    /// A whole small file: what [`Disk::writer`], [`Writer::append`] and [`Writer::publish`] do, in one trip to the disk.
    /// After an error no more than the temporary file is left, to be overwritten.
    async fn publish(&self, temporary: &Path, path: &Path, bytes: Vec<u8>) -> io::Result<()> {
        let mut writer = self.writer(temporary).await?;
        match writer.append(bytes).await {
            Ok(()) => writer.publish(path).await,
            Err(error) => {
                writer.discard().await;
                Err(error)
            }
        }
    }
    /// [`Disk::make_tree`] and [`Disk::publish`] of a file into that tree, with as few waits for the disk as both together need.
    async fn publish_in_tree(&self, tree: Tree<'_>, temporary: &Path, path: &Path, bytes: Vec<u8>) -> io::Result<()> {
        self.make_tree(tree.dir, tree.parts).await?;
        self.publish(temporary, path, bytes).await
    }
}

/// A directory and those that are to be in it.
#[derive(Clone, Copy, Debug)]
pub struct Tree<'a> {
    /// The directory.
    pub dir: &'a Path,
    /// Names of directories in it.
    pub parts: &'a [&'static str],
}

/// A file on its way: nobody sees it under its name before it is complete and durable.
#[allow(async_fn_in_trait)]
pub trait Writer: 'static {
    /// Adds bytes at the end; *written*, not durable.
    async fn append(&mut self, bytes: Vec<u8>) -> io::Result<()>;
    /// Makes the content durable, renames it to `path` on the same file system, makes the directory durable.
    async fn publish(self, path: &Path) -> io::Result<()>;
    /// Removes it.
    async fn discard(self);
}

/// How [`Disk::create`] makes a file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Create<'a> {
    /// Every block written once.
    Prewritten,
    /// As well, at half the speed as long as this says that nobody waits for it: what is written to other files meanwhile
    /// waits less.
    PrewrittenInRests(&'a Cell<bool>),
    /// Only reserved.
    Allocated,
}

/// An open file. Several reads and one write may be in flight.
#[allow(async_fn_in_trait)]
pub trait File: 'static {
    /// Writes `bytes` (a multiple of [`BLOCK_BYTES`], at such a multiple); durable on `Ok`. After an error nothing is known.
    async fn write_durable(&self, at: u64, bytes: &[u8]) -> io::Result<()>;
    /// Reads up to `len` bytes at any place; shorter only at the end of the file.
    async fn read(&self, at: u64, len: usize) -> io::Result<Vec<u8>>;
    /// Its size in bytes.
    fn size(&self) -> u64;
    /// Its path.
    fn path(&self) -> PathBuf;
}

/// Messages between shards: one mesh endpoint per shard.
#[allow(async_fn_in_trait)]
pub trait Mesh<M>: Clone + 'static {
    /// This shard's number.
    fn me(&self) -> usize;
    /// How many shards there are.
    fn peers(&self) -> usize;
    /// Sends to another shard or to oneself; waits while the ring is full. An error means that shard is gone.
    async fn send(&self, to: usize, message: M) -> io::Result<()>;
    /// The next message and its sender; `None` once every shard, this one too, has closed and all is read. For one task,
    /// which must not itself wait in [`Mesh::send`]: two shards that do stand still for ever.
    async fn receive(&self) -> Option<(usize, M)>;
    /// This shard sends no more. A shard whose future returns has closed, and reads no more.
    fn close(&self);
}
