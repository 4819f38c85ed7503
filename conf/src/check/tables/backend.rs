//! Backends: who they are, what they can answer, and whether they have been told how (grammar §7.2).

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::rc::Rc;

use super::super::Reading;
use super::{Declared, Tables};
use crate::load::Exists;
use crate::model::Backend;
use crate::parse::ast::{Arg, Entries, Said, Targ, Word};
use crate::parse::backend_of;
use crate::parse::schema::Shape;
use crate::report::{Report, did_you_mean, nearest};
use crate::source_text::{Span, narrow};
use crate::tables::{HELPER_DIRECTORIES, ServiceKind};

const BACKENDS: &[&str] = &["file", "db", "sqlite", "ldap", "redis", "proc"];

/// Where a table's entries come from.
pub(super) enum Source {
    /// There was an error in the declaration.
    Broken,
    Static(Rc<Entries>),
    File {
        path: Word,
    },
    /// `<localnames>`.
    LocalNames,
    Remote(Remote),
}

/// A backend that must be asked.
#[derive(Clone, Debug)]
pub(super) struct Remote {
    backend: Backend,
    /// The path in the declaration, for messages.
    argument: Option<Word>,
}

/// The keys of a backend's configuration file, with their places.
pub(super) struct BackendSettings {
    keys: BTreeMap<String, Span>,
}

impl Source {
    pub(super) fn of(said: &Said, reading: &mut Reading<'_>) -> Self {
        match said.value(1) {
            _ if said.broken => Self::Broken,
            Some(Arg::Entries(entries)) => Self::Static(entries.clone()),
            Some(Arg::Word(word)) => Self::named(word, reading),
            _ => Self::Broken,
        }
    }

    pub(super) fn built_in(name: &str) -> Self {
        match name {
            "getpwnam" => Self::Remote(Remote { backend: Backend::Getpwnam, argument: None }),
            _ => Self::LocalNames,
        }
    }

    fn named(source: &Word, reading: &mut Reading<'_>) -> Self {
        let Some((name, argument)) = backend_of(&source.text) else { return Self::Broken };
        let argument = Word { text: argument.into(), ..source.clone() };
        let path = reading.place(source.span.file, &argument.text);
        let backend = match name {
            "file" => return Self::File { path: argument },
            "db" => Backend::Db { path },
            "sqlite" => Backend::Sqlite { path },
            "ldap" => Backend::Ldap { path },
            "redis" => Backend::Redis { path },
            "proc" => Backend::Proc { program: path, path: None },
            other => match helper(other, reading) {
                Some(program) => Backend::Proc { program, path: Some(path) },
                None => {
                    let helper = format!("a helper would be named `table-{other}`");
                    let help = match nearest(other, BACKENDS.iter().copied()) {
                        Some(near) => format!("did you mean `{near}`? ({helper})"),
                        None => helper,
                    };
                    let message = format!("no such table backend: `{other}`");
                    reading.report(Report::new("E0307", source.span, message).help(help));
                    return Self::Broken;
                }
            },
        };
        Self::Remote(Remote { backend, argument: Some(argument) })
    }

    pub(super) fn may_be_mapping(&self) -> bool {
        match self {
            Self::Static(entries) => entries.is_mapping(),
            Self::LocalNames => false,
            _ => true,
        }
    }

    pub(super) fn backend(&self, reading: &Reading<'_>) -> Backend {
        match self {
            Self::File { path } => Backend::File { path: reading.place(path.span.file, &path.text) },
            Self::Remote(remote) => remote.backend.clone(),
            _ => Backend::Static,
        }
    }
}

fn helper(name: &str, reading: &Reading<'_>) -> Option<PathBuf> {
    let places = HELPER_DIRECTORIES.iter().map(|directory| {
        let path = format!("{directory}/table-{name}");
        reading.options.place(Path::new(""), &path)
    });
    places.into_iter().find(|path| matches!(reading.source.exists(path), Exists::File { .. }))
}

