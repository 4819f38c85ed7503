//! How many connections of a route each of its hosts has, where that is limited (`connections-per-host`).

use std::collections::BTreeMap;
use std::rc::Rc;
use std::time::{Duration, Instant};

use crate::limits::LATER_MAX;
use crate::site::Host;

/// A connection to a host, from before it is opened until this is dropped.
#[derive(Debug)]
pub struct HostHold {
    _route: Rc<()>,
}

/// The hosts of a route.
#[derive(Debug, Default)]
pub(crate) struct Busy {
    /// Connections that each may have.
    most: Option<usize>,
    /// Those that it has, as often as there are others who have it.
    holds: BTreeMap<String, Rc<()>>,
    /// A connection that was to be opened has found room at none of those that may be used now: until one ends, or this is over,
    /// since another host may be back.
    full_until: Option<Instant>,
}

impl Busy {
    /// Each host may have so many from now on.
    pub(crate) fn limit(&mut self, most: Option<usize>) {
        (self.most, self.full_until) = (most, None);
    }

    /// Connections that all of them together may have.
    pub(crate) fn most(&self, hosts: &[Host]) -> usize {
        self.most.map_or(usize::MAX, |most| most.saturating_mul(hosts.len().max(1)))
    }

    /// Whether a host may have one more.
    pub(crate) fn has_room(&self, host: &str) -> bool {
        let held = |holds: &Rc<()>| Rc::strong_count(holds) - 1;
        self.most.is_none_or(|most| self.holds.get(host).map_or(0, held) < most)
    }

    /// A connection is opened to it. They are counted only while there is a limit.
    pub(crate) fn hold(&mut self, host: &str) -> Option<HostHold> {
        self.most?;
        self.holds.retain(|_, holds| Rc::strong_count(holds) > 1);
        Some(HostHold { _route: self.holds.entry(host.to_owned()).or_default().clone() })
    }

    /// None of them had room.
    pub(crate) fn found_full(&mut self, now: Instant) {
        self.full_until = Some(now + LATER_MAX);
    }

    /// A connection has ended, has come to another host than the first, or there are other hosts. Whether they were full.
    pub(crate) fn look_again(&mut self) -> bool {
        self.full_until.take().is_some()
    }

    /// Whether they were when somebody looked last.
    pub(crate) fn is_full(&self) -> bool {
        self.full_until.is_some()
    }

    /// For how long it is no use to look again.
    pub(crate) fn full_for(&self, now: Instant) -> Option<Duration> {
        let left = self.full_until?.saturating_duration_since(now);
        (!left.is_zero()).then_some(left)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn connections_are_counted_by_host_while_they_live_and_only_where_they_are_limited() {
        let mut busy = Busy::default();
        assert!(busy.hold("a").is_none() && busy.has_room("a"));
        assert_eq!(busy.most(&[]), usize::MAX);
        busy.limit(Some(2));
        let mut held = vec![busy.hold("a"), busy.hold("a"), busy.hold("b")];
        assert!(!busy.has_room("a") && busy.has_room("b"));
        held.remove(0);
        assert!(busy.has_room("a"), "it has ended");
        drop(held);
        assert!(busy.hold("b").is_some() && busy.holds.len() == 1, "what has ended is forgotten");
    }
}
