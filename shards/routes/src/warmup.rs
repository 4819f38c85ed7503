//! Warm-up of source addresses (grammar §4.13): what a new one may send to each site, day by day since its first use, and the
//! ledger of what was allowed. There is one ledger for all shards; they ask it for some messages at a time ([`crate::leases`])
//! and give back what they do not use. What is in it survives restarts: whoever keeps it writes it down before he answers.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::sync::Arc;

use crate::limits::{LEASES_A_STEP, Rate, WARMING_ADDRESSES, WARMING_SITES};

/// Days begin and end as those of the calendar do, in UTC.
const DAY_MS: u64 = 86_400_000;

/// What a new source address may send to a site.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Schedule {
    /// Its name.
    pub name: Arc<str>,
    /// Of each day since the address was first used, each for a day at most; behind the last there is no cap.
    pub steps: Vec<Rate>,
}

/// Messages of one source address to one site.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Asking {
    /// The address.
    pub source: IpAddr,
    /// The site's name.
    pub site: Arc<str>,
    /// How the address warms up.
    pub schedule: Arc<Schedule>,
    /// How many.
    pub count: u32,
}

/// The answer to it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Allowed {
    /// As many as there are, from now on: it has warmed up.
    Freely,
    /// Some of them.
    Some {
        /// How many, at least one.
        count: u32,
        /// To be sent before this, in milliseconds since 1970.
        until_ms: u64,
    },
    /// None: all are used.
    Spent {
        /// As many as there were.
        cap: Rate,
        /// There are new ones then, in milliseconds since 1970.
        until_ms: u64,
    },
    /// It cannot be known now, and why.
    Unknown(String),
}

/// An address that warms up by one schedule.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Warming {
    /// The address.
    pub source: IpAddr,
    /// Name of the schedule.
    pub schedule: String,
    /// The day of its first use: days since 1970.
    pub began: u64,
    /// That of the last one.
    pub used: u64,
    /// What it may have sent that day, by site.
    pub sites: BTreeMap<Arc<str>, Given>,
}

/// What was allowed to one site.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Given {
    /// The beginning of the time that it counts for, in milliseconds since 1970.
    pub from_ms: u64,
    /// Messages.
    pub count: u32,
}

/// What was allowed to all of them.
#[derive(Debug, Default)]
pub struct Ledger {
    all: BTreeMap<(IpAddr, String), Warming>,
    /// The day whose counts it has.
    today: u64,
}

impl Ledger {
    /// With what was kept of an earlier one.
    pub fn new(kept: impl IntoIterator<Item = Warming>) -> Self {
        let mut ledger = Self::default();
        for one in kept {
            ledger.today = ledger.today.max(one.used);
            ledger.all.insert((one.source, one.schedule.clone()), one);
        }
        ledger
    }

    /// All of it, for whoever keeps it or shows it.
    pub fn all(&self) -> impl Iterator<Item = &Warming> {
        self.all.values()
    }

    /// Allows some of what is asked for, so that not one shard has all, and writes it down.
    pub fn ask(&mut self, asking: &Asking, now_ms: u64) -> Allowed {
        self.turn(now_ms);
        let key = (asking.source, asking.schedule.name.to_string());
        let today = self.today;
        if let Some(known) = self.all.get_mut(&key) {
            // Of a clock that was ahead.
            known.began = known.began.min(today);
            known.used = today;
        }
        let known = self.all.get(&key);
        let Some(step) = asking.schedule.step(known.map(|known| known.began), now_ms) else { return Allowed::Freely };
        let given = known.and_then(|known| known.sites.get(&asking.site));
        let used = given.filter(|given| given.from_ms == step.from_ms).map_or(0, |given| given.count);
        let (cap, until_ms) = (step.cap, step.until_ms);
        let left = cap.count.saturating_sub(used);
        if left == 0 {
            return Allowed::Spent { cap, until_ms };
        }
        if given.is_none() && self.sites() >= WARMING_SITES {
            return Allowed::Unknown(format!("{WARMING_SITES} sites have had mail of addresses that warm up today"));
        }
        let count = asking.count.clamp(1, (cap.count / LEASES_A_STEP).max(1)).min(left);
        let warming = self.entry(key);
        warming.sites.insert(asking.site.clone(), Given { from_ms: step.from_ms, count: used + count });
        Allowed::Some { count, until_ms }
    }

    /// Whether nothing was allowed to an address today, whatever the site.
    pub fn is_first(&self, asking: &Asking, now_ms: u64) -> bool {
        let known = self.all.get(&(asking.source, asking.schedule.name.to_string()));
        self.today < now_ms / DAY_MS || known.is_none_or(|known| known.sites.is_empty())
    }

    /// So many of what was allowed were not sent.
    pub fn give_back(&mut self, unused: &Asking, now_ms: u64) {
        self.turn(now_ms);
        let key = (unused.source, unused.schedule.name.to_string());
        let Some(warming) = self.all.get_mut(&key) else { return };
        let Some(step) = unused.schedule.step(Some(warming.began), now_ms) else { return };
        let given = warming.sites.get_mut(&unused.site).filter(|given| given.from_ms == step.from_ms);
        if let Some(given) = given {
            given.count = given.count.saturating_sub(unused.count);
        }
    }

