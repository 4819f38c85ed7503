//! Trace fields in front of a message that comes in (RFC 5321 §4.4), and what a user's own program may have left out
//! (RFC 6409 §8).

use std::io::Write;
use std::net::IpAddr;

use crate::date;
use crate::fold::{Charset, foreign};
use crate::limits::{FOREIGN_BYTES_MAX, LINE_BYTES};

/// What `Received:` tells: who gave us the message, how, and when.
#[derive(Clone, Copy, Debug)]
pub struct Received<'a> {
    /// Who gave it to us.
    pub client: Client<'a>,
    /// Our host name.
    pub by: &'a str,
    /// `SMTP`, `ESMTP`, `UTF8SMTP`…
    pub protocol: &'a str,
    /// Who has logged in, where that is to be told.
    pub user: Option<&'a str>,
    /// What encrypts the session, if anything does: `TLS1.3:TLS_AES_256_GCM_SHA384:256:NO`, version, cipher, bits of its
    /// key, and whether the client's certificate was verified.
    pub tls: Option<&'a str>,
    /// Queue identifier.
    pub id: &'a str,
    /// The recipient, if there is only one: several would tell them of each other (RFC 5321 §7.6).
    pub recipient: Option<&'a str>,
    /// How urgent it is, from -9 to 9 (RFC 6710); told unless it is 0.
    pub priority: i8,
    /// When it came, in milliseconds since the Unix epoch.
    pub at_ms: u64,
}

/// Who gave us a message.
#[derive(Clone, Copy, Debug)]
pub enum Client<'a> {
    /// A host.
    Host {
        /// Argument of HELO or EHLO; believed by nobody.
        helo: &'a str,
        /// Its address.
        address: IpAddr,
    },
    /// A user of this machine, by number.
    User(u32),
    /// Nobody else's business: the field begins with `by`.
    Masked,
}

impl Received<'_> {
    /// Appends the field, folded, with its CRLF.
    pub fn write(&self, out: &mut Vec<u8>) {
        out.extend_from_slice(b"Received: ");
        // Writing to a vector cannot fail.
        match self.client {
            Client::Host { helo, address } => {
                out.extend_from_slice(b"from ");
                host(out, helo);
                let _ = match address.to_canonical() {
                    IpAddr::V4(address) => write!(out, " (unknown [{address}])\r\n\tby "),
                    IpAddr::V6(address) => write!(out, " (unknown [IPv6:{address}])\r\n\tby "),
                };
                host(out, self.by);
                out.push(b' ');
            }
            // As Postfix has it; no program spoke for a host, so there is no `from`.
            Client::User(uid) => {
                out.extend_from_slice(b"by ");
                host(out, self.by);
                let _ = write!(out, " (Ringpost, from userid {uid})\r\n\t");
            }
            Client::Masked => {
                out.extend_from_slice(b"by ");
                host(out, self.by);
                out.extend_from_slice(b" (Ringpost)\r\n\t");
            }
        }
        out.extend_from_slice(b"with ");
        host(out, self.protocol);
        if let Some(tls) = self.tls {
            out.extend_from_slice(b"\r\n\t(");
            // Nothing in it ends the comment (RFC 5322 §3.2.2).
            host(out, tls);
            out.extend_from_slice(b")");
        }
        if let Some(user) = self.user {
            out.extend_from_slice(b"\r\n\t(authenticated as ");
            // As above: a user's name may have all characters, a comment not.
            let safe = |c: char| if c.is_control() || "()\\".contains(c) { '?' } else { c };
            let user: String = user.chars().map(safe).collect();
            foreign(out, &user, Charset::Utf8);
            out.push(b')');
        }
        out.extend_from_slice(b" id ");
        host(out, self.id);
        let mut date_start = LINE_BYTES;
        if let Some(recipient) = self.recipient {
            out.extend_from_slice(b"\r\n\tfor <");
            let start = out.len();
            foreign(out, recipient, Charset::Utf8);
            out.push(b'>');
            date_start = FOR_BYTES + out.len() - start;
        }
        if self.priority != 0 {
            let _ = write!(out, "\r\n\tPRIORITY {}", self.priority);
            date_start = PRIORITY_BYTES;
        }
        out.push(b';');
        out.extend_from_slice(if date_start + DATE_BYTES_MAX > LINE_BYTES { b"\r\n\t" } else { b" " });
        date::write(out, self.at_ms);
        out.extend_from_slice(b"\r\n");
    }
}

/// Tab (counted as 8 columns), `for <`, `;`.
const FOR_BYTES: usize = 14;
/// Tab, `PRIORITY -9;`.
const PRIORITY_BYTES: usize = 20;
/// Blank and `Wed, 25 Nov 2026 12:17:12 +0000`.
const DATE_BYTES_MAX: usize = 32;

/// Appends `Date:` (RFC 5322 §3.6.1); `ms` since the Unix epoch.
pub fn write_date(out: &mut Vec<u8>, ms: u64) {
    out.extend_from_slice(b"Date: ");
    date::write(out, ms);
    out.extend_from_slice(b"\r\n");
}

/// Appends `Message-ID:` (RFC 5322 §3.6.4): the queue identifier made unique beyond this queue's life by `random`.
pub fn write_message_id(out: &mut Vec<u8>, id: &str, random: u64, hostname: &str) {
    out.extend_from_slice(b"Message-ID: <");
    host(out, id);
    let _ = write!(out, ".{random:016x}@");
    host(out, hostname);
    out.extend_from_slice(b">\r\n");
}

