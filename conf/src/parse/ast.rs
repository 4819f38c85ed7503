//! What was written, in canonical words, before names are looked up. Values are read already; everything knows its place.
//!
//! A statement is a sentence: its first word, what stands at fixed places (the head), and options. Old words are in it only as
//! the places that messages point to.

use std::collections::HashMap;
use std::rc::Rc;
use std::time::Duration;

use super::schema::{Form, Use};
use crate::source_text::Span;
use crate::text::Text;
use crate::values::Rate;

/// A word and where it stands.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Word {
    pub(crate) text: Text,
    /// A quoted word is never a keyword.
    pub(crate) quoted: bool,
    pub(crate) span: Span,
}

/// A value and where it stands.
#[derive(Clone, Copy, Debug)]
pub(crate) struct At<T> {
    pub(crate) value: T,
    pub(crate) span: Span,
}

/// All statements, in the order of the files.
#[derive(Debug, Default)]
pub(crate) struct Ast {
    pub(crate) statements: Vec<Said>,
    /// A statement was given up: what it names may be used or declared there, so nobody complains about what is missing.
    pub(crate) broken: bool,
    /// There is more in the files than is read, or more wrong with them than is told: what else would be found is worth nothing.
    pub(crate) cut: bool,
    /// Numbers of statements by their first word, once all are there: a file may have very many.
    index: HashMap<&'static str, Vec<usize>>,
}

impl Ast {
    /// The statements with this first word. [`Self::seal`] comes first.
    pub(crate) fn of(&self, statement: &'static str) -> impl Iterator<Item = &Said> {
        self.numbers(statement).iter().map(|number| &self.statements[*number])
    }

    /// The same, as numbers.
    pub(crate) fn numbers(&self, statement: &'static str) -> &[usize] {
        self.index.get(statement).map_or(&[], Vec::as_slice)
    }

    /// Finds out which statements there are.
    pub(crate) fn seal(mut self) -> Self {
        self.index.clear();
        for (number, said) in self.statements.iter().enumerate() {
            self.index.entry(said.form.statement).or_default().push(number);
        }
        self
    }
}

/// A statement.
#[derive(Clone, Debug)]
pub(crate) struct Said {
    pub(crate) form: &'static Form,
    pub(crate) head: Vec<Arg>,
    pub(crate) options: Options,
    /// From its first to its last token; for what an old rule becomes, the whole rule.
    pub(crate) span: Span,
    /// It was written otherwise: in words or as a rule of long ago.
    pub(crate) rewritten: bool,
    /// There was an error in it. What it declares counts as declared, and nothing else of it does.
    pub(crate) broken: bool,
}

impl Said {
    pub(crate) fn new(form: &'static Form, span: Span) -> Self {
        Self { form, head: Vec::new(), options: Options::default(), span, rewritten: false, broken: false }
    }

    /// Whether this keyword stands in the head.
    pub(crate) fn has_key(&self, name: &str) -> bool {
        self.head.iter().any(|arg| matches!(arg, Arg::Key(key) if key.value == name))
    }

    /// The keyword right behind another.
    pub(crate) fn key_after(&self, name: &str) -> Option<&'static str> {
        let mut args = self.head.iter().skip_while(|arg| !matches!(arg, Arg::Key(key) if key.value == name));
        match args.nth(1)? {
            Arg::Key(key) => Some(key.value),
            _ => None,
        }
    }

    /// The word at a place of the head, not counting keywords.
    pub(crate) fn word(&self, number: usize) -> Option<&Word> {
        match self.value(number)? {
            Arg::Word(word) => Some(word),
            _ => None,
        }
    }

    /// The argument at a place of the head, not counting keywords.
    pub(crate) fn value(&self, number: usize) -> Option<&Arg> {
        self.head.iter().filter(|arg| !matches!(arg, Arg::Key(_))).nth(number)
    }

    /// Everything said in it, the head's arguments and the options', however deep.
    pub(crate) fn arguments(&self) -> Vec<(Option<&OptionLine>, &Arg)> {
        let mut all = Vec::new();
        self.head.iter().for_each(|arg| arg.collect(None, &mut all));
        self.options.collect(&mut all);
        all
    }
}

/// Options in the order in which they were given.
#[derive(Clone, Debug, Default)]
pub(crate) struct Options(pub(crate) Vec<OptionLine>);

/// One option, or one condition.
#[derive(Clone, Debug)]
pub(crate) struct OptionLine {
    /// Its canonical name.
    pub(crate) name: &'static str,
    /// The word that was written, for messages.
    pub(crate) word: At<&'static str>,
    /// `!` in front.
    pub(crate) negated: bool,
    pub(crate) arg: Arg,
}

impl Options {
    pub(crate) fn find(&self, name: &str) -> Option<&OptionLine> {
        self.0.iter().find(|option| option.name == name)
    }

    /// All of this name, where there may be several.
    pub(crate) fn all<'o>(&'o self, name: &'static str) -> impl Iterator<Item = &'o OptionLine> {
        self.0.iter().filter(move |option| option.name == name)
    }

