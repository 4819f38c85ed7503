//! Lookups without a server: for the command line, before a table is put into a configuration, or that into a server.

use std::io;
use std::path::Path;
use std::sync::Arc;

use ringpost_conf::tables::ServiceKind;
use ringpost_conf::{Config, Registered};
use ringpost_shard::Said;
use tokio::sync::mpsc;
use tokio::task::JoinSet;

use super::helper::{Argument, Helper};
use super::limits::DIRECT;
use super::{Answer, Declared, Problem, Service, Shown, Surroundings, Tables, look, show};

/// What a helper registers: it is started for the question. `None`: it cannot be started now, or does not say.
pub fn registered(program: &Path, argument: Option<&Path>) -> Option<Registered> {
    let helper = Helper::new("table", program.to_owned(), argument.map(Argument::read), Arc::new(|_| {}));
    let ask = || {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().ok()?;
        runtime.block_on(helper.registered()).ok()
    };
    // Who asks may have a runtime already, and two do not go together in one thread.
    std::thread::scope(|scope| scope.spawn(ask).join().ok().flatten())
}

/// One lookup in one table; the first of these keys that is there counts.
pub fn once(table: Declared, service: Service, keys: Vec<String>, surroundings: &Surroundings) -> Said {
    let name = table.name.clone();
    let tables = match Tables::new(vec![table], surroundings) {
        Ok(tables) => tables,
        Err(wrong) => return Said::Wrong(wrong.iter().map(ToString::to_string).collect::<Vec<_>>().join("; ")),
    };
    match tokio::runtime::Builder::new_current_thread().enable_all().build() {
        Ok(runtime) => runtime.block_on(tables.lookup_first(&name, service, keys)),
        Err(error) => Said::Failed(error.to_string()),
    }
}

/// Tables, and what declares them if they are of a configuration.
pub struct Direct {
    runtime: tokio::runtime::Runtime,
    tables: Tables,
    config: Option<Config>,
}

impl Direct {
    /// Reads the backends' configuration files.
    ///
    /// # Errors
    /// All that is wrong with them.
    pub fn new(
        declared: Vec<Declared>,
        config: Option<Config>,
        surroundings: &Surroundings,
    ) -> io::Result<Result<Self, Vec<Problem>>> {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
        let tables = Tables::new(declared, surroundings);
        Ok(tables.map(|tables| Self { runtime, tables, config }))
    }

    /// What keeps them from working.
    pub fn check(&self) -> Vec<Problem> {
        self.runtime.block_on(self.tables.check())
    }

    /// Whether one can be asked for a service.
    ///
    /// # Errors
    /// When its helper does not say.
    pub fn provides(&self, table: &str, service: Service) -> Result<bool, String> {
        self.runtime.block_on(self.tables.provides(table, service))
    }

    /// See [`show`].
    ///
    /// # Errors
    /// There is no such table.
    pub fn show(&self, table: Option<&str>) -> Result<Vec<Shown>, String> {
        show(&self.tables, self.config.as_ref(), table)
    }

    /// Looks all keys up, many at the same time, and hands the answers over as they come.
    ///
    /// # Errors
    /// Those of `each`, which end it.
    pub fn lookup<E>(
        self,
        table: &str,
        service: ServiceKind,
        keys: impl Iterator<Item = String> + Send + 'static,
        mut each: impl FnMut(String, Answer) -> Result<(), E>,
    ) -> Result<(), E> {
        let Self { runtime, tables, config } = self;
        let (world, table) = (Arc::new((tables, config)), Arc::<str>::from(table));
        // Reading keys may wait for a person.
        let (sender, mut arriving) = mpsc::channel(1);
        let reading = std::thread::spawn(move || keys.into_iter().try_for_each(|key| sender.blocking_send(key)));
        let outcome = runtime.block_on(async {
            let mut lookups: JoinSet<(String, Answer)> = JoinSet::new();
            let mut open = true;
            while open || !lookups.is_empty() {
                tokio::select! {
                    key = arriving.recv(), if open && lookups.len() < DIRECT => match key {
                        Some(key) => {
                            let (world, table) = (world.clone(), table.clone());
                            lookups.spawn(async move {
                                let answer = look(&world.0, world.1.as_ref(), &table, service, &key).await;
                                (key, answer)
                            });
                        }
                        None => open = false,
                    },
                    Some(Ok((key, answer))) = lookups.join_next() => each(key, answer)?,
                }
            }
            Ok(())
        });
        if outcome.is_ok() {
            // It has ended: that is how the loop ended.
            let _ = reading.join();
        }
        outcome
    }
}
