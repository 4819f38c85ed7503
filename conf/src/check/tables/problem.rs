//! What can be wrong with an entry.

use super::Declared;
use crate::parse::ast::Targ;
use crate::report::Report;
use crate::source_text::{SourceTexts, Span};

/// Complaints about entries, gathered while the texts are borrowed.
pub(super) struct Problems<'a> {
    pub(super) targ: &'a Targ,
    pub(super) table: Option<&'a Declared>,
    pub(super) texts: &'a SourceTexts,
    pub(super) found: Vec<Report>,
    pub(super) failed: bool,
}

impl Problems<'_> {
    /// E0403: an entry is not what the use wants.
    pub(super) fn not(&mut self, text: &str, span: Span, what: &str, how: Option<&str>) {
        let message = format!("`{text}` is not {what}");
        let report = Report::new("E0403", span, message).maybe_help(self.help(how));
        self.error(report);
    }

    pub(super) fn error(&mut self, report: Report) {
        self.failed = true;
        // The rest is as wrong, and would only fill the memory.
        if self.found.len() < crate::limits::REPORTS_KEPT_MAX {
            self.found.push(report);
        }
    }

    pub(super) fn warning(&mut self, report: Report) {
        if self.found.len() < crate::limits::REPORTS_KEPT_MAX {
            self.found.push(report);
        }
    }

    /// Who needs it, unless that stands beside it; and how it is written.
    fn help(&self, how: Option<&str>) -> Option<String> {
        let keyword = self.targ.keyword;
        let needed = self.table.map(|_| format!("needed by `{}` at {}", keyword.value, self.texts.at(keyword.span)));
        let parts: Vec<String> = needed.into_iter().chain(how.map(str::to_owned)).collect();
        (!parts.is_empty()).then(|| parts.join("; "))
    }
}
