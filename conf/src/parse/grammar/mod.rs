//! Every statement of the grammar (grammar §3), as data.

mod action;
mod filter;
mod listen;
mod rule;
mod setting;
mod shaping;

use std::collections::HashSet;
use std::sync::LazyLock;

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
    // Asked of every word of every table that is printed, and the grammar is a tree to walk.
    static KEYWORDS: LazyLock<HashSet<&'static str>> = LazyLock::new(|| {
        let mut all = HashSet::new();
        for form in forms() {
            form.head.iter().for_each(|item| of_item(item, &mut all));
            of_options(form.options, &mut all);
        }
        all
    });
    KEYWORDS.contains(word)
}

fn of_item(item: &'static Item, all: &mut HashSet<&'static str>) {
    match item {
        Item::Key(key) => _ = all.insert(*key),
        Item::Arg(kind) => of_kind(kind, all),
    }
}

fn of_options(options: &'static [Opt], all: &mut HashSet<&'static str>) {
    for option in options {
        all.extend(option.words);
        of_kind(&option.kind, all);
    }
}

fn of_kind(kind: &'static Kind, all: &mut HashSet<&'static str>) {
    match kind {
        Kind::Choice(words) | Kind::MaybeChoice(words) => all.extend(*words),
        Kind::Block(options) | Kind::Items(_, options) | Kind::OneOf(options) => of_options(options, all),
        Kind::Else(option, kind) => {
            of_options(std::slice::from_ref(*option), all);
            of_kind(kind, all);
        }
        Kind::Then(kind, options) => {
            of_kind(kind, all);
            of_options(options, all);
        }
        Kind::Place => all.extend(["all", "egress"]),
        Kind::Pattern(_) | Kind::MaybePattern(_) => _ = all.insert("regex"),
        Kind::ShardCount => _ = all.insert("auto"),
        _ => {}
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
