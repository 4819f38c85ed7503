//! AUTH from the client's side (RFC 4954): once the connection is encrypted and before any message, by the strongest of the
//! server's ways that are known here: SCRAM-SHA-256 (`scram.rs`), PLAIN (RFC 4616), LOGIN. Without encryption nothing is said,
//! whatever the server offers, and with SCRAM nothing more before the server has proven that it knows the password, too.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;

use super::incoming::RemoteReply;
use super::scram::{Binding, Challenge, Dialogue, Last, Signed};
use super::session::{Event, Session, State};
use crate::limits::SCRAM_NONCE_BYTES;
use crate::mechanism::{Mechanism, Mechanisms};
use crate::reply;
use crate::secret::Secret;

/// Who logs in, and with what. Nothing prints it.
pub struct Login {
    /// The name.
    pub user: Box<str>,
    /// The password.
    pub password: Secret,
    /// Bytes that nobody can foresee, new for each session; `None`: nobody can compute what SCRAM needs, so that it is not chosen.
    pub nonce: Option<[u8; SCRAM_NONCE_BYTES]>,
}

impl std::fmt::Debug for Login {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("…")
    }
}

/// A login that is to come or under way.
pub(super) struct Attempt {
    login: Login,
    dialogue: Option<Dialogue>,
    challenge: Option<Challenge>,
    /// The last line of the reply, as far as it is kept.
    heard: Vec<u8>,
}

impl std::fmt::Debug for Attempt {
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
    /// The server's first message of SCRAM.
    Challenge,
    /// None: the caller computes the proof.
    Proving,
    /// The server's own proof.
    Signature,
    /// Everything is said.
    Verdict,
}

impl Session {
    /// The same session, which logs in before it is ready. LMTP never does.
    pub fn logging_in(mut self, login: Login) -> Self {
        self.login = Some(Box::new(Attempt { login, dialogue: None, challenge: None, heard: Vec::new() }));
        self
    }

    /// The same session, whose connection was encrypted before the first word was said.
    pub fn encrypted(mut self) -> Self {
        self.is_encrypted = true;
        self
    }

    /// What binds a login to the encrypted channel (RFC 9266), once there is one that has it.
    pub fn on_bindable(&mut self, binding: [u8; 32]) {
        self.binding = Some(binding);
    }

    /// How it has logged in, or tried to.
    pub fn mechanism(&self) -> Option<Mechanism> {
        self.mechanism
    }

    /// What is to be computed after [`Event::Challenged`].
    ///
    /// # Panics
    /// When it was fetched already: a mistake of the caller.
    pub fn take_challenge(&mut self) -> Challenge {
        let challenge = self.login.as_mut().and_then(|attempt| attempt.challenge.take());
        challenge.expect("fetched once for each Event::Challenged")
    }

    /// The caller's answer to [`Event::Challenged`]. Write `out`.
    ///
    /// # Panics
    /// Without such an event before.
    pub fn on_signed(&mut self, signed: &Signed, out: &mut Vec<u8>) {
        assert_eq!(self.state, State::Auth(Turn::Proving), "nothing was to be signed");
        let dialogue = self.login.as_mut().and_then(|attempt| attempt.dialogue.as_mut());
        let Some(dialogue) = dialogue else { return };
        say(dialogue.prove(signed).as_bytes(), out);
        self.state = State::Auth(Turn::Signature);
    }

    /// Extensions are known, and encryption is as it will be: logs in, if that is wanted, or is ready.
    pub(super) fn log_in(&mut self, out: &mut Vec<u8>) -> Option<Event> {
        let Some(attempt) = &mut self.login else {
            self.state = State::Ready;
            return Some(Event::Ready);
        };
        if !self.is_encrypted {
            return Some(self.fail(RemoteReply::local(451, (4, 7, 4), reply::LOCAL_LOGIN_IN_CLEAR)));
        }
        let Login { user, password, nonce } = &attempt.login;
        let Some(mechanism) = strongest(self.offered.auth, nonce.is_some(), self.binding.is_some()) else {
            return Some(self.fail(RemoteReply::local(451, (4, 7, 0), reply::LOCAL_NO_AUTH)));
        };
        self.mechanism = Some(mechanism);
        out.extend_from_slice(b"AUTH ");
        out.extend_from_slice(mechanism.name().as_bytes());
        let turn = match mechanism {
            Mechanism::Login => {
                out.extend_from_slice(b"\r\n");
                Turn::User
            }
            Mechanism::Plain => {
                out.push(b' ');
                say(format!("\0{user}\0{}", password.reveal()).as_bytes(), out);
                Turn::Verdict
            }
            _ => {
                let binding = match self.binding {
                    Some(binding) if mechanism == Mechanism::ScramSha256Plus => Binding::Exporter(binding),
                    Some(_) => Binding::NotOffered,
                    None => Binding::Impossible,
                };
                let (dialogue, first) = Dialogue::begin(user, nonce.unwrap_or_default(), binding);
                attempt.dialogue = Some(dialogue);
                out.push(b' ');
                say(first.as_bytes(), out);
                Turn::Challenge
            }
        };
        self.state = State::Auth(turn);
        None
    }