    pub(crate) fn has(&self, name: &str) -> bool {
        self.find(name).is_some()
    }

    pub(crate) fn word(&self, name: &str) -> Option<&Word> {
        match &self.find(name)?.arg {
            Arg::Word(word) => Some(word),
            _ => None,
        }
    }

    pub(crate) fn text(&self, name: &str) -> Option<String> {
        self.word(name).map(|word| word.text.to_string())
    }

    pub(crate) fn names(&self, name: &str) -> &[Word] {
        match self.find(name).map(|option| &option.arg) {
            Some(Arg::Names(names)) => names,
            _ => &[],
        }
    }

    pub(crate) fn duration(&self, name: &str) -> Option<Duration> {
        match &self.find(name)?.arg {
            Arg::Duration(at) => Some(at.value),
            _ => None,
        }
    }

    /// A count, a size, a port, a percentage.
    pub(crate) fn number(&self, name: &str) -> Option<u64> {
        match &self.find(name)?.arg {
            Arg::Count(at) | Arg::Size(at) => Some(at.value),
            Arg::Port(at) => Some(u64::from(at.value)),
            Arg::Percent(at) => Some(u64::from(at.value)),
            _ => None,
        }
    }

    pub(crate) fn count(&self, name: &str) -> Option<u32> {
        self.number(name).map(|n| u32::try_from(n).unwrap_or(u32::MAX))
    }

    pub(crate) fn rate(&self, name: &str) -> Option<Rate> {
        match &self.find(name)?.arg {
            Arg::Rate(at) => Some(at.value),
            _ => None,
        }
    }

    pub(crate) fn key(&self, name: &str) -> Option<&'static str> {
        match &self.find(name)?.arg {
            Arg::Key(at) => Some(at.value),
            _ => None,
        }
    }

    pub(crate) fn targ(&self, name: &str) -> Option<(&OptionLine, &Targ)> {
        let option = self.find(name)?;
        match &option.arg {
            Arg::Targ(targ) => Some((option, targ)),
            _ => None,
        }
    }

    fn collect<'a>(&'a self, all: &mut Vec<(Option<&'a OptionLine>, &'a Arg)>) {
        self.0.iter().for_each(|option| option.arg.collect(Some(option), all));
    }
}

/// An argument.
#[derive(Clone, Debug)]
pub(crate) enum Arg {
    /// Nothing more than the option's name.
    Nothing,
    /// A keyword.
    Key(At<&'static str>),
    Word(Word),
    /// `NAME` or `{ NAME, … }`.
    Names(Vec<Word>),
    Targ(Targ),
    /// `regex` in front of a table or literal.
    Regex(Targ),
    Duration(At<Duration>),
    /// Separated by commas.
    Durations(Vec<At<Duration>>),
    Count(At<u64>),
    Size(At<u64>),
    Port(At<u16>),
    Rate(At<Rate>),
    /// `{ RATE, … }`.
    Rates(Vec<At<Rate>>),
    Percent(At<u8>),
    /// An argument, and options behind it.
    With(Box<Arg>, Options),
    /// One of several, told by its first word.
    One(Box<OptionLine>),
    /// `{ OPTION, … }`.
    Block(Options),
    /// `{ WORD OPTION …, … }`.
    Items(Vec<(Word, Options)>),
    /// Entries of a table.
    Entries(Rc<Entries>),
}

impl Arg {
    fn collect<'a>(&'a self, option: Option<&'a OptionLine>, all: &mut Vec<(Option<&'a OptionLine>, &'a Arg)>) {
        all.push((option, self));
        match self {
            Self::With(arg, options) => {
                arg.collect(option, all);
                options.collect(all);
            }
            Self::One(line) => line.arg.collect(Some(line), all),
            Self::Block(options) => options.collect(all),
            Self::Items(items) => items.iter().for_each(|(_, options)| options.collect(all)),
            _ => {}
        }
    }
}

/// What stands in `{ … }` of a table.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Entries {
    pub(crate) list: Vec<Entry>,
    pub(crate) span: Span,
}

impl Entries {
    /// A table is a list or a mapping, not both.
    pub(crate) fn is_mapping(&self) -> bool {
        self.list.first().is_some_and(|entry| !entry.values.is_empty())
    }
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Entry {
    pub(crate) key: Word,
    /// Empty in a list.
    pub(crate) values: Vec<Word>,
}

/// A table, or literal entries, and what it is asked for.
#[derive(Clone, Debug)]
pub(crate) struct Targ {
    pub(crate) what: TargKind,
    /// With the brackets or braces.
    pub(crate) span: Span,
    /// What it is for.
    pub(crate) used: Use,
    /// The word that asks, as it was written.
    pub(crate) keyword: At<&'static str>,
}

#[derive(Clone, Debug)]
pub(crate) enum TargKind {
    Table(Text),
    Literal(Rc<Entries>),
    Word(Word),
}
