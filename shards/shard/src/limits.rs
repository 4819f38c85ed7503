//! Every bound of a shard, with the reason for it. What happens at each bound is said where it is used.

use std::time::Duration;

/// Domains of which it is remembered that their backup is odd: told once, each.
pub const ODD_BACKUPS: usize = 1000;
/// A proxy says that fast whom it speaks for: the header is the first thing that it sends.
pub const PROXY_HEADER: Duration = Duration::from_secs(5);
/// A table says that fast whether somebody is a proxy: he has a session's place meanwhile, and may be anybody.
pub const PROXY_LISTED: Duration = Duration::from_secs(5);
/// Connections of strangers to a listener for proxies are told once in that time.
pub const STRANGERS_TOLD: Duration = Duration::from_secs(60);
/// Bytes taken from a socket in one read.
pub const READ_BYTES: usize = 64 * 1024;
/// Bytes of replies taken in one read: an outgoing session says little.
pub const REPLY_READ_BYTES: usize = 4096;
/// Bytes taken from an encrypted connection in one read: a record of TLS (RFC 8446 §5.1) and its frame.
pub const WIRE_READ_BYTES: usize = 17 * 1024;
/// How long a TLS handshake may take.
pub const HANDSHAKE: Duration = Duration::from_secs(60);
/// How long a login may take: it may have to wait its turn, then a table's time, then a hash that is slow on purpose.
pub const LOGIN: Duration = Duration::from_secs(45);
/// How long it may take to compute what another server wants as a proof: others may be in front, and it hashes as often as they say.
pub const PROOF: Duration = Duration::from_secs(60);
/// Usual room for the trace fields of a message.
pub const TRACE_BYTES: usize = 384;
/// Messages up to this size travel with their ticket to the owner of the route; larger ones are fetched in pieces. As much as
/// is in memory anyway when a message has come (`spool-memory`): it need not be read back at once.
pub const TRAVELLING_BODY_BYTES: u64 = 256 * 1024;
/// Of messages that are read back to be tried, texts up to this size are read with them, [`CLAIM`] at a time.
pub const READ_BACK_BYTES: u64 = 64 * 1024;
/// Piece in which a large body is fetched.
pub const BODY_PIECE_BYTES: u64 = 256 * 1024;
/// Bytes of such pieces that a shard keeps for the other sites of their messages: a text of some megabytes, for hundreds.
pub const KEPT_PIECES_BYTES: usize = 16 << 20;
/// Messages that a sender may have out for a route whatever others have, as long as there is something of the reserve.
pub const SENDER_SURE: u32 = 4;
/// The share of a route against what is kept beyond it for senders that have next to nothing out: a quarter.
pub const SHARE_PER_RESERVE: usize = 4;
/// Bodies kept in memory by one shard between commit and delivery; the rest is read back from the journal.
pub const KEPT_BODIES_BYTES: usize = 64 << 20;
/// Messages of one shard that are on their way at once; the others stay in the index until some return.
pub const FLIGHTS: usize = 20_000;
/// Due envelopes taken out of the queue in one go, so that the first is on its way before the last is read.
pub const CLAIM: usize = 256;
/// Due envelopes for which there is no room are set aside after this time, so that their expiry is watched.
pub const OVERDUE: Duration = Duration::from_secs(10);
/// Pause after [`CLAIM`] of them: they are read for it, and whoever is on the way needs the disk, too.
pub const OVERDUE_LOOK: Duration = Duration::from_millis(100);
/// How often the auditor looks at a part of the queue.
pub const AUDIT_TURN: Duration = Duration::from_secs(1);
/// It goes round the queue in so many of these turns …
pub const AUDIT_ROUND_TURNS: usize = 10;
/// … but looks at no more messages than this in one (some 2 ms): a queue of a million takes 40 s.
pub const AUDIT_MESSAGES: usize = 25_000;
/// Messages (some 50 µs) after which others have their turn.
pub const AUDIT_STEP: usize = 500;
/// Envelopes that seem stranded are looked at again after this time before it is believed.
pub const AUDIT_DOUBT: Duration = Duration::from_secs(5);
/// How many of them are remembered; more are found in the next round.
pub const AUDIT_DOUBTS: usize = 10_000;
/// The shortest pause between two looks for mail of whose waiting the sender is to be told.
pub const NOTICE_LOOK: Duration = Duration::from_secs(1);
/// The longest, since wall clocks are set and configurations change.
pub const NOTICE_LOOK_MAX: Duration = Duration::from_secs(30);
/// Messages looked at before such a pause (some 2 ms): a queue of a million takes 40 s.
pub const NOTICE_MESSAGES: usize = 25_000;
/// Messages (some 50 µs) after which others have their turn.
pub const NOTICE_STEP: usize = 500;
/// Notices that are written at once, since each waits for a commit and they share it.
pub const NOTICES_AT_ONCE: usize = 16;
/// What waits at routes, or for its turn to be delivered here, has its deadlines looked at this often.
pub const SWEEP: Duration = Duration::from_secs(10);
/// A message that is still waiting for its last attempt so long after its expiry is given up without.
pub const LAST_ATTEMPT: Duration = Duration::from_secs(20);
/// Deferred envelopes of a site that its next success wakes, unless `mta max-deferred` says otherwise.
pub const SLEEPERS_PER_SITE: usize = 10_000;
/// Of all sites, some 5 MB a shard. Beyond it the site that has most is forgotten: its mail waits for its time.
pub const SLEEPERS: usize = 200_000;
/// Sites of a shard's routes that are known to take nothing; of more it is not noticed that they are back.
pub const TROUBLED: usize = 50_000;
/// Suspended sites of which a shard can say that its mail waits for them; of more it says only until when.
pub const SUSPENDED_SITES: usize = 1_000;
/// Of those that are woken, so many are due at once …
pub const WOKEN_AT_ONCE: usize = 10;
/// … and one more each time that this has passed: 50 a second for a server that was away.
pub const WAKE_STEP: Duration = Duration::from_millis(20);
/// How long a site's mail is not woken again; doubles while that was in vain.
pub const WAKE_PAUSE: Duration = Duration::from_secs(60);
/// The longest such pause.
pub const WAKE_PAUSE_MAX: Duration = Duration::from_secs(3600);
/// Reads from the journal at once, each of messages that lie side by side: the disk's queue is deep, a shard's other work
/// must not starve.
pub const LOAD_READERS: usize = 16;
/// Messages that were read back after which others have their turn (some 100 µs).
pub const TAKEN_UP_IN_TURN: usize = 16;
/// Readers that make a listing.
pub const LIST_READERS: usize = 32;
/// The longest sleep of the loop that looks for due envelopes; wall clocks are set back and forth. Short: a name that does not
/// answer takes half a minute of the one that a message may outlive its expiry.
pub const DUE_WAIT: Duration = Duration::from_secs(5);
/// Pause before a report that cannot be queued is tried again: short, since its message has expired.
pub const BOUNCE_AGAIN: Duration = Duration::from_secs(10);
/// Pause before a message that cannot be read is tried again.
pub const UNREADABLE: Duration = Duration::from_secs(300);
/// Recipients in one transaction: as many as any server must take (RFC 5321 §4.5.3.1.8).
pub const RECIPIENTS_PER_TICKET: usize = 100;
/// Shapes of routes that are kept, each made of a few of the configuration's; beyond it they are made anew.
pub const SHAPES_KEPT: usize = 1_000;
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
/// Largest message that a report of failure returns as a whole (`RET=FULL`, RFC 3461); of a larger one it shows the header.
pub const RETURNED_MESSAGE_BYTES: usize = 256 * 1024;
/// Bytes of a message's text that `queue show` prints.
pub const SHOWN_BYTES: usize = 1 << 20;
/// Time to open a connection to one address (RFC 5321 names none; Postfix uses 30 s).
pub const CONNECT: Duration = Duration::from_secs(30);
/// How long the preferred family of a host is ahead of the other one (RFC 8305 §5: a Connection Attempt Delay of 250 ms).
pub const ATTEMPT_DELAY: Duration = Duration::from_millis(250);
/// Addresses of a host that are of use.
pub const ADDRESSES_PER_HOST: usize = 32;
/// Addresses tried for one connection; a site with more is tried again later (Postfix stops after 5).
pub const ADDRESSES_PER_ATTEMPT: usize = 8;
/// Lines of the log about one fault at one address in [`FAULTS_TOLD_IN`]: enough to see that it goes on.
pub const FAULTS_TOLD: u32 = 5;
/// The time for which these count.
pub const FAULTS_TOLD_IN: Duration = Duration::from_secs(60);
/// Faults that are counted so; further ones have no line until some are old.
pub const FAULTS_KEPT: usize = 1_000;
/// Hosts that a reply names when none of a site could be reached.
pub const HOSTS_NAMED: usize = 4;
/// Source addresses tried for one destination address, where this machine does not have the first ones.
pub const SOURCES_PER_ADDRESS: usize = 8;
/// How long a delivery waits for the tables that say where it goes; each has a shorter time of its own.
pub const DIRECTION: Duration = Duration::from_secs(60);
/// A client that does not take our replies for this long is gone (RFC 5321 §4.5.3.2.7).
pub const WRITE: Duration = Duration::from_secs(300);
/// RFC 5321 §4.5.3.2.5: a server that takes no piece of a message for this long is gone.
pub const BODY_WRITE: Duration = Duration::from_secs(180);
/// When the connection breaks under a message, a server that has said why has said it by then.
pub const LAST_WORDS: Duration = Duration::from_secs(1);
/// How long a server is spoken to one command after the other that has lost some of several that came together.
pub const ONE_BY_ONE: Duration = Duration::from_secs(24 * 3600);
/// Servers of which that is remembered by a shard; the oldest are forgotten beyond it.
pub const ONE_BY_ONE_SERVERS: usize = 1000;
/// Time for a QUIT.
pub const QUIT: Duration = Duration::from_secs(5);
/// How long a client may take for a TLS handshake: four trips over the slowest of networks, and two signatures.
pub const HANDSHAKE_OF_CLIENT: Duration = Duration::from_secs(30);
/// Time to tell a client that there is no room for it.
pub const TURN_AWAY: Duration = Duration::from_secs(5);
/// How long shutting down waits for open transactions.
pub const DRAIN: Duration = Duration::from_secs(10);
/// How long a stopping shard then waits for results that are on a ring from a shard that has taken all of that time.
pub const LAST_RESULTS: Duration = Duration::from_millis(200);
/// How often it looks for them without being woken.
pub const LAST_RESULTS_LOOK: Duration = Duration::from_millis(10);
/// How long a shard waits for what a warm-up allows: the ledger is written to disk first. It is asked again soon.
pub const ALLOWED: Duration = Duration::from_secs(20);
/// Then that it did not answer is told again.
pub const SILENCE_TOLD: Duration = Duration::from_secs(60);
/// How long a shard that ends waits until what warm-ups have allowed to it is given back: a busy coordinator needs less.
pub const GIVE_BACK: Duration = Duration::from_secs(2);
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
const _: () = assert!(SWEEP.as_secs() + LAST_ATTEMPT.as_secs() < 60, "nothing outlives its expiry by a minute");
const _: () = assert!(FILE_ANSWER.as_secs() < EXPANSION.as_secs());

/// Addresses, and likewise domains, of which it is known how many reports of strangers' mail they were sent: 8 bytes each, for the
/// whole engine. More of them share.
pub const BACKSCATTER_CELLS: usize = 4096;
