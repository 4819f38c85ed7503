//! Formats, `%{…}` (grammar §8): read when the configuration is, expanded for each delivery.
//!
//! A value never adds a component to a path: what a stranger may put into it is cleaned, and `..` defers the delivery.

mod report;
mod token;

use std::path::PathBuf;

pub(crate) use self::report::written_length;
use self::token::Value;
use crate::limits::FORMATTED_BYTES_MAX;

/// A text with places to fill in.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Format {
    written: String,
    parts: Vec<Part>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
enum Part {
    Text(String),
    Value(Value),
}

/// What a delivery fills in. Everything is borrowed.
#[derive(Clone, Copy, Debug)]
pub struct FormatValues<'a> {
    /// MAIL FROM without brackets; empty for the null sender.
    pub sender: &'a str,
    /// RCPT TO as given.
    pub recipient: &'a str,
    /// After expansion; the recipient where there was none.
    pub destination: &'a str,
    /// The user's name, from the userbase.
    pub user_name: &'a str,
    /// The user's home directory, from the userbase.
    pub user_directory: &'a str,
    /// The wrapped command, in `mda wrapper` only.
    pub mda: &'a str,
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
            user_name: nothing,
            user_directory: nothing,
            mda: nothing,
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
    /// `%{` without `}`.
    Unclosed {
        /// Where.
        offset: usize,
    },
}

impl FormatProblem {
    /// Where it is, in bytes.
    pub fn offset(&self) -> usize {
        match self {
            Self::Unknown { offset, .. } | Self::Unclosed { offset } => *offset,
        }
    }

    /// The same at another place.
    pub(crate) fn at(mut self, place: usize) -> Self {
        match &mut self {
            Self::Unknown { offset, .. } | Self::Unclosed { offset } => *offset = place,
        }
        self
    }
}

/// What a format says otherwise than one would expect who comes from OpenSMTPD.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FormatNotice {
    /// First byte in the text.
    pub offset: usize,
    /// How many.
    pub len: usize,
    /// What.
    pub kind: NoticeKind,
}

/// The kinds of [`FormatNotice`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum NoticeKind {
    /// A slice with a positive end: `[0:6]`, and what gives the characters that OpenSMTPD would: `[0:7]`.
    PositiveEnd {
        /// The slice.
        written: String,
        /// The other.
        inclusive: String,
    },
    /// `%u`: a format of long ago, which is not expanded.
    OneLetter {
        /// The letter.
        letter: char,
        /// The token that means it.
        token: &'static str,
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
    /// The path begins with `~/`, and nobody's home directory is known.
    #[error("the user has no home directory")]
    NoHome,
}

impl Format {
    /// A text without places, whatever is in it.
    pub fn literal(text: impl Into<String>) -> Self {
        let text = text.into();
        Self { written: text.replace('%', "%%"), parts: vec![Part::Text(text)] }
    }

