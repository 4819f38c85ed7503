//! What a site's replies say of how much it takes, and what its route does about it (grammar §4.13).
//!
//! As TCP finds the capacity of a path (Chiu and Jain, "Analysis of the increase and decrease algorithms for congestion
//! avoidance", 1989): what a site refuses lowers a bound by a part of it, and time raises it by a fixed step. Two bounds are
//! found so, messages a second and connections. What was under way when a bound was lowered says nothing of the lower one,
//! so all that is refused together counts once. Told replies and the time; on a route's way to `shard` it only says what to do.

use std::net::IpAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use crate::fair::Waiting;
use crate::limits::{
    ANSWERS_MIN, BACK_OFF_MAX, BACK_OFF_MIN, CONNECTIONS_KEPT, DOUBLED_FOR, DOUBLED_IN, KEPT_AT_LEAST, KEPT_AT_MOST,
    PRESSED_FOR, RATE_MIN, RATE_UNMEASURED, REST_BELOW, RISE_A_MINUTE, Rate, SUSPENDED_MAX,
};
use crate::schedule::{RouteId, Routes};
use crate::start::{Grown, Measure, Run};

/// What a route does otherwise since a reply.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Change {
    /// Messages a second.
    Rate {
        /// Before.
        from: f64,
        /// From now on.
        to: f64,
    },
    /// Connections.
    Connections {
        /// Those that there were, or might have been.
        from: usize,
        /// As many as may be from now on.
        to: usize,
    },
    /// The site takes nothing: it has no message for so long.
    Rest(Duration),
}

/// What a message has changed that was taken after others had been refused.
#[derive(Clone, Debug, PartialEq)]
pub struct Late {
    /// How.
    pub change: Change,
    /// What had been said to the others.
    pub reply: Arc<str>,
}

/// A site that has no mail for a time, since the configuration says so of a reply.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Suspension {
    /// The reply.
    pub reply: Arc<str>,
    /// When it came.
    pub since: Instant,
    /// When the site has mail again.
    pub until: Instant,
}

/// What holds a route back that its shape would allow.
#[derive(Clone, Debug, PartialEq)]
pub struct Slowed {
    /// Messages a second, if they are held back.
    pub rate: Option<f64>,
    /// Connections, if they are.
    pub connections: Option<usize>,
    /// The last reply that has lowered one of them.
    pub reply: Arc<str>,
    /// When it came.
    pub since: Instant,
}

/// All that a route has learnt of its site.
#[derive(Debug, Default)]
pub(crate) struct Feedback {
    meter: Meter,
    answers: Answers,
    run: Run,
    /// The run until the last decision, if that was about its site as a new one: what was under way is still answered.
    measured: Option<Measure>,
    /// What was begun before says nothing new: the rate was lowered then, or a rest began.
    since: Option<Instant>,
    rate: Option<Bound>,
    connections: Option<Bound>,
    /// No message before then, how many times in a row it has been so, and the last reply.
    rest: Option<(Instant, u32, Arc<str>)>,
    suspension: Option<Suspension>,
}

/// Answers to messages that were begun since the last decision.
#[derive(Clone, Copy, Debug, Default)]
struct Answers {
    taken: u32,
    refused: u32,
    /// Taken since then, though begun before.
    late: u32,
}

/// A bound that was lowered and rises again.
#[derive(Debug)]
struct Bound {
    /// What it was lowered to.
    to: f64,
    rise: Rise,
    lowered: Instant,
    /// When the last such reply came, whether it has lowered it or not.
    pressed: Instant,
    reply: Arc<str>,
}

/// How a bound rises.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Rise {
    /// By so much a minute, from what is known to be too much for now.
    Step(f64),
    /// Doubled in [`DOUBLED_IN`], from what a new site is thought to take.
    Doubling,
}

impl Bound {
    fn new(to: f64, rise: Rise, reply: &str, now: Instant) -> Self {
        Self { to, rise, lowered: now, pressed: now, reply: reply.into() }
    }

