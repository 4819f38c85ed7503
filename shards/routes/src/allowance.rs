//! What each source of a route may do: connections at once, and messages at a rate.

use std::collections::BTreeMap;
use std::net::{IpAddr, Ipv4Addr};
use std::rc::Rc;
use std::time::{Duration, Instant};

use crate::bucket::Bucket;
use crate::leases::Left;
use crate::limits::{Rate, Shape};
use crate::route::Wish;

/// Stands for whatever address the system chooses.
pub(crate) const SYSTEM: IpAddr = IpAddr::V4(Ipv4Addr::UNSPECIFIED);

/// The limits of a shape for each source, and what has been used of them.
#[derive(Debug, Default)]
pub(crate) struct Allowance {
    connections: Option<usize>,
    rate: Option<Rate>,
    burst: Option<u32>,
    /// Tokens for messages, if there is a rate.
    buckets: BTreeMap<IpAddr, Bucket>,
    /// Connections of the route, as often as there are others who have it.
    holds: BTreeMap<IpAddr, Rc<()>>,
    /// Of these, second attempts at the same connection, as often as there are others who have it.
    rivals: Rc<()>,
    /// Of the connections, those that wait for the next token of their source.
    waiting: BTreeMap<IpAddr, usize>,
}

impl Allowance {
    /// Another shape is in force; rates that have changed begin anew.
    pub(crate) fn reshape(&mut self, shape: &Shape) {
        if (self.rate, self.burst) != (shape.rate_per_source, shape.burst) {
            (self.rate, self.burst) = (shape.rate_per_source, shape.burst);
            self.buckets.clear();
        }
        self.connections = shape.connections_per_source;
    }

    /// Whether messages have a rate.
    pub(crate) fn is_rated(&self) -> bool {
        self.rate.is_some()
    }

    /// Whether there is any limit.
    pub(crate) fn is_limited(&self) -> bool {
        self.is_rated() || self.connections.is_some()
    }

    /// A connection leaves from there.
    pub(crate) fn hold(&mut self, source: IpAddr) -> Rc<()> {
        self.holds.entry(source).or_default().clone()
    }

    /// What is held now is beside another attempt at the same connection, until this is dropped.
    pub(crate) fn rival(&self) -> Rc<()> {
        self.rivals.clone()
    }

    fn held(&self, source: IpAddr) -> usize {
        self.holds.get(&source).map_or(0, |holds| Rc::strong_count(holds) - 1)
    }

    /// Connections that it may have more.
    pub(crate) fn room(&self, source: IpAddr) -> usize {
        self.connections.map_or(usize::MAX, |most| most.saturating_sub(self.held(source)))
    }

    fn bucket(&mut self, source: IpAddr, now: Instant) -> Option<&mut Bucket> {
        let (rate, burst) = (self.rate?, self.burst);
        Some(self.buckets.entry(source).or_insert_with(|| Bucket::new(rate, burst, now)))
    }

    fn tokens(&mut self, source: IpAddr, now: Instant) -> usize {
        self.bucket(source, now).map_or(usize::MAX, |bucket| bucket.tokens(now))
    }

    /// So long until a message may leave from there; zero: now.
    pub(crate) fn wait(&mut self, source: IpAddr, now: Instant) -> Duration {
        self.bucket(source, now).map_or(Duration::ZERO, |bucket| bucket.wait(now))
    }

    /// A message leaves from there.
    pub(crate) fn take(&mut self, source: IpAddr, now: Instant) {
        if let Some(bucket) = self.bucket(source, now) {
            // Its token was there when it was asked for.
            let _ = bucket.take(now);
        }
    }

    /// A connection waits for a token of its source.
    pub(crate) fn wait_begins(&mut self, source: IpAddr) {
        *self.waiting.entry(source).or_default() += 1;
    }

    /// It no longer waits.
    pub(crate) fn wait_ends(&mut self, source: IpAddr) {
        if let Some(count) = self.waiting.get_mut(&source) {
            *count = count.saturating_sub(1);
        }
    }

    /// Whether a connection waits there, which will take the next token.
    fn is_waited_for(&self, source: IpAddr) -> bool {
        self.waiting.get(&source).is_some_and(|count| *count > 0)
    }

    /// Whether a new connection may leave from there, and a message on it.
    pub(crate) fn is_free(&mut self, source: IpAddr, now: Instant) -> bool {
        self.room(source) > 0 && !self.is_waited_for(source) && self.tokens(source, now) > 0
    }

