//! A new configuration: read and checked by the supervisor, checked once more here, and given to every shard; or refused
//! whole, and nothing changes. Sessions keep the one they began with.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex};

use futures_channel::oneshot;

use super::Coordinator;
use crate::ipc::engine::FromEngine;
use crate::plan::Plan;

/// Administrators who wait for the outcome.
#[derive(Default)]
pub struct Waiting(Mutex<VecDeque<oneshot::Sender<Result<String, String>>>>);

impl Waiting {
    fn push(&self) -> oneshot::Receiver<Result<String, String>> {
        let (outcome, wait) = oneshot::channel();
        self.0.lock().expect("nobody panics with it").push_back(outcome);
        wait
    }

    fn tell(&self, outcome: &Result<String, String>) {
        for waiting in self.0.lock().expect("nobody panics with it").drain(..) {
            // Who has hung up needs no outcome.
            let _ = waiting.send(outcome.clone());
        }
    }
}

impl Coordinator {
    /// Asks the supervisor for the configuration as it is on disk now; what came of it, in a sentence or a report.
    pub async fn reload(&self) -> Result<String, String> {
        let wait = self.reloads.push();
        self.supervisor.send(&FromEngine::WantsReload).map_err(|error| format!("the supervisor is gone: {error}"))?;
        wait.await.unwrap_or_else(|_| Err("the engine stops".into()))
    }

    /// The supervisor has sent a plan.
    pub async fn apply(&self, plan: &Plan, notes: Vec<String>) {
        let checked = plan.config().and_then(|(config, _)| self.renew_tables(plan).map(|()| config));
        let outcome = match checked {
            Ok(config) => {
                self.shards.reload(&Arc::new(config)).await;
                let mut text = "reloaded: sessions that begin from now on follow it".to_owned();
                for note in &notes {
                    self.log.warn(&format_args!("reload: {note}"));
                    text.push('\n');
                    text.push_str(note);
                }
                self.log.push(&"conf   reloaded");
                Ok(text)
            }
            Err(report) => Err(report),
        };
        self.settle(outcome);
    }

    /// Before the shards have the configuration that asks them.
    fn renew_tables(&self, plan: &Plan) -> Result<(), String> {
        let renewed = self.tables().renewed(plan.tables.clone(), &self.surroundings);
        let renewed =
            renewed.map_err(|problems| problems.iter().map(ToString::to_string).collect::<Vec<_>>().join("\n"))?;
        *self.tables.write().expect("nobody panics with it") = Arc::new(renewed);
        Ok(())
    }

    /// The supervisor has found errors.
    pub fn refuse(&self, report: String) {
        self.settle(Err(report));
    }

    fn settle(&self, outcome: Result<String, String>) {
        if let Err(report) = &outcome {
            self.log.warn(&"reload refused, nothing has changed:");
            for line in report.lines() {
                self.log.push(&format_args!("       {line}"));
            }
        }
        self.reloads.tell(&outcome);
    }
}
