//! Parts of a report that are in base64 or quoted-printable (RFC 2045 §6.7, §6.8), line by line. The RFCs of reports have them in
//! plain text; some servers encode them all the same. No input is an error: what is not of the encoding is left out, or stays
//! as it is, and a part that decodes to more than anybody's report has ends there.

use crate::limits::{FEEDBACK_DECODED_BYTES_MAX, LINE_BYTES_MAX};

/// How a part is written.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) enum Encoding {
    /// As it is.
    #[default]
    Plain,
    Base64,
    QuotedPrintable,
}

impl Encoding {
    /// Of a `Content-Transfer-Encoding`, in lower case.
    pub(super) fn named(name: &str) -> Self {
        match name {
            "base64" => Self::Base64,
            "quoted-printable" => Self::QuotedPrintable,
            _ => Self::Plain,
        }
    }
}

/// Makes the lines of a part of those that it is written in.
#[derive(Clone, Debug, Default)]
pub(super) struct Decoder {
    pub(super) encoding: Encoding,
    /// The line so far, as much of it as counts.
    line: Vec<u8>,
    /// Bytes that were made of this part.
    made: usize,
    /// Bits of base64 that make no whole byte yet, and how many.
    bits: u32,
    bits_count: u32,
    /// Behind the padding of base64 there is nothing (RFC 2045 §6.8).
    is_over: bool,
}

impl Decoder {
    /// Another part begins, in plain text unless its header says otherwise.
    pub(super) fn begin(&mut self) {
        let mut line = std::mem::take(&mut self.line);
        line.clear();
        *self = Self { line, ..Self::default() };
    }

    /// A line as it is written, without its end; each that is complete goes to `take`, without its end.
    pub(super) fn feed(&mut self, written: &[u8], mut take: impl FnMut(&[u8])) {
        match self.encoding {
            Encoding::Plain => take(written),
            Encoding::Base64 => self.base64(written, &mut take),
            Encoding::QuotedPrintable => self.quoted_printable(written, &mut take),
        }
    }

    /// The part is over: what is left of it.
    pub(super) fn end(&mut self, mut take: impl FnMut(&[u8])) {
        if !self.line.is_empty() {
            self.push(b'\n', &mut take);
        }
    }

    fn base64(&mut self, written: &[u8], take: &mut impl FnMut(&[u8])) {
        for byte in written {
            let six = match byte {
                b'A'..=b'Z' => byte - b'A',
                b'a'..=b'z' => byte - b'a' + 26,
                b'0'..=b'9' => byte - b'0' + 52,
                b'+' => 62,
                b'/' => 63,
                b'=' => {
                    self.is_over = true;
                    return;
                }
                // Not of the alphabet, and to be ignored.
                _ => continue,
            };
            if self.is_over {
                return;
            }
            (self.bits, self.bits_count) = (self.bits << 6 | u32::from(six), self.bits_count + 6);
            if self.bits_count >= 8 {
                self.bits_count -= 8;
                let made = (self.bits >> self.bits_count) as u8;
                self.bits &= (1 << self.bits_count) - 1;
                self.push(made, take);
            }
        }
    }

    fn quoted_printable(&mut self, written: &[u8], take: &mut impl FnMut(&[u8])) {
        // Blanks at an end were put there on the way.
        let mut rest = written.trim_ascii_end();
        while let Some((first, behind)) = rest.split_first() {
            rest = match (first, behind) {
                // The line goes on in the next one.
                (b'=', []) => return,
                (b'=', [high, low, behind @ ..]) if hex(*high).is_some() && hex(*low).is_some() => {
                    let value = hex(*high).unwrap_or_default() << 4 | hex(*low).unwrap_or_default();
                    self.push(value, take);
                    behind
                }
                (byte, behind) => {
                    self.push(*byte, take);
                    behind
                }
            };
        }
        self.push(b'\n', take);
    }

    fn push(&mut self, byte: u8, take: &mut impl FnMut(&[u8])) {
        if self.made >= FEEDBACK_DECODED_BYTES_MAX {
            return;
        }
        self.made += 1;
        if byte == b'\n' {
            take(self.line.strip_suffix(b"\r").unwrap_or(&self.line));
            self.line.clear();
        } else if self.line.len() < LINE_BYTES_MAX {
            self.line.push(byte);
        }
    }
}

fn hex(digit: u8) -> Option<u8> {
    char::from(digit).to_digit(16).and_then(|value| u8::try_from(value).ok())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn lines(encoding: Encoding, written: &[&[u8]]) -> Vec<String> {
        let (mut decoder, mut made) = (Decoder { encoding, ..Decoder::default() }, Vec::new());
        let mut take = |line: &[u8]| made.push(String::from_utf8_lossy(line).into_owned());
        written.iter().for_each(|line| decoder.feed(line, &mut take));
        decoder.end(&mut take);
        made
    }

    #[test]
    fn base64_is_read_across_lines_and_nothing_in_it_is_an_error() {
        let read = |written: &[&[u8]]| lines(Encoding::Base64, written);
        assert_eq!(read(&[b"QTogYg0KQzo", b"gZA0KDQpFOiBm"]), ["A: b", "C: d", "", "E: f"]);
        assert_eq!(read(&[b"QTogYg=="]), ["A: b"], "the last line has no end");
        assert_eq!(read(&[b"QT-og*Yg==", b"QTogYg=="]), ["A: b"], "behind the padding there is nothing");
        assert_eq!(read(&[b"====", b"=", b"Q"]), [""; 0]);
        assert_eq!(read(&[b"Q", b"\xff\0", b""]), [""; 0], "six bits are no byte");
    }

    #[test]
    fn quoted_printable_is_read_with_soft_ends_and_nothing_in_it_is_an_error() {
        let read = |written: &[&[u8]]| lines(Encoding::QuotedPrintable, written);
        assert_eq!(read(&[b"A: =62=  ", b"c \t", b"", b"=3D=3d"]), ["A: bc", "", "=="]);
        assert_eq!(read(&[b"=", b"=", b"x="]), ["x"]);
        assert_eq!(read(&[b"=4", b"=G1=1G==41", b"a=0D=0Ab=0A"]), ["=4", "=G1=1G=A", "a", "b", ""]);
    }

    #[test]
    fn what_is_made_is_bounded() {
        let soft = [&b"=41".repeat(300)[..], b"="].concat();
        for (encoding, line) in [(Encoding::Base64, &[b'A'; 900][..]), (Encoding::QuotedPrintable, &soft)] {
            let mut decoder = Decoder { encoding, ..Decoder::default() };
            (0..FEEDBACK_DECODED_BYTES_MAX / 250).for_each(|_| decoder.feed(line, |made| panic!("{made:?}")));
            assert_eq!((decoder.line.len(), decoder.made), (LINE_BYTES_MAX, FEEDBACK_DECODED_BYTES_MAX));
        }
        // One that has ended makes no more lines.
        let mut decoder = Decoder { encoding: Encoding::QuotedPrintable, ..Decoder::default() };
        let mut count = 0;
        (0..2 * FEEDBACK_DECODED_BYTES_MAX).for_each(|_| decoder.feed(b"", |_| count += 1));
        assert_eq!(count, FEEDBACK_DECODED_BYTES_MAX);
    }
}
