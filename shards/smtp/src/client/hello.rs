//! Greeting, EHLO and its fall-back HELO (RFC 5321 §3.1, §3.2), or LHLO, which has none (RFC 2033 §4.1).

use super::incoming::RemoteReply;
use super::session::{Event, Protocol, Session, State};

impl Session {
    pub(super) fn greeted(&mut self, reply: RemoteReply, out: &mut Vec<u8>) -> Option<Event> {
        if reply.code() != 220 {
            return Some(self.fail(reply));
        }
        let verb: &[u8] = match self.protocol {
            Protocol::Smtp => b"EHLO ",
            Protocol::Lmtp => b"LHLO ",
        };
        self.say_hello(verb, out);
        self.state = State::Ehlo;
        None
    }

    pub(super) fn ehlo(&mut self, reply: RemoteReply, out: &mut Vec<u8>) -> Option<Event> {
        if reply.is_positive() {
            return self.greeted_with_extensions(out);
        }
        // Only a server that does not know the word gets the older one.
        let older = self.protocol == Protocol::Smtp;
        if !older || !matches!(reply.code(), 500 | 501 | 502 | 503 | 504 | 550 | 554) {
            return Some(self.fail(reply));
        }
        self.offered = crate::Offered::default();
        self.say_hello(b"HELO ", out);
        self.state = State::Helo;
        None
    }

    pub(super) fn helo(&mut self, reply: RemoteReply, out: &mut Vec<u8>) -> Option<Event> {
        if !reply.is_positive() {
            return Some(self.fail(reply));
        }
        // It knows no extension, STARTTLS neither.
        self.without_starttls(out)
    }

    pub(super) fn say_hello(&self, verb: &[u8], out: &mut Vec<u8>) {
        out.extend_from_slice(verb);
        out.extend(self.name.bytes().map(|byte| if byte.is_ascii_graphic() { byte } else { b'?' }));
        out.extend_from_slice(b"\r\n");
    }
}
