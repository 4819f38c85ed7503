//! Whose turn it is: some at once of all, fewer at once of each kind (a mailbox, a user, a server), and among those that
//! may go the kinds take turns. So one that takes long, or has much, holds up nobody else. Pure; who calls does the work.

use std::collections::{HashMap, VecDeque};
use std::hash::Hash;

/// How much at once.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Bounds {
    /// Of all kinds together.
    pub(crate) at_once: usize,
    /// Of each kind.
    pub(crate) per_kind: usize,
    /// Bytes that all together may hold; a single one may hold more.
    pub(crate) bytes: u64,
}

/// What waits, and how much is under way.
pub(crate) struct Turns<K, T> {
    bounds: Bounds,
    kinds: HashMap<K, Kind<T>>,
    /// Kinds of which something waits, in the order of their turns.
    order: VecDeque<K>,
    running: usize,
    bytes: u64,
}

struct Kind<T> {
    waiting: VecDeque<(u64, T)>,
    running: usize,
}

impl<K: Clone + Eq + Hash, T> Turns<K, T> {
    pub(crate) fn new(bounds: Bounds) -> Self {
        Self { bounds, kinds: HashMap::new(), order: VecDeque::new(), running: 0, bytes: 0 }
    }

    /// These bounds from now on; what is under way goes on.
    pub(crate) fn allow(&mut self, at_once: usize, per_kind: usize) {
        (self.bounds.at_once, self.bounds.per_kind) = (at_once, per_kind);
    }

    /// Waits, behind what waits of its kind.
    pub(crate) fn push(&mut self, kind: K, bytes: u64, work: T) {
        let waiting = &mut self.of(&kind).waiting;
        waiting.push_back((bytes, work));
        if waiting.len() == 1 {
            self.order.push_back(kind);
        }
    }

    /// The next that may go, with its bytes. Whoever takes it tells [`Turns::done`] at the end.
    pub(crate) fn next(&mut self) -> Option<(K, u64, T)> {
        if self.running >= self.bounds.at_once {
            return None;
        }
        for _ in 0..self.order.len() {
            let kind = self.order.pop_front()?;
            let (per_kind, room) = (self.bounds.per_kind, self.bounds.bytes.saturating_sub(self.bytes));
            let fits = |bytes: u64| self.running == 0 || bytes <= room;
            let its = self.kinds.get_mut(&kind).expect("what is in order waits");
            if its.running < per_kind && its.waiting.front().is_some_and(|(bytes, _)| fits(*bytes)) {
                let (bytes, work) = its.waiting.pop_front().expect("just seen");
                its.running += 1;
                if !its.waiting.is_empty() {
                    self.order.push_back(kind.clone());
                }
                self.running += 1;
                self.bytes += bytes;
                return Some((kind, bytes, work));
            }
            self.order.push_back(kind);
        }
        None
    }

    /// The first that waits of a kind of which one is under way already, if `wanted` says so: the same one may do it,
    /// and it is not counted anew.
    pub(crate) fn next_of(&mut self, kind: &K, wanted: impl Fn(&T) -> bool) -> Option<T> {
        let its = self.kinds.get_mut(kind)?;
        if !its.waiting.front().is_some_and(|(_, work)| wanted(work)) {
            return None;
        }
        let (_, work) = its.waiting.pop_front()?;
        if its.waiting.is_empty() {
            self.order.retain(|other| other != kind);
        }
        Some(work)
    }

    /// Kinds of which something waits.
    pub(crate) fn waiting(&self) -> Vec<K> {
        self.order.iter().cloned().collect()
    }

    /// Takes out what is late of what waits of a kind; it is not under way, and nobody tells [`Turns::done`] of it.
    pub(crate) fn take_late(&mut self, kind: &K, is_late: impl Fn(&T) -> bool) -> Vec<T> {
        let Some(its) = self.kinds.get_mut(kind) else { return Vec::new() };
        if !its.waiting.iter().any(|(_, work)| is_late(work)) {
            return Vec::new();
        }
        let (late, rest): (VecDeque<_>, VecDeque<_>) =
            std::mem::take(&mut its.waiting).into_iter().partition(|(_, work)| is_late(work));
        its.waiting = rest;
        if its.waiting.is_empty() {
            self.order.retain(|other| other != kind);
            if its.running == 0 {
                self.kinds.remove(kind);
            }
        }
        late.into_iter().map(|(_, work)| work).collect()
    }

    /// One that [`Turns::next`] gave has ended.
    pub(crate) fn done(&mut self, kind: &K, bytes: u64) {
        self.running -= 1;
        self.bytes -= bytes;
        if let Some(its) = self.kinds.get_mut(kind) {
            its.running -= 1;
            if its.running == 0 && its.waiting.is_empty() {
                self.kinds.remove(kind);
            }
        }
    }

