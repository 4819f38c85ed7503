//! What a remote server says: lines gathered to replies (RFC 5321 §4.2.1), cleaned and bounded.
//!
//! Unlike commands, lines may end with a bare LF: nothing of ours is decided by where a reply ends, and old servers do so.

use std::fmt;

use crate::limits::{REMOTE_LINE_BYTES_MAX, REMOTE_LINES_MAX, REMOTE_REPLY_BYTES_MAX, REMOTE_TEXT_BYTES_MAX};
use crate::reply::{Status, parse_status};

/// A reply of a remote server, or what we say in its place when there was none.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RemoteReply {
    code: u16,
    status: Option<Status>,
    text: String,
    ours: bool,
}

impl RemoteReply {
    /// What happened here, in the form of a reply: connection refused, timed out, not sent at all.
    pub fn local(code: u16, status: Status, text: impl Into<String>) -> Self {
        let mut clean = String::new();
        append_clean(text.into().as_bytes(), &mut clean);
        Self { code, status: Some(status), text: clean, ours: true }
    }

    /// No server has said it.
    pub fn is_ours(&self) -> bool {
        self.ours
    }

    /// Reads back what its `Display` has written. `None`: it has not.
    pub fn parse(text: &str) -> Option<Self> {
        match Gathering::default().line(text.as_bytes()) {
            Gathered::Last(_, reply) => Some(reply),
            _ => None,
        }
    }

    /// Three digits, 200–599.
    pub fn code(&self) -> u16 {
        self.code
    }

    /// Enhanced status code, if the server sent one of the class of its code.
    pub fn status(&self) -> Option<Status> {
        self.status
    }

    /// Enhanced status code, `X.0.0` by the class of the code when the server sent none (RFC 3463 §3.1).
    pub fn status_or_default(&self) -> Status {
        self.status.unwrap_or(((self.code / 100).clamp(2, 5) as u8, 0, 0))
    }

    /// Its text without codes: one line, no control characters, at most [`REMOTE_TEXT_BYTES_MAX`] bytes.
    pub fn text(&self) -> &str {
        &self.text
    }

    /// 2xx.
    pub fn is_positive(&self) -> bool {
        self.code / 100 == 2
    }

    /// 5xx.
    pub fn is_permanent(&self) -> bool {
        self.code / 100 == 5
    }
}

/// `550 5.1.1 text`, as logs and bounces have it.
impl fmt::Display for RemoteReply {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.code)?;
        if let Some((class, subject, detail)) = self.status {
            write!(f, " {class}.{subject}.{detail}")?;
        }
        if self.text.is_empty() { Ok(()) } else { write!(f, " {}", self.text) }
    }
}

/// Gathers the lines of one reply.
#[derive(Debug, Default)]
pub(super) struct Gathering {
    code: u16,
    status: Option<Status>,
    text: String,
    lines: usize,
    /// Of all lines, line ends included.
    bytes: usize,
    /// The rest of an over-long line is dropped.
    skipping: bool,
    /// The reply whose last line that is: it is complete when the line is.
    held: Option<RemoteReply>,
}

#[derive(Debug, PartialEq, Eq)]
pub(super) enum Gathered<'i> {
    /// More input is needed.
    Incomplete,
    /// A line of a reply that goes on, without code and separator.
    Line(&'i [u8]),
    /// The last line of a reply; empty if it has been a [`Gathered::Line`] already.
    Last(&'i [u8], RemoteReply),
    /// Not a reply.
    Nonsense,
    /// More lines or bytes than anybody needs.
    Endless,
}

impl Gathering {
    /// Takes the first line of `input`; returns the bytes consumed and what it was.
    pub(super) fn take<'i>(&mut self, input: &'i [u8]) -> (usize, Gathered<'i>) {
        let (count, gathered) = self.take_line(input);
        self.bytes += count;
        match gathered {
            Gathered::Last(..) => self.bytes = 0,
            _ if self.bytes > REMOTE_REPLY_BYTES_MAX => return (count, Gathered::Endless),
            _ => {}
        }
        (count, gathered)
    }

    fn take_line<'i>(&mut self, input: &'i [u8]) -> (usize, Gathered<'i>) {
        let mut start = 0;
        if self.skipping {
            let Some(lf) = memchr::memchr(b'\n', input) else { return (input.len(), Gathered::Incomplete) };
            self.skipping = false;
            start = lf + 1;
            if let Some(reply) = self.held.take() {
                return (start, Gathered::Last(b"", reply));
            }
        }
        let rest = &input[start..];
        let window = &rest[..rest.len().min(REMOTE_LINE_BYTES_MAX)];
        let (line, count) = match memchr::memchr(b'\n', window) {
            Some(lf) => (&window[..lf], lf + 1),
            None if window.len() == REMOTE_LINE_BYTES_MAX => {
                self.skipping = true;
                (window, window.len())
            }
            None => return (start, Gathered::Incomplete),
        };
        let gathered = match self.line(line.strip_suffix(b"\r").unwrap_or(line)) {
            Gathered::Last(text, reply) if self.skipping => {
                self.held = Some(reply);
                Gathered::Line(text)
            }
            other => other,
        };
        (start + count, gathered)
    }

    fn line<'i>(&mut self, line: &'i [u8]) -> Gathered<'i> {
        let Some((code, last, text)) = parse(line) else { return Gathered::Nonsense };
        if self.lines > 0 && code != self.code {
            return Gathered::Nonsense;
        }
        self.lines += 1;
        if self.lines > REMOTE_LINES_MAX {
            return Gathered::Endless;
        }
        self.code = code;
        self.add(text);
        if !last {
            return Gathered::Line(text);
        }
        self.lines = 0;
        let said = std::mem::take(&mut self.text);
        let reply = RemoteReply { code, status: self.status.take(), text: said, ours: false };
        Gathered::Last(text, reply)
    }

    /// The status stands in each line (RFC 2034 §4); it is kept once and not as text.
    fn add(&mut self, text: &[u8]) {
        let text = text.trim_ascii();
        let word = memchr::memchr(b' ', text).unwrap_or(text.len());
        let status = parse_status(&text[..word]).filter(|status| u16::from(status.0) == self.code / 100);
        let text = match status {
            Some(_) => text[word..].trim_ascii_start(),
            None => text,
        };
        self.status = self.status.or(status);
        append_clean(text, &mut self.text);
    }
}

