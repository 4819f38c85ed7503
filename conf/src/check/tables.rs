//! Tables by their uses: each is read once for each service that asks, and its entries are checked by that service.

use std::any::{Any, TypeId};
use std::collections::HashMap;
use std::ops::Range;
use std::sync::Arc;

use super::Reading;
use crate::limits::REPORTS_KEPT_MAX;
use crate::parse::BUILT_IN_TABLES;
use crate::parse::ast::{At, Entries, Pattern, TableBody, TableLine, Targ};
use crate::parse::not_yet;
use crate::report::{Report, nearest};
use crate::rules::Among;
use crate::source_text::{Span, narrow};
use crate::tables::file::{Shape, entries};
use crate::tables::{List, Patterns};

/// All declared tables.
pub(super) struct Tables {
    lines: Vec<TableLine>,
    used: Vec<bool>,
    /// File tables that were read: their text's number; `None` if that failed.
    data: HashMap<usize, Option<u32>>,
    /// What was made of a table for a service; `None` if there was an error in it.
    made: HashMap<(usize, TypeId), Option<Arc<dyn Any + Send + Sync>>>,
}

/// One entry that may be asked of: its text and place.
pub(super) struct Found {
    pub(super) text: String,
    pub(super) span: Span,
}

enum Body {
    Static(Entries),
    Data(u32),
    Broken,
}

impl Tables {
    pub(super) fn new(lines: Vec<TableLine>) -> Self {
        let used = vec![false; lines.len()];
        Self { lines, used, data: HashMap::new(), made: HashMap::new() }
    }

    /// `[regex] targ` of a condition.
    pub(super) fn among<T: List>(&mut self, pattern: &Pattern, reading: &mut Reading<'_>) -> Option<Among<T>> {
        if pattern.regex {
            self.patterns(&pattern.targ, reading).map(Among::Regex)
        } else {
            self.set(&pattern.targ, pattern.keyword, reading).map(Among::Table)
        }
    }

    /// The entries as a service wants them. `None`: there was an error, and it was told.
    pub(super) fn set<T: List>(
        &mut self,
        targ: &Targ,
        keyword: At<&'static str>,
        reading: &mut Reading<'_>,
    ) -> Option<Arc<T>> {
        let table = match targ {
            Targ::Table(name) => Some(self.find(name, reading)?),
            _ => None,
        };
        let key = table.map(|at| (at, TypeId::of::<T>()));
        if let Some(made) = key.and_then(|key| self.made.get(&key)) {
            return made.clone().map(|any| any.downcast().expect("kept under its own type"));
        }
        let set = self.build::<T>(targ, table, keyword, reading);
        if let Some(key) = key {
            let any = set.clone().map(|set| set as Arc<dyn Any + Send + Sync>);
            self.made.insert(key, any);
        }
        set
    }

    fn build<T: List>(
        &mut self,
        targ: &Targ,
        table: Option<usize>,
        keyword: At<&'static str>,
        reading: &mut Reading<'_>,
    ) -> Option<Arc<T>> {
        let mut set = T::default();
        let mut bad = Vec::new();
        let mut add = |text: &str, span: Span| {
            // In a file that is also read as a mapping, a colon ends the key.
            let good = set.add(text) || text.strip_suffix(':').is_some_and(|text| set.add(text));
            if !good && bad.len() < REPORTS_KEPT_MAX {
                bad.push(Found { text: text.to_owned(), span });
            }
        };
        match (targ, table) {
            (Targ::Word(word), _) => add(&word.text, word.span),
            (Targ::Literal(literal), _) => literal.list.iter().for_each(|e| add(&e.key.text, e.key.span)),
            (Targ::Table(_), None) => return None,
            (Targ::Table(_), Some(at)) => match self.body(at, reading) {
                Body::Broken => return None,
                Body::Static(list) => list.list.iter().for_each(|e| add(&e.key.text, e.key.span)),
                Body::Data(file) => {
                    let text = reading.texts.text(file);
                    entries(text, Shape::List).for_each(|range| add(&text[range.clone()], data_span(file, &range)));
                }
            },
        }
        let good = bad.is_empty();
        for entry in bad {
            let needed = table.map(|_| format!("needed by `{}` at {}", keyword.value, reading.texts.at(keyword.span)));
            let help: Vec<String> = needed.into_iter().chain(T::HOW.map(str::to_owned)).collect();
            let message = format!("`{}` is not {}", entry.text, T::WHAT);
            let help = (!help.is_empty()).then(|| help.join("; "));
            reading.report(Report::new("E0403", entry.span, message).maybe_help(help));
        }
        good.then(|| Arc::new(set))
    }

