//! Waking an executor's tasks from other threads: a queue of who was woken, and an eventfd that the main ring reads.
//!
//! glommio 0.9.0 has a way of its own, and a defect with it (`LocalExecutor::run`): such a wake may complete in the latency
//! ring, and when anything lies there before the first task of a turn has run, the turn ends with nothing run. The loop takes
//! that for "nothing to do" and sleeps, with tasks ready, until the next event comes, which may be a client's timeout of
//! five minutes. So nothing of ours may ever reach that ring: every task is polled with a waker of this file, which uses
//! glommio's only on the executor's own thread; no queue is `Latency::Matters`; blocking work has its own threads
//! (`blocking.rs`); and the preemption timer, which sits there too, is set beyond any server's patience ([`PREEMPT`]).

use std::cell::{Cell, RefCell};
use std::future::Future;
use std::io;
use std::mem::ManuallyDrop;
use std::os::fd::{AsFd, IntoRawFd, OwnedFd};
use std::pin::Pin;
use std::ptr;
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::task::{Context, Poll, Wake, Waker};
use std::time::Duration;

use crossbeam::queue::SegQueue;
use glommio::io::BufferedFile;
use rustix::event::{EventfdFlags, eventfd};

use super::writes::Writes;

/// After so long glommio would end a turn to look at the rings though tasks are ready. Tasks that compute yield by
/// themselves (`timer.rs`, `Turns`).
pub(super) const PREEMPT: Duration = Duration::from_secs(3600);

/// One executor's bell. Cheap to clone.
#[derive(Clone)]
pub(super) struct Bell {
    shared: Arc<Shared>,
}

struct Shared {
    event: OwnedFd,
    /// Tasks woken by other threads since the last look.
    woken: SegQueue<Arc<TaskWaker>>,
    /// glommio's wakers whose last owner was another thread: its reference counts belong to this one.
    dropped: SegQueue<Waker>,
    /// The eventfd has been written since the last look: once is enough for all that lies in the queues.
    rung: AtomicBool,
}

struct TaskWaker {
    shared: Arc<Shared>,
    /// glommio's waker of the task; only the executor's own thread touches it.
    task: ManuallyDrop<Waker>,
    /// It lies in [`Shared::woken`] already.
    queued: AtomicBool,
}

thread_local! {
    /// Whose executor runs on this thread: its bell's address.
    static HERE: Cell<*const Shared> = const { Cell::new(ptr::null()) };
    /// Bells that are not rung before [`wake_together`] has ended.
    static HELD: RefCell<Option<Vec<Arc<Shared>>>> = const { RefCell::new(None) };
}

/// Does `work`, in which tasks of executors on other threads are woken: each executor hears of all its own at once, at the
/// end. One that shares its processor with this thread would otherwise take its turn for the first of them alone.
pub fn wake_together(work: impl FnOnce()) {
    HELD.set(Some(Vec::new()));
    work();
    HELD.take().iter().flatten().for_each(|shared| shared.ring());
}

impl Bell {
    /// The bell of the executor that runs on this thread; its task listens as long as the executor runs.
    pub(super) fn start() -> io::Result<(Self, Rc<Writes>)> {
        // Not O_NONBLOCK: io_uring would give up such a read instead of waiting.
        let event = eventfd(0, EventfdFlags::CLOEXEC)?;
        let reading_end = event.try_clone()?;
        let writes = Rc::new(Writes::new(event.as_fd())?);
        let shared =
            Arc::new(Shared { event, woken: SegQueue::new(), dropped: SegQueue::new(), rung: AtomicBool::new(false) });
        HERE.set(Arc::as_ptr(&shared));
        let (listening, landing) = (shared.clone(), writes.clone());
        glommio::spawn_local(async move { listening.listen(reading_end, &landing).await }).detach();
        Ok((Self { shared }, writes))
    }

    /// The task, polled with wakers that any thread may use.
    pub(super) fn answering<F: Future>(self, task: F) -> Answering<F> {
        Answering { bell: self, waker: None, task }
    }

    fn waker(&self, task: &Waker) -> Waker {
        let task = ManuallyDrop::new(task.clone());
        Waker::from(Arc::new(TaskWaker { shared: self.shared.clone(), task, queued: AtomicBool::new(false) }))
    }
}

/// See [`Bell::answering`]. Not an `async fn`: that would keep room for the task twice.
pub(super) struct Answering<F> {
    bell: Bell,
    /// Made at the first poll: glommio's own is the same at all of them.
    waker: Option<Waker>,
    task: F,
}

impl<F: Future> Future for Answering<F> {
    type Output = F::Output;

    fn poll(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<F::Output> {
        // SAFETY: `task` is only pinned again below, and never moved; the other fields are not pinned.
        let this = unsafe { self.get_unchecked_mut() };
        let waker = this.waker.get_or_insert_with(|| this.bell.waker(context.waker()));
        // SAFETY: it lives in `self`, which is pinned.
        unsafe { Pin::new_unchecked(&mut this.task) }.poll(&mut Context::from_waker(waker))
    }
}

impl Shared {
    /// Whether this is the executor's own thread.
    fn is_here(&self) -> bool {
        ptr::eq(HERE.get(), self)
    }

    async fn listen(&self, event: OwnedFd, writes: &Writes) {
        use std::os::fd::FromRawFd;
        // SAFETY: the descriptor is given up here and owned by the file from now on.
        let file = unsafe { BufferedFile::from_raw_fd(event.into_raw_fd()) };
        loop {
            if let Err(error) = file.read_at(0, size_of::<u64>()).await.map_err(super::plain) {
                // A signal may end the wait; nothing else can go wrong with an eventfd that we hold ourselves.
                assert_eq!(error.kind(), io::ErrorKind::Interrupted, "the bell is broken: {error}");
            }
            // First this, then the look: who comes later rings again.
            self.rung.store(false, Ordering::SeqCst);
            while let Some(woken) = self.woken.pop() {
                woken.queued.store(false, Ordering::SeqCst);
                woken.task.wake_by_ref();
            }
            while self.dropped.pop().is_some() {}
            writes.tell();
        }
    }

    fn ring(&self) {
        if !self.rung.swap(true, Ordering::SeqCst) {
            // It could only fail or wait with 2^64 rings unheard.
            let _ = rustix::io::write(&self.event, &1_u64.to_ne_bytes());
        }
    }
}

impl Wake for TaskWaker {
    fn wake(self: Arc<Self>) {
        self.wake_by_ref();
    }

    fn wake_by_ref(self: &Arc<Self>) {
        if self.shared.is_here() {
            self.task.wake_by_ref();
        } else if !self.queued.swap(true, Ordering::SeqCst) {
            self.shared.woken.push(self.clone());
            let held = HELD.with_borrow_mut(|held| match held {
                None => false,
                Some(held) => {
                    if !held.iter().any(|other| Arc::ptr_eq(other, &self.shared)) {
                        held.push(self.shared.clone());
                    }
                    true
                }
            });
            if !held {
                self.shared.ring();
            }
        }
    }
}

impl Drop for TaskWaker {
    fn drop(&mut self) {
        // SAFETY: nobody uses the field after this.
        let task = unsafe { ManuallyDrop::take(&mut self.task) };
        if !self.shared.is_here() {
            self.shared.dropped.push(task);
            self.shared.ring();
        }
    }
}
