//! MAIL (RFC 5321 §4.1.1.2) with SIZE (RFC 1870), BODY (RFC 6152) and SMTPUTF8 (RFC 6531).

use super::session::{Phase, Protocol, Question, Session, State, Step};
use crate::command;
use crate::path::{self, Path};
use crate::reply;
use crate::transaction::{BodyType, Declared, Transaction};

impl Session {
    pub(super) fn mail<'i, 'a>(
        &mut self,
        arguments: &[u8],
        tx: &mut Transaction<'a>,
        out: &mut Vec<u8>,
    ) -> Option<Step<'i, 'a>> {
        match self.phase {
            Phase::Stranger => return self.wrong(reply::HELLO_FIRST, out),
            Phase::Envelope | Phase::Chunks => return self.wrong(reply::NESTED_MAIL, out),
            Phase::Ready => {}
        }
        if self.mails >= self.policy.mails_max {
            reply::too_many_mails(&self.policy.hostname, out);
            self.state = State::Closed;
            return Some(Step::Close);
        }
        let Some(text) = command::after_keyword(arguments, b"FROM:") else {
            return self.wrong(reply::MAIL_ARGUMENT, out);
        };
        let Some((reverse_path, parameters)) = path::parse(text) else { return self.wrong(reply::BAD_SENDER, out) };
        let declared = match self.declared(parameters) {
            Ok(declared) => declared,
            Err(text) => return self.wrong(text, out),
        };
        if !declared.smtputf8 && needs_smtputf8(reverse_path) {
            return self.wrong(reply::NEEDS_SMTPUTF8, out);
        }
        // No mistake, but no use either: said before the message is on its way (RFC 1870 §6.1).
        if declared.size.is_some_and(|bytes| bytes > self.policy.size_max) {
            return self.say(reply::TOO_LARGE, out);
        }
        tx.begin(reverse_path, declared, &self.policy.hostname);
        self.ask(Question::Mail);
        Some(Step::Mail)
    }

    /// Each parameter once; none without EHLO, which announces them.
    fn declared(&self, parameters: &[u8]) -> Result<Declared, &'static [u8]> {
        let mut declared = Declared::default();
        let mut body = None;
        for (key, value) in command::parameters(parameters) {
            if self.protocol == Protocol::Smtp {
                return Err(reply::UNKNOWN_PARAMETER);
            }
            if key.eq_ignore_ascii_case(b"SIZE") {
                let bytes = value.and_then(command::number).filter(|_| declared.size.is_none());
                declared.size = Some(bytes.ok_or(reply::BAD_PARAMETER)?);
            } else if key.eq_ignore_ascii_case(b"BODY") {
                let kind = value.and_then(body_type).filter(|_| body.is_none());
                body = Some(kind.ok_or(reply::BAD_PARAMETER)?);
            } else if key.eq_ignore_ascii_case(b"SMTPUTF8") {
                if value.is_some() || declared.smtputf8 {
                    return Err(reply::BAD_PARAMETER);
                }
                declared.smtputf8 = true;
            } else {
                return Err(reply::UNKNOWN_PARAMETER);
            }
        }
        declared.body = body.unwrap_or_default();
        Ok(declared)
    }
}

fn body_type(value: &[u8]) -> Option<BodyType> {
    if value.eq_ignore_ascii_case(b"7BIT") {
        Some(BodyType::SevenBit)
    } else if value.eq_ignore_ascii_case(b"8BITMIME") {
        Some(BodyType::EightBit)
    } else {
        None
    }
}

/// Only what MAIL announced may come (RFC 6531 §3.4).
pub(super) fn needs_smtputf8(path: Path<'_>) -> bool {
    matches!(path, Path::Mailbox(mailbox) if !mailbox.is_ascii())
}
