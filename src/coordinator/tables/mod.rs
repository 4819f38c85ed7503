//! Tables that a network, a database or a program answers for (grammar §7): one lookup, with its cache, bounds and
//! back-off. Static and file tables are not here; shards read those in place.
//!
//! Three answers, never two: what cannot be asked is *failed*, and whoever asked says "try again later".

mod backend;
mod cache;
mod db;
mod declare;
pub mod direct;
mod events;
mod figures;
mod health;
mod helper;
mod ldap;
mod limits;
mod link;
mod person;
mod program;
mod redis;
mod service;
mod settings;
mod sqlite;
mod system;
mod table;

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use ringpost_conf::expand::Told;
use ringpost_shard::Said;
use serde::{Deserialize, Serialize};

pub use self::backend::Backend;
use self::cache::Question;
pub use self::declare::declare;
pub use self::events::Event;
pub use self::figures::{Figures, Tally};
pub use self::person::{Shown, look, show};
pub use self::service::Service;
pub use self::settings::Problem;
pub use self::system::system_user;
use self::table::Table;
use super::users::Users;

/// A table as it was declared.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Declared {
    /// Its name.
    pub name: String,
    /// Who answers.
    pub backend: Backend,
    /// How long what was found is believed.
    pub cache: Duration,
    /// How long it is believed that something is not there.
    pub negative: Duration,
    /// How old an answer may be that is given while the backend fails.
    pub stale: Duration,
    /// How long one lookup may take.
    pub timeout: Duration,
    /// Connections or threads, where a backend needs several.
    pub pool: usize,
}

impl Declared {
    /// A table without options: the times and numbers of grammar §7.3.
    pub fn new(name: impl Into<String>, backend: Backend) -> Self {
        Self {
            name: name.into(),
            backend,
            cache: limits::CACHE,
            negative: limits::NEGATIVE,
            stale: limits::STALE,
            timeout: limits::TIMEOUT,
            pool: limits::POOL,
        }
    }
}

/// The table of the system's users, under the name that a configuration has for it.
pub const SYSTEM_USERS: &str = "getpwnam";

/// What a lookup gave.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Answer {
    /// The text of the row: parts joined by `:`, several values by `, `. Where it counts only that an entry is there, it
    /// may be any text.
    Found(String),
    /// The backend says that there is no such entry.
    NotFound,
    /// It could not be asked, or gave nonsense; and why. Always temporary.
    Failed(String),
}

impl From<Said> for Answer {
    fn from(said: Said) -> Self {
        match said {
            Said::Found { text, .. } => Self::Found(text),
            Said::NotFound { .. } => Self::NotFound,
            Said::Failed(why) | Said::Wrong(why) => Self::Failed(why),
        }
    }
}

impl From<Answer> for Told {
    fn from(answer: Answer) -> Self {
        match answer {
            Answer::Found(text) => Self::Found(text),
            Answer::NotFound => Self::NotFound,
            Answer::Failed(why) => Self::Failed(why),
        }
    }
}

/// What tables need of the world.
#[derive(Clone)]
pub struct Surroundings {
    /// Absolute paths within the backends' configuration files are below this directory.
    pub root: Option<PathBuf>,
    /// Hears what an administrator should know. Must not wait.
    pub events: Arc<dyn Fn(&Event) + Send + Sync>,
    /// Who is asked for users of the system; `None`: this process can see for itself.
    pub users: Option<Users>,
}

impl Surroundings {
    /// A path of a backend's configuration file, as the machine has it.
    fn place(&self, path: &Path) -> PathBuf {
        match &self.root {
            Some(root) if path.is_absolute() => crate::cli::below(root, path),
            _ => path.to_owned(),
        }
    }
}

/// All tables of one configuration. Lookups run on the coordinator's runtime.
#[derive(Default)]
pub struct Tables {
    tables: Vec<Arc<Table>>,
    numbers: BTreeMap<String, usize>,
}

impl Tables {
    /// Reads what the backends' configuration files say; nothing is opened yet.
    ///
    /// # Errors
    /// All that is wrong with those files.
    pub fn new(declared: Vec<Declared>, surroundings: &Surroundings) -> Result<Self, Vec<Problem>> {
        Self::default().renewed(declared, surroundings)
    }

    /// The tables of a new configuration. Those that are declared as before are the same, with what they know and hold.
    ///
    /// # Errors
    /// See [`Tables::new`].
    pub fn renewed(&self, declared: Vec<Declared>, surroundings: &Surroundings) -> Result<Self, Vec<Problem>> {
        let (mut tables, mut numbers, mut problems) = (Vec::new(), BTreeMap::new(), Vec::new());
        for declared in declared {
            numbers.insert(declared.name.clone(), tables.len());
            let same = self.tables.iter().find(|table| *table.declared() == declared);
            match same.map_or_else(|| Table::new(declared, surroundings).map(Arc::new), |table| Ok(table.clone())) {
                Ok(table) => tables.push(table),
                Err(mut wrong) => problems.append(&mut wrong),
            }
        }
        if problems.is_empty() { Ok(Self { tables, numbers }) } else { Err(problems) }
    }

    /// Looks keys up in their order: the first that is found decides, and a failure before it ends the search, for no later
    /// key may decide instead. The answer is as old as its oldest part.
    pub async fn lookup_first(&self, table: &str, service: Service, keys: impl IntoIterator<Item = String>) -> Said {
        let table = match self.find(table) {
            Ok(table) => table,
            Err(why) => return Said::Wrong(why),
        };
        let mut oldest = Duration::ZERO;
        for key in keys {
            match table.lookup(Question { service, key }).await {
                Said::NotFound { age } => oldest = oldest.max(age),
                Said::Found { text, age } => return Said::Found { text, age: age.max(oldest) },
                failed => return failed,
            }
        }
        Said::NotFound { age: oldest }
    }

    /// Whether a table can answer a kind of question. A helper is started to say so.
    ///
    /// # Errors
    /// When there is no such table, or its helper does not say.
    pub async fn provides(&self, table: &str, service: Service) -> Result<bool, String> {
        self.find(table)?.provides(service).await
    }

    /// What would keep the tables from working: databases that cannot be opened, queries that cannot be prepared, helpers
    /// that do not start. Servers on the network are not asked: they may come later.
    pub async fn check(&self) -> Vec<Problem> {
        let mut problems = Vec::new();
        for table in &self.tables {
            problems.extend(table.check().await);
        }
        problems
    }

    /// Forgets what is known of a table and tries its backend at once.
    ///
    /// # Errors
    /// When there is no such table, or its helper refuses.
    pub async fn update(&self, table: &str) -> Result<(), String> {
        self.find(table)?.update().await
    }

    /// What has been asked of a table, and how it went.
    ///
    /// # Errors
    /// When there is no such table.
    pub fn figures(&self, table: &str) -> Result<Figures, String> {
        Ok(self.find(table)?.figures())
    }

    /// The tables' names, in the order of their declaration.
    pub fn names(&self) -> impl Iterator<Item = &str> {
        self.tables.iter().map(|table| table.name())
    }

    fn find(&self, name: &str) -> Result<&Arc<Table>, String> {
        match self.numbers.get(name) {
            Some(number) => Ok(&self.tables[*number]),
            None => Err(format!("there is no table <{name}> that is looked up")),
        }
    }
}

#[cfg(test)]
mod tests;
