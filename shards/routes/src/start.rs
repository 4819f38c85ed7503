//! How a route begins with a site of which it knows nothing: with few connections, and with one more for each message that is
//! taken, as TCP begins on a path (RFC 5681 §3.1); and what the site has taken since, which is what its first refusals are
//! held against. So what is under way when a site first says that it is too much is in proportion to what it has taken.

use std::time::{Duration, Instant};

use crate::limits::{SAVED_UP, START_CONNECTIONS, START_PATIENCE, START_REFUSED, START_TIME};

/// How many connections a route may have, as its site's answers come.
#[derive(Debug)]
pub(crate) struct Opening {
    most: usize,
    /// When a connection was begun last.
    begun: Option<Instant>,
}

impl Default for Opening {
    fn default() -> Self {
        Self { most: START_CONNECTIONS, begun: None }
    }
}

impl Opening {
    /// How long a route that has so many connections begins no other one; zero: it may. One a second is no haste, whatever the
    /// others come to.
    pub(crate) fn wait(&self, connections: usize, now: Instant) -> Duration {
        let last = self.begun.filter(|_| connections >= self.most);
        last.map_or(Duration::ZERO, |last| (last + START_PATIENCE).saturating_duration_since(now))
    }

    /// One was begun, with which there are so many.
    pub(crate) fn begun(&mut self, connections: usize, now: Instant) {
        self.begun = Some(now);
        self.most = self.most.max(connections);
    }

    /// The site has taken a message while its route had so many connections, and work for more. `Some`: there may be one more.
    pub(crate) fn taken(&mut self, connections: usize) -> Option<Grown> {
        let grown = if self.most == START_CONNECTIONS { Grown::First } else { Grown::Further };
        let grows = connections >= self.most;
        self.most += usize::from(grows);
        grows.then_some(grown)
    }

    /// One has ended, and so many are left: what is not used is not kept for later.
    pub(crate) fn closed(&mut self, connections: usize) {
        self.most = self.most.min((2 * connections).max(START_CONNECTIONS));
    }
}

/// One more connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Grown {
    /// It is more than a route begins with: until now there was not so much to do.
    First,
    /// As there were before.
    Further,
}

/// What a site has taken and refused since its route has begun, or has gone on after a pause.
#[derive(Debug, Default)]
pub(crate) struct Run {
    /// When the first of them was begun, and the last one answered.
    time: Option<(Instant, Instant)>,
    taken: u32,
    refused: u32,
}

impl Run {
    /// A message that was begun then was answered.
    pub(crate) fn answered(&mut self, takes: bool, began: Instant, now: Instant) {
        match &mut self.time {
            Some((_, last)) if began.saturating_duration_since(*last) < START_TIME => *last = now,
            _ => *self = Self { time: Some((began, now)), ..Self::default() },
        }
        let count = if takes { &mut self.taken } else { &mut self.refused };
        *count = count.saturating_add(1);
    }

    /// Whether it has not lasted for long enough that the pace of now would be known to be borne.
    pub(crate) fn is_young(&self, now: Instant) -> bool {
        self.time.is_some_and(|(first, _)| now.saturating_duration_since(first) < START_TIME)
    }

    /// Whether so much of it was refused that it is not by chance.
    pub(crate) fn is_refused(&self) -> bool {
        u64::from(self.refused) * START_REFUSED >= u64::from(self.taken) + u64::from(self.refused)
    }

    /// How many were taken, and how many answered at all.
    pub(crate) fn answers(&self) -> (u32, u32) {
        (self.taken, self.taken.saturating_add(self.refused))
    }

    /// As many a second as were tried.
    pub(crate) fn tried(&self, now: Instant) -> f64 {
        let time = self.lasts(now).max(Duration::from_secs(1));
        (f64::from(self.taken) + f64::from(self.refused)) / time.as_secs_f64()
    }

