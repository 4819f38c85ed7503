//! Formats, `%{…}` (grammar §8): read when the configuration is, expanded for each delivery.
//!
//! A value never adds a component to a path: what a stranger may put into it is cleaned, and `..` defers the delivery.

use std::path::PathBuf;

use ringpost_address::{split_address, strip_extension};

use crate::limits::FORMATTED_BYTES_MAX;

/// A text with places to fill in.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Format {
    parts: Vec<Part>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
enum Part {
    Text(String),
    Value(Value),
}

#[derive(Clone, Debug, PartialEq, Eq)]
struct Value {
    token: Token,
    slice: Option<Slice>,
    modifiers: Vec<Modifier>,
}

/// Half open, in characters; negative counts from the end.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Slice {
    begin: Option<i64>,
    end: Option<i64>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Modifier {
    Lowercase,
    Uppercase,
    Strip,
    Raw,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Token {
    Address(Whose, Piece),
    MboxFrom,
    Tag,
    MessageId,
    EnvelopeId,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Whose {
    Sender,
    Recipient,
    Destination,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Piece {
    Whole,
    User,
    Domain,
    Extension,
}

/// Every token that this version can fill in.
const TOKENS: &[(&str, Token)] = &[
    ("sender", Token::Address(Whose::Sender, Piece::Whole)),
    ("sender.user", Token::Address(Whose::Sender, Piece::User)),
    ("sender.domain", Token::Address(Whose::Sender, Piece::Domain)),
    ("rcpt", Token::Address(Whose::Recipient, Piece::Whole)),
    ("rcpt.user", Token::Address(Whose::Recipient, Piece::User)),
    ("rcpt.domain", Token::Address(Whose::Recipient, Piece::Domain)),
    ("rcpt.ext", Token::Address(Whose::Recipient, Piece::Extension)),
    ("dest", Token::Address(Whose::Destination, Piece::Whole)),
    ("dest.user", Token::Address(Whose::Destination, Piece::User)),
    ("dest.domain", Token::Address(Whose::Destination, Piece::Domain)),
    ("dest.ext", Token::Address(Whose::Destination, Piece::Extension)),
    ("mbox.from", Token::MboxFrom),
    ("tag", Token::Tag),
    ("msgid", Token::MessageId),
    ("evpid", Token::EnvelopeId),
];
/// Tokens of the grammar that need users, which are not built yet.
const TOKENS_NOT_YET: &[&str] = &["user.username", "user.directory", "mda"];
const MODIFIERS: &[(&str, Modifier)] = &[
    ("lowercase", Modifier::Lowercase),
    ("uppercase", Modifier::Uppercase),
    ("strip", Modifier::Strip),
    ("raw", Modifier::Raw),
];

/// What a delivery fills in. Everything is borrowed.
#[derive(Clone, Copy, Debug)]
pub struct FormatValues<'a> {
    /// MAIL FROM without brackets; empty for the null sender.
    pub sender: &'a str,
    /// RCPT TO as given.
    pub recipient: &'a str,
    /// After expansion; the recipient where there was none.
    pub destination: &'a str,
    /// The session's tag.
    pub tag: &'a str,
    /// The message's id.
    pub message_id: &'a str,
    /// The envelope's id.
    pub envelope_id: &'a str,
    /// `smtp sub-addr-delim`.
    pub delimiter: char,
}

impl Default for FormatValues<'_> {
    fn default() -> Self {
        let nothing = "";
        Self {
            sender: nothing,
            recipient: nothing,
            destination: nothing,
            tag: nothing,
            message_id: nothing,
            envelope_id: nothing,
            delimiter: '+',
        }
    }
}

/// Why a format cannot be read. Offsets are bytes in the text, of the `%{`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum FormatProblem {
    /// No such token or modifier.
    Unknown {
        /// Where.
        offset: usize,
        /// What was written.
        name: String,
        /// The nearest right name.
        nearest: Option<String>,
    },
    /// The token is in the grammar, but needs what is not built yet.
    NotYet {
        /// Where.
        offset: usize,
        /// What was written.
        name: String,
    },
    /// `%{` without `}`.
    Unclosed {
        /// Where.
        offset: usize,
    },
}

