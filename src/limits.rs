//! Every bound of the processes and commands, with its reason. What happens at each bound is said where it is used.

use std::time::Duration;

/// Letter between processes: well below the default send buffer of a socketpair (208 KiB), which bounds a packet.
pub const LETTER_BYTES: usize = 64 * 1024;
/// Text within a letter or an answer; longer reports are cut.
pub const TEXT_BYTES: usize = 32 * 1024;
/// Connections that the kernel holds for a listener until its shard takes them (`net.core.somaxconn` caps it).
pub const BACKLOG: i32 = 4096;
/// First pause before a died child is started again; doubled each time.
pub const RESTART_FIRST: Duration = Duration::from_millis(100);
/// The longest such pause.
pub const RESTART_MAX: Duration = Duration::from_secs(10);
/// A child that lived so long starts again without a pause.
pub const RESTART_FORGET: Duration = Duration::from_secs(60);
/// How often the keyholder is asked whether it lives, and how long it may take to say so.
pub const PING: Duration = Duration::from_secs(5);
/// A changed file of a table is read when nothing has changed for so long.
pub const SETTLE: Duration = Duration::from_millis(200);
/// How long the supervisor waits for the engine to end: the shards' drain of 10 s, and what comes after it.
pub const STOP: Duration = Duration::from_secs(15);
/// How long a child that has closed its channel may take to end.
pub const END: Duration = Duration::from_secs(3);
/// How long a new server waits for a port that is in use by no process: a killed one's rings are still being taken apart.
pub const PORT_RELEASE: Duration = Duration::from_secs(2);
/// How long a new engine waits for the queue that a killed one may still hold.
pub const QUEUE_LOCK: Duration = Duration::from_secs(5);
/// Files of a state directory that are handed over to an engine that is a user of its own: some seconds' worth. Segments are
/// hundreds; what may be more are messages in the Maildir of the quick start.
pub const HANDED_OVER: u64 = 1_000_000;
/// How deep they may be: a Maildir with folders is three.
pub const HANDED_OVER_DEEP: usize = 8;
/// Directories in one another that are made for the engine where the configuration names one that is missing.
pub const PLACE_DEEP: usize = 32;
/// Orders that wait for one shard.
pub const ORDERS: usize = 256;
/// Questions of all shards that the coordinator has not yet looked at.
pub const QUESTIONS: usize = 4096;
/// Names looked up at the same time; the resolver's sockets are what it costs.
pub const LOOKUPS: usize = 256;
/// A name that is not resolved by then is answered "try again later".
pub const LOOKUP: Duration = Duration::from_secs(30);
/// Names of one client that are held against his address.
pub const CLIENT_NAMES: usize = 8;
/// Addresses of a host that are kept of an answer, of each family: shards use as many together at most.
pub const HOST_ADDRESSES: usize = 32;
/// Exchangers of one domain whose addresses are asked for; the field stops at about as many.
pub const EXCHANGERS: usize = 32;
/// Before resolvers that could not be used for DNSSEC are tried again.
pub const VOUCHING_AGAIN: Duration = Duration::from_secs(600);
/// TLSA records of one host: in the middle of a change of keys and authorities there are few.
pub const TLSA_RECORDS: usize = 32;
/// How long fetching an MTA-STS policy may take, all addresses together: mail waits for it.
pub const STS_FETCH: Duration = Duration::from_secs(10);
/// Size of a policy (RFC 8461 §3.3 proposes as much).
pub const STS_FILE_BYTES: u64 = 64 * 1024;
/// Addresses of a web server that are tried.
pub const WEB_ADDRESSES: usize = 4;
/// Before a policy that could not be fetched is fetched again (RFC 8461 §3.3: five minutes or more).
pub const STS_AGAIN: Duration = Duration::from_secs(300);
/// A policy past half its time is fetched again, though not more often than this.
pub const STS_REFRESH: Duration = Duration::from_secs(86_400);
/// The longest that a policy is believed (RFC 8461 §3.2).
pub const STS_AGE_MAX: Duration = Duration::from_secs(31_557_600);
/// Exchangers that a policy names; no domain has as many.
pub const STS_PATTERNS: usize = 256;
/// Policies that are kept; some thousands of domains have one.
pub const STS_POLICIES: usize = 20_000;
/// Domains of whose sessions a day's report is made; those that come later are not counted.
pub const TLSRPT_DOMAINS: usize = 10_000;
/// Kinds of failures, by server and address, that are told apart in a report.
pub const TLSRPT_FAILURES: usize = 100;
/// How long a report waits for the DNS to say who wants it, in days.
pub const TLSRPT_DAYS_WAITING: u64 = 2;
/// When it is tried again to leave reports to be sent, after an error of the disk or the directory.
pub const TLSRPT_SEND_AGAIN: Duration = Duration::from_secs(3600);
/// How long reports stay where they were written.
pub const TLSRPT_KEPT: Duration = Duration::from_secs(30 * 86_400);
/// How often it is looked whether a day is over, and what was counted is written down.
pub const TLSRPT_LOOK: Duration = Duration::from_secs(60);
/// Mailboxes, and likewise web servers, that one report goes to.
pub const TLSRPT_PLACES: usize = 8;
/// How long posting a report to a web server may take, all addresses together.
pub const TLSRPT_POST: Duration = Duration::from_secs(30);
/// Reports that are posted at once, so that servers that hang keep few others waiting.
pub const TLSRPT_POSTS_AT_ONCE: usize = 16;
/// Reports that wait to be posted: those of a day, a place each. What is beyond is kept as a file, but not posted.
pub const TLSRPT_POSTS: usize = TLSRPT_DOMAINS;
/// Over so long the first attempts are spread when a day is over (RFC 8460 §4.1: up to four hours).
pub const TLSRPT_SPREAD: Duration = Duration::from_secs(4 * 3600);
/// The first pause before a report is posted again; doubled each time.
pub const TLSRPT_POST_AGAIN: Duration = Duration::from_secs(300);
/// The longest such pause.
pub const TLSRPT_POST_AGAIN_MAX: Duration = Duration::from_secs(4 * 3600);
/// How long it is tried, from the first attempt on (RFC 8460 §5.5).
pub const TLSRPT_POST_FOR: Duration = Duration::from_secs(86_400);
/// Longest URL that a report is posted to, in bytes.
pub const TLSRPT_URL_BYTES: usize = 1024;
/// Answers that the resolver keeps.
pub const RESOLVER_CACHE: u64 = 32 * 1024;
/// Log lines between shards and the writing thread; what comes beyond is counted instead.
pub const LOG_LINES: usize = 16 * 1024;
/// How long the log's writer lets lines gather before it writes them in one go.
pub const LOG_GATHER: Duration = Duration::from_millis(10);
/// How often the lines at the bottom of a terminal are drawn anew.
pub const STATUS_EVERY: Duration = Duration::from_secs(1);
/// Characters of such a line where the terminal does not say how wide it is.
pub const STATUS_WIDTH: usize = 80;
/// Administrators connected to the control socket at the same time.
pub const CONTROL_CLIENTS: usize = 32;
/// One question of an administrator.
pub const CONTROL_LINE_BYTES: u64 = 4096;
/// How long an administrator's program may take to put its question, or to take a line of the answer.
pub const CONTROL_WAIT: Duration = Duration::from_secs(30);
/// Figures asked of the shards are used for all who ask within this time.
pub const STATS_KEEP: Duration = Duration::from_millis(200);
/// How long a shard may take to answer an administrator before it is left out.
pub const SHARD_ANSWER: Duration = Duration::from_secs(5);
/// How long the list of a large queue may take.
pub const SHARD_LIST: Duration = Duration::from_secs(120);
/// Hosts, sites or routes that `ringpost show` shows at once: more than anybody reads, and no more than a few hundred KB.
pub const OVERVIEW_ROWS: usize = 1000;
/// Selectors that limits are set for at once: what is more belongs into the configuration. Each is looked at for each message.
pub const OVERRIDES: usize = 100;
/// How long `ringpost stop` waits.
pub const STOP_WAIT: Duration = Duration::from_secs(20);

