//! Backends' own configuration files: a key and a value in each line (grammar §7.2). Which keys there are is known of our
//! backends; a helper says it.

use std::collections::BTreeMap;
use std::path::Path;

use super::super::Reading;
use crate::load::HelperOption;
use crate::model::Backend;
use crate::parse::ast::Word;
use crate::parse::schema::Shape;
use crate::report::{Report, did_you_mean};
use crate::source_text::{Span, narrow};
use crate::tables::ServiceKind;

/// The keys of a backend's configuration file, with their places.
pub(super) struct BackendSettings {
    keys: BTreeMap<String, Span>,
}

/// The key of a backend's configuration that says how a service is asked for.
pub(super) fn key_of(backend: &Backend, service: &str) -> String {
    match backend {
        Backend::Ldap { .. } => format!("{service}_filter"),
        Backend::Redis { .. } => format!("{service}_prefix"),
        _ => format!("query_{service}"),
    }
}

/// Keys that say something about the backend as a whole.
fn plain_keys(backend: &Backend) -> &'static [&'static str] {
    match backend {
        Backend::Ldap { .. } => &["url", "username", "password", "basedn"],
        Backend::Redis { .. } => &["url", "username", "password"],
        _ => &["dbpath"],
    }
}

/// Names of services in keys.
fn service_names() -> impl Iterator<Item = &'static str> {
    ServiceKind::names().filter(|name| *name != ServiceKind::Regex.name())
}

impl BackendSettings {
    /// Reads the file of one of our backends. `None`: something is wrong with it, and that was told.
    pub(super) fn of(backend: &Backend, path: &Path, word: &Word, reading: &mut Reading<'_>) -> Option<Self> {
        let mut right: Vec<String> = plain_keys(backend).iter().map(|key| (*key).to_owned()).collect();
        for service in service_names() {
            right.push(key_of(backend, service));
            if matches!(backend, Backend::Ldap { .. }) {
                right.push(format!("{service}_attributes"));
            }
        }
        let (settings, mut wrong) = Self::read(backend.name(), &right, path, word, reading)?;
        for missing in plain_keys(backend).iter().take(1).filter(|key| !settings.keys.contains_key(**key)) {
            let report = Report::new("E0203", word.span, format!("`{}` needs `{missing}`", word.text));
            wrong.push(report.help(format!("add it to {}", word.text)));
        }
        settings.unless(wrong, reading)
    }

    /// Reads the file of a helper that has registered what may be in it.
    pub(super) fn of_helper(
        name: &str,
        options: &[HelperOption],
        path: &Path,
        word: &Word,
        reading: &mut Reading<'_>,
    ) -> Option<Self> {
        let right: Vec<String> = options.iter().map(|option| option.key.clone()).collect();
        let (settings, mut wrong) = Self::read(name, &right, path, word, reading)?;
        for HelperOption { key, .. } in options.iter().filter(|option| option.required) {
            if !settings.keys.contains_key(key) {
                let message = format!("`{}` has no `{key}`, which `{name}` needs", word.text);
                let report = Report::new("E0406", word.span, message);
                wrong.push(report.help(format!("add a line `{key} …` to {}", word.text)));
            }
        }
        settings.unless(wrong, reading)
    }

    /// What the lines say, and what is wrong with them.
    fn read(
        name: &str,
        right: &[String],
        path: &Path,
        word: &Word,
        reading: &mut Reading<'_>,
    ) -> Option<(Self, Vec<Report>)> {
        let file = match crate::load::read_data(reading.source, path, &mut reading.texts, &mut reading.reports) {
            Ok(file) => file,
            Err(error) => {
                let message = format!("cannot read `{}`: {error}", word.text);
                reading.report(Report::new("E0701", word.span, message));
                return None;
            }
        };
        let mut keys = BTreeMap::new();
        let mut wrong = Vec::new();
        let text = reading.texts.text(file);
        for line in crate::tables::file::lines(text) {
            let key_bytes = text[line.clone()].find(char::is_whitespace).unwrap_or(line.len());
            let key = &text[line.start..line.start + key_bytes];
            let span = Span { file, start: narrow(line.start), end: narrow(line.start + key_bytes) };
            if !right.iter().any(|known| known == key) {
                let report = Report::new("E0202", span, format!("`{name}` has no option `{key}`"));
                wrong.push(report.maybe_help(did_you_mean(key, right.iter().map(String::as_str))));
            } else if let Some(first) = keys.insert(key.to_owned(), span) {
                let report = Report::new("E0601", span, format!("`{key}` is given twice"));
                wrong.push(report.also(first, "first here").help(format!("first at {}", reading.texts.at(first))));
            }
        }
        Some((Self { keys }, wrong))
    }

    fn unless(self, wrong: Vec<Report>, reading: &mut Reading<'_>) -> Option<Self> {
        let good = wrong.is_empty();
        wrong.into_iter().for_each(|report| reading.report(report));
        good.then_some(self)
    }

    /// The service that it is asked for, if it says how.
    pub(super) fn answers(&self, backend: &Backend, service: ServiceKind, shape: Shape) -> Option<ServiceKind> {
        let has = |name: &str| self.keys.contains_key(&key_of(backend, name));
        match service {
            _ if has(service.name()) => Some(service),
            ServiceKind::SourceAddr if has("sourceaddr") => Some(service),
            // A listener's backend may judge the password itself; a relay needs to know it.
            ServiceKind::Credentials if shape != Shape::Logins && has(ServiceKind::Auth.name()) => {
                Some(ServiceKind::Auth)
            }
            _ => None,
        }
    }
}
