//! Replies (RFC 5321 §4.2, RFC 3463): codes, wire form, and every text of the protocol itself.
//!
//! What rules, limits of the shard and failures say is made elsewhere and comes in as a [`Reply`].

use std::borrow::Cow;
use std::fmt;

use crate::limits::{REPLY_LINE_BYTES_MAX, REPLY_LINES_MAX};

/// Enhanced status code, class, subject, detail (RFC 3463).
pub type Status = (u8, u16, u16);

/// A reply that somebody else decided upon: `550 5.7.1 text`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Reply {
    code: u16,
    status: Status,
    text: Cow<'static, str>,
}

impl Reply {
    /// A reply with a fixed text. `status` is written as in `5.7.1`; one that does not fit the code becomes `X.0.0`.
    pub fn new(code: u16, status: &str, text: &'static str) -> Self {
        Self { code, status: fitting(code, status), text: Cow::Borrowed(text) }
    }

    /// As [`Reply::new`], with a text made on the spot. A line feed in it makes a reply of several lines.
    pub fn owned(code: u16, status: &str, text: String) -> Self {
        Self { code, status: fitting(code, status), text: Cow::Owned(text) }
    }

    /// Three digits, 200–599.
    pub fn code(&self) -> u16 {
        self.code
    }

    /// Enhanced status code.
    pub fn status(&self) -> Status {
        self.status
    }

    /// Text without codes.
    pub fn text(&self) -> &str {
        &self.text
    }

    /// Appends the wire form. Whatever the text holds, the result is one reply: control characters and what is not ASCII
    /// become `?`, and there are at most [`REPLY_LINES_MAX`] lines of [`REPLY_LINE_BYTES_MAX`] bytes.
    pub fn write(&self, out: &mut Vec<u8>) {
        let mut lines = self.text.lines().take(REPLY_LINES_MAX).peekable();
        if lines.peek().is_none() {
            return self.write_line(b' ', "", out);
        }
        while let Some(line) = lines.next() {
            let separator = if lines.peek().is_some() { b'-' } else { b' ' };
            self.write_line(separator, line, out);
        }
    }

    fn write_line(&self, separator: u8, line: &str, out: &mut Vec<u8>) {
        let start = out.len();
        push_number(u64::from(self.code), out);
        out.push(separator);
        let (class, subject, detail) = self.status;
        push_number(u64::from(class), out);
        out.push(b'.');
        push_number(u64::from(subject), out);
        out.push(b'.');
        push_number(u64::from(detail), out);
        out.push(b' ');
        out.extend(line.chars().map(|c| if c == ' ' || c.is_ascii_graphic() { c as u8 } else { b'?' }));
        out.truncate(start + REPLY_LINE_BYTES_MAX);
        out.extend_from_slice(b"\r\n");
    }
}

/// One line, as logs have it.
impl fmt::Display for Reply {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (class, subject, detail) = self.status;
        write!(f, "{} {class}.{subject}.{detail} {}", self.code, self.text)
    }
}

/// Reads `5.7.1`; `None` unless the class is 2, 4 or 5 (RFC 3463 §2).
pub(crate) fn parse_status(text: &[u8]) -> Option<Status> {
    let mut parts = text.split(|byte| *byte == b'.');
    let class = match parts.next()? {
        b"2" => 2,
        b"4" => 4,
        b"5" => 5,
        _ => return None,
    };
    let subject = small_number(parts.next()?)?;
    let detail = small_number(parts.next()?)?;
    parts.next().is_none().then_some((class, subject, detail))
}

fn small_number(digits: &[u8]) -> Option<u16> {
    if digits.is_empty() || digits.len() > 3 || !digits.iter().all(u8::is_ascii_digit) {
        return None;
    }
    Some(digits.iter().fold(0, |value, digit| value * 10 + u16::from(digit - b'0')))
}

/// A status of another class than its code would tell a client two things.
fn fitting(code: u16, status: &str) -> Status {
    let class = (code / 100).clamp(2, 5) as u8;
    match parse_status(status.as_bytes()) {
        Some(status) if status.0 == class => status,
        _ => (class, 0, 0),
    }
}

pub(crate) fn push_number(value: u64, out: &mut Vec<u8>) {
    let mut digits = [0; 20];
    let mut at = digits.len();
    let mut left = value;
    loop {
        at -= 1;
        digits[at] = b'0' + (left % 10) as u8;
        left /= 10;
        if left == 0 {
            break;
        }
    }
    out.extend_from_slice(&digits[at..]);
}

// The texts of the server, in the order of a dialogue.

