//! Which address a connection leaves from: those of a route in turn, without those that this machine does not have now.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::time::Instant;

use crate::limits::SOURCE_PAUSE;
use crate::site::Site;

/// Where to send from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Origin {
    /// The system chooses.
    System,
    /// From this address.
    Address(IpAddr),
    /// There is no source of the destination's family: it is not to be tried.
    Nowhere,
}

/// Addresses that could not be used a short time ago, with the end of their pause.
#[derive(Debug, Default)]
pub(crate) struct Unusable(BTreeMap<IpAddr, Instant>);

impl Unusable {
    pub(crate) fn mark(&mut self, address: IpAddr, now: Instant) {
        self.0.retain(|_, until| *until > now);
        self.0.insert(address, now + SOURCE_PAUSE);
    }

    fn until(&self, address: IpAddr, now: Instant) -> Option<Instant> {
        self.0.get(&address).copied().filter(|until| *until > now)
    }
}

/// How often each family has had its turn.
#[derive(Debug, Default)]
pub(crate) struct Turns([usize; 2]);

impl Turns {
    /// The next source for a destination of this family. If none can be used now, the one whose pause ends first: a machine
    /// that has lost all of them must notice when they are back.
    pub(crate) fn next(&mut self, site: &Site, is_ipv4: bool, unusable: &Unusable, now: Instant) -> Origin {
        if site.sources.is_empty() {
            return Origin::System;
        }
        let all: Vec<IpAddr> = site.sources.iter().copied().filter(|source| source.is_ipv4() == is_ipv4).collect();
        let turn = &mut self.0[usize::from(is_ipv4)];
        for _ in 0..all.len() {
            let source = all[*turn % all.len()];
            *turn = turn.wrapping_add(1);
            if unusable.until(source, now).is_none() {
                return Origin::Address(source);
            }
        }
        let first = all.into_iter().min_by_key(|source| unusable.until(*source, now));
        first.map_or(Origin::Nowhere, Origin::Address)
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::site::Helo;

    fn site(sources: &[&str]) -> Site {
        let sources: Vec<IpAddr> = sources.iter().map(|source| source.parse().expect("an address")).collect();
        Site::new(&[], &sources, Helo::Name("us".into()))
    }

    fn next(turns: &mut Turns, site: &Site, unusable: &Unusable, now: Instant) -> String {
        match turns.next(site, true, unusable, now) {
            Origin::Address(address) => address.to_string(),
            other => format!("{other:?}"),
        }
    }

    #[test]
    fn s43_addresses_of_the_destinations_family_take_turns() {
        let (mut turns, unusable, now) = (Turns::default(), Unusable::default(), Instant::now());
        let site = site(&["192.0.2.1", "2001:db8::1", "192.0.2.2"]);
        let said: Vec<String> = (0..4).map(|_| next(&mut turns, &site, &unusable, now)).collect();
        assert_eq!(said, ["192.0.2.1", "192.0.2.2", "192.0.2.1", "192.0.2.2"]);
        let six = turns.next(&site, false, &unusable, now);
        assert_eq!(six, Origin::Address("2001:db8::1".parse().expect("an address")));
    }

    #[test]
    fn a_family_without_a_source_is_not_tried_and_no_sources_leave_it_to_the_system() {
        let (mut turns, unusable, now) = (Turns::default(), Unusable::default(), Instant::now());
        assert_eq!(turns.next(&site(&["192.0.2.1"]), false, &unusable, now), Origin::Nowhere);
        assert_eq!(turns.next(&site(&[]), false, &unusable, now), Origin::System);
    }

    #[test]
    fn an_address_that_cannot_be_used_is_left_out_for_a_while() {
        let (mut turns, mut unusable, now) = (Turns::default(), Unusable::default(), Instant::now());
        let site = site(&["192.0.2.1", "192.0.2.2"]);
        unusable.mark([192, 0, 2, 1].into(), now);
        let later = now + SOURCE_PAUSE - Duration::from_secs(1);
        assert_eq!(next(&mut turns, &site, &unusable, later), "192.0.2.2");
        assert_eq!(next(&mut turns, &site, &unusable, later), "192.0.2.2");
        unusable.mark([192, 0, 2, 2].into(), later);
        assert_eq!(next(&mut turns, &site, &unusable, later), "192.0.2.1", "its pause ends first");
        let after = now + SOURCE_PAUSE;
        assert_eq!(next(&mut turns, &site, &unusable, after), "192.0.2.1");
    }
}
