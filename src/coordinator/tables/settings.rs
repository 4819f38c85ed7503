//! The configuration file of a backend: a key and a value on each line. Pure: the text comes from elsewhere.

use std::collections::BTreeMap;
use std::fmt;
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use super::service::Service;

/// Similarity from which a word is taken for a slip of another.
const SIMILAR: f64 = 0.7;

/// A file that a backend reads, and what it says.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ConfigFile {
    /// Where it is, for messages.
    pub path: PathBuf,
    /// Its text. It may hold a password.
    pub text: String,
}

impl fmt::Debug for ConfigFile {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "ConfigFile({}, …)", self.path.display())
    }
}

/// What is wrong with a backend's configuration, and where.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Problem {
    /// The file.
    pub path: PathBuf,
    /// Line, from 1; 0: the file as a whole.
    pub line: usize,
    /// Column in characters, from 1.
    pub column: usize,
    /// What is wrong.
    pub message: String,
    /// What to do.
    pub help: Option<String>,
}

impl fmt::Display for Problem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:", self.path.display())?;
        if self.line > 0 {
            write!(f, "{}:{}:", self.line, self.column)?;
        }
        write!(f, " {}", self.message)?;
        self.help.as_ref().map_or(Ok(()), |help| write!(f, "\n  {help}"))
    }
}

/// The lines of a file, by key.
#[derive(Debug)]
pub struct Settings {
    path: PathBuf,
    lines: BTreeMap<String, Line>,
}

/// One value and where it stands.
#[derive(Clone, Debug)]
pub struct Line {
    /// The value.
    pub value: String,
    line: usize,
    key_column: usize,
    value_column: usize,
}

/// Which keys a backend knows: some by name, some for each service.
#[derive(Clone, Copy, Debug)]
pub struct Keys {
    /// Names.
    pub plain: &'static [&'static str],
    /// What stands before and after a service's name.
    pub per_service: &'static [(&'static str, &'static str)],
    /// Those of the above that may have an empty value.
    pub may_be_empty: &'static [&'static str],
}

impl Keys {
    fn all(self) -> impl Iterator<Item = String> {
        let each = |(before, after): &(&str, &str)| {
            let (before, after) = (before.to_string(), after.to_string());
            Service::names().map(move |name| format!("{before}{name}{after}"))
        };
        self.plain.iter().map(|name| name.to_string()).chain(self.per_service.iter().flat_map(each))
    }

    fn may_be_empty(self, key: &str) -> bool {
        self.may_be_empty.iter().any(|part| key == *part || (part.starts_with('_') && key.ends_with(part)))
    }
}

impl Settings {
    /// Reads a file's text: `key value` lines, blank lines, `#` lines. A value goes to the end of its line and may be in
    /// double quotes as a whole.
    ///
    /// # Errors
    /// All that is wrong with it: unknown keys, keys that are there twice, keys without a value.
    pub fn parse(file: &ConfigFile, keys: Keys) -> Result<Self, Vec<Problem>> {
        let mut settings = Self { path: file.path.clone(), lines: BTreeMap::new() };
        let known: Vec<String> = keys.all().collect();
        let mut problems = Vec::new();
        for (index, text) in file.text.lines().enumerate() {
            if is_blank(text) {
                continue;
            }
            let (key, line) = split(text, index + 1);
            let problem = if !known.contains(&key) {
                let help = nearest(&key, &known).map(|near| format!("did you mean `{near}`?"));
                Some((line.key_column, format!("unknown key `{key}`"), help))
            } else if line.value.is_empty() && !keys.may_be_empty(&key) {
                Some((line.key_column, format!("`{key}` has no value"), None))
            } else {
                let twice = settings.lines.get(&key).map(|first| {
                    let help = format!("the first is at line {}", first.line);
                    (line.key_column, format!("`{key}` is there twice"), Some(help))
                });
                settings.lines.entry(key).or_insert_with(|| line.clone());
                twice
            };
            if let Some((column, message, help)) = problem {
                problems.push(Problem { path: file.path.clone(), line: line.line, column, message, help });
            }
        }
        if problems.is_empty() { Ok(settings) } else { Err(problems) }
    }

    /// A value.
    pub fn get(&self, key: &str) -> Option<&str> {
        self.lines.get(key).map(|line| line.value.as_str())
    }

    /// A value that must be there.
    pub fn need(&self, key: &str) -> Result<&str, Problem> {
        self.get(key).ok_or_else(|| {
            self.about_file(
                format!("there is no `{key}`"),
                Some(format!("add a line `{key} …` to {}", self.path.display())),
            )
        })
    }