pub(crate) fn greeting(hostname: &str, out: &mut Vec<u8>) {
    sentence("220 ", hostname, " ESMTP Ringpost\r\n", out);
}
pub(crate) fn hello(hostname: &str, out: &mut Vec<u8>) {
    sentence("250 ", hostname, "\r\n", out);
}
pub(crate) fn farewell(hostname: &str, out: &mut Vec<u8>) {
    sentence("221 2.0.0 ", hostname, " closing connection\r\n", out);
}
pub(crate) fn timed_out(hostname: &str, out: &mut Vec<u8>) {
    sentence("421 4.4.2 ", hostname, " timed out, closing connection\r\n", out);
}
pub(crate) fn stopping(hostname: &str, out: &mut Vec<u8>) {
    sentence("421 4.3.2 ", hostname, " is stopping, try again later\r\n", out);
}
pub(crate) fn too_many_errors(hostname: &str, out: &mut Vec<u8>) {
    sentence("421 4.7.0 ", hostname, " too many errors, closing connection\r\n", out);
}
pub(crate) fn too_many_mails(hostname: &str, out: &mut Vec<u8>) {
    sentence("421 4.5.3 ", hostname, " too many messages for one connection\r\n", out);
}
pub(crate) fn behind_start_tls(hostname: &str, out: &mut Vec<u8>) {
    sentence("421 4.7.0 ", hostname, " nothing may follow STARTTLS before the handshake, closing connection\r\n", out);
}
pub(crate) fn too_many_logins(hostname: &str, out: &mut Vec<u8>) {
    sentence("421 4.7.0 ", hostname, " too many failed logins, closing connection\r\n", out);
}
pub(crate) fn queued(id: &str, out: &mut Vec<u8>) {
    sentence("250 2.0.0 queued as ", id, "\r\n", out);
}
pub(crate) fn chunk_taken(body_bytes: u64, out: &mut Vec<u8>) {
    out.extend_from_slice(b"250 2.0.0 ");
    push_number(body_bytes, out);
    out.extend_from_slice(b" octets received\r\n");
}

fn sentence(before: &str, name: &str, after: &str, out: &mut Vec<u8>) {
    out.extend_from_slice(before.as_bytes());
    out.extend(name.bytes().map(|byte| if byte.is_ascii_graphic() { byte } else { b'?' }));
    out.extend_from_slice(after.as_bytes());
}

pub(crate) const OK: &[u8] = b"250 2.0.0 ok\r\n";
pub(crate) const SENDER_OK: &[u8] = b"250 2.1.0 sender ok\r\n";
pub(crate) const RECIPIENT_OK: &[u8] = b"250 2.1.5 recipient ok\r\n";
pub(crate) const START_DATA: &[u8] = b"354 send the message, end with CRLF.CRLF\r\n";
pub(crate) const HELP: &[u8] = b"214 2.0.0 commands: HELO EHLO MAIL RCPT DATA BDAT RSET NOOP VRFY EXPN HELP QUIT\r\n";
pub(crate) const VERIFY: &[u8] = b"252 2.5.2 cannot verify, but will take a message and try\r\n";
pub(crate) const NO_EXPANSION: &[u8] = b"502 5.5.1 lists are not expanded\r\n";

pub(crate) const UNKNOWN_COMMAND: &[u8] = b"500 5.5.1 command unknown\r\n";
pub(crate) const LINE_TOO_LONG: &[u8] = b"500 5.5.2 command line too long\r\n";
pub(crate) const BARE_NEWLINE_IN_COMMAND: &[u8] = b"500 5.5.2 lines end with CRLF; bare CR or LF refused\r\n";
pub(crate) const CONTROL_IN_COMMAND: &[u8] = b"500 5.5.2 control character in command\r\n";
pub(crate) const NO_ARGUMENT_EXPECTED: &[u8] = b"501 5.5.4 this command takes no argument\r\n";
pub(crate) const HELLO_ARGUMENT: &[u8] = b"501 5.5.4 tell your domain name or address literal\r\n";
pub(crate) const VERIFY_ARGUMENT: &[u8] = b"501 5.5.4 argument missing\r\n";
pub(crate) const MAIL_ARGUMENT: &[u8] = b"501 5.5.4 syntax: MAIL FROM:<address> [parameters]\r\n";
pub(crate) const RCPT_ARGUMENT: &[u8] = b"501 5.5.4 syntax: RCPT TO:<address>\r\n";
pub(crate) const BDAT_ARGUMENT: &[u8] =
    b"501 5.5.4 syntax: BDAT size [LAST]; closing, the data cannot be told from commands\r\n";
