//! What stands between `%{` and `}`: a token, a slice, modifiers (grammar §8).

use ringpost_address::{split_address, strip_extension};

use super::{FormatProblem, FormatValues};

/// One place to fill in.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Value {
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
    UserName,
    UserDirectory,
    MboxFrom,
    Mda,
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
    ("user.username", Token::UserName),
    ("user.directory", Token::UserDirectory),
    ("mbox.from", Token::MboxFrom),
    ("mda", Token::Mda),
    ("tag", Token::Tag),
    ("msgid", Token::MessageId),
    ("evpid", Token::EnvelopeId),
];
const MODIFIERS: &[(&str, Modifier)] = &[
    ("lowercase", Modifier::Lowercase),
    ("uppercase", Modifier::Uppercase),
    ("strip", Modifier::Strip),
    ("raw", Modifier::Raw),
];

impl Value {
    /// Reads `token[slice]:mod|mod`, without the braces.
    pub(super) fn parse(inner: &str, offset: usize) -> Result<Self, FormatProblem> {
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
        let token = look_up(TOKENS, name, offset)?;
        let modifiers = match modifiers {
            Some(list) => list.split('|').map(|name| look_up(MODIFIERS, name, offset)).collect::<Result<_, _>>()?,
            None => Vec::new(),
        };
        Ok(Self { token, slice, modifiers })
    }

    /// Whether the value is the administrator's, not a stranger's: never cleaned, and free to have slashes.
    pub(super) fn is_trusted(&self) -> bool {
        matches!(self.token, Token::UserDirectory | Token::Mda)
    }

    /// Whether a stranger has a hand in the text, and it is to be made harmless.
    pub(super) fn is_cleaned(&self) -> bool {
        !self.is_trusted() && !self.modifiers.contains(&Modifier::Raw)
    }

    /// `%{mda}`, whatever is done with it.
    pub(super) fn is_mda(&self) -> bool {
        self.token == Token::Mda
    }

    /// A user's, whom the userbase must know.
    pub(super) fn is_of_user(&self) -> bool {
        matches!(self.token, Token::UserName | Token::UserDirectory)
    }

    /// The end offset, if it is positive: OpenSMTPD includes it, this language does not.
    pub(super) fn positive_end(&self) -> Option<i64> {
        self.slice.and_then(|slice| slice.end).filter(|end| *end > 0)
    }

    /// Value, modifiers from left to right, cleaning, slice.
    pub(super) fn expand(&self, values: &FormatValues<'_>, out: &mut String) {
        let mut text = self.token.value(values);
        let mut raw = self.is_trusted();
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

/// What has a meaning to a shell or a file system, or is not to be seen, becomes a colon.
fn clean(c: char) -> char {
    let has_meaning = "!\"#$%&'()*/;<>?\\`{|}~".contains(c);
    if has_meaning || c.is_whitespace() || c.is_control() || is_invisible(c) { ':' } else { c }
}

/// Marks of direction, joiners and spaces without width: two names that look the same would be two, and one might read
/// backwards.
fn is_invisible(c: char) -> bool {
    matches!(c, '\u{ad}' | '\u{61c}' | '\u{200b}'..='\u{200f}' | '\u{202a}'..='\u{202e}' | '\u{2060}'..='\u{206f}' | '\u{feff}')
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
            Self::UserName => values.user_name,
            Self::UserDirectory => values.user_directory,
            Self::MboxFrom if values.sender.is_empty() => "MAILER-DAEMON",
            Self::MboxFrom => values.sender,
            Self::Mda => values.mda,
            Self::Tag => values.tag,
            Self::MessageId => values.message_id,
            Self::EnvelopeId => values.envelope_id,
        }
        .to_owned()
    }
}
