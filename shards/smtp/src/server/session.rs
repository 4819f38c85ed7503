//! State and dispatch of a server session; RSET, NOOP, VRFY, EXPN, HELP, QUIT.
//!
//! Pulled one step at a time, so nothing is queued and replies leave in the order of the commands (RFC 2920 §3.2).

use std::sync::Arc;
use std::time::{Duration, Instant};

use super::auth::{Account, Authentication};
use super::starttls::Encryption;
use crate::command::{self, Chunk, Verb};
use crate::input::{self, Line};
use crate::limits;
use crate::mechanism::Mechanisms;
use crate::reply::{self, Reply};
use crate::transaction::Transaction;

/// What all sessions of a listener share.
#[derive(Clone, Debug)]
pub struct Policy {
    /// Name in the greeting and in replies; ASCII.
    pub hostname: String,
    /// Largest message in bytes; then 552 5.3.4.
    pub size_max: u64,
    /// Recipients per message; then 452 4.5.3.
    pub recipients_max: usize,
    /// Messages per connection; then 421.
    pub mails_max: u32,
    /// Wrong commands since the last accepted message; then 421 4.7.0.
    pub errors_max: u32,
    /// Longest command line in bytes, CRLF included; then 500 5.5.2. The input buffer must hold as much.
    pub command_bytes_max: usize,
    /// What a client wants to be told of its message it may say (DSN, RFC 3461).
    pub dsn: bool,
    /// The delimiters of the addresses that XVERP asks for: of owner and user, and of user and domain.
    pub verp: [u8; 2],
    /// Whether the session is encrypted, and when.
    pub encryption: Encryption,
    /// Who may log in, and must.
    pub authentication: Authentication,
    /// Silence, or an unfinished command, for that long: 421 4.4.2.
    pub command_timeout: Duration,
    /// The same while a message is received.
    pub data_timeout: Duration,
}

impl Policy {
    /// The defaults of [`limits`].
    pub fn new(hostname: impl Into<String>) -> Self {
        Self {
            hostname: hostname.into(),
            size_max: limits::MESSAGE_BYTES_MAX,
            recipients_max: limits::RECIPIENTS_MAX,
            mails_max: limits::MAILS_MAX,
            errors_max: limits::ERRORS_MAX,
            command_bytes_max: limits::COMMAND_BYTES_MAX,
            dsn: true,
            verp: *b"+=",
            encryption: Encryption::Never,
            authentication: Authentication::default(),
            command_timeout: limits::COMMAND_TIMEOUT,
            data_timeout: limits::DATA_TIMEOUT,
        }
    }
}

/// What the caller must do next. `'i` is the input buffer's, `'a` the arena's of the transaction.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Step<'i, 'a> {
    /// Write `out`, then read more behind what was not consumed.
    NeedInput,
    /// Write `out`, then step again with what was not consumed: there are many replies.
    Flush,
    /// The client proves who it is, by [`Session::take_proof`]: answer with [`Session::on_auth`].
    Auth,
    /// The transaction's reverse-path is set: answer with [`Session::on_mail`].
    Mail,
    /// May this forward-path be served? Answer with [`Session::on_recipient`].
    Recipient(&'a str),
    /// A message is to come: answer with [`Session::on_data`].
    Data,
    /// Bytes of the message, unstuffed, lines ended by CRLF.
    Body(&'i [u8]),
    /// The message is complete: answer with [`Session::on_commit`], then go on with a fresh transaction.
    Commit,
    /// The client wants TLS and has sent nothing behind that: answer with [`Session::on_start_tls`].
    StartTls,
    /// The client has sent something behind STARTTLS, which others may have slipped in: tell the administrator. Then as
    /// [`Step::Close`].
    Injected,
    /// The transaction is over, and what was received of a message void. Step again with a fresh transaction.
    Reset,
    /// Write `out`, then close.
    Close,
}

/// How the client speaks: the `with` of `Received:` (RFC 5321 §4.4, RFC 6531 §4.3).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Protocol {
    /// HELO.
    Smtp,
    /// EHLO.
    Esmtp,
}