impl Tables {
    /// Whether a backend can answer a use. `None`: it cannot, and that was told.
    pub(super) fn ask_backend(
        &mut self,
        at: usize,
        remote: &Remote,
        targ: &Targ,
        regex: bool,
        reading: &mut Reading<'_>,
    ) -> Option<ServiceKind> {
        let backend = remote.backend.name();
        if regex {
            let message = format!("backend `{backend}` cannot be searched with regular expressions");
            let table = &self.declared[at];
            let help = match (&remote.backend, &remote.argument) {
                (Backend::Db { .. }, Some(path)) => {
                    let path = path.text.strip_suffix(".db").unwrap_or(&path.text);
                    format!("use a file table: `table {} file:{path}`", table.name)
                }
                _ => format!("use a file table: `table {} file:/path`", table.name),
            };
            reading.report(Report::new("E0404", targ.span, message).help(help));
            return None;
        }
        let service = targ.used.service;
        if remote.backend == Backend::Getpwnam && !matches!(service, ServiceKind::UserInfo | ServiceKind::Credentials) {
            let help = "it answers userinfo and credentials lookups";
            reading.report(cannot_answer(backend, targ).help(help));
            return None;
        }
        let service = self.is_told_how(at, remote, targ, reading)?;
        match &remote.backend {
            Backend::Proc { program, path } => registered(program, path.as_deref(), targ, reading),
            _ => Some(service),
        }
    }

    /// E0406: the query or filter is there.
    fn is_told_how(
        &mut self,
        at: usize,
        remote: &Remote,
        targ: &Targ,
        reading: &mut Reading<'_>,
    ) -> Option<ServiceKind> {
        let service = targ.used.service;
        let path = match (&remote.backend, &remote.argument) {
            (Backend::Sqlite { path } | Backend::Ldap { path } | Backend::Redis { path }, Some(word)) => (path, word),
            (Backend::Db { path } | Backend::Proc { program: path, path: None }, Some(word))
            | (Backend::Proc { path: Some(path), .. }, Some(word)) => {
                return self.is_there(at, path, word, reading).then_some(service);
            }
            _ => return Some(service),
        };
        let read = || BackendSettings::read(&remote.backend, path.0, path.1, reading);
        let settings = self.settings.entry(at).or_insert_with(read).as_ref()?;
        if let Some(service) = settings.answers(&remote.backend, service, targ.used.shape) {
            return Some(service);
        }
        let table = &self.declared[at];
        let key = key_of(&remote.backend, service.name());
        let message = format!("<{}> has no `{key}`, which `{}` needs", table.name, targ.keyword.value);
        reading.report(Report::new("E0406", targ.span, message).help(format!("add it to {}", path.1.text)));
        None
    }

    fn is_there(&mut self, at: usize, path: &Path, word: &Word, reading: &mut Reading<'_>) -> bool {
        let good = matches!(reading.source.exists(path), Exists::File { .. });
        if !good {
            let message = format!("cannot read `{}`: no such file", word.text);
            reading.report(Report::new("E0701", word.span, message));
        }
        if good {
            self.warn_of_newer_text(at, path, word, reading);
        }
        good
    }

    /// W0814: `makemap` has not been run since the text was changed.
    fn warn_of_newer_text(&self, at: usize, path: &Path, word: &Word, reading: &mut Reading<'_>) {
        let Declared { source: Source::Remote(Remote { backend: Backend::Db { .. }, .. }), .. } = &self.declared[at]
        else {
            return;
        };
        let Some(text) = path.to_str().and_then(|path| path.strip_suffix(".db")) else { return };
        let changed = |path: &Path| match reading.source.exists(path) {
            Exists::File { modified, .. } => modified,
            _ => None,
        };
        if let (Some(text_changed), Some(made)) = (changed(Path::new(text)), changed(path))
            && text_changed > made
        {
            let name = word.text.strip_suffix(".db").unwrap_or(&word.text);
            let report = Report::new("W0814", word.span, format!("`{name}` is newer than `{}`", word.text));
            reading.report(report.help(format!("run `ringpost makemap {name}`")));
        }
    }
}

