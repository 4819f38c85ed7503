//! State and dispatch of a client session: which reply is awaited, and what it means.

use std::time::Duration;

use super::auth::{Attempt, Turn};
use super::envelope::{self, Envelope, RecipientResult, Recipients};
use super::incoming::{Gathered, Gathering, RemoteReply};
use super::patience::Patience;
use super::starttls::StartTls;
use crate::extensions::Offered;
use crate::mechanism::Mechanism;
use crate::reply;

/// What the caller must do next.
#[derive(Debug, PartialEq, Eq)]
pub enum Event {
    /// Write `out`, then read more behind what was not consumed.
    NeedInput,
    /// The server has greeted us: [`Session::begin`] may be called.
    Ready,
    /// The server waits for a TLS handshake. When it is done, call [`Session::secured`]; when it fails, close the connection.
    StartTls,
    /// The server wants a proof by SCRAM: compute what [`Session::take_challenge`] says, and call [`Session::on_signed`].
    Challenged,
    /// 354: write `out`, then the message made by `Stuffer`, then call [`Session::body_sent`].
    SendBody,
    /// The transaction is over: one result per recipient, in order. Write `out` if there is something in it. Then the session
    /// [is ready](Session::is_ready) for another message or, if not, to be closed.
    Done(Vec<RecipientResult>),
    /// The server does not take the name and the password: the connection is of no use, nor is another try with the same.
    LoginRefused(RemoteReply),
    /// The connection is of no use: refused at the greeting, 421, no SMTP; or QUIT was answered. Close it.
    Failed(RemoteReply),
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum State {
    Greeting,
    Ehlo,
    Helo,
    /// The reply to STARTTLS.
    StartTls,
    /// The handshake is the caller's.
    Handshake,
    /// A reply to AUTH, or to what was said after it.
    Auth(Turn),
    Ready,
    /// The reply to a RSET that leaves the transaction before.
    Reset,
    Mail,
    Rcpt(usize),
    Data,
    /// 354 came, the message is on its way.
    Sending,
    /// The reply to the end of the message.
    End,
    /// The same in LMTP, where each accepted recipient has one: of this recipient.
    RecipientEnd(usize),
    /// The same for a message to nobody: its reply counts for nothing.
    EmptyEnd,
    Quit,
    Closed,
}

/// What is spoken on a connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Protocol {
    /// RFC 5321.
    Smtp,
    /// RFC 2033; `lmtp.rs` says what is different.
    Lmtp,
}

/// One connection to a server, for any number of messages, one after the other.
#[derive(Debug)]
pub struct Session {
    pub(super) protocol: Protocol,
    pub(super) name: Box<str>,
    pub(super) state: State,
    pub(super) offered: Offered,
    pub(super) starttls: StartTls,
    pub(super) is_encrypted: bool,
    /// Who must log in before anything is sent.
    pub(super) login: Option<Box<Attempt>>,
    /// What binds that to the encrypted channel.
    pub(super) binding: Option<[u8; 32]>,
    /// How it is done, or was.
    pub(super) mechanism: Option<Mechanism>,
    patience: Patience,
    /// Commands leave one by one, whatever the server offers.
    one_by_one: bool,
    gathering: Gathering,
    /// Replies that were read to their end.
    replies: u64,
    pub(super) recipients: Recipients,
    /// How many recipients the server takes at a time, as its replies have shown.
    at_a_time: usize,
    /// Something of the transaction was answered.
    answered: bool,
    /// Commands that wait for a reply to the one before: without PIPELINING they leave one by one.
    unsent: Vec<u8>,
    sent: usize,
    /// What MAIL was refused with, while the replies to the RCPTs sent along still come in.
    mail_refusal: Option<RemoteReply>,
    /// A transaction is open on the server's side that came to nothing.
    pub(super) dirty: bool,
    /// Messages that were begun.
    begun: u32,
    pub(super) messages: u32,
    /// What was awaited when it ended.
    ended: Option<State>,
}

