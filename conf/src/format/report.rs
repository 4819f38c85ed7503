//! What is said of a format, wherever it stands: in a configuration, or alone on a command line.

use super::{Format, FormatNotice, FormatProblem, NoticeKind};
use crate::report::{Report, Reports};
use crate::source_text::{SourceTexts, Span, narrow};

impl Format {
    /// Reads a format that stands alone, called `name` in reports. With it, what OpenSMTPD would read otherwise.
    ///
    /// # Errors
    /// The one problem, with its place.
    pub fn read(name: &str, text: &str) -> Result<(Self, Reports), Reports> {
        let mut texts = SourceTexts::default();
        let file = texts.add(name.to_owned(), text.to_owned());
        let span = |start: usize, length: usize| Span { file, start: narrow(start), end: narrow(start + length) };
        match Self::parse(text) {
            Ok(format) => {
                let notices = Self::notices(text);
                let reports =
                    notices.into_iter().map(|notice| notice.report(span(notice.offset, notice.len))).collect();
                Ok((format, Reports::new(reports, texts)))
            }
            Err(problem) => {
                let at = problem.offset();
                let place = span(at, written_length(&text[at..]));
                Err(Reports::new(vec![problem.report(place)], texts))
            }
        }
    }
}

/// How long the `%{…}` is that a text begins with; one character if it begins otherwise.
pub(crate) fn written_length(text: &str) -> usize {
    if text.starts_with("%{") {
        return text.find('}').map_or(text.len(), |end| end + 1);
    }
    text.chars().next().map_or(0, char::len_utf8)
}

impl FormatProblem {
    /// E0506, at `span`.
    pub(crate) fn report(self, span: Span) -> Report {
        match self {
            Self::Unknown { name, nearest, .. } => {
                let help = nearest.map(|name| format!("did you mean `{name}`?"));
                Report::new("E0506", span, format!("unknown format `{name}`")).maybe_help(help)
            }
            Self::Unclosed { .. } => Report::new("E0506", span, "unknown format `%{`").help("close it: `%{…}`"),
        }
    }
}

impl FormatNotice {
    /// W0806 or W0812, at `span`.
    pub(crate) fn report(&self, span: Span) -> Report {
        match &self.kind {
            NoticeKind::PositiveEnd { written, inclusive } => {
                let message = format!("the end offset is exclusive here; OpenSMTPD's `{written}` is `{inclusive}`");
                Report::new("W0806", span, message)
            }
            NoticeKind::OneLetter { letter, token } => {
                let message = format!("`%{letter}` is not expanded; the format is `%{{{token}}}`");
                Report::new("W0812", span, message)
            }
        }
    }
}
