//! The watch over promise 6: no message outlives its expiry by more than a minute, and none waits for what does not come. It
//! hears every event of the engine, and looks at what all that is queued waits for, as an administrator would.
//!
//! Expiry is by the clock on the wall, which may be set. A message has outlived it if it was over for all of a minute, however
//! the clock was set in that. While a clock that was set back shows times that it has shown before, nothing is held against it.

use std::cell::{Cell, RefCell};
use std::collections::BTreeMap;
use std::rc::Rc;
use std::time::Duration;

use ringpost_io::sim::{EPOCH_MS, SimWorld};
use ringpost_shard::{DeliveryResult, Event, Reason, Why};

use crate::limits::{EXPIRY_GRACE, STALLED};
use crate::promises::{Broken, Ledger};

/// What the clock on the wall has shown.
#[derive(Debug)]
pub(crate) struct Wall {
    /// When it was set, and by how many milliseconds it is wrong since then.
    set: RefCell<Vec<(Duration, i64)>>,
    /// The latest that it has shown before it was set back.
    highest_ms: Cell<u64>,
}

impl Default for Wall {
    fn default() -> Self {
        Self { set: RefCell::new(vec![(Duration::ZERO, 0)]), highest_ms: Cell::new(0) }
    }
}

impl Wall {
    /// Sets it.
    pub(crate) fn set(&self, world: &SimWorld, ahead_ms: i64) {
        if ahead_ms < self.ahead_ms() {
            self.highest_ms.set(self.highest_ms.get().max(world.unix_ms()));
        }
        self.set.borrow_mut().push((world.elapsed(), ahead_ms));
        world.set_wall_ahead_ms(ahead_ms);
    }

    /// By how much it is wrong now.
    pub(crate) fn ahead_ms(&self) -> i64 {
        self.set.borrow().last().map_or(0, |(_, ahead_ms)| *ahead_ms)
    }

    /// The least that it has shown in [`EXPIRY_GRACE`] before `at`.
    fn least_ms(&self, at: Duration) -> u64 {
        let from = at.saturating_sub(EXPIRY_GRACE);
        let set = self.set.borrow();
        let before = set.iter().rposition(|(since, _)| *since <= from).unwrap_or(0);
        let pieces = set[before..].iter().take_while(|(since, _)| *since <= at);
        let least = pieces.map(|(since, ahead_ms)| shows((*since).max(from), *ahead_ms)).min();
        least.unwrap_or(EPOCH_MS)
    }
}

fn shows(at: Duration, ahead_ms: i64) -> u64 {
    (EPOCH_MS + at.as_millis() as u64).saturating_add_signed(ahead_ms)
}

/// What it has seen, and remembers.
pub(crate) struct Watch {
    pub(crate) wall: Wall,
    ledger: Rc<RefCell<Ledger>>,
    ttl: Duration,
    /// Since when the engine runs, on a disk that works.
    runs: Cell<Duration>,
    /// The most that a message has outlived its expiry, and which.
    late: RefCell<Option<(Duration, String)>>,
    /// Since when nothing goes wrong any more.
    calm: Cell<Option<Duration>>,
    /// Envelopes that waited for something without a time when they were looked at last: since when, and for what.
    idle: RefCell<BTreeMap<(String, String), (Duration, String)>>,
    stalled: RefCell<Option<String>>,
}

impl Watch {
    /// Of a world in which messages have so much time.
    pub(crate) fn new(ledger: Rc<RefCell<Ledger>>, ttl: Duration) -> Self {
        Self {
            wall: Wall::default(),
            ledger,
            ttl,
            runs: Cell::default(),
            late: RefCell::default(),
            calm: Cell::default(),
            idle: RefCell::default(),
            stalled: RefCell::default(),
        }
    }

    /// From now on nothing goes wrong any more.
    pub(crate) fn calm(&self, since: Duration) {
        self.calm.set(Some(since));
        self.idle.borrow_mut().clear();
    }

    /// From then on the engine runs, and its disk works: what it could not do before is not held against it.
    pub(crate) fn runs(&self, since: Duration) {
        self.runs.set(since);
    }

