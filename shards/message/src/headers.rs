//! What a header says, read on the way: fed pieces of a message, cut anywhere, until the header ends.
//!
//! Names of fields are read, values never, but that of `TLS-Required`. The scanner keeps a few bytes, whatever it is fed.

use crate::limits::HEADER_BYTES_MAX;

/// Reads a header as it streams by.
#[derive(Clone, Debug)]
pub struct Scanner {
    place: Place,
    name: [u8; NAME_BYTES],
    name_bytes: usize,
    seen: u8,
    received: u32,
    fields: u32,
    bytes: u64,
    /// Trailing blanks were seen: only a colon may follow (RFC 5322 §4.5).
    blank: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Place {
    /// At the start of a line.
    Start,
    /// After a CR at the start of a line.
    EmptyCr,
    /// In the name of a field.
    Name,
    /// In the value of a field, or a line that continues it.
    Value,
    /// In the value of `TLS-Required`.
    Wish(Wish),
    /// The header is over.
    End,
}

/// What was read of the value of `TLS-Required`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Wish {
    Nothing,
    N,
    No,
    Other,
}

const NAME_BYTES: usize = 12;
const DATE: u8 = 1;
const MESSAGE_ID: u8 = 2;
const FROM: u8 = 4;
/// `TLS-Required: No`.
const WAIVES_TLS: u8 = 16;
/// The first line is neither a field nor empty.
const HEADLESS: u8 = 8;

impl Default for Scanner {
    fn default() -> Self {
        Self::new()
    }
}

impl Scanner {
    /// For one message.
    pub fn new() -> Self {
        Self {
            place: Place::Start,
            name: [0; NAME_BYTES],
            name_bytes: 0,
            seen: 0,
            received: 0,
            fields: 0,
            bytes: 0,
            blank: false,
        }
    }

    /// Reads on. Costs nothing once the header is over.
    pub fn feed(&mut self, piece: &[u8]) {
        let mut at = 0;
        while at < piece.len() && self.place != Place::End {
            at += self.step(&piece[at..]);
            if self.bytes + at as u64 > HEADER_BYTES_MAX {
                self.place = Place::End;
            }
        }
        self.bytes += piece.len() as u64;
    }

    /// Whether the header is over, and all answers final.
    pub fn is_done(&self) -> bool {
        self.place == Place::End
    }

    /// `Received:` fields: servers that the message has passed.
    pub fn received_count(&self) -> usize {
        self.received as usize
    }

    /// There is a `Date:`.
    pub fn has_date(&self) -> bool {
        self.seen & DATE != 0
    }

    /// There is a `Message-ID:`.
    pub fn has_message_id(&self) -> bool {
        self.seen & MESSAGE_ID != 0
    }

    /// There is a `From:`.
    pub fn has_from(&self) -> bool {
        self.seen & FROM != 0
    }

    /// There is a `TLS-Required: No` (RFC 8689 §3).
    pub fn waives_tls(&self) -> bool {
        self.seen & WAIVES_TLS != 0
    }

    /// False when the first line is text: it would be taken for a broken header, or join fields put in front of it. An empty
    /// message and one that begins with an empty line (a header without fields) need no such care.
    pub fn starts_with_header(&self) -> bool {
        self.seen & HEADLESS == 0 && !(self.fields == 0 && self.place == Place::Name)
    }

    /// Takes at least one byte of `rest`, which is not empty; returns how many.
    fn step(&mut self, rest: &[u8]) -> usize {
        match self.place {
            Place::Start => self.start(rest[0]),
            Place::EmptyCr => {
                // A CR without LF is no empty line; senders of such are refused before it comes here.
                self.place = if rest[0] == b'\n' { Place::End } else { self.no_field() };
                1
            }
            Place::Name => self.name(rest[0]),
            Place::Value => match memchr::memchr(b'\n', rest) {
                Some(lf) => {
                    self.place = Place::Start;
                    lf + 1
                }
                None => rest.len(),
            },
            Place::Wish(wish) => self.wish(wish, rest[0]),
            Place::End => rest.len(),
        }
    }

    fn wish(&mut self, wish: Wish, byte: u8) -> usize {
        self.place = match (byte.to_ascii_lowercase(), wish) {
            (b'\n', _) => {
                if wish == Wish::No {
                    self.seen |= WAIVES_TLS;
                }
                Place::Start
            }
            (b' ' | b'\t' | b'\r', Wish::Nothing | Wish::No) => Place::Wish(wish),
            (b'n', Wish::Nothing) => Place::Wish(Wish::N),
            (b'o', Wish::N) => Place::Wish(Wish::No),
            _ => Place::Wish(Wish::Other),
        };
        1
    }

    fn start(&mut self, byte: u8) -> usize {
        self.place = match byte {
            b'\r' => Place::EmptyCr,
            b'\n' => Place::End,
            b' ' | b'\t' if self.fields > 0 => Place::Value,
            _ => {
                self.name_bytes = 0;
                self.blank = false;
                Place::Name
            }
        };
        usize::from(self.place != Place::Name)
    }

