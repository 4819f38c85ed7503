//! Letters into an executor from any thread: a bounded queue and the waker of the one task that reads it.

use std::future::poll_fn;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::task::Poll;

use crossbeam::queue::ArrayQueue;
use futures_lite::future::yield_now;

/// The reading end; stays on its executor.
pub struct Mailbox<M> {
    shared: Arc<Shared<M>>,
}

/// The writing end; may go to any thread and be cloned.
pub struct Sender<M> {
    shared: Arc<Shared<M>>,
}

struct Shared<M> {
    letters: ArrayQueue<M>,
    reader: crossbeam::utils::CachePadded<std::sync::Mutex<Option<std::task::Waker>>>,
    senders: AtomicUsize,
    closed: AtomicBool,
}

impl<M> Mailbox<M> {
    /// A mailbox that holds at most `bound` letters.
    pub fn new(bound: usize) -> (Sender<M>, Self) {
        let shared = Arc::new(Shared {
            letters: ArrayQueue::new(bound),
            reader: Default::default(),
            senders: AtomicUsize::new(1),
            closed: AtomicBool::new(false),
        });
        (Sender { shared: shared.clone() }, Self { shared })
    }

    /// A letter if one is there.
    pub fn try_receive(&self) -> Option<M> {
        self.shared.letters.pop()
    }

    /// The next letter; `None` once all senders are gone and the box is empty.
    pub async fn receive(&self) -> Option<M> {
        poll_fn(|context| {
            if let Some(letter) = self.shared.letters.pop() {
                return Poll::Ready(Some(letter));
            }
            *self.shared.reader.lock().expect("nobody panics with it") = Some(context.waker().clone());
            // Once more: a sender may have come between the look and the waker.
            match self.shared.letters.pop() {
                Some(letter) => Poll::Ready(Some(letter)),
                None if self.shared.senders.load(Ordering::Acquire) == 0 => Poll::Ready(self.shared.letters.pop()),
                None => Poll::Pending,
            }
        })
        .await
    }
}

impl<M> Drop for Mailbox<M> {
    fn drop(&mut self) {
        self.shared.closed.store(true, Ordering::Release);
    }
}

impl<M> Sender<M> {
    /// Puts a letter in; gives it back when the box is full or its reader is gone.
    pub fn try_send(&self, letter: M) -> Result<(), M> {
        if self.shared.closed.load(Ordering::Acquire) {
            return Err(letter);
        }
        self.shared.letters.push(letter)?;
        self.wake();
        Ok(())
    }

    /// Puts a letter in, waiting while the box is full; gives it back when its reader is gone.
    pub async fn send(&self, mut letter: M) -> Result<(), M> {
        loop {
            match self.try_send(letter) {
                Ok(()) => return Ok(()),
                Err(back) if self.shared.closed.load(Ordering::Acquire) => return Err(back),
                Err(back) => letter = back,
            }
            yield_now().await;
        }
    }

    fn wake(&self) {
        if let Some(waker) = self.shared.reader.lock().expect("nobody panics with it").take() {
            waker.wake();
        }
    }
}

impl<M> Clone for Sender<M> {
    fn clone(&self) -> Self {
        self.shared.senders.fetch_add(1, Ordering::Relaxed);
        Self { shared: self.shared.clone() }
    }
}

impl<M> Drop for Sender<M> {
    fn drop(&mut self) {
        if self.shared.senders.fetch_sub(1, Ordering::AcqRel) == 1 {
            self.wake();
        }
    }
}
