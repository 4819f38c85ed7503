//! Extensions: what the server announces, what a remote server's EHLO reply offers. One line here per extension and side.

use crate::command;
use crate::mechanism::{Mechanism, Mechanisms};
use crate::release;
use crate::reply::push_number;
use crate::server::Policy;

/// Appends the reply to EHLO (RFC 5321 §4.1.1.1): PIPELINING (RFC 2920), SIZE (RFC 1870), 8BITMIME (RFC 6152),
/// SMTPUTF8 (RFC 6531), CHUNKING (RFC 3030), ENHANCEDSTATUSCODES (RFC 2034), DSN (RFC 3461), LIMITS (RFC 9422); STARTTLS (RFC 3207) and
/// AUTH (RFC 4954) where they may be said now, REQUIRETLS (RFC 8689) where STARTTLS has been, FUTURERELEASE (RFC 4865) with its
/// latest time where messages may be held, MT-PRIORITY (RFC 6710) and XVERP (Postfix's) where its client's word counts, or would
/// after a login.
pub(crate) fn announce(
    policy: &Policy,
    start_tls: bool,
    encrypted: bool,
    mechanisms: Mechanisms,
    is_own: bool,
    latest_release: Option<u64>,
    out: &mut Vec<u8>,
) {
    out.extend_from_slice(b"250-");
    out.extend(policy.hostname.bytes().map(|byte| if byte.is_ascii_graphic() { byte } else { b'?' }));
    if start_tls {
        out.extend_from_slice(b"\r\n250-STARTTLS");
    }
    if mechanisms != Mechanisms::default() {
        out.extend_from_slice(b"\r\n250-AUTH");
        mechanisms.announce(out);
    }
    if encrypted {
        out.extend_from_slice(b"\r\n250-REQUIRETLS");
    }
    out.extend_from_slice(b"\r\n250-PIPELINING\r\n250-SIZE ");
    push_number(policy.size_max, out);
    out.extend_from_slice(b"\r\n250-8BITMIME\r\n250-SMTPUTF8\r\n250-CHUNKING\r\n250-ENHANCEDSTATUSCODES");
    if policy.dsn {
        out.extend_from_slice(b"\r\n250-DSN");
    }
    if is_own {
        // No name of a profile: what the numbers mean is RFC 6710's own.
        out.extend_from_slice(b"\r\n250-MT-PRIORITY\r\n250-XVERP");
    }
    if let Some(latest) = latest_release {
        release::announce(latest, out);
    }
    out.extend_from_slice(b"\r\n250-LIMITS RCPTMAX=");
    push_number(policy.recipients_max as u64, out);
    // No bound is said by not saying one.
    if policy.mails_max < u32::MAX {
        out.extend_from_slice(b" MAILMAX=");
        push_number(u64::from(policy.mails_max), out);
    }
    out.extend_from_slice(b"\r\n250 HELP\r\n");
}

/// What a remote server offers. Nothing until its reply to EHLO was read.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Offered {
    /// RFC 2920: commands may leave together.
    pub pipelining: bool,
    /// RFC 3207: the connection may be encrypted.
    pub starttls: bool,
    /// RFC 4954: one may log in.
    pub auth: Mechanisms,
    /// RFC 6152.
    pub eightbitmime: bool,
    /// RFC 6531.
    pub smtputf8: bool,
    /// RFC 3461: it reports to the sender what it is asked to.
    pub dsn: bool,
    /// RFC 8689: messages may demand that all further connections are encrypted.
    pub requiretls: bool,
    /// RFC 6710: messages may have a priority.
    pub mt_priority: bool,
    /// Postfix's: a message may have a reverse-path for each recipient.
    pub xverp: bool,
    /// RFC 1870: SIZE may be declared.
    pub size: bool,
    /// Largest message in bytes that it takes, if it says so.
    pub size_max: Option<u64>,
    /// RFC 9422 RCPTMAX: recipients of one transaction.
    pub recipients_max: Option<u32>,
    /// RFC 9422 MAILMAX: messages of one connection.
    pub mails_max: Option<u32>,
}