    /// The engine has told this.
    pub(crate) fn hear(&self, world: &SimWorld, event: &Event<'_>) {
        let Event::Delivery { recipient, result, age, delays, .. } = event else { return };
        if *result == DeliveryResult::Expired {
            self.ledger.borrow_mut().gave_up(recipient);
        }
        // One that came by a clock that was ahead says nothing of its age.
        if age.is_zero() {
            return;
        }
        // What a server was told meanwhile may take as long as it takes.
        let waited_until = world.elapsed().saturating_sub(delays.connect + delays.talk);
        let received_ms = world.unix_ms().saturating_sub(age.as_millis() as u64);
        let expiry_ms = received_ms + self.ttl.as_millis() as u64;
        self.judge(waited_until, expiry_ms, || format!("<{recipient}> had {result:?} then"));
    }

    /// A message was in the queue at this time.
    fn judge(&self, at: Duration, expiry_ms: u64, what: impl Fn() -> String) {
        let least_ms = self.wall.least_ms(at);
        // What was put off by a clock that was ahead comes when a clock that was set back has come so far again.
        let expiry_ms = expiry_ms.max(self.wall.highest_ms.get());
        if least_ms <= expiry_ms || at < self.runs.get() + EXPIRY_GRACE {
            return;
        }
        let by = Duration::from_millis(least_ms - expiry_ms) + EXPIRY_GRACE;
        let mut late = self.late.borrow_mut();
        if late.as_ref().is_none_or(|(most, _)| by > *most) {
            *late = Some((by, what()));
        }
    }

    /// Looks at what all that is queued waits for, `looked` being when that was asked.
    pub(crate) fn look(&self, looked: Duration, all: &[Why]) {
        let mut idle = self.idle.borrow_mut();
        let mut still = BTreeMap::new();
        for why in all {
            let has_time = |reason: &Reason| matches!(reason, Reason::Sending { .. } | Reason::Local | Reason::Report);
            let reasons = || why.waits_for.iter().map(|blocked| &blocked.reason);
            let told = || {
                format!(
                    "<{}>: {}",
                    why.envelope.recipient,
                    reasons().map(ToString::to_string).collect::<Vec<_>>().join(", ")
                )
            };
            if !reasons().any(has_time) {
                self.judge(looked, why.expires_ms, told);
            }
            let ends = |reason: &Reason| matches!(reason, Reason::Slowed { .. });
            if why.waits_for.iter().any(|blocked| blocked.until_ms.is_some() || ends(&blocked.reason)) {
                continue;
            }
            let place = (why.envelope.id.clone(), why.envelope.recipient.clone());
            let since = idle.get(&place).filter(|(_, before)| *before == told()).map_or(looked, |(since, _)| *since);
            if self.calm.get().is_some_and(|calm| looked.saturating_sub(calm.max(since)) > STALLED) {
                let seconds = (looked - since).as_secs();
                self.stalled.borrow_mut().get_or_insert(format!("for {seconds} s {}", told()));
            }
            still.insert(place, (since, told()));
        }
        *idle = still;
    }

    /// What is wrong, for the verdict.
    pub(crate) fn report(&self) -> Vec<Broken> {
        let late = self.late.borrow().clone().map(|(by, what)| Broken::Outlived { by, what });
        let stalled = self.stalled.borrow().clone().map(|what| Broken::Stalled { what });
        late.into_iter().chain(stalled).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn over_is_what_was_over_for_a_whole_minute_however_the_clock_was_set() {
        let (world, seconds) = (SimWorld::new(1), Duration::from_secs);
        let wall = Wall::default();
        assert_eq!(wall.least_ms(seconds(100)), EPOCH_MS + 40_000);
        world.run_for(seconds(80));
        wall.set(&world, 3_600_000);
        assert_eq!(wall.least_ms(seconds(100)), EPOCH_MS + 40_000, "it was right a minute ago");
        assert_eq!(wall.least_ms(seconds(140)), EPOCH_MS + 3_680_000);
        world.run_for(seconds(80));
        wall.set(&world, -3_600_000);
        assert_eq!(wall.least_ms(seconds(161)), EPOCH_MS + 160_000 - 3_600_000);
        assert_eq!(wall.ahead_ms(), -3_600_000);
    }

    #[test]
    fn what_is_late_is_seen_and_by_how_much() {
        let watch = Watch::new(Rc::default(), Duration::from_secs(30));
        let at = |seconds| Duration::from_secs(seconds);
        watch.judge(at(90), EPOCH_MS + 30_000, || "not yet".into());
        assert_eq!(watch.report(), []);
        watch.judge(at(91), EPOCH_MS + 30_000, || "one".into());
        watch.judge(at(100), EPOCH_MS + 30_000, || "other".into());
        assert_eq!(watch.report(), [Broken::Outlived { by: at(70), what: "other".into() }]);
    }
}
