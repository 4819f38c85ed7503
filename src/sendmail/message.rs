//! From what was typed to a message: line ends, header, recipients in it, fields that nobody else is to see.

use ringpost_message::headers::Scanner;

use super::addresses;

/// Makes CRLF of every line end, however it was written; unless `keep_dots`, a line with a dot alone is the end.
///
/// A CR alone, as progress bars leave it, is a line end, too: no server may take it as it is (RFC 5321 §2.3.8).
pub fn with_line_ends(input: &[u8], keep_dots: bool) -> Vec<u8> {
    let mut out = Vec::with_capacity(input.len() + input.len() / 32);
    let mut rest = input;
    while !rest.is_empty() {
        let end = rest.iter().position(|byte| matches!(byte, b'\r' | b'\n')).unwrap_or(rest.len());
        let line = &rest[..end];
        if line == b"." && !keep_dots {
            break;
        }
        out.extend_from_slice(line);
        out.extend_from_slice(b"\r\n");
        rest = match &rest[end..] {
            [b'\r', b'\n', rest @ ..] | [_, rest @ ..] => rest,
            [] => &[],
        };
    }
    out
}

/// A message with CRLF line ends, its header read.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Message {
    /// Everything, but for fields that are for us.
    pub text: Vec<u8>,
    /// Addresses in `To`, `Cc` and `Bcc`; of the `Resent-` fields if there are such.
    pub recipients: Vec<String>,
}

impl Message {
    /// Reads the header, and takes out of it what is nobody else's business: blind copies, a return path.
    pub fn read(text: &[u8]) -> Self {
        let (mut to, mut resent_to) = (Vec::new(), None);
        let mut out = Vec::with_capacity(text.len());
        let (fields, body_at) = fields(text);
        for field in fields {
            let (name, value) = field.split();
            let mut resent = || resent_to.get_or_insert_with(Vec::new).extend(addresses::of_field(&value));
            match name.as_str() {
                "to" | "cc" | "bcc" => to.extend(addresses::of_field(&value)),
                "resent-to" | "resent-cc" | "resent-bcc" => resent(),
                _ => {}
            }
            if !matches!(name.as_str(), "bcc" | "resent-bcc" | "return-path") {
                out.extend_from_slice(field.0);
            }
        }
        out.extend_from_slice(&text[body_at..]);
        Self { text: out, recipients: resent_to.unwrap_or(to) }
    }
}

/// What a message has and what it lacks.
pub fn scan(text: &[u8]) -> Scanner {
    let mut scanner = Scanner::new();
    scanner.feed(text);
    scanner
}

/// A field with its continuation lines and line ends.
struct Field<'t>(&'t [u8]);

impl Field<'_> {
    /// Name in lower case, value with its folds.
    fn split(&self) -> (String, String) {
        let text = String::from_utf8_lossy(self.0);
        let (name, value) = text.split_once(':').unwrap_or((&text, ""));
        (name.trim_end().to_ascii_lowercase(), value.trim().to_owned())
    }
}

/// The fields at the start of a text, and where they end.
fn fields(text: &[u8]) -> (Vec<Field<'_>>, usize) {
    let mut all: Vec<Field<'_>> = Vec::new();
    let (mut at, mut begin) = (0, 0);
    for line in text.split_inclusive(|byte| *byte == b'\n') {
        let continues = matches!(line, [b' ' | b'\t', ..]) && at > begin;
        if !continues {
            if at > begin {
                all.push(Field(&text[begin..at]));
            }
            begin = at;
            if !is_field(line) {
                return (all, at);
            }
        }
        at += line.len();
    }
    if at > begin {
        all.push(Field(&text[begin..at]));
    }
    (all, at)
}

/// A name of printable characters, then a colon (RFC 5322 §2.2).
fn is_field(line: &[u8]) -> bool {
    let Some(colon) = line.iter().position(|byte| *byte == b':') else { return false };
    let name = line[..colon].trim_ascii_end();
    !name.is_empty() && name.iter().all(u8::is_ascii_graphic)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_line_end_becomes_one() {
        for (input, dots, expected) in [
            ("a\nb\n", true, "a\r\nb\r\n"),
            ("a\r\nb", true, "a\r\nb\r\n"),
            ("10%\r20%\r\n", true, "10%\r\n20%\r\n"),
            ("a\n\r\nb\r\r\n", true, "a\r\n\r\nb\r\n\r\n"),
            ("a\n.\nb\n", true, "a\r\n.\r\nb\r\n"),
            ("a\n.\nb\n", false, "a\r\n"),
            ("a\n..\n.b\n.", false, "a\r\n..\r\n.b\r\n"),
            ("", false, ""),
            ("\n", true, "\r\n"),
        ] {
            let out = with_line_ends(input.as_bytes(), dots);
            assert_eq!(String::from_utf8(out).unwrap(), expected, "{input:?}");
        }
        assert_eq!(with_line_ends(&[0, 0xff, b'\n', 0x80], true), [0, 0xff, b'\r', b'\n', 0x80, b'\r', b'\n']);
    }

    #[test]
    fn recipients_are_found_and_blind_ones_hidden() {
        let message = Message::read(
            b"To: a@x.test,\r\n b@x.test\r\nBCC: hidden@x.test,\r\n\tother@x.test\r\nCc : c@x.test\r\nX-Bcc: no@x.test\r\n\
              Return-Path: <y>\r\nSubject: x\r\n\r\nBcc: text@x.test\r\n",
        );
        assert_eq!(message.recipients, ["a@x.test", "b@x.test", "hidden@x.test", "other@x.test", "c@x.test"]);
        let text = String::from_utf8(message.text).unwrap();
        assert_eq!(
            text,
            "To: a@x.test,\r\n b@x.test\r\nCc : c@x.test\r\nX-Bcc: no@x.test\r\nSubject: x\r\n\r\nBcc: text@x.test\r\n"
        );
    }

    #[test]
    fn a_message_that_is_sent_on_goes_to_whom_it_is_sent_on() {
        let message = Message::read(b"To: old@x.test\r\nResent-To: new@x.test\r\nResent-Bcc: b@x.test\r\n\r\nx\r\n");
        assert_eq!(message.recipients, ["new@x.test", "b@x.test"]);
        assert_eq!(message.text, b"To: old@x.test\r\nResent-To: new@x.test\r\n\r\nx\r\n");
    }

    #[test]
    fn text_without_a_header_is_left_alone() {
        for text in ["hello\r\nTo: x@y\r\n", "\r\nTo: x@y\r\n", "", " To: x@y\r\n", "To: a"] {
            assert_eq!(Message::read(text.as_bytes()).text, text.as_bytes());
        }
        assert_eq!(Message::read(b"hello\r\nTo: x@y\r\n").recipients, [""; 0]);
    }
}
