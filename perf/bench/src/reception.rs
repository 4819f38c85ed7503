//! The server's side of one SMTP connection as a plain value: bytes in, replies and receipts out.
//!
//! Only CRLF.CRLF ends a message (RFC 5321 §4.1.1.4). It takes whatever comes in order and complains about what does
//! not, so that a client's mistakes show. Never here: sockets, clocks.

use std::io::Write;

use memchr::{memchr, memmem};

use crate::body::{Checked, check};
use crate::limits::{KEPT_BYTES, LINE_BYTES_MAX, MESSAGE_BYTES_MAX, RECIPIENTS_MAX};
use crate::workload::{Share, draw};

/// Where a connection is closed without a word.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum DropAt {
    /// Instead of the greeting.
    Greeting,
    /// Instead of the reply to MAIL.
    Mail,
    /// When the first bytes of the message have come.
    Data,
    /// When the whole message has come, instead of the reply.
    End,
}

impl std::str::FromStr for DropAt {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        match text {
            "greeting" => Ok(Self::Greeting),
            "mail" => Ok(Self::Mail),
            "data" => Ok(Self::Data),
            "end" => Ok(Self::End),
            _ => Err(format!("'{text}' is none of greeting, mail, data, end")),
        }
    }
}

/// What all connections of a sink share: how it misbehaves, and what it has seen.
#[derive(Debug, Default)]
pub struct Rules {
    /// Check every body against its checksum.
    pub verify: bool,
    /// Note `key recipient` of each delivery in `receipts`.
    pub receipts_wanted: bool,
    /// Replies to MAIL.
    pub reject_mail: Vec<Share<u16>>,
    /// Replies to RCPT.
    pub reject_rcpt: Vec<Share<u16>>,
    /// Replies to DATA.
    pub reject_data: Vec<Share<u16>>,
    /// Replies to the end of the message.
    pub reject_end: Vec<Share<u16>>,
    /// Connections closed.
    pub drop: Vec<Share<DropAt>>,
    /// The reply to the end of a message waits.
    pub delayed: bool,
    /// STARTTLS is offered.
    pub start_tls: bool,
    /// Lines for the file, to be written before the replies leave.
    pub receipts: Vec<u8>,
    /// What was seen.
    pub tally: Tally,
    /// Draws so far: each thing that may go wrong is one, so that shares come true.
    pub drawn: u64,
}

/// What a sink has seen.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Tally {
    /// Messages answered with 250.
    pub messages: u64,
    /// Deliveries: messages times recipients.
    pub recipients: u64,
    /// Bytes of these messages, unstuffed.
    pub bytes: u64,
    /// Messages whose body or key does not fit the checksum.
    pub damaged: u64,
    /// Checked messages that bear no checksum.
    pub unmarked: u64,
    /// Refusals at any step that the options asked for.
    pub refused: u64,
    /// Connections closed because the options asked for it.
    pub dropped: u64,
    /// Commands that were unknown, malformed or out of order.
    pub mistakes: u64,
}

impl Rules {
    fn refusal(&mut self, shares: fn(&Self) -> &[Share<u16>]) -> Option<u16> {
        if shares(self).is_empty() {
            return None;
        }
        self.drawn += 1;
        let code = draw(shares(self), self.drawn)?;
        self.tally.refused += 1;
        Some(code)
    }

    /// Whether this connection ends at `at`, a point that each message passes once.
    fn drops(&mut self, at: DropAt) -> bool {
        let Some(each) = self.drop.iter().find(|each| each.what == at) else { return false };
        let one = [each.clone()];
        self.drawn += 1;
        let dropped = draw(&one, self.drawn).is_some();
        self.tally.dropped += u64::from(dropped);
        dropped
    }

    /// As `drops`, at the first byte of a message only.
    fn drops_data(&mut self, bytes_before: u64) -> bool {
        bytes_before == 0 && self.drops(DropAt::Data)
    }
}

/// What a connection needs next.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// Send `out`, read on.
    NeedInput,
    /// Keep `out` back for the delay, then step again.
    Pause,
    /// Send `out`; a handshake follows, and nothing that came before it counts any more.
    StartTls,
    /// Send `out`, close.
    Leave,
    /// Close at once; `out` is not sent.
    Drop,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum State {
    Command,
    /// `fresh` until a byte of the message has come: a dot is then at the begin of a line.
    Data {
        fresh: bool,
    },
    Chunk {
        left: u64,
        last: bool,
    },
}

