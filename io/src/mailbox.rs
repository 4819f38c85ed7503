//! Letters into an executor from any thread: a bounded queue and the waker of the one task that reads it.

use std::future::poll_fn;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering, fence};
use std::sync::{Arc, Mutex};
use std::task::{Context, Poll, Waker};

use crossbeam::queue::ArrayQueue;
use crossbeam::utils::CachePadded;

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
    reader: CachePadded<Mutex<Option<Waker>>>,
    /// Senders that found the box full. Some may have given up: waking them does no harm.
    full: Mutex<Vec<Waker>>,
    /// As long as nobody waits, taking a letter costs no lock.
    someone_waits: AtomicBool,
    senders: AtomicUsize,
    closed: AtomicBool,
}

impl<M> Mailbox<M> {
    /// A mailbox that holds at most `bound` letters.
    pub fn new(bound: usize) -> (Sender<M>, Self) {
        let shared = Arc::new(Shared {
            letters: ArrayQueue::new(bound),
            reader: CachePadded::default(),
            full: Mutex::default(),
            someone_waits: AtomicBool::new(false),
            senders: AtomicUsize::new(1),
            closed: AtomicBool::new(false),
        });
        (Sender { shared: shared.clone() }, Self { shared })
    }

    /// A letter if one is there.
    pub fn try_receive(&self) -> Option<M> {
        let letter = self.shared.letters.pop();
        if letter.is_some() {
            // Pairs with the fence in `poll_send`: either we see that someone waits, or he sees the room.
            fence(Ordering::SeqCst);
            if self.shared.someone_waits.load(Ordering::Relaxed) {
                self.shared.wake_senders();
            }
        }
        letter
    }

    /// The next letter; `None` once all senders are gone and the box is empty.
    pub async fn receive(&self) -> Option<M> {
        poll_fn(|context| {
            if let Some(letter) = self.try_receive() {
                return Poll::Ready(Some(letter));
            }
            *self.shared.reader.lock().expect("nobody panics with it") = Some(context.waker().clone());
            // Once more: a sender may have come between the look and the waker.
            match self.try_receive() {
                Some(letter) => Poll::Ready(Some(letter)),
                None if self.shared.senders.load(Ordering::Acquire) == 0 => Poll::Ready(self.try_receive()),
                None => Poll::Pending,
            }
        })
        .await
    }
}

impl<M> Drop for Mailbox<M> {
    fn drop(&mut self) {
        self.shared.closed.store(true, Ordering::SeqCst);
        self.shared.wake_senders();
    }
}

impl<M> Sender<M> {
    /// Puts a letter in; gives it back when the box is full or its reader is gone.
    pub fn try_send(&self, letter: M) -> Result<(), M> {
        if self.is_closed() {
            return Err(letter);
        }
        self.shared.letters.push(letter)?;
        self.shared.wake_reader();
        Ok(())
    }

    /// Puts a letter in, waiting while the box is full; gives it back when its reader is gone.
    pub async fn send(&self, letter: M) -> Result<(), M> {
        let mut letter = Some(letter);
        poll_fn(|context| self.poll_send(&mut letter, context)).await
    }

    /// Whether the reader is gone, so that no letter will ever be read.
    pub fn is_closed(&self) -> bool {
        self.shared.closed.load(Ordering::SeqCst)
    }

    fn poll_send(&self, letter: &mut Option<M>, context: &mut Context<'_>) -> Poll<Result<(), M>> {
        let Err(back) = self.try_send(letter.take().expect("not polled after its end")) else {
            return Poll::Ready(Ok(()));
        };
        self.shared.wait_for_room(context.waker());
        // Once more: the reader may have taken one, or gone, between the look and the waker.
        match self.try_send(back) {
            Ok(()) => Poll::Ready(Ok(())),
            Err(back) if self.is_closed() => Poll::Ready(Err(back)),
            Err(back) => {
                *letter = Some(back);
                Poll::Pending
            }
        }
    }
}

impl<M> Shared<M> {
    fn wake_reader(&self) {
        let waker = self.reader.lock().expect("nobody panics with it").take();
        if let Some(waker) = waker {
            waker.wake();
        }
    }

    fn wait_for_room(&self, waker: &Waker) {
        let mut full = self.full.lock().expect("nobody panics with it");
        if !full.iter().any(|known| known.will_wake(waker)) {
            full.push(waker.clone());
        }
        self.someone_waits.store(true, Ordering::Relaxed);
        drop(full);
        fence(Ordering::SeqCst);
    }

    fn wake_senders(&self) {
        let waiting = {
            let mut full = self.full.lock().expect("nobody panics with it");
            self.someone_waits.store(false, Ordering::Relaxed);
            std::mem::take(&mut *full)
        };
        waiting.into_iter().for_each(Waker::wake);
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
            self.shared.wake_reader();
        }
    }
}

#[cfg(test)]
mod tests {
    use std::thread;

    use futures_lite::future::{block_on, poll_once};

    use super::*;

    #[test]
    fn letters_come_in_order_and_the_box_is_bounded() {
        let (sender, mailbox) = Mailbox::new(2);
        sender.try_send(1).unwrap();
        sender.try_send(2).unwrap();
        assert_eq!(sender.try_send(3), Err(3));
        assert_eq!(block_on(mailbox.receive()), Some(1));
        sender.try_send(3).unwrap();
        drop(sender);
        assert_eq!(block_on(mailbox.receive()), Some(2));
        assert_eq!(block_on(mailbox.receive()), Some(3));
        assert_eq!(block_on(mailbox.receive()), None);
    }

    #[test]
    fn the_last_of_the_senders_ends_it() {
        let (sender, mailbox) = Mailbox::<u8>::new(1);
        let second = sender.clone();
        drop(sender);
        assert_eq!(block_on(poll_once(mailbox.receive())), None, "one is left");
        thread::spawn(move || drop(second));
        assert_eq!(block_on(mailbox.receive()), None);
    }

    #[test]
    fn without_a_reader_a_letter_comes_back() {
        let (sender, mailbox) = Mailbox::new(1);
        sender.try_send(1).unwrap();
        let waiting = thread::spawn({
            let sender = sender.clone();
            move || block_on(sender.send(2))
        });
        drop(mailbox);
        assert_eq!(waiting.join().unwrap(), Err(2));
        assert!(sender.is_closed());
        assert_eq!(sender.try_send(3), Err(3));
    }

    #[test]
    fn many_threads_through_a_small_box() {
        const EACH: u64 = 5_000;
        let (sender, mailbox) = Mailbox::new(3);
        let threads: Vec<_> = (0..4)
            .map(|_| {
                let sender = sender.clone();
                thread::spawn(move || {
                    block_on(async {
                        for number in 0..EACH {
                            sender.send(number).await.unwrap()
                        }
                    })
                })
            })
            .collect();
        drop(sender);
        let mut sum = 0;
        while let Some(number) = block_on(mailbox.receive()) {
            sum += number;
        }
        assert_eq!(sum, 4 * EACH * (EACH - 1) / 2);
        threads.into_iter().for_each(|thread| thread.join().unwrap());
    }
}
