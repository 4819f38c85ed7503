//! The texts that were read, and places in them.

use std::ops::Range;
use std::sync::Arc;

use crate::limits::EXCERPT_BYTES_MAX;

/// A piece of a file, in bytes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct Span {
    /// Which file; the first read is 0.
    pub file: u32,
    /// First byte.
    pub start: u32,
    /// Behind the last byte.
    pub end: u32,
}

impl Span {
    /// From the beginning of this to the end of `last`.
    pub(crate) fn to(self, last: Self) -> Self {
        Self { end: last.end.max(self.end), ..self }
    }

    /// The empty place right behind.
    pub(crate) fn after(self) -> Self {
        Self { start: self.end, ..self }
    }
}

/// A span as people count: lines and characters from 1.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Place {
    /// The file, as it was named.
    pub file: String,
    /// First line.
    pub line: usize,
    /// First character.
    pub column: usize,
    /// Last line.
    pub end_line: usize,
    /// Behind the last character.
    pub end_column: usize,
}

/// The lines around a problem.
pub(crate) struct Excerpt {
    pub(crate) text: String,
    pub(crate) first_line: usize,
    pub(crate) primary: Range<usize>,
    pub(crate) also: Option<Range<usize>>,
}

/// Every file that was read, in order.
#[derive(Clone, Debug, Default)]
pub(crate) struct SourceTexts {
    files: Vec<SourceText>,
}

#[derive(Clone, Debug)]
struct SourceText {
    name: Arc<str>,
    text: String,
    /// Byte at which each line begins.
    lines: Vec<u32>,
}

impl SourceTexts {
    pub(crate) fn add(&mut self, name: String, text: String) -> u32 {
        let number = u32::try_from(self.files.len()).expect("includes are bounded by the size of files");
        let starts = text.bytes().enumerate().filter(|(_, b)| *b == b'\n').map(|(at, _)| narrow(at + 1));
        let lines = std::iter::once(0).chain(starts).collect();
        self.files.push(SourceText { name: name.into(), text, lines });
        number
    }

    pub(crate) fn text(&self, file: u32) -> &str {
        &self.files[file as usize].text
    }

    pub(crate) fn name(&self, file: u32) -> &str {
        &self.files[file as usize].name
    }

    /// The same, to keep.
    pub(crate) fn shared_name(&self, file: u32) -> Arc<str> {
        self.files[file as usize].name.clone()
    }

    pub(crate) fn root_name(&self) -> &str {
        self.files.first().map_or("ringpost.conf", |file| &file.name)
    }

    /// The bytes of a span, as they stand in the file.
    pub(crate) fn slice(&self, span: Span) -> &str {
        &self.text(span.file)[span.start as usize..span.end as usize]
    }

    /// Behind the last visible character of a file.
    pub(crate) fn end_of(&self, file: u32) -> Span {
        let end = narrow(self.text(file).trim_end().len());
        Span { file, start: end, end }
    }

    /// File and line, from 1.
    pub(crate) fn line(&self, span: Span) -> (u32, usize) {
        (span.file, self.files[span.file as usize].line_of(span.start))
    }

    pub(crate) fn place(&self, span: Span) -> Place {
        let file = &self.files[span.file as usize];
        let (line, column) = file.line_and_column(span.start);
        let (end_line, end_column) = file.line_and_column(span.end);
        Place { file: file.name.to_string(), line, column, end_line, end_column }
    }

    /// `FILE:LINE:COLUMN`.
    pub(crate) fn at(&self, span: Span) -> String {
        let place = self.place(span);
        format!("{}:{}:{}", place.file, place.line, place.column)
    }

    /// The lines from the first to the last of the two spans, or only those of `span` when the other is far away.
    /// `None`: the line is so long in front of it that nobody would find it there.
    pub(crate) fn excerpt(&self, span: Span, also: Option<Span>) -> Option<Excerpt> {
        const FAR_LINES: usize = 12;
        let file = &self.files[span.file as usize];
        let line = file.line_of(span.start);
        let also = also.filter(|other| file.line_of(other.start).abs_diff(line) <= FAR_LINES);
        let first_line = also.map_or(line, |other| file.line_of(other.start).min(line));
        let last_line = also.map_or(line, |other| file.line_of(other.start).max(line));
        let begin = file.lines[first_line - 1] as usize;
        let end = file.lines.get(last_line).map_or(file.text.len(), |&next| next as usize);
        let text = file.text[begin..end].trim_end_matches(['\n', '\r']);
        let last = also.map_or(span.end, |other| other.end.max(span.end)) as usize - begin;
        if last > 2 * EXCERPT_BYTES_MAX {
            return None;
        }
        let text = &text[..text.floor_char_boundary(last.saturating_add(EXCERPT_BYTES_MAX))];
        // A span ends with its line in the drawing; tabs are one column each (grammar §9.1).
        let inside = |span: Span| {
            let start = (span.start as usize - begin).min(text.len());
            let line_end = text[start..].find('\n').map_or(text.len(), |at| start + at);
            start..(span.end as usize - begin).clamp(start, line_end)
        };
        Some(Excerpt { first_line, primary: inside(span), also: also.map(inside), text: text.replace('\t', " ") })
    }

    /// `# ok W0802` at the end of the line; other words may stand before the `ok`.
    pub(crate) fn is_silenced(&self, span: Span, code: &str) -> bool {
        let file = &self.files[span.file as usize];
        let line = file.line_text(file.line_of(span.start));
        line.rsplit_once('#').is_some_and(|(_, comment)| {
            let mut words = comment.split_whitespace().skip_while(|word| *word != "ok");
            words.next().is_some() && words.any(|word| word == code)
        })
    }

    /// The comment right behind a span, in its last line, without the `#`.
    pub(crate) fn comment_behind(&self, span: Span) -> &str {
        let rest = &self.text(span.file)[span.end as usize..];
        let line = rest.lines().next().unwrap_or_default().trim();
        line.strip_prefix('#').unwrap_or_default().trim()
    }
}

impl SourceText {
    fn line_of(&self, at: u32) -> usize {
        self.lines.partition_point(|&start| start <= at).max(1)
    }

    fn line_text(&self, line: usize) -> &str {
        let begin = self.lines[line - 1] as usize;
        let end = self.lines.get(line).map_or(self.text.len(), |&next| next as usize);
        self.text[begin..end].trim_end_matches(['\n', '\r'])
    }

    fn line_and_column(&self, at: u32) -> (usize, usize) {
        let line = self.line_of(at);
        let begin = self.lines[line - 1] as usize;
        (line, 1 + self.text[begin..at as usize].chars().count())
    }
}

/// Files are at most a GiB (`limits.rs`).
pub(crate) fn narrow(at: usize) -> u32 {
    u32::try_from(at).expect("files are far smaller than 4 GiB")
}
