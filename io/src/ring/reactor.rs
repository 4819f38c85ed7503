//! One ring for all that an executor waits for: sockets, files, the bell, and by its timeout the timers.
//!
//! glommio runs the tasks; its own three rings are idle. It would enter them nine times in a turn that ends in sleep, six
//! times for timers of its own, and look at what has come only when nothing at all is ready (decision 26). Here a task of
//! its own, the *pump*, is called after whatever has run, and when nothing is ready it waits in the kernel, in the call that
//! hands over what the turn has asked for: one call for each turn.
//!
//! A durable write is with the kernel at once, and its end is looked for between the system calls of connections
//! ([`Reactor::has_write_landed`]), so that the next batch goes out before the rest of the turn runs (decision 7).

use std::cell::{Cell, RefCell};
use std::future::{Future, poll_fn};
use std::io;
use std::os::fd::{AsRawFd, BorrowedFd};
use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Poll, Waker};
use std::time::{Duration, Instant};

use glommio::io::DmaBuffer;
use io_uring::types::{Fd, SubmitArgs, Timespec};
use io_uring::{IoUring, opcode, squeue};
use rustix::event::PollFlags;
use slab::Slab;

use super::bell::{self, Bell};
use super::timer::Timers;
use crate::limits::{COMPLETIONS_DEPTH, PREWRITE_BYTES, RING_DEPTH, TURN};

/// What new files are filled with.
static ZEROS: Zeros = Zeros([0; PREWRITE_BYTES]);

/// Aligned as O_DIRECT wants it.
#[repr(align(4096))]
struct Zeros([u8; PREWRITE_BYTES]);

/// Marks the read of the bell's eventfd.
const BELL: u64 = u64::MAX;
/// Marks what needs no answer.
const NOBODY: u64 = u64::MAX - 1;

/// One executor's ring, with what is under way on it. Lives on its thread.
pub(super) struct Reactor {
    ring: RefCell<IoUring>,
    flying: RefCell<Slab<Flying>>,
    /// Durable writes among them.
    writing: Cell<usize>,
    /// Those that have ended, and who waits for them has not run since.
    landed: Cell<usize>,
    pub(super) timers: Timers,
    /// Tasks that compute, and let the others have a turn.
    yielded: RefCell<Vec<Waker>>,
    /// When the kernel was last given what was asked for.
    entered: Cell<Instant>,
    /// Those to be woken after a look at the completions, and those when the round is over; their room is used again.
    waking: RefCell<Vec<Waker>>,
    held: RefCell<Vec<Waker>>,
    /// Somebody has rung in this round.
    was_rung: Cell<bool>,
    bell: Bell,
    /// The kernel reads the bell's eventfd into this.
    rung: Box<Cell<u64>>,
    listening: Cell<bool>,
}

/// The kernel uses the buffer until the operation is over, whoever has stopped waiting for it.
struct Flying {
    kind: Kind,
    buffer: Option<DmaBuffer>,
    /// What the kernel said: what the system call returns, or an error's number below zero.
    result: Option<i32>,
    waker: Option<Waker>,
    forgotten: bool,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Kind {
    /// Waits for a socket, perhaps for ever: taken back when nobody waits for it.
    Readiness,
    /// Of a file, which a commit waits for.
    Write,
    /// Anything else on a file.
    Other,
}

/// Something that was asked of the kernel: its result, and the buffer it was given. Dropped before its end, it is taken back
/// or left to itself.
pub(super) struct Operation {
    reactor: Rc<Reactor>,
    /// `None`: it is over, and was told so.
    key: Option<usize>,
}

impl Reactor {
    /// For the executor on this thread, whose tasks run from now on until [`Bell`] is told that the first has ended.
    pub(super) fn start() -> io::Result<Rc<Self>> {
        let reactor = Rc::new(Self {
            ring: RefCell::new(ring()?),
            flying: RefCell::default(),
            writing: Cell::default(),
            landed: Cell::default(),
            timers: Timers::default(),
            yielded: RefCell::default(),
            entered: Cell::new(Instant::now()),
            waking: RefCell::default(),
            held: RefCell::default(),
            was_rung: Cell::default(),
            bell: Bell::new()?,
            rung: Box::default(),
            listening: Cell::default(),
        });
        reactor.listen();
        Ok(reactor)
    }