/// The service that a helper is asked for, of those that it registers; E0402 if there is none.
fn registered(program: &Path, argument: Option<&Path>, targ: &Targ, reading: &mut Reading<'_>) -> Option<ServiceKind> {
    let service = targ.used.service;
    let Some(known) = reading.source.registered(program, argument) else { return Some(service) };
    let has = |service: ServiceKind| known.iter().any(|name| name == service.name());
    if has(service) {
        return Some(service);
    }
    if service == ServiceKind::Credentials && targ.used.shape != Shape::Logins && has(ServiceKind::Auth) {
        return Some(ServiceKind::Auth);
    }
    let name = program.file_name().unwrap_or(program.as_os_str()).to_string_lossy();
    let help = match known.as_slice() {
        [] => format!("`{name}` registers nothing"),
        known => format!("`{name}` answers {} lookups", known.join(", ")),
    };
    reading.report(cannot_answer("proc", targ).help(help));
    None
}

/// E0402.
pub(super) fn cannot_answer(backend: &str, targ: &Targ) -> Report {
    let service = targ.used.service.name();
    let message = format!("backend `{backend}` cannot answer {service} lookups, which `{}` needs", targ.keyword.value);
    Report::new("E0402", targ.span, message)
}

/// The key of a backend's configuration that says how a service is asked for.
fn key_of(backend: &Backend, service: &str) -> String {
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
    /// Reads the file: a key and a value in each line.
    fn read(backend: &Backend, path: &Path, word: &Word, reading: &mut Reading<'_>) -> Option<Self> {
        let file = match crate::load::read_data(reading.source, path, &mut reading.texts, &mut reading.reports) {
            Ok(file) => file,
            Err(error) => {
                let message = format!("cannot read `{}`: {error}", word.text);
                reading.report(Report::new("E0701", word.span, message));
                return None;
            }
        };
        let mut right: Vec<String> = plain_keys(backend).iter().map(|key| (*key).to_owned()).collect();
        for service in service_names() {
            right.push(key_of(backend, service));
            if matches!(backend, Backend::Ldap { .. }) {
                right.push(format!("{service}_attributes"));
            }
        }
        let mut keys = BTreeMap::new();
        let mut wrong = Vec::new();
        let text = reading.texts.text(file);
        for line in crate::tables::file::lines(text) {
            let key_bytes = text[line.clone()].find(char::is_whitespace).unwrap_or(line.len());
            let key = &text[line.start..line.start + key_bytes];
            let span = Span { file, start: narrow(line.start), end: narrow(line.start + key_bytes) };
            if !right.iter().any(|known| known == key) {
                let report = Report::new("E0202", span, format!("`{}` has no option `{key}`", backend.name()));
                wrong.push(report.maybe_help(did_you_mean(key, right.iter().map(String::as_str))));
            } else if let Some(first) = keys.insert(key.to_owned(), span) {
                let report = Report::new("E0601", span, format!("`{key}` is given twice"));
                wrong.push(report.also(first, "first here").help(format!("first at {}", reading.texts.at(first))));
            }
        }
        for missing in plain_keys(backend).iter().take(1).filter(|key| !keys.contains_key(**key)) {
            let report = Report::new("E0203", word.span, format!("`{}` needs `{missing}`", word.text));
            wrong.push(report.help(format!("add it to {}", word.text)));
        }
        let good = wrong.is_empty();
        reading.reports.extend(wrong);
        good.then_some(Self { keys })
    }

    /// The service that it is asked for, if it says how.
    fn answers(&self, backend: &Backend, service: ServiceKind, shape: Shape) -> Option<ServiceKind> {
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
