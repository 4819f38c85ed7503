//! What failed for good, and what has succeeded where that was asked for (RFC 3461), is reported to the sender (RFC 3464), by a message that goes through the same queue. The bounce is
//! durable before the failed envelope is closed: a crash between the two repeats the bounce, and loses nothing. What waits
//! for long is told by `notices.rs`, with reports that are written here.

use std::rc::Rc;
use std::sync::Arc;

use ringpost_conf::Facts;
use ringpost_io::Runtime;
use ringpost_message::dsn;
use ringpost_perf::Counter;
use ringpost_queue::{Body, Flags, MessageId, NewMessage, State, Stored, StoredEnvelope};
use ringpost_smtp::client::RemoteReply;
use ringpost_smtp::dsn::{OfRecipient, decode};

use crate::dispatch::{self, Envelope, Flight, Fresh};
use crate::event::Event;
use crate::letter::{Outcome, Results};
use crate::limits;
use crate::recipient::{self, Unique};
use crate::settings::Settings;
use crate::shard::{Shard, World};
use crate::submit::Noted;

/// What becomes of a recipient.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Fate {
    /// Refused for good.
    Failed,
    /// Tried until the time was over.
    Expired,
    /// It is in its mailbox.
    Delivered,
    /// A server has it that cannot be asked to report.
    Relayed,
    /// It waits, and is tried until this time, in milliseconds since the epoch.
    Delayed(u64),
}

impl Fate {
    /// `Action:` of its report (RFC 3464 §2.3.3).
    fn action(self) -> &'static str {
        match self {
            Self::Failed | Self::Expired => "failed",
            Self::Delivered => "delivered",
            Self::Relayed => "relayed",
            Self::Delayed(_) => "delayed",
        }
    }
}

/// A recipient whose fate may have to be told.
pub(crate) struct Ending {
    pub(crate) index: u16,
    pub(crate) recipient: String,
    /// The forward-path that has led to it, if that is another one.
    pub(crate) original: Option<String>,
    /// What the sender wants to be told.
    pub(crate) request: Box<str>,
    pub(crate) reply: RemoteReply,
    /// What a program has said.
    pub(crate) output: String,
    pub(crate) remote: String,
    pub(crate) fate: Fate,
    /// Where its report goes, and no other's, if not to the sender.
    pub(crate) returns_to: Option<String>,
}

impl Ending {
    /// Of an envelope that has come back with `outcome`.
    pub(crate) fn new(envelope: &Envelope, outcome: &Outcome, results: &Results, fate: Fate) -> Self {
        let reply = match outcome {
            Outcome::Delivered(reply) => reply.clone(),
            _ => RemoteReply::local(451, (4, 0, 0), ""),
        };
        Self {
            index: envelope.index,
            recipient: envelope.recipient.clone(),
            original: envelope.original.clone(),
            request: envelope.request.clone(),
            reply,
            output: String::new(),
            remote: results.remote.clone(),
            fate,
            returns_to: None,
        }
    }

    /// Of an envelope that waits until `until_ms` at most.
    pub(crate) fn delayed(envelope: &StoredEnvelope, until_ms: u64) -> Self {
        let untried = || RemoteReply::local(451, (4, 0, 0), "nobody has refused it; it waits for its turn");
        Self {
            index: envelope.index,
            recipient: envelope.recipient.clone(),
            original: Some(envelope.original.clone()).filter(|original| !original.is_empty()),
            request: envelope.request.as_str().into(),
            reply: RemoteReply::parse(&envelope.last_reply).unwrap_or_else(untried),
            output: String::new(),
            remote: String::new(),
            fate: Fate::Delayed(until_ms),
            returns_to: None,
        }
    }

    /// Whether the sender wants to know (RFC 3461 §4.1).
    pub(crate) fn is_wanted(&self) -> bool {
        let notify = OfRecipient::parse(&self.request).notify;
        match self.fate {
            Fate::Failed | Fate::Expired => notify.wants_failure(),
            Fate::Delivered | Fate::Relayed => notify.wants_success(),
            Fate::Delayed(_) => notify.wants_delay(),
        }
    }

    fn is_failure(&self) -> bool {
        matches!(self.fate, Fate::Failed | Fate::Expired)
    }

    /// How its envelope ends; `None`: it does not.
    fn state(&self) -> Option<State> {
        match self.fate {
            Fate::Failed => Some(State::Failed { reply: self.reply.to_string() }),
            Fate::Expired => Some(State::Expired),
            Fate::Delivered | Fate::Relayed => Some(State::Delivered),
            Fate::Delayed(_) => None,
        }
    }
}

/// The message that reports are about.
pub(crate) struct About {
    id: MessageId,
    sender: String,
    flags: Flags,
    received_ms: u64,
    envid: String,
}

