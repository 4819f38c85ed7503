//! MAIL (RFC 5321 §4.1.1.2) with SIZE (RFC 1870), BODY (RFC 6152), SMTPUTF8 (RFC 6531), AUTH (RFC 4954 §5), REQUIRETLS
//! (RFC 8689), RET and ENVID (RFC 3461), HOLDFOR and HOLDUNTIL (RFC 4865), MT-PRIORITY (RFC 6710), XVERP (Postfix).

use super::session::{Phase, Protocol, Question, Session, State, Step};
use crate::command;
use crate::dsn::{self, Ret};
use crate::mechanism::Mechanisms;
use crate::path::{self, Path};
use crate::priority;
use crate::release::Release;
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
        if self.lacks_login() {
            return self.wrong(reply::AUTH_FIRST, out);
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
        if declared.verp && reverse_path == Path::Null {
            return self.wrong(reply::VERP_OF_NOBODY, out);
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
    fn declared<'i>(&self, parameters: &'i [u8]) -> Result<Declared<'i>, &'static [u8]> {
        let mut declared = Declared::default();
        let (mut body, mut has_auth) = (None, false);
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
            } else if key.eq_ignore_ascii_case(b"AUTH") && self.mechanisms() != Mechanisms::default() {
                // What one server says of another's user is believed by nobody, but it may be said.
                if has_auth || value.is_none_or(<[u8]>::is_empty) {
                    return Err(reply::BAD_PARAMETER);
                }
                has_auth = true;
            } else if key.eq_ignore_ascii_case(b"REQUIRETLS") {
                if value.is_some() || declared.requiretls {
                    return Err(reply::BAD_PARAMETER);
                }
                // What came in clear has been read already.
                if !self.encrypted {
                    return Err(reply::REQUIRETLS_IN_CLEAR);
                }
                declared.requiretls = true;
            } else if let Some(latest) = self.latest_release.filter(|_| self.may_become_own())
                && let Some(parse) = holding(key)
            {
                if !self.is_own() {
                    return Err(reply::AUTH_FIRST);
                }
                let release = value.and_then(parse).filter(|_| declared.release.is_none()).ok_or(reply::BAD_RELEASE)?;
                declared.release = Some(release).filter(|release| release.is_within(latest));
                declared.release.ok_or(reply::RELEASE_TOO_FAR)?;
            } else if key.eq_ignore_ascii_case(b"MT-PRIORITY") && self.may_become_own() {
                if !self.is_own() {
                    return Err(reply::AUTH_FIRST);
                }
                let priority = value.and_then(priority::parse).filter(|_| declared.priority.is_none());
                declared.priority = Some(priority.ok_or(reply::BAD_PRIORITY)?);
            } else if key.eq_ignore_ascii_case(b"XVERP") && self.may_become_own() {
                if !self.is_own() {
                    return Err(reply::AUTH_FIRST);
                }
                let fits = value.is_none_or(|value| self.policy.verp == value) && !declared.verp;
                declared.verp = fits.then_some(true).ok_or(reply::BAD_VERP)?;
            } else if key.eq_ignore_ascii_case(b"RET") && self.policy.dsn {
                let ret = value.and_then(Ret::parse).filter(|_| declared.ret.is_none());
                declared.ret = Some(ret.ok_or(reply::BAD_RET)?);
            } else if key.eq_ignore_ascii_case(b"ENVID") && self.policy.dsn {
                let first = declared.envid.is_empty();
                declared.envid = value.and_then(dsn::envid).filter(|_| first).ok_or(reply::BAD_ENVID)?;
            } else {
                return Err(reply::UNKNOWN_PARAMETER);
            }
        }
        declared.body = body.unwrap_or_default();
        Ok(declared)
    }
}

/// Reads a value.
type Parse = fn(&[u8]) -> Option<Release>;

/// How the value of HOLDFOR or HOLDUNTIL is read, if this is one.
fn holding(key: &[u8]) -> Option<Parse> {
    if key.eq_ignore_ascii_case(b"HOLDFOR") {
        Some(Release::hold_for)
    } else if key.eq_ignore_ascii_case(b"HOLDUNTIL") {
        Some(Release::hold_until)
    } else {
        None
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