impl Session {
    /// A connection that was just made; `name` goes into EHLO. The server speaks first.
    pub fn new(name: impl Into<String>) -> Self {
        Self::speaking(Protocol::Smtp, name.into())
    }

    pub(super) fn speaking(protocol: Protocol, name: String) -> Self {
        Self {
            protocol,
            name: name.into_boxed_str(),
            state: State::Greeting,
            offered: Offered::default(),
            starttls: StartTls::Never,
            is_encrypted: false,
            login: None,
            binding: None,
            mechanism: None,
            patience: Patience::default(),
            one_by_one: false,
            gathering: Gathering::default(),
            replies: 0,
            recipients: Recipients::default(),
            at_a_time: usize::MAX,
            answered: false,
            unsent: Vec::new(),
            sent: 0,
            mail_refusal: None,
            dirty: false,
            begun: 0,
            messages: 0,
            ended: None,
        }
    }

    /// The same session, which waits no longer than that.
    pub fn patient(mut self, patience: Patience) -> Self {
        self.patience = patience;
        self
    }

    /// The same session, which says one command after the other: for a server that offers PIPELINING and loses commands.
    pub fn one_by_one(mut self) -> Self {
        self.one_by_one = true;
        self
    }

    /// Begins a message; with PIPELINING all its commands are appended to `out` at once.
    ///
    /// # Errors
    /// The server offers too little for it: nothing is sent, the session stays ready, here are the results.
    ///
    /// # Panics
    /// When the session [is not ready](Session::is_ready).
    pub fn begin(&mut self, envelope: &Envelope<'_>, out: &mut Vec<u8>) -> Result<(), Vec<RecipientResult>> {
        assert_eq!(self.state, State::Ready, "begin needs a session that is ready");
        if let Some(reply) = envelope::impossible(envelope, &self.offered) {
            return Err(vec![RecipientResult::refused(reply); envelope.recipients.len()]);
        }
        let limit = self.offered.recipients_max.map_or(usize::MAX, |max| usize::try_from(max).unwrap_or(usize::MAX));
        self.recipients = Recipients::new(envelope, limit.min(self.at_a_time));
        self.answered = false;
        self.begun = self.begun.saturating_add(1);
        self.mail_refusal = None;
        self.unsent.clear();
        self.sent = 0;
        self.state = State::Mail;
        if self.dirty {
            self.unsent.extend_from_slice(b"RSET\r\n");
            self.state = State::Reset;
            self.dirty = false;
        }
        envelope::commands(envelope, &self.offered, self.recipients.offered, &mut self.unsent);
        if self.is_pipelining() {
            out.append(&mut self.unsent);
        } else {
            self.send_next(out);
        }
        Ok(())
    }

    /// Takes replies from the start of `input` until the caller must do something; returns the bytes consumed and what to do.
    /// Commands are appended to `out`. The rest of the input must be offered again.
    pub fn on_input(&mut self, input: &[u8], out: &mut Vec<u8>) -> (usize, Event) {
        let mut consumed = 0;
        loop {
            if self.state == State::Closed {
                return (input.len(), Event::Failed(unexpected()));
            }
            let (count, gathered) = self.gathering.take(&input[consumed..]);
            consumed += count;
            let said = out.len();
            let event = match gathered {
                Gathered::Incomplete => Some(Event::NeedInput),
                Gathered::Line(line) => {
                    self.note(line);
                    None
                }
                Gathered::Last(line, reply) => {
                    self.note(line);
                    self.reply(reply, out)
                }
                Gathered::Nonsense => Some(self.lose(RemoteReply::local(451, (4, 5, 0), reply::LOCAL_NONSENSE))),
                Gathered::Endless => Some(self.lose(RemoteReply::local(451, (4, 5, 0), reply::LOCAL_ENDLESS))),
            };
            if out.len() > said && consumed < input.len() {
                // What has just been said cannot have been answered yet.
                return (input.len(), self.lose_step());
            }
            if let Some(event) = event {
                if event == Event::StartTls && consumed < input.len() {
                    return (input.len(), self.fail(RemoteReply::local(451, (4, 7, 0), reply::LOCAL_INJECTED)));
                }
                if event == Event::Challenged && consumed < input.len() {
                    return (input.len(), self.lose_step());
                }
                return (consumed, event);
            }
        }
    }