#[derive(Debug)]
pub(super) enum State {
    /// Between commands.
    Command,
    /// The rest of an over-long line is dropped.
    SkipLine,
    /// A bare LF was seen: what follows up to CRLF belongs to the same line and is refused with it, or a command could
    /// be smuggled in behind it.
    Tainted,
    /// The client's part of a login, in base64.
    Response,
    /// An answer is awaited.
    Asked(Question),
    /// A message after DATA.
    Text { line_start: bool },
    /// A chunk of BDAT.
    Chunk { left: u64, chunk: Chunk },
    /// Everything was said.
    Closed,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Question {
    Auth,
    Mail,
    Recipient,
    Data,
    FirstChunk { size: u64, chunk: Chunk },
    Commit,
    StartTls,
}

/// Where in RFC 5321's order of commands (§4.1.4) the session is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Phase {
    /// No HELO or EHLO yet.
    Stranger,
    /// No transaction.
    Ready,
    /// MAIL was accepted.
    Envelope,
    /// After the first BDAT.
    Chunks,
}

/// Why the message that is being received will be refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Fault {
    /// Replied already.
    Told,
    TooLarge,
    BareNewline,
}

/// One connection. Idle, it owns nothing on the heap but the HELO name.
#[derive(Debug)]
pub struct Session {
    pub(super) policy: Arc<Policy>,
    pub(super) helo: Box<str>,
    pub(super) deadline: Instant,
    pub(super) state: State,
    pub(super) body_bytes: u64,
    pub(super) mails: u32,
    errors: u32,
    pub(super) recipients: u32,
    pub(super) refused_recipients: u32,
    pub(super) phase: Phase,
    pub(super) protocol: Protocol,
    pub(super) fault: Option<Fault>,
    /// The last byte of the chunk before was a CR.
    pub(super) after_cr: bool,
    /// The caller's transaction holds something that is over.
    pub(super) stale: bool,
    /// What comes and goes is encrypted.
    pub(super) encrypted: bool,
    /// What encrypts it can be told from all else, so that a login may be bound to it.
    pub(super) binds: bool,
    /// It is this host's, and need not log in for what users may do.
    pub(super) is_local: bool,
    /// Messages may be held until then at the latest, in seconds since the epoch.
    pub(super) latest_release: Option<u64>,
    /// Of a session that logs in.
    pub(super) account: Option<Box<Account>>,
}

const _: () = assert!(size_of::<Session>() <= 128, "10,000 idle sessions must stay cheap");

/// Bytes consumed, and what the caller must do, if anything.
pub(super) type Turn<'i, 'a> = (usize, Option<Step<'i, 'a>>);

impl Session {
    /// A connection that was accepted at `now`.
    pub fn new(policy: Arc<Policy>, now: Instant) -> Self {
        let deadline = now + policy.command_timeout;
        Self {
            policy,
            helo: Box::default(),
            deadline,
            state: State::Command,
            body_bytes: 0,
            mails: 0,
            errors: 0,
            recipients: 0,
            refused_recipients: 0,
            phase: Phase::Stranger,
            protocol: Protocol::Smtp,
            fault: None,
            after_cr: false,
            stale: false,
            encrypted: false,
            binds: false,
            is_local: false,
            latest_release: None,
            account: None,
        }
    }

    /// The client is a program of this host: what others must log in for, it may do without. To be said before the first
    /// step.
    pub fn on_local(&mut self) {
        self.is_local = true;
    }

    /// Users may have their messages held (FUTURERELEASE, RFC 4865), until this time at the latest: in seconds since the
    /// epoch. To be said before the first step; without it, that is not offered.
    pub fn offer_release(&mut self, latest: u64) {
        self.latest_release = Some(latest);
    }

    /// Appends the greeting.
    pub fn greet(&mut self, out: &mut Vec<u8>) {
        reply::greeting(&self.policy.hostname, out);
    }

    /// Takes what it can from the start of `input` until the caller must do something; returns the number of bytes
    /// consumed and what to do. Replies are appended to `out`. The rest of the input must be offered again.
    ///
    /// # Panics
    /// When a question of the last step was not answered: a mistake of the caller, whatever the peer sends.
    pub fn step<'i, 'a>(
        &mut self,
        now: Instant,
        input: &'i [u8],
        tx: &mut Transaction<'a>,
        out: &mut Vec<u8>,
    ) -> (usize, Step<'i, 'a>) {
        let mut consumed = 0;
        loop {
            if matches!(self.state, State::Closed) {
                return (input.len(), Step::Close);
            }
            if self.stale {
                self.stale = false;
                return (consumed, Step::Reset);
            }
            if out.len() >= limits::REPLIES_BYTES_MAX {
                return (consumed, Step::Flush);
            }
            let rest = &input[consumed..];
            let (count, step) = match self.state {
                State::Command | State::Response => self.line(rest, tx, out),
                State::Tainted => self.tainted(rest, out),
                State::SkipLine => self.skip_line(rest),
                State::Text { line_start } => self.text(rest, line_start, out),
                State::Chunk { left, chunk } => self.chunk(rest, left, chunk, out),
                State::Asked(question) => panic!("stepped without an answer to {question:?}"),
                State::Closed => unreachable!("returned above"),
            };
            consumed += count;
            // A line that never ends must not keep the connection alive.
            if count > 0 && !matches!(self.state, State::SkipLine) {
                self.deadline = now + self.patience();
            }
            if let Some(step) = step {
                return (consumed, step);
            }
        }
    }

