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
/// Exchangers of one domain whose addresses are asked for; the field stops at about as many.
pub const EXCHANGERS: usize = 32;
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
/// How long `ringpost stop` waits.
pub const STOP_WAIT: Duration = Duration::from_secs(20);

/// A private key: RSA of 8192 bits has 6,400 in PEM.
pub const KEY_BYTES: u64 = 32 * 1024;
/// A chain of certificates, ten of them, with what people write between them.
pub const CERTIFICATE_BYTES: u64 = 256 * 1024;
/// From when on a certificate that ends is spoken of: those that are renewed by a program have a month left.
pub const CERTIFICATE_ENDS_SOON: Duration = Duration::from_secs(21 * 86_400);
/// How long the supervisor waits for the keyholder to take a key.
pub const CUSTODY: Duration = Duration::from_secs(5);
/// Handshakes of all shards that wait for their signature: a fraction of a second's work. Beyond it STARTTLS is answered 454.
pub const HANDSHAKES_WAITING: usize = 1024;
/// How long one waits for a signature from a keyholder that does not answer, or that is being started again.
pub const SIGNATURE: Duration = Duration::from_secs(5);
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
/// More than the first line of a file in the spool takes: addresses of as many recipients as a command line holds.
pub const SPOOL_LINE_BYTES: u64 = 1 << 20;
/// Messages of one user that are taken in before the server has taken some of them: others have their turn.
pub const DROP_PER_USER: usize = 100;
/// A half-written message so old is nobody's any more.
pub const DROP_HALF_AGE: Duration = Duration::from_secs(24 * 3600);
/// A server's first words on a local socket: a line, as RFC 5321 §4.5.3.1.5 bounds it.
pub const GREETING_BYTES: usize = 512;
/// How often the server looks for messages that were sent while it was down.
pub const PICKUP: Duration = Duration::from_secs(10);

const _: () = assert!(HELPER.as_secs() > MAILBOX_LOCK.as_secs() * 2, "a lock leaves time to write");
const _: () = assert!(LANES_END.as_secs() > PROGRAM_END.as_secs());
const _: () = assert!(PROGRAM_OUTPUT_BYTES * 4 < LETTER_BYTES, "output must fit a letter, however its bytes are shown");
const _: () = assert!(TEXT_BYTES < LETTER_BYTES, "a text must fit a letter");
