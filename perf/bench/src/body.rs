//! A numbered message that proves itself: made here for the source, checked here for the sink.
//!
//! `X-Ringpost-Seq` carries the key (`run-number`), `X-Ringpost-Sum` the CRC-32C of key and body. Servers may add
//! or rewrite other headers; a change to the body, or a body under another's number, shows. Each body begins with a
//! line that starts with a dot, so that stuffing (RFC 5321 §4.5.2) is always exercised.

use memchr::memmem;

use crate::limits::TEXT_SPARE_BYTES;
use crate::workload::mix;

/// First body line, as the author wrote it; on the wire it has one dot more.
const DOT_LINE: &[u8] = b".a line that begins with a dot\r\n";
const SEQ_DIGITS: usize = 12;
const SUM_DIGITS: usize = 8;

/// Makes messages of one run. The text is built once; a message is a head to fill in and a slice of the text.
#[derive(Debug)]
pub struct Maker {
    head: Vec<u8>,
    seq_at: [usize; 2],
    sum_at: usize,
    key_start: usize,
    key_end: usize,
    text: Vec<u8>,
}

impl Maker {
    /// `run` names the run; `bytes_max` is the largest message that will be asked for.
    pub fn new(run: &str, from: &str, to: &str, date: &str, bytes_max: u64) -> Self {
        let zeros = "0".repeat(SEQ_DIGITS);
        let mut head = Vec::new();
        head.extend_from_slice(
            format!("From: <{from}>\r\nTo: <{to}>\r\nSubject: load {run}\r\nDate: {date}\r\nMessage-ID: <{run}-")
                .as_bytes(),
        );
        let id_at = head.len();
        head.extend_from_slice(format!("{zeros}@ringpost.invalid>\r\nX-Ringpost-Seq: ").as_bytes());
        let key_start = head.len();
        head.extend_from_slice(format!("{run}-").as_bytes());
        let key_at = head.len();
        head.extend_from_slice(zeros.as_bytes());
        let key_end = head.len();
        head.extend_from_slice(b"\r\nX-Ringpost-Sum: ");
        let sum_at = head.len();
        head.extend_from_slice(b"00000000\r\n\r\n.");
        head.extend_from_slice(DOT_LINE);
        Self {
            head,
            seq_at: [id_at, key_at],
            sum_at,
            key_start,
            key_end,
            text: text(bytes_max as usize + TEXT_SPARE_BYTES),
        }
    }

    /// Wire form of message `seq` of `bytes` bytes: head and text. What follows is `\r\n.\r\n`.
    pub fn make(&mut self, seq: u64, bytes: u64) -> (&[u8], &[u8]) {
        for at in self.seq_at {
            let mut rest = seq;
            for digit in self.head[at..at + SEQ_DIGITS].iter_mut().rev() {
                *digit = b'0' + (rest % 10) as u8;
                rest /= 10;
            }
        }
        // One stuffed dot is not part of the message; the CRLF after the text is.
        let length = (bytes as usize).saturating_sub(self.head.len() - 1 + 2).max(1);
        let start = mix(seq) as usize % TEXT_SPARE_BYTES / LINE * LINE;
        let text = &self.text[start..start + length];
        // A cut right after CR would leave it bare before our CRLF; the line before it ends one byte early instead.
        let text = match text {
            [shorter @ .., b'\r'] => shorter,
            [shorter @ .., b'\r', b'\n'] => shorter,
            whole => whole,
        };
        let mut sum = crc32c::crc32c(&self.head[self.key_start..self.key_end]);
        sum = crc32c::crc32c_append(sum, DOT_LINE);
        sum = crc32c::crc32c_append(sum, text);
        sum = crc32c::crc32c_append(sum, b"\r\n");
        for (index, digit) in self.head[self.sum_at..self.sum_at + SUM_DIGITS].iter_mut().enumerate() {
            *digit = b"0123456789abcdef"[(sum >> (28 - 4 * index)) as usize & 15];
        }
        (&self.head, text)
    }

    /// Key of message `seq` of this run, as headers and files carry it.
    pub fn write_key(&self, seq: u64, out: &mut Vec<u8>) {
        use std::io::Write;
        out.extend_from_slice(&self.head[self.key_start..self.seq_at[1]]);
        write!(out, "{seq:0width$}", width = SEQ_DIGITS).expect("a Vec takes everything");
    }
}