    /// Counts are of one day.
    fn turn(&mut self, now_ms: u64) {
        let today = now_ms / DAY_MS;
        // A clock that was set back makes nothing of what was counted undone.
        if self.today < today {
            self.today = today;
            self.all.values_mut().for_each(|warming| warming.sites.clear());
        }
    }

    fn sites(&self) -> usize {
        self.all.values().map(|warming| warming.sites.len()).sum()
    }

    /// What is known of an address, or nothing yet; beyond the bound, the one is forgotten that was not used for longest.
    fn entry(&mut self, key: (IpAddr, String)) -> &mut Warming {
        if !self.all.contains_key(&key) && self.all.len() >= WARMING_ADDRESSES {
            let oldest = self.all.iter().min_by_key(|(_, warming)| warming.used).map(|(key, _)| key.clone());
            oldest.and_then(|oldest| self.all.remove(&oldest));
        }
        let (source, schedule, began) = (key.0, key.1.clone(), self.today);
        let sites = BTreeMap::new();
        self.all.entry(key).or_insert(Warming { source, schedule, began, used: began, sites })
    }
}

/// What may be sent in a part of a day.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Step {
    /// How many.
    pub cap: Rate,
    /// Its beginning, in milliseconds since 1970.
    pub from_ms: u64,
    /// Its end, in milliseconds since 1970.
    pub until_ms: u64,
}

impl Schedule {
    /// Which day it is since an address was first used on this one, in days since 1970; that is 1.
    pub fn day(began: u64, now_ms: u64) -> u64 {
        // A clock that was set back makes no address younger than new.
        (now_ms / DAY_MS).saturating_sub(began) + 1
    }

    /// The step of an address that was first used on this day, in days since 1970, or not yet; `None`: it has warmed up.
    pub fn step(&self, began: Option<u64>, now_ms: u64) -> Option<Step> {
        let today = now_ms / DAY_MS;
        let day = Self::day(began.unwrap_or(today), now_ms);
        let cap = *self.steps.get(usize::try_from(day - 1).ok()?)?;
        let per_ms = u64::try_from(cap.per.as_millis()).unwrap_or(DAY_MS).clamp(1, DAY_MS);
        let from_ms = today * DAY_MS + (now_ms % DAY_MS) / per_ms * per_ms;
        let until_ms = (from_ms + per_ms).min((today + 1) * DAY_MS);
        Some(Step { cap, from_ms, until_ms })
    }
}

#[cfg(test)]
pub(crate) mod tests {
    use std::time::Duration;

    use super::*;

    const HOUR_MS: u64 = 3_600_000;
    /// Some day, half past nine.
    const NOW_MS: u64 = 20_000 * DAY_MS + 9 * HOUR_MS + HOUR_MS / 2;

    pub(crate) fn schedule(steps: &[(u32, u64)]) -> Arc<Schedule> {
        let rate = |(count, seconds): &(u32, u64)| Rate { count: *count, per: Duration::from_secs(*seconds) };
        Arc::new(Schedule { name: "slow".into(), steps: steps.iter().map(rate).collect() })
    }

    fn asking(site: &str, schedule: &Arc<Schedule>, count: u32) -> Asking {
        Asking { source: [192, 0, 2, 1].into(), site: site.into(), schedule: schedule.clone(), count }
    }

    /// Takes all that is allowed now; how much that was, and what is said then.
    fn take_all(ledger: &mut Ledger, asking: &Asking, now_ms: u64) -> (u32, Allowed) {
        let mut taken = 0;
        loop {
            match ledger.ask(asking, now_ms) {
                Allowed::Some { count, .. } => taken += count,
                other => return (taken, other),
            }
        }
    }

    #[test]
    fn a_new_address_has_each_days_cap_for_each_site_and_none_behind_the_last() {
        let slow = schedule(&[(50, 86_400), (100, 86_400), (1000, 86_400)]);
        let mut ledger = Ledger::default();
        for (day, cap) in [(0, 50), (1, 100), (2, 1000)] {
            let (now_ms, until_ms) = (NOW_MS + day * DAY_MS, (20_001 + day) * DAY_MS);
            for site in ["a", "b"] {
                let (taken, end) = take_all(&mut ledger, &asking(site, &slow, 7), now_ms);
                assert_eq!((taken, end), (cap, Allowed::Spent { cap: slow.steps[day as usize], until_ms }));
            }
            assert_eq!(take_all(&mut ledger, &asking("a", &slow, 7), until_ms - 1).0, 0, "the day is not over");
        }
        assert_eq!(ledger.ask(&asking("a", &slow, 1), NOW_MS + 3 * DAY_MS), Allowed::Freely);
        // Another address is new.
        let other = Asking { source: [192, 0, 2, 2].into(), ..asking("a", &slow, 99) };
        assert_eq!(take_all(&mut ledger, &other, NOW_MS + 3 * DAY_MS).0, 50);
    }

