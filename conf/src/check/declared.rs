//! Names that statements declare and others use: each is declared once, exists where it is named, and is used somewhere.

use std::collections::{HashMap, HashSet};

use super::Reading;
use crate::parse::ast::{Ast, Said, Word};
use crate::report::Report;
use crate::source_text::Span;
use crate::text::Text;

/// What has names, and the code for one that is not there.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(super) enum What {
    Action,
    Filter,
    Proc,
    Pki,
    Ca,
    Pool,
    Shaping,
    Warmup,
    RateLimit,
    Signer,
    Share,
    Wrapper,
}

impl What {
    const ALL: [Self; 12] = [
        Self::Action,
        Self::Filter,
        Self::Proc,
        Self::Pki,
        Self::Ca,
        Self::Pool,
        Self::Shaping,
        Self::Warmup,
        Self::RateLimit,
        Self::Signer,
        Self::Share,
        Self::Wrapper,
    ];

    /// As messages call it.
    fn name(self) -> &'static str {
        match self {
            Self::Action => "action",
            Self::Filter => "filter",
            Self::Proc => "proc",
            Self::Pki => "pki",
            Self::Ca => "ca",
            Self::Pool => "pool",
            Self::Shaping => "shaping",
            Self::Warmup => "warmup",
            Self::RateLimit => "ratelimit",
            Self::Signer => "dkim",
            Self::Share => "share",
            Self::Wrapper => "wrapper",
        }
    }

    fn code(self) -> &'static str {
        match self {
            Self::Action => "E0302",
            Self::Filter => "E0303",
            Self::Pki | Self::Ca => "E0304",
            _ => "E0308",
        }
    }

    /// The statement that declares such names.
    fn statement(self) -> &'static str {
        match self {
            Self::Wrapper => "mda",
            other => other.name(),
        }
    }

    /// The name that it declares; not every statement of this kind does.
    fn declared_by(self, said: &Said) -> Option<&Word> {
        said.word(0).filter(|_| self != Self::Wrapper || said.form.name == "mda wrapper")
    }
}

#[derive(Debug)]
struct Declared {
    what: What,
    name: Text,
    span: Span,
    used: bool,
}

/// All declared names.
#[derive(Debug, Default)]
pub(super) struct Names {
    declared: Vec<Declared>,
    /// Where a name is in the list: there may be very many.
    index: HashMap<What, HashMap<Text, usize>>,
}

impl Names {
    /// E0305 for a second declaration; a `pki` may be told in parts.
    pub(super) fn new(ast: &Ast, reading: &mut Reading<'_>) -> Self {
        let mut names = Self::default();
        for what in What::ALL {
            for name in ast.of(what.statement()).filter_map(|said| what.declared_by(said)) {
                names.declare(what, name, reading);
            }
        }
        names
    }

    fn declare(&mut self, what: What, name: &Word, reading: &mut Reading<'_>) {
        let index = self.index.entry(what).or_default();
        let earlier = index.get(&*name.text).map(|at| self.declared[*at].span);
        match earlier {
            Some(_) if what == What::Pki => {}
            Some(first) => {
                let message = format!("{} `{}` is already declared", what.name(), name.text);
                let help = format!("at {}", reading.texts.at(first));
                reading.report(Report::new("E0305", name.span, message).also(first, "declared here").help(help));
            }
            None => {
                index.insert(name.text.clone(), self.declared.len());
                self.declared.push(Declared { what, name: name.text.clone(), span: name.span, used: false });
            }
        }
    }

    /// Marks a name as used; an error where it stands, if there is none.
    pub(super) fn find(&mut self, what: What, name: &Word, reading: &mut Reading<'_>) -> Option<String> {
        if self.touch(what, &name.text) {
            return Some(name.text.to_string());
        }
        let right = self.declared.iter().filter(|d| d.what == what);
        let near = reading.nearest(&name.text, right.clone().map(|d| &*d.name));
        let near = near.and_then(|near| right.clone().find(|d| d.name == near));
        let help = near.map(|d| format!("did you mean `{}`, declared at {}?", d.name, reading.texts.at(d.span)));
        let report = Report::new(what.code(), name.span, format!("no such {}: `{}`", what.name(), name.text));
        reading.report(report.label("not declared in any file").maybe_help(help));
        None
    }

    /// All of these names that exist.
    pub(super) fn find_all(&mut self, what: What, names: &[Word], reading: &mut Reading<'_>) -> Vec<String> {
        names.iter().filter_map(|name| self.find(what, name, reading)).collect()
    }

    /// The same where the name may be left out.
    pub(super) fn maybe(&mut self, what: What, name: Option<&Word>, reading: &mut Reading<'_>) -> Option<String> {
        self.find(what, name?, reading)
    }

    /// Marks a name as used, if there is one.
    pub(super) fn touch(&mut self, what: What, name: &str) -> bool {
        let found = self.index.get(&what).and_then(|index| index.get(name));
        found.is_some_and(|at| {
            self.declared[*at].used = true;
            true
        })
    }

    /// W0803. A shape for destinations needs nobody to name it.
    pub(super) fn unused(&self, shapes_by_name: &HashSet<Text>, reading: &mut Reading<'_>) {
        for what in What::ALL {
            let unused = self.declared.iter().filter(|d| d.what == what && !d.used);
            for declared in unused.filter(|d| what != What::Shaping || shapes_by_name.contains(&d.name)) {
                let message = format!("{} `{}` is never used", what.name(), declared.name);
                reading.report(Report::new("W0803", declared.span, message));
            }
        }
    }
}