    /// The whole message and its final dot are written.
    pub fn body_sent(&mut self) {
        if self.state == State::Sending {
            self.state = match self.protocol {
                Protocol::Smtp => State::End,
                Protocol::Lmtp => self.first_end(),
            };
        }
    }

    /// Appends QUIT, if that would be understood; the session is not ready any more. Its reply, an [`Event::Failed`],
    /// need not be waited for.
    pub fn quit(&mut self, out: &mut Vec<u8>) {
        if matches!(self.state, State::Ready) {
            out.extend_from_slice(b"QUIT\r\n");
            self.state = State::Quit;
        } else {
            self.state = State::Closed;
        }
    }

    /// The connection broke or a wait was too long: the session is closed. Results if a transaction was open: refusals stay,
    /// the rest is transient, for the reason given; also a message whose final reply is missing (it may arrive twice, never not).
    pub fn abandon(&mut self, why: RemoteReply) -> Option<Vec<RecipientResult>> {
        let open = self.in_transaction();
        self.ended = Some(self.state);
        self.state = State::Closed;
        let fate = self.mail_refusal.take().map_or(RecipientResult::Transient(why), RecipientResult::refused);
        open.then(|| self.recipients.conclude_all(fate))
    }

    /// How long the server may take for what is awaited now (RFC 5321 §4.5.3.2): from when it was asked, or from its
    /// last whole reply, which [`Session::replies`] counts.
    pub fn timeout(&self) -> Duration {
        self.patience.of(self.state)
    }

    /// Replies that were read to their end.
    pub fn replies(&self) -> u64 {
        self.replies
    }

    /// Something was answered to the message that was begun last. When the connection ends before that, the server may never
    /// have heard of it.
    pub fn has_answered(&self) -> bool {
        self.answered
    }

    /// Commands left together, and not all of them are answered.
    pub fn is_in_pipeline(&self) -> bool {
        self.is_pipelining() && matches!(self.state, State::Mail | State::Rcpt(_) | State::Data)
    }

