//! What rules, limits and failures say to strangers. The protocol's own texts are in `smtp/reply.rs`.

use ringpost_conf::expand::Refusal;
use ringpost_smtp::Reply;

/// RFC 5321 §3.1: a server that cannot take a session says so instead of its greeting.
pub(crate) const TOO_MANY_SESSIONS: &str = "421 4.3.2 too many sessions, try again later\r\n";
/// As above, for one client.
pub(crate) const TOO_MANY_FROM_ADDRESS: &str = "421 4.7.0 too many sessions from your address, try again later\r\n";

/// Disk space is short; what is queued will make room.
pub(crate) fn no_space() -> Reply {
    Reply::new(452, "4.3.1", "not enough disk space, try again later")
}

/// The journal could not be written (promise 3).
pub(crate) fn disk_failed() -> Reply {
    Reply::new(451, "4.3.0", "cannot write to the queue, try again later")
}

/// The message does not fit into the journal whatever happens.
pub(crate) fn too_large() -> Reply {
    Reply::new(552, "5.3.4", "message too large")
}

/// It has passed too many servers (RFC 5321 §6.3).
pub(crate) fn mail_loop() -> Reply {
    Reply::new(554, "5.4.6", "too many Received fields: this message is going round in circles")
}

/// What the rules or an expansion say; the texts are theirs.
pub(crate) fn of(refusal: &Refusal) -> Reply {
    Reply::owned(refusal.code(), refusal.status(), refusal.text().to_owned())
}

/// All recipients so far stand for more than fits a message; the client sends it to the rest once more.
pub(crate) fn too_many_deliveries() -> Reply {
    Reply::new(452, "4.5.3", "the recipients so far stand for too many others, send to this one separately")
}

/// So many handshakes wait for their signature that this one would come too late (RFC 3207 §4).
pub(crate) fn too_many_handshakes() -> Reply {
    Reply::new(454, "4.7.0", "too many TLS handshakes at the moment, try again later")
}

/// Whoever knows the users does not answer, or there are more logins than can be checked (RFC 4954 §6).
pub(crate) fn login_unknown() -> Reply {
    Reply::new(454, "4.7.0", "cannot check passwords at the moment, try again later")
}

/// Too many logins have failed, from this address or of this user.
pub(crate) fn too_many_logins() -> Reply {
    Reply::new(421, "4.7.0", "too many failed logins, try again later")
}

/// The table that says whom certificates stand for does not answer (RFC 4954 §6).
pub(crate) fn certificate_unknown() -> Reply {
    Reply::new(454, "4.7.0", "cannot tell whom your certificate stands for at the moment, try again later")
}

/// A user may not be this sender.
pub(crate) fn not_your_address() -> Reply {
    Reply::new(553, "5.7.1", "this user may not send with this address")
}

/// The table that says who may be what does not answer.
pub(crate) fn senders_unknown() -> Reply {
    Reply::new(451, "4.3.0", "temporary lookup failure, try again later")
}

/// The shard stops.
pub(crate) fn stopping() -> Reply {
    Reply::new(421, "4.3.2", "server is stopping, try again later")
}
