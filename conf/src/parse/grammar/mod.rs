//! Every statement of the grammar (grammar §3), as data.

mod action;
mod filter;
mod listen;
mod rule;
mod setting;
mod shaping;

use super::schema::{Form, Item, Kind, Opt, Rest, Shape, Use};
use crate::tables::ServiceKind;

/// The forms of all statements but `include`, macros and what is old.
pub(crate) fn forms() -> impl Iterator<Item = &'static Form> {
    let groups =
        [listen::FORMS, setting::TABLE, action::FORMS, rule::FORMS, filter::FORMS, setting::FORMS, shaping::FORMS];
    groups.into_iter().flatten()
}

/// The forms of one statement.
pub(crate) fn forms_of(statement: &str) -> impl Iterator<Item = &'static Form> {
    forms().filter(move |form| form.statement == statement)
}

/// The form of a statement whose head begins so. For statements that are made, not read.
pub(crate) fn form(statement: &str, name: &str) -> &'static Form {
    forms_of(statement).find(|form| form.name == name).expect("the grammar has this form")
}

/// Whether a word is a keyword somewhere: as a value, it is printed in quotes.
pub(crate) fn is_keyword(word: &str) -> bool {
    forms().any(|form| form.head.iter().any(|item| item_has(item, word)) || options_have(form.options, word))
}

fn item_has(item: &Item, word: &str) -> bool {
    match item {
        Item::Key(key) => *key == word,
        Item::Arg(kind) => kind_has(kind, word),
    }
}

fn options_have(options: &[Opt], word: &str) -> bool {
    options.iter().any(|option| option.words.contains(&word) || kind_has(&option.kind, word))
}

fn kind_has(kind: &Kind, word: &str) -> bool {
    match kind {
        Kind::Choice(words) | Kind::MaybeChoice(words) => words.contains(&word),
        Kind::Block(options) | Kind::Items(_, options) | Kind::OneOf(options) => options_have(options, word),
        Kind::Else(option, kind) => options_have(std::slice::from_ref(*option), word) || kind_has(kind, word),
        Kind::Then(kind, options) => kind_has(kind, word) || options_have(options, word),
        Kind::Place => matches!(word, "all" | "egress"),
        Kind::Pattern(_) | Kind::MaybePattern(_) => word == "regex",
        Kind::ShardCount => word == "auto",
        _ => false,
    }
}

pub(super) const fn list(service: ServiceKind) -> Use {
    Use { service, shape: Shape::List, called: None }
}

pub(super) const fn mapping(service: ServiceKind) -> Use {
    Use { service, shape: Shape::Mapping, called: None }
}

const fn form_of(statement: &'static str, name: &'static str, head: &'static [Item], options: &'static [Opt]) -> Form {
    Form { statement, name, head, options, rest: Rest::Options }
}

/// Passwords that are sent, not those that are checked.
pub(super) const LOGINS: Use = Use { service: ServiceKind::Credentials, shape: Shape::Logins, called: None };

const NAME: Item = Item::Arg(Kind::Word("a name"));