    fn at(&self, now: Instant) -> f64 {
        let time = now.saturating_duration_since(self.lowered).as_secs_f64();
        match self.rise {
            Rise::Step(a_minute) => self.to + a_minute * time / 60.0,
            Rise::Doubling => self.to * (time / DOUBLED_IN.as_secs_f64()).exp2(),
        }
    }

    /// So long after it was pressed last it is forgotten.
    fn lasts(&self) -> Duration {
        if self.rise == Rise::Doubling { DOUBLED_FOR } else { PRESSED_FOR }
    }

    /// Where it stands; `None`: it has been reached by what there is without it, or has not been pressed for long.
    fn within(bound: &mut Option<Self>, top: Option<f64>, now: Instant) -> Option<f64> {
        let found = bound.as_ref()?;
        let value = found.at(now);
        if top.is_some_and(|top| value >= top) || now.saturating_duration_since(found.pressed) >= found.lasts() {
            *bound = None;
            return None;
        }
        Some(value)
    }
}

impl Feedback {
    /// The site has taken a message that was begun then.
    pub(crate) fn taken(&mut self, began: Instant, now: Instant) -> Option<Late> {
        self.meter.count(now);
        if self.is_old(began) {
            self.answers.late = self.answers.late.saturating_add(1);
            return self.taken_late(now);
        }
        self.run.answered(true, began, now);
        self.answers.taken = self.answers.taken.saturating_add(1);
        self.rest = None;
        None
    }

    /// There is much more for the site than there was until now, at a pace that it has not borne yet: it is as if it were new.
    pub(crate) fn more_to_do(&mut self, now: Instant) {
        if self.rate.is_none() && !self.run.is_young(now) {
            self.run = Run::default();
        }
    }

    /// What a new site has taken since it was found to refuse some is a part of what it takes, too: it refuses at once, and
    /// takes its time for what it takes. Where it had taken nothing until then, the first of them sets its rate.
    fn taken_late(&mut self, now: Instant) -> Option<Late> {
        let measure = self.measured.as_mut()?;
        measure.taken();
        let to = measure.rate()?;
        match (&mut self.rate, &self.rest) {
            (Some(bound), _) if bound.rise == Rise::Doubling => bound.to = bound.to.max(to),
            (None, Some((_, _, reply))) => {
                let change = Change::Rate { from: measure.tried(), to };
                let reply = reply.clone();
                self.rate = Some(Bound::new(to, Rise::Doubling, &reply, now));
                return Some(Late { change, reply });
            }
            _ => {}
        }
        None
    }

    /// It has refused one, saying that it has too many of them. `top`: as many a second as the route's shape allows.
    pub(crate) fn refused(&mut self, reply: &str, began: Instant, now: Instant, top: Option<f64>) -> Option<Change> {
        self.meter.count(now);
        if let Some(rate) = &mut self.rate {
            rate.pressed = now;
        }
        if self.is_old(began) {
            return None;
        }
        self.run.answered(false, began, now);
        self.answers.refused = self.answers.refused.saturating_add(1);
        let Answers { taken, refused, late } = self.answers;
        if taken.saturating_add(refused) < ANSWERS_MIN {
            return None;
        }
        // A site refuses at once, and takes its time for what it takes: of that some may have come after the last decision.
        if taken == 0 && late == 0 {
            // How much less it would take cannot be told from that.
            return Some(self.begin_rest(reply, now));
        }
        let bound = self.rate(top, now);
        let is_doubling = self.rate.as_ref().is_some_and(|bound| bound.rise == Rise::Doubling);
        if self.run.is_young(now) && (bound.is_none() || is_doubling) {
            return match self.run.answers() {
                (_, 0..ANSWERS_MIN) => None,
                (0, _) => Some(self.begin_rest(reply, now)),
                _ if self.run.is_refused() => self.begin_anew(reply, now, top),
                _ => None,
            };
        }
        let from = match bound {
            // It may have risen to more than anybody has asked for.
            Some(rate) if is_doubling => rate.min(self.meter.rate(now)?),
            Some(rate) => rate,
            None => self.meter.rate(now)?.min(top.unwrap_or(f64::MAX)),
        };
        let kept = f64::from(taken) / (f64::from(taken) + f64::from(refused));
        let to = from * kept.clamp(KEPT_AT_LEAST, KEPT_AT_MOST);
        if kept < REST_BELOW {
            // It is far above what the site takes: what is under way is too much already.
            self.rest = Some((now + BACK_OFF_MIN, 0, reply.into()));
        }
        Some(self.lower(from, to, Rise::Step(to * RISE_A_MINUTE), reply, now))
    }

