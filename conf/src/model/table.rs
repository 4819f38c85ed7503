//! Tables as they are declared: a name, who answers, and what its uses ask for (grammar §7).

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use super::Line;
use crate::limits;
use crate::tables::{Mapped, MemoryTable, ServiceKind};

/// Index into [`super::Config::tables`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct TableId(pub u32);

/// A declared table, or a built-in one that the file uses.
#[derive(Clone, Debug)]
pub struct Table {
    /// Its name, without brackets.
    pub name: String,
    /// Who answers.
    pub backend: Backend,
    /// How long answers are kept, and how long they are waited for.
    pub options: TableOptions,
    /// What the statements that name it ask for, each once. Empty: nobody uses it.
    pub services: Vec<ServiceKind>,
    /// What was made of its entries, one part for each service; empty unless the backend [is in memory](Backend::is_memory).
    pub memory: MemoryTable,
    /// The line that declares it.
    pub line: Line,
    /// What it was declared as, in the canonical form and without secrets; empty if it is built in.
    pub statement: String,
}

/// Who answers. Paths have `--root` in front already.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Backend {
    /// Entries in the configuration.
    Static,
    /// A text file, read with the configuration.
    File {
        /// The file.
        path: PathBuf,
    },
    /// A constant database, made by `ringpost makemap`.
    Db {
        /// The file.
        path: PathBuf,
    },
    /// SQLite.
    Sqlite {
        /// The file with `dbpath` and the queries.
        path: PathBuf,
    },
    /// An LDAP directory.
    Ldap {
        /// The file with `url` and the filters.
        path: PathBuf,
    },
    /// Redis or Valkey.
    Redis {
        /// The file with the server and the prefixes.
        path: PathBuf,
    },
    /// `<getpwnam>`: the system's users.
    Getpwnam,
    /// A helper that speaks smtpd-tables(7).
    Proc {
        /// The helper.
        program: PathBuf,
        /// What it is given as its configuration; `proc:/p/helper` gives nothing.
        path: Option<PathBuf>,
    },
}

impl Backend {
    /// Whether its entries are in memory, and nobody needs to be asked.
    pub fn is_memory(&self) -> bool {
        matches!(self, Self::Static | Self::File { .. })
    }

    /// Its name, as messages call it.
    pub fn name(&self) -> &'static str {
        match self {
            Self::Static => "static",
            Self::File { .. } => "file",
            Self::Db { .. } => "db",
            Self::Sqlite { .. } => "sqlite",
            Self::Ldap { .. } => "ldap",
            Self::Redis { .. } => "redis",
            Self::Getpwnam => "getpwnam",
            Self::Proc { .. } => "proc",
        }
    }
}

/// `cache`, `negative`, `stale`, `timeout`, `pool`, `manual` (grammar §7.3). The first five mean something for remote
/// backends only.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TableOptions {
    /// So long a found answer is kept.
    pub cache: Duration,
    /// So long *not found* is kept.
    pub negative: Duration,
    /// An answer of at most this age is served while the backend fails.
    pub stale: Duration,
    /// A lookup that takes longer has failed.
    pub timeout: Duration,
    /// Connections, handles or helpers at once.
    pub pool: u32,
    /// A changed file is read again only on request.
    pub manual: bool,
}

impl Default for TableOptions {
    fn default() -> Self {
        Self {
            cache: limits::TABLE_CACHE,
            negative: limits::TABLE_NEGATIVE,
            stale: limits::TABLE_STALE,
            timeout: limits::TABLE_TIMEOUT,
            pool: limits::TABLE_POOL,
            manual: false,
        }
    }
}

/// Where the values of a mapping come from: memory, or a table that must be asked for the service that the use implies.
#[derive(Debug)]
pub enum Keyed<V> {
    /// Entries in memory.
    Memory(Arc<Mapped<V>>),
    /// A table whose backend must be asked.
    Remote(TableId),
}

impl<V> Clone for Keyed<V> {
    fn clone(&self) -> Self {
        match self {
            Self::Memory(mapped) => Self::Memory(mapped.clone()),
            Self::Remote(id) => Self::Remote(*id),
        }
    }
}
