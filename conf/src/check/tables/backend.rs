//! Backends: who they are, what they can answer, and whether they have been told how (grammar §7.2).

use std::path::{Path, PathBuf};
use std::rc::Rc;

use super::super::Reading;
use super::settings::{BackendSettings, key_of};
use super::{Declared, Tables};
use crate::load::{Exists, Registered};
use crate::model::Backend;
use crate::parse::ast::{Arg, Entries, Said, Targ, Word};
use crate::parse::backend_of;
use crate::parse::schema::Shape;
use crate::report::{Report, nearest};
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
            Backend::Proc { program, path } => {
                let Some(known) = reading.source.registered(program, path.as_deref()) else { return Some(service) };
                let name = program.file_name().unwrap_or(program.as_os_str()).to_string_lossy();
                if let (Some(path), Some(word), false) = (path, &remote.argument, known.options.is_empty()) {
                    let read = || BackendSettings::of_helper(&name, &known.options, path, word, reading);
                    self.settings.entry(at).or_insert_with(read).as_ref()?;
                }
                registered(&name, &known, targ, reading)
            }
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
        let read = || BackendSettings::of(&remote.backend, path.0, path.1, reading);
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
fn registered(name: &str, known: &Registered, targ: &Targ, reading: &mut Reading<'_>) -> Option<ServiceKind> {
    let service = targ.used.service;
    let has = |service: ServiceKind| known.services.iter().any(|name| name == service.name());
    if has(service) {
        return Some(service);
    }
    if service == ServiceKind::Credentials && targ.used.shape != Shape::Logins && has(ServiceKind::Auth) {
        return Some(ServiceKind::Auth);
    }
    let help = match known.services.as_slice() {
        [] => format!("`{name}` registers nothing"),
        services => format!("`{name}` answers {} lookups", services.join(", ")),
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
