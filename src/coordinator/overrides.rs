//! Limits that administrators set while the server runs (`ringpost limit`): what is in force, since when, until when, and by
//! whom. They are kept here and nowhere else: a reload leaves them in force, another engine begins without.

use std::sync::Arc;
use std::time::Duration;

use ringpost_conf::{Shaping, overrides};
use serde::{Deserialize, Serialize};
use tokio::sync::{Mutex, Notify};
use tokio::time::Instant;

use super::Coordinator;
use crate::clock::unix_ms;
use crate::limits::OVERRIDES;

/// What is in force. Its lock is held until the shards know of a change, so that they learn of all in one order.
#[derive(Default)]
pub struct Overrides {
    held: Mutex<Vec<Held>>,
    /// When something ends may have changed.
    changed: Notify,
}

struct Held {
    shaping: Arc<Shaping>,
    since_ms: u64,
    /// By the clock that nobody sets; and as people read it.
    until: Option<(Instant, u64)>,
    user: u32,
}

/// Limits in force, as they are listed.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct LimitRow {
    /// What they are for: a selector, or the name of a shape of the configuration's.
    pub of: String,
    /// `KEY=VALUE`.
    pub limits: Vec<String>,
    /// Why they are in force.
    pub by: SetBy,
    /// Milliseconds since 1970.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub since_ms: Option<u64>,
    /// Milliseconds since 1970; nothing: until they are unset, or the server is started again.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub until_ms: Option<u64>,
}

/// Who has set limits.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum SetBy {
    /// `ringpost limit set`, called by the user of this number.
    User(u32),
    /// This line of the configuration.
    Line(String),
}

impl Coordinator {
    /// Sets limits in place of those that the selector had; what was done, in a sentence.
    ///
    /// # Errors
    /// They make no sense, or there are too many.
    pub async fn set_limit(
        &self,
        selector: &str,
        settings: &[String],
        time: Option<Duration>,
        user: u32,
    ) -> Result<String, String> {
        let shaping = Arc::new(overrides::shaping(selector, settings)?);
        let (name, now, since_ms) = (shaping.name.clone(), Instant::now(), unix_ms());
        // A time that no clock reaches is as good as none.
        let until = time.and_then(|time| {
            Some((now.checked_add(time)?, since_ms.checked_add(u64::try_from(time.as_millis()).ok()?)?))
        });
        let mut held = self.overrides.held.lock().await;
        let mut changed = vec![shaping.clone()];
        changed.extend(held.extract_if(.., |one| one.shaping.name == name).map(|one| one.shaping));
        if held.len() >= OVERRIDES {
            return Err(format!(
                "{OVERRIDES} limits are set, and more there may not be: unset one (`ringpost limit list`)"
            ));
        }
        let text = overrides::settings(&shaping.shape).join(" ");
        held.push(Held { shaping, since_ms, until, user });
        self.enforce(&held, changed).await;
        self.overrides.changed.notify_one();
        let time = time.map_or_else(String::new, |time| format!(" for {}", overrides::show(time)));
        self.log.push(&format_args!("conf   limit {name} {text}{time}, set by user {user}"));
        Ok(format!("in force for {name}: {text}{time}"))
    }

    /// Ends what was set for a selector; what was done, in a sentence.
    ///
    /// # Errors
    /// Nothing was.
    pub async fn unset_limit(&self, selector: &str, user: u32) -> Result<String, String> {
        let name = overrides::name(selector)?;
        let mut held = self.overrides.held.lock().await;
        let ended: Vec<_> = held.extract_if(.., |one| one.shaping.name == name).map(|one| one.shaping).collect();
        if ended.is_empty() {
            return Err(format!("nothing is set for {name}; `ringpost limit list` shows what is"));
        }
        self.enforce(&held, ended).await;
        self.log.push(&format_args!("conf   limit {name} unset by user {user}"));
        Ok(format!("{name} has the configuration's limits again"))
    }

    /// What is in force, the newest first, and behind it, if `all` is wanted, the configuration's shapes that say something of
    /// what can be set.
    pub async fn limits(&self, all: bool) -> Vec<LimitRow> {
        let held = self.overrides.held.lock().await;
        let mut rows: Vec<LimitRow> = held.iter().rev().map(Held::row).collect();
        drop(held);
        if all {
            let config = self.config();
            rows.extend(config.shapings.iter().map(of_config).filter(|row| !row.limits.is_empty()));
        }
        rows
    }

    /// Has the shards follow what is held; what has `changed` tells them whose mail that concerns.
    async fn enforce(&self, held: &[Held], changed: Vec<Arc<Shaping>>) {
        self.shards.limit(&held.iter().map(|one| one.shaping.clone()).collect(), &changed.into()).await;
    }

    /// Ends what is over, and says when the next is.
    async fn expire_limits(&self) -> Option<Instant> {
        let mut held = self.overrides.held.lock().await;
        let now = Instant::now();
        let is_over = |one: &mut Held| one.until.is_some_and(|(until, _)| until <= now);
        let ended: Vec<_> = held.extract_if(.., is_over).map(|one| one.shaping).collect();
        if !ended.is_empty() {
            for shaping in &ended {
                self.log.push(&format_args!("conf   limit {} has had its time", shaping.name));
            }
            self.enforce(&held, ended).await;
        }
        held.iter().filter_map(|one| one.until).map(|(until, _)| until).min()
    }
}

/// Ends limits at their times, as long as the coordinator runs.
pub async fn watch(coordinator: Arc<Coordinator>) {
    loop {
        let next = coordinator.expire_limits().await;
        let over = async {
            match next {
                Some(next) => tokio::time::sleep_until(next).await,
                None => std::future::pending().await,
            }
        };
        tokio::select! {
            () = over => {}
            () = coordinator.overrides.changed.notified() => {}
        }
    }
}

impl Held {
    fn row(&self) -> LimitRow {
        LimitRow {
            of: self.shaping.name.clone(),
            limits: overrides::settings(&self.shaping.shape),
            by: SetBy::User(self.user),
            since_ms: Some(self.since_ms),
            until_ms: self.until.map(|(_, until_ms)| until_ms),
        }
    }
}

fn of_config(shaping: &Shaping) -> LimitRow {
    LimitRow {
        of: format!("shaping {}", shaping.name),
        limits: overrides::settings(&shaping.shape),
        by: SetBy::Line(shaping.line.to_string()),
        since_ms: None,
        until_ms: None,
    }
}
