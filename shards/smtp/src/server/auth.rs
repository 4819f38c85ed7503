//! AUTH (RFC 4954): PLAIN (RFC 4616) and LOGIN are read here; what other mechanisms say is handed on. Whether a password is
//! right is decided elsewhere, and comes back as an answer.
//!
//! Offered only where a password cannot be overheard: on an encrypted session, or where the listener is one that needs no
//! encryption. A wrong password counts, a backend that cannot say does not.

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use zeroize::Zeroize;

use super::session::{Phase, Protocol, Question, Session, State, Step};
use crate::limits::{LOGIN_FAILURES_MAX, LOGIN_NAME_BYTES_MAX, PASSWORD_BYTES_MAX};
use crate::mechanism::{Mechanism, Mechanisms};
use crate::reply::{self, Reply};
use crate::secret::Secret;

/// Whether clients may log in, or must.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Logins {
    /// AUTH is not offered.
    #[default]
    Never,
    /// It is offered.
    Offered,
    /// It comes before MAIL.
    Required,
}

/// What a listener says of AUTH.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Authentication {
    /// Whether, and when.
    pub logins: Logins,
    /// Also without encryption: nobody is between us and the client.
    pub in_clear: bool,
    /// How.
    pub mechanisms: Mechanisms,
}

/// What a client shows to prove who it is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Proof {
    /// A name and its password, both not empty.
    Password {
        /// Without control characters and colons.
        user: String,
        /// As it was typed.
        password: Secret,
    },
    /// A mechanism begins with this, which may be empty.
    First(Mechanism, Secret),
    /// What the client says to the challenge of its mechanism.
    Next(Secret),
}

/// What is said of a proof.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Judgement {
    /// The client is this user.
    Accepted {
        /// Who it is from now on.
        user: String,
        /// What the mechanism says last, which proves the server to the client.
        last: Option<String>,
    },
    /// The mechanism goes on with this.
    Challenge(String),
    /// It is not. Counted.
    Refused,
    /// Nobody can say now, or there is too much of it: this reply. Not counted.
    Unavailable(Reply),
}

/// What a session knows of its user; most have none.
#[derive(Debug, Default)]
pub(super) struct Account {
    /// Who has logged in.
    user: Option<Box<str>>,
    /// Whom the client's certificate stands for.
    certified: Option<Box<str>>,
    failures: u32,
    turn: Turn,
    proof: Option<Proof>,
}

/// What the next line is.
#[derive(Debug, Default)]
enum Turn {
    /// A command.
    #[default]
    Idle,
    /// All that a mechanism begins with.
    First(Mechanism),
    /// The name of LOGIN.
    Name,
    /// Its password.
    Password(String),
    /// The answer to a challenge.
    Next,
    /// Nothing: the server has had the last word.
    Last(String),
}

impl Session {
    /// Who has logged in, by AUTH or by its certificate.
    pub fn user(&self) -> Option<&str> {
        let account = self.account.as_deref()?;
        account.user.as_deref().or(account.certified.as_deref())
    }

    /// The client has shown a certificate that is verified and stands for this user: he is logged in, and EXTERNAL is
    /// offered. To be said after [`Session::on_encrypted`], which forgets it.
    pub fn on_certificate(&mut self, user: &str) {
        self.account.get_or_insert_default().certified = Some(user.into());
    }

    /// Logins can be bound to the encrypted channel (RFC 9266). To be said after [`Session::on_encrypted`].
    pub fn on_bindable(&mut self) {
        self.binds = true;
    }

    /// The proof of [`Step::Auth`].
    ///
    /// # Panics
    /// When there is none: a mistake of the caller.
    pub fn take_proof(&mut self) -> Proof {
        let proof = self.account.as_mut().and_then(|account| account.proof.take());
        proof.expect("asked once for each Step::Auth")
    }

    /// The caller's answer to [`Step::Auth`].
    pub fn on_auth(&mut self, judgement: Judgement, out: &mut Vec<u8>) {
        self.answered(Question::Auth);
        match judgement {
            Judgement::Accepted { user, last: None } => self.log_in(user, out),
            Judgement::Accepted { user, last: Some(last) } => self.challenge(&last, Turn::Last(user), out),
            Judgement::Challenge(text) => self.challenge(&text, Turn::Next, out),
            // The next step says so where it is the end.
            Judgement::Refused => _ = self.refuse_login(out),
            Judgement::Unavailable(refusal) => self.pass_on(&refusal, out),
        }
    }

