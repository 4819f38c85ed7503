//! AUTH from the client's side (RFC 4954): once the connection is encrypted and before any message, with PLAIN (RFC 4616) or,
//! where a server knows nothing else, LOGIN. Without encryption nothing is said, whatever the server offers.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;

use super::incoming::RemoteReply;
use super::session::{Event, Session, State};
use crate::extensions::Logins;
use crate::reply;

/// Who logs in, and with what. Nothing prints it.
pub struct Login {
    /// The name.
    pub user: Box<str>,
    /// The password.
    pub password: Box<str>,
}

impl std::fmt::Debug for Login {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("…")
    }
}

/// Which reply is awaited.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Turn {
    /// To AUTH LOGIN: the server asks for the name.
    User,
    /// The server asks for the password.
    Password,
    /// Everything is said.
    Verdict,
}

impl Session {
    /// The same session, which logs in before it is ready. LMTP never does.
    pub fn logging_in(mut self, login: Login) -> Self {
        self.login = Some(Box::new(login));
        self
    }

    /// The same session, whose connection was encrypted before the first word was said.
    pub fn encrypted(mut self) -> Self {
        self.is_encrypted = true;
        self
    }

    /// Extensions are known, and encryption is as it will be: logs in, if that is wanted, or is ready.
    pub(super) fn log_in(&mut self, out: &mut Vec<u8>) -> Option<Event> {
        let Some(login) = &self.login else {
            self.state = State::Ready;
            return Some(Event::Ready);
        };
        if !self.is_encrypted {
            return Some(self.fail(RemoteReply::local(451, (4, 7, 4), reply::LOCAL_LOGIN_IN_CLEAR)));
        }
        let Logins { plain, login: asks } = self.offered.auth;
        let turn = if plain {
            out.extend_from_slice(b"AUTH PLAIN ");
            say(format!("\0{}\0{}", login.user, login.password).as_bytes(), out);
            Turn::Verdict
        } else if asks {
            out.extend_from_slice(b"AUTH LOGIN\r\n");
            Turn::User
        } else {
            return Some(self.fail(RemoteReply::local(451, (4, 7, 0), reply::LOCAL_NO_AUTH)));
        };
        self.state = State::Auth(turn);
        None
    }

    pub(super) fn auth_answered(&mut self, turn: Turn, reply: RemoteReply, out: &mut Vec<u8>) -> Option<Event> {
        let next = match (reply.code(), turn, &self.login) {
            (235, ..) => {
                // It is not needed any more.
                self.login = None;
                self.state = State::Ready;
                return Some(Event::Ready);
            }
            (334, Turn::User, Some(login)) => {
                say(login.user.as_bytes(), out);
                Turn::Password
            }
            (334, Turn::Password, Some(login)) => {
                say(login.password.as_bytes(), out);
                Turn::Verdict
            }
            (500..=599, ..) => {
                self.state = State::Closed;
                return Some(Event::LoginRefused(reply));
            }
            (400..=499, ..) => return Some(self.fail(reply)),
            _ => return Some(self.fail(RemoteReply::local(451, (4, 5, 0), reply::LOCAL_UNEXPECTED))),
        };
        self.state = State::Auth(next);
        None
    }
}

/// One line in base64.
fn say(bytes: &[u8], out: &mut Vec<u8>) {
    out.extend_from_slice(STANDARD.encode(bytes).as_bytes());
    out.extend_from_slice(b"\r\n");
}
