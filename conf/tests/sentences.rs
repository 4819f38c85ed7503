//! Every rule of the book's examples, clause by clause: in another order it says the same, no clause may be said twice, none
//! may be another statement's.

mod book;

use std::path::Path;

use book::{Data, Fixture, extract};
use ringpost_conf::{Reports, load, load_canonical};

/// A rule of a fixture, on one line.
struct Rule {
    fixture: usize,
    /// Where in the fixture's lines.
    line: usize,
    /// `accept` or `reject`, or `match`.
    verb: String,
    /// `from …`, `for …`, `sender …`, `virtual …`: what may stand in any order.
    clauses: Vec<String>,
    /// What is done, with its options; and a comment.
    rest: String,
}

/// Words as they stand, with what braces and quotes hold together.
fn words(line: &str) -> Vec<String> {
    let (mut words, mut word, mut depth, mut quote) = (Vec::new(), String::new(), 0, None);
    for c in line.chars() {
        match (c, quote) {
            ('"' | '\'', None) => quote = Some(c),
            (c, Some(open)) if c == open => quote = None,
            ('{', None) => depth += 1,
            ('}', None) => depth -= 1,
            _ => {}
        }
        if c.is_whitespace() && depth == 0 && quote.is_none() {
            words.extend((!word.is_empty()).then(|| std::mem::take(&mut word)));
        } else {
            word.push(c);
        }
    }
    words.extend((!word.is_empty()).then_some(word));
    words
}

/// How many words belong to a clause that begins here; none: the clauses are over.
fn length(words: &[String]) -> usize {
    let word = |at: usize| words.get(at).map_or("", String::as_str);
    let negated = usize::from(word(1) == "!");
    let value = word(1 + negated);
    match word(0).trim_start_matches('!') {
        "from" | "for" if matches!(value, "source" | "domain" | "virtual" | "src" | "mail-from" | "rcpt-to") => {
            3 + negated
        }
        "from" | "for" | "tagged" | "sender" | "recipient" | "tag" => 2 + negated,
        "alias" | "virtual" | "users" | "userbase" => 2,
        _ => 0,
    }
}

fn rules(fixtures: &[Fixture]) -> Vec<Rule> {
    let mut rules = Vec::new();
    for (fixture, text) in fixtures.iter().enumerate() {
        for (line, sentence) in text.whole().lines().enumerate() {
            let all = words(sentence);
            let Some(verb) = all.first().filter(|verb| matches!(&***verb, "accept" | "reject" | "match")) else {
                continue;
            };
            let (mut at, mut clauses) = (1, Vec::new());
            while length(&all[at..]) > 0 {
                let end = at + length(&all[at..]);
                clauses.push(all[at..end].join(" "));
                at = end;
            }
            rules.push(Rule { fixture, line, verb: verb.clone(), clauses, rest: all[at..].join(" ") });
        }
    }
    rules
}

/// The fixture with another sentence in the place of the rule.
fn with(fixture: &Fixture, rule: &Rule, clauses: &[String], rest: &str) -> String {
    let sentence = format!("{} {} {rest}", rule.verb, clauses.join(" "));
    let whole = fixture.whole();
    let lines = whole.lines().enumerate().map(|(at, line)| if at == rule.line { &*sentence } else { line });
    lines.map(|line| format!("{line}\n")).collect()
}

fn canonical(fixture: &Fixture, text: &str, data: &[Data]) -> String {
    let files = book::files(fixture, text, data);
    let loaded = load_canonical(&files, Path::new(&fixture.file()), &book::options(), false);
    loaded.unwrap_or_else(|reports| panic!("{}:\n{text}\n{reports}", fixture.name)).2
}

fn errors(fixture: &Fixture, text: &str, data: &[Data]) -> Reports {
    match load(&book::files(fixture, text, data), Path::new(&fixture.file()), &book::options()) {
        Ok(_) => panic!("{} loads:\n{text}", fixture.name),
        Err(reports) => reports,
    }
}

fn examples() -> (Vec<Fixture>, Vec<Data>) {
    let (mut fixtures, data) = extract();
    fixtures.retain(|fixture| fixture.name.starts_with(['P', 'L']));
    (fixtures, data)
}

#[test]
fn s03_clauses_in_any_order_say_the_same() {
    let (fixtures, data) = examples();
    let mut turned = 0;
    for rule in rules(&fixtures) {
        let fixture = &fixtures[rule.fixture];
        let expected = canonical(fixture, &fixture.whole(), &data);
        let mut clauses = rule.clauses.clone();
        for _ in 1..rule.clauses.len() {
            clauses.rotate_left(1);
            assert_eq!(
                canonical(fixture, &with(fixture, &rule, &clauses, &rule.rest), &data),
                expected,
                "{}",
                fixture.name
            );
            turned += 1;
        }
        clauses.reverse();
        assert_eq!(
            canonical(fixture, &with(fixture, &rule, &clauses, &rule.rest), &data),
            expected,
            "{}",
            fixture.name
        );
    }
    assert!(turned > 30, "{turned}");
}

#[test]
fn s03_no_clause_is_said_twice() {
    let (fixtures, data) = examples();
    let mut count = 0;
    for rule in rules(&fixtures) {
        let fixture = &fixtures[rule.fixture];
        for clause in &rule.clauses {
            let mut clauses = rule.clauses.clone();
            clauses.push(clause.clone());
            let text = with(fixture, &rule, &clauses, &rule.rest);
            let reports = errors(fixture, &text, &data);
            let found =
                reports.iter().find(|report| report.code == "E0601").unwrap_or_else(|| panic!("{text}\n{reports}"));
            // At the second, and where the first is.
            let place = reports.place(found);
            assert_eq!(place.line, rule.line + 1, "{text}\n{reports}");
            assert!(
                found.also.is_some() && found.help.as_deref().is_some_and(|help| help.starts_with("first at ")),
                "{reports}"
            );
            count += 1;
        }
        // What is done is said once, too.
        if ["deliver", "relay"].iter().any(|verb| rule.rest.starts_with(verb)) {
            let text = with(fixture, &rule, &rule.clauses, &format!("{} {0}", without_comment(&rule.rest)));
            let reports = errors(fixture, &text, &data);
            assert!(reports.iter().any(|report| report.code == "E0204"), "{text}\n{reports}");
        }
    }
    assert!(count > 60, "{count}");
}

#[test]
fn s03_no_clause_is_another_statements() {
    let (fixtures, data) = examples();
    let foreign =
        ["port 25", "key /k", "dhe /c", "smtps", "mask-src", "cache 5m", "selector x", "max-rcpt 5", "phase connect"];
    for rule in rules(&fixtures) {
        let fixture = &fixtures[rule.fixture];
        for clause in foreign {
            for at in 0..=rule.clauses.len() {
                let mut clauses = rule.clauses.clone();
                clauses.insert(at, clause.to_owned());
                let text = with(fixture, &rule, &clauses, &rule.rest);
                let reports = errors(fixture, &text, &data);
                let place =
                    reports.iter().map(|report| reports.place(report)).find(|place| place.line == rule.line + 1);
                assert!(place.is_some(), "{text}\n{reports}");
            }
        }
    }
}

/// A comment begins at a word of its own.
fn without_comment(text: &str) -> &str {
    text.split_once(" # ").map_or(text, |(before, _)| before)
}
