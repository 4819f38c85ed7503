//! Problems, and how they are shown (grammar §9): all at once, with place, excerpt and the fix.

use std::cmp::Ordering;
use std::fmt::{self, Write as _};
use std::sync::Arc;

use annotate_snippets::{AnnotationKind, Level, Origin, Renderer, Snippet};

use crate::limits::{NAMES_COMPARED_MAX, REPORTS_KEPT_MAX, REPORTS_SHOWN_MAX};
use crate::source_text::{Place, SourceTexts, Span};

/// How bad it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Severity {
    /// Nothing is loaded.
    Error,
    /// It works, but most likely not as meant.
    Warning,
}

/// One problem.
#[derive(Clone, Debug)]
pub struct Report {
    /// `E0301`, `W0802`: stable.
    pub code: &'static str,
    /// The message, without the place.
    pub message: String,
    /// Where.
    pub span: Span,
    /// What is there, under the caret.
    pub label: Option<&'static str>,
    /// Another place that belongs to it, and what is there.
    pub also: Option<(Span, String)>,
    /// What to do.
    pub help: Option<String>,
}

impl Report {
    pub(crate) fn new(code: &'static str, span: Span, message: impl Into<String>) -> Self {
        Self { code, message: message.into(), span, label: None, also: None, help: None }
    }

    pub(crate) fn label(mut self, label: &'static str) -> Self {
        self.label = Some(label);
        self
    }

    pub(crate) fn help(mut self, help: impl Into<String>) -> Self {
        self.help = Some(help.into());
        self
    }

    pub(crate) fn maybe_help(mut self, help: Option<String>) -> Self {
        self.help = help;
        self
    }

    pub(crate) fn also(mut self, span: Span, label: impl Into<String>) -> Self {
        self.also = Some((span, label.into()));
        self
    }

    /// Error or warning: the code says it.
    pub fn severity(&self) -> Severity {
        if self.code.starts_with('W') { Severity::Warning } else { Severity::Error }
    }
}

/// All problems of a run, with the texts they point into. Sorted by file, line and column.
#[derive(Clone, Debug)]
pub struct Reports {
    reports: Vec<Report>,
    texts: Arc<SourceTexts>,
}

impl Reports {
    pub(crate) fn new(mut reports: Vec<Report>, texts: SourceTexts) -> Self {
        reports.retain(|r| r.severity() == Severity::Error || !texts.is_silenced(r.span, r.code));
        reports.sort_by(order);
        // The same thing found twice is said once: a table that is used in two lines has one bad entry.
        reports.dedup_by(|a, b| a.code == b.code && a.span == b.span && a.message == b.message);
        reports.dedup_by(|a, b| {
            a.severity() == Severity::Warning && a.code == b.code && texts.line(a.span) == texts.line(b.span)
        });
        // Where there is more than anybody reads, warnings must not hide the errors.
        if reports.len() > REPORTS_SHOWN_MAX && reports.iter().any(|r| r.severity() == Severity::Error) {
            reports.retain(|r| r.severity() == Severity::Error);
        }
        reports.truncate(REPORTS_KEPT_MAX);
        Self { reports, texts: Arc::new(texts) }
    }

    pub(crate) fn texts(&self) -> &SourceTexts {
        &self.texts
    }

