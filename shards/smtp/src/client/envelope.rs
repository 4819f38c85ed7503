//! MAIL, RCPT and DATA of one message: the commands, and what was answered to each recipient.

use super::incoming::RemoteReply;
use crate::extensions::Offered;
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
}

/// What became of one recipient.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum RecipientResult {
    /// The server took responsibility.
    Delivered(RemoteReply),
    /// Try again later.
    Transient(RemoteReply),
    /// Never try again.
    Permanent(RemoteReply),
}

impl RecipientResult {
    /// The reply that decided.
    pub fn reply(&self) -> &RemoteReply {
        match self {
            Self::Delivered(reply) | Self::Transient(reply) | Self::Permanent(reply) => reply,
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
    /// How many were offered to the server; the rest is beyond its RCPTMAX.
    pub(super) offered: usize,
    pub(super) accepted: usize,
}

impl Recipients {
    pub(super) fn new(envelope: &Envelope<'_>, server: &Offered) -> Self {
        let count = envelope.recipients.len();
        let limit = server.recipients_max.map_or(usize::MAX, |max| usize::try_from(max).unwrap_or(usize::MAX));
        let offered = count.min(limit);
        let mut results = vec![None; offered];
        let beyond = RemoteReply::local(452, (4, 5, 3), reply::LOCAL_TOO_MANY_RECIPIENTS);
        results.resize(count, Some(RecipientResult::Transient(beyond)));
        Self { results, offered, accepted: 0 }
    }

    /// The reply to RCPT number `index`.
    pub(super) fn note(&mut self, index: usize, reply: RemoteReply) {
        if reply.is_positive() {
            self.accepted += 1;
            return;
        }
        self.results[index] = Some(match is_too_many(&reply) {
            true => RecipientResult::Transient(reply),
            false => RecipientResult::refused(reply),
        });
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
        std::mem::take(self).results.into_iter().map(|result| result.unwrap_or_else(|| fate.clone())).collect()
    }
}

/// Old servers say 552 for too many recipients; RFC 5321 §4.5.3.1.10 wants it read as 452. Not so when a status tells otherwise.
fn is_too_many(reply: &RemoteReply) -> bool {
    reply.code() == 552 && matches!(reply.status(), None | Some((5, 5, 3)))
}

/// Why `server` cannot take the message whatever it would say.
pub(super) fn impossible(envelope: &Envelope<'_>, server: &Offered) -> Option<RemoteReply> {
    let ascii = envelope.sender.is_ascii() && envelope.recipients.iter().all(|path| path.is_ascii());
    if (envelope.smtputf8 || !ascii) && !server.smtputf8 {
        return Some(RemoteReply::local(550, (5, 6, 7), reply::LOCAL_NO_SMTPUTF8));
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
    out.extend_from_slice(b"\r\n");
    for recipient in &envelope.recipients[..count] {
        out.extend_from_slice(b"RCPT TO:<");
        push_path(recipient, out);
        out.extend_from_slice(b">\r\n");
    }
    out.extend_from_slice(b"DATA\r\n");
}

/// A path that was checked when it came in; should it hold a line end all the same, it must not become a command.
fn push_path(path: &str, out: &mut Vec<u8>) {
    out.extend(path.bytes().map(|byte| if byte.is_ascii_control() { b'?' } else { byte }));
}
