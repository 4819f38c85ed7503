//! Who is ready to run, and wakes from other threads: a queue of who was woken, and an eventfd that the ring reads.
//!
//! glommio 0.9.0 has a way of its own for wakes from other threads, and a defect with it (`LocalExecutor::run`): when one of
//! them comes before the first task of a turn has run, the turn ends with nothing run, and the loop sleeps with tasks ready.
//! So every task is polled with a waker of this file, which uses glommio's only on the executor's own thread; no queue is
//! `Latency::Matters`; blocking work has its own threads (`blocking.rs`); and the preemption timer is set beyond any server's
//! patience ([`PREEMPT`]). These wakers also count the tasks that are ready, so that the pump (`reactor.rs`) knows whether to
//! wait, and call it after a task has run.

use std::cell::{Cell, RefCell};
use std::future::Future;
use std::io;
use std::mem::ManuallyDrop;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::pin::Pin;
use std::ptr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU8, Ordering};
use std::task::{Context, Poll, Wake, Waker};
use std::time::Duration;

use crossbeam::queue::SegQueue;
use rustix::event::{EventfdFlags, eventfd};

/// After so long glommio would end a turn to look at its rings though tasks are ready. Tasks that compute yield by
/// themselves (`Reactor::yield_now`).
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
    /// Only the executor's own thread touches it.
    state: AtomicU8,
}

/// The task waits.
const IDLE: u8 = 0;
/// It was woken since it last ran, or has not run yet, and is counted.
const READY: u8 = 1;
/// It will not run again.
const OVER: u8 = 2;

/// The executor of this thread.
struct Here {
    /// Tasks that were woken and have not run since.
    ready: Cell<usize>,
    /// The pump's waker, while it is not called.
    pump: RefCell<Option<Waker>>,
    /// The first task has ended, and with it all others.
    over: Cell<bool>,
}

thread_local! {
    static HERE: Here = const {
        Here { ready: Cell::new(0), pump: RefCell::new(None), over: Cell::new(false) }
    };
    /// The address of its bell. By itself, and nothing to drop: wakers are asked for it while the thread's other values go.
    static BELL: Cell<*const Shared> = const { Cell::new(ptr::null()) };
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

/// One turn of the pump, which is called again once a task has run; over when the executor is.
pub(super) fn pumping(waker: &Waker, turn: impl FnOnce()) -> Poll<()> {
    HERE.with(|here| {
        if here.over.get() {
            return Poll::Ready(());
        }
        turn();
        here.pump.replace(Some(waker.clone()));
        Poll::Pending
    })
}

/// Whether some task of this thread's executor has something to do.
pub(super) fn something_is_ready() -> bool {
    HERE.with(|here| here.ready.get() > 0)
}

impl Bell {
    /// The bell of the executor that runs on this thread.
    pub(super) fn new() -> io::Result<Self> {
        // Not O_NONBLOCK: io_uring would give up such a read instead of waiting.
        let event = eventfd(0, EventfdFlags::CLOEXEC)?;
        let shared =
            Arc::new(Shared { event, woken: SegQueue::new(), dropped: SegQueue::new(), rung: AtomicBool::new(false) });
        BELL.set(Arc::as_ptr(&shared));
        HERE.with(|here| {
            here.ready.set(0);
            here.pump.take();
            here.over.set(false);
        });
        Ok(Self { shared })
    }

    /// What is written when somebody rings: 8 bytes to read.
    pub(super) fn eventfd(&self) -> BorrowedFd<'_> {
        self.shared.event.as_fd()
    }

    /// Wakes those who were woken by other threads, after the eventfd was read and is being read again.
    pub(super) fn hear(&self) {
        let shared = &self.shared;
        shared.rung.store(false, Ordering::SeqCst);
        while let Some(woken) = shared.woken.pop() {
            woken.queued.store(false, Ordering::SeqCst);
            woken.wake_here();
        }
        while shared.dropped.pop().is_some() {}
    }

    /// Lets the ring's read of the eventfd end.
    pub(super) fn ring(&self) {
        self.shared.ring();
    }

    /// The task, polled with wakers that any thread may use. It counts as ready until it has run for the first time.
    pub(super) fn answering<F: Future>(self, task: F) -> Answering<F> {
        HERE.with(Here::one_is_ready);
        Answering { bell: self, waker: None, task }
    }

    /// The executor's first task, with which it ends.
    pub(super) async fn answering_until_over<T>(self, first: impl Future<Output = T>) -> T {
        let ended = self.answering(first).await;
        HERE.with(|here| {
            here.over.set(true);
            here.call_pump();
        });
        ended
    }

    fn waker(&self, task: &Waker) -> Arc<TaskWaker> {
        let (task, shared) = (ManuallyDrop::new(task.clone()), self.shared.clone());
        Arc::new(TaskWaker { shared, task, queued: AtomicBool::new(false), state: AtomicU8::new(READY) })
    }
}