    /// The mechanisms that may be used now.
    pub(crate) fn mechanisms(&self) -> Mechanisms {
        let Authentication { logins, in_clear, mechanisms } = self.policy.authentication;
        let certified = self.account.as_ref().is_some_and(|account| account.certified.is_some());
        let by_password = logins != Logins::Never && (self.encrypted || in_clear);
        let mechanisms = match by_password {
            true if self.binds && mechanisms.has(Mechanism::ScramSha256) => mechanisms.with(Mechanism::ScramSha256Plus),
            true => mechanisms,
            false => Mechanisms::default(),
        };
        if certified { mechanisms.with(Mechanism::External) } else { mechanisms }
    }

    /// Whether the client is one of our own: a user, or a program of this host.
    pub(super) fn is_own(&self) -> bool {
        self.is_local || self.user().is_some()
    }

    /// Whether it is, or may become one by a login that is offered now.
    pub(super) fn may_become_own(&self) -> bool {
        self.is_own() || self.mechanisms() != Mechanisms::default()
    }

    /// Whether somebody must log in before MAIL, and nobody has.
    pub(super) fn lacks_login(&self) -> bool {
        self.policy.authentication.logins == Logins::Required && self.user().is_none()
    }

    pub(super) fn auth<'i, 'a>(&mut self, arguments: &[u8], out: &mut Vec<u8>) -> Option<Step<'i, 'a>> {
        match self.phase {
            Phase::Stranger => return self.wrong(reply::HELLO_FIRST, out),
            Phase::Envelope | Phase::Chunks => return self.wrong(reply::AUTH_IN_TRANSACTION, out),
            // What EHLO announces, only EHLO may lead to (RFC 4954 §3).
            Phase::Ready if self.protocol == Protocol::Smtp => return self.wrong(reply::HELLO_FIRST, out),
            Phase::Ready => {}
        }
        let offered = self.mechanisms();
        if offered == Mechanisms::default() {
            let waits_for_tls = self.policy.authentication.logins != Logins::Never && !self.encrypted;
            return self.wrong(if waits_for_tls { reply::AUTH_NEEDS_TLS } else { reply::NO_AUTH }, out);
        }
        if self.account.as_ref().is_some_and(|account| account.user.is_some()) {
            return self.wrong(reply::AUTH_ALREADY, out);
        }
        let mut words = arguments.split(|byte| *byte == b' ').filter(|word| !word.is_empty());
        let (word, initial) = (words.next(), words.next());
        let (Some(word), None) = (word, words.next()) else { return self.wrong(reply::AUTH_ARGUMENT, out) };
        let Some(mechanism) = Mechanism::named(word).filter(|one| offered.has(*one)) else {
            return self.wrong(reply::UNKNOWN_MECHANISM, out);
        };
        let first = match mechanism {
            Mechanism::Login => Turn::Name,
            other => Turn::First(other),
        };
        match initial {
            None => {
                let prompt = if mechanism == Mechanism::Login { "Username:" } else { "" };
                self.challenge(prompt, first, out);
                None
            }
            Some(text) => {
                self.account.get_or_insert_default().turn = first;
                // An initial response that is empty is written so (RFC 4954 §4).
                self.told(if text == b"=" { b"" } else { text }, out)
            }
        }
    }

    /// A line that is no command, but the client's part of a login.
    pub(super) fn response<'i, 'a>(&mut self, line: &[u8], out: &mut Vec<u8>) -> Option<Step<'i, 'a>> {
        self.state = State::Command;
        if line == b"*" {
            self.account.get_or_insert_default().turn = Turn::Idle;
            return self.wrong(reply::AUTH_CANCELLED, out);
        }
        self.told(line, out)
    }

    /// The login is over for a line that is no response at all.
    pub(super) fn break_off<'i, 'a>(&mut self, text: &[u8], out: &mut Vec<u8>) -> Option<Step<'i, 'a>> {
        self.account.get_or_insert_default().turn = Turn::Idle;
        self.wrong(text, out)
    }

