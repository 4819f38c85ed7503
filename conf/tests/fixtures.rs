//! The fixtures of `docs/grammar.md` (its §10 and §11), fed to `load`.
//!
//! Must-parse: loads; of those of §10.1 the warnings are exactly those that the book lists. Must-reject: gives exactly the stated
//! errors with the stated texts.

use std::collections::BTreeMap;
use std::path::Path;

use ringpost_conf::{Config, Memory, Options, Reports, Severity, load};

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

/// Files that the fixtures name and the book does not show.
const FILES: &[(&str, &str)] = &[
    ("/etc/mail/domains", "example.org\n"),
    ("/etc/mail/other-relays", "192.0.2.0/24\n"),
    ("/etc/mail/aliases", "root: gilles\nstaff: gilles, eric\n"),
    ("/etc/mail/secrets", "bob bob:secret\n"),
    ("/etc/mail/passwds", "joe:$2b$10$abc:1000:100:Joe,,,:/home/joe:/bin/sh\n"),
    ("/etc/mail/vusers", "joe@example.org vmail\n@example.net joe@example.org\n"),
    ("/etc/mail/userinfo", "vmail 2000:2000:/srv/mail\n"),
    ("/etc/mail/creds", "joe $argon2id$v=19$x\n"),
    ("/etc/mail/senders", "joe joe@example.org, @example.net\n"),
    ("/etc/mail/bad.db", ""),
    ("/etc/mail/aliases.db", ""),
    ("/etc/mail/relays.db", ""),
    ("/etc/mail/vmap.db", ""),
    ("/etc/mail/certs/example.com.crt", ""),
    ("/etc/mail/certs/example.com.key", ""),
    ("/etc/mail/certs/lo0.crt", ""),
    ("/etc/mail/certs/lo0.key", ""),
    ("/etc/ssl/mail.example.com.crt", ""),
    ("/etc/ssl/private/mail.example.com.key", ""),
    ("/etc/letsencrypt/live/example.net/fullchain.pem", ""),
    ("/etc/letsencrypt/live/example.net/privkey.pem", ""),
    ("/etc/ssl/mx.pem", ""),
    ("/etc/ssl/private/mx.key", ""),
    ("/etc/ssl/internal-ca.pem", ""),
    ("/etc/ringpost/dkim/r1.pem", ""),
    ("/etc/ringpost/dkim/e1.pem", ""),
    ("/etc/ringpost/dkim.conf", "dbpath /var/lib/dkim.db\nquery_dkim select selector, key from dkim where domain=?\n"),
    ("/etc/ringpost/certs", "www.example.org file:/etc/ssl/w.pem file:/etc/ssl/w.key\n"),
    ("/usr/libexec/ringpost/table-mybackend", ""),
];

/// What the fixtures say in words: data files that the book describes, and lines that are appended.
fn run(fixture: &Fixture, data: &[Data]) -> Result<(Config, Reports), Reports> {
    let mut text = fixture.text.clone();
    if ["P09", "P17", "P20"].contains(&&*fixture.name) {
        text.push_str("accept for any relay\n");
    }
    run_text(&fixture.name, &text, data)
}

fn run_text(fixture: &str, text: &str, data: &[Data]) -> Result<(Config, Reports), Reports> {
    let name = format!("{fixture}.conf");
    let mut files = Memory::default().with(&name, text);
    for (path, text) in FILES {
        files = files.with(path, *text);
    }
    for file in data.iter().filter(|file| file.name == fixture || (fixture == "R08" && file.name == "P10")) {
        files = files.with(&file.path, file.text.as_str());
    }
    // A machine without the addresses of P20.
    let options = Options { interfaces: Some(vec!["lo".into()]), ..Options::default() };
    load(&files, Path::new(&name), &options)
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
