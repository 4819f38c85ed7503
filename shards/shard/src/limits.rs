//! Every bound of a shard, with the reason for it. What happens at each bound is said where it is used.

use std::time::Duration;

/// Bytes taken from a socket in one read.
pub const READ_BYTES: usize = 64 * 1024;
/// Bytes of replies taken in one read: an outgoing session says little.
pub const REPLY_READ_BYTES: usize = 4096;
/// Bytes taken from an encrypted connection in one read: a record of TLS (RFC 8446 §5.1) and its frame.
pub const WIRE_READ_BYTES: usize = 17 * 1024;
/// How long a TLS handshake may take.
pub const HANDSHAKE: Duration = Duration::from_secs(60);
/// Usual room for the trace fields of a message.
pub const TRACE_BYTES: usize = 384;
/// Messages up to this size travel with their ticket to the owner of the route; larger ones are fetched in pieces.
pub const TRAVELLING_BODY_BYTES: u64 = 64 * 1024;
/// Piece in which a large body is fetched.
pub const BODY_PIECE_BYTES: u64 = 256 * 1024;
/// Bodies kept in memory by one shard between commit and delivery; the rest is read back from the journal.
pub const KEPT_BODIES_BYTES: usize = 64 << 20;
/// Messages of one shard that are on their way at once; the others stay in the index until some return.
pub const FLIGHTS: usize = 20_000;
/// Due envelopes taken out of the queue in one go, so that the first is on its way before the last is read.
pub const CLAIM: usize = 256;
/// Messages read back from the journal at once: the disk's queue is deep, a shard's other work must not starve.
pub const LOAD_READERS: usize = 16;
/// Readers that make a listing.
pub const LIST_READERS: usize = 32;
/// The longest sleep of the loop that looks for due envelopes; wall clocks are set back and forth.
pub const DUE_WAIT: Duration = Duration::from_secs(30);
/// Pause before a message that cannot be read, or a bounce that cannot be queued, is tried again.
pub const UNREADABLE: Duration = Duration::from_secs(300);
/// Recipients in one transaction: as many as any server must take (RFC 5321 §4.5.3.1.8).
pub const RECIPIENTS_PER_TICKET: usize = 100;
/// How long a ticket stays at home that found its route with too much to do: long beside what reading it back costs.
pub const ROUTE_BUSY: Duration = Duration::from_secs(5);
/// Tickets that wait for a site to be tried again come back spread over this time.
pub const ROUTE_SPREAD: Duration = Duration::from_secs(5);
/// Maildir deliveries of one shard at once: enough to keep the disk's helper threads busy, and their fsyncs together.
pub const MAILDIRS: usize = 64;
/// Of them those into one Maildir, whose fsyncs are shared.
pub const PER_MAILDIR: usize = 32;
/// Maildirs of which a shard remembers that they are there; then it looks again.
pub const KNOWN_MAILDIRS: usize = 50_000;
/// Deliveries of one shard that are with the supervisor at once; it does 32 and lets 64 wait.
pub const HANDED: usize = 64;
/// Of them those of one user, so that his program that hangs leaves room for others.
pub const HANDED_PER_USER: usize = 4;
/// Bytes of their texts, which are in memory; a larger one goes alone.
pub const HANDED_BYTES: u64 = 64 << 20;
/// LMTP connections of one shard at once.
pub const STORE_CONNECTIONS: usize = 64;
/// Of them those to one mail store.
pub const PER_STORE: usize = 8;
/// Messages on one connection to a mail store, which may have a bound of its own and does not say so.
pub const STORE_MESSAGES: u32 = 1000;
/// How long a mail store that could not be reached is left alone.
pub const STORE_AWAY: Duration = Duration::from_secs(30);
/// Bytes of a message's text that a bounce's header part is taken from.
pub const BOUNCED_HEADER_BYTES: usize = 64 * 1024;
/// Bytes of a message's text that `queue show` prints.
pub const SHOWN_BYTES: usize = 1 << 20;
/// Time to open a connection to one address (RFC 5321 names none; Postfix uses 30 s).
pub const CONNECT: Duration = Duration::from_secs(30);
/// Addresses tried for one connection; a site with more is tried again later (Postfix stops after 5).
pub const ADDRESSES_PER_ATTEMPT: usize = 8;
/// Source addresses tried for one destination address, where this machine does not have the first ones.
pub const SOURCES_PER_ADDRESS: usize = 8;
/// How long a delivery waits for the tables that say where it goes; each has a shorter time of its own.
pub const DIRECTION: Duration = Duration::from_secs(60);
/// A client that does not take our replies for this long is gone (RFC 5321 §4.5.3.2.7).
pub const WRITE: Duration = Duration::from_secs(300);
/// RFC 5321 §4.5.3.2.5: a server that takes no piece of a message for this long is gone.
pub const BODY_WRITE: Duration = Duration::from_secs(180);
/// Time for a QUIT.
pub const QUIT: Duration = Duration::from_secs(5);
/// How long a client may take for a TLS handshake: four trips over the slowest of networks, and two signatures.
pub const HANDSHAKE_OF_CLIENT: Duration = Duration::from_secs(30);
/// Time to tell a client that there is no room for it.
pub const TURN_AWAY: Duration = Duration::from_secs(5);
/// How long shutting down waits for open transactions.
pub const DRAIN: Duration = Duration::from_secs(10);
/// How long a stopping shard then waits for results that are on a ring.
pub const LAST_RESULTS: Duration = Duration::from_millis(200);
/// How often it looks for them without being woken.
pub const LAST_RESULTS_LOOK: Duration = Duration::from_millis(10);
/// Pause of a listener that cannot accept, out of descriptors for one.
pub const ACCEPT_PAUSE: Duration = Duration::from_millis(100);
/// How often the free space is looked at.
pub const SPACE_CHECK: Duration = Duration::from_secs(1);
/// Deliveries of one message, all its recipients together: as many as one recipient may stand for, and few enough for a batch.
pub const DELIVERIES_PER_MESSAGE: usize = ringpost_conf::limits::EXPANSION_NODES_MAX as usize;
/// How long a client may wait for the reply to RCPT: RFC 5321 §4.5.3.2.3 has him wait for five minutes.
pub const EXPANSION: Duration = Duration::from_secs(120);
/// Nodes of an expansion (some 50 µs) after which others have their turn.
pub const EXPANSION_TURN: usize = 64;
/// How much longer than the table's own time a shard waits for its answer.
pub const TABLE_ANSWER_GRACE: Duration = Duration::from_secs(5);
/// How long it waits for the text of a `.forward` or a list: the supervisor gives up after half a minute.
pub const FILE_ANSWER: Duration = Duration::from_secs(40);
/// Questions to tables, the system and users' files that wait for an answer; beyond it they have failed (grammar §7.3).
pub const LOOKUPS_WAITING: usize = 1_000;
/// Answers to them that are kept; the oldest are dropped beyond it.
pub const LOOKUPS_KEPT: usize = 20_000;
/// Answers of the DNS kept by a shard; the oldest are dropped beyond it.
pub const DNS_CACHE: usize = 20_000;
/// The longest an answer is believed.
pub const DNS_TTL_MAX: Duration = Duration::from_secs(3600);
/// The shortest: a busy route asks at most this often.
pub const DNS_TTL_MIN: Duration = Duration::from_secs(30);
/// How long "there is no such domain" is believed: short, since a new domain's first mail should not bounce twice.
pub const DNS_NEGATIVE_TTL: Duration = Duration::from_secs(60);
/// How long a failed lookup is not repeated.
pub const DNS_FAILURE_TTL: Duration = Duration::from_secs(5);

const _: () = assert!(DELIVERIES_PER_MESSAGE <= u16::MAX as usize, "an envelope's index must hold it");
const _: () = assert!(FILE_ANSWER.as_secs() < EXPANSION.as_secs());