/// Why a delivery cannot have its path: the administrator's to mend, so it is deferred (`4.3.5`).
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum FormatError {
    /// A value made an empty component, `.` or `..`.
    #[error("a format made an empty path component, `.` or `..`")]
    Component,
    /// Longer than [`FORMATTED_BYTES_MAX`].
    #[error("a format made a text of more than {FORMATTED_BYTES_MAX} bytes")]
    TooLong,
}

impl Format {
    /// A text without places, whatever is in it.
    pub fn literal(text: impl Into<String>) -> Self {
        Self { parts: vec![Part::Text(text.into())] }
    }

    /// Reads a text with `%{…}` and `%%`.
    pub fn parse(text: &str) -> Result<Self, FormatProblem> {
        let mut parts = Vec::new();
        let mut plain = String::new();
        let mut offset = 0;
        while let Some(found) = text[offset..].find('%') {
            let at = offset + found;
            plain.push_str(&text[offset..at]);
            let rest = &text[at + 1..];
            if rest.starts_with('%') {
                plain.push('%');
                offset = at + 2;
            } else if let Some(inner) = rest.strip_prefix('{') {
                let close = inner.find('}').ok_or(FormatProblem::Unclosed { offset: at })?;
                parts.push(Part::Text(std::mem::take(&mut plain)));
                parts.push(Part::Value(Value::parse(&inner[..close], at)?));
                offset = at + 2 + close + 1;
            } else {
                plain.push('%');
                offset = at + 1;
            }
        }
        plain.push_str(&text[offset..]);
        parts.push(Part::Text(plain));
        Ok(Self { parts })
    }

    /// The same with a text in front, taken as it is (`--root`).
    pub fn below(mut self, prefix: &str) -> Self {
        self.parts.insert(0, Part::Text(prefix.to_owned()));
        self
    }

    /// As it was written, more or less: for listings.
    pub fn describe(&self) -> String {
        let name = |token| TOKENS.iter().find(|(_, have)| *have == token).map_or("", |(name, _)| name);
        let part = |part: &Part| match part {
            Part::Text(text) => text.clone(),
            Part::Value(value) => format!("%{{{}}}", name(value.token)),
        };
        self.parts.iter().map(part).collect()
    }

    /// The path of a delivery.
    pub fn expand_path(&self, values: &FormatValues<'_>) -> Result<PathBuf, FormatError> {
        let mut path = String::new();
        let mut dangerous = Vec::new(); // byte ranges that came from values
        for part in &self.parts {
            let start = path.len();
            match part {
                Part::Text(text) => path.push_str(text),
                Part::Value(value) => {
                    value.expand(values, &mut path);
                    dangerous.push(start..path.len());
                }
            }
            if path.len() > FORMATTED_BYTES_MAX {
                return Err(FormatError::TooLong);
            }
        }
        let mut at = 0;
        for component in path.split('/') {
            let end = at + component.len();
            let from_value = dangerous.iter().any(|range| range.start <= end && range.end >= at);
            if from_value && matches!(component, "" | "." | "..") {
                return Err(FormatError::Component);
            }
            at = end + 1;
        }
        if path.contains('\0') { Err(FormatError::Component) } else { Ok(PathBuf::from(path)) }
    }
}

impl Value {
    /// Reads `token[slice]:mod|mod`, without the braces.
    fn parse(inner: &str, offset: usize) -> Result<Self, FormatProblem> {
        // A slice may hold a colon, so the modifiers begin behind it.
        let slice_end = inner.find(']').map_or(0, |at| at + 1);
        let (head, modifiers) = match inner[slice_end..].find(':') {
            Some(at) => (&inner[..slice_end + at], Some(&inner[slice_end + at + 1..])),
            None => (inner, None),
        };
        let (name, slice) = match head.split_once('[') {
            Some((name, rest)) => {
                let slice = rest.strip_suffix(']').and_then(Slice::parse);
                (name, Some(slice.ok_or_else(|| unknown(offset, head, &[]))?))
            }
            None => (head, None),
        };
        if TOKENS_NOT_YET.contains(&name) {
            return Err(FormatProblem::NotYet { offset, name: name.to_owned() });
        }
        let token = look_up(TOKENS, name, offset)?;
        let modifiers = match modifiers {
            Some(list) => list.split('|').map(|name| look_up(MODIFIERS, name, offset)).collect::<Result<_, _>>()?,
            None => Vec::new(),
        };
        Ok(Self { token, slice, modifiers })
    }

