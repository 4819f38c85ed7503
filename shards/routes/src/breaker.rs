//! Which hosts are left alone: those with which several attempts in a row came to nothing. When its pause is over, one
//! attempt finds out whether a host is back; the others go on without it until then.

use std::collections::HashMap;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use crate::limits::{HOST_FAILURES, HOST_PAUSE, HOST_PAUSE_MAX, HOST_PROVEN, HOSTS_KEPT_MAX, OUTDONE_FOR};
use crate::site::{Host, Place};

/// How much is borne of a host.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Patience {
    /// Failures in a row after which it is left alone.
    pub failures: u32,
    /// For how long at first; twice as long after each attempt that fails then.
    pub pause: Duration,
}

impl Default for Patience {
    fn default() -> Self {
        Self { failures: HOST_FAILURES, pause: HOST_PAUSE }
    }
}

/// Whether a new session should try a host.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Chance {
    /// It should.
    Open,
    /// As many as would be borne to fail are trying it, and none has succeeded yet: another one of its preference is better.
    Crowded,
    /// It is left alone.
    Left(Left),
}

/// Why a host is left alone.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Left {
    /// Until when.
    pub until: Instant,
    /// How it failed last.
    pub why: Arc<str>,
}

/// How a host does, for whoever wants to know.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Health {
    /// Failures in a row.
    pub failures: u32,
    /// Attempts that are under way.
    pub trying: u32,
    /// Left alone until then.
    pub broken_until: Option<Instant>,
    /// How it failed last.
    pub why: Arc<str>,
    /// When the first of these failures was.
    pub since: Option<Instant>,
    /// It has taken mail, and not failed since.
    pub works: bool,
    /// Until then its host is tried at an address of the other family first.
    pub outdone_until: Option<Instant>,
}

#[derive(Debug)]
struct Record {
    failures: u32,
    /// When the first of them was.
    since: Option<Instant>,
    trying: u32,
    /// How often it was found to be broken without having worked in between.
    rounds: u32,
    until: Option<Instant>,
    why: Arc<str>,
    /// When it worked last, unless it has failed since.
    worked: Option<Instant>,
    /// Until then an address of its host's that is of the other family goes first: it was quicker, or the only one to answer.
    outdone: Option<Instant>,
    /// When something was last known of it.
    seen: Instant,
}

/// The hosts of a shard that are tried, or were.
#[derive(Debug, Default)]
pub struct Breaker {
    records: HashMap<Place, Record>,
}

impl Breaker {
    /// Whether a new session should try the host there.
    pub fn chance(&self, place: &Place, patience: Patience, now: Instant) -> Chance {
        let Some(record) = self.records.get(place) else { return Chance::Open };
        match record.until {
            Some(until) if until > now || record.trying > 0 => Chance::Left(Left { until, why: record.why.clone() }),
            Some(_) => Chance::Open,
            // Those that are under way may all fail, and it is no use to find that out more often.
            None if record.failures + record.trying >= patience.failures && !record.is_proven(now) => Chance::Crowded,
            None => Chance::Open,
        }
    }

    /// An attempt begins. Say what came of it by one of [`Breaker::worked`], [`Breaker::failed`] and [`Breaker::withdrawn`].
    pub fn begin(&mut self, place: &Place, now: Instant) {
        self.make_room();
        let record = self.records.entry(place.clone()).or_insert_with(|| Record::new(now));
        record.trying += 1;
        record.seen = now;
    }

    /// The host takes mail.
    pub fn worked(&mut self, place: &Place, now: Instant) {
        let Some(record) = self.records.get_mut(place) else { return };
        let trying = record.trying.saturating_sub(1);
        *record = Record { trying, worked: Some(now), ..Record::new(now) };
    }

    /// No session came of it. Returns for how long the host is left alone from now on, if this was one too many.
    pub fn failed(&mut self, place: &Place, why: &str, patience: Patience, now: Instant) -> Option<Duration> {
        let record = self.records.get_mut(place)?;
        record.trying = record.trying.saturating_sub(1);
        record.failures += 1;
        (record.why, record.worked, record.seen) = (why.into(), None, now);
        record.since = record.since.or(Some(now));
        // An attempt that began before the pause says nothing new.
        if record.failures < patience.failures || record.until.is_some_and(|until| until > now) {
            return None;
        }
        let pause = patience.pause.saturating_mul(1 << record.rounds.min(16)).min(HOST_PAUSE_MAX.max(patience.pause));
        record.rounds += 1;
        record.until = Some(now + pause);
        Some(pause)
    }

