//! Limits that administrators set while the server runs (`ringpost limit`): what is in force, since when, until when, and by
//! whom. They are kept here and in a file of the state directory: reloads and restarts leave them in force until their time is
//! over, whether a server has run meanwhile or not.

use std::fmt::Display;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use ringpost_conf::{Shaping, overrides};
use serde::{Deserialize, Serialize};
use tokio::sync::{Mutex, Notify};
use tokio::time::Instant;

use super::Coordinator;
use crate::clock::unix_ms;
use crate::kept;
use crate::limits::OVERRIDES;

const FILE: &str = "limits.json";

/// What is in force. Its lock is held until the shards know of a change, so that they learn of all in one order.
pub struct Overrides {
    held: Mutex<Vec<Held>>,
    /// When something ends may have changed.
    changed: Notify,
    path: PathBuf,
}

/// What is kept.
#[derive(Serialize, Deserialize)]
struct File {
    limits: Vec<Kept>,
}

/// Limits of one selector.
#[derive(Serialize, Deserialize)]
struct Kept {
    selector: String,
    /// `KEY=VALUE`.
    limits: Vec<String>,
    /// Milliseconds since 1970.
    since_ms: u64,
    /// Milliseconds since 1970.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    until_ms: Option<u64>,
    user: u32,
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
    /// Milliseconds since 1970; nothing: until they are unset.
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

impl Overrides {
    /// What is kept in this state directory and not over yet, and the same for the shards. What cannot be read is told by `say`.
    pub fn new(state: &Path, say: impl Fn(&dyn Display)) -> (Self, ringpost_shard::Overrides) {
        let path = state.join(FILE);
        let kept = kept::read::<File>(&path).unwrap_or_else(|why| {
            say(&format_args!("{why}; limits that were set are not in force"));
            None
        });
        let (now, now_ms) = (Instant::now(), unix_ms());
        let mut held: Vec<Held> = Vec::new();
        for kept in kept.map(|file| file.limits).into_iter().flatten().take(OVERRIDES) {
            if kept.until_ms.is_some_and(|until_ms| until_ms <= now_ms) {
                continue;
            }
            match kept.held(now, now_ms) {
                Ok(one) => held.push(one),
                Err(why) => say(&format_args!("{}: {why}; this limit is not in force", path.display())),
            }
        }
        let shapings = held.iter().map(|one| one.shaping.clone()).collect();
        (Self { held: Mutex::new(held), changed: Notify::new(), path }, shapings)
    }

    /// Writes down what is held; it is rarely another, and administrators wait for it.
    ///
    /// # Errors
    /// It could not be written.
    async fn keep(&self, held: &[Held]) -> Result<(), String> {
        let (path, file) = (self.path.clone(), File { limits: held.iter().map(Held::kept).collect() });
        // Lookups of all shards are answered by this thread meanwhile.
        let written = tokio::task::spawn_blocking(move || kept::write(&path, &file)).await;
        let written = written.unwrap_or_else(|error| Err(std::io::Error::other(error)));
        written.map_err(|error| format!("{} cannot be written: {error}", self.path.display()))
    }
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
        let lost = self.keep_limits(&held, "a restart would lose it").await;
        self.enforce(&held, changed).await;
        self.overrides.changed.notify_one();
        let time = time.map_or_else(String::new, |time| format!(" for {}", overrides::show(time)));
        self.log.push(&format_args!("conf   limit {name} {text}{time}, set by user {user}"));
        Ok(format!("in force for {name}: {text}{time}{lost}"))
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
        let lost = self.keep_limits(&held, "a restart would bring it back").await;
        self.enforce(&held, ended).await;
        self.log.push(&format_args!("conf   limit {name} unset by user {user}"));
        Ok(format!("{name} has the configuration's limits again{lost}"))
    }

