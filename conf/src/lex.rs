//! From characters to tokens (grammar §2). Macros are found here, and replaced in `parse/tokens.rs`.
//!
//! A word with an error becomes [`Raw::Error`], about which nobody says anything further.

use crate::limits::{REPORTS_KEPT_MAX, WORD_BYTES_MAX};
use crate::report::Report;
use crate::source_text::{Span, narrow};
use crate::text::Text;

/// A token as it stands in the file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct RawToken {
    pub(crate) kind: Raw,
    pub(crate) span: Span,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Raw {
    /// A bare word.
    Word(Text),
    /// A bare word with `${name}` in it.
    Template(Vec<Piece>),
    /// A quoted word, escapes undone.
    Quoted(Text),
    /// `$name`.
    Macro(String),
    /// Anything that has one spelling.
    Mark(Mark),
    Newline,
    Error,
}

/// A piece of a [`Raw::Template`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Piece {
    Text(String),
    Macro(String),
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Mark {
    Open,
    Close,
    Less,
    Greater,
    Comma,
    Assign,
    Not,
}

/// Reads a whole text. Spans point into `file`.
pub(crate) fn lex(text: &str, file: u32, reports: &mut Vec<Report>) -> Vec<RawToken> {
    let mut lexer = Lexer { text, file, at: 0, comments: Vec::new(), reports };
    let mut tokens = Vec::new();
    if text.starts_with('\u{feff}') {
        lexer.at = '\u{feff}'.len_utf8(); // a byte-order mark, from an editor
    }
    while let Some(token) = lexer.next() {
        tokens.push(token);
    }
    tokens
}

/// Where the comments of a text are, `#` included, without the end of the line.
pub(crate) fn comments(text: &str) -> Vec<std::ops::Range<usize>> {
    let mut reports = Vec::new();
    let mut lexer = Lexer { text, file: 0, at: 0, comments: Vec::new(), reports: &mut reports };
    while lexer.next().is_some() {}
    lexer.comments
}

struct Lexer<'t> {
    text: &'t str,
    file: u32,
    at: usize,
    comments: Vec<std::ops::Range<usize>>,
    reports: &'t mut Vec<Report>,
}