pub(crate) const BAD_SENDER: &[u8] = b"501 5.1.7 sender address not understood\r\n";
pub(crate) const BAD_RECIPIENT: &[u8] = b"501 5.1.3 recipient address not understood\r\n";
pub(crate) const BAD_PARAMETER: &[u8] = b"501 5.5.4 parameter value not understood\r\n";
pub(crate) const BAD_RET: &[u8] = b"501 5.5.4 RET is FULL or HDRS, and given once\r\n";
pub(crate) const BAD_ENVID: &[u8] = b"501 5.5.4 ENVID is xtext of up to 100 characters, and given once\r\n";
pub(crate) const BAD_NOTIFY: &[u8] = b"501 5.5.4 NOTIFY is NEVER, or some of SUCCESS,FAILURE,DELAY, and given once\r\n";
pub(crate) const BAD_ORCPT: &[u8] = b"501 5.5.4 ORCPT is type;xtext of up to 500 characters, and given once\r\n";
pub(crate) const BAD_RELEASE: &[u8] =
    b"501 5.5.4 HOLDFOR is a number of seconds, HOLDUNTIL a date of RFC 3339, and one of them given once\r\n";
pub(crate) const RELEASE_TOO_FAR: &[u8] = b"501 5.5.4 no message is held for so long; EHLO says for how long\r\n";
pub(crate) const BAD_PRIORITY: &[u8] = b"501 5.5.4 MT-PRIORITY is a number from -9 to 9, and given once\r\n";
pub(crate) const BAD_VERP: &[u8] =
    b"501 5.5.4 XVERP has no value, or the delimiter of sub-addresses here and =, and is given once\r\n";
pub(crate) const VERP_OF_NOBODY: &[u8] = b"503 5.5.4 XVERP needs a sender\r\n";
pub(crate) const UNKNOWN_PARAMETER: &[u8] = b"555 5.5.4 parameter unknown\r\n";
pub(crate) const NEEDS_SMTPUTF8: &[u8] = b"553 5.6.7 this address needs MAIL with SMTPUTF8\r\n";
pub(crate) const START_TLS: &[u8] = b"220 2.0.0 begin the TLS handshake\r\n";
pub(crate) const TLS_FIRST: &[u8] = b"530 5.7.0 STARTTLS first: nothing is taken here without encryption\r\n";
pub(crate) const NO_TLS: &[u8] = b"502 5.5.1 TLS is not offered here\r\n";
pub(crate) const TLS_ALREADY: &[u8] = b"503 5.5.1 this session is encrypted already\r\n";
pub(crate) const TLS_IN_TRANSACTION: &[u8] = b"503 5.5.1 not within a transaction; RSET ends it\r\n";
pub(crate) const LOGGED_IN: &[u8] = b"235 2.7.0 logged in\r\n";
pub(crate) const BAD_LOGIN: &[u8] = b"535 5.7.8 user or password is wrong\r\n";
pub(crate) const AUTH_FIRST: &[u8] = b"530 5.7.0 log in first (AUTH)\r\n";
pub(crate) const AUTH_NEEDS_TLS: &[u8] = b"538 5.7.11 STARTTLS first: no password is taken without encryption\r\n";
pub(crate) const NO_AUTH: &[u8] = b"502 5.5.1 logging in is not offered here\r\n";
pub(crate) const AUTH_ALREADY: &[u8] = b"503 5.5.1 logged in already\r\n";
pub(crate) const AUTH_IN_TRANSACTION: &[u8] = b"503 5.5.1 not within a transaction; RSET ends it\r\n";
pub(crate) const AUTH_ARGUMENT: &[u8] = b"501 5.5.4 syntax: AUTH mechanism [initial-response]\r\n";
pub(crate) const AUTH_CANCELLED: &[u8] = b"501 5.7.0 login cancelled\r\n";
pub(crate) const BAD_BASE64: &[u8] = b"501 5.5.2 not base64 of a text in UTF-8\r\n";
pub(crate) const BAD_RESPONSE: &[u8] = b"501 5.5.2 response not understood\r\n";
pub(crate) const RESPONSE_TOO_LONG: &[u8] = b"500 5.5.6 response too long\r\n";
pub(crate) const UNKNOWN_MECHANISM: &[u8] = b"504 5.5.4 this mechanism is not offered\r\n";
pub(crate) const HELLO_FIRST: &[u8] = b"503 5.5.1 EHLO first\r\n";
pub(crate) const NESTED_MAIL: &[u8] = b"503 5.5.1 MAIL already given; RSET begins anew\r\n";
pub(crate) const MAIL_FIRST: &[u8] = b"503 5.5.1 MAIL first\r\n";
pub(crate) const RCPT_FIRST: &[u8] = b"503 5.5.1 RCPT first\r\n";
pub(crate) const IN_CHUNKS: &[u8] = b"503 5.5.1 not between BDAT chunks\r\n";
pub(crate) const NO_VALID_RECIPIENTS: &[u8] = b"554 5.5.1 no valid recipients\r\n";
pub(crate) const TOO_MANY_RECIPIENTS: &[u8] = b"452 4.5.3 too many recipients\r\n";
pub(crate) const TOO_LARGE: &[u8] = b"552 5.3.4 message too large\r\n";
pub(crate) const BARE_NEWLINE_IN_DATA: &[u8] = b"550 5.6.11 message refused: bare CR or LF in it\r\n";

