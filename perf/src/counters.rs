//! How often things happened: one set per shard, written by it, read by whoever wants to at any time.

use std::sync::atomic::{AtomicU64, Ordering};

use crossbeam::utils::CachePadded;
use serde::{Deserialize, Serialize};

macro_rules! counters {
    ($($(#[$doc:meta])* $variant:ident $name:literal $help:literal),* $(,)?) => {
        /// What is counted. Names are those of the metrics, without prefix and `_total`.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
        pub enum Counter {
            $(#[doc = $help] $(#[$doc])* $variant,)*
        }

        impl Counter {
            /// All counters, in order.
            pub const ALL: &[Counter] = &[$(Counter::$variant),*];
            /// How many there are.
            pub const COUNT: usize = Self::ALL.len();

            /// Name in metrics and JSON, without prefix and suffix.
            pub fn name(self) -> &'static str {
                match self { $(Counter::$variant => $name,)* }
            }

            /// What it counts, in a sentence.
            pub fn help(self) -> &'static str {
                match self { $(Counter::$variant => $help,)* }
            }
        }
    };
}

counters! {
    ConnectionsAccepted "connections_accepted" "Client connections taken from the listeners, refused ones included.",
    ConnectionsRefused "connections_refused" "Client connections turned away by a limit.",
    TlsHandshakes "tls_handshakes" "TLS handshakes with clients that have ended well.",
    TlsResumed "tls_resumed" "Of them those that took up an earlier session, and needed no signature.",
    TlsFailed "tls_failed" "TLS handshakes with clients that have failed.",
    Logins "logins" "Logins of clients that were right.",
    LoginsFailed "logins_failed" "Logins with a wrong password, or of a user who is not there.",
    LoginsTurnedAway "logins_turned_away" "Logins that were not looked at, since too many had failed before.",
    MessagesReceived "messages_received" "Messages answered with 250, and so durable.",
    BytesReceived "bytes_received" "Bytes read from clients.",
    MessagesRefused "messages_refused" "Messages refused after their last byte.",
    Commits "commits" "Batches made durable, of messages and of states: one synchronous write each.",
    CommitBatchMessages "commit_batched_messages" "Messages that were in those batches.",
    RingOperations "ring_operations" "Operations given to the kernel by io_uring.",
    Delivered "envelopes_delivered" "Envelopes that the next server, or a mailbox, took.",
    Deferred "envelopes_deferred" "Attempts after which an envelope waits for another.",
    Failed "envelopes_failed" "Envelopes that were given up.",
    Bounced "envelopes_bounced" "Bounce messages made for given-up envelopes.",
    DelayNotices "delay_notices" "Notices to senders whose mail waits for long.",
    BouncesDropped "bounces_dropped" "Reports of failures with nobody to go to: mail had the null sender, or no rule takes them.",
    BouncesWithheld "bounces_withheld" "Reports that were not made, since too many have gone to the same place: of mail from strangers.",
    FeedbackBounces "feedback_bounces" "Recipients whose mail has failed elsewhere after it was taken there, as reports say that have come back.",
    FeedbackComplaints "feedback_complaints" "Complaints about mail that was sent (ARF).",
    FeedbackOthers "feedback_others" "What else has come back: notices of delay and of delivery, and what has no form that is known.",
    OutboundConnections "outbound_connections" "Connections made to next servers.",
    OutboundFailures "outbound_failures" "Connections to next servers that could not be made.",
    BodyPieces "body_pieces_read" "Pieces of texts of messages that were read back from the journal to be sent.",
    AuditRounds "audit_rounds" "Times that the liveness auditor has looked at every envelope of the queue.",
    AuditStranded "audit_stranded" "Envelopes that waited for nothing: errors of this program, which the auditor has mended.",
}

/// One shard's counters. They share no cache line with another's: each shard writes only its own.
#[derive(Debug, Default)]
pub struct Counters {
    values: CachePadded<[AtomicU64; Counter::COUNT]>,
}

impl Counters {
    /// All zero.
    pub fn new() -> Self {
        Self::default()
    }

    /// Adds `count`; wraps after 2⁶⁴.
    pub fn add(&self, counter: Counter, count: u64) {
        self.values[counter as usize].fetch_add(count, Ordering::Relaxed);
    }

    /// The value now.
    pub fn get(&self, counter: Counter) -> u64 {
        self.values[counter as usize].load(Ordering::Relaxed)
    }

    /// All values; those of one moment only as far as nothing is added meanwhile.
    pub fn snapshot(&self) -> CountersSnapshot {
        CountersSnapshot { values: Counter::ALL.iter().map(|counter| self.get(*counter)).collect() }
    }
}

/// Values at one moment, of one shard or of several added up.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct CountersSnapshot {
    values: Vec<u64>,
}

impl CountersSnapshot {
    /// The value of `counter`.
    pub fn get(&self, counter: Counter) -> u64 {
        self.values.get(counter as usize).copied().unwrap_or(0)
    }

    /// Puts in a figure that is counted elsewhere (the queue's batches, the ring's operations).
    pub fn set(&mut self, counter: Counter, value: u64) {
        if self.values.len() < Counter::COUNT {
            self.values.resize(Counter::COUNT, 0);
        }
        self.values[counter as usize] = value;
    }

    /// Adds another shard's.
    pub fn merge(&mut self, other: &Self) {
        if self.values.len() < other.values.len() {
            self.values.resize(other.values.len(), 0);
        }
        for (mine, theirs) in self.values.iter_mut().zip(&other.values) {
            *mine = mine.wrapping_add(*theirs);
        }
    }

    /// Names and values, in order.
    pub fn iter(&self) -> impl Iterator<Item = (Counter, u64)> + '_ {
        Counter::ALL.iter().map(|counter| (*counter, self.get(*counter)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn counters_add_up_over_shards() {
        let (one, two) = (Counters::new(), Counters::new());
        one.add(Counter::Delivered, 2);
        two.add(Counter::Delivered, 3);
        two.add(Counter::BytesReceived, 10);
        let mut all = CountersSnapshot::default();
        all.merge(&one.snapshot());
        all.merge(&two.snapshot());
        assert_eq!((all.get(Counter::Delivered), all.get(Counter::BytesReceived)), (5, 10));
        assert_eq!(all.get(Counter::Failed), 0);
        assert_eq!(all.iter().count(), Counter::COUNT);
        all.set(Counter::Commits, 7);
        assert_eq!((all.get(Counter::Commits), all.get(Counter::Delivered)), (7, 5));
    }

    #[test]
    fn names_are_distinct_and_fit_for_metrics() {
        let mut names: Vec<&str> = Counter::ALL.iter().map(|counter| counter.name()).collect();
        assert!(names.iter().all(|name| name.bytes().all(|byte| byte.is_ascii_lowercase() || byte == b'_')));
        names.sort_unstable();
        names.dedup();
        assert_eq!(names.len(), Counter::COUNT);
    }
}
