//! The canonical form (grammar §1): one spelling for each thing, whatever the file said it in. Printed by the same data that the
//! parser reads by, and it prints itself when it is read again.

use crate::parse::ast::{Arg, Ast, Entries, OptionLine, Options, Said, Targ, TargKind, Word};
use crate::parse::grammar;
use crate::parse::schema::{Form, Item, Kind, Opt, Rest, Shape};
use crate::source_text::{SourceTexts, Span};
use crate::values::{show_duration, show_size};

/// Comments stand in one column, unless a line is longer than this.
const COLUMN_MAX: usize = 100;
/// A table with more is printed in several lines.
const LINE_BYTES: usize = 120;

/// All statements, one a line, each with the line that it comes from.
pub(crate) fn print(ast: &Ast, defaults: &[(Said, String)], texts: &SourceTexts) -> String {
    let mut lines: Vec<(String, String)> = Vec::new();
    for said in &ast.statements {
        lines.push((statement(said), comment(said, texts)));
    }
    lines.extend(defaults.iter().map(|(said, origin)| (statement(said), format!("# {origin}"))));
    let last_line = |text: &str| text.rsplit('\n').next().map_or(0, |line| line.chars().count());
    let with_comment = lines.iter().filter(|(_, comment)| !comment.is_empty());
    let widths = with_comment.map(|(text, _)| last_line(text)).filter(|width| *width <= COLUMN_MAX);
    let column = widths.max().unwrap_or(0) + 3;
    let mut out = String::new();
    for (text, comment) in lines {
        let gap = column.saturating_sub(last_line(&text)).max(3);
        out.push_str(&text);
        if !comment.is_empty() {
            out.push_str(&" ".repeat(gap));
            out.push_str(&comment);
        }
        out.push('\n');
    }
    out
}

/// `# 12`, `# conf.d/a.conf:3`; what is silenced stays so. A comment of this form is kept as it is, so that the canonical form
/// prints itself.
fn comment(said: &Said, texts: &SourceTexts) -> String {
    let written = texts.comment_behind(said.span);
    let (kept, ok) = match written.split_once("ok ") {
        Some((before, codes)) => (before.trim(), Some(codes.trim())),
        None => (written, None),
    };
    let origin = if is_origin(kept) { kept.to_owned() } else { origin(said.span, texts) };
    let named = said.form.statement == "action" && said.word(0).is_some_and(|name| is_made_name(&name.text));
    match (named, ok) {
        // The name says it.
        (true, None) => String::new(),
        (true, Some(codes)) => format!("# ok {codes}"),
        (false, None) => format!("# {origin}"),
        (false, Some(codes)) => format!("# {origin} ok {codes}"),
    }
}

fn origin(span: Span, texts: &SourceTexts) -> String {
    let place = texts.place(span);
    if span.file == 0 { place.line.to_string() } else { format!("{}:{}", place.file, place.line) }
}

fn is_origin(text: &str) -> bool {
    let number = text.rsplit(':').next().unwrap_or_default();
    let is_line = !number.is_empty() && number.bytes().all(|b| b.is_ascii_digit());
    is_line || text == "built in" || (text.starts_with("profile ") && text.split(' ').count() == 2)
}

/// `line-12`, `rules.conf-line-12`.
fn is_made_name(name: &str) -> bool {
    let number = name.rsplit_once("line-").map_or("", |(_, number)| number);
    !number.is_empty() && number.bytes().all(|b| b.is_ascii_digit())
}

/// One statement.
pub(crate) fn statement(said: &Said) -> String {
    let text = sentence(said, ", ");
    let is_long = text.len() > LINE_BYTES && matches!(said.head.last(), Some(Arg::Entries(_)));
    if is_long { sentence(said, "\n") } else { text }
}

/// `separator` stands between the entries of a table; with a newline, each has its own line.
fn sentence(said: &Said, separator: &str) -> String {
    let mut out = Sentence { text: said.form.statement.to_owned(), separator };
    // Arguments that are missing are those of a statement that broke off.
    for (item, arg) in said.form.head.iter().zip(&said.head) {
        match (item, arg) {
            (Item::Key(key), _) => out.word(key),
            (Item::Arg(Kind::Word("a name")), Arg::Word(name)) if said.form.statement == "action" => {
                out.word(&quote(&name.text));
            }
            (Item::Arg(kind), arg) => out.argument(kind, arg),
        }
    }
    let mut options = said.options.clone();
    if said.form.statement == "match" {
        with_defaults(&mut options);
    }
    out.options(said.form.options, &options, said.form.rest != Rest::Options);
    out.text
}

