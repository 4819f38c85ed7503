//! Waiting for a time. The timers of an executor lie in one tree; the pump looks at the first (`reactor.rs`).

use std::cell::{Cell, RefCell};
use std::collections::BTreeMap;
use std::future::{Future, poll_fn};
use std::pin::pin;
use std::task::{Poll, Waker};
use std::time::{Duration, Instant};

/// Who is to be woken when.
#[derive(Default)]
pub(super) struct Timers {
    /// Two may be due at the same time: so each has a number.
    tree: RefCell<BTreeMap<(Instant, u64), Waker>>,
    last: Cell<u64>,
}

impl Timers {
    /// Wakes those whose time has come.
    pub(super) fn expire(&self, now: Instant) {
        loop {
            let mut tree = self.tree.borrow_mut();
            let Some(first) = tree.first_entry().filter(|first| first.key().0 <= now) else { return };
            let waker = first.remove();
            drop(tree);
            waker.wake();
        }
    }

    /// When the first is due.
    pub(super) fn next(&self) -> Option<Instant> {
        self.tree.borrow().first_key_value().map(|((due, _), _)| *due)
    }
}

/// One of them; dropped, it is taken out.
struct Timer<'a> {
    timers: &'a Timers,
    due: Instant,
    number: u64,
    /// For whom it is set.
    waker: Option<Waker>,
}

impl<'a> Timer<'a> {
    fn new(timers: &'a Timers, time: Duration) -> Self {
        let number = timers.last.get() + 1;
        timers.last.set(number);
        Self { timers, due: Instant::now() + time, number, waker: None }
    }

    /// Whether its time has come; if not, the waker is called then.
    fn poll(&mut self, waker: &Waker) -> Poll<()> {
        if Instant::now() >= self.due {
            return Poll::Ready(());
        }
        if !self.waker.as_ref().is_some_and(|known| known.will_wake(waker)) {
            self.waker = Some(waker.clone());
            self.timers.tree.borrow_mut().insert((self.due, self.number), waker.clone());
        }
        Poll::Pending
    }
}

impl Drop for Timer<'_> {
    fn drop(&mut self) {
        if self.waker.is_some() {
            let removed = self.timers.tree.borrow_mut().remove(&(self.due, self.number));
            drop(removed);
        }
    }
}

pub(super) async fn sleep(timers: &Timers, time: Duration) {
    let mut timer = Timer::new(timers, time);
    poll_fn(|context| timer.poll(context.waker())).await;
}

/// What `future` gives, or `None` after `time`. A future that is ready at once costs no timer, and the timer is put into
/// the executor's tree once, not at every wake.
pub(super) async fn timeout<T>(timers: &Timers, time: Duration, future: impl Future<Output = T>) -> Option<T> {
    let mut future = pin!(future);
    let mut timer: Option<Timer> = None;
    poll_fn(|context| {
        if let Poll::Ready(value) = future.as_mut().poll(context) {
            return Poll::Ready(Some(value));
        }
        let timer = timer.get_or_insert_with(|| Timer::new(timers, time));
        timer.poll(context.waker()).map(|()| None)
    })
    .await
}
