//! The fixtures of `docs/grammar.md` (its §10 and §11), fed to `load`.
//!
//! Must-parse: loads, or is in [`EXPECTED_NOT_YET`], and then every error says that something is not built yet.
//! Must-reject: gives exactly the stated errors with the stated texts, beside *not yet* for the rest of its lines, or is in
//! [`REJECTS_NOT_YET`].
//! A listed fixture that starts to work fails the test: take it off the list.

use std::path::Path;

use ringpost_conf::{Config, Memory, Options, Reports, Severity, load};

/// Must-parse fixtures that use what is not built yet.
const EXPECTED_NOT_YET: &[&str] = &[
    "P01", "P02", "P03", "P04", "P05", "P06", "P07", "P08", "P09", "P10", "P11", "P12", "P13", "P14", "P15", "P16",
    "P17", "P18", "P19", "P20", "P21", "P22", "P23", "P24", "P25", "M01", "M02", "M03", "M04", "M05", "M06", "M07",
    "M08", "M09", "M10", "M11", "M12", "L01", "L02", "L03", "L04",
];

/// Must-reject fixtures that use what is not built yet beside the error that they are about.
const REJECTS_NOT_YET: &[&str] = &[
    "R01", "R04", "R05", "R06", "R07", "R08", "R10", "R11", "R12", "R13", "R15", "R16", "R22", "R25", "R29", "R30",
    "R31", "R32", "R34", "R36", "R39", "R41", "R42", "R43", "R44",
];

/// A fenced block ` ```conf NAME ` or ` ```data NAME PATH `, and the lines after it up to the next heading or block.
struct Fixture {
    name: String,
    text: String,
    after: String,
}

struct Data {
    name: String,
    path: String,
    text: String,
}

fn book() -> String {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../docs/grammar.md");
    std::fs::read_to_string(path).expect("docs/grammar.md is part of the repository")
}

fn extract() -> (Vec<Fixture>, Vec<Data>) {
    let (mut fixtures, mut data) = (Vec::<Fixture>::new(), Vec::new());
    let book = book();
    let mut lines = book.lines();
    while let Some(line) = lines.next() {
        let label: Vec<&str> = line.strip_prefix("```").unwrap_or("").split_whitespace().collect();
        match label[..] {
            ["conf", name] => {
                fixtures.push(Fixture { name: name.to_owned(), text: block(&mut lines), after: String::new() });
            }
            ["data", name, path] => {
                data.push(Data { name: name.to_owned(), path: path.to_owned(), text: block(&mut lines) });
            }
            [] => {
                if let Some(last) = fixtures.last_mut() {
                    last.after.push_str(line);
                    last.after.push('\n');
                }
            }
            _ => drop(block(&mut lines)),
        }
    }
    (fixtures, data)
}

fn block<'l>(lines: &mut impl Iterator<Item = &'l str>) -> String {
    let inside: Vec<&str> = lines.take_while(|line| !line.starts_with("```")).collect();
    inside.join("\n") + "\n"
}

/// What the fixtures say in words: data files that the book describes, and lines that are appended.
fn run(fixture: &Fixture, data: &[Data]) -> Result<(Config, Reports), Reports> {
    let mut text = fixture.text.clone();
    if ["P17", "P20"].contains(&&*fixture.name) {
        text.push_str("accept for any relay\n");
    }
    let name = format!("{}.conf", fixture.name);
    let mut files = Memory::default().with(&name, text);
    files = files.with("/etc/mail/domains", "example.org\n").with("/etc/mail/other-relays", "192.0.2.0/24\n");
    for file in data.iter().filter(|file| file.name == fixture.name) {
        files = files.with(&file.path, file.text.as_str());
    }
    load(&files, Path::new(&name), &Options::default())
}

#[test]
fn must_parse() {
    let (fixtures, data) = extract();
    let mut wrong = String::new();
    let mut count = 0;
    for fixture in fixtures.iter().filter(|f| f.name.starts_with(['P', 'M', 'L'])) {
        count += 1;
        let listed = EXPECTED_NOT_YET.contains(&&*fixture.name);
        match run(fixture, &data) {
            Ok(_) if listed => wrong += &format!("{}: loads now; take it off the list\n", fixture.name),
            Ok(_) => {}
            Err(reports) if listed => {
                // P09 loads only where a helper program is installed, says the book.
                let stated = |code: &str| code == "E0901" || (fixture.name == "P09" && code == "E0307");
                for report in reports.iter().filter(|r| r.severity() == Severity::Error && !stated(r.code)) {
                    let place = reports.place(report);
                    wrong += &format!("{}: {}:{} {}\n", fixture.name, place.line, report.code, report.message);
                }
            }
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
        let listed = REJECTS_NOT_YET.contains(&&*fixture.name);
        let got = match run(fixture, &data) {
            Ok(_) => vec!["it loads".to_owned()],
            Err(reports) => errors(&reports, &fixture.name),
        };
        // What is not built yet says so beside the error that the fixture is about.
        let told: Vec<String> = got.iter().filter(|line| !line.contains(" E0901 ")).cloned().collect();
        let is_partly_built = told.len() < got.len() && told.iter().all(|line| expected.contains(line));
        if listed && told == expected {
            wrong += &format!("{}: is right now; take it off the list\n", fixture.name);
        } else if told != expected && !(listed && is_partly_built) {
            wrong += &format!("{}:\n  expected {expected:#?}\n  got {got:#?}\n", fixture.name);
        }
    }
    assert_eq!(count, 44, "fixtures of §11; was the book changed?");
    assert!(wrong.is_empty(), "{wrong}");
}
