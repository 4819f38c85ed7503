//! The judge: what was answered 250 must arrive or be reported back, nothing may be invented or changed, and a repetition
//! needs a crash or a broken connection that excuses it (promises 1 to 3). And what the watch (`watch.rs`) has seen of
//! promise 6.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::{self, Display, Formatter};
use std::time::{Duration, Instant};

use crate::coordinator::{domain, members};
use crate::limits::{DISK_RECOVERY, DOMAINS, STATE_GRACE};

/// A promise that was not kept.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Broken {
    /// Answered 250, never seen again.
    Lost {
        /// Message number.
        number: u64,
        /// Forward-path.
        recipient: String,
    },
    /// Delivered though nobody sent it.
    Invented {
        /// What was delivered.
        what: String,
    },
    /// Delivered with another text.
    Changed {
        /// Message number.
        number: u64,
    },
    /// Delivered twice without excuse.
    Repeated {
        /// Message number.
        number: u64,
        /// Forward-path.
        recipient: String,
    },
    /// Envelopes waited for nothing, as the auditor has found.
    Stranded {
        /// How many.
        envelopes: u64,
    },
    /// A message was in the queue long after its expiry.
    Outlived {
        /// By how much it was late.
        by: Duration,
        /// Whose, and what it waited for.
        what: String,
    },
    /// A message waited and waited though nothing has gone wrong for long.
    Stalled {
        /// Whose, and for what.
        what: String,
    },
    /// A message was delivered before the time until which its sender wants it held.
    Early {
        /// Message number.
        number: u64,
    },
    /// Messages are in the queue long after the expiry of the last one.
    Left {
        /// How many.
        messages: u64,
    },
    /// The engine did not start again after a crash.
    Stuck {
        /// What it said.
        why: String,
    },
}

impl Display for Broken {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        match self {
            Broken::Lost { number, recipient } => {
                write!(f, "lost: message {number} for <{recipient}> was answered 250")
            }
            Broken::Invented { what } => write!(f, "invented: {what} was never sent"),
            Broken::Changed { number } => write!(f, "changed: message {number} arrived with another text"),
            Broken::Repeated { number, recipient } => {
                write!(f, "repeated: message {number} for <{recipient}> arrived twice with nothing to excuse it")
            }
            Broken::Stranded { envelopes } => write!(f, "stranded: {envelopes} envelopes waited for nothing"),
            Broken::Outlived { by, what } => {
                write!(f, "outlived: {} s after its expiry: {what}", by.as_secs())
            }
            Broken::Stalled { what } => write!(f, "stalled: {what}"),
            Broken::Early { number } => write!(f, "early: message {number} was to be held"),
            Broken::Left { messages } => {
                write!(f, "left: {messages} messages are in the queue though all have expired")
            }
            Broken::Stuck { why } => write!(f, "stuck: the engine does not start: {why}"),
        }
    }
}

/// The reverse-path of a message, where its bounces go.
pub(crate) fn sender(number: u64) -> String {
    format!("s{number}@{}", domain(DOMAINS))
}

/// The number of a message, in its text.
pub(crate) fn number_in(text: &str) -> Option<u64> {
    text.lines().find_map(|line| line.strip_prefix("X-Number: ")?.parse().ok())
}

/// A message as its client knows it.
#[derive(Debug)]
struct Sent {
    recipients: Vec<String>,
    acked: Vec<bool>,
}

/// One arrival at a receiver.
#[derive(Clone, Copy, Debug)]
struct Arrival {
    at: Instant,
    /// The receiver cannot know whether its 250 was heard.
    unheard: bool,
}

/// How the engine's disk does.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Disk {
    /// It writes.
    Good,
    /// Some writes fail, are slow, or find no room.
    Bad,
}

/// All that is known of a run.
#[derive(Debug, Default)]
pub(crate) struct Ledger {
    sent: BTreeMap<u64, Sent>,
    arrivals: BTreeMap<(u64, String), Vec<Arrival>>,
    /// Recipients for which a receiver has said 5xx.
    refused: BTreeMap<String, Instant>,
    /// Domains of which the DNS has said that they take no mail.
    denied: BTreeSet<String>,
    /// Recipients that the server has given up since their time was over.
    expired: BTreeSet<String>,
    /// When messages are released, by the clock on the wall.
    held: BTreeMap<u64, u64>,
    /// The most that the clock on the wall has shown before it was set.
    shown_ms: u64,
    /// Recipients named in bounces that arrived.
    bounced: BTreeMap<String, u64>,
    crashes: Vec<Instant>,
    /// When the disk began to misbehave or to behave, in order.
    disk: Vec<(Instant, Disk)>,
    broken: Vec<Broken>,
    /// Messages have little time; what does not arrive has expired.
    expires: bool,
}

impl Ledger {
    /// Of a run in which messages have little time, or not.
    pub(crate) fn new(expires: bool) -> Self {
        Self { expires, ..Self::default() }
    }

