//! STARTTLS (RFC 3207), and what may be said without encryption where that is required.

use super::session::{Phase, Protocol, Question, Session, State, Step};
use crate::command::Verb;
use crate::reply::{self, Reply};

/// Whether sessions are encrypted, and when.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Encryption {
    /// Never: STARTTLS is not offered. Also where it begins with the connection.
    #[default]
    Never,
    /// STARTTLS is offered.
    Offered,
    /// STARTTLS comes before all else but EHLO, NOOP and QUIT (RFC 3207 §4).
    Required,
}

impl Session {
    /// Whether what comes and goes is encrypted.
    pub fn is_encrypted(&self) -> bool {
        self.encrypted
    }

    /// The handshake has been made: all that was said before it is forgotten, for anybody may have said it (RFC 3207
    /// §4.2). Also for a connection that begins with one, before the greeting.
    pub fn on_encrypted(&mut self) {
        self.encrypted = true;
        self.helo = Box::default();
        self.phase = Phase::Stranger;
        self.protocol = Protocol::Smtp;
        self.account = None;
    }

    /// The caller's answer to [`Step::StartTls`]. After `Ok`, write `out`, make the handshake with nothing of the input that
    /// was read so far, and say [`Session::on_encrypted`] or close. A refusal lets the session go on without encryption.
    pub fn on_start_tls(&mut self, answer: Result<(), Reply>, out: &mut Vec<u8>) {
        self.answered(Question::StartTls);
        match answer {
            Ok(()) => out.extend_from_slice(reply::START_TLS),
            Err(refusal) => self.pass_on(&refusal, out),
        }
    }

    /// STARTTLS may be said now.
    pub(super) fn may_start_tls(&self) -> bool {
        !self.encrypted && self.policy.encryption != Encryption::Never
    }

    pub(super) fn is_allowed_here(&self, verb: Verb) -> bool {
        let harmless = matches!(verb, Verb::Helo | Verb::Ehlo | Verb::Noop | Verb::Quit | Verb::Starttls);
        harmless || self.encrypted || self.policy.encryption != Encryption::Required
    }

    /// `behind`: bytes that have come after the command. A client must wait for our answer; whoever has not may be somebody
    /// between us and the client, whose commands would be obeyed as if they had come encrypted.
    pub(super) fn start_tls<'i, 'a>(
        &mut self,
        arguments: &[u8],
        behind: usize,
        out: &mut Vec<u8>,
    ) -> Option<Step<'i, 'a>> {
        if !arguments.is_empty() {
            return self.wrong(reply::NO_ARGUMENT_EXPECTED, out);
        }
        if self.encrypted {
            return self.wrong(reply::TLS_ALREADY, out);
        }
        if !self.may_start_tls() {
            return self.wrong(reply::NO_TLS, out);
        }
        match self.phase {
            Phase::Stranger => return self.wrong(reply::HELLO_FIRST, out),
            Phase::Envelope | Phase::Chunks => return self.wrong(reply::TLS_IN_TRANSACTION, out),
            Phase::Ready => {}
        }
        if behind > 0 {
            reply::behind_start_tls(&self.policy.hostname, out);
            self.state = State::Closed;
            return Some(Step::Injected);
        }
        self.ask(Question::StartTls);
        Some(Step::StartTls)
    }
}
