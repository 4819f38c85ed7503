//! Waking tasks of the same executor: a condition that somebody has changed. Carries no value; who is woken looks again.

use std::cell::RefCell;
use std::future::Future;
use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Poll, Waker};

use slab::Slab;

/// Wakes all that wait. Cheap to clone; all clones are the same signal.
#[derive(Clone, Default)]
pub struct Signal {
    inner: Rc<RefCell<Inner>>,
}

#[derive(Default)]
struct Inner {
    raised: u64,
    waiting: Slab<Waker>,
}

impl Signal {
    /// A signal that nobody has raised.
    pub fn new() -> Self {
        Self::default()
    }

    /// Wakes all tasks that wait now.
    pub fn raise(&self) {
        let waiting = {
            let mut inner = self.inner.borrow_mut();
            inner.raised += 1;
            std::mem::take(&mut inner.waiting)
        };
        waiting.into_iter().for_each(|(_, waker)| waker.wake());
    }

    /// Ends at the first [`Signal::raise`] after the *call* (not after the first poll), so that the pattern
    /// "make the future, look at the condition, await" misses nothing.
    pub fn raised(&self) -> Raised {
        Raised { seen: self.inner.borrow().raised, inner: self.inner.clone(), key: None }
    }
}

/// Waits for one [`Signal::raise`].
#[must_use = "nothing waits before it is awaited"]
pub struct Raised {
    inner: Rc<RefCell<Inner>>,
    seen: u64,
    key: Option<usize>,
}

impl Future for Raised {
    type Output = ();

    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<()> {
        let this = &mut *self;
        let mut inner = this.inner.borrow_mut();
        if inner.raised != this.seen {
            // `raise` has emptied the slab: the key is no longer ours.
            this.key = None;
            return Poll::Ready(());
        }
        let waker = context.waker();
        // A waker that goes may take the rest of its task along, and with it another `Raised`: not under the borrow.
        let old = match this.key {
            Some(key) if inner.waiting[key].will_wake(waker) => None,
            Some(key) => Some(std::mem::replace(&mut inner.waiting[key], waker.clone())),
            None => {
                this.key = Some(inner.waiting.insert(waker.clone()));
                None
            }
        };
        drop(inner);
        drop(old);
        Poll::Pending
    }
}

impl Drop for Raised {
    fn drop(&mut self) {
        let mut inner = self.inner.borrow_mut();
        let ours = self.key.filter(|_| inner.raised == self.seen);
        let waker = ours.map(|key| inner.waiting.remove(key));
        drop(inner);
        drop(waker);
    }
}

#[cfg(test)]
mod tests {
    use futures_lite::future::{block_on, poll_once, zip};

    use super::*;

    #[test]
    fn a_raise_between_the_look_and_the_wait_is_not_missed() {
        let signal = Signal::new();
        let raised = signal.raised();
        signal.raise();
        block_on(raised);
    }

    #[test]
    fn an_old_raise_does_not_end_a_new_wait() {
        let signal = Signal::new();
        signal.raise();
        assert_eq!(block_on(poll_once(signal.raised())), None);
    }

    #[test]
    fn one_raise_wakes_all_and_only_once() {
        let signal = Signal::new();
        let both = zip(signal.raised(), signal.clone().raised());
        block_on(zip(both, async { signal.raise() }));
        assert!(signal.inner.borrow().waiting.is_empty());
    }

    #[test]
    fn those_who_stop_waiting_leave_nothing_behind() {
        let signal = Signal::new();
        let kept = signal.raised();
        for _ in 0..100 {
            assert_eq!(block_on(poll_once(signal.raised())), None);
        }
        assert!(signal.inner.borrow().waiting.is_empty());
        let mut late = Box::pin(signal.raised());
        assert_eq!(block_on(poll_once(&mut late)), None);
        signal.raise();
        // Its key belongs to an emptied slab by now, where another may sit.
        let other = Box::pin(signal.raised());
        let mut other = other;
        assert_eq!(block_on(poll_once(&mut other)), None);
        drop(late);
        assert_eq!(signal.inner.borrow().waiting.len(), 1);
        block_on(kept);
    }
}
