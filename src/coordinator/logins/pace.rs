//! How fast logins may be tried. Failures of an address, and of a user from wherever, are counted; beyond a few, one login
//! after the other has its turn, and beyond that nobody looks. Whoever has logged in from an address before is not kept
//! from it by others who fail there. Pure: it is told the time.

use std::collections::{HashMap, VecDeque};
use std::hash::Hash;
use std::net::{IpAddr, Ipv6Addr};
use std::time::{Duration, Instant};

use ringpost_shard::Origin;

use crate::limits::{
    LOGIN_FAILURE_FORGOTTEN, LOGIN_FAILURES_FREE, LOGIN_FAILURES_KEPT, LOGIN_PACE, LOGIN_PACE_SLOW, LOGIN_TURN,
    LOGINS_KEPT, USER_FAILURES_FREE,
};

/// Whose logins are counted together. A host has a whole /64 of IPv6, as a rule.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Place {
    Host(IpAddr),
    User(u32),
}

impl Place {
    pub fn of(origin: Origin) -> Self {
        match origin {
            Origin::User(uid) => Self::User(uid),
            Origin::Host(address) => Self::Host(match address.to_canonical() {
                IpAddr::V6(address) => {
                    let network = u128::from(address) & !u128::from(u64::MAX);
                    IpAddr::V6(Ipv6Addr::from(network))
                }
                four => four,
            }),
        }
    }
}

/// When a login may be looked at.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Turn {
    /// Now.
    Now,
    /// Then.
    At(Instant),
    /// Never: too many wait before it.
    Never,
}

/// Whether an administrator should hear of a login that was refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum News {
    /// It is one of few.
    Failed,
    /// From now on they are many: the address, or the user, is slowed down.
    Slowed,
    /// Like those before it.
    Nothing,
}

#[derive(Clone, Copy, Debug)]
struct Count {
    failures: f64,
    at: Instant,
    /// When the next has its turn.
    next: Instant,
    told: bool,
}

impl Count {
    fn new(now: Instant) -> Self {
        Self { failures: 0.0, at: now, next: now, told: false }
    }

    fn forget(&mut self, now: Instant) {
        let passed = now.saturating_duration_since(self.at);
        self.failures = (self.failures - passed.as_secs_f64() / LOGIN_FAILURE_FORGOTTEN.as_secs_f64()).max(0.0);
        self.at = self.at.max(now);
        if self.failures < 1.0 {
            self.told = false;
        }
    }

    /// How long after the one before it a login has its turn.
    fn pace(&self, free: f64) -> Duration {
        match self.failures {
            few if few < free => Duration::ZERO,
            some if some < free * 2.0 => LOGIN_PACE,
            _ => LOGIN_PACE_SLOW,
        }
    }
}

/// Counts by key; the oldest leave when there are too many.
struct Counts<K, V> {
    map: HashMap<K, V>,
    order: VecDeque<K>,
}

impl<K: Clone + Eq + Hash, V> Counts<K, V> {
    fn new() -> Self {
        Self { map: HashMap::new(), order: VecDeque::new() }
    }

    fn entry(&mut self, key: &K, new: impl FnOnce() -> V) -> &mut V {
        if !self.map.contains_key(key) {
            if self.order.len() >= LOGINS_KEPT
                && let Some(oldest) = self.order.pop_front()
            {
                self.map.remove(&oldest);
            }
            self.order.push_back(key.clone());
        }
        self.map.entry(key.clone()).or_insert_with(new)
    }
}

/// All that is remembered of logins.
pub struct Pace {
    places: Counts<Place, Count>,
    users: Counts<String, Count>,
    /// Who has logged in from where; false: and has failed since.
    known: Counts<(Place, String), bool>,
}

impl Pace {
    pub fn new() -> Self {
        Self { places: Counts::new(), users: Counts::new(), known: Counts::new() }
    }

    /// A login is about to be judged. It counts as failed until it is said to be otherwise, or a thousand at once would
    /// all be the first.
    pub fn begin(&mut self, now: Instant, place: Place, user: &str) -> Turn {
        let is_known = self.known.map.get(&(place, user.to_owned())).copied().unwrap_or(false);
        let of_place = self.places.entry(&place, || Count::new(now));
        let of_user = self.users.entry(&user.to_owned(), || Count::new(now));
        of_place.forget(now);
        of_user.forget(now);
        let paces = [of_place.pace(LOGIN_FAILURES_FREE), of_user.pace(USER_FAILURES_FREE)];
        let mut turn = now;
        for (count, pace) in [&mut *of_place, &mut *of_user].into_iter().zip(paces) {
            if !pace.is_zero() {
                turn = turn.max(count.next);
            }
        }
        if !is_known && turn.saturating_duration_since(now) > LOGIN_TURN {
            return Turn::Never;
        }
        for (count, pace) in [of_place, of_user].into_iter().zip(paces) {
            count.failures = (count.failures + 1.0).min(LOGIN_FAILURES_KEPT);
            if !is_known && !pace.is_zero() {
                count.next = turn + pace;
            }
        }
        if is_known || turn <= now { Turn::Now } else { Turn::At(turn) }
    }

    /// It was right.
    pub fn accepted(&mut self, place: Place, user: &str) {
        self.undo(place, user);
        *self.known.entry(&(place, user.to_owned()), || true) = true;
    }

    /// Nobody could say: it is as if it had not been.
    pub fn undo(&mut self, place: Place, user: &str) {
        for count in [self.places.map.get_mut(&place), self.users.map.get_mut(user)].into_iter().flatten() {
            count.failures = (count.failures - 1.0).max(0.0);
        }
    }