    /// The configuration says that a reply lowers the rate by so many percent.
    pub(crate) fn throttle(
        &mut self,
        percent: u8,
        reply: &str,
        began: Instant,
        now: Instant,
        top: Option<f64>,
    ) -> Option<Change> {
        self.meter.count(now);
        if let Some(rate) = &mut self.rate {
            rate.pressed = now;
        }
        if self.is_old(began) {
            return None;
        }
        let measured = self.meter.rate(now).unwrap_or(RATE_UNMEASURED);
        let from = self.rate(top, now).or(top).unwrap_or(measured);
        let to = from * f64::from(100 - percent.min(100)) / 100.0;
        Some(self.lower(from, to, Rise::Step(from * RISE_A_MINUTE), reply, now))
    }

    /// A site of which little is known refuses a part of what it is sent: what it has taken says at once how much it takes. It
    /// rests, since that much was too much.
    fn begin_anew(&mut self, reply: &str, now: Instant, top: Option<f64>) -> Option<Change> {
        let (measure, tried) = (self.run.measure(now), self.run.tried(now));
        let to = measure.rate()?.min(top.map_or(f64::MAX, |top| top * KEPT_AT_MOST));
        let change = self.lower(tried, to, Rise::Doubling, reply, now);
        (self.rest, self.measured) = (Some((now + BACK_OFF_MIN, 0, reply.into())), Some(measure));
        Some(change)
    }

    fn lower(&mut self, from: f64, to: f64, rise: Rise, reply: &str, now: Instant) -> Change {
        let to = to.max(RATE_MIN);
        let rise = if let Rise::Step(a_minute) = rise { Rise::Step(a_minute.max(RATE_MIN)) } else { rise };
        self.rate = Some(Bound::new(to, rise, reply, now));
        self.decided(now);
        Change::Rate { from, to }
    }

    fn decided(&mut self, now: Instant) {
        (self.answers, self.run, self.measured, self.since) = (Answers::default(), Run::default(), None, Some(now));
    }

    fn begin_rest(&mut self, reply: &str, now: Instant) -> Change {
        let times = self.rest.as_ref().map_or(0, |(_, times, _)| *times);
        let pause = (BACK_OFF_MIN * (1 << times.min(8))).min(BACK_OFF_MAX);
        self.rest = Some((now + pause, times + 1, reply.into()));
        let measure = self.run.is_young(now).then(|| self.run.measure(now));
        self.decided(now);
        self.measured = measure;
        Change::Rest(pause)
    }

    /// A connection that was begun then was refused, since there are too many; there were `have` with it, of at most `most`.
    pub(crate) fn crowded(
        &mut self,
        reply: &str,
        began: Instant,
        now: Instant,
        have: usize,
        most: usize,
    ) -> Option<Change> {
        if let Some(bound) = &mut self.connections {
            bound.pressed = now;
            if began < bound.lowered {
                return None;
            }
        }
        let from = have.min(self.most(most, now));
        if from < 2 {
            return None;
        }
        let to = (from as f64 * CONNECTIONS_KEPT).max(1.0);
        self.connections = Some(Bound::new(to, Rise::Step(to * RISE_A_MINUTE), reply, now));
        Some(Change::Connections { from, to: to as usize })
    }