impl Lexer<'_> {
    fn next(&mut self) -> Option<RawToken> {
        self.skip_space_and_comments();
        let start = self.at;
        let first = self.peek()?;
        let kind = match first {
            '\n' => self.take(1, Raw::Newline),
            '\r' if self.rest().starts_with("\r\n") => self.take(2, Raw::Newline),
            '{' => self.take(1, Raw::Mark(Mark::Open)),
            '}' => self.take(1, Raw::Mark(Mark::Close)),
            ',' => self.take(1, Raw::Mark(Mark::Comma)),
            '!' => self.take(1, Raw::Mark(Mark::Not)),
            '=' if self.rest().starts_with("=>") => self.take(2, Raw::Mark(Mark::Assign)),
            '=' => self.take(1, Raw::Mark(Mark::Assign)),
            // The null sender of K_MAILADDR; no table has an empty name.
            '<' if self.rest().starts_with("<>") => self.take(2, Raw::Word("<>".into())),
            '<' => self.take(1, Raw::Mark(Mark::Less)),
            '>' => self.take(1, Raw::Mark(Mark::Greater)),
            '"' | '\'' => self.quoted(first),
            '$' if !self.rest().starts_with("${") => self.macro_name(),
            c if is_word(c) || c == '$' => self.word(),
            c => self.unexpected(c),
        };
        Some(RawToken { kind, span: self.span(start, self.at) })
    }

    fn rest(&self) -> &str {
        &self.text[self.at..]
    }

    fn peek(&self) -> Option<char> {
        self.rest().chars().next()
    }

    fn take(&mut self, bytes: usize, kind: Raw) -> Raw {
        self.at += bytes;
        kind
    }

    fn span(&self, start: usize, end: usize) -> Span {
        Span { file: self.file, start: narrow(start), end: narrow(end) }
    }

    fn report(&mut self, code: &'static str, start: usize, message: impl Into<String>) {
        let end = start + self.text[start..].chars().next().map_or(0, char::len_utf8);
        if self.reports.len() < REPORTS_KEPT_MAX {
            self.reports.push(Report::new(code, self.span(start, end), message));
        }
    }

    fn skip_space_and_comments(&mut self) {
        loop {
            let rest = self.rest();
            if rest.starts_with([' ', '\t']) {
                self.at += 1;
            } else if let Some(bytes) = continuation(rest) {
                self.at += bytes;
            } else if rest.starts_with('#') {
                self.comment();
            } else {
                return;
            }
        }
    }

    /// To the end of the line, and further when a backslash ends it (as in OpenSMTPD).
    fn comment(&mut self) {
        let start = self.at;
        self.comment_lines();
        self.comments.push(start..self.at);
    }

    fn comment_lines(&mut self) {
        loop {
            let line_bytes = self.rest().find('\n').unwrap_or(self.rest().len());
            let line = self.rest()[..line_bytes].trim_end_matches('\r');
            let (visible_bytes, ends_in_backslash) = (line.len(), line.ends_with('\\'));
            let line_end = self.at + line_bytes;
            self.at += visible_bytes;
            if !ends_in_backslash || line_end >= self.text.len() {
                return;
            }
            self.report("W0809", self.at - 1, "this comment goes on, because of the backslash at its end");
            self.at = line_end + 1;
        }
    }

    fn quoted(&mut self, quote: char) -> Raw {
        let start = self.at;
        let mut value = String::new();
        self.at += 1;
        while let Some(c) = self.peek() {
            if c == quote {
                self.at += 1;
                return self.bounded(start, value.len(), Raw::Quoted(value.into()));
            }
            if c == '\n' {
                break;
            }
            if let Some(bytes) = continuation(self.rest()) {
                self.at += bytes;
                continue;
            }
            self.at += c.len_utf8();
            // Any backslash that escapes nothing stays, so that regular expressions keep theirs.
            match self.peek() {
                Some(next @ ('\\' | '"' | '\'')) if c == '\\' => {
                    value.push(next);
                    self.at += 1;
                }
                _ => value.push(c),
            }
        }
        self.report("E0101", start, "string is not closed on this line");
        Raw::Error
    }

    fn macro_name(&mut self) -> Raw {
        let start = self.at;
        self.at += 1;
        // A password hash without quotes looks like this: `$2b$10$…` is one mistake, not three.
        let bytes = self.rest().find(|c| !is_word(c) && c != '$').unwrap_or(self.rest().len());
        if bytes == 0 {
            self.report("E0103", start, "unexpected character `$`");
            return Raw::Error;
        }
        let name = self.rest()[..bytes].to_owned();
        self.at += bytes;
        self.after_word(start, name.len(), Raw::Macro(name))
    }

    fn word(&mut self) -> Raw {
        let start = self.at;
        let mut pieces = Vec::new();
        let mut text = String::new();
        let mut bad = false;
        while let Some(c) = self.peek() {
            if c == '$' && self.rest().starts_with("${") {
                let Some((name, bytes)) = braced_name(self.rest()) else { break };
                self.at += bytes;
                pieces.push(Piece::Text(std::mem::take(&mut text)));
                pieces.push(Piece::Macro(name));
            } else if c == '$' && starts_name(&self.rest()[1..]) {
                let name_bytes = self.rest()[1..].find(|c| !is_name(c)).map_or(self.rest().len(), |at| at + 1);
                let name = self.rest()[1..name_bytes].to_owned();
                if !bad {
                    self.report("E0105", start, format!("macro inside a word; write `${{{name}}}`"));
                }
                bad = true;
                self.at += name_bytes;
            } else if is_word(c) || c == '$' {
                text.push(c);
                self.at += c.len_utf8();
            } else {
                break;
            }
        }
        if self.at == start {
            self.report("E0103", start, "unexpected character `$`");
            self.at += 1;
            return Raw::Error;
        }
        let bytes = self.at - start;
        let kind = if bad {
            Raw::Error
        } else if pieces.is_empty() {
            Raw::Word(text.into())
        } else {
            pieces.push(Piece::Text(text));
            Raw::Template(pieces)
        };
        self.after_word(start, bytes, kind)
    }

    /// What may not follow a word, and what may not be one.
    fn after_word(&mut self, start: usize, bytes: usize, kind: Raw) -> Raw {
        if self.peek() == Some('#') {
            let message = "`#` inside a word; quote the word, or put a space before a comment";
            self.report("E0102", self.at, message);
            let end = self.rest().find(|c: char| c.is_whitespace() || "{}<>(),=\"'".contains(c));
            self.at += end.unwrap_or(self.rest().len());
            return Raw::Error;
        }
        if kind == Raw::Word("[...]".into()) {
            let span = self.span(start, self.at);
            let message = "`[...]` is an omission in documentation, not configuration";
            self.reports.push(Report::new("E0210", span, message));
            return Raw::Error;
        }
        self.bounded(start, bytes, kind)
    }

    fn bounded(&mut self, start: usize, bytes: usize, kind: Raw) -> Raw {
        if bytes <= WORD_BYTES_MAX {
            return kind;
        }
        self.report("E0103", start, format!("a word has at most {WORD_BYTES_MAX} bytes"));
        Raw::Error
    }

    fn unexpected(&mut self, c: char) -> Raw {
        let start = self.at;
        let shown = if c.is_control() { c.escape_default().to_string() } else { c.to_string() };
        self.report("E0103", start, format!("unexpected character `{shown}`"));
        self.at += c.len_utf8();
        // The rest of a would-be word belongs to the same mistake.
        self.at += self.rest().find(|c| !is_word(c)).unwrap_or(self.rest().len());
        Raw::Error
    }
}