    /// Whether a new connection would be of use from one of these sources, each with what its warm-up leaves it, beside the
    /// route's `connections`, of which `takers` will ask for a token next.
    pub(crate) fn wish(
        &mut self,
        sources: &[(IpAddr, Left)],
        (connections, takers): (usize, usize),
        now: Instant,
    ) -> Wish {
        let held: usize = self.holds.values().map(|holds| Rc::strong_count(holds) - 1).sum();
        // Two attempts at one connection are one.
        let known = held - (Rc::strong_count(&self.rivals) - 1);
        // Those that have just been begun do not know yet where they leave from.
        let begun = connections.saturating_sub(known);
        let (mut room, mut tokens, mut wait) = (0_usize, 0_usize, None::<Duration>);
        for (source, warmth) in sources.iter().copied() {
            let left = self.room(source);
            if left == 0 || self.is_waited_for(source) {
                continue;
            }
            let allowed = match warmth {
                Left::Free => usize::MAX,
                Left::Some(count) => count,
                // The answer will bring whoever has asked here again.
                Left::Unknown => continue,
                Left::Spent(spent) => {
                    let until = spent.until.saturating_duration_since(now);
                    wait = Some(wait.map_or(until, |least| least.min(until)));
                    continue;
                }
            };
            match self.tokens(source, now).min(allowed) {
                0 => wait = Some(wait.map_or(self.wait(source, now), |least| least.min(self.wait(source, now)))),
                there => (room, tokens) = (room.saturating_add(left), tokens.saturating_add(there)),
            }
        }
        match wait {
            _ if room > begun && tokens > takers => Wish::Now,
            Some(wait) if takers == 0 => Wish::Later(wait),
            _ => Wish::Nothing,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const A: IpAddr = IpAddr::V4(Ipv4Addr::new(192, 0, 2, 1));
    const B: IpAddr = IpAddr::V4(Ipv4Addr::new(192, 0, 2, 2));

    fn allowance(shape: Shape) -> Allowance {
        let mut allowance = Allowance::default();
        allowance.reshape(&shape);
        allowance
    }

    #[test]
    fn connections_are_counted_for_each_source_and_those_begun_are_among_them() {
        let now = Instant::now();
        let mut allowance = allowance(Shape { connections_per_source: Some(2), ..Shape::default() });
        let mut held = vec![allowance.hold(A), allowance.hold(A)];
        assert!(!allowance.is_free(A, now) && allowance.is_free(B, now));
        assert_eq!(allowance.wish(&[(A, Left::Free)], (2, 0), now), Wish::Nothing);
        assert_eq!(
            allowance.wish(&[(A, Left::Free), (B, Left::Free)], (3, 1), now),
            Wish::Now,
            "two are there, one begun, and one has room"
        );
        assert_eq!(allowance.wish(&[(A, Left::Free), (B, Left::Free)], (4, 2), now), Wish::Nothing);
        held.pop();
        assert!(allowance.is_free(A, now), "it has ended");
    }

    #[test]
    fn two_attempts_at_one_connection_take_room_at_both_sources_and_are_one_connection() {
        let now = Instant::now();
        let mut allowance = allowance(Shape { connections_per_source: Some(1), ..Shape::default() });
        let first = allowance.hold(A);
        let second = (allowance.hold(B), allowance.rival());
        assert!(!allowance.is_free(A, now) && !allowance.is_free(B, now));
        let other: IpAddr = "192.0.2.3".parse().expect("an address");
        let free = |sources: &[IpAddr]| sources.iter().map(|source| (*source, Left::Free)).collect::<Vec<_>>();
        assert_eq!(allowance.wish(&free(&[A, B, other]), (1, 1), now), Wish::Now);
        assert_eq!(allowance.wish(&free(&[A, B, other]), (2, 2), now), Wish::Nothing, "another one is begun");
        drop(second);
        assert_eq!(allowance.wish(&free(&[A, B]), (1, 1), now), Wish::Now, "the second has lost");
        drop(first);
    }

    #[test]
    fn a_source_without_a_token_is_left_to_those_who_wait_for_it() {
        let now = Instant::now();
        let second = Duration::from_secs(1);
        let rate_per_source = Some(Rate { count: 1, per: second });
        let mut allowance = allowance(Shape { rate_per_source, ..Shape::default() });
        assert_eq!((allowance.wait(A, now), allowance.wait(B, now)), (Duration::ZERO, Duration::ZERO));
        allowance.take(A, now);
        assert_eq!(allowance.wait(A, now), second);
        assert!(!allowance.is_free(A, now) && allowance.is_free(B, now));
        assert_eq!(allowance.wish(&[(A, Left::Free), (B, Left::Free)], (1, 0), now), Wish::Now);
        assert_eq!(
            allowance.wish(&[(A, Left::Free), (B, Left::Free)], (2, 1), now),
            Wish::Nothing,
            "who takes the other token is there"
        );
        assert_eq!(allowance.wish(&[(A, Left::Free)], (1, 0), now), Wish::Later(second));
        allowance.wait_begins(A);
        assert_eq!(
            allowance.wish(&[(A, Left::Free)], (1, 0), now + second),
            Wish::Nothing,
            "it will take the token itself"
        );
        allowance.wait_ends(A);
        assert!(allowance.is_free(A, now + second));
        // A reload that changes nothing gives nobody tokens.
        allowance.take(B, now);
        allowance.reshape(&Shape { rate_per_source, connections: 3, ..Shape::default() });
        assert!(!allowance.is_free(B, now));
    }
}