/// One connection's state.
#[derive(Debug)]
pub struct Reception {
    state: State,
    greeted: bool,
    encrypted: bool,
    mail: bool,
    /// BDAT has begun: DATA may not follow (RFC 3030 §2).
    chunked: bool,
    recipients: u32,
    /// Local parts, each with a line end; only when they are wanted.
    locals: Vec<u8>,
    /// The message so far; only when it is looked at.
    message: Vec<u8>,
    bytes: u64,
    /// Replies to send.
    pub out: Vec<u8>,
}

impl Reception {
    /// A connection that was just accepted. `None` when it is to be dropped at once.
    pub fn new(rules: &mut Rules) -> Option<Self> {
        if rules.drops(DropAt::Greeting) {
            return None;
        }
        Some(Self {
            state: State::Command,
            greeted: false,
            encrypted: false,
            mail: false,
            chunked: false,
            recipients: 0,
            locals: Vec::new(),
            message: Vec::new(),
            bytes: 0,
            out: b"220 sink.invalid ESMTP\r\n".to_vec(),
        })
    }

    /// Takes what it can of `input`; says how much that was. What is left comes again, with more behind it.
    pub fn step(&mut self, input: &[u8], rules: &mut Rules) -> (usize, Outcome) {
        let mut used = 0;
        loop {
            let rest = &input[used..];
            let (taken, outcome) = match self.state {
                State::Command => self.on_command(rest, rules),
                State::Data { fresh } => self.on_data(rest, fresh, rules),
                State::Chunk { left, last } => self.on_chunk(rest, left, last, rules),
            };
            used += taken;
            if let Some(outcome) = outcome {
                return (used, outcome);
            }
        }
    }

    fn on_command(&mut self, input: &[u8], rules: &mut Rules) -> (usize, Option<Outcome>) {
        let Some(end) = memchr(b'\n', input) else {
            let outcome = if input.len() > LINE_BYTES_MAX { Outcome::Drop } else { Outcome::NeedInput };
            return (0, Some(outcome));
        };
        let line = input[..end].trim_ascii_end();
        let (verb, argument) = match memchr(b' ', line) {
            Some(at) => (&line[..at], line[at..].trim_ascii_start()),
            None => (line, &line[line.len()..]),
        };
        let mut word = [0; 4];
        if verb.len() == 4 {
            word.copy_from_slice(verb);
            word.make_ascii_uppercase();
        }
        let outcome = match &word {
            b"MAIL" => self.on_mail(argument, rules),
            b"RCPT" => self.on_rcpt(argument, rules),
            b"DATA" => self.on_data_command(rules),
            b"BDAT" => self.on_bdat(argument, rules),
            b"EHLO" if rules.start_tls && !self.encrypted => self.on_hello(&[EHLO_STARTTLS, EHLO_REST].concat()),
            b"EHLO" => self.on_hello(&[EHLO_FIRST, EHLO_REST].concat()),
            b"HELO" => self.on_hello(b"250 sink.invalid\r\n"),
            b"RSET" => {
                self.reset();
                self.reply(b"250 2.0.0 reset\r\n")
            }
            b"NOOP" => self.reply(b"250 2.0.0 ok\r\n"),
            b"VRFY" => self.reply(b"252 2.1.5 send it and see\r\n"),
            b"QUIT" => {
                self.reply(b"221 2.0.0 bye\r\n");
                Some(Outcome::Leave)
            }
            _ if rules.start_tls && !self.encrypted && verb.eq_ignore_ascii_case(b"STARTTLS") => self.on_start_tls(),
            _ => self.mistake(rules, b"500 5.5.1 no such command\r\n"),
        };
        (end + 1, outcome)
    }

    fn on_hello(&mut self, reply: &[u8]) -> Option<Outcome> {
        self.reset();
        self.greeted = true;
        self.reply(reply)
    }

    /// RFC 3207 §4.2: both sides forget what was said before.
    fn on_start_tls(&mut self) -> Option<Outcome> {
        self.reset();
        self.greeted = false;
        self.encrypted = true;
        self.reply(b"220 2.0.0 go on\r\n");
        Some(Outcome::StartTls)
    }

    fn on_mail(&mut self, argument: &[u8], rules: &mut Rules) -> Option<Outcome> {
        if !self.greeted || self.mail {
            return self.mistake(rules, b"503 5.5.1 not now\r\n");
        }
        if path(argument, b"FROM:").is_none() {
            return self.mistake(rules, b"501 5.5.4 MAIL FROM:<path> is wanted\r\n");
        }
        if rules.drops(DropAt::Mail) {
            return Some(Outcome::Drop);
        }
        if let Some(code) = rules.refusal(|rules| &rules.reject_mail) {
            return self.refuse(code, "sender");
        }
        self.mail = true;
        self.reply(b"250 2.1.0 ok\r\n")
    }