fn is_word(c: char) -> bool {
    !c.is_whitespace() && !c.is_control() && !"{}<>(),=#\"'\\$".contains(c)
}

fn is_name(c: char) -> bool {
    c.is_alphanumeric() || c == '_' || c == '-'
}

fn starts_name(text: &str) -> bool {
    text.starts_with(|c: char| c.is_alphabetic() || c == '_')
}

/// A backslash right before the end of the line: how many bytes that takes.
fn continuation(rest: &str) -> Option<usize> {
    ["\\\n", "\\\r\n"].iter().find(|end| rest.starts_with(**end)).map(|end| end.len())
}

/// `${name}`, and its bytes.
fn braced_name(rest: &str) -> Option<(String, usize)> {
    let inner = rest.strip_prefix("${")?;
    let bytes = inner.find('}')?;
    let name = &inner[..bytes];
    (!name.is_empty() && name.chars().all(is_word)).then(|| (name.to_owned(), bytes + 3))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn kinds(text: &str) -> (Vec<Raw>, Vec<(&'static str, u32)>) {
        let mut reports = Vec::new();
        let tokens = lex(text, 0, &mut reports);
        (tokens.into_iter().map(|t| t.kind).collect(), reports.iter().map(|r| (r.code, r.span.start)).collect())
    }

    fn word(text: &str) -> Raw {
        Raw::Word(text.into())
    }

    fn quoted(text: &str) -> Raw {
        Raw::Quoted(text.into())
    }

    #[test]
    fn bare_words_of_the_grammar() {
        for text in [
            "*.example.org",
            "@example.org",
            "192.168.1.0/24",
            "[::1]",
            "tls+auth://label@mx.example.org:31337",
            "~/Maildir",
            "35M",
            "100/s",
            "HIGH:!aNULL",
            "a$",
            "`x`",
        ] {
            assert_eq!(kinds(text), (vec![word(text)], vec![]), "{text}");
        }
    }

    #[test]
    fn marks_comments_and_continuations() {
        let (tokens, reports) = kinds("a=b => <c>!d, {e} # f\r\nx\\\n  y #z \\\n still\n");
        let m = Raw::Mark;
        let expected = vec![
            word("a"),
            m(Mark::Assign),
            word("b"),
            m(Mark::Assign),
            m(Mark::Less),
            word("c"),
            m(Mark::Greater),
            m(Mark::Not),
            word("d"),
            m(Mark::Comma),
            m(Mark::Open),
            word("e"),
            m(Mark::Close),
            Raw::Newline,
            word("x"),
            word("y"),
            Raw::Newline,
        ];
        assert_eq!(tokens, expected);
        assert_eq!(reports, [("W0809", 33)]);
    }

    #[test]
    fn quotes() {
        assert_eq!(kinds(r#""a\"b" 'c"d' "^\d+\\x$" "#).0, [quoted("a\"b"), quoted("c\"d"), quoted(r"^\d+\x$")]);
        assert_eq!(kinds("\"a \\\n b\"").0, [quoted("a  b")]);
        assert_eq!(kinds("x \"abc\ny").0, [word("x"), Raw::Error, Raw::Newline, word("y")]);
        assert_eq!(kinds("x \"abc\ny").1, [("E0101", 2)]);
    }

    #[test]
    fn macros() {
        let template =
            Raw::Template(vec![Piece::Text("smtp://".into()), Piece::Macro("host".into()), Piece::Text(":25".into())]);
        assert_eq!(kinds("$ext_if smtp://${host}:25").0, [Raw::Macro("ext_if".into()), template]);
        assert_eq!(kinds("smtp://$main_server x"), (vec![Raw::Error, word("x")], vec![("E0105", 0)]));
        assert_eq!(kinds("$ x").1, [("E0103", 0)]);
        assert_eq!(kinds("${ x").1, [("E0103", 0)]);
    }

    #[test]
    fn mistakes() {
        assert_eq!(kinds("a clear#text }").1, [("E0102", 7)]);
        assert_eq!(kinds("a (b) c").1, [("E0103", 2), ("E0103", 4)]);
        assert_eq!(kinds(r"a\b").0, [word("a"), Raw::Error]);
        assert_eq!(kinds("[...]").1, [("E0210", 0)]);
        assert_eq!(kinds(&"x".repeat(9000)).1, [("E0103", 0)]);
        assert_eq!(kinds("a\0b").1, [("E0103", 1)]);
    }
}