    /// The caller's answer to [`Step::Mail`]. After a refusal the next step is [`Step::Reset`].
    pub fn on_mail(&mut self, answer: Result<(), Reply>, out: &mut Vec<u8>) {
        self.answered(Question::Mail);
        match answer {
            Ok(()) => {
                out.extend_from_slice(reply::SENDER_OK);
                self.phase = Phase::Envelope;
                self.mails += 1;
                self.recipients = 0;
                self.refused_recipients = 0;
            }
            Err(refusal) => {
                self.stale = true;
                self.pass_on(&refusal, out);
            }
        }
    }

    /// The caller's answer to [`Step::Recipient`]; `Ok` adds it to the transaction.
    pub fn on_recipient(&mut self, answer: Result<(), Reply>, tx: &mut Transaction<'_>, out: &mut Vec<u8>) {
        self.answered(Question::Recipient);
        match answer {
            Ok(()) => {
                tx.accept();
                self.recipients += 1;
                out.extend_from_slice(reply::RECIPIENT_OK);
            }
            Err(refusal) => {
                tx.refuse();
                self.refused_recipients += 1;
                self.pass_on(&refusal, out);
            }
        }
    }

    /// The caller's answer to [`Step::Data`]. A refusal ends the transaction; the next step is [`Step::Reset`].
    pub fn on_data(&mut self, answer: Result<(), Reply>, out: &mut Vec<u8>) {
        let State::Asked(question) = self.state else { panic!("answer to a question that was not asked") };
        self.state = State::Command;
        self.body_bytes = 0;
        self.after_cr = false;
        self.fault = None;
        if let Err(refusal) = &answer {
            self.end_transaction();
            self.stale = true;
            self.fault = Some(Fault::Told);
            self.pass_on(refusal, out);
        }
        match question {
            // A refused DATA has no text behind it; a refused chunk has.
            Question::Data if answer.is_err() => self.fault = None,
            Question::Data => {
                out.extend_from_slice(reply::START_DATA);
                self.state = State::Text { line_start: true };
            }
            Question::FirstChunk { size, chunk } if !matches!(self.state, State::Closed) => {
                self.open_chunk(size, chunk)
            }
            Question::FirstChunk { .. } => {}
            other => panic!("an answer to DATA was given to {other:?}"),
        }
    }

    /// The caller's answer to [`Step::Commit`]: the identifier under which the message is durable, or why it is not.
    pub fn on_commit(&mut self, answer: Result<String, Reply>, out: &mut Vec<u8>) {
        self.answered(Question::Commit);
        self.end_transaction();
        match answer {
            Ok(id) => {
                self.errors = 0;
                reply::queued(&id, out);
            }
            Err(refusal) => self.pass_on(&refusal, out),
        }
    }

    /// When [`Session::on_timeout`] is due if the peer sends nothing that counts.
    pub fn deadline(&self) -> Instant {
        self.deadline
    }

    /// The deadline is over: appends 421 4.4.2; close after writing it.
    pub fn on_timeout(&mut self, out: &mut Vec<u8>) {
        reply::timed_out(&self.policy.hostname, out);
        self.state = State::Closed;
    }

    /// The server stops: appends 421 4.3.2; close after writing it.
    pub fn on_shutdown(&mut self, out: &mut Vec<u8>) {
        reply::stopping(&self.policy.hostname, out);
        self.state = State::Closed;
    }

    /// No transaction is open and no message on its way: nothing is lost by closing.
    pub fn is_idle(&self) -> bool {
        let between =
            matches!(self.state, State::Command | State::Response | State::SkipLine | State::Tainted | State::Closed);
        between && matches!(self.phase, Phase::Stranger | Phase::Ready)
    }

    /// As the client greeted.
    pub fn protocol(&self) -> Protocol {
        self.protocol
    }

