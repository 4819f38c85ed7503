//! When waiting messages become due: the trait that a slice asks, and which backends there are (`scheduler backend`).
//!
//! A backend holds times and numbers, nothing else. Whether an envelope still waits is in the index; so an entry that means
//! nothing any more is not searched for, but dropped when it comes up, and everything can be armed again from the index at any
//! time, by another backend as well.

use std::fmt::Debug;

use crate::due::Wheel;

/// Messages by the time at which one of their envelopes is due, in milliseconds since the epoch.
pub trait Scheduler: Debug {
    /// Whether anything ever becomes due.
    fn fires(&self) -> bool;

    /// An envelope of this message is due then.
    fn arm(&mut self, due_ms: u64, number: u64);

    /// Many at once, each `(due_ms, number)`.
    fn arm_all(&mut self, entries: Vec<(u64, u64)>);

    /// When [`Scheduler::fire`] gives something, which may turn out to mean nothing any more.
    fn next(&self) -> Option<u64>;

    /// A message that was due by then, the earliest first; each as often as it was armed, but not more than once for what was
    /// armed again without anything in between.
    fn fire(&mut self, now_ms: u64) -> Option<u64>;

    /// Entries, meaningless ones too.
    fn len(&self) -> usize;

    /// Nothing is armed.
    fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Bytes of memory that it occupies.
    fn memory_bytes(&self) -> usize;

    /// Forgets all; the caller arms what still waits.
    fn clear(&mut self);
}

/// Which of them.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Backend {
    /// In order of time.
    #[default]
    Wheel,
    /// Nothing ever becomes due: mail waits and is kept, for tests.
    Null,
}

impl Backend {
    /// An empty one.
    pub fn make(self) -> Box<dyn Scheduler> {
        match self {
            Self::Wheel => Box::<Wheel>::default(),
            Self::Null => Box::new(Null),
        }
    }
}

impl Default for Box<dyn Scheduler> {
    fn default() -> Self {
        Backend::default().make()
    }
}

#[derive(Debug)]
struct Null;

impl Scheduler for Null {
    fn fires(&self) -> bool {
        false
    }

    fn arm(&mut self, _: u64, _: u64) {}

    fn arm_all(&mut self, _: Vec<(u64, u64)>) {}

    fn next(&self) -> Option<u64> {
        None
    }

    fn fire(&mut self, _: u64) -> Option<u64> {
        None
    }

    fn len(&self) -> usize {
        0
    }

    fn memory_bytes(&self) -> usize {
        0
    }

    fn clear(&mut self) {}
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::envelope::Status;
    use crate::index::{Envelopes, Message, Place};
    use crate::journal::books::Books;

    const TIMERS: u64 = 1_000_000;
    const FEWER: u64 = 100_000;
    const HOUR_MS: u64 = 3_600_000;

    /// Scattered over an hour, the same at each run.
    fn due_ms(number: u64) -> u64 {
        1 + number.wrapping_mul(0x9e37_79b9_7f4a_7c15) % HOUR_MS
    }

    fn wait(books: &mut Books, number: u64, due_ms: u64) {
        books.set(number, 0, |envelope| (envelope.status, envelope.due_ms) = (Status::Waiting, due_ms));
    }

    /// So many wait, one envelope each.
    fn waiting(backend: Backend, timers: u64) -> Books {
        let mut books = Books::default();
        books.schedule_by(backend);
        for number in 0..timers {
            let envelopes = Envelopes::new(1, 0, Status::InFlight);
            books.add(Message { number, place: Place::NONE, meta_bytes: 1, text_bytes: 1, envelopes }, None);
            wait(&mut books, number, due_ms(number));
        }
        books
    }

    #[test]
    fn s125_a_million_timers_fire_in_order_without_those_that_were_cancelled() {
        let mut books = waiting(Backend::Wheel, TIMERS);
        assert_eq!((books.due.len() as u64, books.tally.open), (TIMERS, TIMERS));
        let each = books.due.memory_bytes() as u64 / TIMERS;
        assert!(each <= 32, "{each} bytes");
        for number in (0..TIMERS).filter(|number| number % 2 == 1) {
            books.set(number, 0, |envelope| envelope.status = Status::Failed);
            books.finish(number);
        }
        let (mut fired, mut last, mut now_ms) = (0, 0, 0);
        let mut claimed = Vec::new();
        while let Some(next) = books.due.next() {
            now_ms = next.max(now_ms);
            books.claim(now_ms, 1, &mut claimed);
            for (id, _) in claimed.drain(..) {
                let due_ms = due_ms(id.number());
                assert!(id.number() % 2 == 0 && last <= due_ms && due_ms <= now_ms, "{id:?} at {now_ms} after {last}");
                (fired, last) = (fired + 1, due_ms);
            }
        }
        assert_eq!(fired, TIMERS / 2);
        assert_eq!(books.tally.in_flight, TIMERS / 2);
    }

    #[test]
    fn s125_timers_that_are_put_off_again_and_again_take_no_more_memory_for_it() {
        let mut books = waiting(Backend::Wheel, FEWER);
        for round in 1..=4 {
            (0..FEWER / 4).for_each(|number| wait(&mut books, number, due_ms(number) + round * HOUR_MS));
        }
        let entries = books.due.len() as u64;
        assert!(entries <= 2 * FEWER + 1024, "{entries}");
        let mut claimed = Vec::new();
        books.claim(HOUR_MS, usize::MAX, &mut claimed);
        assert_eq!(claimed.len() as u64, FEWER - FEWER / 4, "the others were put off");
    }

    #[test]
    fn s125_a_million_timers_of_nobodys_cost_nothing_and_another_backend_takes_them_over() {
        let mut books = waiting(Backend::Null, TIMERS);
        let mut claimed = Vec::new();
        assert_eq!((books.due.len(), books.due.memory_bytes(), books.due.next()), (0, 0, None));
        assert_eq!((books.claim(u64::MAX, usize::MAX, &mut claimed), books.tally.open), (0, TIMERS));
        books.schedule_by(Backend::Wheel);
        assert_eq!(books.claim(HOUR_MS, usize::MAX, &mut claimed) as u64, TIMERS);
    }
}