    /// Writes down what is held; what is to be said if that fails, with what would come of it.
    async fn keep_limits(&self, held: &[Held], or_else: &str) -> String {
        let Err(why) = self.overrides.keep(held).await else { return String::new() };
        self.log.warn(&format_args!("{why}; {or_else}"));
        format!("\n{why}; {or_else}")
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
            self.keep_limits(&held, "at a restart they are over all the same").await;
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

impl Kept {
    fn held(self, now: Instant, now_ms: u64) -> Result<Held, String> {
        let Self { selector, limits, since_ms, until_ms, user } = self;
        let shaping = Arc::new(overrides::shaping(&selector, &limits)?);
        // A time that no clock reaches is as good as none.
        let until = until_ms.and_then(|until_ms| {
            let left = Duration::from_millis(until_ms.saturating_sub(now_ms));
            Some((now.checked_add(left)?, until_ms))
        });
        Ok(Held { shaping, since_ms, until, user })
    }
}

impl Held {
    fn kept(&self) -> Kept {
        Kept {
            selector: self.shaping.name.clone(),
            limits: overrides::settings(&self.shaping.shape),
            since_ms: self.since_ms,
            until_ms: self.until.map(|(_, until_ms)| until_ms),
            user: self.user,
        }
    }

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

#[cfg(test)]
mod tests {
    use std::cell::RefCell;

    use super::*;

    fn opened(state: &Path) -> (Vec<LimitRow>, usize, Vec<String>) {
        let told = RefCell::new(Vec::new());
        let (overrides, shapings) = Overrides::new(state, |what| told.borrow_mut().push(what.to_string()));
        let rows = overrides.held.blocking_lock().iter().map(Held::row).collect();
        (rows, shapings.len(), told.into_inner())
    }

    #[test]
    fn s88_what_is_set_is_there_after_a_restart_until_its_time_is_over() {
        let dir = tempfile::tempdir().unwrap();
        assert_eq!(opened(dir.path()), (Vec::new(), 0, Vec::new()));
        let now_ms = unix_ms();
        let held = |selector: &str, until_ms: Option<u64>| {
            let limits = vec!["connections=1".to_owned(), "rate=5/s".to_owned()];
            let kept = Kept { selector: selector.into(), limits, since_ms: now_ms - 9, until_ms, user: 7 };
            kept.held(Instant::now(), now_ms).unwrap()
        };
        let (overrides, _) = Overrides::new(dir.path(), |what| panic!("{what}"));
        let all = [
            held("domain:x.example", None),
            held("mx:*.x.example", Some(now_ms + 3_600_000)),
            held("default", Some(now_ms - 1)),
        ];
        let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
        runtime.block_on(overrides.keep(&all)).unwrap();
        let (rows, shapings, told) = opened(dir.path());
        assert_eq!((rows.len(), shapings, told), (2, 2, Vec::new()), "{rows:?}");
        assert_eq!(rows, all[..2].iter().map(Held::row).collect::<Vec<_>>());
        assert!(rows[1].until_ms == Some(now_ms + 3_600_000) && rows[0].by == SetBy::User(7));
    }

    #[test]
    fn what_cannot_be_read_is_told_and_the_rest_is_in_force() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join(FILE);
        let one = |selector: &str, limit: &str| {
            format!(r#"{{"selector":"{selector}","limits":["{limit}"],"since_ms":1,"user":7}}"#)
        };
        let (good, new) = (one("default", "burst=3"), one("default", "warmth=3"));
        std::fs::write(&path, format!(r#"{{"version":1,"limits":[{new},{good}]}}"#)).unwrap();
        let (rows, _, told) = opened(dir.path());
        assert_eq!((rows.len(), told.len()), (1, 1), "{told:?}");
        assert!(told[0].contains("there is no limit `warmth`") && told[0].ends_with("not in force"), "{told:?}");
        std::fs::write(&path, "limits").unwrap();
        let (rows, _, told) = opened(dir.path());
        assert!(rows.is_empty() && told[0].contains("limits.json cannot be read"), "{told:?}");
    }
}