/// A private key: RSA of 8192 bits has 6,400 in PEM.
pub const KEY_BYTES: u64 = 32 * 1024;
/// A chain of certificates, ten of them, with what people write between them.
pub const CERTIFICATE_BYTES: u64 = 256 * 1024;
/// From when on a certificate that ends is spoken of: those that are renewed by a program have a month left.
pub const CERTIFICATE_ENDS_SOON: Duration = Duration::from_secs(21 * 86_400);
/// Keys of tables that the keyholder has at once: one for each name that clients ask for, and a few that have been replaced.
pub const FOUND_KEYS: usize = 2048;
/// Names of table certificates of which it is known whether there is one.
pub const NAMES_KNOWN: usize = 4096;
/// Certificates that are looked up in tables at once, each by a process; so many lanes there are.
pub const LOOKUP_LANES: usize = 2;
/// Names that wait to be looked up; beyond, handshakes go on with what is known.
pub const CERTIFICATES_WAITING: usize = 64;
/// How long such a process may take beyond what the table may: to be started, and to read its files.
pub const LOOKUP_GRACE: Duration = Duration::from_secs(2);
/// How long it may take in any case.
pub const LOOKUP_PROCESS: Duration = Duration::from_secs(20);
/// How long the engine waits for the supervisor's answer; the keyholder is asked after the process.
pub const LOOKUP_WAIT: Duration = Duration::from_secs(30);
/// How often the end of certificates is looked at.
pub const CERTIFICATES_LOOKED_AT: Duration = Duration::from_secs(86_400);
/// When certificates that could not be used are tried again where no file has changed.
pub const CERTIFICATES_AGAIN: Duration = Duration::from_secs(60);
/// Broken entries of lists of certificates that are told at a start or reload; one with more is told how many more.
pub const BROKEN_PAIRS_TOLD: usize = 16;
/// Notes of a reload that go to the engine, 500 bytes of each.
pub const NOTES: usize = 32;
/// How long the supervisor waits for the keyholder to take a key.
pub const CUSTODY: Duration = Duration::from_secs(5);
/// Handshakes of the page that are under way; it is for few, and further visitors are turned away.
pub const PAGE_HANDSHAKES: usize = 64;
/// How long one may take.
pub const PAGE_HANDSHAKE: Duration = Duration::from_secs(10);
/// Before a visitor is taken again when none could be.
pub const PAGE_ACCEPT_PAUSE: Duration = Duration::from_millis(100);
/// Bytes that are read of an encrypted connection of the page at once: a request fits.
pub const PAGE_READ_BYTES: usize = 4096;
/// Bytes that wait on such a connection for a visitor who reads slowly.
pub const PAGE_OUT_BYTES: usize = 64 * 1024;
/// How long the last line of the logs of latencies may take when the server stops.
pub const HLOG_LAST: Duration = Duration::from_secs(2);
/// Connections to the page at once; further visitors wait to be taken.
pub const PAGE_CONNECTIONS: usize = 256;
/// After so long without a byte in either direction a connection to the page is over.
pub const PAGE_IDLE: Duration = Duration::from_secs(60);
/// Bytes of a visitor's `Authorization`.
pub const PAGE_CREDENTIALS_BYTES: usize = 1024;
/// Visitors' passwords that are judged at once: logins of mail clients have the rest of the places.
pub const PAGE_JUDGED: usize = 32;
/// How long a password that was right is believed without being looked at again: the page asks every second.
pub const PAGE_LOGIN_BELIEVED: Duration = Duration::from_secs(60);
/// Logins that are believed at once.
pub const PAGE_LOGINS_KEPT: usize = 64;
/// Handshakes of all shards that wait for their signature: a fraction of a second's work. Beyond it STARTTLS is answered 454.
pub const HANDSHAKES_WAITING: usize = 1024;
/// How long one waits for a signature from a keyholder that does not answer, or that is being started again.
pub const SIGNATURE: Duration = Duration::from_secs(5);
/// Handshakes that one thread takes a step further together: they go to the keyholder in one letter, and back to their shards at
/// once. Beyond it little is gained.
pub const HANDSHAKES_TOGETHER: usize = 16;
/// While there is mail: what comes back at once keeps it waiting.
pub const HANDSHAKES_TOGETHER_BESIDE_MAIL: usize = 2;
/// So long after a message there is mail.
pub const MAIL_IS_THERE: Duration = Duration::from_secs(1);
/// How often that is looked at, at most.
pub const MAIL_LOOK: Duration = Duration::from_millis(20);
/// But none waits longer than that for those behind it to come as far.
pub const ANSWER_WITHIN: Duration = Duration::from_millis(5);
/// What is signed in one letter, in bytes; of the 48 KiB that one handshake may have, one letter takes a single one.
pub const TRANSCRIPTS_BYTES: usize = 56 * 1024;
/// How many of the engine's cores there are for each thread that waits for signatures.
pub const CORES_PER_SIGNER: usize = 8;

