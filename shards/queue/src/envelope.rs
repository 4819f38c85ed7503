//! What goes into the queue and what comes out of it, as the caller sees it.

use crate::body::ChunkedBody;
use crate::id::MessageId;
use crate::told::Told;

/// A message on its way into the queue.
pub struct NewMessage<'a> {
    /// Its id, reserved with [`crate::Queue::next_id`].
    pub id: MessageId,
    /// When it was received, in milliseconds since the epoch.
    pub received_ms: u64,
    /// Not to be tried before, in milliseconds since the epoch: after a crash it is due then. The caller has it in flight all
    /// the same, and gives it back ([`crate::Queue::release`]).
    pub release_ms: Option<u64>,
    /// The reverse-path, "" for the null one.
    pub sender: &'a str,
    /// Its deliveries: one for each destination, however many recipients have led there.
    pub envelopes: &'a [NewEnvelope<'a>],
    /// What must be remembered of the transaction.
    pub flags: Flags,
    /// The tag of the listener, for rules.
    pub tag: &'a str,
    /// The client's name for the transaction (ENVID, RFC 3461), as it was told; else "".
    pub envid: &'a str,
    /// Header fields that go in front of the body.
    pub head: &'a [u8],
    /// The text as the client sent it.
    pub body: Body<'a>,
}

/// One delivery of a message on its way into the queue. What it says is the caller's to understand.
#[derive(Clone, Copy, Debug, Default)]
pub struct NewEnvelope<'a> {
    /// Whom it is for.
    pub recipient: &'a str,
    /// The forward-path that has led to it, if that is another one; else "".
    pub original: &'a str,
    /// What takes it, in words that outlive a change of the configuration.
    pub action: &'a str,
    /// How it is made, where that is more than what the action says; else "".
    pub way: &'a str,
    /// What the sender wants to be told of it (RFC 3461), as the parameters of RCPT; else "".
    pub request: &'a str,
}

/// The text of a message on its way in.
pub enum Body<'a> {
    /// All of it, in pieces.
    Whole(&'a [&'a [u8]]),
    /// The first part is in the journal already, the rest in pieces.
    Chunks(ChunkedBody, &'a [&'a [u8]]),
}

/// Facts about a message, a bit each, and its priority.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Flags(pub u16);

impl Flags {
    /// It contains bytes above 127 (RFC 6152).
    pub const EIGHTBIT: Self = Self(1);
    /// Its addresses or header need SMTPUTF8 (RFC 6531).
    pub const SMTPUTF8: Self = Self(2);
    /// We made it to report a failure; it is never answered by another (RFC 5321 §6.1).
    pub const BOUNCE: Self = Self(4);

    /// Nobody may have it without TLS and a promise to do likewise (REQUIRETLS, RFC 8689).
    pub const REQUIRES_TLS: Self = Self(8);
    /// It may go without TLS whatever its recipients demand (`TLS-Required: No`, RFC 8689).
    pub const WAIVES_TLS: Self = Self(16);
    /// A report of failure is to return all of it (`RET=FULL`, RFC 3461).
    pub const RET_FULL: Self = Self(32);
    /// A report is to return no more than its header (`RET=HDRS`, RFC 3461).
    pub const RET_HEADERS: Self = Self(64);
    /// Each of its recipients has a reverse-path of its own (XVERP).
    pub const VERP: Self = Self(128);
    /// It came from a client that is nobody we know: whether its sender has sent it is not certain.
    pub const STRANGER: Self = Self(256);

    /// Where its priority stands, five bits: a number with a sign.
    const PRIORITY_SHIFT: u32 = 9;
    const PRIORITY: Self = Self(0b1_1111 << Self::PRIORITY_SHIFT);

    /// How urgent it is, from -9 to 9 (RFC 6710); 0 for most, and for all of older versions.
    pub fn priority(self) -> i8 {
        let bits = ((self.0 & Self::PRIORITY.0) >> Self::PRIORITY_SHIFT) as u8;
        // The highest of the five is the sign.
        (((bits << 3) as i8) >> 3).clamp(-9, 9)
    }

    /// Notes how urgent it is, from -9 to 9.
    pub fn set_priority(&mut self, priority: i8) {
        let bits = u16::from(priority.clamp(-9, 9) as u8) << Self::PRIORITY_SHIFT;
        self.0 = self.0 & !Self::PRIORITY.0 | bits & Self::PRIORITY.0;
    }

    /// Whether all bits of `other` are set.
    pub fn contains(self, other: Self) -> bool {
        self.0 & other.0 == other.0
    }

