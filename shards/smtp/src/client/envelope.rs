//! MAIL, RCPT and DATA of one message: the commands, and what was answered to each recipient.

use super::incoming::RemoteReply;
use crate::dsn::{OfMessage, OfRecipient};
use crate::extensions::Offered;
use crate::priority;
use crate::reply::{self, push_number};

/// One message for one server. All recipients share a transaction.
#[derive(Clone, Copy, Debug)]
pub struct Envelope<'e> {
    /// Reverse-path without brackets, empty for a bounce.
    pub sender: &'e str,
    /// Forward-paths without brackets.
    pub recipients: &'e [&'e str],
    /// Size of the message in bytes, before dot-stuffing.
    pub size: u64,
    /// There are bytes above 0x7F in it (RFC 6152). Sent even to a server that does not offer 8BITMIME: nothing is recoded.
    pub eightbit: bool,
    /// It came with SMTPUTF8 (RFC 6531) and can go on only with it.
    pub smtputf8: bool,
    /// It came with REQUIRETLS (RFC 8689) and can go on only with it. That the connection is encrypted, and with whom, is the
    /// caller's to see to.
    pub requiretls: bool,
    /// MT-PRIORITY (RFC 6710), from -9 to 9; said to a server that offers it, unless it is 0.
    pub priority: i8,
    /// What the sender wants to be told of it; said to a server that offers DSN (RFC 3461), and XVERP.
    pub requests: Requests<'e>,
}

/// What a sender wants to be told (RFC 3461). The default is nothing.
#[derive(Clone, Copy, Debug, Default)]
pub struct Requests<'e> {
    /// RET, ENVID and XVERP.
    pub message: OfMessage<'e>,
    /// NOTIFY and ORCPT, as many as there are recipients; or none, if nothing is asked of any.
    pub recipients: &'e [OfRecipient<'e>],
}

/// What became of one recipient.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum RecipientResult {
    /// The server took responsibility.
    Delivered(RemoteReply),
    /// The server takes no more recipients at a time (RFC 5321 §4.5.3.1.10): its turn is in the next transaction, at once. Of
    /// those that were offered at least one has another result, so that there is an end.
    NextTransaction(RemoteReply),
    /// Try again later.
    Transient(RemoteReply),
    /// Never try again.
    Permanent(RemoteReply),
}

impl RecipientResult {
    /// The reply that decided.
    pub fn reply(&self) -> &RemoteReply {
        match self {
            Self::Delivered(reply) | Self::NextTransaction(reply) | Self::Transient(reply) | Self::Permanent(reply) => {
                reply
            }
        }
    }

    /// By a negative reply. Anything but 5xx might be different next time.
    pub(super) fn refused(reply: RemoteReply) -> Self {
        if reply.is_permanent() { Self::Permanent(reply) } else { Self::Transient(reply) }
    }
}

/// The recipients of the open transaction.
#[derive(Debug, Default)]
pub(super) struct Recipients {
    results: Vec<Option<RecipientResult>>,
    /// How many were offered to the server; the rest is beyond what it takes at a time.
    pub(super) offered: usize,
    pub(super) accepted: usize,
}

impl Recipients {
    /// Of a transaction with a server that takes so many at a time.
    pub(super) fn new(envelope: &Envelope<'_>, limit: usize) -> Self {
        let count = envelope.recipients.len();
        let offered = count.min(limit);
        let mut results = vec![None; offered];
        let beyond = RemoteReply::local(452, (4, 5, 3), reply::LOCAL_TOO_MANY_RECIPIENTS);
        results.resize(count, Some(RecipientResult::NextTransaction(beyond)));
        Self { results, offered, accepted: 0 }
    }

    /// The reply to RCPT number `index`.
    pub(super) fn note(&mut self, index: usize, reply: RemoteReply) {
        if reply.is_positive() {
            self.accepted += 1;
            // Those before it were not too many, whatever the server has called them.
            self.results[..index].iter_mut().for_each(defer);
            return;
        }
        self.results[index] = Some(match is_too_many(&reply) {
            true => RecipientResult::NextTransaction(reply),
            false => RecipientResult::refused(reply),
        });
    }

    /// How many the server has taken or refused, if it called all others too many: so many it takes at a time.
    pub(super) fn taken_at_a_time(&self) -> Option<usize> {
        let first = self.results[..self.offered].iter().position(is_next);
        first.filter(|first| *first > 0)
    }

    /// The first undecided recipient from `from` on.
    pub(super) fn next_open(&self, from: usize) -> Option<usize> {
        (from..self.offered).find(|index| self.results[*index].is_none())
    }

    /// The reply for recipient number `index` to the end of the message (LMTP).
    pub(super) fn decide(&mut self, index: usize, reply: RemoteReply) {
        self.results[index] = Some(match reply.is_positive() {
            true => RecipientResult::Delivered(reply),
            false => RecipientResult::refused(reply),
        });
    }

    /// Whether the server has taken the message for somebody (LMTP, while the transaction is open).
    pub(super) fn any_delivered(&self) -> bool {
        self.results.iter().any(|result| matches!(result, Some(RecipientResult::Delivered(_))))
    }