    fn of(&mut self, kind: &K) -> &mut Kind<T> {
        self.kinds.entry(kind.clone()).or_insert_with(|| Kind { waiting: VecDeque::new(), running: 0 })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn turns(at_once: usize, per_kind: usize, bytes: u64) -> Turns<char, u32> {
        Turns::new(Bounds { at_once, per_kind, bytes })
    }

    fn started(turns: &mut Turns<char, u32>) -> Vec<u32> {
        std::iter::from_fn(|| turns.next().map(|(_, _, work)| work)).collect()
    }

    #[test]
    fn kinds_take_turns_and_none_takes_all() {
        let mut turns = turns(4, 2, 100);
        (1..=5).for_each(|work| turns.push('a', 1, work));
        turns.push('b', 1, 10);
        turns.push('b', 1, 11);
        assert_eq!(started(&mut turns), [1, 10, 2, 11]);
        turns.done(&'b', 1);
        assert!(started(&mut turns).is_empty(), "of a two are under way, of b none waits");
        turns.done(&'a', 1);
        assert_eq!(started(&mut turns), [3]);
        turns.push('c', 1, 20);
        turns.done(&'b', 1);
        assert_eq!(started(&mut turns), [20], "a has had its turn");
    }

    #[test]
    fn bytes_are_bounded_but_for_one_alone() {
        let mut turns = turns(10, 10, 100);
        turns.push('a', 500, 1);
        turns.push('b', 60, 2);
        turns.push('c', 50, 3);
        assert_eq!(started(&mut turns), [1]);
        turns.done(&'a', 500);
        assert_eq!(started(&mut turns), [2]);
        turns.push('d', 40, 4);
        assert_eq!(started(&mut turns), [4], "a smaller one may pass");
        turns.done(&'b', 60);
        assert_eq!(started(&mut turns), [3]);
    }

    #[test]
    fn one_that_is_under_way_takes_more_of_its_kind() {
        let mut turns = turns(1, 1, 100);
        [1, 2, 3].into_iter().for_each(|work| turns.push('a', 1, work));
        turns.push('b', 1, 9);
        assert_eq!(started(&mut turns), [1]);
        assert_eq!(turns.next_of(&'a', |work| *work == 2), Some(2));
        assert_eq!(turns.next_of(&'a', |work| *work == 7), None);
        assert_eq!(turns.next_of(&'z', |_| true), None);
        assert_eq!(turns.next_of(&'a', |_| true), Some(3));
        turns.done(&'a', 1);
        assert_eq!(started(&mut turns), [9]);
        turns.done(&'b', 1);
        assert!(turns.kinds.is_empty() && turns.order.is_empty(), "nothing is kept of what is over");
    }

    #[test]
    fn what_is_late_is_taken_out_and_the_others_keep_their_turns() {
        let mut turns = turns(1, 1, 100);
        [1, 2, 3, 4].into_iter().for_each(|work| turns.push('a', 1, work));
        turns.push('b', 1, 10);
        assert_eq!(started(&mut turns), [1]);
        assert_eq!(turns.waiting(), ['b', 'a']);
        assert_eq!(turns.take_late(&'a', |work| work % 2 == 0), [2, 4]);
        assert_eq!(turns.take_late(&'b', |work| *work == 10), [10]);
        assert!(turns.take_late(&'b', |_| true).is_empty() && !turns.kinds.contains_key(&'b'));
        assert_eq!(turns.take_late(&'a', |work| *work == 3), [3]);
        assert!(turns.take_late(&'a', |_| true).is_empty(), "what is under way goes on");
        turns.push('a', 1, 5);
        turns.done(&'a', 1);
        assert_eq!(started(&mut turns), [5]);
        turns.done(&'a', 1);
        assert!(turns.kinds.is_empty() && turns.order.is_empty());
    }

    #[test]
    fn nothing_is_lost_whatever_the_order() {
        let mut turns = turns(7, 3, 50);
        let mut running: Vec<(char, u64)> = Vec::new();
        let (mut pushed, mut ended, mut seed) = (0, 0, 1_u64);
        for _ in 0..5000 {
            seed = seed.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
            let kind = char::from(b'a' + (seed >> 40) as u8 % 9);
            if (seed >> 33).is_multiple_of(2) {
                turns.push(kind, (seed >> 50) % 60, pushed);
                pushed += 1;
            } else if !running.is_empty() {
                let (kind, bytes) = running.swap_remove((seed >> 20) as usize % running.len());
                turns.done(&kind, bytes);
                ended += 1;
            }
            while let Some((kind, bytes, _)) = turns.next() {
                running.push((kind, bytes));
            }
            assert!(running.len() <= 7);
            assert!(running.len() == 1 || running.iter().map(|(_, bytes)| bytes).sum::<u64>() <= 50 + 60);
        }
        while let Some((kind, bytes)) = running.pop() {
            turns.done(&kind, bytes);
            ended += 1;
            running.extend(std::iter::from_fn(|| turns.next().map(|(kind, bytes, _)| (kind, bytes))));
        }
        assert_eq!(ended, pushed);
    }
}
