//! `From:` of a message that streams by, made the address that its sender may use: the name before it stays, whatever address
//! stood there goes. Fed pieces, cut anywhere; every such field is rewritten, or a second one would be the way round it.

use crate::limits::MASQUERADED_BYTES_MAX;

/// Rewrites `From:` as the text streams by.
#[derive(Clone, Debug)]
pub struct Masquerade {
    address: Box<str>,
    place: Place,
    /// What cannot be decided yet: the name of a field, or a value of `From:`.
    held: Vec<u8>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Place {
    /// At the start of a line.
    Start,
    /// In the name of a field.
    Name,
    /// In a name that is not ours.
    OtherName,
    /// In the value of another field.
    Value,
    /// In the value of `From:`.
    From,
    /// At the start of the line behind one of `From:`.
    FromStart,
    /// The header is over.
    End,
}

const NAME: &[u8] = b"from";

impl Masquerade {
    /// For one message of `address`, as it is to stand there.
    pub fn new(address: &str) -> Self {
        Self { address: address.into(), place: Place::Start, held: Vec::new() }
    }

    /// Whether the header is over: from now on the text is what it was.
    pub fn is_done(&self) -> bool {
        self.place == Place::End
    }

    /// Takes a piece; what is decided is appended to `out`.
    pub fn feed(&mut self, piece: &[u8], out: &mut Vec<u8>) {
        let mut at = 0;
        while at < piece.len() {
            at += self.step(&piece[at..], out);
        }
    }

    /// The text is over.
    pub fn finish(&mut self, out: &mut Vec<u8>) {
        match self.place {
            Place::From | Place::FromStart => self.rewrite(out),
            _ => out.append(&mut self.held),
        }
        self.place = Place::End;
    }

    /// Takes some of `rest`, which is not empty; returns how much. Nothing: it was the place that changed.
    fn step(&mut self, rest: &[u8], out: &mut Vec<u8>) -> usize {
        let byte = rest[0];
        match self.place {
            Place::Start => {
                self.place = Place::Name;
                0
            }
            Place::Name => {
                self.name(byte, out);
                1
            }
            Place::OtherName => {
                out.push(byte);
                match byte {
                    b':' => self.place = Place::Value,
                    b'\n' => self.place = Place::End,
                    _ => {}
                }
                1
            }
            Place::Value | Place::From => {
                let end = memchr::memchr(b'\n', rest).map_or(rest.len(), |lf| lf + 1);
                let is_line = rest[..end].ends_with(b"\n");
                if self.place == Place::Value {
                    out.extend_from_slice(&rest[..end]);
                } else {
                    let room = MASQUERADED_BYTES_MAX.saturating_sub(self.held.len());
                    self.held.extend_from_slice(&rest[..end.min(room)]);
                }
                if is_line {
                    self.place = if self.place == Place::Value { Place::Start } else { Place::FromStart };
                }
                end
            }
            Place::FromStart => {
                if matches!(byte, b' ' | b'\t') {
                    self.place = Place::From;
                } else {
                    self.rewrite(out);
                    self.place = Place::Start;
                }
                0
            }
            Place::End => {
                out.extend_from_slice(rest);
                rest.len()
            }
        }
    }

    fn name(&mut self, byte: u8, out: &mut Vec<u8>) {
        let is_first = self.held.is_empty();
        self.held.push(byte);
        // The longest name that may still be ours, with the blanks that are allowed in front of the colon (RFC 5322 §4.5).
        let is_blank = matches!(byte, b' ' | b'\t');
        match byte {
            b':' if self.held[..self.held.len() - 1].trim_ascii_end().eq_ignore_ascii_case(NAME) => {
                self.held.clear();
                self.place = Place::From;
            }
            // A line that continues the field before, or a name that is another one.
            b':' => self.pass(Place::Value, out),
            // The empty line, or one that is no field: what follows is text.
            b'\n' => self.pass(Place::End, out),
            _ if is_first && is_blank => self.pass(Place::Value, out),
            _ if !is_blank && self.held.len() > NAME.len() => self.pass(Place::OtherName, out),
            _ if self.held.len() > MASQUERADED_BYTES_MAX => self.pass(Place::OtherName, out),
            _ => {}
        }
    }

    fn pass(&mut self, to: Place, out: &mut Vec<u8>) {
        out.append(&mut self.held);
        self.place = to;
    }

