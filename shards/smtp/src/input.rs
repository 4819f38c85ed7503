//! Lines, dots and line ends: what separates commands, and where a message ends. The sink (server) and the source
//! (client's [`Stuffer`]) of a message's wire form stand side by side.
//!
//! Only CRLF ends a line and only CRLF.CRLF ends a message. A bare CR or LF is never taken for either, or two servers could
//! disagree on where a message ends (SMTP smuggling).

use memchr::memmem;

/// What stands at the start of the input while commands are expected.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Line<'i> {
    /// No end of line yet.
    Incomplete,
    /// A line without its CRLF; printable or above 0x7F throughout. The number counts the bytes with CRLF.
    Text(&'i [u8], usize),
    /// A bare LF came first; the number counts the bytes up to and with it.
    BareLf(usize),
    /// A line with a bare CR inside.
    BareCr(usize),
    /// A line with another control character inside.
    Control(usize),
    /// No end within the limit; the number counts the bytes that can be dropped already.
    TooLong(usize),
}

/// Finds the first line. `bytes_max` includes CRLF. The outcome does not depend on how much more input there is.
pub(crate) fn line(input: &[u8], bytes_max: usize) -> Line<'_> {
    let window = &input[..input.len().min(bytes_max)];
    let Some(lf) = memchr::memchr(b'\n', window) else {
        return match window.len() == bytes_max {
            true => Line::TooLong(window.len() - usize::from(window.ends_with(b"\r"))),
            false => Line::Incomplete,
        };
    };
    let Some(text) = window[..lf].strip_suffix(b"\r") else { return Line::BareLf(lf + 1) };
    let controls = text.iter().fold(false, |found, byte| found | (*byte < 0x20) | (*byte == 0x7F));
    if !controls {
        return Line::Text(text, lf + 1);
    }
    match memchr::memchr(b'\r', text) {
        Some(_) => Line::BareCr(lf + 1),
        None => Line::Control(lf + 1),
    }
}

/// While the rest of a line is dropped: bytes to drop, and whether its CRLF is among them.
pub(crate) fn skip_line(input: &[u8]) -> (usize, bool) {
    match memmem::find(input, b"\r\n") {
        Some(at) => (at + 2, true),
        None => (input.len() - usize::from(input.ends_with(b"\r")), false),
    }
}

/// What stands at the start of the input while a message is received after DATA.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Text {
    /// It cannot be told yet.
    Incomplete,
    /// `dot` bytes to drop (a stuffed dot), then the bytes up to `end` belong to the message.
    Run {
        /// 0 or 1.
        dot: usize,
        /// End of the run in the input.
        end: usize,
        /// A new line begins after the run.
        line_start: bool,
    },
    /// CRLF.CRLF: three bytes of it are here.
    End,
}

/// Bytes of `.` CRLF.
pub(crate) const END_BYTES: usize = 3;

/// Finds the longest run of message bytes: up to the next line that begins with a dot, or all there is. A CR at the end
/// stays in the input until what follows it is known, so that a run holds whole line ends.
pub(crate) fn text(input: &[u8], line_start: bool) -> Text {
    let dot = match input {
        [b'.', b'\r', b'\n', ..] if line_start => return Text::End,
        [b'.'] | [b'.', b'\r'] if line_start => return Text::Incomplete,
        [b'.', ..] if line_start => 1,
        _ => 0,
    };
    let (end, line_start) = match memmem::find(&input[dot..], b"\r\n.") {
        Some(at) => (dot + at + 2, true),
        None => {
            let end = input.len() - usize::from(input.ends_with(b"\r"));
            (end, input[..end].ends_with(b"\r\n"))
        }
    };
    match end == dot {
        true => Text::Incomplete,
        false => Text::Run { dot, end, line_start },
    }
}

/// Whether every CR in `run` is followed by LF and every LF follows a CR. `after_cr`: the byte before the run was a CR.
/// A CR at the very end is not judged. Branch-free, so that the compiler can take many bytes at a time.
pub(crate) fn is_clean(run: &[u8], after_cr: bool) -> bool {
    let Some(first) = run.first() else { return true };
    if (*first == b'\n') != after_cr {
        return false;
    }
    // In pieces: a broken message need not be read to its end, a sound one is checked at full width.
    run[..run.len() - 1].chunks(CHECK_BYTES).zip(run[1..].chunks(CHECK_BYTES)).all(|(before, after)| {
        before.iter().zip(after).fold(0_u8, |wrong, (a, b)| wrong | (u8::from(*a == b'\r') ^ u8::from(*b == b'\n')))
            == 0
    })
}

/// Bytes checked between two looks at the result.
const CHECK_BYTES: usize = 4096;

/// Makes the wire form of a message for DATA (RFC 5321 §4.5.2): a dot more where a line begins with one, and the end.
/// Streaming: the pieces of a message may be cut anywhere.
#[derive(Clone, Debug)]
pub struct Stuffer {
    tail: Tail,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Tail {
    Start,
    Line,
    Cr,
    CrLf,
    /// A bare LF: no line end for us, perhaps one for a careless receiver, so a dot behind it is stuffed as well.
    BareLf,
}

impl Default for Stuffer {
    fn default() -> Self {
        Self::new()
    }
}

impl Stuffer {
    /// For one message.
    pub fn new() -> Self {
        Self { tail: Tail::Start }
    }

