//! STARTTLS from the client's side (RFC 3207): asked for as soon as it is offered, and what was offered in clear is forgotten.

use super::incoming::RemoteReply;
use super::session::{Event, Session, State};
use crate::{Offered, reply};

/// Whether a session asks for encryption.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum StartTls {
    /// No.
    #[default]
    Never,
    /// Where it is offered; a server that then refuses is spoken to in clear.
    IfOffered,
    /// Without it nothing is said but EHLO.
    Required,
}

impl Session {
    /// The same session, which asks for encryption. LMTP never does.
    pub fn asking_for(mut self, starttls: StartTls) -> Self {
        self.starttls = starttls;
        self
    }

    /// STARTTLS was said and is not answered.
    pub fn awaits_starttls(&self) -> bool {
        self.state == State::StartTls
    }

    /// The handshake is done: what the server offered before counts for nothing, and it is greeted again (RFC 3207 §4.2).
    /// Write `out`.
    ///
    /// # Panics
    /// Without an [`Event::StartTls`] before.
    pub fn secured(&mut self, out: &mut Vec<u8>) {
        assert_eq!(self.state, State::Handshake, "the server was not asked for it");
        self.starttls = StartTls::Never;
        self.is_encrypted = true;
        self.offered = Offered::default();
        self.say_hello(b"EHLO ", out);
        self.state = State::Ehlo;
    }

    /// EHLO was answered: asks for encryption, or is ready.
    pub(super) fn greeted_with_extensions(&mut self, out: &mut Vec<u8>) -> Option<Event> {
        if self.starttls == StartTls::Never || !self.offered.starttls {
            return self.without_starttls(out);
        }
        out.extend_from_slice(b"STARTTLS\r\n");
        self.state = State::StartTls;
        None
    }

    pub(super) fn without_starttls(&mut self, out: &mut Vec<u8>) -> Option<Event> {
        match self.starttls {
            StartTls::Required => Some(self.fail(RemoteReply::local(451, (4, 7, 4), reply::LOCAL_NO_STARTTLS))),
            StartTls::Never | StartTls::IfOffered => self.log_in(out),
        }
    }

    pub(super) fn starttls_answered(&mut self, reply: RemoteReply, out: &mut Vec<u8>) -> Option<Event> {
        if reply.code() == 220 {
            self.state = State::Handshake;
            return Some(Event::StartTls);
        }
        match self.starttls {
            StartTls::Required => Some(self.fail(reply)),
            StartTls::Never | StartTls::IfOffered => self.log_in(out),
        }
    }
}