    pub(super) fn bell(&self) -> &Bell {
        &self.bell
    }

    /// The task that turns the ring, as long as the executor's tasks run.
    pub(super) async fn pump(self: Rc<Self>) {
        poll_fn(|context| bell::pumping(context.waker(), || self.turn())).await;
    }

    /// Takes in what has ended. When nothing is ready to run any more, a round is over: then the next begins with all whose
    /// turn has come meanwhile, or there is nobody, and it waits. Who waits for a durable write is let in at once. Were it
    /// all of them, those who are woken again and again would always come before a queue that has let others go first:
    /// glommio forgets what a queue has had when it is empty.
    fn turn(&self) {
        loop {
            self.harvest();
            let now = Instant::now();
            if bell::something_is_ready() {
                // What was asked for does not wait for the last of them.
                if now.saturating_duration_since(self.entered.get()) >= TURN {
                    self.enter(0, None);
                    self.harvest();
                }
                return;
            }
            self.timers.expire(now);
            let yielded = std::mem::take(&mut *self.yielded.borrow_mut());
            if !yielded.is_empty() {
                self.enter(0, None);
                self.harvest();
            }
            self.let_in();
            yielded.into_iter().for_each(Waker::wake);
            if !bell::something_is_ready() {
                let until = self.timers.next().map(|due| due.saturating_duration_since(now));
                self.enter(1, until);
            }
        }
    }

    /// Wakes those whose turn has come since the round began.
    fn let_in(&self) {
        let mut held = self.held.take();
        held.drain(..).for_each(Waker::wake);
        self.held.replace(held);
        if self.was_rung.take() {
            self.bell.hear();
        }
    }

    /// Waits, if this turn has been a long one, until all that is ready has run and the ring was looked at.
    pub(super) async fn yield_now(&self) {
        if self.entered.get().elapsed() < TURN {
            return;
        }
        let mut asked = false;
        poll_fn(|context| {
            if std::mem::replace(&mut asked, true) {
                return Poll::Ready(());
            }
            self.yielded.borrow_mut().push(context.waker().clone());
            Poll::Pending
        })
        .await;
    }

    /// Waits until a socket is ready for what these flags of poll(2) say, or broken.
    pub(super) fn readiness(self: &Rc<Self>, socket: BorrowedFd<'_>, flags: PollFlags) -> Operation {
        let entry = opcode::PollAdd::new(Fd(socket.as_raw_fd()), u32::from(flags.bits())).build();
        self.begin(entry, Kind::Readiness, None)
    }

    /// Writes the buffer: one write(2), of which the bytes written are given back. The kernel has it when this returns.
    pub(super) fn write(self: &Rc<Self>, file: BorrowedFd<'_>, buffer: DmaBuffer, at: u64) -> Operation {
        let entry = opcode::Write::new(Fd(file.as_raw_fd()), buffer.as_ptr(), buffer.len() as u32).offset(at).build();
        self.begin_now(entry, Kind::Write, Some(buffer))
    }

    /// Writes zeros, at most [`PREWRITE_BYTES`]: one write(2), without a copy of them.
    pub(super) fn write_zeros(self: &Rc<Self>, file: BorrowedFd<'_>, bytes: usize, at: u64) -> Operation {
        let zeros = &ZEROS.0[..bytes];
        let entry = opcode::Write::new(Fd(file.as_raw_fd()), zeros.as_ptr(), zeros.len() as u32).offset(at).build();
        self.begin_now(entry, Kind::Other, None)
    }

    /// Fills the buffer, or its beginning at the end of the file: one read(2).
    pub(super) fn read(self: &Rc<Self>, file: BorrowedFd<'_>, mut buffer: DmaBuffer, at: u64) -> Operation {
        let (place, room) = (buffer.as_mut_ptr(), buffer.len() as u32);
        let entry = opcode::Read::new(Fd(file.as_raw_fd()), place, room).offset(at).build();
        self.begin_now(entry, Kind::Other, Some(buffer))
    }