    /// Value, modifiers from left to right, cleaning, slice.
    fn expand(&self, values: &FormatValues<'_>, out: &mut String) {
        let mut text = self.token.value(values);
        let mut raw = false;
        for modifier in &self.modifiers {
            match modifier {
                Modifier::Lowercase => text = text.to_lowercase(),
                Modifier::Uppercase => text = text.to_uppercase(),
                Modifier::Strip => text = strip(&text, values.delimiter),
                Modifier::Raw => raw = true,
            }
        }
        if !raw {
            text = text.chars().map(clean).collect();
        }
        match self.slice {
            Some(slice) => out.extend(slice.of(&text)),
            None => out.push_str(&text),
        }
    }
}

fn look_up<T: Copy>(table: &[(&str, T)], name: &str, offset: usize) -> Result<T, FormatProblem> {
    let names: Vec<&str> = table.iter().map(|(name, _)| *name).collect();
    let found = table.iter().find(|(have, _)| *have == name).map(|(_, value)| *value);
    found.ok_or_else(|| unknown(offset, name, &names))
}

fn unknown(offset: usize, name: &str, right: &[&str]) -> FormatProblem {
    let nearest = crate::report::nearest(name, right.iter().copied()).map(str::to_owned);
    FormatProblem::Unknown { offset, name: name.to_owned(), nearest }
}

/// Without the sub-address, in a local part or a whole address.
fn strip(text: &str, delimiter: char) -> String {
    match split_address(text) {
        Some((local, domain)) => format!("{}@{domain}", strip_extension(local, delimiter).unwrap_or(local)),
        None => strip_extension(text, delimiter).unwrap_or(text).to_owned(),
    }
}

/// What has a meaning to a shell or a file system becomes a colon.
fn clean(c: char) -> char {
    if c.is_whitespace() || c.is_control() || "!#$%&'*?`{|}~/\\".contains(c) { ':' } else { c }
}

impl Slice {
    fn parse(text: &str) -> Option<Self> {
        let number = |text: &str| match text {
            "" => Some(None),
            digits => digits.parse::<i32>().ok().map(|n| Some(i64::from(n))),
        };
        match text.split_once(':') {
            Some((begin, end)) => Some(Self { begin: number(begin)?, end: number(end)? }),
            None => {
                let n = number(text)??;
                // `[-1]` is the last one: the end after it is the end of the text.
                Some(Self { begin: Some(n), end: (n != -1).then_some(n + 1) })
            }
        }
    }

    fn of(self, text: &str) -> impl Iterator<Item = char> + '_ {
        let count = i64::try_from(text.chars().count()).unwrap_or(i64::MAX);
        let place = |n: i64| usize::try_from(if n < 0 { n + count } else { n }.clamp(0, count)).unwrap_or(0);
        let begin = self.begin.map_or(0, place);
        let end = self.end.map_or(usize::MAX, place);
        text.chars().take(end).skip(begin)
    }
}