    /// The value of each service that has one, such as `query_alias`.
    pub fn per_service(&self, before: &str, after: &str) -> BTreeMap<Service, (String, Line)> {
        let mut found = BTreeMap::new();
        for (key, line) in &self.lines {
            let name = key.strip_prefix(before).and_then(|rest| rest.strip_suffix(after));
            if let Some(service) = name.and_then(Service::named) {
                found.insert(service, (key.clone(), line.clone()));
            }
        }
        found
    }

    /// Something is wrong with the value of a key.
    pub fn about(&self, key: &str, message: impl Into<String>, help: Option<String>) -> Problem {
        match self.lines.get(key) {
            Some(line) => Problem {
                path: self.path.clone(),
                line: line.line,
                column: line.value_column,
                message: message.into(),
                help,
            },
            None => self.about_file(message, help),
        }
    }

    /// Something is wrong with the file as a whole.
    pub fn about_file(&self, message: impl Into<String>, help: Option<String>) -> Problem {
        Problem { path: self.path.clone(), line: 0, column: 0, message: message.into(), help }
    }

    /// The file.
    pub fn path(&self) -> &Path {
        &self.path
    }
}

/// Keys and values of all lines of a text, read as [`Settings::parse`] does, whatever the keys are.
pub fn pairs(text: &str) -> impl Iterator<Item = (String, String)> + '_ {
    let lines = text.lines().filter(|line| !is_blank(line));
    lines.map(|line| split(line, 0)).map(|(key, line)| (key, line.value))
}

/// Nothing, or a comment.
fn is_blank(line: &str) -> bool {
    line.trim().is_empty() || line.trim_start().starts_with('#')
}

fn split(text: &str, number: usize) -> (String, Line) {
    let start = text.len() - text.trim_start().len();
    let rest = &text[start..];
    let key_end = rest.find(char::is_whitespace).unwrap_or(rest.len());
    let (key, after) = rest.split_at(key_end);
    let value = after.trim();
    let value_at = start + key_end + (after.len() - after.trim_start().len());
    let inner = value.strip_prefix('"').and_then(|rest| rest.strip_suffix('"')).filter(|inner| !inner.contains('"'));
    let column = |at: usize| text[..at.min(text.len())].chars().count() + 1;
    let line = Line {
        value: inner.unwrap_or(value).to_owned(),
        line: number,
        key_column: column(start),
        value_column: column(value_at),
    };
    (key.to_owned(), line)
}

fn nearest<'a>(key: &str, known: &'a [String]) -> Option<&'a str> {
    let scored = known.iter().map(|word| (strsim::normalized_damerau_levenshtein(key, word), word));
    let best = scored.max_by(|a, b| a.0.total_cmp(&b.0))?;
    (best.0 >= SIMILAR).then_some(best.1)
}

#[cfg(test)]
mod tests {
    use super::*;

    const KEYS: Keys = Keys {
        plain: &["dbpath", "prefix"],
        per_service: &[("query_", ""), ("", "_prefix")],
        may_be_empty: &["_prefix"],
    };

    fn parse(text: &str) -> Result<Settings, Vec<Problem>> {
        Settings::parse(&ConfigFile { path: "/etc/t.conf".into(), text: text.into() }, KEYS)
    }

    #[test]
    fn the_articles_file_is_read() {
        let text = "# Path to database\n#\ndbpath\t\t\t/tmp/sqlite.db\r\n\n \
                    query_alias\t\tselect value from aliases where key=?;\nquery_source  \"select a\"\nalias_prefix\n";
        let settings = parse(text).unwrap();
        assert_eq!(settings.need("dbpath").unwrap(), "/tmp/sqlite.db");
        let queries = settings.per_service("query_", "");
        assert_eq!(queries[&Service::Alias].1.value, "select value from aliases where key=?;");
        assert_eq!(queries[&Service::SourceAddr].1.value, "select a");
        assert_eq!(queries.len(), 2);
        let problem = settings.about("query_alias", "no", None);
        assert_eq!((problem.line, problem.column), (5, 15));
        assert_eq!(
            settings.need("prefix").unwrap_err().to_string().lines().next(),
            Some("/etc/t.conf: there is no `prefix`")
        );
    }

    #[test]
    fn all_mistakes_are_found_with_their_place() {
        let problems =
            parse("dbpat /x\n  query_alais select\nquery_alias\nfrobnicate 1\ndbpath a\ndbpath b\n").unwrap_err();
        let texts: Vec<String> = problems.iter().map(Problem::to_string).collect();
        assert_eq!(
            texts,
            [
                "/etc/t.conf:1:1: unknown key `dbpat`\n  did you mean `dbpath`?",
                "/etc/t.conf:2:3: unknown key `query_alais`\n  did you mean `query_alias`?",
                "/etc/t.conf:3:1: `query_alias` has no value",
                "/etc/t.conf:4:1: unknown key `frobnicate`",
                "/etc/t.conf:6:1: `dbpath` is there twice\n  the first is at line 5",
            ]
        );
    }
}
