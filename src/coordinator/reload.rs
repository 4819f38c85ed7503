//! A new configuration: read and checked by the supervisor, checked once more here, and given to every shard; or refused
//! whole, and nothing changes. Sessions keep the one they began with.

use std::sync::{Arc, Mutex};

use futures_channel::oneshot;
use ringpost_conf::Config;

use super::Coordinator;
use super::shards::Shapes;
use crate::encryption;
use crate::ipc::engine::FromEngine;
use crate::plan::Plan;

/// Administrators who wait for the outcome.
#[derive(Default)]
pub struct Waiting(Mutex<Vec<Administrator>>);

struct Administrator {
    /// Waits for this table; `None`: for the whole configuration.
    table: Option<String>,
    outcome: oneshot::Sender<Result<String, String>>,
}

impl Waiting {
    fn push(&self, table: Option<String>) -> oneshot::Receiver<Result<String, String>> {
        let (outcome, wait) = oneshot::channel();
        self.0.lock().expect("nobody panics with it").push(Administrator { table, outcome });
        wait
    }

    fn tell(&self, outcome: &Result<String, String>, concerns: impl Fn(Option<&str>) -> bool) {
        let mut all = self.0.lock().expect("nobody panics with it");
        for waiting in all.extract_if(.., |waiting| concerns(waiting.table.as_deref())) {
            // Who has hung up needs no outcome.
            let _ = waiting.outcome.send(outcome.clone());
        }
    }
}

impl Coordinator {
    /// Asks the supervisor for the configuration as it is on disk now; what came of it, in a sentence or a report.
    pub async fn reload(&self) -> Result<String, String> {
        self.ask_supervisor(None, &FromEngine::WantsReload).await
    }

    /// Has a table asked anew: its file is read again, or what is known of its backend's answers is forgotten.
    pub async fn update_table(&self, name: &str) -> Result<String, String> {
        let tables = self.tables();
        if tables.names().any(|known| known == name) {
            tables.update(name).await?;
            self.shards.forget_table(name).await;
            return Ok(format!("<{name}> is asked anew"));
        }
        self.ask_supervisor(Some(name.to_owned()), &FromEngine::WantsTable(name.to_owned())).await
    }

    async fn ask_supervisor(&self, table: Option<String>, wish: &FromEngine) -> Result<String, String> {
        let wait = self.reloads.push(table);
        self.supervisor.send(wish).map_err(|error| format!("the supervisor is gone: {error}"))?;
        wait.await.unwrap_or_else(|_| Err("the engine stops".into()))
    }

    /// The supervisor has sent a plan.
    pub async fn apply(&self, plan: &Plan, notes: Vec<String>) {
        let renewed = plan.config().and_then(|(config, _)| self.renew_tables(plan).map(|()| config));
        if renewed.is_ok() {
            self.trust(plan).await;
        }
        let outcome = self.give(plan, renewed, || {
            let mut text = "reloaded: sessions that begin from now on follow it".to_owned();
            for note in &notes {
                self.log.warn(&format_args!("reload: {note}"));
                text.push('\n');
                text.push_str(note);
            }
            self.log.push(&"conf   reloaded");
            text
        });
        self.settle(outcome.await, |table| table.is_none());
    }

    /// The supervisor has sent a plan in which only entries of these tables are new.
    pub async fn apply_tables(&self, plan: &Plan, tables: &[String]) {
        let outcome = self.give(plan, plan.config().map(|(config, _)| config), || {
            let names: Vec<String> = tables.iter().map(|name| format!("<{name}>")).collect();
            let text = format!("read again: {}", names.join(", "));
            self.log.push(&format_args!("conf   {text}"));
            text
        });
        let outcome = outcome.await;
        self.settle(outcome, |table| table.is_some_and(|table| tables.iter().any(|read| read == table)));
    }

    /// Gives a configuration that was found good to every shard; then it is told.
    async fn give(
        &self,
        plan: &Plan,
        config: Result<Config, String>,
        tell: impl FnOnce() -> String,
    ) -> Result<String, String> {
        let config = Arc::new(config?);
        let servers = self.handshakes.servers(&config, &plan.identities, &plan.authorities)?;
        let page = self.handshakes.page(&config, &plan.identities)?;
        *self.page.write().expect("nobody panics with it") = page;
        self.web.allow(super::inner(&config, &self.names));
        let shapes = if config.shapes_as(&self.config()) { Shapes::Same } else { Shapes::Changed };
        self.shards.reload(&config, &servers, shapes).await;
        self.shards.certificates.follow(&plan.identities, std::time::SystemTime::now());
        self.shards.name_sites(config.metrics.sites_max);
        *self.config.write().expect("nobody panics with it") = config;
        self.hlog.reload();
        Ok(tell())
    }

    /// The system's authorities, if they are others than before.
    async fn trust(&self, plan: &Plan) {
        let is_new = std::mem::replace(&mut *self.roots.lock().expect("nobody panics with it"), plan.roots.clone())
            != plan.roots;
        if is_new {
            let (roots, none) = encryption::roots(&plan.roots);
            self.handshakes.trust(roots.clone());
            self.web.trust(roots.clone());
            let (connector, doubt) = encryption::connector(roots);
            none.iter().chain(&doubt).for_each(|doubt| self.log.warn(doubt));
            self.shards.trust(&connector).await;
        }
    }

    /// Before the shards have the configuration that asks them.
    fn renew_tables(&self, plan: &Plan) -> Result<(), String> {
        let renewed = self.tables().renewed(plan.tables.clone(), &self.surroundings);
        let renewed =
            renewed.map_err(|problems| problems.iter().map(ToString::to_string).collect::<Vec<_>>().join("\n"))?;
        *self.tables.write().expect("nobody panics with it") = Arc::new(renewed);
        Ok(())
    }

    /// The supervisor starts another engine with the new configuration.
    pub fn renewed(&self, text: String) {
        self.log.push(&format_args!("conf   {text}"));
        self.settle(Ok(text), |table| table.is_none());
    }

    /// The supervisor has found errors.
    pub fn refuse(&self, report: String) {
        self.settle(Err(report), |_| true);
    }

    fn settle(&self, outcome: Result<String, String>, concerns: impl Fn(Option<&str>) -> bool) {
        if let Err(report) = &outcome {
            self.log.warn(&"reload refused, nothing has changed:");
            for line in report.lines() {
                self.log.push(&format_args!("       {line}"));
            }
        }
        self.reloads.tell(&outcome, concerns);
    }
}
