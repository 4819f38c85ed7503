//! `ringpost makemap`: a text file becomes a constant database, which takes the place of the old one at once or not at all.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::Read;
use std::ops::Range;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

use clap::{Args, ValueEnum};
use ringpost_conf::limits::DATA_FILE_BYTES_MAX;
use ringpost_conf::tables::file::{self, Columns, Row};
use ringpost_conf::tables::{cdb, stored_key};

use super::client::print;
use crate::durable;
use crate::exit::{Code, Failure};

/// Mistakes of a file that are shown; the rest is counted.
const SHOWN: usize = 20;

#[derive(Args, Clone, Debug)]
pub struct Options {
    /// How the text is read: mapping has a key and a value on each line
    #[arg(short = 't', value_name = "TYPE", default_value = "mapping")]
    kind: Kind,
    /// The database [default: FILE.db]
    #[arg(short = 'o', value_name = "FILE")]
    output: Option<PathBuf>,
    /// The text
    file: PathBuf,
}

/// How lines are read (grammar §7.1).
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Kind {
    /// Key, a colon or white space, and a list; lines that begin with white space go on.
    Aliases,
    /// The first column of each line.
    Set,
    /// Key, white space (or a colon), and a value.
    Mapping,
}

pub fn run(options: &Options) -> Result<(), Failure> {
    let output = options.output.clone().unwrap_or_else(|| with_db(&options.file));
    let count = make(&options.file, options.kind, &output)?;
    print(&format!("{}: {count} entries\n", output.display()))
}

/// The usual name of a text's database.
pub fn with_db(file: &Path) -> PathBuf {
    let mut name = file.as_os_str().to_owned();
    name.push(".db");
    name.into()
}

/// Reads a text and writes its database; the number of its entries.
///
/// # Errors
/// When the text has mistakes, or a file cannot be read or written. The old database stays then.
pub fn make(file: &Path, kind: Kind, output: &Path) -> Result<usize, Failure> {
    let unreadable = |error: std::io::Error| Failure::new(Code::NoInput, format!("{}: {error}", file.display()));
    let mut opened = File::open(file).map_err(unreadable)?;
    let metadata = opened.metadata().map_err(unreadable)?;
    if metadata.len() > DATA_FILE_BYTES_MAX {
        return Err(unreadable(std::io::Error::other(format!("it has more than {DATA_FILE_BYTES_MAX} bytes"))));
    }
    let mut text = String::new();
    opened.read_to_string(&mut text).map_err(unreadable)?;
    let entries = parse(&text, kind).map_err(|mistakes| {
        let shown = mistakes.iter().take(SHOWN);
        let mut lines: Vec<String> = shown.map(|mistake| format!("{}:{mistake}", file.display())).collect();
        if mistakes.len() > SHOWN {
            lines.push(format!("and {} more", mistakes.len() - SHOWN));
        }
        lines.push(format!("nothing is written; {} is as it was", output.display()));
        Failure::new(Code::Configuration, lines.join("\n  "))
    })?;
    let now = jiff::Timestamp::now().strftime("%Y-%m-%dT%H:%M:%SZ");
    let records = entries.iter().map(|entry| (entry.key.as_str(), entry.value.as_str()));
    let bytes = cdb::build(records, &format!("{} {now}", file.display()));
    let bytes = bytes.map_err(|error| Failure::new(Code::CannotCreate, error.to_string()))?;
    // Who may read the text may read the database, and nobody else: it may hold passwords.
    durable::replace(output, metadata.permissions().mode() & 0o777, &bytes)
        .map_err(|error| Failure::new(Code::CannotCreate, format!("{}: {error}", output.display())))?;
    Ok(entries.len())
}

#[derive(Clone, Debug, PartialEq, Eq)]
struct Entry {
    key: String,
    value: String,
}

/// `LINE:COLUMN: what`.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{line}:{column}: {what}")]
struct Mistake {
    line: usize,
    column: usize,
    what: String,
}

/// Lines are read as those of a `file:` table are, so that a database answers as its text does.
fn parse(text: &str, kind: Kind) -> Result<Vec<Entry>, Vec<Mistake>> {
    let rows: Vec<Row> = match kind {
        Kind::Aliases => file::mapping(text, Columns::Alias).collect(),
        Kind::Mapping => file::mapping(text, Columns::Rest).collect(),
        Kind::Set => file::list(text).map(|(key, _)| Row { values: vec![key.clone()], key }).collect(),
    };
    let (mut entries, mut mistakes): (Vec<Entry>, Vec<Mistake>) = (Vec::new(), Vec::new());
    let mut seen: BTreeMap<String, usize> = BTreeMap::new();
    for Row { key: place, values } in rows {
        let key = stored_key(&text[place.clone()]);
        let mut wrong = |what: String| {
            let (line, column) = position(text, place.start);
            mistakes.push(Mistake { line, column, what });
        };
        if key.is_empty() {
            wrong("no key".into());
        } else if key.starts_with('"') {
            wrong("a quote that does not end".into());
        } else if let Some(first) = seen.insert(key.to_lowercase(), place.start) {
            if kind != Kind::Set {
                let (line, _) = position(text, first);
                wrong(format!("`{key}` is there twice; the first is at line {line}"));
            }
        } else if values.is_empty() && kind == Kind::Aliases {
            wrong(format!("`{key}` stands for nothing"));
        } else if values.is_empty() {
            wrong(format!("`{key}` has no value; a list of keys is made with `-t set`"));
        } else {
            let values = values.into_iter().map(|value| match kind {
                Kind::Aliases => with_quotes(text, value),
                Kind::Set => key.as_str(),
                Kind::Mapping => &text[value],
            });
            let value = values.collect::<Vec<_>>().join(", ");
            entries.push(Entry { key, value });
        }
    }
    if mistakes.is_empty() { Ok(entries) } else { Err(mistakes) }
}