/// What a received message says of itself.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Checked<'a> {
    /// The sum fits; here is the key.
    Whole(&'a [u8]),
    /// It bears a key, and body or key were changed on the way.
    Damaged(&'a [u8]),
    /// Not one of ours.
    Unmarked,
}

/// Checks a received message (unstuffed, headers and body with CRLF).
pub fn check(message: &[u8]) -> Checked<'_> {
    let Some(head_end) = memmem::find(message, b"\r\n\r\n") else {
        return Checked::Unmarked;
    };
    let (head, body) = (&message[..head_end], &message[head_end + 4..]);
    let Some(key) = header(head, b"x-ringpost-seq:") else {
        return Checked::Unmarked;
    };
    let sum = crc32c::crc32c_append(crc32c::crc32c(key), body);
    let claimed = header(head, b"x-ringpost-sum:").and_then(|digits| std::str::from_utf8(digits).ok());
    match claimed.map(|digits| u32::from_str_radix(digits, 16)) {
        Some(Ok(claimed)) if claimed == sum => Checked::Whole(key),
        _ => Checked::Damaged(key),
    }
}

/// Value of the last header called `name` (lower case, with its colon); ours stand after what servers prepend.
fn header<'a>(head: &'a [u8], name: &[u8]) -> Option<&'a [u8]> {
    let mut end = head.len();
    loop {
        let start = memmem::rfind(&head[..end], b"\r\n").map_or(0, |at| at + 2);
        let line = &head[start..end];
        if line.len() > name.len() && line[..name.len()].eq_ignore_ascii_case(name) {
            return Some(line[name.len()..].trim_ascii());
        }
        end = start.checked_sub(2)?;
    }
}

/// Bytes of a text line with its CRLF.
const LINE: usize = 64;

/// Lines of letters and single spaces, none of which begins with a dot or ends with a space.
fn text(bytes: usize) -> Vec<u8> {
    let mut out = Vec::with_capacity(bytes + LINE);
    let mut state = 1u64;
    while out.len() < bytes {
        for column in 0..LINE - 2 {
            state = mix(state);
            let letter = b'a' + (state % 26) as u8;
            let blank = column % 7 == 6 && column < LINE - 4;
            out.push(if blank { b' ' } else { letter });
        }
        out.extend_from_slice(b"\r\n");
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    fn received(maker: &mut Maker, seq: u64, bytes: u64) -> Vec<u8> {
        let (head, text) = maker.make(seq, bytes);
        let mut message = [head, text, b"\r\n"].concat();
        let at = memmem::find(&message, b"\r\n..").unwrap() + 2;
        message.remove(at);
        message
    }

    #[test]
    fn a_message_of_every_size_proves_itself_and_has_that_size() {
        let mut maker = Maker::new("cafe", "a@x.test", "b@y.test", "now", 9000);
        for bytes in 512..1200 {
            let message = received(&mut maker, bytes * 77, bytes);
            assert!(message.len() as u64 <= bytes && message.len() as u64 + 2 >= bytes, "{bytes}");
            assert!(matches!(check(&message), Checked::Whole(_)), "{bytes}");
            assert!(!memmem::find_iter(&message, b"\r\r").any(|_| true));
        }
    }

    #[test]
    fn any_changed_byte_of_the_body_or_key_shows() {
        let mut maker = Maker::new("cafe", "a@x.test", "b@y.test", "now", 9000);
        let message = received(&mut maker, 5, 700);
        assert_eq!(check(&message), Checked::Whole(b"cafe-000000000005"));
        let body_at = memmem::find(&message, b"\r\n\r\n").unwrap() + 4;
        for at in body_at..message.len() {
            let mut changed = message.clone();
            changed[at] ^= 1;
            assert!(!matches!(check(&changed), Checked::Whole(_)), "{at}");
        }
        let swapped =
            String::from_utf8(message.clone()).unwrap().replace("Seq: cafe-000000000005", "Seq: cafe-000000000006");
        assert_eq!(check(swapped.as_bytes()), Checked::Damaged(b"cafe-000000000006"));
        let with_trace = [b"Received: from x\r\n\tby y\r\n".as_slice(), &message].concat();
        assert!(matches!(check(&with_trace), Checked::Whole(_)));
        assert_eq!(check(b"Subject: hello\r\n\r\nhello\r\n"), Checked::Unmarked);
    }

    #[test]
    fn keys_in_files_are_those_in_headers() {
        let mut maker = Maker::new("cafe", "a@x.test", "b@y.test", "now", 9000);
        let mut key = Vec::new();
        maker.write_key(42, &mut key);
        assert_eq!(check(&received(&mut maker, 42, 600)), Checked::Whole(&key));
    }
}