    /// The entries as they are, for services that keep more than a set.
    pub(super) fn list(&mut self, targ: &Targ, reading: &mut Reading<'_>) -> Option<Vec<Found>> {
        self.found(targ, Shape::List, reading)
    }

    fn found(&mut self, targ: &Targ, shape: Shape, reading: &mut Reading<'_>) -> Option<Vec<Found>> {
        let keys =
            |list: &Entries| list.list.iter().map(|e| Found { text: e.key.text.clone(), span: e.key.span }).collect();
        match targ {
            Targ::Word(word) => Some(vec![Found { text: word.text.clone(), span: word.span }]),
            Targ::Literal(literal) => Some(keys(literal)),
            Targ::Table(name) => {
                let at = self.find(name, reading)?;
                match self.body(at, reading) {
                    Body::Broken => None,
                    Body::Static(list) => Some(keys(&list)),
                    Body::Data(file) => {
                        let text = reading.texts.text(file);
                        let found = |range: Range<usize>| Found {
                            text: text[range.clone()].to_owned(),
                            span: data_span(file, &range),
                        };
                        Some(entries(text, shape).map(found).collect())
                    }
                }
            }
        }
    }

    fn patterns(&mut self, targ: &Targ, reading: &mut Reading<'_>) -> Option<Arc<Patterns>> {
        let found = self.found(targ, Shape::Lines, reading)?;
        match Patterns::new(found.iter().map(|f| f.text.as_str())) {
            Ok(patterns) => Some(Arc::new(patterns)),
            Err(whole) => {
                let mut told = false;
                for entry in &found {
                    if let Err(why) = Patterns::check(&entry.text) {
                        told = true;
                        reading.report(Report::new("E0508", entry.span, format!("bad regular expression: {why}")));
                    }
                }
                if !told {
                    let span = match targ {
                        Targ::Table(name) => name.span,
                        Targ::Literal(literal) => literal.span,
                        Targ::Word(word) => word.span,
                    };
                    reading.report(Report::new("E0508", span, format!("bad regular expression: {whole}")));
                }
                None
            }
        }
    }

    /// The number of a declared table; marks it as used.
    fn find(&mut self, name: &At<String>, reading: &mut Reading<'_>) -> Option<usize> {
        if let Some(at) = self.lines.iter().position(|t| t.name == name.value) {
            self.used[at] = true;
            return Some(at);
        }
        if BUILT_IN_TABLES.contains(&name.value.as_str()) {
            reading.report(not_yet(name.span, &format!("<{}>", name.value)));
            return None;
        }
        let near = nearest(&name.value, self.lines.iter().map(|t| t.name.as_str()));
        let near = near.and_then(|near| self.lines.iter().find(|t| t.name == near));
        let help = near.map(|t| format!("did you mean <{}>, declared at {}?", t.name, reading.texts.at(t.name_span)));
        let report = Report::new("E0301", name.span, format!("no such table: <{}>", name.value));
        reading.report(report.label("not declared in any file").maybe_help(help));
        None
    }

    /// Where its entries are; a data file is read when it is first needed.
    fn body(&mut self, at: usize, reading: &mut Reading<'_>) -> Body {
        let path = match &self.lines[at].body {
            TableBody::Broken => return Body::Broken,
            TableBody::Static(list) => return Body::Static(list.clone()),
            TableBody::File(path) => path,
        };
        let data = *self.data.entry(at).or_insert_with(|| {
            let file = reading.place(path.span.file, &path.text);
            match crate::load::read_data(reading.source, &file, &mut reading.texts, &mut reading.reports) {
                Ok(file) => Some(file),
                Err(error) => {
                    let message = format!("cannot read `{}`: {error}", path.text);
                    reading.reports.push(Report::new("E0701", path.span, message));
                    None
                }
            }
        });
        data.map_or(Body::Broken, Body::Data)
    }

    /// W0803.
    pub(super) fn unused(&self, reading: &mut Reading<'_>) {
        for (table, _) in self.lines.iter().zip(&self.used).filter(|(_, used)| !**used) {
            reading.report(Report::new("W0803", table.name_span, format!("table `{}` is never used", table.name)));
        }
    }
}

fn data_span(file: u32, range: &Range<usize>) -> Span {
    Span { file, start: narrow(range.start), end: narrow(range.end) }
}