    /// What is awaited, or was when the session ended, in one word for the log.
    pub fn stage(&self) -> &'static str {
        match self.ended.unwrap_or(self.state) {
            State::Greeting => "greeting",
            State::Ehlo | State::Helo => "ehlo",
            State::StartTls => "starttls",
            State::Handshake => "tls",
            State::Auth(_) => "login",
            State::Ready => "ready",
            State::Reset => "rset",
            State::Mail => "mail",
            State::Rcpt(_) => "rcpt",
            State::Data => "data",
            State::Sending => "body",
            State::End | State::RecipientEnd(_) | State::EmptyEnd => "end",
            State::Quit | State::Closed => "closed",
        }
    }

    /// [`Session::begin`] may be called.
    pub fn is_ready(&self) -> bool {
        self.state == State::Ready
    }

    /// It may, and the server takes another message (MAILMAX of RFC 9422).
    pub fn takes_more(&self) -> bool {
        self.is_ready() && self.offered.mails_max.is_none_or(|max| self.begun < max)
    }

    /// Nothing more can be sent on this connection.
    pub fn is_closing(&self) -> bool {
        matches!(self.state, State::Quit | State::Closed)
    }

    /// Messages that the server took.
    pub fn messages_sent(&self) -> u32 {
        self.messages
    }

    /// What the server offers; nothing before [`Event::Ready`].
    pub fn offered(&self) -> &Offered {
        &self.offered
    }

    /// The lines of the EHLO reply name extensions (RFC 5321 §4.1.1.1); the host name in the first looks like none. What a
    /// login is answered may be longer than what is kept of other replies.
    fn note(&mut self, line: &[u8]) {
        match self.state {
            State::Ehlo => self.offered.note(line),
            State::Auth(_) => self.hear(line),
            _ => {}
        }
    }

    fn reply(&mut self, reply: RemoteReply, out: &mut Vec<u8>) -> Option<Event> {
        self.replies += 1;
        if reply.code() == 421 && self.state != State::Quit {
            return Some(self.lose(reply));
        }
        match self.state {
            State::Greeting => self.greeted(reply, out),
            State::Ehlo => self.ehlo(reply, out),
            State::Helo => self.helo(reply, out),
            State::StartTls => self.starttls_answered(reply, out),
            State::Auth(turn) => self.auth_answered(turn, reply, out),
            // Nobody asked: the two sides have lost step.
            State::Ready | State::Handshake => {
                Some(self.lose(RemoteReply::local(451, (4, 5, 0), reply::LOCAL_UNEXPECTED)))
            }
            State::Reset | State::Mail | State::Rcpt(_) if reply.code() / 100 == 3 => Some(self.lose_step()),
            State::Reset => self.on_reset(reply, out),
            State::Mail => self.on_mail(reply, out),
            State::Rcpt(index) => self.on_recipient(index, reply, out),
            State::Data => self.on_data(reply, out),
            State::Sending => Some(self.on_early_end(reply)),
            State::End => Some(self.on_end(reply)),
            State::RecipientEnd(index) => self.on_recipient_end(index, reply),
            State::EmptyEnd => Some(self.done(RecipientResult::refused(reply))),
            State::Quit | State::Closed => Some(self.fail(reply)),
        }
    }

    fn on_reset(&mut self, reply: RemoteReply, out: &mut Vec<u8>) -> Option<Event> {
        if !reply.is_positive() {
            return Some(self.lose(transient(reply)));
        }
        self.state = State::Mail;
        self.send_next(out);
        None
    }

    fn on_mail(&mut self, reply: RemoteReply, out: &mut Vec<u8>) -> Option<Event> {
        self.answered = true;
        self.dirty = reply.is_positive();
        if !reply.is_positive() {
            if !self.is_pipelining() {
                return Some(self.done(RecipientResult::refused(reply)));
            }
            self.mail_refusal = Some(reply);
        }
        self.state = match self.recipients.offered {
            0 => State::Data,
            _ => State::Rcpt(0),
        };
        self.send_next(out);
        None
    }

    fn on_recipient(&mut self, index: usize, reply: RemoteReply, out: &mut Vec<u8>) -> Option<Event> {
        // Behind a refused MAIL the replies to RCPT say nothing of the recipients.
        if self.mail_refusal.is_none() {
            self.recipients.note(index, reply);
        }
        if index + 1 < self.recipients.offered {
            self.state = State::Rcpt(index + 1);
        } else if self.is_pipelining() || self.recipients.accepted > 0 {
            self.state = State::Data;
        } else {
            return Some(self.done(nobody()));
        }
        self.send_next(out);
        None
    }

    fn on_data(&mut self, reply: RemoteReply, out: &mut Vec<u8>) -> Option<Event> {
        let starts = reply.code() == 354;
        let nobody_waits = self.recipients.accepted == 0;
        match (starts, nobody_waits) {
            (true, false) => {
                self.state = State::Sending;
                Some(Event::SendBody)
            }
            // RFC 2033 §4.2 has no such reply, nor one to the dot that would follow. And a server that has refused MAIL and
            // goes on all the same would give its recipients the empty message.
            (true, true) if self.protocol == Protocol::Lmtp || self.mail_refusal.is_some() => {
                let event = self.done(nobody());
                self.state = State::Closed;
                Some(event)
            }
            (true, true) => {
                // The server wants a message for nobody (RFC 2920 §3.1): it gets an empty one.
                out.extend_from_slice(b".\r\n");
                self.state = State::EmptyEnd;
                None
            }
            (false, true) if !matches!(reply.code() / 100, 4 | 5) => Some(self.lose_step()),
            (false, true) => Some(self.done(nobody())),
            // A positive reply other than 354 leaves open what the server waits for.
            (false, false) if !matches!(reply.code() / 100, 4 | 5) => Some(self.lose_step()),
            (false, false) => Some(self.done(RecipientResult::refused(reply))),
        }
    }

    /// The server decided before it had the whole message: it still waits for the rest, so the connection is over.
    fn on_early_end(&mut self, reply: RemoteReply) -> Event {
        if !matches!(reply.code() / 100, 4 | 5) {
            return self.lose(unexpected());
        }
        let event = match self.protocol {
            Protocol::Smtp => self.done(RecipientResult::refused(reply)),
            Protocol::Lmtp => self.early_recipient_end(reply),
        };
        self.state = State::Closed;
        event
    }

    fn on_end(&mut self, reply: RemoteReply) -> Event {
        self.dirty = false;
        match reply.code() / 100 {
            2 => {
                self.messages += 1;
                self.done(RecipientResult::Delivered(reply))
            }
            3 => self.lose(unexpected()),
            _ => self.done(RecipientResult::refused(reply)),
        }
    }

    pub(super) fn done(&mut self, fate: RecipientResult) -> Event {
        if self.state == State::EmptyEnd {
            self.dirty = false;
        }
        self.state = State::Ready;
        self.unsent.clear();
        Event::Done(match self.mail_refusal.take() {
            Some(refusal) => self.recipients.conclude_all(RecipientResult::refused(refusal)),
            None => {
                self.at_a_time = self.recipients.taken_at_a_time().unwrap_or(self.at_a_time);
                self.recipients.conclude(fate)
            }
        })
    }

    /// The connection is over. In a transaction that is a matter of its recipients, else of the connection.
    pub(super) fn lose(&mut self, why: RemoteReply) -> Event {
        match self.abandon(why.clone()) {
            Some(results) => Event::Done(results),
            None => Event::Failed(why),
        }
    }

    /// The two sides do not speak of the same command any more. Refusals may have been meant for others.
    fn lose_step(&mut self) -> Event {
        self.mail_refusal = None;
        self.recipients.forget_refusals();
        self.lose(unexpected())
    }

    pub(super) fn fail(&mut self, why: RemoteReply) -> Event {
        self.ended = Some(self.state);
        self.state = State::Closed;
        Event::Failed(why)
    }

    fn is_pipelining(&self) -> bool {
        self.offered.pipelining && !self.one_by_one
    }

    fn in_transaction(&self) -> bool {
        use State::{Data, EmptyEnd, End, Mail, Rcpt, RecipientEnd, Reset, Sending};
        matches!(self.state, Reset | Mail | Rcpt(_) | Data | Sending | End | RecipientEnd(_) | EmptyEnd)
    }

    /// Sends the next command that was held back; none with PIPELINING.
    fn send_next(&mut self, out: &mut Vec<u8>) {
        let rest = &self.unsent[self.sent..];
        let Some(lf) = memchr::memchr(b'\n', rest) else { return };
        out.extend_from_slice(&rest[..=lf]);
        self.sent += lf + 1;
    }
}

/// The fate of undecided recipients where there can be none.
fn nobody() -> RecipientResult {
    RecipientResult::Transient(unexpected())
}

pub(super) fn unexpected() -> RemoteReply {
    RemoteReply::local(451, (4, 5, 0), reply::LOCAL_UNEXPECTED)
}

/// A refused RSET says nothing of the message.
fn transient(reply: RemoteReply) -> RemoteReply {
    RemoteReply::local(451, reply.status().map_or((4, 5, 0), |(_, subject, detail)| (4, subject, detail)), reply.text())
}