/// Deliveries that the supervisor has under way at once: a process each, and often a program besides.
pub const DELIVERIES: usize = 32;
/// Of them those of one user, so that one whose program hangs leaves room for the others.
pub const DELIVERIES_PER_USER: usize = 4;
/// `.forward` files that are read at once, beside the deliveries: a client waits for each.
pub const FORWARDS: usize = 16;
/// Threads of the engine that look whether there is a `.forward` at all: a home on a file system that hangs takes one.
pub const LOOKS: usize = 8;
/// Looks that wait for them; beyond it a helper looks.
pub const LOOKS_WAITING: usize = 256;
/// Errands that wait in the supervisor; as long as they do, no more are taken, and the engine waits.
pub const ERRANDS_WAITING: usize = 64;
/// Errands of all shards that wait in the engine; a shard beyond it waits before it makes the text.
pub const ERRANDS: usize = 64;
/// How long a program may take for one delivery.
pub const PROGRAM: Duration = Duration::from_secs(300);
/// How long a program may take to end when it is told to, before it is killed.
pub const PROGRAM_END: Duration = Duration::from_secs(5);
/// How long a helper may take beyond its program, or to write, before it is killed: a mailbox may be locked and the disk
/// slow, and half a message must not be left in it.
pub const HELPER: Duration = Duration::from_secs(300);
/// How long a helper may take to read a `.forward`: a client waits, and for no longer than five minutes.
pub const HELPER_READS: Duration = Duration::from_secs(30);
/// How long the supervisor waits for helpers when it ends: a program is told to, and killed if it does not.
pub const LANES_END: Duration = Duration::from_secs(7);
/// Bytes of a program's output that are kept for the log and the bounce.
pub const PROGRAM_OUTPUT_BYTES: usize = 4096;
/// Descriptors that a program may have, as every login session begins with: some close all that they might have.
pub const PROGRAM_DESCRIPTORS: u64 = 1024;
/// How long to wait for the lock of a mailbox (a reader rewrites it in less).
pub const MAILBOX_LOCK: Duration = Duration::from_secs(60);
/// Between two looks at a locked mailbox.
pub const MAILBOX_LOCK_LOOK: Duration = Duration::from_millis(100);
/// A `.lock` file so old belongs to nobody any more (liblockfile's rule).
pub const MAILBOX_LOCK_STALE: Duration = Duration::from_secs(300);
/// Size of a `.forward`.
pub const FORWARD_BYTES: u64 = 64 * 1024;
/// Time to connect to a server on this machine.
pub const SUBMIT_CONNECT: Duration = Duration::from_secs(10);
/// How long a server on this machine may take to greet (RFC 5321 §4.5.3.2.1).
pub const SUBMIT_GREETING: Duration = Duration::from_secs(300);
/// A message on the standard input of `sendmail`: more than any server of ours takes, and less than memory holds.
pub const SUBMIT_BYTES: u64 = 256 << 20;
/// The name that a sender gives to his message for reports, as MAIL says it (RFC 3461 §4.4).
pub const ENVELOPE_ID_BYTES: usize = 100;
/// More than the first line of a file in the spool takes: addresses of as many recipients as a command line holds.
pub const SPOOL_LINE_BYTES: u64 = 1 << 20;
/// Messages of one user that are taken in before the server has taken some of them: others have their turn.
pub const DROP_PER_USER: usize = 100;
/// A half-written message so old is nobody's any more.
pub const DROP_HALF_AGE: Duration = Duration::from_secs(24 * 3600);
/// A server's first words on a local socket: a line, as RFC 5321 §4.5.3.1.5 bounds it.
pub const GREETING_BYTES: usize = 512;
/// How long an engine that ends waits for its last answer to be on its way.
pub const LAST_ANSWER: Duration = Duration::from_millis(50);
/// How often the server looks for messages that were sent while it was down.
pub const PICKUP: Duration = Duration::from_secs(10);