/// A value with the quotes that keep it together.
fn with_quotes(text: &str, value: Range<usize>) -> &str {
    let is_quoted = text[..value.start].ends_with('"') && text[value.end..].starts_with('"');
    if is_quoted { &text[value.start - 1..value.end + 1] } else { &text[value] }
}

/// Line and column of a byte, from 1.
fn position(text: &str, at: usize) -> (usize, usize) {
    let before = &text[..at];
    let line = before.rfind('\n').map_or(0, |end| end + 1);
    (before.matches('\n').count() + 1, before[line..].chars().count() + 1)
}

#[cfg(test)]
mod tests {
    use ringpost_conf::tables::cdb::Cdb;

    use std::fs;

    use super::*;

    #[track_caller]
    fn check(kind: Kind, text: &str, expected: &[(&str, &str)]) {
        let entries = parse(text, kind).unwrap();
        let entries: Vec<(&str, &str)> = entries.iter().map(|e| (e.key.as_str(), e.value.as_str())).collect();
        assert_eq!(entries, expected);
    }

    #[test]
    fn texts_are_read_as_tables_of_their_kind() {
        check(
            Kind::Aliases,
            "# mail\nroot: gilles\r\nstaff:gilles,eric,   # three\n\tchl\nlong:\n  a@b.org\n\"a b\": |\"cmd #1\"\npostmaster root\nq: \"|cmd a, b\", c\n",
            &[
                ("root", "gilles"),
                ("staff", "gilles, eric, chl"),
                ("long", "a@b.org"),
                ("a b", "|\"cmd #1\""),
                ("postmaster", "root"),
                ("q", "\"|cmd a, b\", c"),
            ],
        );
        check(
            Kind::Set,
            "example.org enabled # required\n\n  *.example.org\n[2001:DB8::1]\n10.1.2.3/8\n",
            &[
                ("example.org", "example.org"),
                ("*.example.org", "*.example.org"),
                ("2001:db8::1", "2001:db8::1"),
                ("10.0.0.0/8", "10.0.0.0/8"),
            ],
        );
        check(
            Kind::Mapping,
            "gilles:$6$salt$hash\njoe:x:10:100:Joe S:/home/joe:/bin/sh\n2001:DB8:0::1 mx1.example.org\n::1\tlocal\nlabel user:pass#word\nkey: a b\n",
            &[
                ("gilles", "$6$salt$hash"),
                ("joe", "joe:x:10:100:Joe S:/home/joe:/bin/sh"),
                ("2001:db8::1", "mx1.example.org"),
                ("::1", "local"),
                ("label", "user:pass#word"),
                ("key", "a b"),
            ],
        );
    }

    #[test]
    fn mistakes_are_all_found_with_their_place() {
        let texts = |text, kind| parse(text, kind).unwrap_err().iter().map(Mistake::to_string).collect::<Vec<_>>();
        assert_eq!(
            texts("root: a\nRoot: b\nempty:\n: y\n\"open\n", Kind::Aliases),
            [
                "2:1: `Root` is there twice; the first is at line 1",
                "3:1: `empty` stands for nothing",
                "4:1: no key",
                "5:1: a quote that does not end",
            ]
        );
        assert_eq!(texts("a 1\n b\n", Kind::Mapping), ["2:2: `b` has no value; a list of keys is made with `-t set`"]);
    }

    #[test]
    fn the_old_database_stays_until_the_new_one_is_whole() {
        let dir = tempfile::tempdir().unwrap();
        let (text, db) = (dir.path().join("aliases"), dir.path().join("aliases.db"));
        fs::write(&text, "root: gilles\n").unwrap();
        fs::set_permissions(&text, fs::Permissions::from_mode(0o640)).unwrap();
        assert_eq!(make(&text, Kind::Aliases, &db).unwrap(), 1);
        assert_eq!(fs::metadata(&db).unwrap().permissions().mode() & 0o777, 0o640);
        let before = fs::read(&db).unwrap();
        fs::write(&text, "root: gilles\nroot: eric\n").unwrap();
        let failure = make(&text, Kind::Aliases, &db).unwrap_err();
        assert!(failure.text.contains("aliases:2:1: `root` is there twice"), "{}", failure.text);
        assert_eq!(fs::read(&db).unwrap(), before);
        let names: Vec<_> = fs::read_dir(dir.path()).unwrap().map(|entry| entry.unwrap().file_name()).collect();
        assert_eq!(names.len(), 2, "{names:?}");
        let cdb = Cdb::read(&db).unwrap();
        assert!(cdb.origin().unwrap().starts_with(&text.display().to_string()));
        assert!(make(&text, Kind::Set, &dir.path().join("no/such/dir.db")).is_err());
    }
}