    /// Whether a durable write has ended, and who waits for it has not run since.
    pub(super) fn has_write_landed(&self) -> bool {
        if self.writing.get() > 0 {
            self.harvest();
        }
        self.landed.get() > 0
    }

    /// The kernel hears of it at the end of the turn.
    fn begin(self: &Rc<Self>, entry: squeue::Entry, kind: Kind, buffer: Option<DmaBuffer>) -> Operation {
        if kind == Kind::Write {
            self.writing.set(self.writing.get() + 1);
        }
        let flying = Flying { kind, buffer, result: None, waker: None, forgotten: false };
        let key = self.flying.borrow_mut().insert(flying);
        self.give(&entry.user_data(key as u64));
        Operation { reactor: self.clone(), key: Some(key) }
    }

    /// At once: of a file that may be closed, and its number given to another, before the turn ends.
    fn begin_now(self: &Rc<Self>, entry: squeue::Entry, kind: Kind, buffer: Option<DmaBuffer>) -> Operation {
        let operation = self.begin(entry, kind, buffer);
        self.submit();
        operation
    }

    fn give(&self, entry: &squeue::Entry) {
        // SAFETY: what the entry points to lies in `flying` until the kernel has said that it is done with it, or is static,
        // or is `rung`; all outlive the ring (`drop`).
        while unsafe { self.ring.borrow_mut().submission().push(entry) }.is_err() {
            self.submit();
        }
    }

    /// Hands over all that was asked for.
    fn submit(&self) {
        self.enter(0, None);
        while !self.ring.borrow_mut().submission().is_empty() {
            // The kernel may have wanted room for completions.
            self.harvest();
            self.enter(0, None);
        }
    }

    /// io_uring_enter(2): hands over what was asked for, and waits for `want` completions, at most so long. Short of memory, or
    /// of room for completions that the kernel has kept, it does less: neither lasts.
    fn enter(&self, want: usize, time: Option<Duration>) {
        let time = time.map(Timespec::from);
        let mut arguments = SubmitArgs::new();
        if let Some(time) = &time {
            arguments = arguments.timespec(time);
        }
        let entered = self.ring.borrow().submitter().submit_with_args(want, &arguments);
        match entered.map_err(|error| error.raw_os_error()) {
            Ok(_) | Err(Some(libc::ETIME | libc::EINTR | libc::EAGAIN | libc::EBUSY)) => {}
            Err(_) => panic!("the ring is broken: {}", io::Error::last_os_error()),
        }
        self.entered.set(Instant::now());
    }

    /// Takes in what has ended. Who waits for a durable write is woken, all others when the round is over.
    fn harvest(&self) {
        if !self.is_anything_there() {
            return;
        }
        // The wakers are called when nothing is borrowed: whatever ends with one may ask for something here.
        let mut waking = self.waking.take();
        let mut rung = false;
        {
            let mut ring = self.ring.borrow_mut();
            let mut flying = self.flying.borrow_mut();
            for entry in ring.completion() {
                match entry.user_data() {
                    BELL => {
                        self.listening.set(false);
                        rung = true;
                        // A signal may end the wait, or a moment without memory; then it begins again, as if somebody had rung.
                        let result = entry.result();
                        let passing = [-libc::EINTR, -libc::ENOMEM, -libc::EAGAIN];
                        assert!(result == 8 || passing.contains(&result), "the bell is broken: {result}");
                    }
                    NOBODY => {}
                    key => {
                        let (kind, waker) = self.ended(&mut flying, key as usize, entry.result());
                        match kind {
                            Kind::Write => waking.extend(waker),
                            Kind::Readiness | Kind::Other => self.held.borrow_mut().extend(waker),
                        }
                    }
                }
            }
        }
        waking.drain(..).for_each(Waker::wake);
        self.waking.replace(waking);
        if rung {
            // First this, then the look: who comes later rings again.
            self.listen();
            self.was_rung.set(true);
        }
    }

