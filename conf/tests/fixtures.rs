//! The fixtures of `docs/grammar.md` (its §10 and §11), fed to `load`.
//!
//! Must-parse: loads; of those of §10.1 the warnings are exactly those that the book lists. Must-reject: gives exactly the stated
//! errors with the stated texts.

mod book;

use std::collections::BTreeMap;
use std::path::Path;

use ringpost_conf::{Config, Reports, Severity, load};

use book::{Data, Fixture, extract};

/// A fixture as the book means it.
fn run(fixture: &Fixture, data: &[Data]) -> Result<(Config, Reports), Reports> {
    let files = book::files(fixture, &fixture.whole(), data);
    load(&files, Path::new(&fixture.file()), &book::options())
}

/// `warn W0811 ×4, W0801 ×3`, as it stands behind a fixture.
fn warnings(after: &str) -> BTreeMap<String, usize> {
    let mut counts = BTreeMap::new();
    let words = after.split_once("warn ").map_or("", |(_, words)| words);
    // One sentence, on one line.
    let sentence = words.lines().next().unwrap_or_default();
    let mut last = None;
    for word in sentence.split(['.', ' ', ',', '(', ')']) {
        if word.len() == 5 && word.starts_with("W0") {
            counts.insert(word.to_owned(), 1);
            last = Some(word);
        } else if let (Some(times), Some(code)) = (word.strip_prefix('×'), last) {
            counts.insert(code.to_owned(), times.parse().expect("a number behind ×"));
        }
    }
    counts
}

#[test]
fn must_parse() {
    let (fixtures, data) = extract();
    let mut wrong = String::new();
    let mut count = 0;
    for fixture in fixtures.iter().filter(|f| f.name.starts_with(['P', 'M', 'L'])) {
        count += 1;
        match run(fixture, &data) {
            Ok((_, reports)) if fixture.name.starts_with('P') => {
                let mut got = BTreeMap::new();
                reports.iter().for_each(|report| *got.entry(report.code.to_owned()).or_insert(0) += 1);
                let expected = warnings(&fixture.after);
                if got != expected {
                    wrong += &format!("{}: expected {expected:?}, got\n{reports}\n", fixture.name);
                }
            }
            Ok(_) => {}
            Err(reports) => wrong += &format!("{}: does not load:\n{reports}\n", fixture.name),
        }
    }
    assert_eq!(count, 41, "fixtures of §10; was the book changed?");
    assert!(wrong.is_empty(), "{wrong}");
}

/// `- `1:15 E0202` `message` help: `text``, as it stands in the book.
fn expected(after: &str) -> Vec<String> {
    let lines = after.lines().filter(|line| line.starts_with("- `"));
    lines
        .map(|line| {
            let (head, help) = match line[2..].split_once(" help: ") {
                Some((head, help)) => (head, code_span(help)),
                None => (&line[2..], String::new()),
            };
            let (place, message) = head[1..].split_once('`').expect("place and code are a code span");
            format!("{place} {} = {help}", code_span(message.trim()))
        })
        .collect()
}

/// The text of a Markdown code span, with one or two backticks.
fn code_span(text: &str) -> String {
    let ticks = text.bytes().take_while(|b| *b == b'`').count();
    let inner = &text[ticks..text.len() - ticks];
    if ticks == 2 { inner.trim().to_owned() } else { inner.to_owned() }
}

fn errors(reports: &Reports, name: &str) -> Vec<String> {
    let own = format!("{name}.conf:");
    reports
        .iter()
        .filter(|r| r.severity() == Severity::Error)
        .map(|r| {
            let place = reports.place(r);
            // The book leaves the file's name out.
            let help = r.help.clone().unwrap_or_default().replace(&own, "");
            format!("{}:{} {} {} = {help}", place.line, place.column, r.code, r.message)
        })
        .collect()
}

#[test]
fn must_reject() {
    let (fixtures, data) = extract();
    let mut wrong = String::new();
    let mut count = 0;
    for fixture in fixtures.iter().filter(|f| f.name.starts_with('R')) {
        count += 1;
        let expected = expected(&fixture.after);
        assert!(!expected.is_empty(), "{}: no expectation in the book", fixture.name);
        let got = match run(fixture, &data) {
            Ok(_) => vec!["it loads".to_owned()],
            Err(reports) => errors(&reports, &fixture.name),
        };
        if got != expected {
            wrong += &format!("{}:\n  expected {expected:#?}\n  got {got:#?}\n", fixture.name);
        }
    }
    assert_eq!(count, 44, "fixtures of §11; was the book changed?");
    assert!(wrong.is_empty(), "{wrong}");
}
