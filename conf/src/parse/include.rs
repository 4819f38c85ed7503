//! `include PATH`: its lines stand where it stands (grammar §3).

use std::path::{Path, PathBuf};

use super::Parser;
use super::statement::Statement;
use super::tokens::Token;
use crate::limits::{FILE_BYTES_MAX, INCLUDE_DEPTH_MAX};
use crate::report::Report;
use crate::source_text::Span;

impl Parser<'_> {
    pub(super) fn include(&mut self, tokens: &[Token]) {
        let mut statement = Statement::new(tokens, &self.texts, &mut self.reports, &mut self.ast);
        statement.skip();
        let word = statement.word("include", "a path").and_then(|word| statement.end("include PATH").map(|()| word));
        let Ok(word) = word else {
            self.ast.broken = true;
            return;
        };
        let directory = self.reading.last().and_then(|path| path.parent()).unwrap_or(Path::new("")).to_path_buf();
        let path = self.options.place(&directory, &word.text);
        if self.reading.len() > INCLUDE_DEPTH_MAX {
            let message = format!("cannot read `{}`: includes nest at most {INCLUDE_DEPTH_MAX} deep", word.text);
            return self.reports.push(Report::new("E0701", word.span, message));
        }
        match self.files_of(&path) {
            Ok(files) => files.into_iter().for_each(|file| self.include_file(&file, word.span)),
            Err(error) => {
                let message = format!("cannot read `{}`: {error}", word.text);
                self.reports.push(Report::new("E0701", word.span, message));
            }
        }
    }

    /// The files that a path with `* ? [ ]` in its last part names, sorted; without them, the path itself.
    fn files_of(&self, path: &Path) -> std::io::Result<Vec<PathBuf>> {
        let name = path.file_name().map(|name| name.to_string_lossy().into_owned()).unwrap_or_default();
        if !name.contains(['*', '?', '[']) {
            return Ok(vec![path.to_path_buf()]);
        }
        let directory = path.parent().unwrap_or(Path::new(""));
        let names = self.source.names(directory)?;
        Ok(glob_names(&name, names).into_iter().map(|name| directory.join(name)).collect())
    }

    fn include_file(&mut self, path: &Path, span: Span) {
        if self.reading.iter().any(|file| file == path) {
            let report = Report::new("E0309", span, "include cycle");
            return self.reports.push(report.help(format!("`{}` is being read already", path.display())));
        }
        match self.source.read(path, FILE_BYTES_MAX) {
            Ok(bytes) => self.read(path, bytes),
            Err(error) => {
                self.ast.broken = true;
                let message = format!("cannot read `{}`: {error}", path.display());
                self.reports.push(Report::new("E0701", span, message));
            }
        }
    }
}

/// Those of `names` that fit `pattern`, sorted. Hidden files only if the pattern begins with a dot.
fn glob_names(pattern: &str, mut names: Vec<String>) -> Vec<String> {
    let pattern: Vec<char> = pattern.chars().collect();
    names.retain(|name| {
        let name: Vec<char> = name.chars().collect();
        (name.first() != Some(&'.') || pattern.first() == Some(&'.')) && fits(&pattern, &name)
    });
    names.sort_unstable();
    names
}

/// Bounded: a `*` is only tried again until the next one fits.
fn fits(pattern: &[char], name: &[char]) -> bool {
    let (mut p, mut n) = (0, 0);
    let mut retry: Option<(usize, usize)> = None;
    while n < name.len() {
        if pattern.get(p) == Some(&'*') {
            retry = Some((p + 1, n));
            p += 1;
        } else if let Some(width) = one(&pattern[p..], name[n]) {
            p += width;
            n += 1;
        } else if let Some((after_star, from)) = retry {
            retry = Some((after_star, from + 1));
            (p, n) = (after_star, from + 1);
        } else {
            return false;
        }
    }
    pattern[p..].iter().all(|&c| c == '*')
}

/// How much of the pattern stands for the one character, if it fits.
fn one(pattern: &[char], c: char) -> Option<usize> {
    match pattern.first()? {
        '?' => Some(1),
        '[' => {
            // `[]x]` holds a bracket; without a closing one, `[` is itself.
            let Some(close) = pattern.iter().skip(2).position(|&c| c == ']').map(|at| at + 2) else {
                return (c == '[').then_some(1);
            };
            let negated = matches!(pattern[1], '!' | '^');
            let set = &pattern[if negated { 2 } else { 1 }..close];
            let mut inside = set.contains(&c);
            for range in set.windows(3).filter(|w| w[1] == '-') {
                inside |= (range[0]..=range[2]).contains(&c);
            }
            (inside != negated).then_some(close + 1)
        }
        same => (*same == c).then_some(1),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn globs_of_file_names() {
        let names = || ["b.conf", "a.conf", ".hidden.conf", "a.conf~", "c1.conf"].map(str::to_owned).to_vec();
        assert_eq!(glob_names("*.conf", names()), ["a.conf", "b.conf", "c1.conf"]);
        assert_eq!(glob_names("?.conf", names()), ["a.conf", "b.conf"]);
        assert_eq!(glob_names("[b-z]*.conf", names()), ["b.conf", "c1.conf"]);
        assert_eq!(glob_names("[!a]*.conf", names()), ["b.conf", "c1.conf"]);
        assert_eq!(glob_names(".*", names()), [".hidden.conf"]);
        assert!(glob_names("[", names()).is_empty());
    }
}
