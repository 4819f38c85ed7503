//! Whether a backend works: after some failures in a row it is left alone for a while that grows, then one lookup tries.
//! Pure: it is told the time.

use std::time::{Duration, Instant};

use super::limits::{FAILURES, PAUSE_FIRST, PAUSE_MAX};

/// What is known of a backend.
#[derive(Debug, Default)]
pub struct Health {
    /// Failures since the last answer.
    failures: u32,
    reason: String,
    down: Option<Down>,
}

#[derive(Debug)]
struct Down {
    since: Instant,
    /// Not asked before that.
    next: Instant,
    pause: Duration,
}

/// A change that an administrator should hear of, once.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Change {
    /// It has failed too often in a row.
    Fails(String),
    /// It answers again, after so long.
    Works(Duration),
}

impl Health {
    /// Whether a lookup may be tried now. While the backend fails one may after each pause; until that one has ended, and
    /// at most for `trial`, no other may.
    pub fn may_ask(&mut self, now: Instant, trial: Duration) -> bool {
        match &mut self.down {
            None => true,
            Some(down) if now >= down.next => {
                down.next = now + trial.max(down.pause);
                true
            }
            Some(_) => false,
        }
    }

    /// It has answered.
    pub fn answered(&mut self, now: Instant) -> Option<Change> {
        self.failures = 0;
        self.reason.clear();
        self.down.take().map(|down| Change::Works(now.saturating_duration_since(down.since)))
    }

    /// It has not.
    pub fn failed(&mut self, now: Instant, reason: &str) -> Option<Change> {
        self.failures = self.failures.saturating_add(1);
        reason.clone_into(&mut self.reason);
        match &mut self.down {
            Some(down) => {
                down.pause = (down.pause * 2).min(PAUSE_MAX);
                down.next = now + down.pause;
                None
            }
            None if self.failures < FAILURES => None,
            None => {
                self.down = Some(Down { since: now, next: now + PAUSE_FIRST, pause: PAUSE_FIRST });
                Some(Change::Fails(reason.to_owned()))
            }
        }
    }

    /// An administrator says that it should be tried now.
    pub fn try_now(&mut self, now: Instant) {
        if let Some(down) = &mut self.down {
            (down.next, down.pause) = (now, PAUSE_FIRST);
        }
    }

    /// Whether it is left alone.
    pub fn is_down(&self) -> bool {
        self.down.is_some()
    }

    /// Why it last failed; empty if it has answered since.
    pub fn reason(&self) -> &str {
        &self.reason
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const TRIAL: Duration = Duration::from_secs(3);

    #[test]
    fn five_failures_then_growing_pauses_and_one_word_for_each_change() {
        let mut now = Instant::now();
        let mut health = Health::default();
        for number in 1..=FAILURES {
            assert!(health.may_ask(now, TRIAL));
            let change = health.failed(now, "refused");
            assert_eq!(change, (number == FAILURES).then(|| Change::Fails("refused".into())));
        }
        let began = now;
        let mut pause = PAUSE_FIRST;
        for _ in 0..10 {
            assert!(!health.may_ask(now + pause - Duration::from_millis(1), TRIAL));
            now += pause;
            assert!(health.may_ask(now, TRIAL));
            assert!(!health.may_ask(now, TRIAL), "one tries, the others wait");
            assert_eq!(health.failed(now, "refused"), None);
            pause = (pause * 2).min(PAUSE_MAX);
        }
        assert_eq!(pause, PAUSE_MAX);
        assert_eq!(health.reason(), "refused");
        assert_eq!(health.answered(now), Some(Change::Works(now - began)));
        assert_eq!(health.answered(now), None);
        assert!(health.may_ask(now, TRIAL) && !health.is_down() && health.reason().is_empty());
    }

    #[test]
    fn a_trial_that_is_lost_is_repeated_and_an_answer_between_failures_counts() {
        let now = Instant::now();
        let mut health = Health::default();
        for _ in 0..3 * FAILURES {
            health.failed(now, "x");
            assert_eq!(health.answered(now), None);
        }
        for _ in 0..FAILURES {
            health.failed(now, "x");
        }
        assert!(health.may_ask(now + PAUSE_FIRST, TRIAL));
        assert!(!health.may_ask(now + PAUSE_FIRST + TRIAL / 2, TRIAL));
        assert!(health.may_ask(now + PAUSE_FIRST + TRIAL, TRIAL));
        health.failed(now, "x");
        health.try_now(now);
        assert!(health.may_ask(now, TRIAL));
    }
}