    /// Goes on with what the client has told, in base64.
    fn told<'i, 'a>(&mut self, encoded: &[u8], out: &mut Vec<u8>) -> Option<Step<'i, 'a>> {
        let turn = std::mem::take(&mut self.account.get_or_insert_default().turn);
        let Some(text) = decode(encoded) else { return self.wrong(reply::BAD_BASE64, out) };
        match turn {
            Turn::First(Mechanism::Plain) => match plain(text.reveal()) {
                // Acting for somebody else is nobody's right here.
                Some((acts_for, user, _)) if !acts_for.is_empty() && acts_for != user => self.refuse_login(out),
                Some((_, user, password)) => self.prove(user.to_owned(), Secret::new(password.to_owned()), out),
                None => self.wrong(reply::BAD_RESPONSE, out),
            },
            Turn::First(Mechanism::External) => self.external(text.reveal(), out),
            Turn::First(mechanism) => self.ask_about(Proof::First(mechanism, text)),
            Turn::Name => {
                self.challenge("Password:", Turn::Password(text.reveal().to_owned()), out);
                None
            }
            Turn::Password(user) => self.prove(user, text, out),
            Turn::Next => self.ask_about(Proof::Next(text)),
            // RFC 5802 §5: nothing is left to say.
            Turn::Last(user) => {
                self.log_in(user, out);
                None
            }
            Turn::Idle => self.wrong(reply::UNKNOWN_COMMAND, out),
        }
    }

    /// A password, if it can be one at all: a directory takes an empty one for a visitor without a name, and lets him in.
    fn prove<'i, 'a>(&mut self, user: String, password: Secret, out: &mut Vec<u8>) -> Option<Step<'i, 'a>> {
        let is_name = !user.is_empty() && !user.contains(|c: char| c == ':' || c.is_control());
        let fits = user.len() <= LOGIN_NAME_BYTES_MAX && password.reveal().len() <= PASSWORD_BYTES_MAX;
        let has_zero = password.reveal().contains('\0');
        if !is_name || !fits || has_zero || password.reveal().is_empty() {
            return self.refuse_login(out);
        }
        self.ask_about(Proof::Password { user, password })
    }

    /// The certificate says who it is; another name may not be taken.
    fn external<'i, 'a>(&mut self, wanted: &str, out: &mut Vec<u8>) -> Option<Step<'i, 'a>> {
        let certified = self.account.as_ref().and_then(|account| account.certified.clone());
        match certified {
            Some(user) if wanted.is_empty() || *wanted == *user => {
                self.log_in(user.into(), out);
                None
            }
            _ => self.refuse_login(out),
        }
    }

    fn ask_about<'i, 'a>(&mut self, proof: Proof) -> Option<Step<'i, 'a>> {
        self.account.get_or_insert_default().proof = Some(proof);
        self.ask(Question::Auth);
        Some(Step::Auth)
    }

    fn challenge(&mut self, text: &str, turn: Turn, out: &mut Vec<u8>) {
        out.extend_from_slice(b"334 ");
        out.extend_from_slice(STANDARD.encode(text).as_bytes());
        out.extend_from_slice(b"\r\n");
        self.account.get_or_insert_default().turn = turn;
        self.state = State::Response;
    }

    fn log_in(&mut self, user: String, out: &mut Vec<u8>) {
        let account = self.account.get_or_insert_default();
        account.user = Some(user.into());
        account.failures = 0;
        out.extend_from_slice(reply::LOGGED_IN);
    }

    /// Whoever guesses has few guesses for each connection.
    fn refuse_login<'i, 'a>(&mut self, out: &mut Vec<u8>) -> Option<Step<'i, 'a>> {
        out.extend_from_slice(reply::BAD_LOGIN);
        let account = self.account.get_or_insert_default();
        account.failures += 1;
        if account.failures < LOGIN_FAILURES_MAX {
            return None;
        }
        reply::too_many_logins(&self.policy.hostname, out);
        self.state = State::Closed;
        Some(Step::Close)
    }
}

/// The text of a response.
fn decode(encoded: &[u8]) -> Option<Secret> {
    let text = String::from_utf8(STANDARD.decode(encoded).ok()?);
    match text {
        Ok(text) => Some(Secret::new(text)),
        Err(error) => {
            error.into_bytes().zeroize();
            None
        }
    }
}

/// Whom the user acts for, the user, and the password of PLAIN: `[authzid] NUL authcid NUL passwd`.
fn plain(text: &str) -> Option<(&str, &str, &str)> {
    let (acts_for, rest) = text.split_once('\0')?;
    let (user, password) = rest.split_once('\0')?;
    Some((acts_for, user, password))
}