    /// The attempt failed for a reason that is not the host's.
    pub fn withdrawn(&mut self, place: &Place) {
        if let Some(record) = self.records.get_mut(place) {
            record.trying = record.trying.saturating_sub(1);
        }
    }

    /// An address of the same host and of the other family has answered first (RFC 8305 §5): that family goes first there for
    /// [`OUTDONE_FOR`], or until this address has worked. Said of an attempt that has begun.
    pub fn outdone(&mut self, place: &Place, now: Instant) {
        if let Some(record) = self.records.get_mut(place) {
            record.outdone = Some(now + OUTDONE_FOR);
        }
    }

    /// Whether the other family goes first.
    pub fn is_outdone(&self, place: &Place, now: Instant) -> bool {
        self.records.get(place).is_some_and(|record| record.outdone.is_some_and(|until| until > now))
    }

    /// How a host does; `None`: nothing is known against it.
    pub fn health(&self, place: &Place, now: Instant) -> Option<Health> {
        let record = self.records.get(place)?;
        let broken_until = record.until.filter(|until| *until > now || record.trying > 0);
        let outdone_until = record.outdone.filter(|until| *until > now);
        let (failures, trying, since, works) = (record.failures, record.trying, record.since, record.worked.is_some());
        Some(Health { failures, trying, broken_until, why: record.why.clone(), since, works, outdone_until })
    }

    /// Nothing is held against any host any more: an administrator knows better.
    pub fn forgive(&mut self) {
        self.records.retain(|_, record| record.trying > 0);
        for record in self.records.values_mut() {
            (record.failures, record.since, record.rounds, record.until) = (0, None, 0, None);
            record.outdone = None;
        }
    }

    /// Beyond the bound, half of those are forgotten of which nothing was heard for longest.
    fn make_room(&mut self) {
        if self.records.len() < HOSTS_KEPT_MAX {
            return;
        }
        let mut seen: Vec<Instant> = self.records.values().map(|record| record.seen).collect();
        let (_, median, _) = seen.select_nth_unstable(HOSTS_KEPT_MAX / 2);
        let median = *median;
        self.records.retain(|_, record| record.trying > 0 || record.seen > median);
    }
}

impl Record {
    fn new(now: Instant) -> Self {
        let (until, worked, outdone) = (None, None, None);
        Self { failures: 0, since: None, trying: 0, rounds: 0, until, why: "".into(), worked, outdone, seen: now }
    }

    fn is_proven(&self, now: Instant) -> bool {
        self.worked.is_some_and(|worked| now.saturating_duration_since(worked) < HOST_PROVEN)
    }
}