impl Here {
    fn one_is_ready(&self) {
        self.ready.set(self.ready.get() + 1);
    }

    fn one_has_had_its_turn(&self) {
        self.ready.set(self.ready.get() - 1);
    }

    fn call_pump(&self) {
        if let Some(pump) = self.pump.take() {
            pump.wake();
        }
    }
}

/// See [`Bell::answering`]. Not an `async fn`: that would keep room for the task twice.
pub(super) struct Answering<F> {
    bell: Bell,
    /// Made at the first poll: glommio's own is the same at all of them.
    waker: Option<(Waker, Arc<TaskWaker>)>,
    task: F,
}

impl<F: Future> Future for Answering<F> {
    type Output = F::Output;

    fn poll(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<F::Output> {
        // SAFETY: `task` is only pinned again below, and never moved; the other fields are not pinned.
        let this = unsafe { self.get_unchecked_mut() };
        let (waker, own) = this.waker.get_or_insert_with(|| {
            let own = this.bell.waker(context.waker());
            (Waker::from(own.clone()), own)
        });
        if own.set(IDLE) == READY {
            HERE.with(|here| {
                here.one_has_had_its_turn();
                here.call_pump();
            });
        }
        // SAFETY: it lives in `self`, which is pinned.
        let answer = unsafe { Pin::new_unchecked(&mut this.task) }.poll(&mut Context::from_waker(waker));
        if answer.is_ready() {
            own.end();
        }
        answer
    }
}

impl<F> Drop for Answering<F> {
    fn drop(&mut self) {
        match &self.waker {
            Some((_, own)) => own.end(),
            None => HERE.with(Here::one_has_had_its_turn),
        }
    }
}

impl Shared {
    /// Whether this is the executor's own thread.
    fn is_here(&self) -> bool {
        ptr::eq(BELL.get(), self)
    }

    fn ring(&self) {
        if !self.rung.swap(true, Ordering::SeqCst) {
            // It could only fail or wait with 2^64 rings unheard.
            let _ = rustix::io::write(&self.event, &1_u64.to_ne_bytes());
        }
    }
}

impl TaskWaker {
    /// On the executor's own thread.
    fn wake_here(&self) {
        if self.state.load(Ordering::Relaxed) == IDLE {
            self.state.store(READY, Ordering::Relaxed);
            HERE.with(Here::one_is_ready);
            self.task.wake_by_ref();
        }
    }

    /// As well; what it was.
    fn set(&self, state: u8) -> u8 {
        let was = self.state.load(Ordering::Relaxed);
        self.state.store(state, Ordering::Relaxed);
        was
    }

    /// As well: the task runs no more.
    fn end(&self) {
        if self.set(OVER) == READY {
            HERE.with(Here::one_has_had_its_turn);
        }
    }
}

impl Wake for TaskWaker {
    fn wake(self: Arc<Self>) {
        self.wake_by_ref();
    }

    fn wake_by_ref(self: &Arc<Self>) {
        if self.shared.is_here() {
            self.wake_here();
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
