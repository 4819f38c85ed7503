//! What the ledger of warm-ups ([`crate::warmup`]) has allowed to a shard, which spends it as its routes send.

use std::collections::HashMap;
use std::net::IpAddr;
use std::sync::Arc;
use std::time::Instant;

use crate::limits::{LEASE_AGAIN, LEASE_FREE, Rate};
use crate::warmup::{Allowed, Asking, Schedule};

/// Who has one: an address, at a site, by a schedule. One that a reload has changed is another one, also where a route still
/// goes by the old one.
pub(crate) type Key = (Arc<str>, Arc<Schedule>, IpAddr);

/// What an address may send to a site.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Left {
    /// All that there is: it has warmed up, or need not.
    Free,
    /// So many messages, at least one.
    Some(usize),
    /// It is not known, and has to be asked for.
    Unknown,
    /// Nothing.
    Spent(Spent),
}

/// Why an address may send nothing to a site.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Spent {
    /// As many as it may send have left; `None`: that cannot be known now.
    pub cap: Option<Rate>,
    /// Until then.
    pub until: Instant,
}

/// All that was allowed to a shard, and what it has to ask for.
#[derive(Debug, Default)]
pub(crate) struct Leases {
    held: HashMap<Key, Lease>,
    asked: Vec<Asking>,
}

#[derive(Debug)]
struct Lease {
    schedule: Arc<Schedule>,
    held: Held,
    /// Routes that wait for an answer; none: nobody has asked.
    waiting: Vec<usize>,
}

#[derive(Clone, Copy, Debug)]
enum Held {
    Nothing,
    /// Until it is asked for again: sites are many, and most are not met for long.
    Free {
        until: Instant,
    },
    Some {
        left: u32,
        until: Instant,
    },
    Spent(Spent),
}

impl Leases {
    /// What is left.
    pub(crate) fn left(&self, key: &Key, now: Instant) -> Left {
        match self.held.get(key).map(|lease| lease.held) {
            Some(Held::Free { until }) if until > now => Left::Free,
            Some(Held::Some { left, until }) if left > 0 && until > now => Left::Some(left as usize),
            Some(Held::Spent(spent)) if spent.until > now => Left::Spent(spent),
            _ => Left::Unknown,
        }
    }

    /// What is left for this route; if that is not known, it is asked for, `wanted` of them.
    pub(crate) fn want(
        &mut self,
        key: &Key,
        schedule: &Arc<Schedule>,
        (route, wanted): (usize, usize),
        now: Instant,
    ) -> Left {
        let left = self.left(key, now);
        if left != Left::Unknown {
            return left;
        }
        let lease = self.held.entry(key.clone()).or_insert_with(|| Lease {
            schedule: schedule.clone(),
            held: Held::Nothing,
            waiting: Vec::new(),
        });
        if lease.waiting.is_empty() {
            let (site, source) = (key.0.clone(), key.2);
            let count = u32::try_from(wanted).unwrap_or(u32::MAX);
            self.asked.push(Asking { source, site, schedule: schedule.clone(), count });
        }
        if !lease.waiting.contains(&route) {
            lease.waiting.push(route);
        }
        left
    }

    /// A message leaves.
    pub(crate) fn take(&mut self, key: &Key) {
        if let Some(Lease { held: Held::Some { left, .. }, .. }) = self.held.get_mut(key) {
            *left = left.saturating_sub(1);
        }
    }

    /// What is to be asked for; say what came of each by [`Leases::answered`].
    pub(crate) fn take_asked(&mut self) -> Vec<Asking> {
        std::mem::take(&mut self.asked)
    }

    /// Whether there is something.
    pub(crate) fn has_asked(&self) -> bool {
        !self.asked.is_empty()
    }

    /// What was asked for is answered; `until`: when that is over. Returns the routes that have waited for it.
    pub(crate) fn answered(&mut self, asked: &Asking, allowed: &Allowed, until: Instant, now: Instant) -> Vec<usize> {
        let Some(lease) = self.held.get_mut(&key(&asked.site, &asked.schedule, asked.source)) else {
            return Vec::new();
        };
        lease.held = match allowed {
            Allowed::Freely => Held::Free { until: now + LEASE_FREE },
            Allowed::Some { count, .. } => Held::Some { left: *count, until },
            Allowed::Spent { cap, .. } => Held::Spent(Spent { cap: Some(*cap), until }),
            Allowed::Unknown(_) => Held::Spent(Spent { cap: None, until: now + LEASE_AGAIN }),
        };
        std::mem::take(&mut lease.waiting)
    }