    /// Sets or clears the bits of `other`.
    pub fn set(&mut self, other: Self, on: bool) {
        match on {
            true => self.0 |= other.0,
            false => self.0 &= !other.0,
        }
    }
}

/// What became of an envelope that was in flight.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum State {
    /// The next hop has it.
    Delivered,
    /// To be tried again; counts an attempt.
    Deferred {
        /// Not before this time, in milliseconds since the epoch.
        until_ms: u64,
        /// Why, as the peer or we put it; its first 500 bytes are kept.
        reply: String,
    },
    /// Refused for good; the caller has seen to the bounce.
    Failed {
        /// Why.
        reply: String,
    },
    /// Its time ran out; the caller has seen to the bounce.
    Expired,
    /// Kept until an administrator says otherwise.
    Held,
}

/// Where an envelope stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum Status {
    /// Waits for its time.
    Waiting = 0,
    /// Given to the caller, who will settle or release it. After a crash it waits, due at once.
    InFlight = 1,
    /// Taken by the next hop.
    Delivered = 2,
    /// Refused for good.
    Failed = 3,
    /// Given up.
    Expired = 4,
    /// Kept until an administrator says otherwise.
    Held = 5,
}

impl Status {
    /// Nothing will ever be done for it again.
    pub fn is_final(self) -> bool {
        matches!(self, Self::Delivered | Self::Failed | Self::Expired)
    }

    /// The field's word for it.
    pub fn name(self) -> &'static str {
        match self {
            Self::Waiting => "deferred",
            Self::InFlight => "in flight",
            Self::Delivered => "delivered",
            Self::Failed => "failed",
            Self::Expired => "expired",
            Self::Held => "held",
        }
    }

    pub(crate) fn from_number(number: u8) -> Option<Self> {
        let all = [Self::Waiting, Self::InFlight, Self::Delivered, Self::Failed, Self::Expired, Self::Held];
        all.get(usize::from(number)).copied()
    }
}

/// A message as it lies in the queue, without its text.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Stored {
    /// Its id.
    pub id: MessageId,
    /// When it was received, in milliseconds since the epoch.
    pub received_ms: u64,
    /// As [`NewMessage::release_ms`] has it.
    pub release_ms: Option<u64>,
    /// The reverse-path, "" for the null one.
    pub sender: String,
    /// Facts about it.
    pub flags: Flags,
    /// The tag of the listener.
    pub tag: String,
    /// The client's name for the transaction, as [`NewMessage::envid`] has it.
    pub envid: String,
    /// All its envelopes in order, ended ones too.
    pub envelopes: Vec<StoredEnvelope>,
    /// Size of its text in bytes, with the fields that were put in front.
    pub body_bytes: u64,
}

/// What takes an envelope.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum StoredAction {
    /// As [`NewEnvelope::action`] has it.
    Reference(String),
    /// Its number in a configuration of long ago: journals from before there were references.
    Number(u16),
}

/// One delivery of a stored message.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct StoredEnvelope {
    /// Its place in the message.
    pub index: u16,
    /// Whom it is for.
    pub recipient: String,
    /// The forward-path that has led to it, if that is another one; else "".
    pub original: String,
    /// What takes it.
    pub action: StoredAction,
    /// How it is made, as [`NewEnvelope::way`] has it.
    pub way: String,
    /// What the sender wants to be told of it, as [`NewEnvelope::request`] has it.
    pub request: String,
    /// Where it stands.
    pub state: Status,
    /// When it is tried next, in milliseconds since the epoch.
    pub due_ms: u64,
    /// Failed attempts.
    pub attempts: u16,
    /// What the last one was told, "" if nothing was.
    pub last_reply: String,
}

impl Stored {
    /// From when its time to live counts, in milliseconds since the epoch: it was received or, if that is later, released.
    pub fn begins_ms(&self) -> u64 {
        self.received_ms.max(self.release_ms.unwrap_or(0))
    }
}

impl StoredEnvelope {
    /// Nothing will ever be done for it again.
    pub fn is_final(&self) -> bool {
        self.state.is_final()
    }

    /// The field's word for where it stands.
    pub fn state_name(&self) -> &'static str {
        self.state.name()
    }
}

/// One envelope in a listing made from memory alone.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Listed {
    /// The message.
    pub id: MessageId,
    /// Its place in the message.
    pub index: u16,
    /// Where it stands.
    pub state: Status,
    /// When it is tried next, in milliseconds since the epoch.
    pub due_ms: u64,
    /// When it was received, in milliseconds since the epoch, rounded up to whole seconds. `None`: a journal of an older
    /// version has not said, and is not known before the message is read with [`Queue::load`](crate::Queue::load).
    pub received_ms: Option<u64>,
    /// Failed attempts.
    pub attempts: u16,
    /// How far its sender was told that it waits.
    pub told: Told,
    /// In flight, and set aside by whoever has it ([`Queue::park`](crate::Queue::park)).
    pub parked: bool,
}

