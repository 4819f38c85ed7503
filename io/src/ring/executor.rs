//! One thread, one glommio executor and one CPU per shard, from start to join. What keeps io_uring from working here is
//! found out before anything runs, and told with its remedy.

use std::future::Future;
use std::io;
use std::rc::Rc;
use std::sync::Once;
use std::sync::mpsc::{Receiver, Sender, channel};
use std::thread::{Builder, JoinHandle};
use std::time::Duration;

use glommio::{
    BuilderErrorKind, GlommioError, Latency, LocalExecutor, LocalExecutorBuilder, Placement, PoolPlacement,
    ReactorErrorKind, Shares,
};

use super::bell::PREEMPT;
use super::blocking::{self, Blocking};
use super::reactor::Reactor;
use super::{RingMesh, RingRuntime, mesh};
use crate::limits::{IO_MEMORY_BYTES_MAX, IO_MEMORY_BYTES_MIN, MESH_LETTERS_MAX};
use crate::sys;

/// How shards are started.
#[derive(Clone, Debug)]
pub struct Options {
    /// How many; at least one.
    pub shards: usize,
    /// The CPU of each shard. `None`: those this process may use, one each if there are enough and more than one.
    pub cpus: Option<Vec<usize>>,
    /// Bytes registered per executor. `None`: as [`io_memory_bytes`] says for this process's limit.
    pub io_memory_bytes: Option<usize>,
    /// Letters on each ring between two shards, and in a shard's inbox.
    pub mesh_letters_max: usize,
}

impl Default for Options {
    fn default() -> Self {
        Self { shards: 1, cpus: None, io_memory_bytes: None, mesh_letters_max: MESH_LETTERS_MAX }
    }
}