    /// The word for the `with` of `Received:` (RFC 5321 §4.4, RFC 3848, RFC 6531 §4.3).
    pub fn protocol_name(&self, tx: &Transaction<'_>) -> &'static str {
        match self.protocol {
            // RFC 3848 has no word for HELO with TLS.
            Protocol::Smtp => "SMTP",
            Protocol::Esmtp => match (tx.smtputf8(), self.encrypted, self.user().is_some()) {
                (false, false, false) => "ESMTP",
                (false, false, true) => "ESMTPA",
                (false, true, false) => "ESMTPS",
                (false, true, true) => "ESMTPSA",
                (true, false, false) => "UTF8SMTP",
                (true, false, true) => "UTF8SMTPA",
                (true, true, false) => "UTF8SMTPS",
                (true, true, true) => "UTF8SMTPSA",
            },
        }
    }

    /// Argument of HELO or EHLO: printable ASCII, not verified; empty before.
    pub fn helo(&self) -> &str {
        &self.helo
    }

    /// Our name in this session.
    pub fn hostname(&self) -> &str {
        &self.policy.hostname
    }

    /// Messages begun on this connection.
    pub fn mails(&self) -> u32 {
        self.mails
    }

    fn line<'i, 'a>(&mut self, input: &'i [u8], tx: &mut Transaction<'a>, out: &mut Vec<u8>) -> Turn<'i, 'a> {
        if matches!(self.state, State::Response) {
            return self.response_line(input, out);
        }
        match input::line(input, self.command_bytes_max(input)) {
            Line::Incomplete => (0, Some(Step::NeedInput)),
            Line::Text(line, count) => (count, self.command(line, input.len() - count, tx, out)),
            Line::BareLf(count) => {
                self.state = State::Tainted;
                (count, self.wrong(reply::BARE_NEWLINE_IN_COMMAND, out))
            }
            Line::BareCr(count) => (count, self.wrong(reply::BARE_NEWLINE_IN_COMMAND, out)),
            Line::Control(count) => (count, self.wrong(reply::CONTROL_IN_COMMAND, out)),
            Line::TooLong(count) => {
                self.state = State::SkipLine;
                (count, self.wrong(reply::LINE_TOO_LONG, out))
            }
        }
    }

    fn response_line<'i, 'a>(&mut self, input: &'i [u8], out: &mut Vec<u8>) -> Turn<'i, 'a> {
        let (next, count, text) = match input::line(input, limits::AUTH_BYTES_MAX) {
            Line::Incomplete => return (0, Some(Step::NeedInput)),
            Line::Text(line, count) => return (count, self.response(line, out)),
            Line::BareLf(count) => (State::Tainted, count, reply::BARE_NEWLINE_IN_COMMAND),
            Line::BareCr(count) => (State::Command, count, reply::BARE_NEWLINE_IN_COMMAND),
            Line::Control(count) => (State::Command, count, reply::CONTROL_IN_COMMAND),
            Line::TooLong(count) => (State::SkipLine, count, reply::RESPONSE_TOO_LONG),
        };
        self.state = next;
        (count, self.break_off(text, out))
    }

    /// AUTH may carry a whole response.
    fn command_bytes_max(&self, input: &[u8]) -> usize {
        let usual = self.policy.command_bytes_max;
        let is_auth = input.len() > usual && command::is_auth(input);
        if is_auth && self.mechanisms() != Mechanisms::default() { limits::AUTH_BYTES_MAX.max(usual) } else { usual }
    }

    fn tainted<'i, 'a>(&mut self, input: &'i [u8], out: &mut Vec<u8>) -> Turn<'i, 'a> {
        match input::line(input, self.policy.command_bytes_max) {
            Line::Incomplete => (0, Some(Step::NeedInput)),
            Line::BareLf(count) => (count, self.wrong(reply::BARE_NEWLINE_IN_COMMAND, out)),
            Line::Text(_, count) | Line::BareCr(count) | Line::Control(count) => {
                self.state = State::Command;
                (count, self.wrong(reply::BARE_NEWLINE_IN_COMMAND, out))
            }
            Line::TooLong(count) => {
                self.state = State::SkipLine;
                (count, self.wrong(reply::LINE_TOO_LONG, out))
            }
        }
    }

    fn skip_line<'i, 'a>(&mut self, input: &'i [u8]) -> Turn<'i, 'a> {
        let (count, ended) = input::skip_line(input);
        if ended {
            self.state = State::Command;
            return (count, None);
        }
        (count, Some(Step::NeedInput))
    }

    /// One handler per verb. `behind`: bytes that have come after the line.
    fn command<'i, 'a>(
        &mut self,
        line: &[u8],
        behind: usize,
        tx: &mut Transaction<'a>,
        out: &mut Vec<u8>,
    ) -> Option<Step<'i, 'a>> {
        let Some((verb, arguments)) = command::split(line) else { return self.wrong(reply::UNKNOWN_COMMAND, out) };
        if !self.is_allowed_here(verb) {
            return self.wrong(reply::TLS_FIRST, out);
        }
        match verb {
            Verb::Helo => self.hello(Protocol::Smtp, arguments, out),
            Verb::Ehlo => self.hello(Protocol::Esmtp, arguments, out),
            Verb::Mail => self.mail(arguments, tx, out),
            Verb::Rcpt => self.rcpt(arguments, tx, out),
            Verb::Data => self.data(arguments, out),
            Verb::Bdat => self.bdat(arguments, out),
            Verb::Rset => self.reset(arguments, out),
            Verb::Noop => self.say(reply::OK, out),
            Verb::Vrfy if arguments.is_empty() => self.wrong(reply::VERIFY_ARGUMENT, out),
            Verb::Vrfy => self.say(reply::VERIFY, out),
            Verb::Expn => self.say(reply::NO_EXPANSION, out),
            Verb::Help => self.say(reply::HELP, out),
            Verb::Quit => self.quit(arguments, out),
            Verb::Auth => self.auth(arguments, out),
            Verb::Starttls => self.start_tls(arguments, behind, out),
        }
    }

    fn reset<'i, 'a>(&mut self, arguments: &[u8], out: &mut Vec<u8>) -> Option<Step<'i, 'a>> {
        if !arguments.is_empty() {
            return self.wrong(reply::NO_ARGUMENT_EXPECTED, out);
        }
        out.extend_from_slice(reply::OK);
        self.abort_transaction()
    }

    fn quit<'i, 'a>(&mut self, arguments: &[u8], out: &mut Vec<u8>) -> Option<Step<'i, 'a>> {
        if !arguments.is_empty() {
            return self.wrong(reply::NO_ARGUMENT_EXPECTED, out);
        }
        reply::farewell(&self.policy.hostname, out);
        self.state = State::Closed;
        Some(Step::Close)
    }

    /// Ends a transaction, if there is one.
    pub(super) fn abort_transaction<'i, 'a>(&mut self) -> Option<Step<'i, 'a>> {
        let open = matches!(self.phase, Phase::Envelope | Phase::Chunks);
        if open {
            self.end_transaction();
        }
        open.then_some(Step::Reset)
    }

    pub(super) fn end_transaction(&mut self) {
        self.phase = Phase::Ready;
    }

    pub(super) fn say<'i, 'a>(&mut self, text: &[u8], out: &mut Vec<u8>) -> Option<Step<'i, 'a>> {
        out.extend_from_slice(text);
        None
    }

    /// A mistake of the client: a reply, and after too many the end.
    pub(super) fn wrong<'i, 'a>(&mut self, text: &[u8], out: &mut Vec<u8>) -> Option<Step<'i, 'a>> {
        out.extend_from_slice(text);
        self.errors += 1;
        if self.errors < self.policy.errors_max {
            return None;
        }
        reply::too_many_errors(&self.policy.hostname, out);
        self.state = State::Closed;
        Some(Step::Close)
    }

    /// Puts the question to the caller.
    pub(super) fn ask(&mut self, question: Question) {
        self.state = State::Asked(question);
    }

    pub(super) fn answered(&mut self, expected: Question) {
        let State::Asked(question) = self.state else { panic!("answer to a question that was not asked") };
        assert_eq!(question, expected, "answer to another question");
        self.state = State::Command;
    }

    /// 421 says that the channel closes (RFC 5321 §3.8), so it does.
    pub(super) fn pass_on(&mut self, refusal: &Reply, out: &mut Vec<u8>) {
        refusal.write(out);
        if refusal.code() == 421 {
            self.state = State::Closed;
        }
    }

    fn patience(&self) -> Duration {
        match self.state {
            State::Text { .. } | State::Chunk { .. } => self.policy.data_timeout,
            State::Asked(Question::Data | Question::FirstChunk { .. }) => self.policy.data_timeout,
            _ => self.policy.command_timeout,
        }
    }
}
