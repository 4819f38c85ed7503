//! The fixtures of `docs/grammar.md` (its §10 and §11), fed to `load`.
//!
//! Must-parse: loads; of those of §10.1 the warnings are exactly those that the book lists. Must-reject: gives exactly the stated
//! errors with the stated texts.

mod book;

use std::collections::BTreeMap;
use std::path::Path;

use ringpost_conf::{Config, Reports, Severity, load};

use book::expected::{errors as expected, warnings};
use book::{Data, Fixture, extract};

/// A fixture as the book means it.
fn run(fixture: &Fixture, data: &[Data]) -> Result<(Config, Reports), Reports> {
    let files = book::files(fixture, &fixture.whole(), data);
    load(&files, Path::new(&fixture.file()), &book::options())
}

#[test]
fn s02_every_example_loads_with_the_warnings_of_the_book() {
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
fn s03_what_is_twisted_is_refused_with_the_words_of_the_book() {
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
