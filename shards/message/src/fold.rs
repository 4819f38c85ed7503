//! Making field lines out of words, some of them foreign: folded, and never more than one field whatever the word holds.

use crate::limits::{FOREIGN_BYTES_MAX, LINE_BYTES, LINE_BYTES_MAX};

/// What a foreign word may contain.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Charset {
    /// Printable ASCII; anything else becomes `?`.
    Ascii,
    /// UTF-8 without control characters (RFC 6532).
    Utf8,
}

/// Appends `word` with nothing in it that could end or change the field; at most [`FOREIGN_BYTES_MAX`] bytes of it.
pub(crate) fn foreign(out: &mut Vec<u8>, word: &str, charset: Charset) {
    let start = out.len();
    for c in word.chars() {
        let fine = match charset {
            Charset::Ascii => c == ' ' || c.is_ascii_graphic(),
            Charset::Utf8 => !c.is_control(),
        };
        let c = if fine { c } else { '?' };
        if out.len() - start + c.len_utf8() > FOREIGN_BYTES_MAX {
            return;
        }
        out.extend_from_slice(c.encode_utf8(&mut [0; 4]).as_bytes());
    }
}

/// Appends `text`, ended by CRLF and broken at blanks before [`LINE_BYTES`]; `used` bytes stand on the line already. Where
/// there is no blank the line is broken at [`LINE_BYTES_MAX`], between characters.
pub(crate) fn wrapped(out: &mut Vec<u8>, used: usize, text: &str, indent: &[u8]) {
    let mut column = used;
    for (index, word) in text.split(' ').filter(|word| !word.is_empty()).enumerate() {
        if index > 0 && column + 1 + word.len() > LINE_BYTES {
            out.extend_from_slice(b"\r\n");
            out.extend_from_slice(indent);
            column = indent.len();
        } else if index > 0 {
            out.push(b' ');
            column += 1;
        }
        for c in word.chars() {
            if column + c.len_utf8() > LINE_BYTES_MAX {
                out.extend_from_slice(b"\r\n");
                out.extend_from_slice(indent);
                column = indent.len();
            }
            out.extend_from_slice(c.encode_utf8(&mut [0; 4]).as_bytes());
            column += c.len_utf8();
        }
    }
    out.extend_from_slice(b"\r\n");
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn foreign_words_stay_on_their_line() {
        let mut out = Vec::new();
        foreign(&mut out, "a\r\nb\u{0}ü", Charset::Ascii);
        assert_eq!(out, b"a??b??");
        out.clear();
        foreign(&mut out, "ü\u{85}", Charset::Utf8);
        assert_eq!(out, "ü?".as_bytes());
        out.clear();
        foreign(&mut out, &"ü".repeat(9999), Charset::Utf8);
        assert_eq!(out.len(), FOREIGN_BYTES_MAX);
    }

    #[test]
    fn lines_are_broken() {
        let mut out = Vec::new();
        wrapped(&mut out, 10, &"word ".repeat(40), b"  ");
        wrapped(&mut out, 0, &"x".repeat(2000), b" ");
        let text = String::from_utf8(out).unwrap();
        for line in text.split("\r\n") {
            assert!(line.len() <= if line.contains('w') { LINE_BYTES } else { LINE_BYTES_MAX }, "{line}");
        }
    }
}
