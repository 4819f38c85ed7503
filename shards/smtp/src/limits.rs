//! Bounds of both sessions, each with its reason. What an administrator may change is a field of `server::Policy`.

use std::time::Duration;

/// Longest command line in bytes, CRLF included. RFC 5321 §4.5.3.1.4 asks for 512; parameters of extensions need more.
pub const COMMAND_BYTES_MAX: usize = 4096;
/// Longest line of a login in bytes, CRLF included: a response of 12,288 (RFC 4954 §4), AUTH and its mechanism.
pub const AUTH_BYTES_MAX: usize = 12_288 + 64;
/// Longest name of a user who logs in, in bytes.
pub const LOGIN_NAME_BYTES_MAX: usize = 320;
/// Longest password in bytes: beyond it a hash would cost whatever a stranger likes.
pub const PASSWORD_BYTES_MAX: usize = 1024;
/// Wrong passwords before the connection is closed.
pub const LOGIN_FAILURES_MAX: u32 = 3;
/// Longest local part in bytes. RFC 5321 §4.5.3.1.1 asks for 64; VERP, SRS and BATV addresses exceed it daily.
pub const LOCAL_PART_BYTES_MAX: usize = 256;
/// Longest domain in bytes (RFC 5321 §4.5.3.1.2); also the longest HELO argument.
pub const DOMAIN_BYTES_MAX: usize = 255;
/// Longest label of a domain in bytes (RFC 1035 §2.3.4).
pub const LABEL_BYTES_MAX: usize = 63;
/// Longest path in a command, brackets and source route included.
pub const PATH_BYTES_MAX: usize = 1024;
/// Longest ENVID of MAIL in bytes, as xtext (RFC 3461 §4.4).
pub const ENVID_BYTES_MAX: usize = 100;
/// Longest ORCPT of RCPT in bytes, with its type, as xtext (RFC 3461 §4.2).
pub const ORCPT_BYTES_MAX: usize = 500;
/// Recipients refused within one transaction before further ones are answered 452 unasked: bounds the transaction's arena.
pub const REFUSED_RECIPIENTS_MAX: u32 = 1000;
/// Collected replies in bytes at which the server session asks for them to be written before it goes on.
pub const REPLIES_BYTES_MAX: usize = 32 * 1024;
/// Longest line of a reply that we write, without CRLF (RFC 5321 §4.5.3.1.5: 512 with CRLF).
pub const REPLY_LINE_BYTES_MAX: usize = 500;
/// Most lines of one reply that we write.
pub const REPLY_LINES_MAX: usize = 16;

/// Default for messages per connection (MAILMAX of RFC 9422).
pub const MAILS_MAX: u32 = 100_000;
/// Default for recipients per message (RCPTMAX of RFC 9422); RFC 5321 §4.5.3.1.8 asks for at least 100.
pub const RECIPIENTS_MAX: usize = 1000;
/// Default for the size of a message in bytes.
pub const MESSAGE_BYTES_MAX: u64 = 50 * 1024 * 1024;
/// Default for wrong commands before the connection is closed; an accepted message forgives.
pub const ERRORS_MAX: u32 = 20;
/// A server waits that long for a command (RFC 5321 §4.5.3.2.7).
pub const COMMAND_TIMEOUT: Duration = Duration::from_secs(300);
/// A server waits that long for the next piece of a message; a client needs 3 minutes per block (RFC 5321 §4.5.3.2.5).
pub const DATA_TIMEOUT: Duration = Duration::from_secs(600);

/// A message is held for so long at most until it is released (RFC 4865): it is in the way of nothing, but somebody must keep it.
pub const RELEASE_MAX: Duration = Duration::from_secs(30 * 24 * 3600);

/// Longest PROXY header that is read: addresses, and a few hundred bytes of what else a proxy tells, such as a certificate's name.
pub const PROXY_BYTES_MAX: usize = 2048;

/// Longest line of a remote reply of which we take notice; the rest of the line is skipped.
pub const REMOTE_LINE_BYTES_MAX: usize = 2048;
/// Most lines of one remote reply; more is nonsense and ends the connection.
pub const REMOTE_LINES_MAX: usize = 128;
/// Most bytes of one remote reply, all its lines together, with what was skipped of them; more ends the connection.
pub const REMOTE_REPLY_BYTES_MAX: usize = REMOTE_LINES_MAX * REMOTE_LINE_BYTES_MAX;
/// Bytes of the text of a remote reply that are kept: it goes into journals, logs and bounces.
pub const REMOTE_TEXT_BYTES_MAX: usize = 512;
/// A client waits that long for the greeting (RFC 5321 §4.5.3.2.1). As with all that follow: for the whole of it, however
/// many pieces it comes in.
pub const GREETING_TIMEOUT: Duration = Duration::from_secs(300);
/// … for the reply to EHLO, HELO or LHLO, which the RFC does not name: as for MAIL.
pub const HELLO_TIMEOUT: Duration = Duration::from_secs(300);
/// … for the reply to STARTTLS; the handshake behind it is the caller's, and has a time of its own.
pub const STARTTLS_TIMEOUT: Duration = Duration::from_secs(300);
/// … for a reply in a login: a server may have to ask others.
pub const LOGIN_TIMEOUT: Duration = Duration::from_secs(300);
/// Bytes of the nonce that we bring to SCRAM (RFC 5802 §5.1): 120 bits, 20 characters of base64.
pub const SCRAM_NONCE_BYTES: usize = 15;
/// Fewer rounds of a hash are refused (RFC 7677 §4): whoever is not the server could try passwords too fast.
pub const SCRAM_ROUNDS_MIN: u32 = 4096;
/// So are more: they are ours to do, some 0.1 s of a processor's time where it knows SHA-256, and more elsewhere.
pub const SCRAM_ROUNDS_MAX: u32 = 1_000_000;
/// Longest salt of a server; usual are 16 bytes.
pub const SCRAM_SALT_BYTES_MAX: usize = 256;
/// … for the reply to MAIL (§4.5.3.2.2).
pub const MAIL_TIMEOUT: Duration = Duration::from_secs(300);
/// … for the reply to a RCPT (§4.5.3.2.3).
pub const RECIPIENT_TIMEOUT: Duration = Duration::from_secs(300);
/// … for 354 (§4.5.3.2.4).
pub const DATA_START_TIMEOUT: Duration = Duration::from_secs(120);
/// … for a block of the message to be taken (§4.5.3.2.5).
pub const DATA_BLOCK_TIMEOUT: Duration = Duration::from_secs(180);
/// … for the reply to the end of the message (§4.5.3.2.6).
pub const DATA_END_TIMEOUT: Duration = Duration::from_secs(600);
/// … for the reply to RSET and QUIT: nothing depends on it.
pub const PARTING_TIMEOUT: Duration = Duration::from_secs(10);

const _: () = assert!(COMMAND_BYTES_MAX >= PATH_BYTES_MAX + 512, "a command must hold a path and its parameters");
const _: () = assert!(PATH_BYTES_MAX > LOCAL_PART_BYTES_MAX + DOMAIN_BYTES_MAX + 3, "a path holds a mailbox");
const _: () = assert!(REMOTE_TEXT_BYTES_MAX <= REMOTE_LINE_BYTES_MAX, "one line may fill the text");