    #[test]
    fn a_cap_of_an_hour_counts_for_each_hour_of_its_day() {
        let hours = schedule(&[(10, 3600), (5, 7 * 3600)]);
        let mut ledger = Ledger::default();
        let (taken, end) = take_all(&mut ledger, &asking("a", &hours, 4), NOW_MS);
        let until_ms = 20_000 * DAY_MS + 10 * HOUR_MS;
        assert_eq!((taken, end), (10, Allowed::Spent { cap: hours.steps[0], until_ms }));
        assert_eq!(take_all(&mut ledger, &asking("a", &hours, 4), until_ms).0, 10);
        // Seven hours fit three times; the rest of the day is a part, too.
        let midnight = 20_001 * DAY_MS;
        for hour in [0, 7, 14, 21] {
            assert_eq!(take_all(&mut ledger, &asking("a", &hours, 4), midnight + hour * HOUR_MS).0, 5, "{hour}");
        }
        assert_eq!(ledger.ask(&asking("a", &hours, 1), midnight + DAY_MS), Allowed::Freely);
    }

    #[test]
    fn nobody_gets_all_at_once_and_what_is_given_back_is_there_again() {
        let slow = schedule(&[(80, 86_400)]);
        let mut ledger = Ledger::default();
        let until_ms = 20_001 * DAY_MS;
        assert_eq!(ledger.ask(&asking("a", &slow, 1000), NOW_MS), Allowed::Some { count: 10, until_ms });
        assert_eq!(ledger.ask(&asking("a", &slow, 3), NOW_MS), Allowed::Some { count: 3, until_ms });
        assert_eq!(take_all(&mut ledger, &asking("a", &slow, 1000), NOW_MS).0, 67);
        ledger.give_back(&asking("a", &slow, 9), NOW_MS + 1);
        assert_eq!(take_all(&mut ledger, &asking("a", &slow, 1000), NOW_MS).0, 9);
        // What comes back on another day is over.
        ledger.give_back(&asking("a", &slow, 9), NOW_MS + DAY_MS);
        let two = schedule(&[(80, 86_400), (20, 86_400)]);
        assert_eq!(take_all(&mut ledger, &asking("a", &two, 1000), NOW_MS + DAY_MS).0, 20);
    }

    #[test]
    fn the_first_of_an_address_is_that_of_its_day() {
        let slow = schedule(&[(80, 86_400), (80, 86_400)]);
        let mut ledger = Ledger::default();
        let (one, other) = (asking("a", &slow, 1), Asking { source: [192, 0, 2, 2].into(), ..asking("a", &slow, 1) });
        assert!(ledger.is_first(&one, NOW_MS));
        ledger.ask(&one, NOW_MS);
        assert!(!ledger.is_first(&one, NOW_MS) && !ledger.is_first(&asking("b", &slow, 1), NOW_MS));
        assert!(ledger.is_first(&other, NOW_MS) && ledger.is_first(&one, NOW_MS + DAY_MS));
    }

    #[test]
    fn what_was_kept_counts_after_a_restart() {
        let slow = schedule(&[(50, 86_400), (100, 86_400)]);
        let mut ledger = Ledger::default();
        (0..5).for_each(|_| drop(ledger.ask(&asking("a", &slow, 6), NOW_MS)));
        let mut after = Ledger::new(ledger.all().cloned());
        assert_eq!(take_all(&mut after, &asking("a", &slow, 6), NOW_MS).0, 20);
        // No server ran at midnight.
        let mut after = Ledger::new(ledger.all().cloned());
        assert_eq!(take_all(&mut after, &asking("a", &slow, 6), NOW_MS + DAY_MS).0, 100);
        let mut after = Ledger::new(ledger.all().cloned());
        assert_eq!(after.ask(&asking("a", &slow, 6), NOW_MS + 40 * DAY_MS), Allowed::Freely);
    }

    #[test]
    fn what_is_kept_is_bounded_and_a_clock_that_is_set_back_does_no_harm() {
        let slow = schedule(&[(1, 86_400)]);
        let mut ledger = Ledger::default();
        for number in 0..WARMING_ADDRESSES as u32 + 5 {
            let one = Asking { source: std::net::Ipv4Addr::from(number).into(), ..asking("a", &slow, 1) };
            let later_ms = NOW_MS + u64::from(number / 100) * DAY_MS;
            assert!(matches!(ledger.ask(&one, later_ms), Allowed::Some { count: 1, .. }));
        }
        assert_eq!(ledger.all().count(), WARMING_ADDRESSES);
        assert!(matches!(ledger.ask(&asking("a", &slow, 1), NOW_MS - 9 * DAY_MS), Allowed::Some { count: 1, .. }));
        assert!(matches!(ledger.ask(&asking("a", &slow, 1), NOW_MS - 10 * DAY_MS), Allowed::Some { count: 1, .. }));
    }
}
