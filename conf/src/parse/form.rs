//! Reads a statement by the forms of its first word: keywords and arguments of the head, then options, limits or conditions.

use super::ast::{Arg, At, OptionLine, Options, Said};
use super::grammar;
use super::schema::{Form, Item, Kind, Opt, Rest, Times};
use super::statement::{Statement, Stop};
use super::tokens::{Kind as TokenKind, Token};
use crate::lex::Mark;
use crate::report::{Report, did_you_mean};
use crate::source_text::Span;

impl Statement<'_> {
    /// Reads the rest of a statement of the grammar. What could be read is kept when it breaks off.
    pub(super) fn read(&mut self) -> Result<(), Stop> {
        let forms: Vec<&'static Form> = grammar::forms_of(self.first).collect();
        let mut said = Said::new(forms[0], self.so_far());
        let outcome = self.read_into(&mut said, forms);
        said.span = self.so_far();
        said.broken = outcome.is_err();
        self.keep(said);
        outcome
    }

    fn read_into(&mut self, said: &mut Said, forms: Vec<&'static Form>) -> Result<(), Stop> {
        said.form = self.head(&mut said.head, forms)?;
        self.form_options = said.form.options;
        match said.form.rest {
            Rest::Options => self.options(said.form, &mut said.options),
            Rest::Limits => self.limits(said.form, &mut said.options),
            Rest::Conditions(missing) => self.conditions(said.form, missing, &mut said.options),
        }
    }

    /// The head; forms that do not fit fall away until one is left.
    fn head(&mut self, head: &mut Vec<Arg>, mut forms: Vec<&'static Form>) -> Result<&'static Form, Stop> {
        for place in 0.. {
            let keys: Vec<&'static str> = forms
                .iter()
                .filter_map(|form| match form.head.get(place) {
                    Some(Item::Key(key)) => Some(*key),
                    _ => None,
                })
                .collect();
            if let Some(key) = self.keyword(&keys) {
                forms.retain(|form| matches!(form.head.get(place), Some(Item::Key(name)) if *name == key.value));
                head.push(Arg::Key(key));
                continue;
            }
            forms.retain(|form| !matches!(form.head.get(place), Some(Item::Key(_))));
            match forms.first().map(|form| form.head.get(place)) {
                Some(Some(Item::Arg(kind))) => {
                    let (who, options) = (self.context(head), forms[0].options);
                    self.form_options = options;
                    head.push(self.argument(kind, who)?);
                }
                Some(_) => return Ok(forms[0]),
                None => {
                    let who = self.context(head);
                    return Err(self.needs_keyword(who, &keys));
                }
            }
        }
        unreachable!("heads are finite")
    }

    /// The last keyword so far, which is what messages are about.
    fn context(&self, head: &[Arg]) -> &'static str {
        let key = head.iter().rev().find_map(|arg| match arg {
            Arg::Key(key) if !matches!(key.value, "on" | "to") => Some(key.value),
            _ => None,
        });
        key.unwrap_or(self.first)
    }

    fn options(&mut self, form: &'static Form, options: &mut Options) -> Result<(), Stop> {
        while let Some((option, word)) = self.option_word(form.options) {
            self.option(option, word, false, options)?;
        }
        if self.at_end() {
            return Ok(());
        }
        if form.options.is_empty() {
            let after = self.texts.slice(self.last()).to_owned();
            return Err(self.unexpected(&after));
        }
        Err(self.no_such_option(form.name, form.options.iter().filter(|o| o.today.is_none()).map(Opt::first)))
    }

    pub(super) fn limits(&mut self, form: &'static Form, options: &mut Options) -> Result<(), Stop> {
        if self.at_end() {
            return Err(self.needs(form.name, "the name of a limit"));
        }
        while !self.at_end() {
            let Some((option, word)) = self.option_word(form.options) else {
                let Some(word) = self.peek().and_then(Token::word) else {
                    return Err(self.needs(form.name, "the name of a limit"));
                };
                let report = Report::new("E0510", word.span, format!("unknown limit `{}`", word.text));
                let right = form.options.iter().map(Opt::first);
                return Err(self.tell(report.maybe_help(did_you_mean(&word.text, right))));
            };
            self.option(option, word, false, options)?;
        }
        Ok(())
    }

    fn conditions(&mut self, form: &'static Form, missing: &str, options: &mut Options) -> Result<(), Stop> {
        loop {
            let not = self.mark(Mark::Not).is_some();
            let Some((option, word)) = self.option_word(form.options) else {
                if self.at_end() && not {
                    return Err(self.needs("!", "a condition behind it"));
                }
                if self.at_end() {
                    return Err(self.needs(form.name, missing));
                }
                return Err(self.no_such_option(form.name, form.options.iter().map(Opt::first)));
            };
            if not && option.last {
                let message = format!("`!` needs a condition behind it, not `{}`", word.value);
                return Err(self.error("E0203", word.span, message));
            }
            self.option(option, word, not, options)?;
            if option.last {
                if self.at_end() {
                    return Ok(());
                }
                let after = self.texts.slice(word.span.to(self.last())).to_owned();
                return Err(self.unexpected(&after));
            }
        }
    }

    /// Takes the words of one of these options, if they come next.
    pub(super) fn option_word(&mut self, options: &'static [Opt]) -> Option<(&'static Opt, At<&'static str>)> {
        let option = options.iter().find(|option| {
            let mut words = option.words.iter().enumerate();
            words.all(|(ahead, word)| self.peek_at(ahead).is_some_and(|token| token.is_bare(word)))
        })?;
        let start = self.here();
        option.words.iter().for_each(|_| self.skip());
        Some((option, At { value: option.first(), span: start.to(self.last()) }))
    }

    /// The option's argument; a second one of its name is told, and the first counts.
    fn option(
        &mut self,
        option: &'static Opt,
        word: At<&'static str>,
        negated: bool,
        options: &mut Options,
    ) -> Result<(), Stop> {
        let name = option.today.unwrap_or(option.first());
        let earlier = options.find(name).map(|earlier| earlier.word.span);
        let called = if option.words.len() > 1 { option.words.join(" ") } else { word.value.to_owned() };
        if let (Some(first), Times::Once) = (earlier, option.count)
            && !(option.today.is_some()
                && self.form_options.iter().any(|o| o.first() == name && o.count == Times::Often))
        {
            self.twice(&called, word.span, first);
        }
        if let Some(today) = option.today {
            self.old_word(word.span, today);
        }
        let arg = self.argument(&option.kind, word.value)?;
        options.0.push(OptionLine { name, word, negated, arg });
        Ok(())
    }

    /// W0804; and the statement is not as it is printed.
    pub(super) fn old_word(&mut self, span: Span, today: &str) {
        self.reports.push(Report::new("W0804", span, format!("old spelling; now `{today}`")));
        self.rewritten = true;
    }

    fn needs_keyword(&mut self, who: &str, keys: &[&'static str]) -> Stop {
        let mut unique: Vec<&'static str> = Vec::new();
        keys.iter().for_each(|key| {
            if !unique.contains(key) {
                unique.push(key)
            }
        });
        let what = match unique[..] {
            [one] => format!("`{one}`"),
            _ => alternatives(&unique),
        };
        self.needs_one_of(who, &what, &unique)
    }

    /// `{ OPTION, … }`.
    pub(super) fn option_block(&mut self, who: &str, inside: &'static [Opt]) -> Result<Options, Stop> {
        let mut options = Options::default();
        let outside = std::mem::replace(&mut self.form_options, inside);
        self.block(who, |this, brace| {
            let Some((option, word)) = this.option_word(inside) else {
                return match this.peek().and_then(Token::word) {
                    Some(_) => Err(this.no_such_option_in(who, inside.iter().map(Opt::first), brace)),
                    None => Err(this.bad_in_block(brace)),
                };
            };
            this.option(option, word, false, &mut options)
        })?;
        self.form_options = outside;
        Ok(options)
    }

    /// `{ WORD OPTION …, … }`.
    pub(super) fn items(&mut self, who: &str, what: &str, inside: &'static [Opt]) -> Result<Arg, Stop> {
        let mut items = Vec::new();
        let outside = std::mem::replace(&mut self.form_options, inside);
        self.block(who, |this, brace| {
            if this.peek().and_then(Token::word).is_none() {
                return Err(this.bad_in_block(brace));
            }
            let word = this.word(who, what)?;
            let mut options = Options::default();
            while let Some((option, word)) = this.option_word(inside) {
                this.option(option, word, false, &mut options)?;
            }
            items.push((word, options));
            Ok(())
        })?;
        self.form_options = outside;
        if items.is_empty() {
            return Err(self.error("E0203", self.last(), format!("`{who}` needs {what} in its braces")));
        }
        Ok(Arg::Items(items))
    }

    /// One of several, told apart by its first word.
    pub(super) fn one_of(&mut self, who: &str, options: &'static [Opt]) -> Result<Arg, Stop> {
        let Some((option, word)) = self.option_word(options) else {
            let names: Vec<&'static str> = options.iter().map(Opt::first).collect();
            return Err(self.needs_one_of(who, &alternatives(&names), &names));
        };
        let arg = self.argument(&option.kind, word.value)?;
        Ok(Arg::One(Box::new(OptionLine { name: option.first(), word, negated: false, arg })))
    }

    /// An argument and options behind it.
    pub(super) fn with(&mut self, kind: &'static Kind, who: &'static str, inside: &'static [Opt]) -> Result<Arg, Stop> {
        let arg = self.argument(kind, who)?;
        let mut options = Options::default();
        while let Some((option, word)) = self.option_word(inside) {
            self.option(option, word, false, &mut options)?;
        }
        Ok(Arg::With(Box::new(arg), options))
    }

    /// Whether the next token cannot be an argument, because the statement goes on or ends there.
    pub(super) fn goes_on(&self) -> bool {
        let Some(token) = self.peek() else { return true };
        match &token.kind {
            TokenKind::Bare(word) => self.form_options.iter().any(|option| *word == option.words[0]),
            TokenKind::Mark(Mark::Not) => true,
            _ => false,
        }
    }
}

/// `a, b or c`.
pub(super) fn alternatives(names: &[&str]) -> String {
    match names {
        [] => String::new(),
        [one] => (*one).to_owned(),
        [first @ .., last] => format!("{} or {last}", first.join(", ")),
    }
}