/// Why the executors did not start. The machine's or the administrator's doing, never a peer's.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// RLIMIT_MEMLOCK.
    #[error(
        "this process may lock only {limit_bytes} bytes of memory, io_uring needs {needed_bytes}: raise RLIMIT_MEMLOCK \
         (systemd: LimitMEMLOCK=infinity; shell: ulimit -l)"
    )]
    MemoryLock {
        /// The limit in force, in bytes.
        limit_bytes: u64,
        /// What is needed, in bytes.
        needed_bytes: u64,
    },
    /// A sandbox, a container's seccomp filter or the sysctl forbids io_uring.
    #[error(
        "this process may not use io_uring: {0} (is kernel.io_uring_disabled set, or does a container's seccomp profile \
         forbid io_uring_setup?)"
    )]
    Forbidden(#[source] io::Error),
    /// A kernel without io_uring, or before 5.11.
    #[error("this kernel has no io_uring that we can use: {0} (Linux 5.11 or later is needed)")]
    Unsupported(#[source] io::Error),
    /// Out of descriptors.
    #[error("out of file descriptors: {0} (raise RLIMIT_NOFILE)")]
    Descriptors(#[source] io::Error),
    /// A CPU that does not exist, or that this process may not use.
    #[error("cannot pin a shard to CPU {cpu}: {cause}")]
    Cpu {
        /// Its number.
        cpu: usize,
        /// What the system said.
        cause: String,
    },
    /// More shards than CPUs were given, or none.
    #[error("{shards} shards cannot run on {cpus} given CPUs")]
    Shards {
        /// Shards asked for.
        shards: usize,
        /// CPUs given.
        cpus: usize,
    },
    /// Anything else.
    #[error("cannot start an executor: {0}")]
    Other(#[source] io::Error),
}

/// A running shard.
pub struct ShardThread<T>(JoinHandle<Option<T>>);

impl<T> ShardThread<T> {
    /// Waits until its future has returned; what that gave, or the panic.
    pub fn join(self) -> std::thread::Result<T> {
        self.0.join().map(|result| result.expect("it was told to go"))
    }

    /// Whether it has ended, so that [`ShardThread::join`] would not wait.
    pub fn is_finished(&self) -> bool {
        self.0.is_finished()
    }
}

/// Starts one thread per shard; `prepare` is called here, once for each shard number, and what it gives runs there: it
/// makes the shard's only future, and when that returns the thread ends. All executors are ready before the first future
/// is polled; if one cannot be made, none runs.
pub fn run_shards<M, T, P, S, F>(options: &Options, mut prepare: P) -> Result<Vec<ShardThread<T>>, StartError>
where
    M: Send + 'static,
    T: Send + 'static,
    P: FnMut(usize) -> S,
    S: FnOnce(RingRuntime, RingMesh<M>) -> F + Send + 'static,
    F: Future<Output = T> + 'static,
{
    warm_up()?;
    let cpus = placements(options)?;
    let io_memory_bytes = options.io_memory_bytes.unwrap_or_else(|| {
        io_memory_bytes(options.shards, sys::limit(sys::Resource::MemoryLock).map_or(0, |limit| limit.soft))
    });
    let mut threads = Vec::new();
    for (end, cpu) in mesh::ends(options.shards, options.mesh_letters_max).into_iter().zip(cpus) {
        let number = threads.len();
        let start = prepare(number);
        let blocking = blocking::start().map_err(StartError::Other)?;
        let builder = builder(cpu, io_memory_bytes);
        let (made, was_made) = channel();
        let (go, may_go) = channel();
        let thread = Builder::new().name(format!("shard-{number}")).spawn(move || {
            let (executor, reactor) = make(builder, cpu, &made, &may_go)?;
            let mesh = end.join();
            let result = run(&executor, reactor, blocking.own(), |runtime| start(runtime, mesh.clone()));
            mesh.leave();
            Some(result)
        });
        let thread = thread.map_err(StartError::Other)?;
        // A shard whose `go` is dropped instead of sent ends at once: so the `?` stops those that were made before.
        was_made.recv().map_err(|_| StartError::Other(io::Error::other("the thread died")))??;
        threads.push((thread, go));
    }
    for (_, go) in &threads {
        go.send(()).map_err(|_| StartError::Other(io::Error::other("a shard died")))?;
    }
    Ok(threads.into_iter().map(|(thread, _)| ShardThread(thread)).collect())
}

/// Runs one future on this thread, for tools that read a stopped server's files.
pub fn run_single<T, F: Future<Output = T>>(start: impl FnOnce(RingRuntime) -> F) -> Result<T, StartError> {
    warm_up()?;
    let builder = builder(None, IO_MEMORY_BYTES_MIN);
    let executor = builder.make().map_err(|error| start_error(error, None))?;
    let reactor = Reactor::start().map_err(by_errno)?;
    let blocking = blocking::start().map_err(StartError::Other)?;
    Ok(run(&executor, reactor, blocking.own(), start))
}

fn run<T, F: Future<Output = T>>(
    executor: &LocalExecutor,
    reactor: Rc<Reactor>,
    blocking: Blocking,
    start: impl FnOnce(RingRuntime) -> F,
) -> T {
    executor.run(async move {
        let executor = glommio::executor();
        let queue = executor.create_task_queue(Shares::Static(1000), Latency::NotImportant, "ring");
        executor.spawn_local_into(reactor.clone().pump(), queue).expect("it was just made").detach();
        let bell = reactor.bell().clone();
        bell.answering_until_over(start(RingRuntime::new(reactor, blocking))).await
    })
}

/// Checks that io_uring works here, and lets a throw-away executor do what is slow once per process: the registration for
/// `membarrier`, tens of milliseconds when other threads exist. Call it first in `main`, before any thread and any sandbox.
pub fn warm_up() -> Result<(), StartError> {
    static DONE: Once = Once::new();
    if DONE.is_completed() {
        return Ok(());
    }
    may_use_io_uring()?;
    let builder = builder(None, IO_MEMORY_BYTES_MIN);
    let executor = builder.make().map_err(|error| start_error(error, None))?;
    DONE.call_once(|| executor.run(glommio::timer::sleep(Duration::from_millis(1))));
    Ok(())
}

/// The CPUs that this process may use, ascending. glommio's own list knows nothing of affinity masks and cgroups.
pub fn available_cpus() -> Vec<usize> {
    let Ok(set) = rustix::thread::sched_getaffinity(None) else { return Vec::new() };
    (0..rustix::thread::CpuSet::MAX_CPU).filter(|&cpu| set.is_set(cpu)).collect()
}

/// What each of `shards` executors may register, in bytes, under this limit of locked memory in bytes: each registers the
/// same memory on three rings, and each time it counts.
pub fn io_memory_bytes(shards: usize, limit_bytes: u64) -> usize {
    let share = limit_bytes / (3 * shards.max(1) as u64);
    usize::try_from(share).unwrap_or(usize::MAX).clamp(IO_MEMORY_BYTES_MIN, IO_MEMORY_BYTES_MAX)
}

/// Of glommio's rings, which nobody uses.
const IDLE_RING_DEPTH: usize = 8;

fn placements(options: &Options) -> Result<Vec<Option<usize>>, StartError> {
    let shards = options.shards;
    match &options.cpus {
        Some(cpus) if cpus.len() < shards || shards == 0 => Err(StartError::Shards { shards, cpus: cpus.len() }),
        Some(cpus) => Ok(cpus.iter().take(shards).copied().map(Some).collect()),
        None if shards == 0 => Err(StartError::Shards { shards, cpus: 0 }),
        None => {
            let cpus = available_cpus();
            let pinned = cpus.len() >= shards && cpus.len() > 1;
            Ok((0..shards).map(|shard| pinned.then(|| cpus[shard])).collect())
        }
    }
}

fn builder(cpu: Option<usize>, io_memory_bytes: usize) -> LocalExecutorBuilder {
    LocalExecutorBuilder::new(cpu.map_or(Placement::Unbound, Placement::Fixed))
        .io_memory(io_memory_bytes)
        .ring_depth(IDLE_RING_DEPTH)
        .preempt_timer(PREEMPT)
        // Not used, but it wants one: see `blocking.rs`.
        .blocking_thread_pool_placement(PoolPlacement::Unbound(1))
}

/// On the new thread: makes the executor and its ring, says so, and waits until all the others are made.
fn make(
    builder: LocalExecutorBuilder,
    cpu: Option<usize>,
    made: &Sender<Result<(), StartError>>,
    may_go: &Receiver<()>,
) -> Option<(LocalExecutor, Rc<Reactor>)> {
    let executor = builder.make().map_err(|error| start_error(error, cpu));
    let both = executor.and_then(|executor| Ok((executor, Reactor::start().map_err(by_errno)?)));
    let (both, report) = match both {
        Ok(both) => (Some(both), Ok(())),
        Err(error) => (None, Err(error)),
    };
    made.send(report).ok()?;
    may_go.recv().ok()?;
    both
}

/// Where `struct io_uring_params` tells what the kernel can do, and the bit for: a wait may have an end.
const FEATURES: usize = 5;
const FEATURE_EXT_ARG: u32 = 1 << 8;

/// glommio panics where it cannot even ask what io_uring can do, so we ask for a small ring first.
fn may_use_io_uring() -> Result<(), StartError> {
    // `struct io_uring_params` has 120 bytes, and zeros in it ask for nothing special: io_uring_setup(2).
    let mut parameters = [0_u32; 30];
    // SAFETY: the kernel writes at most the structure's size to the array, which is that large and stays for the call.
    let ring = unsafe { libc::syscall(libc::SYS_io_uring_setup, 2, parameters.as_mut_ptr()) };
    if ring >= 0 {
        // SAFETY: the descriptor was just made and is known to nobody else.
        drop(unsafe { <std::os::fd::OwnedFd as std::os::fd::FromRawFd>::from_raw_fd(ring as i32) });
        return match parameters[FEATURES] & FEATURE_EXT_ARG {
            0 => Err(StartError::Unsupported(io::ErrorKind::Unsupported.into())),
            _ => Ok(()),
        };
    }
    Err(by_errno(io::Error::last_os_error()))
}

fn start_error(error: GlommioError<()>, cpu: Option<usize>) -> StartError {
    match (error, cpu) {
        (GlommioError::ReactorError(ReactorErrorKind::MemLockLimit(limit_bytes, needed_bytes)), _) => {
            StartError::MemoryLock { limit_bytes, needed_bytes }
        }
        (GlommioError::BuilderError(error @ BuilderErrorKind::NonExistentCpus { .. }), Some(cpu)) => {
            StartError::Cpu { cpu, cause: error.to_string() }
        }
        (error, Some(cpu)) if error.raw_os_error() == Some(libc::EINVAL) => {
            StartError::Cpu { cpu, cause: error.to_string() }
        }
        (error, _) => by_errno(super::plain(error)),
    }
}

fn by_errno(error: io::Error) -> StartError {
    match error.raw_os_error() {
        Some(libc::EPERM | libc::EACCES) => StartError::Forbidden(error),
        Some(libc::ENOSYS) => StartError::Unsupported(error),
        Some(libc::EMFILE | libc::ENFILE) => StartError::Descriptors(error),
        Some(libc::ENOMEM) => StartError::MemoryLock {
            limit_bytes: sys::limit(sys::Resource::MemoryLock).map_or(0, |limit| limit.soft),
            needed_bytes: 512 << 10,
        },
        _ => StartError::Other(error),
    }
}