    /// Appends a piece of the message to `out`.
    pub fn stuff(&mut self, piece: &[u8], out: &mut Vec<u8>) {
        let Some(first) = piece.first() else { return };
        out.reserve(piece.len() + 1);
        if *first == b'.' && matches!(self.tail, Tail::Start | Tail::CrLf | Tail::BareLf) {
            out.push(b'.');
        }
        let mut copied = 0;
        for at in memmem::find_iter(piece, b"\n.") {
            out.extend_from_slice(&piece[copied..=at]);
            out.push(b'.');
            copied = at + 1;
        }
        out.extend_from_slice(&piece[copied..]);
        self.tail = match piece {
            [.., b'\r', b'\n'] => Tail::CrLf,
            [b'\n'] if self.tail == Tail::Cr => Tail::CrLf,
            [.., b'\n'] => Tail::BareLf,
            [.., b'\r'] => Tail::Cr,
            _ => Tail::Line,
        };
    }

    /// Appends the end of the message: CRLF if its last line has none, then `.` CRLF. Ready for another message afterwards.
    pub fn finish(&mut self, out: &mut Vec<u8>) {
        match self.tail {
            Tail::Start | Tail::CrLf => {}
            Tail::Cr => out.push(b'\n'),
            Tail::Line | Tail::BareLf => out.extend_from_slice(b"\r\n"),
        }
        out.extend_from_slice(b".\r\n");
        self.tail = Tail::Start;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines() {
        assert_eq!(line(b"NOOP", 9), Line::Incomplete);
        assert_eq!(line(b"NOOP\r", 9), Line::Incomplete);
        assert_eq!(line(b"NOOP\r\nX", 9), Line::Text(b"NOOP", 6));
        assert_eq!(line(b"NOOP\nX\r\n", 9), Line::BareLf(5));
        assert_eq!(line(b"\n", 9), Line::BareLf(1));
        assert_eq!(line(b"NO\rOP\r\n", 9), Line::BareCr(7));
        assert_eq!(line(b"NO\0OP\r\n", 9), Line::Control(7));
        assert_eq!(line(b"1234567\r\n", 9), Line::Text(b"1234567", 9));
        assert_eq!(line(b"12345678\r\n", 9), Line::TooLong(8));
        assert_eq!(line(b"123456789", 9), Line::TooLong(9));
    }

    #[test]
    fn only_crlf_dot_crlf_ends_a_message() {
        let run = |end, line_start| Text::Run { dot: 0, end, line_start };
        assert_eq!(text(b".\r\n", true), Text::End);
        assert_eq!(text(b".\r\n", false), run(3, true));
        assert_eq!(text(b".\n", true), Text::Run { dot: 1, end: 2, line_start: false });
        assert_eq!(text(b".\r", true), Text::Incomplete);
        assert_eq!(text(b"", true), Text::Incomplete);
        assert_eq!(text(b"\r", false), Text::Incomplete);
        assert_eq!(text(b"a\r\n.\r\n", true), run(3, true));
        assert_eq!(text(b"a\n.\n", true), run(4, false));
        assert_eq!(text(b"a\r", true), run(1, false));
        assert_eq!(text(b"..a\r\n.", true), Text::Run { dot: 1, end: 5, line_start: true });
    }

    #[test]
    fn bare_newlines_are_found_wherever_they_stand() {
        let sound = b"ab\r\n\r\ncd\r\n".repeat(1000);
        assert!(is_clean(&sound, false));
        assert!(is_clean(b"\n", true) && is_clean(b"", true) && is_clean(b"\r", false));
        assert!(!is_clean(b"\n", false) && !is_clean(b"a", true) && !is_clean(b"\r", true));
        for at in 0..sound.len() {
            let mut broken = sound.clone();
            broken[at] = match broken[at] {
                b'\r' => b'x',
                b'\n' => b'\r',
                _ => b'\n',
            };
            // A CR in the last place is judged with what follows it.
            assert!(!is_clean(&broken, false) || at == sound.len() - 1, "{at}");
        }
    }

    #[test]
    fn stuffing_is_the_same_for_every_cut() {
        for (body, wire) in [
            ("", ".\r\n"),
            ("a", "a\r\n.\r\n"),
            ("a\r\n", "a\r\n.\r\n"),
            ("a\r", "a\r\n.\r\n"),
            (".", "..\r\n.\r\n"),
            (".\r\n.a\r\n..\r\n", "..\r\n..a\r\n...\r\n.\r\n"),
            ("\n.\n", "\n..\n\r\n.\r\n"),
            ("a.b\r\n", "a.b\r\n.\r\n"),
        ] {
            for cut in 0..=body.len() {
                let mut out = Vec::new();
                let mut stuffer = Stuffer::new();
                stuffer.stuff(&body.as_bytes()[..cut], &mut out);
                stuffer.stuff(&body.as_bytes()[cut..], &mut out);
                stuffer.finish(&mut out);
                assert_eq!(String::from_utf8(out).unwrap(), wire, "{body:?} at {cut}");
            }
        }
    }
}
