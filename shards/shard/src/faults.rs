//! What goes wrong with the hosts that mail is sent to: one `smtp-out:` line for each fault, and of the same fault not more
//! than a few a minute.

use std::cell::RefCell;
use std::collections::HashMap;
use std::net::{IpAddr, SocketAddr};
use std::time::{Duration, Instant};

use ringpost_io::Runtime;

use crate::event::Event;
use crate::limits::{FAULTS_KEPT, FAULTS_TOLD, FAULTS_TOLD_IN};
use crate::shard::{Shard, World};

/// A host, or one of its addresses, was of no use.
#[derive(Clone, Debug)]
pub(crate) struct Fault {
    /// The host's name.
    pub(crate) host: String,
    /// Where it was tried.
    pub(crate) address: SocketAddr,
    /// From where.
    pub(crate) source: Option<IpAddr>,
    /// What was awaited: `connect`, `greeting`, `ehlo`, `starttls`, `tls`, `login`.
    pub(crate) stage: &'static str,
    /// What it said, or why nothing came.
    pub(crate) why: String,
    /// It is left alone for this time.
    pub(crate) pause: Option<Duration>,
}

/// What the log was told lately.
#[derive(Debug, Default)]
pub(crate) struct Told {
    by_kind: RefCell<HashMap<Kind, Lines>>,
}

/// Faults of one kind: where, at which stage, and what the reply begins with, which is its code.
type Kind = (SocketAddr, &'static str, [u8; 3]);

#[derive(Debug)]
struct Lines {
    since: Instant,
    written: u32,
    /// Not written since the last one that was.
    more: u64,
}

impl Told {
    /// Whether a fault may have a line now, and how many others of its kind had none since the last.
    pub(crate) fn admit(&self, address: SocketAddr, stage: &'static str, why: &str, now: Instant) -> Option<u64> {
        let code = why.as_bytes().first_chunk().copied().unwrap_or_default();
        let kind = (address, stage, code);
        let mut by_kind = self.by_kind.borrow_mut();
        let is_old = |lines: &Lines| now.saturating_duration_since(lines.since) >= FAULTS_TOLD_IN;
        if by_kind.len() >= FAULTS_KEPT && !by_kind.contains_key(&kind) {
            by_kind.retain(|_, lines| !is_old(lines));
            if by_kind.len() >= FAULTS_KEPT {
                return None;
            }
        }
        let lines = by_kind.entry(kind).or_insert(Lines { since: now, written: 0, more: 0 });
        if is_old(lines) {
            (lines.since, lines.written) = (now, 0);
        }
        if lines.written == FAULTS_TOLD {
            lines.more += 1;
            return None;
        }
        lines.written += 1;
        Some(std::mem::take(&mut lines.more))
    }
}

/// Tells the log, with what is done about it.
pub(crate) fn tell<W: World>(shard: &Shard<W>, route: &str, fault: &Fault, next: &str) {
    let Some(more) = shard.told.admit(fault.address, fault.stage, &fault.why, shard.runtime.now()) else { return };
    let Fault { host, address, source, stage, why, pause } = fault;
    let (address, source, pause) = (*address, *source, *pause);
    shard.event(&Event::Outbound { host, address, source, route, stage, why, pause, next, more });
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn s148_a_flood_of_one_fault_has_a_few_lines_a_minute_and_the_rest_is_counted() {
        let (told, now) = (Told::default(), Instant::now());
        let place = |last: u8| SocketAddr::from(([192, 0, 2, last], 25));
        let written = (0..100).filter(|_| told.admit(place(1), "connect", "421 x", now).is_some()).count();
        assert_eq!(written, FAULTS_TOLD as usize);
        assert_eq!(told.admit(place(1), "greeting", "421 x", now), Some(0), "another stage");
        assert_eq!(told.admit(place(1), "connect", "554 x", now), Some(0), "another reply");
        assert_eq!(told.admit(place(2), "connect", "421 x", now), Some(0), "another host");
        let later = now + FAULTS_TOLD_IN;
        assert_eq!(told.admit(place(1), "connect", "421 y", later), Some(100 - u64::from(FAULTS_TOLD)));
        assert_eq!(told.admit(place(1), "connect", "421 y", later), Some(0));
    }

    #[test]
    fn what_is_kept_is_bounded() {
        let (told, now) = (Told::default(), Instant::now());
        let place = |n: usize| SocketAddr::from((std::net::Ipv4Addr::from(n as u32), 25));
        let written = (0..2 * FAULTS_KEPT).filter(|n| told.admit(place(*n), "connect", "421 x", now).is_some()).count();
        assert_eq!(written, FAULTS_KEPT);
        assert!(told.admit(place(2 * FAULTS_KEPT), "connect", "421 x", now + FAULTS_TOLD_IN).is_some());
    }
}