/// `from local`, `for local`, where nothing is said.
fn with_defaults(options: &mut Options) {
    for name in ["from", "for"] {
        if !options.has(name) {
            let word = crate::parse::ast::At { value: name, span: Span::default() };
            let local = OptionLine { name: "local", word, negated: false, arg: Arg::Nothing };
            options.0.push(OptionLine { name, word, negated: false, arg: Arg::One(Box::new(local)) });
        }
    }
}

struct Sentence<'s> {
    text: String,
    separator: &'s str,
}

impl Sentence<'_> {
    fn word(&mut self, word: &str) {
        if !self.text.is_empty() && !self.text.ends_with(' ') {
            self.text.push(' ');
        }
        self.text.push_str(word);
    }

    /// In the order of the grammar, not in that of the file.
    fn options(&mut self, known: &[Opt], options: &Options, is_rule: bool) {
        for option in known.iter().filter(|option| option.today.is_none()) {
            for line in options.all(option.first()) {
                self.option(option, line, is_rule);
            }
        }
    }

    fn option(&mut self, option: &Opt, line: &OptionLine, may_be_negated: bool) {
        let not = if may_be_negated && line.negated { "!" } else { "" };
        self.word(&format!("{not}{}", option.words.join(" ")));
        match &line.arg {
            // Names of actions look the same everywhere.
            Arg::Word(name) if option.first() == "action" => self.word(&quote(&name.text)),
            arg => self.argument(&option.kind, arg),
        }
    }

    fn argument(&mut self, kind: &Kind, arg: &Arg) {
        match (kind, arg) {
            (_, Arg::Nothing) => {}
            (Kind::OneOf(options), Arg::One(line)) => self.one(options, line),
            (Kind::Else(option, _), Arg::One(line)) => self.one(std::slice::from_ref(*option), line),
            (Kind::Else(_, kind), arg) => self.argument(kind, arg),
            (Kind::Then(kind, options), Arg::With(arg, line)) => {
                self.argument(kind, arg);
                self.options(options, line, false);
            }
            (Kind::Block(options), Arg::Block(lines)) => self.block(options, lines),
            (Kind::Items(_, options), Arg::Items(items)) => {
                let item = |(word, lines): &(Word, Options)| {
                    let mut inner = Sentence { text: show(word), separator: ", " };
                    inner.options(options, lines, false);
                    inner.text
                };
                self.braces(items.iter().map(item));
            }
            (Kind::NameBlock, Arg::Names(names)) => self.braces(names.iter().map(show)),
            (Kind::DurationBlock, Arg::Durations(list)) => self.braces(list.iter().map(|at| show_duration(at.value))),
            (_, arg) => self.value(arg),
        }
    }

    fn one(&mut self, options: &[Opt], line: &OptionLine) {
        if let Some(option) = options.iter().find(|option| option.first() == line.name) {
            self.option(option, line, false);
        }
    }

    fn value(&mut self, arg: &Arg) {
        match arg {
            Arg::Key(key) => self.word(key.value),
            Arg::Word(word) => self.word(&show(word)),
            Arg::Names(names) => match &names[..] {
                [one] => self.word(&show(one)),
                several => self.braces(several.iter().map(show)),
            },
            Arg::Targ(targ) => self.word(&show_targ(targ)),
            Arg::Regex(targ) => {
                self.word("regex");
                self.word(&show_targ(targ));
            }
            Arg::Duration(at) => self.word(&show_duration(at.value)),
            Arg::Durations(list) => {
                let list: Vec<String> = list.iter().map(|at| show_duration(at.value)).collect();
                self.word(&list.join(", "));
            }
            Arg::Count(at) => self.word(&at.value.to_string()),
            Arg::Size(at) => self.word(&show_size(at.value)),
            Arg::Port(at) => self.word(&at.value.to_string()),
            Arg::Percent(at) => self.word(&format!("{}%", at.value)),
            Arg::Rate(at) => self.word(&at.value.to_string()),
            Arg::Rates(list) => self.braces(list.iter().map(|at| at.value.to_string())),
            Arg::Entries(entries) => {
                let text = show_entries(entries, self.separator);
                self.word(&text);
            }
            // Printed by their kinds, above.
            Arg::Nothing | Arg::With(..) | Arg::One(_) | Arg::Block(_) | Arg::Items(_) => {}
        }
    }

    fn block(&mut self, options: &[Opt], lines: &Options) {
        let mut items = Vec::new();
        for option in options {
            for line in lines.all(option.first()) {
                let mut inner = Sentence { text: String::new(), separator: ", " };
                inner.option(option, line, false);
                items.push(inner.text);
            }
        }
        self.braces(items.into_iter());
    }

    fn braces(&mut self, items: impl Iterator<Item = String>) {
        let items: Vec<String> = items.collect();
        let text = if items.is_empty() { "{ }".to_owned() } else { format!("{{ {} }}", items.join(", ")) };
        self.word(&text);
    }
}