    /// A line of a reply to what was said of the login.
    pub(super) fn hear(&mut self, line: &[u8]) {
        if let Some(attempt) = &mut self.login {
            attempt.heard.clear();
            attempt.heard.extend_from_slice(line);
        }
    }

    pub(super) fn auth_answered(&mut self, turn: Turn, reply: RemoteReply, out: &mut Vec<u8>) -> Option<Event> {
        let next = match (reply.code(), turn, &mut self.login) {
            // Whoever knows no password would let everybody in.
            (235, Turn::Challenge | Turn::Signature, _) => return Some(self.distrust()),
            (235, Turn::User | Turn::Password | Turn::Verdict, _) => {
                // It is not needed any more.
                self.login = None;
                self.state = State::Ready;
                return Some(Event::Ready);
            }
            (334, Turn::User, Some(attempt)) => {
                say(attempt.login.user.as_bytes(), out);
                Turn::Password
            }
            (334, Turn::Password, Some(attempt)) => {
                say(attempt.login.password.reveal().as_bytes(), out);
                Turn::Verdict
            }
            (334, Turn::Challenge, Some(attempt)) => match attempt.challenged() {
                Ok(()) => {
                    self.state = State::Auth(Turn::Proving);
                    return Some(Event::Challenged);
                }
                Err(why) => {
                    let why = format!("the next server's challenge of SCRAM makes no sense: {why}");
                    return Some(self.fail(RemoteReply::local(451, (4, 7, 0), why)));
                }
            },
            (334, Turn::Signature, Some(attempt)) => match attempt.end() {
                Last::Proven => {
                    // RFC 4954 §4: what is left to say is nothing.
                    out.extend_from_slice(b"\r\n");
                    Turn::Verdict
                }
                Last::Unproven => return Some(self.distrust()),
                Last::Refused(why) => {
                    self.state = State::Closed;
                    let why = format!("the next server refuses the login: {why}");
                    return Some(Event::LoginRefused(RemoteReply::local(535, (5, 7, 8), why)));
                }
            },
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

    /// Somebody who is not the server, or who has lost the password.
    fn distrust(&mut self) -> Event {
        self.fail(RemoteReply::local(451, (4, 7, 0), reply::LOCAL_NOT_PROVEN))
    }
}

impl Attempt {
    fn challenged(&mut self) -> Result<(), String> {
        let dialogue = self.dialogue.as_mut().ok_or("nothing was begun")?;
        self.challenge = Some(dialogue.challenged(&self.heard, &self.login.password)?);
        Ok(())
    }

    fn end(&self) -> Last {
        self.dialogue.as_ref().map_or(Last::Unproven, |dialogue| dialogue.end(&self.heard))
    }
}

/// Of what is offered, if a proof can be computed and bound to the channel.
fn strongest(offered: Mechanisms, can_prove: bool, can_bind: bool) -> Option<Mechanism> {
    let ours = [
        (Mechanism::ScramSha256Plus, can_prove && can_bind),
        (Mechanism::ScramSha256, can_prove),
        (Mechanism::Plain, true),
        (Mechanism::Login, true),
    ];
    ours.into_iter().find(|(mechanism, can)| *can && offered.has(*mechanism)).map(|(mechanism, _)| mechanism)
}

/// One line in base64.
fn say(bytes: &[u8], out: &mut Vec<u8>) {
    out.extend_from_slice(STANDARD.encode(bytes).as_bytes());
    out.extend_from_slice(b"\r\n");
}
