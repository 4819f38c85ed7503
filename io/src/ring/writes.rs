//! Durable writes on a ring of their own, beside glommio's.
//!
//! glommio gives the kernel what a turn of its loop has asked for when all that was ready has run: a batch that is closed at
//! the beginning of a turn waited there for the replies of the batch before it, a quarter of a millisecond. A write given to
//! this ring is with the kernel at once. The end of one is noticed as early: the kernel rings the executor's bell, which
//! wakes a sleeping one, and a busy one looks between the system calls of its connections ([`Writes::have_landed`]), so that
//! the next batch goes out before the rest of the turn runs.

use std::cell::RefCell;
use std::future::{Future, poll_fn};
use std::io;
use std::os::fd::{AsRawFd, BorrowedFd};
use std::task::{Poll, Waker};

use glommio::io::DmaBuffer;
use io_uring::{IoUring, opcode, squeue, types};
use slab::Slab;

use crate::limits::{PREWRITE_BYTES, WRITES_DEPTH};

/// What new files are filled with.
static ZEROS: Zeros = Zeros([0; PREWRITE_BYTES]);

/// Aligned as O_DIRECT wants it.
#[repr(align(4096))]
struct Zeros([u8; PREWRITE_BYTES]);

/// One executor's ring for them.
pub(super) struct Writes {
    ring: RefCell<IoUring>,
    flying: RefCell<Slab<Flying>>,
}

/// The kernel reads the buffer until the write is over, whoever has stopped waiting for it.
struct Flying {
    _buffer: Option<DmaBuffer>,
    /// What the kernel said: a number of bytes, or an error's number below zero.
    result: Option<i32>,
    waker: Option<Waker>,
    forgotten: bool,
}

/// What waits for a write. Dropped before its end, it leaves the write to itself.
struct Waiting<'a> {
    writes: &'a Writes,
    key: usize,
}

impl Writes {
    /// A ring whose completions are also told to the eventfd `bell`.
    pub(super) fn new(bell: BorrowedFd<'_>) -> io::Result<Self> {
        // As decision 3 has it for glommio's rings; Linux 5.19.
        let ring = match IoUring::builder().setup_coop_taskrun().build(WRITES_DEPTH) {
            Err(error) if error.raw_os_error() == Some(libc::EINVAL) => IoUring::new(WRITES_DEPTH)?,
            other => other?,
        };
        ring.submitter().register_eventfd(bell.as_raw_fd())?;
        Ok(Self { ring: RefCell::new(ring), flying: RefCell::default() })
    }

    /// Writes the buffer: one write(2), of which the bytes written are given back. The kernel has it when this returns.
    pub(super) fn write(
        &self,
        file: BorrowedFd<'_>,
        buffer: DmaBuffer,
        at: u64,
    ) -> impl Future<Output = io::Result<usize>> {
        let entry = opcode::Write::new(types::Fd(file.as_raw_fd()), buffer.as_ptr(), buffer.len() as u32).offset(at);
        self.start(entry, Some(buffer))
    }

    /// Writes zeros, at most [`PREWRITE_BYTES`]: one write(2), without a copy of them.
    pub(super) fn write_zeros(
        &self,
        file: BorrowedFd<'_>,
        bytes: usize,
        at: u64,
    ) -> impl Future<Output = io::Result<usize>> {
        let zeros = &ZEROS.0[..bytes];
        let entry = opcode::Write::new(types::Fd(file.as_raw_fd()), zeros.as_ptr(), zeros.len() as u32).offset(at);
        self.start(entry, None)
    }

    fn start(&self, entry: opcode::Write, buffer: Option<DmaBuffer>) -> impl Future<Output = io::Result<usize>> {
        let flying = Flying { _buffer: buffer, result: None, waker: None, forgotten: false };
        let key = self.flying.borrow_mut().insert(flying);
        self.give(&entry.build().user_data(key as u64));
        let waiting = Waiting { writes: self, key };
        poll_fn(move |context| waiting.poll(context.waker()))
    }

    fn give(&self, entry: &squeue::Entry) {
        let mut ring = self.ring.borrow_mut();
        // SAFETY: the buffer lies in `flying`, where it stays until the kernel has said that it is done with it, or is static.
        unsafe { ring.submission().push(entry) }.expect("the queue is emptied after each entry");
        while let Err(error) = ring.submit() {
            // Short of memory, or of room for completions that the kernel has kept: neither lasts. io_uring_enter(2).
            let passes = matches!(error.raw_os_error(), Some(libc::EINTR | libc::EAGAIN | libc::EBUSY));
            assert!(passes, "the ring for durable writes is broken: {error}");
            drop(ring);
            self.tell();
            ring = self.ring.borrow_mut();
        }
    }

    /// Whether some write has ended that nobody was told of.
    pub(super) fn have_landed(&self) -> bool {
        !self.ring.borrow_mut().completion().is_empty()
    }

    /// Tells those whose writes have ended.
    pub(super) fn tell(&self) {
        let mut flying = self.flying.borrow_mut();
        for entry in self.ring.borrow_mut().completion() {
            let key = entry.user_data() as usize;
            let landed = flying.get_mut(key).expect("it is there until its result is");
            landed.result = Some(entry.result());
            if let Some(waker) = landed.waker.take() {
                waker.wake();
            }
            if landed.forgotten {
                flying.remove(key);
            }
        }
    }
}

impl Drop for Writes {
    fn drop(&mut self) {
        // The buffers may not go before the writes have ended.
        while self.flying.get_mut().iter().any(|(_, flying)| flying.result.is_none()) {
            let waited = self.ring.get_mut().submit_and_wait(1);
            if waited.is_err_and(|error| error.kind() != io::ErrorKind::Interrupted) {
                std::process::abort();
            }
            self.tell();
        }
    }
}

impl Waiting<'_> {
    fn poll(&self, waker: &Waker) -> Poll<io::Result<usize>> {
        self.writes.tell();
        let mut flying = self.writes.flying.borrow_mut();
        let mine = flying.get_mut(self.key).expect("it is removed by who waits, or when nobody does");
        let Some(result) = mine.result else {
            mine.waker = Some(waker.clone());
            return Poll::Pending;
        };
        Poll::Ready(if result < 0 { Err(io::Error::from_raw_os_error(-result)) } else { Ok(result as usize) })
    }
}

impl Drop for Waiting<'_> {
    fn drop(&mut self) {
        let mut flying = self.writes.flying.borrow_mut();
        let mine = &mut flying[self.key];
        match mine.result {
            Some(_) => {
                flying.remove(self.key);
            }
            None => mine.forgotten = true,
        }
    }
}
