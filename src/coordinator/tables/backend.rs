//! Who answers for a table: as it is written in a configuration, and opened.

use std::fmt;
use std::io::Read;
use std::path::{Path, PathBuf};
use std::time::Instant;

use serde::{Deserialize, Serialize};
use tokio::sync::OwnedSemaphorePermit;

use super::cache::Question;
use super::db::Db;
use super::helper::{Argument, Helper};
use super::ldap::Directory;
use super::limits::{MULTIPLEXED, SETTINGS_BYTES};
use super::redis::Store;
use super::service::Service;
use super::settings::{ConfigFile, Problem};
use super::sqlite::Database;
use super::table::Looked;
use super::{Declared, Surroundings, sqlite, system};

/// As declared. Paths are those of the machine: where there is a root directory, it is in front already.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Backend {
    /// `sqlite:/p.conf`
    Sqlite(ConfigFile),
    /// `ldap:/p.conf`
    Ldap(ConfigFile),
    /// `redis:/p.conf`
    Redis(ConfigFile),
    /// `proc:/p/helper`, `NAME:/p.conf`: a program that speaks smtpd-tables(7).
    Helper {
        /// A path, or `table-NAME`, which is searched for where such programs are.
        program: PathBuf,
        /// Its configuration file.
        argument: Option<Argument>,
    },
    /// `db:/p`, made by `ringpost makemap`. Shards read it in place; it is here for tools.
    Db(PathBuf),
    /// The system's users.
    System,
}

/// A source that is not understood or cannot be read.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum SourceError {
    /// Not `BACKEND:ARGUMENT`.
    #[error("`{0}` is not BACKEND:ARGUMENT, such as sqlite:/etc/mail/sqlite.conf")]
    Form(String),
    /// A table that needs nobody to answer.
    #[error("a {0} table is read with the configuration")]
    InPlace(String),
    /// The configuration file of a backend.
    #[error("cannot read {path}: {why}")]
    Unreadable {
        /// The file.
        path: PathBuf,
        /// Why.
        why: String,
    },
}

impl Backend {
    /// Reads a source as a configuration has it, with the backend's configuration file.
    ///
    /// # Errors
    /// When it is none of these, or the file cannot be read.
    pub fn read(source: &str, root: Option<&Path>) -> Result<Self, SourceError> {
        if source == "getpwnam" {
            return Ok(Self::System);
        }
        let wrong = || SourceError::Form(source.to_owned());
        let (name, argument) = source.split_once(':').ok_or_else(wrong)?;
        let is_name = !name.is_empty() && name.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'-' || b == b'_');
        if !is_name || argument.is_empty() {
            return Err(wrong());
        }
        let place = |path: &str| match root.filter(|_| path.starts_with('/')) {
            Some(root) => crate::cli::below(root, Path::new(path)),
            None => path.into(),
        };
        let file = || ConfigFile::read(&place(argument));
        Ok(match name {
            "file" | "static" => return Err(SourceError::InPlace(name.to_owned())),
            "sqlite" => Self::Sqlite(file()?),
            "ldap" => Self::Ldap(file()?),
            "redis" => Self::Redis(file()?),
            "db" => Self::Db(place(argument)),
            "proc" => Self::Helper { program: place(argument), argument: None },
            other => Self::Helper {
                program: format!("table-{other}").into(),
                argument: Some(Argument::read(&place(argument))),
            },
        })
    }
}

impl Backend {
    /// The file that is opened to answer, `root` in front.
    pub fn file(&self, root: Option<&Path>) -> Option<PathBuf> {
        match self {
            Self::Db(path) => Some(path.clone()),
            Self::Sqlite(file) => sqlite::database(file).map(|path| match root.filter(|_| path.is_absolute()) {
                Some(root) => crate::cli::below(root, &path),
                None => path,
            }),
            Self::Ldap(_) | Self::Redis(_) | Self::Helper { .. } | Self::System => None,
        }
    }
}