    /// All of it is forgotten but what is being asked for. Returns what was not used.
    pub(crate) fn give_back(&mut self, now: Instant) -> Vec<Asking> {
        let mut unused = Vec::new();
        for (key, lease) in &mut self.held {
            if let Held::Some { left, until } = lease.held
                && left > 0
                && until > now
            {
                let ((site, _, source), schedule) = (key.clone(), lease.schedule.clone());
                unused.push(Asking { source, site, schedule, count: left });
            }
            lease.held = Held::Nothing;
        }
        self.held.retain(|_, lease| !lease.waiting.is_empty());
        unused
    }

    /// Forgets what is over: days have many sites.
    pub(crate) fn tidy(&mut self, now: Instant) {
        self.held.retain(|_, lease| match lease.held {
            _ if !lease.waiting.is_empty() => true,
            Held::Free { until } | Held::Some { until, .. } | Held::Spent(Spent { until, .. }) => until > now,
            Held::Nothing => false,
        });
    }
}

/// Who has a lease.
pub(crate) fn key(site: &Arc<str>, schedule: &Arc<Schedule>, source: IpAddr) -> Key {
    (site.clone(), schedule.clone(), source)
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::warmup::tests::schedule;

    #[test]
    fn what_is_not_known_is_asked_for_once_and_all_who_wait_are_told() {
        let (mut leases, now) = (Leases::default(), Instant::now());
        let slow = schedule(&[(50, 86_400)]);
        let key = key(&"a".into(), &slow, [192, 0, 2, 1].into());
        let day = now + Duration::from_secs(3600);
        for route in [1, 2, 1] {
            assert_eq!(leases.want(&key, &slow, (route, 9), now), Left::Unknown);
        }
        let asked = leases.take_asked();
        assert_eq!((asked.len(), asked[0].count), (1, 9));
        let some = Allowed::Some { count: 2, until_ms: 0 };
        assert_eq!(leases.answered(&asked[0], &some, day, now), [1, 2]);
        assert_eq!(leases.want(&key, &slow, (1, 9), now), Left::Some(2));
        leases.take(&key);
        assert_eq!(leases.left(&key, now), Left::Some(1));
        assert_eq!(leases.left(&key, day), Left::Unknown, "that was another day's");
        leases.take(&key);
        assert_eq!(leases.want(&key, &slow, (2, 1), now), Left::Unknown);
        let asked = leases.take_asked();
        let cap = slow.steps[0];
        assert_eq!(leases.answered(&asked[0], &Allowed::Spent { cap, until_ms: 0 }, day, now), [2]);
        assert_eq!(leases.want(&key, &slow, (1, 1), now), Left::Spent(Spent { cap: Some(cap), until: day }));
        assert_eq!(leases.want(&key, &slow, (1, 1), day), Left::Unknown);
        let asked = leases.take_asked();
        leases.answered(&asked[0], &Allowed::Unknown("the disk is full".into()), day, day);
        let again = day + LEASE_AGAIN;
        assert_eq!(leases.left(&key, day), Left::Spent(Spent { cap: None, until: again }));
        leases.want(&key, &slow, (1, 1), again);
        let asked = leases.take_asked();
        leases.answered(&asked[0], &Allowed::Freely, again, again);
        assert_eq!(leases.left(&key, again + Duration::from_secs(900)), Left::Free);
        assert_eq!(leases.left(&key, again + LEASE_FREE), Left::Unknown, "it is asked for again");
        assert!(!leases.has_asked());
    }

    #[test]
    fn what_is_not_used_goes_back_and_what_is_over_is_forgotten() {
        let (mut leases, now) = (Leases::default(), Instant::now());
        let slow = schedule(&[(50, 86_400)]);
        let day = now + Duration::from_secs(3600);
        for site in ["a", "b", "c"] {
            leases.want(&key(&site.into(), &slow, [192, 0, 2, 1].into()), &slow, (0, 9), now);
        }
        let asked = leases.take_asked();
        for one in asked.iter().filter(|one| &*one.site != "c") {
            leases.answered(one, &Allowed::Some { count: 3, until_ms: 0 }, day, now);
        }
        leases.take(&key(&"a".into(), &slow, [192, 0, 2, 1].into()));
        let mut unused: Vec<(String, u32)> =
            leases.give_back(now).into_iter().map(|unused| (unused.site.to_string(), unused.count)).collect();
        unused.sort();
        assert_eq!(unused, [("a".to_owned(), 2), ("b".to_owned(), 3)]);
        assert_eq!(leases.held.len(), 1, "one is being asked for");
        let last = asked.iter().find(|one| &*one.site == "c").expect("three");
        leases.answered(last, &Allowed::Some { count: 3, until_ms: 0 }, day, now);
        leases.tidy(now);
        assert_eq!(leases.held.len(), 1);
        leases.tidy(day);
        assert!(leases.held.is_empty() && leases.give_back(day).is_empty());
    }
}