impl Offered {
    /// Takes notice of one line of the EHLO reply, without code and separator. Unknown keywords are none of our business.
    pub(crate) fn note(&mut self, line: &[u8]) {
        let mut words = line.split(|byte| matches!(byte, b' ' | b'\t')).filter(|word| !word.is_empty());
        let Some(keyword) = words.next() else { return };
        if keyword.eq_ignore_ascii_case(b"PIPELINING") {
            self.pipelining = true;
        } else if keyword.eq_ignore_ascii_case(b"STARTTLS") {
            self.starttls = true;
        } else if keyword.eq_ignore_ascii_case(b"AUTH") {
            for mechanism in words.filter_map(Mechanism::named) {
                self.auth = self.auth.with(mechanism);
            }
        } else if keyword.eq_ignore_ascii_case(b"8BITMIME") {
            self.eightbitmime = true;
        } else if keyword.eq_ignore_ascii_case(b"SMTPUTF8") {
            self.smtputf8 = true;
        } else if keyword.eq_ignore_ascii_case(b"REQUIRETLS") {
            self.requiretls = true;
        } else if keyword.eq_ignore_ascii_case(b"DSN") {
            self.dsn = true;
        } else if keyword.eq_ignore_ascii_case(b"MT-PRIORITY") {
            self.mt_priority = true;
        } else if keyword.eq_ignore_ascii_case(b"XVERP") {
            self.xverp = true;
        } else if keyword.eq_ignore_ascii_case(b"SIZE") {
            self.size = true;
            // 0 means no fixed limit (RFC 1870 §4).
            self.size_max = words.next().and_then(command::number).filter(|bytes| *bytes > 0);
        } else if keyword.eq_ignore_ascii_case(b"LIMITS") {
            self.note_limits(words);
        }
    }

    fn note_limits<'i>(&mut self, words: impl Iterator<Item = &'i [u8]>) {
        for word in words {
            let Some(at) = memchr::memchr(b'=', word) else { continue };
            // RFC 9422 §3: a limit is at least 1; anything else is as if it were not there.
            let value = command::number(&word[at + 1..]).filter(|value| *value > 0);
            let value = value.map(|value| u32::try_from(value).unwrap_or(u32::MAX));
            if word[..at].eq_ignore_ascii_case(b"RCPTMAX") {
                self.recipients_max = value;
            } else if word[..at].eq_ignore_ascii_case(b"MAILMAX") {
                self.mails_max = value;
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_the_server_announces_the_client_understands() {
        let mut policy = Policy::new("mx.example");
        policy.size_max = 1234;
        policy.recipients_max = 7;
        policy.mails_max = 3;
        let mut out = Vec::new();
        announce(&policy, false, true, Mechanisms::default(), true, Some(1_795_941_000), &mut out);
        let mut offered = Offered::default();
        for line in out.split(|byte| *byte == b'\n').filter(|line| !line.is_empty()) {
            offered.note(line[4..].trim_ascii_end());
        }
        let expected = Offered {
            pipelining: true,
            starttls: false,
            auth: Mechanisms::default(),
            eightbitmime: true,
            smtputf8: true,
            dsn: true,
            requiretls: true,
            mt_priority: true,
            xverp: true,
            size: true,
            size_max: Some(1234),
            recipients_max: Some(7),
            mails_max: Some(3),
        };
        assert_eq!(offered, expected);
    }

    #[test]
    fn odd_values_are_ignored() {
        let mut offered = Offered::default();
        for line in ["SIZE 0", "LIMITS RCPTMAX=0 MAILMAX=x", "", "  ", "XYZZY 1", "PIPELINING-NOT"] {
            offered.note(line.as_bytes());
        }
        assert_eq!(offered, Offered { size: true, ..Offered::default() });
        offered.note(b"limits mailmax=99999999999");
        assert_eq!(offered.mails_max, Some(u32::MAX));
    }
}