    fn on_rcpt(&mut self, argument: &[u8], rules: &mut Rules) -> Option<Outcome> {
        if !self.mail || self.chunked {
            return self.mistake(rules, b"503 5.5.1 MAIL first\r\n");
        }
        let Some(path) = path(argument, b"TO:").filter(|path| !path.is_empty()) else {
            return self.mistake(rules, b"501 5.5.4 RCPT TO:<path> is wanted\r\n");
        };
        if self.recipients >= RECIPIENTS_MAX {
            return self.reply(b"452 4.5.3 too many recipients\r\n");
        }
        if let Some(code) = rules.refusal(|rules| &rules.reject_rcpt) {
            return self.refuse(code, "recipient");
        }
        self.recipients += 1;
        if rules.receipts_wanted {
            let local = &path[..memchr::memrchr(b'@', path).unwrap_or(path.len())];
            // A line end or blank in a quoted local part would look like another entry of the file.
            self.locals.extend(local.iter().map(|&byte| if byte > b' ' && byte != 0x7f { byte } else { b'?' }));
            self.locals.push(b'\n');
        }
        self.reply(b"250 2.1.5 ok\r\n")
    }

    fn on_data_command(&mut self, rules: &mut Rules) -> Option<Outcome> {
        if !self.mail || self.chunked {
            return self.mistake(rules, b"503 5.5.1 MAIL and RCPT first\r\n");
        }
        if self.recipients == 0 {
            // No mistake: a pipelining client may send DATA before it knows (RFC 2920 §3.1).
            return self.reply(b"554 5.5.1 no valid recipients\r\n");
        }
        if let Some(code) = rules.refusal(|rules| &rules.reject_data) {
            return self.refuse(code, "message");
        }
        self.state = State::Data { fresh: true };
        self.reply(b"354 go on\r\n")
    }

    fn on_bdat(&mut self, argument: &[u8], rules: &mut Rules) -> Option<Outcome> {
        let mut words = argument.split(u8::is_ascii_whitespace).filter(|word| !word.is_empty());
        let size = words.next().and_then(|word| std::str::from_utf8(word).ok()).and_then(|word| word.parse().ok());
        let last = words.next().is_some_and(|word| word.eq_ignore_ascii_case(b"LAST"));
        let Some(left) = size else {
            self.mistake(rules, b"501 5.5.4 BDAT size [LAST] is wanted\r\n");
            // Where the next command begins is unknown now.
            return Some(Outcome::Leave);
        };
        self.chunked = true;
        self.state = State::Chunk { left, last };
        None
    }

    fn on_chunk(&mut self, input: &[u8], left: u64, last: bool, rules: &mut Rules) -> (usize, Option<Outcome>) {
        let taken = input.len().min(usize::try_from(left).unwrap_or(usize::MAX));
        if taken > 0 && rules.drops_data(self.bytes) {
            return (taken, Some(Outcome::Drop));
        }
        self.keep(&input[..taken], rules);
        let left = left - taken as u64;
        if left > 0 {
            self.state = State::Chunk { left, last };
            return (taken, Some(Outcome::NeedInput));
        }
        self.state = State::Command;
        let outcome = if !self.mail || self.recipients == 0 {
            self.reset();
            self.reply(b"503 5.5.1 MAIL and RCPT first\r\n")
        } else if last {
            self.finish(rules)
        } else {
            self.reply(b"250 2.0.0 ok\r\n")
        };
        (taken, outcome)
    }

    /// Takes message text. What might be the begin of the end waits for more input.
    fn on_data(&mut self, input: &[u8], fresh: bool, rules: &mut Rules) -> (usize, Option<Outcome>) {
        if input.is_empty() {
            return (0, Some(Outcome::NeedInput));
        }
        if fresh {
            return match input {
                b"." | b".\r" => (0, Some(Outcome::NeedInput)),
                [b'.', b'\r', b'\n', ..] => (3, self.end_of_data(rules)),
                _ if rules.drops_data(0) => (0, Some(Outcome::Drop)),
                _ => {
                    self.state = State::Data { fresh: false };
                    (usize::from(input[0] == b'.'), None)
                }
            };
        }
        let mut from = 0;
        while let Some(at) = memmem::find(&input[from..], b"\r\n.") {
            let dot = from + at + 2;
            match &input[dot + 1..] {
                [] | [b'\r'] => {
                    self.keep(&input[from..dot - 2], rules);
                    return (dot - 2, Some(Outcome::NeedInput));
                }
                [b'\r', b'\n', ..] => {
                    self.keep(&input[from..dot], rules);
                    return (dot + 3, self.end_of_data(rules));
                }
                _ => {
                    self.keep(&input[from..dot], rules);
                    from = dot + 1;
                }
            }
        }
        let begun = [b"\r\n".as_slice(), b"\r"].into_iter().find(|begin| input[from..].ends_with(begin));
        let until = input.len() - begun.map_or(0, <[u8]>::len);
        self.keep(&input[from..until], rules);
        (until, Some(Outcome::NeedInput))
    }