    /// Reads a text with `%{…}` and `%%`.
    ///
    /// # Errors
    /// What is wrong, and where.
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
        parts.retain(|part| !matches!(part, Part::Text(text) if text.is_empty()));
        Ok(Self { written: text.to_owned(), parts })
    }

    /// What in a text is likely meant otherwise, in order. The text must be good.
    pub fn notices(text: &str) -> Vec<FormatNotice> {
        let mut notices = Vec::new();
        let mut offset = 0;
        while let Some(found) = text[offset..].find('%') {
            let at = offset + found;
            let rest = &text[at + 1..];
            offset = at + 1;
            if rest.starts_with('%') {
                offset += 1;
            } else if let Some(inner) = rest.strip_prefix('{') {
                let close = inner.find('}').unwrap_or(inner.len());
                offset += close + 1;
                notices.extend(positive_end(&inner[..close], at));
            } else if let Some((letter, token)) = one_letter(rest) {
                notices.push(FormatNotice { offset: at, len: 2, kind: NoticeKind::OneLetter { letter, token } });
            }
        }
        notices
    }

    /// The same with a text in front, taken as it is (`--root`).
    pub fn below(mut self, prefix: &str) -> Self {
        self.parts.insert(0, Part::Text(prefix.to_owned()));
        self
    }

    /// As it stands in the file.
    pub fn as_written(&self) -> &str {
        &self.written
    }

    /// Whether it begins with `~/`, the home directory of the user.
    pub fn is_in_home(&self) -> bool {
        matches!(self.parts.first(), Some(Part::Text(text)) if text == "~" || text.starts_with("~/"))
    }

    /// Whether something of a user is in it: his home directory, `%{user.username}`, `%{user.directory}`.
    pub fn mentions_user(&self) -> bool {
        self.is_in_home() || self.parts.iter().any(|part| matches!(part, Part::Value(value) if value.is_of_user()))
    }

    /// Whether `%{mda}` is in it.
    pub fn mentions_mda(&self) -> bool {
        self.parts.iter().any(|part| matches!(part, Part::Value(value) if value.is_mda()))
    }

    /// `%{mda}` and nothing else.
    pub(crate) fn is_mda(&self) -> bool {
        self.written == "%{mda}"
    }

    /// The path of a delivery. `~/` at the beginning is [`FormatValues::user_directory`].
    ///
    /// # Errors
    /// A path that must not be, or a home directory that is not known.
    pub fn expand_path(&self, values: &FormatValues<'_>) -> Result<PathBuf, FormatError> {
        let mut path = String::new();
        let mut dangerous = Vec::new(); // byte ranges that came from strangers
        let mut parts = &self.parts[..];
        if self.is_in_home() {
            let Some((Part::Text(text), others)) = parts.split_first() else { return Err(FormatError::NoHome) };
            if values.user_directory.is_empty() {
                return Err(FormatError::NoHome);
            }
            path.push_str(values.user_directory.trim_end_matches('/'));
            path.push_str(&text[1..]);
            parts = others;
        }
        for part in parts {
            let start = path.len();
            match part {
                Part::Text(text) => path.push_str(text),
                Part::Value(value) => {
                    value.expand(values, &mut path);
                    if !value.is_trusted() {
                        dangerous.push(start..path.len());
                    }
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

    /// The text of one argument. A hyphen at its begin that comes from a stranger becomes a colon: an argument of his making
    /// is no option.
    ///
    /// # Errors
    /// A text that is too long.
    pub fn expand_argument(&self, values: &FormatValues<'_>) -> Result<String, FormatError> {
        let mut text = self.expand_text(values)?;
        let strangers = matches!(self.parts.first(), Some(Part::Value(value)) if value.is_cleaned());
        if strangers && text.starts_with('-') {
            text.replace_range(..1, ":");
        }
        Ok(text)
    }

    /// The text of a destination.
    ///
    /// # Errors
    /// A text that is too long.
    pub fn expand_text(&self, values: &FormatValues<'_>) -> Result<String, FormatError> {
        let mut text = String::new();
        for part in &self.parts {
            match part {
                Part::Text(plain) => text.push_str(plain),
                Part::Value(value) => value.expand(values, &mut text),
            }
            if text.len() > FORMATTED_BYTES_MAX {
                return Err(FormatError::TooLong);
            }
        }
        Ok(text)
    }
}

/// `token[b:e]` with a positive `e`.
fn positive_end(inner: &str, at: usize) -> Option<FormatNotice> {
    let end = Value::parse(inner, at).ok()?.positive_end()?;
    let (open, close) = (inner.find('[')?, inner.find(']')?);
    let written = &inner[open..=close];
    let (begin, _) = written.split_once(':')?;
    let kind = NoticeKind::PositiveEnd { written: written.to_owned(), inclusive: format!("{begin}:{}]", end + 1) };
    Some(FormatNotice { offset: at + 2 + open, len: written.len(), kind })
}

/// The formats of before 2012, as a whole word's part: `%u`, but not `100%off`.
fn one_letter(rest: &str) -> Option<(char, &'static str)> {
    const LETTERS: [(char, &str); 5] = [
        ('a', "dest.user"),
        ('u', "user.username"),
        ('d', "dest.domain"),
        ('A', "sender.user"),
        ('D', "sender.domain"),
    ];
    let mut chars = rest.chars();
    let letter = chars.next()?;
    let ends = !chars.next().is_some_and(char::is_alphanumeric);
    LETTERS.into_iter().find(|(have, _)| *have == letter && ends)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn expand(text: &str, recipient: &str) -> Result<String, FormatError> {
        let values = FormatValues {
            sender: "s@x.org",
            recipient,
            destination: recipient,
            user_name: "gilles",
            user_directory: "/home/gilles",
            tag: "T",
            ..FormatValues::default()
        };
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
            ("%{user.directory}/%{user.username[1:5]}", "/home/gilles/ille"),
            ("~/Maildir", "/home/gilles/Maildir"),
            ("/x/~/y", "/x/~/y"),
        ];
        for (text, expected) in cases {
            assert_eq!(expand(text, rcpt).unwrap(), expected, "{text}");
        }
        let nobody = FormatValues::default();
        assert_eq!(Format::parse("~/x").unwrap().expand_path(&nobody), Err(FormatError::NoHome));
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
    fn whole_slices_change_nothing() {
        for len in 0..=64 {
            let user: String = ('a'..='z').cycle().take(len).collect();
            let text = |slice: &str| expand(&format!("/<%{{rcpt.user{slice}}}>"), &format!("{user}@x.org")).unwrap();
            assert_eq!((text(&format!("[0:{len}]")), text("[:]")), (text(""), format!("/<{user}>")));
        }
    }

    #[test]
    fn strangers_cannot_climb() {
        assert_eq!(expand("/m/%{rcpt.user}/new", "../../etc@x.org").unwrap(), "/m/..:..:etc/new");
        assert_eq!(expand("/m/%{rcpt.ext}", "\"a+b>c;<(d)\"@x.org").unwrap(), "/m/b:c:::d::");
        assert_eq!(expand("/m/%{rcpt.user}", "a\u{202e}b\u{feff}ü@x.org").unwrap(), "/m/a:b:ü");
        assert_eq!(expand("/m/%{rcpt.user}", "..@x.org"), Err(FormatError::Component));
        assert_eq!(expand("/m/.%{rcpt.user}", ".@x.org"), Err(FormatError::Component));
        assert_eq!(expand("/m/%{rcpt.ext}/x", "a@x.org"), Err(FormatError::Component));
        assert_eq!(expand("/m/%{rcpt.user:raw}", "a/../../b@x.org"), Err(FormatError::Component));
        assert_eq!(expand("/m/%{rcpt}", &"a".repeat(2000)), Err(FormatError::TooLong));
        assert_eq!(expand("~/%{rcpt.user}", "..@x.org"), Err(FormatError::Component));
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
    }

    #[test]
    fn what_opensmtpd_would_read_otherwise() {
        let notices = Format::notices("%u/%{rcpt.domain[0:6]}/%%a/%{rcpt[0:-4]}/%{rcpt[3]}/100%off/%D");
        let kinds: Vec<_> = notices.iter().map(|n| (n.offset, n.len, n.kind.clone())).collect();
        let end = NoticeKind::PositiveEnd { written: "[0:6]".into(), inclusive: "[0:7]".into() };
        let letter = |letter, token| NoticeKind::OneLetter { letter, token };
        assert_eq!(kinds, [(0, 2, letter('u', "user.username")), (16, 5, end), (60, 2, letter('D', "sender.domain"))]);
    }
}
