//! Waiting. Neither way leaks: the futures of glommio's timers may be dropped, its tasks and timer actions may not.

use std::cell::Cell;
use std::future::{Future, poll_fn};
use std::pin::{Pin, pin};
use std::task::{Poll, Waker};
use std::time::{Duration, Instant};

use glommio::timer::Timer;

use crate::limits::TURN;

pub(super) async fn sleep(time: Duration) {
    Timer::new(time).await;
}

/// What `future` gives, or `None` after `time`. A future that is ready at once costs no timer, and the timer is put into
/// the executor's tree once, not at every wake.
pub(super) async fn timeout<T>(time: Duration, future: impl Future<Output = T>) -> Option<T> {
    let mut future = pin!(future);
    let mut armed: Option<Armed> = None;
    poll_fn(|context| {
        if let Poll::Ready(value) = future.as_mut().poll(context) {
            return Poll::Ready(Some(value));
        }
        let armed = armed.get_or_insert_with(|| Armed::new(time));
        if armed.is_set_for(context.waker()) && Instant::now() < armed.due {
            return Poll::Pending;
        }
        armed.waker = Some(context.waker().clone());
        Pin::new(&mut armed.timer).poll(context).map(|_| None)
    })
    .await
}

struct Armed {
    timer: Timer,
    due: Instant,
    waker: Option<Waker>,
}

impl Armed {
    fn new(time: Duration) -> Self {
        // The timer's own clock is read after ours, so that it is never due before we ask it.
        let due = Instant::now() + time;
        Self { timer: Timer::new(time), due, waker: None }
    }

    fn is_set_for(&self, waker: &Waker) -> bool {
        self.waker.as_ref().is_some_and(|known| known.will_wake(waker))
    }
}

/// Turns of tasks that compute. glommio's own `yield_if_needed` goes by the preemption timer, which must be a long one
/// (`bell.rs`), and the other way of yielding lets no I/O in.
pub(super) struct Turns {
    began: Cell<Instant>,
}

impl Turns {
    pub(super) fn new() -> Self {
        Self { began: Cell::new(Instant::now()) }
    }

    /// Once a turn is over, waits until all that is ready has run and the rings were looked at.
    pub(super) async fn yield_now(&self) {
        if self.began.get().elapsed() < TURN {
            return;
        }
        let mut timer = Timer::new(TURN_WAIT);
        let mut asked = false;
        poll_fn(|context| {
            if std::mem::replace(&mut asked, true) {
                return Poll::Ready(());
            }
            // A timer wakes from the reactor only. One that is due before it is set would not wait at all.
            while Pin::new(&mut timer).poll(context).is_ready() {
                timer = Timer::new(TURN_WAIT);
            }
            Poll::Pending
        })
        .await;
        self.began.set(Instant::now());
    }
}

/// Long enough to be ahead when it is set.
const TURN_WAIT: Duration = Duration::from_micros(2);