    fn rewrite(&mut self, out: &mut Vec<u8>) {
        out.extend_from_slice(b"From:");
        match display_name(&self.held) {
            Some(name) => out.extend_from_slice(name),
            None => out.push(b' '),
        }
        out.push(b'<');
        out.extend_from_slice(self.address.as_bytes());
        out.extend_from_slice(b">\r\n");
        self.held.clear();
    }
}

/// What stands in front of the first address in angle brackets, with its blanks, if it is but a name: no other address, no
/// list, no group (RFC 5322 §3.4).
fn display_name(value: &[u8]) -> Option<&[u8]> {
    let (mut is_quoted, mut comments, mut is_escaped) = (false, 0_u32, false);
    for (at, byte) in value.iter().enumerate() {
        let was_escaped = std::mem::replace(&mut is_escaped, false);
        match byte {
            _ if was_escaped => {}
            b'\\' if is_quoted || comments > 0 => is_escaped = true,
            b'"' if comments == 0 => is_quoted = !is_quoted,
            b'(' if !is_quoted => comments += 1,
            b')' if !is_quoted => comments = comments.saturating_sub(1),
            b'<' if !is_quoted && comments == 0 => {
                return Some(&value[..at]).filter(|name| !name.trim_ascii().is_empty());
            }
            b',' | b':' | b';' | b'@' | b'>' if !is_quoted && comments == 0 => return None,
            _ => {}
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    fn masqueraded(text: &str, cut: usize) -> String {
        let (mut masquerade, mut out) = (Masquerade::new("me@here.example"), Vec::new());
        masquerade.feed(&text.as_bytes()[..cut], &mut out);
        masquerade.feed(&text.as_bytes()[cut..], &mut out);
        masquerade.finish(&mut out);
        assert!(masquerade.is_done());
        String::from_utf8(out).expect("cut between characters or not, all is there")
    }

    fn check(text: &str, expected: &str) {
        for cut in 0..=text.len() {
            assert_eq!(masqueraded(text, cut), expected, "{text:?} cut at {cut}");
        }
    }

    #[test]
    fn the_address_goes_and_the_name_stays() {
        for (value, expected) in [
            (" you@there.example", " <me@here.example>"),
            (" Gilles <you@there.example>", " Gilles <me@here.example>"),
            ("\"A, <b@c>\" <you@there.example>", "\"A, <b@c>\" <me@here.example>"),
            (" \"q\\\"<\" <x@y> (said)", " \"q\\\"<\" <me@here.example>"),
            (" =?utf-8?q?J=C3=BCrgen?=\r\n <x@y>", " =?utf-8?q?J=C3=BCrgen?=\r\n <me@here.example>"),
            (" a@b.example, C <c@d.example>", " <me@here.example>"),
            (" A <a@b.example>, C <c@d.example>", " A <me@here.example>"),
            (" Friends: a@b.example;", " <me@here.example>"),
            (" x@y (Name)", " <me@here.example>"),
            (" <x@y>", " <me@here.example>"),
            ("", " <me@here.example>"),
        ] {
            let text = |value: &str| format!("To: a@b\r\nFrom:{value}\r\nX: <y>\r\n\r\nFrom: not me\r\n");
            check(&text(value), &text(expected));
        }
    }

    #[test]
    fn no_spelling_and_no_second_field_is_a_way_round() {
        let text = "FROM : a@b\r\nfrom\t:\r\n <c@d>\r\nFrom-Nobody: e@f\r\nFro: g\r\nFromx: h\r\n\r\n";
        let expected =
            "From: <me@here.example>\r\nFrom:\r\n <me@here.example>\r\nFrom-Nobody: e@f\r\nFro: g\r\nFromx: h\r\n\r\n";
        check(text, &expected.replace("From:\r\n <", "From: <"));
        let long = format!("From: {} <a@b>\r\n\r\nx", "n".repeat(2 * MASQUERADED_BYTES_MAX));
        let short = masqueraded(&long, 7);
        assert_eq!(short, "From: <me@here.example>\r\n\r\nx", "a name beyond all measure goes, too");
    }

    #[test]
    fn what_is_no_header_is_left_alone() {
        for text in
            ["", "\r\nFrom: a@b\r\n", "hello\r\nFrom: a@b\r\n", "A: b\r\n\r\nFrom: a@b", "Fr", "A: b\r\n From: c\r\n"]
        {
            check(text, text);
        }
        check("A: b\r\nFrom: c@d", "A: b\r\nFrom: <me@here.example>\r\n");
    }
}