impl About {
    pub(crate) fn new(id: MessageId, flight: &Flight) -> Self {
        let Flight { sender, flags, received_ms, envid, .. } = flight;
        Self { id, sender: sender.clone(), flags: *flags, received_ms: *received_ms, envid: envid.clone() }
    }

    pub(crate) fn of_stored(stored: &Stored) -> Self {
        let Stored { id, sender, flags, received_ms, envid, .. } = stored;
        Self { id: *id, sender: sender.clone(), flags: *flags, received_ms: *received_ms, envid: envid.clone() }
    }
}

/// Reports what the sender wants to know and closes the envelopes. Failures and successes are told apart, in a message each.
/// The null sender gets no report (RFC 5321 §4.5.5).
pub(crate) async fn report<W: World>(shard: &Rc<Shard<W>>, about: &About, endings: Vec<Ending>) {
    let (failures, successes): (Vec<Ending>, Vec<Ending>) = endings.into_iter().partition(Ending::is_failure);
    // Those with an address of their own are told of there, one by one.
    let (alone, together): (Vec<Ending>, Vec<Ending>) =
        failures.into_iter().partition(|ending| ending.returns_to.is_some());
    for endings in alone.into_iter().map(|ending| vec![ending]).chain([together, successes]) {
        let told: Vec<&Ending> = endings.iter().filter(|ending| ending.is_wanted()).collect();
        let is_lost = about.sender.is_empty() && told.iter().any(|ending| ending.is_failure());
        shard.counters.add(Counter::BouncesDropped, u64::from(is_lost));
        let durable = told.is_empty() || about.sender.is_empty() || write(shard, about, &told).await;
        // The journal takes nothing now: what has failed stays, and is tried and reported again. What was delivered must not be
        // delivered twice for the sake of its report.
        let later = shard.runtime.unix_ms() + limits::BOUNCE_AGAIN.as_millis() as u64;
        for ending in &endings {
            match ending.state().filter(|_| durable || !ending.is_failure()) {
                Some(state) => shard.queue.settle(about.id, ending.index, state),
                None => shard.queue.release(about.id, ending.index, later),
            }
        }
    }
}

/// Writes a report, which is of one kind: all have failed, or all have succeeded, or all wait until the same time. False: it
/// is not durable.
pub(crate) async fn write<W: World>(shard: &Rc<Shard<W>>, about: &About, endings: &[&Ending]) -> bool {
    let About { id, sender, flags, received_ms, envid } = about;
    let (id, flags, received_ms) = (*id, *flags, *received_ms);
    let sender = endings[0].returns_to.as_deref().unwrap_or(sender);
    let is_failure = endings[0].is_failure();
    let settings = shard.settings();
    let facts =
        Facts { source: None, local: true, helo: &shard.hostname, sender: "", recipient: sender, ..Facts::default() };
    let deliveries = match recipient::expand(shard, &settings, facts).await {
        Ok(deliveries) => deliveries,
        Err(refusal) if refusal.is_temporary() => {
            shard.warn(&format!("message {id}: where a bounce to <{sender}> goes is not known yet"));
            return false;
        }
        Err(_) => {
            shard.counters.add(Counter::BouncesDropped, u64::from(is_failure));
            shard.warn(&format!("message {id}: no rule takes a bounce to <{sender}>; it is not sent"));
            return true;
        }
    };
    if !is_within_limits(shard, &settings, about, &about.sender, endings) {
        return true;
    }
    let mut unique = Unique::new(&settings, "", "");
    deliveries
        .into_iter()
        .for_each(|one| unique.add((sender, OfRecipient::default()), &one.address, one.action, one.way));
    let envelopes: Rc<[Envelope]> = unique.envelopes.into();
    let wants_all = is_failure && flags.contains(Flags::RET_FULL);
    let bytes = if wants_all { limits::RETURNED_MESSAGE_BYTES + 1 } else { limits::BOUNCED_HEADER_BYTES };
    let original = shard.queue.read_body(id, 0, bytes).await;
    // Of what is only delayed the disk may read more the next time.
    let is_lost = is_failure && original.is_err();
    let original = original.unwrap_or_default();
    let now_ms = shard.runtime.unix_ms();
    let bounce_id = shard.queue.next_id();
    let told: Vec<Option<(&str, String)>> = endings.iter().map(|ending| told(ending)).collect();
    let recipients: Vec<dsn::Recipient<'_>> =
        endings.iter().zip(&told).map(|(ending, told)| of_report(ending, told.as_ref())).collect();
    let report = dsn::Report {
        hostname: &shard.hostname,
        sender,
        queue_id: &id.to_string(),
        bounce_id: &bounce_id.to_string(),
        arrived_ms: received_ms,
        now_ms,
        smtputf8: flags.contains(Flags::SMTPUTF8),
        envelope_id: &decode(envid),
        is_lost,
        returns_all: wants_all && !is_lost && original.len() <= limits::RETURNED_MESSAGE_BYTES,
        recipients: &recipients,
        original: &original,
    };
    let text = match endings[0].fate {
        Fate::Failed | Fate::Expired => dsn::compose(&report),
        Fate::Delayed(until_ms) => dsn::compose_delayed(&report, until_ms),
        Fate::Delivered | Fate::Relayed if endings.iter().any(|ending| ending.fate == Fate::Relayed) => {
            dsn::compose_relayed(&report)
        }
        Fate::Delivered | Fate::Relayed => dsn::compose_delivered(&report),
    };
    let mut own_flags = Flags::BOUNCE;
    own_flags.set(Flags::SMTPUTF8, flags.contains(Flags::SMTPUTF8));
    // RFC 8689 §5: what the report shows of the message is as worthy of protection.
    own_flags.set(Flags::REQUIRES_TLS, flags.contains(Flags::REQUIRES_TLS));
    // What is urgent to its sender, his being told of it is, too (RFC 6710).
    own_flags.set_priority(flags.priority());
    own_flags.set(Flags::EIGHTBIT, !text.is_ascii());
    let noted = Noted::new(&envelopes, &settings);
    let noted = noted.all();
    let message = NewMessage {
        id: bounce_id,
        received_ms: now_ms,
        release_ms: None,
        sender: "",
        envelopes: &noted,
        flags: own_flags,
        tag: "",
        envid: "",
        head: &[],
        body: Body::Whole(&[&text]),
    };
    if let Err(error) = shard.queue.submit(message).await {
        shard.warn(&format!("message {id}: cannot queue the bounce to <{sender}>: {error}"));
        if is_of_stranger(about) {
            // It is made again, and counts then.
            shard.backscatter.take_back(&settings.config.bounce.limits, &about.sender);
        }
        return false;
    }
    shard.counters.add(Counter::Bounced, u64::from(is_failure));
    shard.counters.add(Counter::DelayNotices, u64::from(matches!(endings[0].fate, Fate::Delayed(_))));
    shard.counters.add(Counter::CommitBatchMessages, 1);
    dispatch::dispatch(
        shard,
        &settings,
        Fresh {
            id: bounce_id,
            received_ms: now_ms,
            sender: String::new(),
            tag: String::new(),
            envid: String::new(),
            envelopes,
            flags: own_flags,
            body_bytes: text.len() as u64,
            body: Some(Arc::from(text)),
        },
    );
    true
}