    /// The site has no mail for this time.
    pub(crate) fn suspend(&mut self, reply: &str, time: Duration, now: Instant) -> Suspension {
        let until = now + time.min(SUSPENDED_MAX);
        let since = self.suspension(now).map_or(now, |earlier| earlier.since);
        let suspension = Suspension { reply: reply.into(), since, until };
        self.suspension = Some(suspension.clone());
        suspension
    }

    /// Whether nothing was learnt that must be asked for.
    pub(crate) fn is_silent(&self) -> bool {
        self.rate.is_none() && self.connections.is_none() && self.rest.is_none() && self.suspension.is_none()
    }

    /// Messages a second that the site takes; `None`: as many as `top` says.
    pub(crate) fn rate(&mut self, top: Option<f64>, now: Instant) -> Option<f64> {
        Bound::within(&mut self.rate, top, now)
    }

    /// Whether it was suspended; the time of that may be over.
    pub(crate) fn was_suspended(&self) -> bool {
        self.suspension.is_some()
    }

    /// As many connections as may be, of `most` by the route's shape.
    pub(crate) fn most(&mut self, most: usize, now: Instant) -> usize {
        Bound::within(&mut self.connections, Some(most as f64), now).map_or(most, |found| (found as usize).max(1))
    }

    /// How long nothing is sent, so that the site may rest.
    pub(crate) fn rest(&self, now: Instant) -> Option<Duration> {
        self.resting(now).map(|(until, _)| until - now)
    }

    /// Until when, and the reply that has led to it.
    pub(crate) fn resting(&self, now: Instant) -> Option<(Instant, &Arc<str>)> {
        self.rest.as_ref().map(|(until, _, reply)| (*until, reply)).filter(|(until, _)| *until > now)
    }

    /// Whether the site has no mail now.
    pub(crate) fn suspension(&mut self, now: Instant) -> Option<&Suspension> {
        self.suspension.take_if(|suspension| suspension.until <= now);
        self.suspension.as_ref()
    }

    /// What holds the route back, if something does.
    pub(crate) fn slowed(&mut self, top: Option<f64>, most: usize, now: Instant) -> Option<Slowed> {
        let rate = self.rate(top, now);
        let connections = Some(self.most(most, now)).filter(|found| *found < most);
        let last = self.rate.iter().chain(&self.connections).max_by_key(|bound| bound.lowered)?;
        Some(Slowed { rate, connections, reply: last.reply.clone(), since: last.lowered })
    }

    /// An administrator wants the site to be tried; what it takes is not known better for that.
    pub(crate) fn resume(&mut self) {
        (self.rest, self.suspension) = (None, None);
    }

    fn is_old(&self, began: Instant) -> bool {
        self.since.is_some_and(|since| began < since)
    }
}

/// How many answers came lately.
#[derive(Debug, Default)]
struct Meter {
    /// Of the current piece of time.
    began: Option<Instant>,
    current: u32,
    /// Answers in the piece before, if there were any.
    before: Option<u32>,
}

impl Meter {
    const PIECE: Duration = Duration::from_secs(1);
    /// Of less time, some that come at once would say too much, and the first of many too little.
    const TIME_MIN: Duration = Duration::from_millis(20);

    fn roll(&mut self, now: Instant) -> Instant {
        let began = self.began.unwrap_or(now);
        let began = match now.saturating_duration_since(began) {
            gap if gap >= 2 * Self::PIECE => {
                (self.before, self.current) = (None, 0);
                now
            }
            gap if gap >= Self::PIECE => {
                (self.before, self.current) = (Some(self.current), 0);
                began + Self::PIECE
            }
            _ => began,
        };
        self.began = Some(began);
        began
    }

    fn count(&mut self, now: Instant) {
        self.roll(now);
        self.current = self.current.saturating_add(1);
    }