/// Code, whether the last line, text.
fn parse(line: &[u8]) -> Option<(u16, bool, &[u8])> {
    let (digits, rest) = line.split_first_chunk::<3>()?;
    let [b'2'..=b'5', b'0'..=b'9', b'0'..=b'9'] = digits else { return None };
    let code = digits.iter().fold(0, |code, digit| code * 10 + u16::from(digit - b'0'));
    match rest.split_first() {
        None => Some((code, true, rest)),
        Some((b' ', text)) => Some((code, true, text)),
        Some((b'-', text)) => Some((code, false, text)),
        Some(_) => None,
    }
}

/// Appends as one line: what could break a log line, a journal record or a header field becomes a blank.
fn append_clean(text: &[u8], to: &mut String) {
    if !to.is_empty() && !text.is_empty() && to.len() < REMOTE_TEXT_BYTES_MAX {
        to.push(' ');
    }
    for c in String::from_utf8_lossy(text).chars() {
        let c = if c.is_control() { ' ' } else { c };
        if to.len() + c.len_utf8() > REMOTE_TEXT_BYTES_MAX {
            return;
        }
        to.push(c);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn gather(mut input: &[u8]) -> Option<RemoteReply> {
        let mut gathering = Gathering::default();
        loop {
            let (count, gathered) = gathering.take(input);
            input = &input[count..];
            match gathered {
                Gathered::Line(_) => {}
                Gathered::Last(_, reply) => return Some(reply),
                Gathered::Incomplete | Gathered::Nonsense | Gathered::Endless => return None,
            }
        }
    }

    #[test]
    fn replies_of_many_lines_become_one_text() {
        let reply = gather(b"550-5.7.1 no\r\n550-5.7.1\r\n550 5.7.1 never\t!\r\n").unwrap();
        assert_eq!((reply.code(), reply.status()), (550, Some((5, 7, 1))));
        assert_eq!(reply.to_string(), "550 5.7.1 no never !");
        assert_eq!(RemoteReply::parse(&reply.to_string()), Some(reply));
        assert_eq!(RemoteReply::parse("451 not now"), gather(b"451 not now\r\n"));
        assert_eq!(
            (RemoteReply::parse(""), RemoteReply::parse("gone"), RemoteReply::parse("250-x")),
            (None, None, None)
        );
        assert_eq!(gather(b"250\r\n").unwrap().to_string(), "250");
        assert_eq!(gather(b"250 \n").unwrap().status_or_default(), (2, 0, 0));
        assert_eq!(gather(b"450 5.1.1 x\r\n").unwrap().status(), None);
    }

    #[test]
    fn what_is_no_reply() {
        for wrong in
            ["\r\n", "25\r\n", "250x\r\n", "199 a\r\n", "600 a\r\n", "HTTP/1.1 400\r\n", "250-a\r\n251 b\r\n", "250"]
        {
            assert_eq!(gather(wrong.as_bytes()), None, "{wrong:?}");
        }
        assert_eq!(gather("250-x\r\n".repeat(REMOTE_LINES_MAX + 1).as_bytes()), None);
    }

    #[test]
    fn long_lines_are_cut_and_skipped() {
        let mut input = b"250-".to_vec();
        input.extend_from_slice(&b"x".repeat(100_000));
        input.extend_from_slice(b"\r\n250 end\r\n");
        let reply = gather(&input).unwrap();
        assert!(reply.text().len() <= REMOTE_TEXT_BYTES_MAX && reply.text().starts_with("xxx"));
        // A reply is not over before its last line is.
        let mut long = b"250 ".to_vec();
        long.resize(5000, b'x');
        assert_eq!(gather(&long), None);
        long.extend_from_slice(b"\r\n");
        assert!(gather(&long).unwrap().text().starts_with("xxx"));
        let mut endless = Gathering::default();
        endless.take(&long[..4096]);
        let end = (0..1000).find(|_| endless.take(&[b'x'; 4096]).1 == Gathered::Endless).expect("it has an end");
        assert!(end * 4096 <= REMOTE_REPLY_BYTES_MAX, "{end} pieces");
        assert_eq!(RemoteReply::local(451, (4, 4, 1), "a\r\nb\u{7}").text(), "a  b ");
    }
}