impl ConfigFile {
    /// Reads it from the disk.
    ///
    /// # Errors
    /// When that fails, it is too large or not UTF-8.
    pub fn read(path: &Path) -> Result<Self, SourceError> {
        let unreadable = |why: String| SourceError::Unreadable { path: path.to_owned(), why };
        let mut text = String::new();
        let file = std::fs::File::open(path).map_err(|error| unreadable(error.to_string()))?;
        file.take(SETTINGS_BYTES + 1).read_to_string(&mut text).map_err(|error| unreadable(error.to_string()))?;
        if text.len() as u64 > SETTINGS_BYTES {
            return Err(unreadable(format!("it has more than {SETTINGS_BYTES} bytes")));
        }
        Ok(Self { path: path.to_owned(), text })
    }
}

impl fmt::Display for Backend {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Sqlite(file) => write!(f, "sqlite:{}", file.path.display()),
            Self::Ldap(file) => write!(f, "ldap:{}", file.path.display()),
            Self::Redis(file) => write!(f, "redis:{}", file.path.display()),
            Self::Helper { program, argument: None } => write!(f, "proc:{}", program.display()),
            Self::Helper { program, argument: Some(argument) } => {
                let name = program.to_string_lossy();
                write!(f, "{}:{}", name.strip_prefix("table-").unwrap_or(&name), argument.path().display())
            }
            Self::Db(path) => write!(f, "db:{}", path.display()),
            Self::System => f.write_str("getpwnam"),
        }
    }
}

/// Ready to be asked; connections are made when they are needed.
pub enum Opened {
    Sqlite(Database),
    Ldap(Directory),
    Redis(Store),
    Helper(Helper),
    Db(Db),
    System(system::System),
}

impl Opened {
    /// Reads what the configuration file says.
    pub fn new(declared: &Declared, surroundings: &Surroundings) -> Result<Self, Vec<Problem>> {
        Ok(match &declared.backend {
            Backend::Sqlite(file) => Self::Sqlite(Database::new(&declared.name, file, declared.pool, surroundings)?),
            Backend::Ldap(file) => Self::Ldap(Directory::new(file, declared.timeout, surroundings)?),
            Backend::Redis(file) => Self::Redis(Store::new(file, surroundings)?),
            Backend::Helper { program, argument } => Self::Helper(Helper::new(
                &declared.name,
                program.clone(),
                argument.clone(),
                surroundings.events.clone(),
            )),
            Backend::Db(path) => Self::Db(Db::new(path.clone())),
            Backend::System => Self::System(system::System::new(surroundings)),
        })
    }

    /// How many lookups may be with it at the same time.
    pub fn places(&self, pool: usize) -> usize {
        match self {
            Self::Sqlite(_) | Self::Db(_) | Self::System(_) => pool.max(1),
            Self::Ldap(_) | Self::Redis(_) | Self::Helper(_) => MULTIPLEXED,
        }
    }

    /// Asks. `place` is held as long as the work goes on, which may be longer than anyone waits for it.
    pub async fn ask(&self, question: &Question, deadline: Instant, place: OwnedSemaphorePermit) -> Looked {
        match self {
            Self::Sqlite(database) => database.ask(question, deadline, place).await,
            Self::Ldap(directory) => directory.ask(question, deadline).await,
            Self::Redis(store) => store.ask(question).await,
            Self::Helper(helper) => helper.ask(question).await,
            Self::Db(db) => db.ask(question, place).await,
            Self::System(users) => users.ask(question, place).await,
        }
    }

    /// How often it was opened, connected to or started.
    pub fn connections(&self) -> u64 {
        match self {
            Self::Sqlite(database) => database.connections(),
            Self::Ldap(directory) => directory.connections(),
            Self::Redis(store) => store.connections(),
            Self::Helper(helper) => helper.connections(),
            Self::Db(db) => db.connections(),
            // The system has its own ways.
            Self::System(_) => 0,
        }
    }

    /// Whether it is told how to answer; `None`: it says so itself when it is asked.
    pub fn provides(&self, service: Service) -> Option<bool> {
        match self {
            Self::Helper(_) => None,
            Self::Db(_) => Some(service != Service::Auth),
            Self::System(_) => Some(service == Service::UserInfo),
            _ => Some(self.services().contains(&service.asked_as())),
        }
    }