    /// A second, [`RATE_UNMEASURED`] at least. `None`: that will be known very soon.
    fn rate(&mut self, now: Instant) -> Option<f64> {
        let began = self.roll(now);
        let time = now.saturating_duration_since(began) + self.before.map_or(Duration::ZERO, |_| Self::PIECE);
        if time < Self::TIME_MIN {
            // One after a long time is no beginning of many.
            return (self.current < 2).then_some(RATE_UNMEASURED);
        }
        let count = f64::from(self.before.unwrap_or(0)) + f64::from(self.current);
        Some((count / time.as_secs_f64()).max(RATE_UNMEASURED))
    }
}

impl Rate {
    /// Events a second.
    pub(crate) fn a_second(self) -> f64 {
        f64::from(self.count) / self.per.as_secs_f64()
    }

    /// The nearest to so many events a second, to a thousandth of one.
    pub(crate) fn of_a_second(rate: f64) -> Self {
        Self { count: (rate * 1000.0).round().clamp(1.0, f64::from(u32::MAX)) as u32, per: Duration::from_secs(1000) }
    }
}

impl<T: Waiting> Routes<T> {
    /// The site of the route has taken a message that was begun then.
    pub fn taken(&mut self, id: RouteId, began: Instant, now: Instant) -> Option<Late> {
        let route = self.route(id);
        let late = route.feedback.taken(began, now);
        if route.ready.is_empty() {
            return late;
        }
        let grown = route.start.taken(route.opening + route.open);
        if grown == Some(Grown::First) {
            route.feedback.more_to_do(now);
        }
        if grown.is_some() {
            self.want(id.0, now);
        }
        late
    }

    /// It has refused a message that was begun then: it has too many of them.
    pub fn refused(&mut self, id: RouteId, reply: &str, began: Instant, now: Instant) -> Option<Change> {
        let route = self.route(id);
        let top = route.shape.rate.map(Rate::a_second);
        route.feedback.refused(reply, began, now, top)
    }

    /// It has said to something that was begun then what, by the configuration, lowers its rate by so many percent.
    pub fn throttle(&mut self, id: RouteId, percent: u8, reply: &str, began: Instant, now: Instant) -> Option<Change> {
        let route = self.route(id);
        let top = route.shape.rate.map(Rate::a_second);
        route.feedback.throttle(percent, reply, began, now, top)
    }

    /// It has too many connections; one that was begun then was refused, or learnt it.
    pub fn crowded(&mut self, id: RouteId, reply: &str, began: Instant, now: Instant) -> Option<Change> {
        let route = self.route(id);
        let (have, most) = (route.opening + route.open, route.shape.connections);
        route.feedback.crowded(reply, began, now, have, most)
    }

    /// It has no mail for this time. Its tickets come back.
    pub fn suspend(&mut self, id: RouteId, reply: &str, time: Duration, now: Instant) -> (Suspension, Vec<T>) {
        let suspension = self.route(id).feedback.suspend(reply, time, now);
        (suspension, self.take_all(id))
    }

    /// A source is not used for its hosts until then. False: it is the only one there is of its family, or it was out already.
    pub fn retire_source(&mut self, id: RouteId, source: IpAddr, until: Instant, now: Instant) -> bool {
        let route = self.route(id);
        let other = |other: &&IpAddr| other.is_ipv4() == source.is_ipv4() && **other != source;
        let has_other = route.site.sources.iter().any(|one| other(&one) && !route.turns.is_retired(*one, now));
        let retires = has_other && !route.turns.is_retired(source, now);
        if retires {
            route.turns.retire(source, until);
        }
        retires
    }

    /// Whether connections from a source are to end.
    pub fn is_retired(&self, id: RouteId, source: IpAddr, now: impl FnOnce() -> Instant) -> bool {
        let turns = &self.look(id).turns;
        turns.has_retired() && turns.is_retired(source, now())
    }

    /// Whether its site minds how many connections there are.
    pub fn counts_connections(&self, id: RouteId) -> bool {
        self.look(id).feedback.connections.is_some()
    }
}

#[cfg(test)]
mod tests;