/// Appends a name or an address literal; what belongs to neither becomes `?`, or a client could write comments or fields.
pub(crate) fn host(out: &mut Vec<u8>, name: &str) {
    let allowed = |byte: u8| byte.is_ascii_alphanumeric() || b".-_:[]+=".contains(&byte);
    if name.is_empty() {
        out.push(b'?');
    }
    out.extend(name.bytes().take(FOREIGN_BYTES_MAX).map(|byte| if allowed(byte) { byte } else { b'?' }));
}

#[cfg(test)]
mod tests {
    use super::*;

    fn field(helo: &str, address: &str, recipient: Option<&str>) -> String {
        urgent(helo, address, recipient, 0)
    }

    fn urgent(helo: &str, address: &str, recipient: Option<&str>, priority: i8) -> String {
        let mut out = Vec::new();
        let address = address.parse().unwrap();
        let received = Received {
            client: Client::Host { helo, address },
            by: "mx.example",
            protocol: "ESMTP",
            user: None,
            tls: None,
            id: "00A1",
            recipient,
            priority,
            at_ms: 1_795_609_032_000,
        };
        received.write(&mut out);
        String::from_utf8(out).unwrap()
    }

    #[test]
    fn tells_who_and_when() {
        assert_eq!(
            field("client.example", "192.0.2.1", Some("u@example.org")),
            "Received: from client.example (unknown [192.0.2.1])\r\n\tby mx.example with ESMTP id 00A1\r\n\
             \tfor <u@example.org>; Wed, 25 Nov 2026 12:17:12 +0000\r\n"
        );
        assert_eq!(
            field("[IPv6:2001:db8::1]", "2001:db8::1", None),
            "Received: from [IPv6:2001:db8::1] (unknown [IPv6:2001:db8::1])\r\n\tby mx.example with ESMTP id 00A1;\r\n\
             \tWed, 25 Nov 2026 12:17:12 +0000\r\n"
        );
        assert!(field("a", "::ffff:192.0.2.1", None).contains("(unknown [192.0.2.1])"));
    }

    #[test]
    fn tells_what_encrypts_and_who_has_logged_in() {
        let mut out = Vec::new();
        let client = Client::Host { helo: "c", address: "192.0.2.1".parse().unwrap() };
        let tls = Some("TLS1.3:TLS_AES_256_GCM_SHA384:256:NO");
        let by = "mx.example";
        let user = Some("gilles) (x");
        Received { client, by, protocol: "ESMTPSA", user, tls, id: "00A1", recipient: None, priority: 0, at_ms: 0 }
            .write(&mut out);
        assert_eq!(
            String::from_utf8(out).unwrap(),
            "Received: from c (unknown [192.0.2.1])\r\n\tby mx.example with ESMTPSA\r\n\
             \t(TLS1.3:TLS_AES_256_GCM_SHA384:256:NO)\r\n\t(authenticated as gilles? ?x) id 00A1;\r\n\
             \tThu, 1 Jan 1970 00:00:00 +0000\r\n"
        );
    }

    #[test]
    fn tells_the_user_or_nothing() {
        let of = |client| {
            let mut out = Vec::new();
            let (by, protocol, id) = ("mx.example", "ESMTP", "00A1");
            Received { client, by, protocol, user: None, tls: None, id, recipient: None, priority: 0, at_ms: 0 }
                .write(&mut out);
            String::from_utf8(out).unwrap()
        };
        assert_eq!(
            of(Client::User(1000)),
            "Received: by mx.example (Ringpost, from userid 1000)\r\n\twith ESMTP id 00A1;\r\n\tThu, 1 Jan 1970 00:00:00 +0000\r\n"
        );
        assert!(of(Client::Masked).starts_with("Received: by mx.example (Ringpost)\r\n\twith ESMTP id 00A1;"));
    }

    #[test]
    fn tells_how_urgent_it_is() {
        let text = urgent("a", "192.0.2.1", Some("u@example.org"), -4);
        assert!(
            text.ends_with("\r\n\tfor <u@example.org>\r\n\tPRIORITY -4; Wed, 25 Nov 2026 12:17:12 +0000\r\n"),
            "{text}"
        );
        let text = urgent("a", "192.0.2.1", None, 9);
        assert!(text.ends_with(" id 00A1\r\n\tPRIORITY 9; Wed, 25 Nov 2026 12:17:12 +0000\r\n"), "{text}");
    }

    #[test]
    fn cannot_be_broken_out_of() {
        let text = field("a) b\r\nX-Evil: (", "192.0.2.1", Some("u\r\nX-Evil: y@example.org"));
        assert_eq!(text.matches("\r\n").count(), 3);
        assert!(text.starts_with("Received: from a??b??X-Evil:?? (unknown"));
        assert!(text.split("\r\n").skip(1).filter(|line| !line.is_empty()).all(|line| line.starts_with('\t')));
        assert!(field("", "192.0.2.1", None).starts_with("Received: from ? ("));
    }

    #[test]
    fn long_recipients_fold_the_date() {
        let text = field("a", "192.0.2.1", Some(&format!("{}@example.org", "u".repeat(60))));
        assert!(text.split("\r\n").all(|line| line.len() <= 80), "{text}");
        assert_eq!(text.matches("\r\n").count(), 4);
    }

    #[test]
    fn submission_fields() {
        let mut out = Vec::new();
        write_date(&mut out, 0);
        write_message_id(&mut out, "00A1", 7, "mx.example");
        let expected = "Date: Thu, 1 Jan 1970 00:00:00 +0000\r\nMessage-ID: <00A1.0000000000000007@mx.example>\r\n";
        assert_eq!(String::from_utf8(out).unwrap(), expected);
    }
}