impl Host {
    /// What is known of this host at one of its addresses belongs to: who fails where a certificate must be valid may do for
    /// those who do not care. `terms` are those of the site.
    pub fn place(&self, address: SocketAddr, terms: &str) -> Place {
        let demands = match (self.demands(), terms) {
            (None, "") => Box::default(),
            (demands, terms) => format!("{} {terms}", demands.unwrap_or_default()).into(),
        };
        Place { address, demands }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const PATIENCE: Patience = Patience { failures: 3, pause: Duration::from_secs(60) };

    fn place(last: u8) -> Place {
        Place { address: SocketAddr::from(([192, 0, 2, last], 25)), demands: Box::default() }
    }

    fn fail(breaker: &mut Breaker, now: Instant) -> Option<Duration> {
        breaker.begin(&place(1), now);
        breaker.failed(&place(1), "connection refused", PATIENCE, now)
    }

    fn is_open(breaker: &Breaker, now: Instant) -> bool {
        breaker.chance(&place(1), PATIENCE, now) == Chance::Open
    }

    #[test]
    fn s83_a_host_that_fails_too_often_is_left_alone_until_one_attempt_finds_it_back() {
        let (mut breaker, now) = (Breaker::default(), Instant::now());
        assert_eq!((fail(&mut breaker, now), fail(&mut breaker, now)), (None, None));
        assert!(is_open(&breaker, now));
        assert_eq!(fail(&mut breaker, now), Some(PATIENCE.pause));
        let Chance::Left(left) = breaker.chance(&place(1), PATIENCE, now) else { panic!("left alone") };
        assert_eq!((left.until, &*left.why), (now + PATIENCE.pause, "connection refused"));
        assert_eq!(breaker.chance(&place(2), PATIENCE, now), Chance::Open, "the others are not");
        let health = breaker.health(&place(1), now + PATIENCE.pause / 2).expect("it is known");
        assert_eq!((health.failures, health.since, health.works), (3, Some(now), false));

        let then = now + PATIENCE.pause;
        assert!(is_open(&breaker, then));
        breaker.begin(&place(1), then);
        assert!(!is_open(&breaker, then), "one finds out for all");
        breaker.worked(&place(1), then);
        assert!(is_open(&breaker, then));
        assert_eq!(fail(&mut breaker, then), None, "and it has its whole credit again");
    }

    #[test]
    fn s83_the_pause_grows_up_to_its_bound_and_late_failures_do_not_add_to_it() {
        let (mut breaker, mut now) = (Breaker::default(), Instant::now());
        (0..5).for_each(|_| breaker.begin(&place(1), now));
        let pauses: Vec<_> = (0..5).map(|_| breaker.failed(&place(1), "timeout", PATIENCE, now)).collect();
        assert_eq!(pauses, [None, None, Some(PATIENCE.pause), None, None]);
        let mut last = PATIENCE.pause;
        for _ in 0..10 {
            now += last;
            let next = fail(&mut breaker, now).expect("a probe that fails makes another pause");
            assert_eq!(next, (2 * last).min(HOST_PAUSE_MAX));
            last = next;
        }
        assert_eq!(last, HOST_PAUSE_MAX);
        breaker.forgive();
        assert!(is_open(&breaker, now));
    }

    #[test]
    fn s83_no_more_try_a_host_at_once_than_may_fail_unless_it_is_known_to_work() {
        let (mut breaker, now) = (Breaker::default(), Instant::now());
        (0..3).for_each(|_| breaker.begin(&place(1), now));
        assert!(!is_open(&breaker, now), "nobody knows yet whether it works");
        breaker.worked(&place(1), now);
        (0..20).for_each(|_| breaker.begin(&place(1), now));
        assert!(is_open(&breaker, now));
        assert!(!is_open(&breaker, now + HOST_PROVEN), "that was long ago");
        (0..22).for_each(|_| breaker.withdrawn(&place(1)));
        assert!(is_open(&breaker, now + HOST_PROVEN), "what was our own fault counts for nothing");
    }

    #[test]
    fn an_address_that_was_outdone_is_second_for_a_while_or_until_it_works() {
        let (mut breaker, now) = (Breaker::default(), Instant::now());
        breaker.outdone(&place(1), now);
        assert!(!breaker.is_outdone(&place(1), now), "nobody has tried it");
        let race = |breaker: &mut Breaker| {
            breaker.begin(&place(1), now);
            breaker.withdrawn(&place(1));
            breaker.outdone(&place(1), now);
            assert!(
                breaker.is_outdone(&place(1), now) && is_open(breaker, now),
                "second, but nothing is held against it"
            );
        };
        race(&mut breaker);
        assert!(!breaker.is_outdone(&place(2), now));
        assert!(!breaker.is_outdone(&place(1), now + OUTDONE_FOR), "then it has another chance");
        breaker.begin(&place(1), now);
        breaker.worked(&place(1), now);
        assert!(!breaker.is_outdone(&place(1), now), "it works");
        race(&mut breaker);
        breaker.forgive();
        assert!(!breaker.is_outdone(&place(1), now), "an administrator knows better");
    }

    #[test]
    fn what_is_kept_is_bounded() {
        let (mut breaker, now) = (Breaker::default(), Instant::now());
        for n in 0..2 * HOSTS_KEPT_MAX as u32 {
            let place = Place { address: (std::net::Ipv4Addr::from(n), 25).into(), demands: Box::default() };
            breaker.begin(&place, now + Duration::from_millis(u64::from(n)));
            breaker.withdrawn(&place);
        }
        assert!(breaker.records.len() <= HOSTS_KEPT_MAX, "{}", breaker.records.len());
    }
}