/// Sums of a queue.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Counts {
    /// Messages with an envelope that is not ended.
    pub messages: u64,
    /// Envelopes that are not ended.
    pub envelopes: u64,
    /// Envelopes that wait after a failed attempt.
    pub deferred: u64,
    /// Envelopes that the caller has.
    pub in_flight: u64,
    /// Of them set aside ([`Queue::park`](crate::Queue::park)).
    pub parked: u64,
    /// Bytes in segments that are still needed.
    pub bytes_live: u64,
    /// Segments by use.
    pub segments: SegmentCounts,
    /// Bytes of all segments in use per live byte; 1 while nothing is live.
    pub amplification: f64,
    /// Batches made durable since the start.
    pub batches: u64,
    /// Segments that failed or are damaged, and are not written to again.
    pub retired: u64,
}

/// Segments by use.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct SegmentCounts {
    /// Ready to be written.
    pub free: u64,
    /// With new mail.
    pub active: u64,
    /// With long-lived mail that was moved there.
    pub cold: u64,
}

/// Whether new mail can be taken.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Space {
    /// Go on.
    Enough,
    /// Answer 452 4.3.1 at MAIL: the disk is nearly full, or does not write.
    Low,
}

/// Why a message was not taken. Nothing of it is kept.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum SubmitError {
    /// No room on the disk; again later (452 4.3.1).
    #[error("no room on the disk")]
    Full,
    /// The disk did not write, twice; again later (451 4.3.0).
    #[error("the disk does not write")]
    Disk,
    /// Its envelopes and header do not fit one batch; never (552 5.3.4).
    #[error("too large for the queue")]
    TooLarge,
    /// The queue is closed; again later (451 4.3.0).
    #[error("the queue is closed")]
    Stopped,
}

/// Why a message could not be read.
#[derive(Debug, thiserror::Error)]
pub enum ReadError {
    /// It is not, or no longer, in the queue.
    #[error("no such message")]
    Unknown,
    /// The disk failed.
    #[error("the disk does not read: {0}")]
    Disk(#[from] std::io::Error),
    /// What lies there is not this message.
    #[error("its record is damaged")]
    Damaged,
}

/// Why a queue could not be opened.
#[derive(Debug, thiserror::Error)]
pub enum OpenError {
    /// The disk failed.
    #[error("cannot read the queue at {path}: {source}")]
    Disk {
        /// Where.
        path: String,
        /// How.
        source: std::io::Error,
    },
    /// Written by a version that this one does not understand; opening it would lose mail.
    #[error("{path} was written by another version of ringpost ({what}); use that version, or move the mail with it")]
    Version {
        /// The segment or checkpoint.
        path: String,
        /// What is unknown in it.
        what: String,
    },
}

/// What opening a queue found.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Report {
    /// Slices opened.
    pub slices: usize,
    /// Messages that are not ended.
    pub messages: u64,
    /// Envelopes that are not ended.
    pub envelopes: u64,
    /// Batches replayed beyond the checkpoints.
    pub batches: u64,
    /// Unfinished last batches, as a crash leaves them; nobody was told that they are durable.
    pub torn: u64,
    /// Corruption, a line each. What could be read beyond it was salvaged; its segment is kept and not written again.
    pub damage: Vec<String>,
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::journal::record::{WITH_ENVID, WITH_RELEASE};

    #[test]
    fn a_priority_is_kept_beside_all_facts_and_touches_none() {
        let facts = Flags(Flags::EIGHTBIT.0 | Flags::RET_HEADERS.0);
        assert_eq!(facts.priority(), 0, "as it was before there were priorities");
        for priority in -9..=9 {
            let mut flags = facts;
            flags.set_priority(5);
            flags.set_priority(priority);
            assert_eq!(flags.priority(), priority);
            assert_eq!(flags.0 & !Flags::PRIORITY.0, facts.0);
            assert_eq!(flags.0 & (WITH_ENVID | WITH_RELEASE), 0, "these are the journal's own");
        }
        let mut flags = facts;
        flags.set_priority(i8::MIN);
        assert_eq!(flags.priority(), -9);
        assert_eq!(Flags(Flags::PRIORITY.0 >> 1 & Flags::PRIORITY.0).priority(), 9, "a number that nobody writes");
    }
}
