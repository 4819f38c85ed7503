//! Virtual time and what is due in it. Time passes only when the scheduler says so.

use std::cell::{Cell, RefCell};
use std::collections::BTreeMap;
use std::future::Future;
use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Poll, Waker};
use std::time::{Duration, Instant};

/// Milliseconds from 1970 to the beginning of every simulated world: 2026-01-01, noon UTC.
pub const EPOCH_MS: u64 = 1_767_268_800_000;

pub(super) struct Clock {
    base: Instant,
    elapsed_ns: Cell<u64>,
    events: RefCell<BTreeMap<Key, Event>>,
    made: Cell<u64>,
    /// By how much the clock on the wall is ahead of what it should show, in milliseconds.
    wall_ahead_ms: Cell<i64>,
}

/// When, and which of those at the same time: they happen in the order in which they were arranged.
pub(super) type Key = (u64, u64);

pub(super) enum Event {
    Wake(Waker),
    Call(Box<dyn FnOnce()>),
}

impl Clock {
    pub(super) fn new() -> Self {
        Self {
            base: Instant::now(),
            elapsed_ns: Cell::new(0),
            events: RefCell::default(),
            made: Cell::new(0),
            wall_ahead_ms: Cell::new(0),
        }
    }

    pub(super) fn now(&self) -> Instant {
        self.base + self.elapsed()
    }

    pub(super) fn elapsed(&self) -> Duration {
        Duration::from_nanos(self.elapsed_ns.get())
    }

    pub(super) fn unix_ms(&self) -> u64 {
        (EPOCH_MS + self.elapsed_ns.get() / 1_000_000).saturating_add_signed(self.wall_ahead_ms.get())
    }

    pub(super) fn set_wall_ahead_ms(&self, ms: i64) {
        self.wall_ahead_ms.set(ms);
    }

    pub(super) fn pass(&self, time: Duration) {
        self.elapsed_ns.set(self.after(time));
    }

    /// What the clock shows after `time`; an absurdly long one is never reached.
    fn after(&self, time: Duration) -> u64 {
        self.elapsed_ns.get().saturating_add(u64::try_from(time.as_nanos()).unwrap_or(u64::MAX))
    }

    /// Arranges for a call after `time`.
    pub(super) fn call_after(&self, time: Duration, call: impl FnOnce() + 'static) {
        self.arrange(self.after(time), Event::Call(Box::new(call)));
    }

    fn arrange(&self, due_ns: u64, event: Event) -> Key {
        let key = (due_ns, self.made.get());
        self.made.set(key.1 + 1);
        self.events.borrow_mut().insert(key, event);
        key
    }

    /// The first event that is due now.
    pub(super) fn take_due(&self) -> Option<Event> {
        let mut events = self.events.borrow_mut();
        let first = events.first_entry()?;
        (first.key().0 <= self.elapsed_ns.get()).then(|| first.remove())
    }

    /// Lets time pass until the first event, but not beyond `until`; false if nothing is due before that.
    pub(super) fn jump(&self, until: Duration) -> bool {
        let first = self.events.borrow().first_key_value().map(|(key, _)| key.0);
        match first {
            Some(due_ns) if Duration::from_nanos(due_ns) <= until => {
                self.elapsed_ns.set(due_ns.max(self.elapsed_ns.get()));
                true
            }
            _ => false,
        }
    }

    /// Lets time pass until then, if that is ahead.
    pub(super) fn jump_to(&self, until: Duration) {
        self.elapsed_ns.set(self.elapsed_ns.get().max(u64::try_from(until.as_nanos()).unwrap_or(u64::MAX)));
    }

    pub(super) fn is_idle(&self) -> bool {
        self.events.borrow().is_empty()
    }

    /// All that was arranged, to be dropped by the caller.
    pub(super) fn clear(&self) -> impl Drop + use<> {
        Vec::from_iter(self.events.take())
    }
}

/// Ends after a time. Dropped earlier it leaves nothing behind.
pub(super) struct Sleep {
    clock: Rc<Clock>,
    due_ns: u64,
    key: Option<Key>,
}

impl Sleep {
    pub(super) fn new(clock: &Rc<Clock>, time: Duration) -> Self {
        Self { clock: clock.clone(), due_ns: clock.after(time), key: None }
    }

    fn withdraw(&mut self) {
        let event = self.key.take().and_then(|key| self.clock.events.borrow_mut().remove(&key));
        drop(event);
    }
}

impl Future for Sleep {
    type Output = ();

    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<()> {
        self.withdraw();
        if self.clock.elapsed_ns.get() >= self.due_ns {
            return Poll::Ready(());
        }
        self.key = Some(self.clock.arrange(self.due_ns, Event::Wake(context.waker().clone())));
        Poll::Pending
    }
}

impl Drop for Sleep {
    fn drop(&mut self) {
        self.withdraw();
    }
}