// What the client side says of itself when no server said anything.

pub(crate) const LOCAL_TOO_LARGE: &str = "message exceeds the size that the next server takes";
pub(crate) const REQUIRETLS_IN_CLEAR: &[u8] = b"530 5.7.10 REQUIRETLS needs a connection that is encrypted\r\n";
pub(crate) const LOCAL_NO_REQUIRETLS: &str =
    "the message requires TLS all the way, and the next server does not offer REQUIRETLS";
pub(crate) const LOCAL_NO_XVERP: &str =
    "a reverse-path for each recipient was asked for, and the next server does not offer XVERP";
pub(crate) const LOCAL_NO_SMTPUTF8: &str = "the next server does not take internationalised addresses";
pub(crate) const LOCAL_TOO_MANY_RECIPIENTS: &str = "the next server takes fewer recipients at a time";
pub(crate) const LOCAL_NO_STARTTLS: &str = "encryption is required, and the next server does not offer STARTTLS";
pub(crate) const LOCAL_NO_AUTH: &str =
    "the next server offers no way to log in that is known here (SCRAM-SHA-256, PLAIN, LOGIN)";
pub(crate) const LOCAL_NOT_PROVEN: &str =
    "the next server has not proven that it knows the password, and is not trusted with mail";
pub(crate) const LOCAL_LOGIN_IN_CLEAR: &str = "a password is not sent without encryption";
pub(crate) const LOCAL_INJECTED: &str = "the next server, or somebody between, said more before the encryption began";
pub(crate) const LOCAL_UNEXPECTED: &str = "the next server replied out of order";
pub(crate) const LOCAL_NONSENSE: &str = "the next server does not speak SMTP";
pub(crate) const LOCAL_ENDLESS: &str = "the next server's reply does not end";

#[cfg(test)]
mod tests {
    use super::*;

    fn wire(reply: &Reply) -> String {
        let mut out = Vec::new();
        reply.write(&mut out);
        String::from_utf8(out).unwrap()
    }

    #[test]
    fn wire_form_is_one_reply_whatever_the_text() {
        assert_eq!(wire(&Reply::new(550, "5.7.1", "no")), "550 5.7.1 no\r\n");
        assert_eq!(wire(&Reply::new(550, "5.7.1", "")), "550 5.7.1 \r\n");
        assert_eq!(wire(&Reply::owned(451, "4.0.0", "a\r\nb\n".into())), "451-4.0.0 a\r\n451 4.0.0 b\r\n");
        assert_eq!(wire(&Reply::owned(550, "5.0.0", "a\rb\u{0}ü".into())), "550 5.0.0 a?b??\r\n");
        assert_eq!(wire(&Reply::owned(550, "5.0.0", "x".repeat(2000))).len(), REPLY_LINE_BYTES_MAX + 2);
        assert_eq!(wire(&Reply::owned(550, "5.0.0", "x\n".repeat(99))).lines().count(), REPLY_LINES_MAX);
    }

    #[test]
    fn status_follows_the_class_of_the_code() {
        assert_eq!(Reply::new(550, "4.1.1", "").status(), (5, 0, 0));
        assert_eq!(Reply::new(452, "garbage", "").status(), (4, 0, 0));
        assert_eq!(Reply::new(550, "5.6.11", "x").to_string(), "550 5.6.11 x");
        for wrong in ["", "5", "5.1", "5.1.1.1", "3.1.1", "5.1.1000", "5..1", "5.1.x"] {
            assert_eq!(parse_status(wrong.as_bytes()), None, "{wrong}");
        }
    }

    #[test]
    fn numbers() {
        let mut out = Vec::new();
        push_number(0, &mut out);
        push_number(u64::MAX, &mut out);
        assert_eq!(out, format!("0{}", u64::MAX).as_bytes());
    }
}