    /// All that are undecided share the fate of the message; returns one result per recipient.
    pub(super) fn conclude(&mut self, fate: RecipientResult) -> Vec<RecipientResult> {
        let Self { mut results, offered, .. } = std::mem::take(self);
        if results[..offered].iter().all(is_next) {
            // Not even the first: another transaction would end like this one.
            results.iter_mut().for_each(defer);
        }
        results.into_iter().map(|result| result.unwrap_or_else(|| fate.clone())).collect()
    }

    /// The connection is lost, or the message is refused as such: there is no next transaction, and who would be in it shares
    /// the fate of the undecided.
    pub(super) fn conclude_all(&mut self, fate: RecipientResult) -> Vec<RecipientResult> {
        self.results.iter_mut().filter(|result| is_next(result)).for_each(|result| *result = None);
        std::mem::take(self).results.into_iter().map(|result| result.unwrap_or_else(|| fate.clone())).collect()
    }

    /// Which reply belongs to which recipient is not certain: no refusal counts.
    pub(super) fn forget_refusals(&mut self) {
        let refused = self.results.iter_mut().filter(|result| !matches!(result, Some(RecipientResult::Delivered(_))));
        refused.for_each(|result| *result = None);
    }
}

fn is_next(result: &Option<RecipientResult>) -> bool {
    matches!(result, Some(RecipientResult::NextTransaction(_)))
}

/// What is too many for the next transaction, too, is a matter of later.
fn defer(result: &mut Option<RecipientResult>) {
    if let Some(RecipientResult::NextTransaction(reply)) = result {
        *result = Some(RecipientResult::Transient(reply.clone()));
    }
}

/// RFC 5321 §4.5.3.1.10; old servers say 552, which it wants read as 452. Not so when a status tells otherwise.
fn is_too_many(reply: &RemoteReply) -> bool {
    matches!(reply.code(), 452 | 552) && matches!(reply.status(), None | Some((4 | 5, 5, 3)))
}

/// Why `server` cannot take the message whatever it would say.
pub(super) fn impossible(envelope: &Envelope<'_>, server: &Offered) -> Option<RemoteReply> {
    let ascii = envelope.sender.is_ascii() && envelope.recipients.iter().all(|path| path.is_ascii());
    if (envelope.smtputf8 || !ascii) && !server.smtputf8 {
        return Some(RemoteReply::local(550, (5, 6, 7), reply::LOCAL_NO_SMTPUTF8));
    }
    if envelope.requiretls && !server.requiretls {
        return Some(RemoteReply::local(550, (5, 7, 30), reply::LOCAL_NO_REQUIRETLS));
    }
    // Bounces that do not say whom they are about would be of no use to who has asked for others. Another day it may offer it.
    if envelope.requests.message.verp.is_some() && !server.xverp {
        return Some(RemoteReply::local(451, (4, 5, 4), reply::LOCAL_NO_XVERP));
    }
    if server.size_max.is_some_and(|max| envelope.size > max) {
        return Some(RemoteReply::local(552, (5, 3, 4), reply::LOCAL_TOO_LARGE));
    }
    None
}

/// Appends MAIL, the first `count` RCPTs and DATA, a line each.
pub(super) fn commands(envelope: &Envelope<'_>, server: &Offered, count: usize, out: &mut Vec<u8>) {
    out.extend_from_slice(b"MAIL FROM:<");
    push_path(envelope.sender, out);
    out.push(b'>');
    if server.size && envelope.size > 0 {
        out.extend_from_slice(b" SIZE=");
        push_number(envelope.size, out);
    }
    if server.eightbitmime && envelope.eightbit {
        out.extend_from_slice(b" BODY=8BITMIME");
    }
    let ascii = envelope.sender.is_ascii() && envelope.recipients.iter().all(|path| path.is_ascii());
    if server.smtputf8 && (envelope.smtputf8 || !ascii) {
        out.extend_from_slice(b" SMTPUTF8");
    }
    if envelope.requiretls {
        out.extend_from_slice(b" REQUIRETLS");
    }
    if server.mt_priority && envelope.priority != 0 {
        priority::write(envelope.priority, out);
    }
    if server.dsn {
        envelope.requests.message.write(out);
    }
    if server.xverp {
        envelope.requests.message.write_verp(out);
    }
    out.extend_from_slice(b"\r\n");
    for (place, recipient) in envelope.recipients[..count].iter().enumerate() {
        out.extend_from_slice(b"RCPT TO:<");
        push_path(recipient, out);
        out.push(b'>');
        if let Some(request) = envelope.requests.recipients.get(place).filter(|_| server.dsn) {
            request.write(out);
        }
        out.extend_from_slice(b"\r\n");
    }
    out.extend_from_slice(b"DATA\r\n");
}

/// A path that was checked when it came in; should it hold a line end all the same, it must not become a command.
fn push_path(path: &str, out: &mut Vec<u8>) {
    out.extend(path.bytes().map(|byte| if byte.is_ascii_control() { b'?' } else { byte }));
}