/// Whether somebody has sent it who need not be whom he says.
fn is_of_stranger(about: &About) -> bool {
    about.flags.contains(Flags::STRANGER)
}

/// Whether a report may be made: of strangers' mail, there are not too many. What is not made is told of.
fn is_within_limits<W: World>(
    shard: &Shard<W>,
    settings: &Settings,
    about: &About,
    sender: &str,
    endings: &[&Ending],
) -> bool {
    if !is_of_stranger(about) {
        return true;
    }
    let (limits, now_ms) = (&settings.config.bounce.limits, shard.runtime.unix_ms());
    let admitted = shard.backscatter.admit(limits, sender, now_ms, || shard.runtime.random_u64());
    let Err(over) = admitted else { return true };
    shard.counters.add(Counter::BouncesWithheld, 1);
    shard.event(&Event::Withheld {
        id: about.id,
        sender,
        recipient: &endings[0].recipient,
        more: endings.len() - 1,
        action: endings[0].fate.action(),
        limit: over.name,
        rate: over.rate,
    });
    false
}

/// Type and address of ORCPT, decoded. What is not of a type that may go beyond ASCII is xtext (RFC 6533 §3).
fn told(ending: &Ending) -> Option<(&str, String)> {
    let (kind, address) = OfRecipient::parse(&ending.request).orcpt.split_once(';')?;
    Some((kind, if kind.eq_ignore_ascii_case("utf-8") { address.to_owned() } else { decode(address) }))
}

fn of_report<'a>(failure: &'a Ending, told: Option<&'a (&'a str, String)>) -> dsn::Recipient<'a> {
    let (class, subject, detail) = failure.reply.status_or_default();
    dsn::Recipient {
        address: &failure.recipient,
        original: failure.original.as_deref().unwrap_or(""),
        told: told.map(|(kind, address)| (*kind, &**address)),
        // A temporary failure that was repeated until the time was over is final all the same (RFC 3463 §3.5, X.4.7).
        status: if failure.fate == Fate::Expired { (4, 4, 7) } else { (class, subject, detail) },
        remote: &failure.remote,
        reply: failure.reply.text(),
        output: &failure.output,
        code: failure.reply.code(),
        expired: failure.fate == Fate::Expired,
    }
}
