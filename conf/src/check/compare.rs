//! Warnings that need all rules: lines that are never reached (W0801), open relays (W0802).

use super::Reading;
use crate::model::{Action, ActionKind, Mapping, Match, Outcome};
use crate::parse::ast::Ast;
use crate::report::Report;
use crate::rules::{Dest, Negation, Origin, Test};

/// Compares the rules of a file that is whole; each comes with the number of its statement.
pub(super) fn compare(rules: &[(Match, usize)], actions: &[Action], ast: &Ast, reading: &mut Reading<'_>) {
    // Lines that can cover others are of few kinds, and one that is covered is not added: so this is linear.
    let mut covering: Vec<usize> = Vec::new();
    for (at, (rule, number)) in rules.iter().enumerate() {
        let span = ast.statements[*number].span;
        if let Some((by, by_number)) = covering.iter().map(|by| &rules[*by]).find(|(by, _)| covers(by, rule)) {
            let message = format!("never reached: line {} already decides all of this", by.line.number);
            reading.report(Report::new("W0801", span, message).also(ast.statements[*by_number].span, "this one"));
        } else if covers(rule, rule) {
            covering.push(at);
        }
        if is_open_relay(rule, actions) {
            let message = "open relay: anyone may send anywhere through this rule";
            let help = "name who may: `from src …`, or for whom: `for domain …`";
            reading.report(Report::new("W0802", span, message).help(help));
        }
    }
}

/// Whether `first` takes everything that `second` would. Tables are not compared.
fn covers(first: &Match, second: &Match) -> bool {
    let plain = |negation: Negation| negation == Negation::Plain;
    let from = plain(first.from.0)
        && match &first.from.1 {
            Origin::Any => true,
            Origin::Local => plain(second.from.0) && matches!(second.from.1, Origin::Local | Origin::Socket),
            Origin::Socket => plain(second.from.0) && matches!(second.from.1, Origin::Socket),
            Origin::Authenticated(None) => plain(second.from.0) && matches!(second.from.1, Origin::Authenticated(_)),
            Origin::Certificate(None) => plain(second.from.0) && matches!(second.from.1, Origin::Certificate(_)),
            _ => false,
        };
    let dest = plain(first.dest.0)
        && match &first.dest.1 {
            Dest::Any => true,
            Dest::Local => plain(second.dest.0) && matches!(second.dest.1, Dest::Local),
            _ => false,
        };
    from && dest && first.conditions.is_empty()
}

/// Anyone from anywhere to anywhere. What a client says of itself (HELO, sender) keeps nobody out; a tag, a login, a
/// certificate may, and so does a list of recipients.
fn is_open_relay(rule: &Match, actions: &[Action]) -> bool {
    let relays = match rule.outcome {
        Outcome::Action(at) => actions.get(at).is_some_and(|action| {
            matches!(action.kind, ActionKind::Relay(_)) && !matches!(action.mapping, Some(Mapping::Virtual(_)))
        }),
        Outcome::Reject(_) => false,
    };
    let from_anyone = matches!(rule.from, (Negation::Plain, Origin::Any | Origin::Sender(_)));
    let to_anywhere = matches!(rule.dest, (Negation::Plain, Dest::Any));
    let keeps_out =
        |test: &Test| matches!(test, Test::Recipient(_) | Test::Tag(_) | Test::Authenticated(_) | Test::Certificate(_));
    relays && from_anyone && to_anywhere && !rule.has_test(keeps_out)
}
