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
        match this.key {
            Some(key) => inner.waiting[key].clone_from(context.waker()),
            None => this.key = Some(inner.waiting.insert(context.waker().clone())),
        }
        Poll::Pending
    }
}

impl Drop for Raised {
    fn drop(&mut self) {
        let mut inner = self.inner.borrow_mut();
        if let Some(key) = self.key
            && inner.raised == self.seen
        {
            inner.waiting.remove(key);
        }
    }
}