    /// What the watch has seen, once.
    pub(crate) fn seen(&mut self, broken: Broken) {
        self.broken.push(broken);
    }

    /// So many messages are in the queue when all have expired.
    pub(crate) fn left(&mut self, messages: u64) {
        if messages > 0 {
            self.broken.push(Broken::Left { messages });
        }
    }

    /// The server has given a recipient up, since its time was over.
    pub(crate) fn gave_up(&mut self, recipient: &str) {
        if self.expires {
            self.expired.insert(recipient.to_owned());
        }
    }

    /// How many.
    pub(crate) fn expired(&self) -> u64 {
        self.expired.len() as u64
    }

    /// The DNS has said that there is no such domain, or that it takes no mail.
    pub(crate) fn denied(&mut self, domain: &str) {
        self.denied.insert(domain.to_owned());
    }

    /// The clock on the wall has shown this, and is set: what was released then may still be under way.
    pub(crate) fn clock_showed(&mut self, wall_ms: u64) {
        self.shown_ms = self.shown_ms.max(wall_ms);
    }

    /// A message is held until then.
    pub(crate) fn holds(&mut self, number: u64, until_ms: u64) {
        self.held.insert(number, until_ms);
    }

    /// A client begins to send a message.
    pub(crate) fn sending(&mut self, number: u64, recipients: Vec<String>) {
        let acked = vec![false; recipients.len()];
        self.sent.insert(number, Sent { recipients, acked });
    }

    /// The server has answered 250 for this recipient of the message.
    pub(crate) fn acked(&mut self, number: u64, recipient: usize) {
        if let Some(sent) = self.sent.get_mut(&number) {
            sent.acked[recipient] = true;
        }
    }

    /// A message has arrived and was, or will be, answered 250. Returns its place for [`Ledger::unheard`].
    pub(crate) fn arrived(&mut self, number: u64, recipient: &str, at: Instant, wall_ms: u64) -> Option<usize> {
        if self.held.get(&number).is_some_and(|until_ms| self.shown_ms.max(wall_ms) < *until_ms) {
            self.broken.push(Broken::Early { number });
        }
        match self.sent.get(&number) {
            Some(sent) if sent.recipients.iter().flat_map(|of| members(of)).any(|of| of == recipient) => {
                let arrivals = self.arrivals.entry((number, recipient.to_owned())).or_default();
                arrivals.push(Arrival { at, unheard: true });
                Some(arrivals.len() - 1)
            }
            _ => {
                self.broken.push(Broken::Invented { what: format!("message {number} for <{recipient}>") });
                None
            }
        }
    }

    /// The peer went on after our 250: it has heard it.
    pub(crate) fn heard(&mut self, number: u64, recipient: &str, place: usize) {
        if let Some(arrivals) = self.arrivals.get_mut(&(number, recipient.to_owned())) {
            arrivals[place].unheard = false;
        }
    }

    /// The text differs from what was sent.
    pub(crate) fn changed(&mut self, number: u64) {
        self.broken.push(Broken::Changed { number });
    }

    /// What arrived is no message of ours, nor a bounce.
    pub(crate) fn invented(&mut self, what: String) {
        self.broken.push(Broken::Invented { what });
    }

    /// A receiver refuses a recipient for good.
    pub(crate) fn refused(&mut self, recipient: &str, at: Instant) {
        self.refused.entry(recipient.to_owned()).or_insert(at);
    }

    /// A bounce that names this recipient has arrived.
    pub(crate) fn bounced(&mut self, recipient: &str) {
        *self.bounced.entry(recipient.to_owned()).or_insert(0) += 1;
    }

    /// The engine is killed.
    pub(crate) fn crashed(&mut self, at: Instant) {
        self.crashes.push(at);
    }

    /// From now on the disk does so.
    pub(crate) fn disk(&mut self, at: Instant, disk: Disk) {
        if self.disk.last().is_none_or(|(_, last)| *last != disk) {
            self.disk.push((at, disk));
        }
    }

    /// How the disk does now.
    pub(crate) fn disk_is_bad(&self) -> bool {
        self.disk.last().is_some_and(|(_, disk)| *disk == Disk::Bad)
    }

    /// The engine does not start.
    pub(crate) fn stuck(&mut self, why: String) {
        self.broken.push(Broken::Stuck { why });
    }

    /// How many messages were begun, answered 250, and delivered (deliveries).
    pub(crate) fn counts(&self) -> (u64, u64, u64) {
        let acked = self.sent.values().filter(|sent| sent.acked.contains(&true)).count() as u64;
        (self.sent.len() as u64, acked, self.arrivals.values().map(|arrivals| arrivals.len() as u64).sum())
    }

    /// Whether every recipient that was answered 250 has arrived or was bounced.
    pub(crate) fn is_settled(&self) -> bool {
        self.missing().next().is_none()
    }