/// Logins of all shards that are being judged; beyond it AUTH is answered 454.
pub const LOGINS: usize = 1024;
/// How many of the engine's cores there are for each thread that checks passwords: hashes are slow on purpose.
pub const CORES_PER_CHECKER: usize = 4;
/// How long the supervisor may take to check the password of one of the system's users.
pub const SYSTEM_LOGIN: Duration = Duration::from_secs(10);
/// How long PAM's modules may take for one.
#[cfg(feature = "pam")]
pub const PAM_PROCESS: Duration = Duration::from_secs(8);
#[cfg(feature = "pam")]
const _: () = assert!(PAM_PROCESS.as_secs() < SYSTEM_LOGIN.as_secs(), "the supervisor answers in time");
/// Size of /etc/shadow.
#[cfg(not(feature = "pam"))]
pub const SHADOW_BYTES: u64 = 16 << 20;
/// Wrong passwords from one address before it is slowed down: as many as somebody types who has three in mind.
pub const LOGIN_FAILURES_FREE: f64 = 5.0;
/// Wrong passwords of one user, from wherever, before strangers to him are slowed down.
pub const USER_FAILURES_FREE: f64 = 20.0;
/// More than so many do not count.
pub const LOGIN_FAILURES_KEPT: f64 = 60.0;
/// One is forgotten in this time.
pub const LOGIN_FAILURE_FORGOTTEN: Duration = Duration::from_secs(30);
/// Time between two logins from an address, or of a user, that is slowed down.
pub const LOGIN_PACE: Duration = Duration::from_secs(1);
/// The same after a great many.
pub const LOGIN_PACE_SLOW: Duration = Duration::from_secs(5);
/// The longest that a login waits for its turn; beyond it nobody looks at it.
pub const LOGIN_TURN: Duration = Duration::from_secs(8);
/// How long one waits that nobody will look at, so that trying again costs time.
pub const LOGIN_TURNED_AWAY: Duration = Duration::from_secs(2);
/// Addresses and users whose logins are counted.
pub const LOGINS_KEPT: usize = 65_536;
/// Cost of a bcrypt hash: 2¹⁵ rounds are 2 s.
pub const BCRYPT_COST: u32 = 15;
/// Rounds of a hash of SHA-crypt.
pub const SHA_CRYPT_ROUNDS: u32 = 2_000_000;
/// Broken files of one name in the state directory that are set aside, for somebody to look at.
pub const SET_ASIDE: usize = 10;
/// Questions for the ledger of warm-ups that wait for its file to be written: each is of a site and a source address of a shard.
pub const WARMUP_ASKED: usize = 4096;
/// After the ledger of warm-ups was written, questions gather for so long: one write then is for all of them.
pub const WARMUP_WRITTEN: Duration = Duration::from_secs(1);
/// Memory of a yescrypt hash.
pub const YESCRYPT_MEMORY_BYTES: u64 = 128 << 20;
/// Memory of an argon2 hash.
pub const ARGON2_MEMORY_KIB: u32 = 256 << 10;
/// Memory of an argon2 hash times its passes.
pub const ARGON2_WORK_KIB: u64 = 2 << 20;
/// Iterations of PBKDF2.
pub const PBKDF2_ITERATIONS: u32 = 3_000_000;
/// Logins of ours at other servers that wait for what SCRAM needs; beyond it the connection is given up, and its mail waits.
pub const PROOFS_WAITING: usize = 256;
/// Passwords of ours that are kept as SCRAM wants them, each some 100 bytes: a password at a server has one salt.
pub const SALTED_KEPT: usize = 256;
/// Users of the system that are looked up at once: a directory service that is slow for one of them holds up no other.
pub const USER_LANES: usize = 4;
/// Questions for users that wait; more fail at once, which is temporary.
pub const USERS_WAITING: usize = 1024;

const _: () = assert!(HELPER.as_secs() > MAILBOX_LOCK.as_secs() * 2, "a lock leaves time to write");
const _: () = assert!(LANES_END.as_secs() > PROGRAM_END.as_secs());
const _: () = assert!(PROGRAM_OUTPUT_BYTES * 4 < LETTER_BYTES, "output must fit a letter, however its bytes are shown");
const _: () = assert!(TRANSCRIPTS_BYTES + HANDSHAKES_TOGETHER * 32 < LETTER_BYTES, "transcripts must fit a letter");
const _: () = assert!(TEXT_BYTES < LETTER_BYTES, "a text must fit a letter");
const _: () =
    assert!(HOST_ADDRESSES >= ringpost_shard::limits::ADDRESSES_PER_HOST, "nothing is left out that is of use");
const _: () =
    assert!(LOOKUP_PROCESS.as_secs() + CUSTODY.as_secs() < LOOKUP_WAIT.as_secs(), "the supervisor answers in time");
/// An interval of `metrics hlog` that does not say how long it is.
pub const HLOG_EVERY: Duration = Duration::from_secs(60);
/// Longest line of such a log: a histogram has some 40,000 counters, of which an interval uses few.
pub const HLOG_LINE: u64 = 1 << 20;