    /// What it says of how much the site takes.
    pub(crate) fn measure(&self, now: Instant) -> Measure {
        Measure { taken: self.taken, time: self.lasts(now) + SAVED_UP, tried: self.tried(now) }
    }

    fn lasts(&self, now: Instant) -> Duration {
        self.time.map_or(Duration::ZERO, |(first, _)| now.saturating_duration_since(first))
    }
}

/// So many were taken of what a site takes in so much time: that of a run until its first refusals, and what it lets save up.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Measure {
    taken: u32,
    time: Duration,
    tried: f64,
}

impl Measure {
    /// One more of those messages was taken.
    pub(crate) fn taken(&mut self) {
        self.taken = self.taken.saturating_add(1);
    }

    /// As many a second as were tried in that run.
    pub(crate) fn tried(&self) -> f64 {
        self.tried
    }

    /// A second; `None`: nothing was taken, which is no rate.
    pub(crate) fn rate(&self) -> Option<f64> {
        (self.taken > 0).then(|| f64::from(self.taken) / self.time.as_secs_f64())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: Duration = Duration::from_secs(1);

    #[test]
    fn connections_become_more_by_what_is_taken_or_by_one_a_second_and_fewer_when_they_are_not_used() {
        let (mut opening, now) = (Opening::default(), Instant::now());
        for connections in 0..START_CONNECTIONS {
            assert_eq!(opening.wait(connections, now), Duration::ZERO);
            opening.begun(connections + 1, now);
        }
        assert_eq!(opening.wait(START_CONNECTIONS, now), START_PATIENCE);
        assert_eq!(opening.taken(START_CONNECTIONS - 1), None, "those that there may be are not there");
        assert_eq!(opening.taken(START_CONNECTIONS), Some(Grown::First));
        assert_eq!(opening.wait(START_CONNECTIONS, now), Duration::ZERO);
        opening.begun(START_CONNECTIONS + 1, now);
        // Each answer lets the one that it was on go on, and another one begin: twice as many after a round trip.
        let mut connections = START_CONNECTIONS + 1;
        for _ in 0..3 {
            for n in 0..connections {
                assert_eq!(opening.taken(connections + n), Some(Grown::Further));
                opening.begun(connections + n + 1, now);
            }
            connections *= 2;
        }
        assert_eq!(connections, 8 * (START_CONNECTIONS + 1));
        assert_eq!(opening.wait(connections, now + SECOND), Duration::ZERO, "whatever is answered");
        opening.begun(connections + 1, now + SECOND);
        opening.closed(connections);
        assert_eq!(opening.wait(connections, now + SECOND), Duration::ZERO, "it is replaced");
        opening.closed(1);
        assert_eq!(opening.wait(START_CONNECTIONS, now + SECOND), START_PATIENCE);
    }

    #[test]
    fn a_run_says_what_is_taken_beyond_what_was_saved_up_and_ends_with_a_pause() {
        let (mut run, now) = (Run::default(), Instant::now());
        let at = |ms: u64| now + Duration::from_millis(ms);
        (0..30).for_each(|n| run.answered(true, at(n * 100), at(n * 100 + 50)));
        run.answered(false, at(2950), at(3000));
        assert!(run.is_young(at(3000)) && !run.is_refused(), "one of thirty");
        run.answered(false, at(2950), at(3000));
        assert!(run.is_refused(), "two of them");
        assert_eq!((run.tried(at(3000)), run.measure(at(3000)).rate()), (32.0 / 3.0, Some(6.0)));
        assert!(!run.is_young(now + START_TIME));
        let again = at(3000) + START_TIME;
        run.answered(true, again, again + SECOND);
        assert!(run.is_young(again + SECOND) && !run.is_refused());
        let mut measure = run.measure(again + SECOND);
        measure.taken();
        assert_eq!(measure.rate(), Some(2.0 / 3.0));
        assert_eq!(Run::default().measure(now).rate(), None, "nothing was taken");
    }
}