    fn is_anything_there(&self) -> bool {
        let mut ring = self.ring.borrow_mut();
        !ring.completion().is_empty()
    }

    fn ended(&self, flying: &mut Slab<Flying>, key: usize, result: i32) -> (Kind, Option<Waker>) {
        let ended = flying.get_mut(key).expect("it is there until its result is");
        if ended.kind == Kind::Write {
            self.writing.set(self.writing.get() - 1);
            self.landed.set(self.landed.get() + usize::from(!ended.forgotten));
        }
        ended.result = Some(result);
        let (kind, waker) = (ended.kind, ended.waker.take());
        if ended.forgotten {
            flying.remove(key);
        }
        (kind, waker)
    }

    fn listen(&self) {
        self.listening.set(true);
        let place = self.rung.as_ptr().cast();
        let entry = opcode::Read::new(Fd(self.bell.eventfd().as_raw_fd()), place, size_of::<u64>() as u32);
        self.give(&entry.build().user_data(BELL));
    }

    fn poll(&self, key: usize, waker: &Waker) -> Poll<(i32, Option<DmaBuffer>)> {
        let mut flying = self.flying.borrow_mut();
        let mine = flying.get_mut(key).expect("it is removed by who waits, or when nobody does");
        match mine.result {
            Some(result) => Poll::Ready((result, self.told(flying.remove(key)))),
            None => {
                if !mine.waker.as_ref().is_some_and(|known| known.will_wake(waker)) {
                    mine.waker = Some(waker.clone());
                }
                Poll::Pending
            }
        }
    }

    /// Its end is known to who waited for it.
    fn told(&self, flying: Flying) -> Option<DmaBuffer> {
        if flying.kind == Kind::Write {
            self.landed.set(self.landed.get() - 1);
        }
        flying.buffer
    }

    fn forget(&self, key: usize) {
        let mut flying = self.flying.borrow_mut();
        let mine = &mut flying[key];
        if mine.result.is_some() {
            self.told(flying.remove(key));
            return;
        }
        mine.forgotten = true;
        mine.waker = None;
        if mine.kind == Kind::Readiness {
            drop(flying);
            self.give(&opcode::PollRemove::new(key as u64).build().user_data(NOBODY));
        }
    }
}

impl Drop for Reactor {
    fn drop(&mut self) {
        // What the kernel writes to may not go before it has done so.
        self.bell.ring();
        while self.listening.get() || self.flying.borrow().iter().any(|(_, flying)| flying.holds_memory()) {
            self.enter(1, None);
            for entry in self.ring.get_mut().completion() {
                match entry.user_data() {
                    BELL => self.listening.set(false),
                    NOBODY => {}
                    key => self.flying.get_mut()[key as usize].result = Some(entry.result()),
                }
            }
        }
    }
}

impl Flying {
    fn holds_memory(&self) -> bool {
        self.kind != Kind::Readiness && self.result.is_none()
    }
}

impl Future for Operation {
    type Output = (i32, Option<DmaBuffer>);

    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Self::Output> {
        let key = self.key.expect("it is not asked again once it is over");
        let answer = self.reactor.poll(key, context.waker());
        if answer.is_ready() {
            self.key = None;
        }
        answer
    }
}

impl Drop for Operation {
    fn drop(&mut self) {
        if let Some(key) = self.key {
            self.reactor.forget(key);
        }
    }
}

/// What a system call that returned this through the ring says: how many bytes, or the error.
pub(super) fn outcome(result: i32) -> io::Result<usize> {
    usize::try_from(result).map_err(|_| io::Error::from_raw_os_error(-result))
}

/// Completions that other CPUs cause wait for our next system call instead of interrupting us, if the kernel can do that (5.19).
fn ring() -> io::Result<IoUring> {
    let mut builder = IoUring::builder();
    builder.setup_cqsize(COMPLETIONS_DEPTH);
    match builder.clone().setup_coop_taskrun().build(RING_DEPTH) {
        Err(error) if error.raw_os_error() == Some(libc::EINVAL) => builder.build(RING_DEPTH),
        made => made,
    }
}