    /// It was wrong, and stays counted.
    pub fn refused(&mut self, place: Place, user: &str) -> News {
        if let Some(known) = self.known.map.get_mut(&(place, user.to_owned())) {
            *known = false;
        }
        let of_place = self.places.map.get_mut(&place).map(|count| (count, LOGIN_FAILURES_FREE));
        let of_user = self.users.map.get_mut(user).map(|count| (count, USER_FAILURES_FREE));
        let mut slowed = [of_place, of_user].into_iter().flatten().filter(|(count, free)| !count.pace(*free).is_zero());
        // An address that is told of is enough; a user is spoken of when he is guessed from many.
        match slowed.next().map(|(count, _)| std::mem::replace(&mut count.told, true)) {
            None => News::Failed,
            Some(false) => News::Slowed,
            Some(true) => News::Nothing,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn place(last: u8) -> Place {
        Place::of(Origin::Host([192, 0, 2, last].into()))
    }

    /// One that fails as soon as it has its turn.
    fn fail(pace: &mut Pace, now: Instant, place: Place, user: &str) -> (Turn, Option<News>) {
        let turn = pace.begin(now, place, user);
        (turn, (turn != Turn::Never).then(|| pace.refused(place, user)))
    }

    #[test]
    fn an_address_that_fails_is_slowed_and_told_of_once() {
        let (mut pace, begin) = (Pace::new(), Instant::now());
        let mut turns = Vec::new();
        let mut news = Vec::new();
        for _ in 0..10_000 {
            let (turn, told) = fail(&mut pace, begin, place(1), "gilles");
            turns.push(turn);
            news.extend(told);
        }
        assert!(turns[..5].iter().all(|turn| *turn == Turn::Now));
        assert_eq!(turns.iter().filter(|turn| **turn != Turn::Never).count(), news.len());
        assert!(news.len() < 20, "{}", news.len());
        assert_eq!(news.iter().filter(|one| **one == News::Slowed).count(), 1, "{news:?}");
        assert!(news.iter().filter(|one| **one == News::Failed).count() < 5);
        // Another address is not touched by that; another user of it is.
        assert_eq!(pace.begin(begin, place(2), "eric"), Turn::Now);
        assert_eq!(pace.begin(begin, place(1), "eric"), Turn::Never);
        // A day later all is forgotten.
        let later = begin + Duration::from_secs(86_400);
        assert_eq!(fail(&mut pace, later, place(1), "gilles"), (Turn::Now, Some(News::Failed)));
    }

    #[test]
    fn an_attack_goes_on_slowly() {
        let (mut pace, begin) = (Pace::new(), Instant::now());
        let mut looked_at = 0;
        for tenth in 0..36_000 {
            let now = begin + Duration::from_millis(tenth * 100);
            looked_at += usize::from(fail(&mut pace, now, place(1), "gilles").0 != Turn::Never);
        }
        assert!(looked_at < 800, "{looked_at} guesses in an hour");
        assert!(looked_at > 500, "slow, and not locked: {looked_at}");
    }

    #[test]
    fn a_user_who_is_guessed_from_everywhere_is_slowed_for_strangers() {
        let (mut pace, now) = (Pace::new(), Instant::now());
        let home = place(200);
        assert_eq!(pace.begin(now, home, "gilles"), Turn::Now);
        pace.accepted(home, "gilles");
        let turns: Vec<_> = (0..100).map(|last| fail(&mut pace, now, place(last), "gilles").0).collect();
        assert!(turns[..15].iter().all(|turn| *turn == Turn::Now));
        assert!(turns.iter().filter(|turn| **turn == Turn::Never).count() > 60);
        for _ in 0..20 {
            assert_eq!(pace.begin(now, home, "gilles"), Turn::Now, "he has been there before");
            pace.accepted(home, "gilles");
        }
        assert_eq!(fail(&mut pace, now, home, "gilles").0, Turn::Now);
        assert_eq!(pace.begin(now, home, "gilles"), Turn::Never, "until it is not he who fails there");
    }

    #[test]
    fn those_who_are_right_or_not_judged_are_never_slowed() {
        let (mut pace, now) = (Pace::new(), Instant::now());
        for _ in 0..1000 {
            assert_eq!(pace.begin(now, place(1), "gilles"), Turn::Now);
            pace.undo(place(1), "gilles");
            assert_eq!(pace.begin(now, place(1), "eric"), Turn::Now);
            pace.accepted(place(1), "eric");
        }
    }

    #[test]
    fn a_thousand_at_once_are_not_all_the_first() {
        let (mut pace, now) = (Pace::new(), Instant::now());
        let turns: Vec<_> = (0..1000).map(|_| pace.begin(now, place(1), "gilles")).collect();
        assert!(turns.iter().filter(|turn| **turn != Turn::Never).count() < 20);
    }

    #[test]
    fn neighbours_in_a_network_of_ipv6_are_one() {
        let of = |text: &str| Place::of(Origin::Host(text.parse().unwrap()));
        assert_eq!(of("2001:db8::1"), of("2001:db8::ffff:2"));
        assert_ne!(of("2001:db8::1"), of("2001:db8:0:1::1"));
        assert_eq!(of("::ffff:192.0.2.1"), place(1));
    }

    #[test]
    fn what_is_remembered_is_bounded() {
        let (mut pace, now) = (Pace::new(), Instant::now());
        for number in 0..LOGINS_KEPT + 10 {
            pace.begin(now, place(1), &number.to_string());
            pace.accepted(place(1), &number.to_string());
        }
        assert_eq!((pace.users.map.len(), pace.known.map.len()), (LOGINS_KEPT, LOGINS_KEPT));
        assert_eq!(pace.places.map.len(), 1);
    }
}