    /// The verdict, when all has come to rest.
    pub(crate) fn judge(&self) -> Vec<Broken> {
        let mut broken = self.broken.clone();
        broken.extend(self.missing().map(|(number, recipient)| Broken::Lost { number, recipient }));
        for ((number, recipient), arrivals) in &self.arrivals {
            let repeated = arrivals.windows(2).any(|pair| !self.is_excused(pair[0]));
            if repeated {
                broken.push(Broken::Repeated { number: *number, recipient: recipient.clone() });
            }
        }
        broken
    }

    fn missing(&self) -> impl Iterator<Item = (u64, String)> {
        self.sent.iter().flat_map(|(number, sent)| {
            let acked = sent.recipients.iter().zip(&sent.acked).filter(|(_, acked)| **acked);
            let missing = acked.flat_map(|(recipient, _)| members(recipient)).filter(|recipient| {
                let arrived = self.arrivals.contains_key(&(*number, recipient.clone()));
                // A bounce excuses only where a receiver or the DNS has in fact refused; and where the bounce was refused, too,
                // there is nobody left to tell (RFC 5321 §4.5.5). Where messages have little time, so has the bounce.
                let is_told = || self.bounced.contains_key(recipient) || self.is_refused(&sender(*number));
                let bounced = self.is_refused(recipient) && (self.expires || is_told());
                !arrived && !bounced && !self.expired.contains(recipient)
            });
            missing.map(|recipient| (*number, recipient)).collect::<Vec<_>>()
        })
    }

    /// Whether a receiver or the DNS has said that this recipient gets nothing.
    fn is_refused(&self, recipient: &str) -> bool {
        let domain = recipient.rsplit_once('@').map_or("", |(_, domain)| domain);
        self.refused.contains_key(recipient) || self.denied.contains(domain)
    }

    /// A second delivery is excused if nobody can know whether the first was heard, or a crash soon after it may have
    /// taken the note of it.
    fn is_excused(&self, first: Arrival) -> bool {
        let soon = |crash: &Instant| *crash + STATE_GRACE >= first.at && !self.was_good_between(first.at, *crash);
        first.unheard || self.crashes.iter().any(soon)
    }

    /// Whether the disk has been good, and known to be so, for [`STATE_GRACE`] on end at some time between the two.
    fn was_good_between(&self, from: Instant, to: Instant) -> bool {
        let ends = self.disk.iter().skip(1).map(|(at, _)| *at).chain([to]);
        self.disk.iter().zip(ends).enumerate().any(|(number, ((begin, disk), end))| {
            let recovered = *begin + if number == 0 { Duration::ZERO } else { DISK_RECOVERY };
            let (begin, end) = (recovered.max(from), end.min(to));
            *disk == Disk::Good && end.saturating_duration_since(begin) > STATE_GRACE
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_judge_tells_kept_from_broken() {
        let now = Instant::now();
        let mut ledger = Ledger::default();
        ledger.disk(now, Disk::Good);
        ledger.sending(1, vec!["a".into(), "b".into()]);
        ledger.acked(1, 0);
        ledger.acked(1, 1);
        assert_eq!(ledger.judge().len(), 2, "both are lost");
        let place = ledger.arrived(1, "a", now, 0).expect("sent");
        ledger.heard(1, "a", place);
        ledger.refused("b", now);
        ledger.bounced("b");
        assert_eq!(ledger.judge(), []);
        ledger.arrived(1, "a", now + Duration::from_secs(60), 0);
        assert_eq!(ledger.judge(), [Broken::Repeated { number: 1, recipient: "a".into() }]);
        ledger.crashed(now + Duration::from_millis(30));
        assert_eq!(ledger.judge(), [], "the crash may have taken the note");
        ledger.crashes.clear();
        ledger.crashed(now + Duration::from_secs(30));
        assert_eq!(ledger.judge().len(), 1, "half a minute later it may not");
        ledger.crashes.clear();
        ledger.crashed(now + Duration::from_millis(30));
        ledger.arrived(2, "a", now, 0);
        assert!(matches!(ledger.judge()[..], [Broken::Invented { .. }]));
    }

    #[test]
    fn what_is_given_up_in_time_or_has_no_domain_is_not_lost_and_what_is_held_is_not_early() {
        let now = Instant::now();
        let mut ledger = Ledger::new(true);
        ledger.sending(1, vec!["a@x".into(), "b@y".into(), "c@z".into()]);
        (0..3).for_each(|index| ledger.acked(1, index));
        ledger.gave_up("a@x");
        ledger.denied("y");
        assert_eq!(ledger.judge(), [Broken::Lost { number: 1, recipient: "c@z".into() }]);
        ledger.holds(1, 1000);
        ledger.arrived(1, "c@z", now, 1000);
        assert_eq!(ledger.judge(), []);
        ledger.arrived(1, "a@x", now, 999);
        assert_eq!(ledger.judge(), [Broken::Early { number: 1 }]);
    }
}
