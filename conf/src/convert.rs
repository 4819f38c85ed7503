//! `ringpost convert`: a file in the words of today. Statements that are in them already stay as they stand, with their macros
//! and their layout; of the others, the comments are kept.

use std::path::Path;

use crate::canonical;
use crate::format::{Format, NoticeKind};
use crate::lex::comments;
use crate::limits::FILE_BYTES_MAX;
use crate::load::{Options, Source, unreadable};
use crate::old_style;
use crate::parse::Parser;
use crate::parse::ast::{Arg, Said};
use crate::report::{Reports, Severity};
use crate::source_text::{SourceTexts, Span};

/// What stands instead of a piece of the file.
struct Rewrite {
    span: Span,
    /// Lines, and whether an offset was changed in them that this language reads otherwise.
    lines: Vec<(String, bool)>,
}

/// The text of a file in the words of today, with what was to be said about it. Only the file itself is converted, not what it
/// includes; tables and other files are not looked at.
///
/// # Errors
/// What cannot be read in it, and in what it includes.
pub fn convert(source: &dyn Source, path: &Path, options: &Options) -> Result<(String, Reports), Reports> {
    let mut parser = Parser::new(source, options);
    match source.read(path, FILE_BYTES_MAX) {
        Ok(bytes) => parser.read(path, bytes),
        Err(error) => return Err(unreadable(path, &error)),
    }
    let Parser { texts, mut reports, mut ast, .. } = parser;
    old_style::finish(&mut ast, &mut reports, |span| texts.place(span).line);
    if reports.iter().any(|report| report.severity() == Severity::Error) {
        return Err(Reports::new(reports, texts));
    }
    let text = rewrite(&rewrites(&ast.statements, &texts), texts.text(0), &texts);
    Ok((text, Reports::new(reports, texts)))
}

/// What is written otherwise, in the order of the file; what became of one rule is together.
fn rewrites(statements: &[Said], texts: &SourceTexts) -> Vec<Rewrite> {
    let mut rewrites: Vec<Rewrite> = Vec::new();
    for said in statements.iter().filter(|said| said.span.file == 0) {
        let adjusted = (!texts.is_silenced(said.span, "W0806")).then(|| inclusive(said)).flatten();
        if !said.rewritten && adjusted.is_none() {
            continue;
        }
        let line = (canonical::statement(adjusted.as_ref().unwrap_or(said)), adjusted.is_some());
        match rewrites.last_mut().filter(|last| last.span == said.span) {
            Some(last) => last.lines.push(line),
            None => rewrites.push(Rewrite { span: said.span, lines: vec![line] }),
        }
    }
    rewrites.sort_by_key(|rewrite| rewrite.span.start);
    rewrites
}

/// The statement with slices that give what OpenSMTPD would (W0806); `None` if there are none.
fn inclusive(said: &Said) -> Option<Said> {
    let takes_format = matches!(said.form.name, "maildir" | "mda" | "lmtp" | "mda wrapper");
    let mut said = said.clone();
    let Some(Arg::Word(word)) = said.head.last_mut().filter(|_| takes_format) else { return None };
    let mut text = word.text.to_string();
    for notice in Format::notices(&word.text).iter().rev() {
        if let NoticeKind::PositiveEnd { inclusive, .. } = &notice.kind {
            text.replace_range(notice.offset..notice.offset + notice.len, inclusive);
        }
    }
    let changed = *text != *word.text;
    word.text = text.into();
    changed.then_some(said)
}

fn rewrite(rewrites: &[Rewrite], text: &str, texts: &SourceTexts) -> String {
    let comments = comments(text);
    let mut out = String::with_capacity(text.len());
    let mut at = 0;
    for rewrite in rewrites {
        let (start, end) = (rewrite.span.start as usize, rewrite.span.end as usize);
        out.push_str(&text[at..start]);
        at = end;
        let line_start = text[..start].rfind('\n').map_or(0, |newline| newline + 1);
        let indent = &text[line_start..start];
        let indent = if indent.trim().is_empty() { indent } else { "" };
        // Comments from the midst of the statement come first.
        for comment in comments.iter().filter(|comment| comment.start >= start && comment.end <= end) {
            out.push_str(text[comment.clone()].trim_end());
            out.push('\n');
            out.push_str(indent);
        }
        let behind = texts.comment_behind(rewrite.span);
        let silenced = if behind.starts_with("ok ") { format!(" # {behind}") } else { String::new() };
        let last = rewrite.lines.len() - 1;
        for (number, (line, adjusted)) in rewrite.lines.iter().enumerate() {
            out.push_str(line);
            if *adjusted {
                out.push_str(" # ok W0806");
            }
            if number < last {
                out.push_str(if *adjusted { silenced.trim_start_matches(" # ok") } else { &silenced });
                out.push('\n');
                out.push_str(indent);
            } else if let Some(comment) = text[at..].trim_start_matches([' ', '\t']).strip_prefix('#') {
                if *adjusted {
                    // What stands behind it goes on in the same comment.
                    at = text.len() - comment.len();
                }
                // A quote may have ended the word before the comment; it is gone.
                if !text[at..].starts_with(char::is_whitespace) {
                    out.push(' ');
                }
            }
        }
    }
    out.push_str(&text[at..]);
    out
}