impl Token {
    fn value(self, values: &FormatValues<'_>) -> String {
        match self {
            Self::Address(whose, piece) => {
                let address = match whose {
                    Whose::Sender => values.sender,
                    Whose::Recipient => values.recipient,
                    Whose::Destination => values.destination,
                };
                let (local, domain) = split_address(address).unwrap_or((address, ""));
                let extension = strip_extension(local, values.delimiter)
                    .map_or("", |plain| &local[plain.len() + values.delimiter.len_utf8()..]);
                match piece {
                    Piece::Whole => address,
                    Piece::User => local,
                    Piece::Domain => domain,
                    Piece::Extension => extension,
                }
            }
            Self::MboxFrom if values.sender.is_empty() => "MAILER-DAEMON",
            Self::MboxFrom => values.sender,
            Self::Tag => values.tag,
            Self::MessageId => values.message_id,
            Self::EnvelopeId => values.envelope_id,
        }
        .to_owned()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn expand(text: &str, recipient: &str) -> Result<String, FormatError> {
        let values =
            FormatValues { sender: "s@x.org", recipient, destination: recipient, tag: "T", ..FormatValues::default() };
        Ok(Format::parse(text).unwrap().expand_path(&values)?.to_str().unwrap().to_owned())
    }

    #[test]
    fn tokens_and_modifiers() {
        let rcpt = "Gilles+List@Example.org";
        let cases = [
            ("/m/%{rcpt}", "/m/Gilles+List@Example.org"),
            ("/m/%{dest.domain:lowercase}/%{dest.user:lowercase|strip}", "/m/example.org/gilles"),
            ("/m/%{rcpt.ext}", "/m/List"),
            ("/m/%{rcpt.user[0:1]:lowercase}", "/m/g"),
            ("/m/%{sender.user:uppercase}-%{mbox.from}", "/m/S-s@x.org"),
            ("/m/100%%%d%{tag}", "/m/100%%dT"),
        ];
        for (text, expected) in cases {
            assert_eq!(expand(text, rcpt).unwrap(), expected, "{text}");
        }
    }

    #[test]
    fn slices_of_the_grammar() {
        let cases = [
            ("[0]", "e"),
            ("[8:]", "org"),
            ("[-3:]", "org"),
            ("[0:7]", "example"),
            ("[:-4]", "example"),
            ("[-1]", "g"),
            ("[0:99]", "example.org"),
        ];
        for (slice, expected) in cases {
            let got = expand(&format!("/%{{dest.domain{slice}}}"), "a@example.org").unwrap();
            assert_eq!(got, format!("/{expected}"), "{slice}");
        }
        assert_eq!(expand("/%{dest.domain[20:]}", "a@example.org"), Err(FormatError::Component));
        assert_eq!(expand("/x%{dest.domain[5:2]}", "a@example.org").unwrap(), "/x");
    }

    #[test]
    fn strangers_cannot_climb() {
        assert_eq!(expand("/m/%{rcpt.user}/new", "../../etc@x.org").unwrap(), "/m/..:..:etc/new");
        assert_eq!(expand("/m/%{rcpt.user}", "..@x.org"), Err(FormatError::Component));
        assert_eq!(expand("/m/.%{rcpt.user}", ".@x.org"), Err(FormatError::Component));
        assert_eq!(expand("/m/%{rcpt.ext}/x", "a@x.org"), Err(FormatError::Component));
        assert_eq!(expand("/m/%{rcpt.user:raw}", "a/../../b@x.org"), Err(FormatError::Component));
        assert_eq!(expand("/m/%{rcpt}", &"a".repeat(2000)), Err(FormatError::TooLong));
    }

    #[test]
    fn mistakes() {
        let unknown = |name: &str, nearest: Option<&str>, offset| {
            Err(FormatProblem::Unknown { offset, name: name.into(), nearest: nearest.map(str::to_owned) })
        };
        assert_eq!(Format::parse("/m/%{sender@domain}"), unknown("sender@domain", Some("sender.domain"), 3));
        assert_eq!(Format::parse("%{rcpt:lowercas}"), unknown("lowercas", Some("lowercase"), 0));
        assert_eq!(Format::parse("%{rcpt[a]}"), unknown("rcpt[a]", None, 0));
        assert_eq!(Format::parse("x%{rcpt"), Err(FormatProblem::Unclosed { offset: 1 }));
        let not_yet = FormatProblem::NotYet { offset: 0, name: "user.username".into() };
        assert_eq!(Format::parse("%{user.username}"), Err(not_yet));
    }
}