    fn end_of_data(&mut self, rules: &mut Rules) -> Option<Outcome> {
        self.state = State::Command;
        self.finish(rules)
    }

    fn keep(&mut self, text: &[u8], rules: &Rules) {
        self.bytes += text.len() as u64;
        if (rules.verify || rules.receipts_wanted) && self.bytes <= MESSAGE_BYTES_MAX {
            self.message.extend_from_slice(text);
        }
    }

    /// The message is complete: look at it, count it, answer.
    fn finish(&mut self, rules: &mut Rules) -> Option<Outcome> {
        if rules.drops(DropAt::End) {
            return Some(Outcome::Drop);
        }
        if self.bytes > MESSAGE_BYTES_MAX {
            self.reset();
            return self.reply(b"552 5.3.4 too large\r\n");
        }
        if let Some(code) = rules.refusal(|rules| &rules.reject_end) {
            self.reset();
            return self.refuse(code, "message").or(rules.delayed.then_some(Outcome::Pause));
        }
        rules.tally.messages += 1;
        rules.tally.recipients += u64::from(self.recipients);
        rules.tally.bytes += self.bytes;
        if rules.verify || rules.receipts_wanted {
            match check(&self.message) {
                Checked::Whole(key) if key.iter().all(u8::is_ascii_graphic) => {
                    for local in self.locals.split_inclusive(|&byte| byte == b'\n') {
                        rules.receipts.extend_from_slice(key);
                        rules.receipts.push(b' ');
                        rules.receipts.extend_from_slice(local);
                    }
                }
                Checked::Whole(_) | Checked::Damaged(_) => rules.tally.damaged += 1,
                Checked::Unmarked => rules.tally.unmarked += 1,
            }
        }
        self.reset();
        self.reply(b"250 2.0.0 taken\r\n").or(rules.delayed.then_some(Outcome::Pause))
    }

    fn reset(&mut self) {
        self.mail = false;
        self.chunked = false;
        self.recipients = 0;
        self.bytes = 0;
        self.locals.clear();
        self.message.clear();
        self.message.shrink_to(KEPT_BYTES);
    }

    fn reply(&mut self, text: &[u8]) -> Option<Outcome> {
        self.out.extend_from_slice(text);
        None
    }

    fn mistake(&mut self, rules: &mut Rules, text: &[u8]) -> Option<Outcome> {
        rules.tally.mistakes += 1;
        self.reply(text)
    }

    fn refuse(&mut self, code: u16, what: &str) -> Option<Outcome> {
        write!(self.out, "{code} {}.7.0 {what} refused, as asked for\r\n", code / 100).expect("a Vec takes everything");
        (code == 421).then_some(Outcome::Leave)
    }
}

/// The path of `FROM:<path> …` or `TO:<path> …`, without brackets.
fn path<'a>(argument: &'a [u8], word: &[u8]) -> Option<&'a [u8]> {
    let (head, rest) = argument.split_at_checked(word.len())?;
    let rest = rest.trim_ascii_start().strip_prefix(b"<")?;
    let end = memchr(b'>', rest)?;
    head.eq_ignore_ascii_case(word).then_some(&rest[..end])
}

const EHLO_FIRST: &[u8] = b"250-sink.invalid\r\n";
const EHLO_STARTTLS: &[u8] = b"250-sink.invalid\r\n250-STARTTLS\r\n";
const EHLO_REST: &[u8] = b"250-PIPELINING\r\n250-SIZE 134217728\r\n250-8BITMIME\r\n250-SMTPUTF8\r\n\
    250-ENHANCEDSTATUSCODES\r\n250 CHUNKING\r\n";
const _: () = assert!(MESSAGE_BYTES_MAX == 134_217_728, "the SIZE above says so");

#[cfg(test)]
mod tests;