    /// The problems, in order.
    pub fn iter(&self) -> impl Iterator<Item = &Report> {
        self.reports.iter()
    }

    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.reports.is_empty()
    }

    /// How many errors and warnings.
    pub fn counts(&self) -> (usize, usize) {
        let errors = self.reports.iter().filter(|r| r.severity() == Severity::Error).count();
        (errors, self.reports.len() - errors)
    }

    /// File, line and column (from 1, in characters) of a problem, first and last.
    pub fn place(&self, report: &Report) -> Place {
        self.texts.place(report.span)
    }

    /// As text for people, with a line that sums up.
    pub fn render(&self, look: Look) -> String {
        let mut text = self.render_each(look);
        let (errors, warnings) = self.counts();
        if errors + warnings > 0 {
            let verdict = if errors > 0 { " Nothing was loaded." } else { "" };
            let root = self.texts.root_name();
            let _ = writeln!(text, "{root}: {}, {}.{verdict}", count(errors, "error"), count(warnings, "warning"));
        }
        text
    }

    /// The same without the last line, for what is no configuration.
    pub fn render_each(&self, look: Look) -> String {
        let mut text = String::new();
        for report in self.reports.iter().take(REPORTS_SHOWN_MAX) {
            text.push_str(&self.render_one(report, look));
            text.push_str("\n\n");
        }
        if let Some(more) = self.reports.len().checked_sub(REPORTS_SHOWN_MAX).filter(|more| *more > 0) {
            let _ = writeln!(text, "… and {more} more\n");
        }
        text
    }

    /// One JSON object a line, for `--json` (grammar §9.1).
    pub fn json(&self) -> String {
        let mut lines = String::new();
        for report in &self.reports {
            let place = self.place(report);
            let notes: Vec<_> =
                report.also.iter().map(|(span, text)| format!("{}: {text}", self.texts.at(*span))).collect();
            let object = serde_json::json!({
                "code": report.code,
                "severity": match report.severity() { Severity::Error => "error", Severity::Warning => "warning" },
                "message": report.message,
                "file": place.file,
                "line": place.line,
                "column": place.column,
                "end_line": place.end_line,
                "end_column": place.end_column,
                "notes": notes,
                "help": report.help,
            });
            let _ = writeln!(lines, "{object}");
        }
        lines
    }

    fn render_one(&self, report: &Report, look: Look) -> String {
        let level = match report.severity() {
            Severity::Error => Level::ERROR,
            Severity::Warning => Level::WARNING,
        };
        let title = level.primary_title(report.message.clone()).id(report.code);
        let also = report.also.as_ref().filter(|(span, _)| span.file == report.span.file);
        // Only the lines that matter are handed over: a data file may have a million.
        let excerpt = self.texts.excerpt(report.span, also.map(|(span, _)| *span));
        let name = self.texts.name(report.span.file).to_owned();
        let mut group = match excerpt {
            Some(excerpt) => {
                let mut snippet = Snippet::source(excerpt.text)
                    .line_start(excerpt.first_line)
                    .path(name)
                    .annotation(AnnotationKind::Primary.span(excerpt.primary).label(report.label));
                if let (Some((_, label)), Some(range)) = (also, excerpt.also) {
                    snippet = snippet.annotation(AnnotationKind::Context.span(range).label(label.clone()));
                }
                title.element(snippet)
            }
            None => {
                let place = self.place(report);
                title.element(Origin::path(name).line(place.line).char_column(place.column))
            }
        };
        if let Some(help) = &report.help {
            group = group.element(Level::HELP.message(help.clone()));
        }
        let renderer = match look {
            Look::Plain => Renderer::plain(),
            Look::Coloured => Renderer::styled(),
        };
        renderer.render(&[group])
    }
}

/// Colour or not.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Look {
    /// Plain text.
    Plain,
    /// For terminals.
    Coloured,
}

impl fmt::Display for Reports {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.render(Look::Plain))
    }
}

impl std::error::Error for Reports {}

fn order(a: &Report, b: &Report) -> Ordering {
    let key = |r: &Report| (r.span.file, r.span.start, r.code);
    key(a).cmp(&key(b))
}

fn count(n: usize, what: &str) -> String {
    if n == 1 { format!("1 {what}") } else { format!("{n} {what}s") }
}

/// The nearest of the names that would be right: Damerau–Levenshtein distance of at most 1 + length/4 (grammar §9.1).
pub(crate) fn nearest<'n>(word: &str, right: impl IntoIterator<Item = &'n str>) -> Option<&'n str> {
    let most = 1 + word.chars().count() / 4;
    let near = right.into_iter().take(NAMES_COMPARED_MAX);
    // A difference in bytes is at most four times one in characters.
    let near = near.filter(|name| name.len().abs_diff(word.len()) <= 4 * most);
    let near = near.map(|name| (strsim::damerau_levenshtein(word, name), name));
    near.filter(|(distance, _)| *distance <= most).min_by_key(|(distance, _)| *distance).map(|(_, name)| name)
}

/// ``did you mean `x`?``
pub(crate) fn did_you_mean<'n>(word: &str, right: impl IntoIterator<Item = &'n str>) -> Option<String> {
    nearest(word, right).map(|name| format!("did you mean `{name}`?"))
}
