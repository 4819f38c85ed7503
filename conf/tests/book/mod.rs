//! The fixtures of `docs/grammar.md`, as several tests need them.
#![allow(dead_code, reason = "each test needs some of it")]

pub mod expected;
pub mod judge;
pub mod words;

use std::path::Path;

use ringpost_conf::{Memory, Options};

/// A fenced block ` ```conf NAME ` or ` ```data NAME PATH `, and the lines after it up to the next heading or block.
pub struct Fixture {
    pub name: String,
    pub text: String,
    /// The lines behind it.
    pub after: String,
}

/// A data file of a fixture.
pub struct Data {
    pub name: String,
    pub path: String,
    pub text: String,
}

/// The whole text.
pub fn book() -> String {
    // Tests of other packages read it, too.
    let above = Path::new(env!("CARGO_MANIFEST_DIR")).ancestors();
    let found = above.map(|dir| dir.join("docs/grammar.md")).find(|path| path.exists());
    std::fs::read_to_string(found.expect("docs/grammar.md is part of the repository")).expect("it can be read")
}

/// All fixtures, and all data files.
pub fn extract() -> (Vec<Fixture>, Vec<Data>) {
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
    ("/etc/ssl/w.pem", ""),
    ("/etc/ssl/w.key", ""),
    ("/usr/libexec/ringpost/table-mybackend", ""),
];

impl Fixture {
    /// With the lines that the book says are appended.
    pub fn whole(&self) -> String {
        let more = if ["P09", "P17", "P20"].contains(&&*self.name) { "accept for any relay\n" } else { "" };
        format!("{}{more}", self.text)
    }

    /// What it is called as a file.
    pub fn file(&self) -> String {
        format!("{}.conf", self.name)
    }
}

/// The files beside a fixture: what it names, by absolute path, and what is in it.
pub fn beside<'a>(fixture: &Fixture, data: &'a [Data]) -> Vec<(&'a str, &'a str)> {
    let is_for = |file: &&Data| file.name == fixture.name || (fixture.name == "R08" && file.name == "P10");
    let shown = data.iter().filter(is_for).map(|file| (&*file.path, &*file.text));
    FILES.iter().copied().chain(shown).collect()
}

/// A file system with `text` in the place of a fixture, and the data files of the book beside it.
pub fn files(fixture: &Fixture, text: &str, data: &[Data]) -> Memory {
    let files = Memory::default().with(fixture.file(), text);
    beside(fixture, data).into_iter().fold(files, |files, (path, text)| files.with(path, text))
}

/// A machine without the addresses of P20.
pub fn options() -> Options {
    Options { interfaces: Some(vec!["lo".into()]), ..Options::default() }
}
