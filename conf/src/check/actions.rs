//! Actions: formats, relay URLs, source addresses.

use std::path::Path;
use std::time::Duration;

use super::Reading;
use super::relay_url::relay_host;
use super::tables::Tables;
use crate::format::{Format, FormatProblem};
use crate::model::{Action, ActionKind, LocalOptions, Maildir, Relay};
use crate::parse::ast::{ActionKindLine, ActionLine, RelayLine, Word};
use crate::report::Report;
use crate::source_text::{Span, narrow};
use crate::tables::SourceAddresses;

/// One for each line, so that indices agree; what is wrong with it was told, and it then discards.
pub(super) fn actions(
    lines: &[ActionLine],
    queue_ttl: Duration,
    tables: &mut Tables,
    reading: &mut Reading<'_>,
) -> Vec<Action> {
    let mut actions = Vec::with_capacity(lines.len());
    for line in lines {
        let kind = match &line.kind {
            ActionKindLine::Relay(relay_line) => ActionKind::Relay(Box::new(relay(relay_line, tables, reading))),
            ActionKindLine::Maildir(path) => match maildir(path, reading) {
                Some(maildir) => ActionKind::Maildir(maildir),
                None => ActionKind::Discard,
            },
            ActionKindLine::Discard | ActionKindLine::Broken => ActionKind::Discard,
        };
        let name = line.name.text.clone();
        actions.push(Action {
            name,
            kind,
            mapping: None,
            local: LocalOptions::default(),
            ttl: line.ttl.unwrap_or(queue_ttl),
            line: reading.line(line.span),
        });
    }
    actions
}

fn relay(line: &RelayLine, tables: &mut Tables, reading: &mut Reading<'_>) -> Relay {
    let hosts = line.host.as_ref().and_then(|(_, targ)| tables.list(targ, reading)).unwrap_or_default();
    let hosts = hosts.iter().filter_map(|entry| relay_host(entry, reading)).collect();
    let sources = line.src.as_ref().and_then(|(keyword, targ)| tables.set::<SourceAddresses>(targ, *keyword, reading));
    let sources = sources.map_or_else(Vec::new, |list| list.0.clone());
    Relay { hosts, helo: line.helo.clone(), sources, ..Relay::default() }
}

fn maildir(path: &Word, reading: &mut Reading<'_>) -> Option<Maildir> {
    match Format::parse(&path.text) {
        Ok(format) => {
            let directory = Path::new(reading.texts.name(path.span.file)).parent().unwrap_or(Path::new(""));
            let format = match &reading.options.root {
                Some(root) if path.text.starts_with('/') => format.below(&root.to_string_lossy()),
                _ if path.text.starts_with('/') => format,
                _ => format.below(&directory.join("").to_string_lossy()),
            };
            Some(Maildir { path: format, junk: false })
        }
        Err(problem) => {
            reading.report(format_problem(problem, path, reading));
            None
        }
    }
}

/// E0506 at the `%{` itself.
fn format_problem(problem: FormatProblem, word: &Word, reading: &Reading<'_>) -> Report {
    let span = format_span(word, problem.offset(), reading);
    match problem {
        FormatProblem::Unknown { name, nearest, .. } => {
            let help = nearest.map(|name| format!("did you mean `{name}`?"));
            Report::new("E0506", span, format!("unknown format `{name}`")).maybe_help(help)
        }
        FormatProblem::Unclosed { .. } => Report::new("E0506", span, "unknown format `%{`").help("close it: `%{…}`"),
    }
}

/// The place of a format within its word, if the word stands in the file as it is; else the word.
fn format_span(word: &Word, offset: usize, reading: &Reading<'_>) -> Span {
    let written = reading.texts.slice(word.span);
    let quote = usize::from(word.quoted);
    let as_is = written.get(quote..written.len().saturating_sub(quote)) == Some(word.text.as_str());
    if !as_is {
        return word.span;
    }
    let length = word.text[offset..].find('}').map_or(word.text.len() - offset, |end| end + 1);
    let start = word.span.start + narrow(quote + offset);
    Span { start, end: start + narrow(length), ..word.span }
}
