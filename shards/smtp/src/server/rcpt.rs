//! RCPT (RFC 5321 §4.1.1.3) with NOTIFY and ORCPT (RFC 3461).

use super::mail::needs_smtputf8;
use super::session::{Phase, Protocol, Question, Session, Step};
use crate::dsn::OfRecipient;
use crate::limits::REFUSED_RECIPIENTS_MAX;
use crate::path::{self, Path};
use crate::transaction::Transaction;
use crate::{command, reply};

impl Session {
    pub(super) fn rcpt<'i, 'a>(
        &mut self,
        arguments: &[u8],
        tx: &mut Transaction<'a>,
        out: &mut Vec<u8>,
    ) -> Option<Step<'i, 'a>> {
        match self.phase {
            Phase::Stranger => return self.wrong(reply::HELLO_FIRST, out),
            // Behind a refused MAIL a pipelining client is not to blame for the RCPTs that it had sent with it.
            Phase::Ready => return self.say(reply::MAIL_FIRST, out),
            Phase::Chunks => return self.wrong(reply::IN_CHUNKS, out),
            Phase::Envelope => {}
        }
        let Some(text) = command::after_keyword(arguments, b"TO:") else {
            return self.wrong(reply::RCPT_ARGUMENT, out);
        };
        let (forward_path, parameters) = match path::parse(text) {
            Some((Path::Null, _)) | None => return self.bad_recipient(out),
            Some(parsed) => parsed,
        };
        let may_ask = self.policy.dsn && self.protocol == Protocol::Esmtp;
        if !may_ask && command::parameters(parameters).next().is_some() {
            return self.wrong(reply::UNKNOWN_PARAMETER, out);
        }
        let request = match OfRecipient::read(parameters, tx.smtputf8()) {
            Ok(request) => request,
            Err(text) => return self.wrong(text, out),
        };
        if !tx.smtputf8() && needs_smtputf8(forward_path) {
            return self.wrong(reply::NEEDS_SMTPUTF8, out);
        }
        // No mistake (RFC 5321 §4.5.3.1.10): the client sends the message to the rest once more.
        if self.recipients as usize >= self.policy.recipients_max || self.refused_recipients >= REFUSED_RECIPIENTS_MAX {
            return self.say(reply::TOO_MANY_RECIPIENTS, out);
        }
        let asked = tx.ask(forward_path, request, &self.policy.hostname);
        self.ask(Question::Recipient);
        Some(Step::Recipient(asked))
    }

    fn bad_recipient<'i, 'a>(&mut self, out: &mut Vec<u8>) -> Option<Step<'i, 'a>> {
        self.refused_recipients = self.refused_recipients.saturating_add(1);
        self.wrong(reply::BAD_RECIPIENT, out)
    }
}