    /// The services that its configuration names.
    pub fn services(&self) -> Vec<Service> {
        match self {
            Self::Sqlite(database) => database.services().collect(),
            Self::Ldap(directory) => directory.services().collect(),
            Self::Redis(store) => store.services().collect(),
            Self::System(_) => vec![Service::UserInfo],
            Self::Helper(_) | Self::Db(_) => Vec::new(),
        }
    }

    /// What its configuration lacks for a service.
    pub fn cannot(&self, service: Service) -> String {
        let name = service.asked_as().name();
        match self {
            Self::Sqlite(_) => format!("its configuration has no `query_{name}`"),
            Self::Ldap(_) => format!("its configuration has no `{name}_filter`"),
            Self::Redis(_) => format!("its configuration has no `{name}_prefix`"),
            Self::Helper(_) | Self::Db(_) | Self::System(_) => format!("it cannot answer {name} lookups"),
        }
    }

    /// Asks who alone knows.
    pub async fn ask_provides(&self, service: Service) -> Result<bool, String> {
        match self {
            Self::Helper(helper) => helper.provides(service).await,
            _ => Ok(self.provides(service) == Some(true)),
        }
    }

    /// See [`super::Tables::check`].
    pub async fn check(&self) -> Vec<Problem> {
        match self {
            Self::Sqlite(database) => database.check(),
            Self::Helper(helper) => helper.check().await,
            Self::Db(db) => db.check().await,
            Self::Ldap(_) | Self::Redis(_) | Self::System(_) => Vec::new(),
        }
    }

    /// Reads anew what it may have read long ago.
    pub async fn update(&self) -> Result<(), String> {
        match self {
            Self::Helper(helper) => helper.update().await,
            Self::Db(db) => db.update().await,
            other => {
                other.reset();
                Ok(())
            }
        }
    }

    /// Gives connections up that may be dead; new ones are made when they are needed.
    pub fn reset(&self) {
        match self {
            Self::Ldap(directory) => directory.reset(),
            Self::Redis(store) => store.reset(),
            Self::Helper(helper) => helper.reset(),
            // A thread of the pool looks for itself whether its file is still the same.
            Self::Sqlite(_) | Self::Db(_) | Self::System(_) => {}
        }
    }

    /// Whether answers may be kept: a helper that cycles through addresses gives another one each time.
    pub fn is_kept(&self, service: Service) -> bool {
        !(matches!(self, Self::Helper(_)) && service.parameters().contains(&0))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sources_are_read_and_shown_alike() {
        for source in ["proc:/p/helper", "passwd:/etc/mail/passwd", "db:/etc/mail/aliases.db", "getpwnam"] {
            assert_eq!(Backend::read(source, None).unwrap().to_string(), source);
        }
        let dir = tempfile::tempdir().unwrap();
        std::fs::create_dir_all(dir.path().join("etc")).unwrap();
        std::fs::write(dir.path().join("etc/s.conf"), "dbpath /x\n").unwrap();
        let backend = Backend::read("sqlite:/etc/s.conf", Some(dir.path())).unwrap();
        assert_eq!(backend.to_string(), format!("sqlite:{}/etc/s.conf", dir.path().display()));
        let Backend::Sqlite(file) = backend else { panic!() };
        assert_eq!(file.text, "dbpath /x\n");
        assert!(!format!("{file:?}").contains("dbpath"), "secrets are not shown");
        for (source, expected) in [
            ("/etc/mail/x", "is not BACKEND:ARGUMENT"),
            ("sqlite:", "is not BACKEND:ARGUMENT"),
            ("a/b:/x", "is not BACKEND:ARGUMENT"),
            ("file:/x", "a file table is read with the configuration"),
            ("ldap:/nowhere/x.conf", "cannot read /nowhere/x.conf: No such file"),
        ] {
            let error = Backend::read(source, None).unwrap_err().to_string();
            assert!(error.contains(expected), "{source}: {error}");
        }
    }
}
