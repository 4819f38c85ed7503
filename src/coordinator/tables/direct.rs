//! Lookups without a server: for the command line, before a table is put into a configuration.

use std::io;

use tokio::sync::mpsc;
use tokio::task::JoinSet;

use super::limits::DIRECT;
use super::{Answer, Declared, Problem, Service, Surroundings, Tables};

/// One table, and nothing else.
pub struct Direct {
    runtime: tokio::runtime::Runtime,
    tables: Tables,
    name: String,
}

impl Direct {
    /// Reads the backend's configuration.
    ///
    /// # Errors
    /// All that is wrong with it.
    pub fn new(declared: Declared, surroundings: &Surroundings) -> io::Result<Result<Self, Vec<Problem>>> {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
        let name = declared.name.clone();
        let tables = Tables::new(vec![declared], surroundings);
        Ok(tables.map(|tables| Self { runtime, tables, name }))
    }

    /// What keeps it from working.
    pub fn check(&self) -> Vec<Problem> {
        self.runtime.block_on(self.tables.check())
    }

    /// Whether it can be asked for a service.
    ///
    /// # Errors
    /// When its helper does not say.
    pub fn provides(&self, service: Service) -> Result<bool, String> {
        self.runtime.block_on(self.tables.provides(&self.name, service))
    }

    /// Looks all keys up, many at the same time, and hands the answers over as they come.
    ///
    /// # Errors
    /// Those of `each`, which end it.
    pub fn lookup<E>(
        self,
        service: Service,
        keys: impl Iterator<Item = String> + Send + 'static,
        mut each: impl FnMut(String, Answer) -> Result<(), E>,
    ) -> Result<(), E> {
        let tables = std::sync::Arc::new(self.tables);
        // Reading keys may wait for a person.
        let (sender, mut arriving) = mpsc::channel(1);
        let reading = std::thread::spawn(move || keys.into_iter().try_for_each(|key| sender.blocking_send(key)));
        let outcome = self.runtime.block_on(async {
            let mut lookups: JoinSet<(String, Answer)> = JoinSet::new();
            let mut open = true;
            while open || !lookups.is_empty() {
                tokio::select! {
                    key = arriving.recv(), if open && lookups.len() < DIRECT => match key {
                        Some(key) => {
                            let (tables, name) = (tables.clone(), self.name.clone());
                            lookups.spawn(async move {
                                let answer = tables.lookup(&name, service, &key).await;
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
