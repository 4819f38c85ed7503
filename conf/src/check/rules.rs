//! Rules: names and tables of each `match` line, and what one line means for the others.

use super::Reading;
use super::tables::Tables;
use crate::model::{Action, ActionKind, Match, Outcome, Reply};
use crate::parse::ast::{ActionLine, DestLine, FromLine, MatchLine, Negatable, OutcomeLine, TraitLine, Word};
use crate::report::{Report, nearest};
use crate::rules::{Condition, Dest, Negation, Origin, Test};

/// The lines that are whole; what is wrong with the others was told.
pub(super) fn rules(
    lines: &[MatchLine],
    actions: &[ActionLine],
    used: &mut [bool],
    tables: &mut Tables,
    reading: &mut Reading<'_>,
) -> Vec<Match> {
    let mut rules = Vec::with_capacity(lines.len());
    for line in lines {
        // Every part is looked at, so that all errors of a line are told.
        let from = line.from.as_ref().map(|from| origin(from, tables, reading));
        let dest = line.dest.as_ref().map(|dest| destination(dest, tables, reading));
        let conditions: Vec<_> = line.traits.iter().map(|condition| test(condition, tables, reading)).collect();
        let outcome = outcome(&line.outcome, actions, used, reading);
        let from = from.unwrap_or(Some((Negation::Plain, Origin::Local)));
        let dest = dest.unwrap_or(Some((Negation::Plain, Dest::Local)));
        let conditions: Option<Vec<Condition>> = conditions.into_iter().collect();
        if let (Some(from), Some(dest), Some(conditions), Some(outcome)) = (from, dest, conditions, outcome) {
            rules.push(Match { from, dest, conditions, outcome, line: reading.line(line.span) });
        }
    }
    rules
}

fn negation<T>(part: &Negatable<T>) -> Negation {
    if part.negated { Negation::Negated } else { Negation::Plain }
}

fn origin(from: &Negatable<FromLine>, tables: &mut Tables, reading: &mut Reading<'_>) -> Option<(Negation, Origin)> {
    let origin = match &from.value {
        FromLine::Any => Origin::Any,
        FromLine::Local => Origin::Local,
        FromLine::Socket => Origin::Socket,
        FromLine::Source(pattern) => Origin::Source(tables.among(pattern, reading)?),
        FromLine::Sender(pattern) => Origin::Sender(tables.among(pattern, reading)?),
    };
    Some((negation(from), origin))
}

fn destination(dest: &Negatable<DestLine>, tables: &mut Tables, reading: &mut Reading<'_>) -> Option<(Negation, Dest)> {
    let destination = match &dest.value {
        DestLine::Any => Dest::Any,
        DestLine::Local => Dest::Local,
        DestLine::Domain(pattern) => Dest::Domain(tables.among(pattern, reading)?),
        DestLine::Recipient(pattern) => Dest::Recipient(tables.among(pattern, reading)?),
    };
    Some((negation(dest), destination))
}

fn test(condition: &Negatable<TraitLine>, tables: &mut Tables, reading: &mut Reading<'_>) -> Option<Condition> {
    let test = match &condition.value {
        TraitLine::Helo(pattern) => Test::Helo(tables.among(pattern, reading)?),
        TraitLine::Sender(pattern) => Test::Sender(tables.among(pattern, reading)?),
        TraitLine::Recipient(pattern) => Test::Recipient(tables.among(pattern, reading)?),
        TraitLine::Tag(pattern) => Test::Tag(tables.among(pattern, reading)?),
    };
    Some(Condition { negation: negation(condition), test })
}

fn outcome(
    line: &OutcomeLine,
    actions: &[ActionLine],
    used: &mut [bool],
    reading: &mut Reading<'_>,
) -> Option<Outcome> {
    match line {
        OutcomeLine::Action(name) => {
            let at = find_action(name, actions, reading)?;
            used[at] = true;
            Some(Outcome::Action(at))
        }
        OutcomeLine::Reject(Some(reply)) => Some(Outcome::Reject(reply.clone())),
        OutcomeLine::Reject(None) => {
            let (status, text) = ("5.7.1".to_owned(), "refused".to_owned());
            Some(Outcome::Reject(Reply { code: 550, status, text }))
        }
    }
}

fn find_action(name: &Word, actions: &[ActionLine], reading: &mut Reading<'_>) -> Option<usize> {
    let found = actions.iter().position(|action| action.name.text == name.text);
    if found.is_none() {
        let near = nearest(&name.text, actions.iter().map(|action| action.name.text.as_str()));
        let near = near.and_then(|near| actions.iter().find(|action| action.name.text == near));
        let help = near.map(|action| {
            format!("did you mean `{}`, declared at {}?", action.name.text, reading.texts.at(action.name.span))
        });
        let report = Report::new("E0302", name.span, format!("no such action: `{}`", name.text));
        reading.report(report.label("not declared in any file").maybe_help(help));
    }
    found
}

/// Warnings that need all lines: W0801, W0802. `lines` are those of the file; with an error among them, they are not compared.
pub(super) fn compare(rules: &[Match], actions: &[Action], lines: &[MatchLine], reading: &mut Reading<'_>) {
    if rules.len() != lines.len() {
        return;
    }
    // Lines that can cover others are of few kinds, and one that is covered is not added: so this is linear.
    let mut covering: Vec<usize> = Vec::new();
    for (at, rule) in rules.iter().enumerate() {
        if let Some(&by) = covering.iter().find(|&&by| covers(&rules[by], rule)) {
            let message = format!("never reached: line {} already decides all of this", rules[by].line.number);
            let report = Report::new("W0801", lines[at].span, message).also(lines[by].span, "this one");
            reading.report(report);
        } else if covers(rule, rule) {
            covering.push(at);
        }
        if is_open_relay(rule, actions) {
            let message = "open relay: anyone may send anywhere through this rule";
            let report = Report::new("W0802", lines[at].span, message);
            reading.report(report.help("name who may: `from src …`, or for whom: `for domain …`"));
        }
    }
}

/// Whether `first` takes everything that `second` would. Tables are not compared.
fn covers(first: &Match, second: &Match) -> bool {
    let from = matches!(
        (&first.from, &second.from),
        ((Negation::Plain, Origin::Any), _)
            | ((Negation::Plain, Origin::Local), (Negation::Plain, Origin::Local | Origin::Socket))
            | ((Negation::Plain, Origin::Socket), (Negation::Plain, Origin::Socket))
    );
    let dest = matches!(
        (&first.dest, &second.dest),
        ((Negation::Plain, Dest::Any), _) | ((Negation::Plain, Dest::Local), (Negation::Plain, Dest::Local))
    );
    from && dest && first.conditions.is_empty()
}

/// Anyone from anywhere to anywhere. What a client says of itself (HELO, sender) keeps nobody out; a tag may.
fn is_open_relay(rule: &Match, actions: &[Action]) -> bool {
    let relays = match rule.outcome {
        Outcome::Action(at) => actions.get(at).is_some_and(|action| matches!(action.kind, ActionKind::Relay(_))),
        Outcome::Reject(_) => false,
    };
    let from_anyone = matches!(rule.from, (Negation::Plain, Origin::Any | Origin::Sender(_)));
    let to_anywhere = matches!(rule.dest, (Negation::Plain, Dest::Any));
    relays && from_anyone && to_anywhere && !rule.has_test(|t| matches!(t, Test::Recipient(_) | Test::Tag(_)))
}