fn show_targ(targ: &Targ) -> String {
    match &targ.what {
        TargKind::Table(name) => match is_bare(name) {
            true => format!("<{name}>"),
            false => format!("<{}>", quote(name)),
        },
        TargKind::Word(word) => show(word),
        // One entry needs no braces.
        TargKind::Literal(entries) if entries.list.len() == 1 && targ.used.shape == Shape::List => {
            match entries.is_mapping() {
                true => show_entries(entries, ", "),
                false => show(&entries.list[0].key),
            }
        }
        TargKind::Literal(entries) => show_entries(entries, ", "),
    }
}

fn show_entries(entries: &Entries, separator: &str) -> String {
    let entry = |entry: &crate::parse::ast::Entry| {
        if entry.values.is_empty() {
            return show(&entry.key);
        }
        let values: Vec<String> = entry.values.iter().map(show).collect();
        format!("{} => {}", show(&entry.key), values.join(", "))
    };
    let list: Vec<String> = entries.list.iter().map(entry).collect();
    match separator {
        "\n" => format!("{{\n    {}\n}}", list.join("\n    ")),
        _ => format!("{{ {} }}", list.join(separator)),
    }
}

/// A word so that it is read as the same: in quotes where it could be something else.
fn show(word: &Word) -> String {
    let is_plain = is_bare(&word.text) && !grammar::is_keyword(&word.text);
    if is_plain { word.text.to_string() } else { quote(&word.text) }
}

fn is_bare(text: &str) -> bool {
    let special = |c: char| c.is_whitespace() || c.is_control() || "{}<>(),=#\"'\\$`".contains(c);
    !text.is_empty() && !text.starts_with(['!', '\u{feff}']) && !text.contains(special) && text != "[...]"
}

fn quote(text: &str) -> String {
    let mut out = String::from("\"");
    let mut chars = text.chars().peekable();
    while let Some(c) = chars.next() {
        let escape = match c {
            '"' => true,
            // Any other backslash stays one by itself.
            '\\' => matches!(chars.peek(), None | Some('\\' | '"' | '\'')),
            _ => false,
        };
        if escape {
            out.push('\\');
        }
        out.push(c);
    }
    out.push('"');
    out
}

/// Those of `layer` that `above` does not say: statements, limits and the options of a block each by itself.
pub(crate) fn not_said(layer: &Ast, above: &[&Ast]) -> Vec<Said> {
    let said_above = |form: &'static Form| {
        above.iter().flat_map(|ast| &ast.statements).filter(move |said| same(said.form, form)).collect::<Vec<_>>()
    };
    let mut left = Vec::new();
    for said in &layer.statements {
        let others = said_above(said.form);
        let mut said = said.clone();
        if said.form.rest == Rest::Limits {
            said.options.0.retain(|option| !others.iter().any(|other| other.options.has(option.name)));
            if said.options.0.is_empty() {
                continue;
            }
        } else if let Some(Arg::Block(lines)) = said.head.last_mut() {
            let has = |other: &&Said, name: &str| matches!(other.head.last(), Some(Arg::Block(o)) if o.has(name));
            lines.0.retain(|option| !others.iter().any(|other| has(other, option.name)));
            if lines.0.is_empty() {
                continue;
            }
        } else if !others.is_empty() {
            continue;
        }
        left.push(said);
    }
    left
}

fn same(one: &'static Form, other: &'static Form) -> bool {
    std::ptr::eq(one, other)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn quotes() {
        for (text, expected) in [
            ("a b", r#""a b""#),
            (r"^\d+\.x$", r#""^\d+\.x$""#),
            (r#"say "x""#, r#""say \"x\"""#),
            (r"end\", r#""end\\""#),
            (r"a\\b", r#""a\\\b""#),
            ("it's", "\"it's\""),
        ] {
            assert_eq!(quote(text), expected, "{text}");
        }
        assert!(is_bare("tls+auth://l@mx.example.org:31337") && !is_bare("a$b") && !is_bare("!x") && !is_bare(""));
    }

    #[test]
    fn origins() {
        assert!(
            is_origin("12") && is_origin("conf.d/a b.conf:3") && is_origin("built in") && is_origin("profile bulk")
        );
        assert!(!is_origin("") && !is_origin("the office") && !is_origin("profile of a man"));
        assert!(
            is_made_name("line-12") && is_made_name("x.conf-line-3") && !is_made_name("line-") && !is_made_name("out")
        );
    }
}
