//! The real world: glommio executors over io_uring, one pinned thread per shard. Nothing outside this folder names glommio.
//!
//! `executor.rs` starts the threads, `reactor.rs` is the ring on which `net.rs` has the sockets and `disk.rs` the files,
//! `blocking.rs` what has no place on it, `timer.rs` time, `mesh.rs` the letters between shards, `bell.rs` the wakes. Tasks
//! are only ever detached: a cancelled one leaks all of its memory in glommio 0.9.

mod bell;
mod blocking;
mod directories;
mod disk;
mod executor;
mod mesh;
mod net;
mod reactor;
#[cfg(test)]
mod tests;
mod timer;

use std::cell::RefCell;
use std::future::Future;
use std::io;
use std::net::{IpAddr, SocketAddr};
use std::os::fd::OwnedFd;
use std::path::Path;
use std::pin::Pin;
use std::rc::Rc;
use std::time::{Duration, Instant, SystemTime};

use blocking::Blocking;
use glommio::{GlommioError, Latency, Shares, TaskQueueHandle};
use reactor::Reactor;

use crate::limits::READ_BYTES_MAX;
use crate::{Class, Runtime};

pub use bell::wake_together;
pub use disk::{RingDisk, RingFile, RingWriter};
pub use executor::{
    Options, ShardThread, StartError, available_cpus, io_memory_bytes, run_shards, run_single, warm_up,
};
pub use mesh::RingMesh;
pub use net::{RingListener, RingStream};

/// One executor's runtime. Lives on its thread.
#[derive(Clone)]
pub struct RingRuntime {
    inner: Rc<Inner>,
}

struct Inner {
    commit: TaskQueueHandle,
    session: TaskQueueHandle,
    delivery: TaskQueueHandle,
    background: TaskQueueHandle,
    scratch: RefCell<Vec<u8>>,
    entropy: RefCell<Entropy>,
    disk: RingDisk,
    reactor: Rc<Reactor>,
}

impl RingRuntime {
    /// Must be called on a running executor: it makes the task queues.
    fn new(reactor: Rc<Reactor>, blocking: Blocking) -> Self {
        // Not even commits are `Latency::Matters`: `bell.rs` says why.
        let queue = |shares, name: &str| {
            glommio::executor().create_task_queue(Shares::Static(shares), Latency::NotImportant, name)
        };
        let inner = Inner {
            commit: queue(400, "commit"),
            session: queue(300, "session"),
            delivery: queue(200, "delivery"),
            background: queue(100, "background"),
            scratch: RefCell::new(vec![0; READ_BYTES_MAX]),
            entropy: RefCell::new(Entropy::new()),
            disk: RingDisk::new(blocking, reactor.clone()),
            reactor,
        };
        Self { inner: Rc::new(inner) }
    }

    /// Listens with a socket that was bound and set listening elsewhere, and makes it non-blocking. A TCP socket must be
    /// this shard's own (SO_REUSEPORT); a local one, of which there can be no more than one, is shared by the shards.
    pub fn listener(&self, socket: OwnedFd) -> io::Result<RingListener> {
        RingListener::new(self.clone(), socket)
    }

    /// Takes over a connected TCP socket.
    pub fn stream(&self, socket: OwnedFd) -> RingStream {
        RingStream::new(self.clone(), socket, None)
    }

    fn reactor(&self) -> &Rc<Reactor> {
        &self.inner.reactor
    }

    fn scratch(&self) -> &RefCell<Vec<u8>> {
        &self.inner.scratch
    }

    /// Called between the system calls of connections: when a durable write has ended, who waits for it runs next.
    async fn mind_writes(&self) {
        if self.reactor().has_write_landed() {
            glommio::executor().yield_task_queue_now().await;
        }
    }
}

impl Runtime for RingRuntime {
    type Listener = RingListener;
    type Stream = RingStream;
    type Disk = RingDisk;

    fn now(&self) -> Instant {
        Instant::now()
    }

    fn unix_ms(&self) -> u64 {
        SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).map_or(0, |since| since.as_millis() as u64)
    }

    fn random_u64(&self) -> u64 {
        self.inner.entropy.borrow_mut().next()
    }

    fn spawn(&self, class: Class, task: impl Future<Output = ()> + 'static) {
        let queue = match class {
            Class::Commit => self.inner.commit,
            Class::Session => self.inner.session,
            Class::Delivery => self.inner.delivery,
            Class::Background => self.inner.background,
        };
        // One type for all of them: an executor's code for tasks is long, and would be made for each type anew.
        let task: Pin<Box<dyn Future<Output = ()>>> = Box::pin(task);
        let task = self.reactor().bell().clone().answering(task);
        glommio::spawn_local_into(task, queue).expect("the queues live as long as the executor").detach();
    }

    async fn sleep(&self, time: Duration) {
        timer::sleep(&self.reactor().timers, time).await;
    }

    async fn timeout<T>(&self, time: Duration, future: impl Future<Output = T>) -> Option<T> {
        timer::timeout(&self.reactor().timers, time, future).await
    }

    async fn yield_now(&self) {
        self.reactor().yield_now().await;
    }

    async fn connect(&self, to: SocketAddr, source: Option<IpAddr>, time: Duration) -> io::Result<RingStream> {
        net::connect(self.clone(), to, source, time).await
    }

    async fn connect_unix(&self, path: &Path, time: Duration) -> io::Result<RingStream> {
        net::connect_unix(self.clone(), path, time).await
    }

    fn disk(&self) -> &RingDisk {
        &self.inner.disk
    }
}

/// The kernel's random bytes, fetched some at a time.
struct Entropy {
    words: [u64; 32],
    left: usize,
}

impl Entropy {
    fn new() -> Self {
        Self { words: [0; 32], left: 0 }
    }

    fn next(&mut self) -> u64 {
        if self.left == 0 {
            let bytes = std::mem::size_of_val(&self.words);
            // SAFETY: the pointer and length are those of our own array, for which any bytes are valid.
            let got = unsafe { libc::getrandom(self.words.as_mut_ptr().cast(), bytes, 0) };
            // Up to 256 bytes are never cut short, and cannot be interrupted once the pool is ready: getrandom(2).
            assert_eq!(got, bytes as isize, "the kernel has no random bytes");
            self.left = self.words.len();
        }
        self.left -= 1;
        self.words[self.left]
    }
}

/// Our callers know nothing of glommio: they get the system's error, or its text.
fn plain<T>(error: GlommioError<T>) -> io::Error {
    match error {
        GlommioError::IoError(error) => error,
        GlommioError::EnhancedIoError { source, .. } => source,
        other => io::Error::other(other.to_string()),
    }
}
