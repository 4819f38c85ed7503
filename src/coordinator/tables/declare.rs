//! From the tables of a configuration to those that are looked up here. The supervisor does this: it can read the backends'
//! configuration files, and their texts travel with the plan.

use std::path::Path;

use ringpost_conf as conf;

use super::helper::Argument;
use super::settings::ConfigFile;
use super::{Backend, Declared, SYSTEM_USERS, Surroundings, Tables};

/// The tables that the configuration uses and that are not in memory, under their names.
///
/// # Errors
/// All that is wrong with the backends' files, a line each.
pub fn declare(config: &conf::Config, root: Option<&Path>) -> Result<Vec<Declared>, Vec<String>> {
    let (mut declared, mut wrong) = (Vec::new(), Vec::new());
    for table in config.tables.iter().filter(|table| !table.services.is_empty()) {
        match backend(&table.backend) {
            Ok(None) => {}
            Ok(Some(backend)) => declared.push(Declared {
                cache: table.options.cache,
                negative: table.options.negative,
                stale: table.options.stale,
                timeout: table.options.timeout,
                pool: table.options.pool as usize,
                ..Declared::new(&table.name, backend)
            }),
            Err(why) => wrong.push(format!("{}: table <{}>: {why}", table.line, table.name)),
        }
    }
    // Users who are in no table are the system's.
    let asks_system = config.actions.iter().any(|action| action.needs_user() && action.local.userbase.is_none());
    if asks_system && !declared.iter().any(|table| table.name == SYSTEM_USERS) {
        declared.push(Declared::new(SYSTEM_USERS, Backend::System));
    }
    let surroundings =
        Surroundings { root: root.map(Path::to_owned), events: std::sync::Arc::new(|_| {}), users: None };
    if let Err(problems) = Tables::new(declared.clone(), &surroundings) {
        wrong.extend(problems.iter().map(ToString::to_string));
    }
    if wrong.is_empty() { Ok(declared) } else { Err(wrong) }
}

/// `None`: it is read with the configuration.
fn backend(backend: &conf::Backend) -> Result<Option<Backend>, String> {
    let file = |path: &Path| ConfigFile::read(path).map_err(|error| error.to_string());
    Ok(Some(match backend {
        conf::Backend::Static | conf::Backend::File { .. } => return Ok(None),
        conf::Backend::Sqlite { path } => Backend::Sqlite(file(path)?),
        conf::Backend::Ldap { path } => Backend::Ldap(file(path)?),
        conf::Backend::Redis { path } => Backend::Redis(file(path)?),
        conf::Backend::Db { path } => Backend::Db(path.clone()),
        conf::Backend::Getpwnam => Backend::System,
        conf::Backend::Proc { program, path } => {
            Backend::Helper { program: program.clone(), argument: path.as_deref().map(Argument::read) }
        }
    }))
}
