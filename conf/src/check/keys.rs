//! `pki`, `ca`: files are there, and keys are private (grammar §4.2).

use std::collections::HashMap;
use std::path::PathBuf;

use super::Check;
use crate::load::Exists;
use crate::model::{Ca, Keyed, ListedPair, Pki, PkiSource};
use crate::parse::ast::{OptionLine, Said, Word};
use crate::report::Report;
use crate::tables::{Certificate, Mapped, Pem};

/// Bits of a mode that let group and others read.
const READABLE: u32 = 0o044;

impl Check<'_, '_> {
    /// Each `pki` with all its lines.
    pub(super) fn pkis(&mut self) -> Vec<Pki> {
        let mut by_name: Vec<(&Word, Vec<&Said>)> = Vec::new();
        let mut index: HashMap<&str, usize> = HashMap::new();
        for said in self.ast.of("pki") {
            let Some(name) = said.word(0) else { continue };
            let at = *index.entry(&name.text).or_insert(by_name.len());
            match by_name.get_mut(at) {
                Some((_, lines)) => lines.push(said),
                None => by_name.push((name, vec![said])),
            }
        }
        let mut pkis = Vec::new();
        for (name, lines) in by_name {
            if let Some(source) = self.pki(name, &lines) {
                pkis.push(Pki { name: name.text.to_string(), source, line: self.reading.line(lines[0].span) });
            }
        }
        pkis
    }

    fn pki(&mut self, name: &Word, lines: &[&Said]) -> Option<PkiSource> {
        let mut options: Vec<&OptionLine> = Vec::new();
        for option in lines.iter().flat_map(|said| &said.options.0) {
            // Within a line this was told already.
            match options.iter().find(|have| have.name == option.name).map(|have| have.word.span) {
                Some(earlier) if self.reading.texts.line(earlier) != self.reading.texts.line(option.word.span) => {
                    let help = format!("first at {}", self.reading.texts.at(earlier));
                    let message = format!("`{}` is given twice", option.word.value);
                    self.reading
                        .report(Report::new("E0601", option.word.span, message).also(earlier, "first here").help(help));
                }
                Some(_) => {}
                None => options.push(option),
            }
        }
        let find = |wanted: &str| options.iter().find(|option| option.name == wanted).copied();
        if let Some(dhe) = find("dhe") {
            let report = Report::new("W0810", dhe.word.span, format!("`{}` has no effect", dhe.word.value));
            self.reading.report(report.help("keys are always exchanged by ECDHE"));
        }
        if let Some(option) = find("from") {
            if let Some(file) = find("cert").or_else(|| find("key")) {
                let message = format!("`from` and `{}` exclude each other", file.word.value);
                self.reading.report(Report::new("E0602", file.word.span, message));
            }
            let crate::parse::ast::Arg::Targ(targ) = &option.arg else { return None };
            return match self.tables.keyed(targ, self.reading)? {
                Keyed::Memory(listed) => Some(PkiSource::Listed(self.listed(option, &listed))),
                Keyed::Remote(table) => Some(PkiSource::Table(table)),
            };
        }
        let cert = find("cert").and_then(word_of).map(|word| self.file(word));
        let key = find("key").and_then(word_of).map(|word| self.key_file(word));
        match (cert, key) {
            (Some(cert), Some(key)) => Some(PkiSource::Files { cert, key }),
            _ if lines.iter().any(|said| said.broken) => None,
            (cert, _) => {
                let missing = if cert.is_none() { "cert FILE" } else { "key FILE" };
                self.reading.report(Report::new("E0203", name.span, format!("`pki {}` needs `{missing}`", name.text)));
                None
            }
        }
    }

    /// The files that a list names. What stands in a configuration is no secret, and so no place for a key.
    fn listed(&mut self, option: &OptionLine, listed: &Mapped<Certificate>) -> Vec<ListedPair> {
        let mut pairs = Vec::new();
        for (name, Certificate { chain, key }) in listed.iter() {
            let (Pem::File(chain), Pem::File(key)) = (chain, key) else {
                let message = format!("`{name}` has PEM text where a list or a text file needs `file:/path`");
                let help = "what stands in a configuration is read by more than the keyholder";
                self.reading.report(Report::new("E0203", option.word.span, message).help(help));
                continue;
            };
            let place = |path: &PathBuf| self.reading.place(option.word.span.file, &path.to_string_lossy());
            let (cert, key) = (place(chain), place(key));
            // Whether they are there whoever reads them tells: a list that is read again by itself may name new ones.
            if matches!(self.reading.source.exists(&key), Exists::File { mode, .. } if mode & READABLE != 0) {
                let message = format!("`{}` can be read by others", key.display());
                let report = Report::new("E0702", option.word.span, message);
                self.reading.report(report.help(format!("chmod 600 {}", key.display())));
            }
            pairs.push(ListedPair { name: name.to_owned(), cert, key });
        }
        pairs
    }

    pub(super) fn cas(&mut self) -> Vec<Ca> {
        let mut cas = Vec::new();
        for said in self.ast.of("ca").filter(|said| !said.broken) {
            let Some(name) = said.word(0) else { continue };
            match said.options.word("cert") {
                Some(word) => {
                    let cert = self.file(word);
                    cas.push(Ca { name: name.text.to_string(), cert, line: self.reading.line(said.span) });
                }
                None => {
                    let message = format!("`ca {}` needs `cert FILE`", name.text);
                    self.reading.report(Report::new("E0203", name.span, message));
                }
            }
        }
        cas
    }

    /// A file that must be there.
    pub(super) fn file(&mut self, word: &Word) -> PathBuf {
        self.look(word).0
    }

    /// A private key: it must be there, and nobody else may read it. Links do not matter; the file behind them does.
    pub(super) fn key_file(&mut self, word: &Word) -> PathBuf {
        let (path, mode) = self.look(word);
        if mode.is_some_and(|mode| mode & READABLE != 0) {
            let report = Report::new("E0702", word.span, format!("`{}` can be read by others", word.text));
            self.reading.report(report.help(format!("chmod 600 {}", word.text)));
        }
        path
    }

    fn look(&mut self, word: &Word) -> (PathBuf, Option<u32>) {
        let path = self.reading.place(word.span.file, &word.text);
        match self.reading.source.exists(&path) {
            Exists::File { mode, .. } => (path, Some(mode)),
            missing => {
                let why = if missing == Exists::Directory { "it is a directory" } else { "no such file" };
                self.reading.report(Report::new("E0701", word.span, format!("cannot read `{}`: {why}", word.text)));
                (path, None)
            }
        }
    }
}

fn word_of(option: &OptionLine) -> Option<&Word> {
    match &option.arg {
        crate::parse::ast::Arg::Word(word) => Some(word),
        _ => None,
    }
}