    fn name(&mut self, byte: u8) -> usize {
        match byte {
            b':' if self.name_bytes > 0 => self.field(),
            b' ' | b'\t' if self.name_bytes > 0 => self.blank = true,
            // Printable but the colon (RFC 5322 §2.2); UTF-8 is not allowed in names even by RFC 6532.
            0x21..=0x7E if byte != b':' && !self.blank => {
                if let Some(place) = self.name.get_mut(self.name_bytes) {
                    *place = byte.to_ascii_lowercase();
                }
                self.name_bytes = (self.name_bytes + 1).min(NAME_BYTES + 1);
            }
            _ => self.place = self.no_field(),
        }
        1
    }

    fn field(&mut self) {
        self.fields += 1;
        self.place = Place::Value;
        match self.name.get(..self.name_bytes).unwrap_or_default() {
            b"received" => self.received += 1,
            b"date" => self.seen |= DATE,
            b"message-id" => self.seen |= MESSAGE_ID,
            b"from" => self.seen |= FROM,
            b"tls-required" => self.place = Place::Wish(Wish::Nothing),
            _ => {}
        }
    }

    /// A line that is no field ends the header: from here on it is text.
    fn no_field(&mut self) -> Place {
        if self.fields == 0 {
            self.seen |= HEADLESS;
        }
        Place::End
    }
}

/// The header at the start of a message that is in memory: its fields with their line ends, without the empty line.
pub fn of_message(text: &[u8]) -> &[u8] {
    if text.starts_with(b"\r\n") {
        return &text[..0];
    }
    match memchr::memmem::find(text, b"\r\n\r\n") {
        Some(at) => &text[..at + 2],
        None => text,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn scan(text: &str, cut: usize) -> Scanner {
        let mut scanner = Scanner::new();
        scanner.feed(&text.as_bytes()[..cut]);
        scanner.feed(&text.as_bytes()[cut..]);
        scanner
    }

    #[test]
    fn fields_are_seen_for_every_cut() {
        let text = "Received: a\r\n\tDate: no\r\nRECEIVED : b\r\nmessage-ID:<x>\r\nReceived-SPF: pass\r\n\
                    X-Date: no\r\nFrom: a\r\n\r\nDate: no\r\nReceived: no\r\n";
        for cut in 0..=text.len() {
            let scanner = scan(text, cut);
            assert_eq!(scanner.received_count(), 2);
            assert!(scanner.is_done() && scanner.starts_with_header());
            assert!(!scanner.has_date() && scanner.has_message_id() && scanner.has_from());
        }
        assert!(scan("A: b\r\ndate: x\r\n", 3).has_date());
    }

    #[test]
    fn what_waives_tls_says_no_and_nothing_else() {
        for (text, waives) in [
            ("A: b\r\nTLS-Required: No\r\n\r\n", true),
            ("tls-required:\tnO \r\n\r\n", true),
            ("TLS-Required: No, really\r\n\r\n", false),
            ("TLS-Required: Yes\r\nDate: no\r\n\r\n", false),
            ("TLS-Required: N\r\no\r\n\r\n", false),
            ("X-TLS-Required: No\r\n\r\n", false),
            ("TLS-Required-Not: No\r\n\r\n", false),
            ("A: b\r\n\r\nTLS-Required: No\r\n", false),
        ] {
            for cut in 0..=text.len() {
                let scanner = scan(text, cut);
                assert!(scanner.is_done());
                assert_eq!(scanner.waives_tls(), waives, "{text:?}");
            }
        }
    }

    #[test]
    fn text_without_a_header() {
        for (text, starts) in [
            ("", true),
            ("\r\ntext", true),
            ("A: b\r\n\r\n", true),
            ("A: b", true),
            ("hello\r\n", false),
            ("hello", false),
            ("hello world: x\r\n", false),
            (" A: b\r\n", false),
            (": b\r\n", false),
            ("ü: b\r\n", false),
            ("\rA: b\r\n", false),
        ] {
            for cut in (0..=text.len()).filter(|cut| text.is_char_boundary(*cut)) {
                assert_eq!(scan(text, cut).starts_with_header(), starts, "{text:?}");
            }
        }
    }

    #[test]
    fn a_line_that_is_no_field_ends_the_header() {
        let scanner = scan("A: b\r\nnonsense\r\nDate: x\r\n", 0);
        assert!(scanner.is_done() && scanner.starts_with_header() && !scanner.has_date());
    }

    #[test]
    fn endless_headers_end() {
        let mut scanner = Scanner::new();
        for _ in 0..100_000 {
            scanner.feed(b"X: y\r\n");
        }
        scanner.feed(b"Date: x\r\n");
        assert!(scanner.is_done() && !scanner.has_date());
        assert!(size_of::<Scanner>() <= 64);
    }

    #[test]
    fn header_of_a_message() {
        assert_eq!(of_message(b"A: b\r\n\r\nx"), b"A: b\r\n");
        assert_eq!(of_message(b"A: b\r\n"), b"A: b\r\n");
        assert_eq!(of_message(b"\r\nx"), b"");
    }
}
