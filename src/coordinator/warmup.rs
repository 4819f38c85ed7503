//! Warm-up of source addresses (grammar §4.13): the one ledger that all shards ask, and its file. What is allowed is in the file
//! before a shard hears of it, so that a crash costs a part of the day's allowance and never adds to it.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use futures_channel::oneshot;
use ringpost_conf::Config;
use ringpost_shard::{Allowed, Asking, Given, Ledger, Rate, Schedule, Warming};
use serde::{Deserialize, Serialize};
use tokio::sync::Notify;

use super::network::Say;
use crate::clock::unix_ms;
use crate::kept;
use crate::limits::{WARMUP_ASKED, WARMUP_WRITTEN};

const FILE: &str = "warmup.json";

/// The ledger, and who waits for it.
pub struct Warmups {
    ledger: Arc<Mutex<Ledger>>,
    asked: Mutex<Questions>,
    has_asked: Notify,
    /// For so long questions gather after the file was written.
    gathers: Duration,
    path: PathBuf,
    /// Who has this writes the file.
    writing: Mutex<()>,
    say: Say,
}

/// What the ledger is asked, and was not yet.
#[derive(Default)]
struct Questions {
    all: Vec<(Asking, oneshot::Sender<Allowed>)>,
    /// One of them is for an address that has had nothing today: mail waits for it that could leave at once.
    is_first: bool,
}

/// A source address that warms up, and what it may send to a site, for a person.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct WarmupRow {
    /// The address; `None`: whichever the system chooses.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub source: Option<IpAddr>,
    /// Name of the `warmup`.
    pub warmup: String,
    /// Which day it is since the first use, that being 1.
    pub day: u64,
    /// Days that have a cap; 0: the configuration has no such `warmup` any more.
    pub days: usize,
    /// The site; nothing: none has had mail from there today.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub site: Option<String>,
    /// Messages that were allowed in the time that the cap is for, most of which were sent.
    pub used: u32,
    /// As many as may be: `50/d`. Nothing: it has warmed up.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cap: Option<String>,
    /// When there are new ones, in milliseconds since 1970.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub until_ms: Option<u64>,
}

/// What is kept.
#[derive(Default, Serialize, Deserialize)]
struct File {
    addresses: Vec<Kept>,
}

/// An address that warms up.
#[derive(Serialize, Deserialize)]
struct Kept {
    source: IpAddr,
    warmup: String,
    /// Days since 1970.
    began: u64,
    used: u64,
    /// Messages of the time that begins at these milliseconds since 1970.
    sites: BTreeMap<String, (u64, u32)>,
}

impl Warmups {
    /// With what is kept in this state directory.
    pub fn new(state: &Path, say: Say) -> Self {
        let path = state.join(FILE);
        let kept = kept::read::<File>(&path).unwrap_or_else(|why| {
            say(&format_args!("{why}; source addresses that warm up begin with their first day again"));
            None
        });
        let all = kept.unwrap_or_default().addresses.into_iter().map(Kept::warming);
        let ledger = Arc::new(Mutex::new(Ledger::new(all)));
        let (asked, has_asked, writing) = (Mutex::default(), Notify::new(), Mutex::default());
        Self { ledger, asked, has_asked, gathers: WARMUP_WRITTEN, path, writing, say }
    }

    /// Takes a question; it is answered by [`Warmups::run`]. While the disk keeps that waiting, questions of which nobody awaits
    /// the answer any more are forgotten, and beyond [`WARMUP_ASKED`] the answer is that nothing can be known.
    pub fn ask(&self, asking: Asking, answer: oneshot::Sender<Allowed>) {
        let is_first = self.ledger.lock().expect("nobody panics with it").is_first(&asking, unix_ms());
        let mut asked = self.asked.lock().expect("nobody panics with it");
        if asked.all.len() >= WARMUP_ASKED {
            asked.all.retain(|(_, answer)| !answer.is_canceled());
        }
        if asked.all.len() >= WARMUP_ASKED {
            // A shard that does not wait is not told.
            let _ = answer.send(Allowed::Unknown("too many questions wait for the ledger".into()));
            return;
        }
        asked.all.push((asking, answer));
        asked.is_first |= is_first;
        drop(asked);
        self.has_asked.notify_one();
    }

    /// Takes back what was allowed and not used.
    pub fn give_back(&self, unused: &[Asking]) {
        let mut ledger = self.ledger.lock().expect("nobody panics with it");
        unused.iter().for_each(|unused| ledger.give_back(unused, unix_ms()));
    }

    /// Answers, as long as the engine runs: at once, or, just after the file was written, a moment later together with others.
    /// Who has had nothing today does not wait for others.
    pub async fn run(self: Arc<Self>) {
        let look = |see: fn(&Questions) -> bool| see(&self.asked.lock().expect("nobody panics with it"));
        loop {
            while look(|asked| asked.all.is_empty()) {
                self.has_asked.notified().await;
            }
            let asked = std::mem::take(&mut *self.asked.lock().expect("nobody panics with it"));
            if !self.answer(asked.all).await {
                continue;
            }
            let gathered = tokio::time::Instant::now() + self.gathers;
            while !look(|asked| asked.is_first) {
                tokio::select! {
                    () = tokio::time::sleep_until(gathered) => break,
                    () = self.has_asked.notified() => {}
                }
            }
        }
    }

    /// Whether something had to be written for it.
    async fn answer(self: &Arc<Self>, asked: Vec<(Asking, oneshot::Sender<Allowed>)>) -> bool {
        let now_ms = unix_ms();
        let mut said: Vec<Allowed> = {
            let mut ledger = self.ledger.lock().expect("nobody panics with it");
            asked.iter().map(|(asking, _)| ledger.ask(asking, now_ms)).collect()
        };
        let is_new = said.iter().any(|allowed| matches!(allowed, Allowed::Some { .. }));
        if is_new && let Err(why) = self.write().await {
            (self.say)(&format_args!("{why}; what warms up waits"));
            let mut ledger = self.ledger.lock().expect("nobody panics with it");
            for ((asking, _), allowed) in asked.iter().zip(&mut said) {
                if let Allowed::Some { count, .. } = *allowed {
                    ledger.give_back(&Asking { count, ..asking.clone() }, now_ms);
                    *allowed = Allowed::Unknown(why.clone());
                }
            }
        }
        let mut unheard = Vec::new();
        for ((asking, answer), allowed) in asked.into_iter().zip(said) {
            // A shard that is gone, or has waited long enough, sends nothing.
            if let Err(Allowed::Some { count, .. }) = answer.send(allowed) {
                unheard.push(Asking { count, ..asking });
            }
        }
        self.give_back(&unheard);
        is_new
    }

    /// Where waiting for the disk keeps nobody.
    async fn write(self: &Arc<Self>) -> Result<(), String> {
        let of_thread = self.clone();
        let written = tokio::task::spawn_blocking(move || of_thread.write_now()).await;
        written.unwrap_or_else(|error| Err(error.to_string()))
    }

    fn write_now(&self) -> Result<(), String> {
        let _writing = self.writing.lock().expect("nobody panics with it");
        let all = self.ledger.lock().expect("nobody panics with it").all().map(Kept::of).collect();
        let written = kept::write(&self.path, &File { addresses: all });
        written.map_err(|error| format!("{} cannot be written: {error}", self.path.display()))
    }

    /// Writes down what has come back: the engine ends.
    pub fn keep(&self) {
        let is_used = self.ledger.lock().expect("nobody panics with it").all().next().is_some();
        if is_used && let Err(why) = self.write_now() {
            (self.say)(&format_args!("{why}; what was not used today is lost"));
        }
    }

    /// What warms up, by address and site.
    pub fn rows(&self, config: &Config) -> Vec<WarmupRow> {
        let ledger = self.ledger.lock().expect("nobody panics with it");
        ledger.all().flat_map(|warming| rows(warming, config, unix_ms())).collect()
    }
}

fn rows(warming: &Warming, config: &Config, now_ms: u64) -> Vec<WarmupRow> {
    let Warming { source, schedule, began, sites, .. } = warming;
    let named = config.warmups.iter().find(|warmup| warmup.name == *schedule);
    let rate = |rate: &ringpost_conf::Rate| Rate { count: rate.count, per: rate.per };
    let steps: Vec<Rate> = named.map_or_else(Vec::new, |warmup| warmup.steps.iter().map(rate).collect());
    let (days, schedule) = (steps.len(), Schedule { name: schedule.as_str().into(), steps });
    let step = schedule.step(Some(*began), now_ms);
    let row = WarmupRow {
        source: Some(*source).filter(|source| !source.is_unspecified()),
        warmup: warming.schedule.clone(),
        day: Schedule::day(*began, now_ms),
        days,
        site: None,
        used: 0,
        cap: step.map(|step| ringpost_conf::Rate { count: step.cap.count, per: step.cap.per }.to_string()),
        until_ms: step.map(|step| step.until_ms),
    };
    let of_now = sites.iter().filter(|(_, given)| step.is_some_and(|step| step.from_ms == given.from_ms));
    let mut all: Vec<WarmupRow> = of_now
        .map(|(site, given)| WarmupRow { site: Some(site.to_string()), used: given.count, ..row.clone() })
        .collect();
    if all.is_empty() {
        all.push(row);
    }
    all
}

impl Kept {
    fn of(warming: &Warming) -> Self {
        let Warming { source, schedule, began, used, sites } = warming;
        let sites = sites.iter().map(|(site, given)| (site.to_string(), (given.from_ms, given.count))).collect();
        Self { source: *source, warmup: schedule.clone(), began: *began, used: *used, sites }
    }

    fn warming(self) -> Warming {
        let Self { source, warmup, began, used, sites } = self;
        let given = |(from_ms, count)| Given { from_ms, count };
        let sites = sites.into_iter().map(|(site, counts)| (site.into(), given(counts))).collect();
        Warming { source, schedule: warmup, began, used, sites }
    }
}

impl WarmupRow {
    /// Whether it is about this text, which is in lower case.
    pub fn is_about(&self, text: &str) -> bool {
        let source = self.source.map_or_else(|| "system".to_owned(), |source| source.to_string());
        let site = self.site.as_deref().unwrap_or_default();
        [&source, &self.warmup, site].iter().any(|field| field.to_ascii_lowercase().contains(text))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn asking(site: &str, count: u32) -> Asking {
        let steps = vec![Rate { count: 8, per: Duration::from_secs(86_400) }; 9];
        let schedule = Arc::new(Schedule { name: "slow".into(), steps });
        Asking { source: [192, 0, 2, 1].into(), site: site.into(), schedule, count }
    }

    /// What is said to these questions, which come together.
    fn answers(warmups: &Arc<Warmups>, questions: &[Asking]) -> Vec<Allowed> {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        let (asked, waiting): (Vec<_>, Vec<_>) = questions
            .iter()
            .map(|one| {
                let (answer, wait) = oneshot::channel();
                ((one.clone(), answer), wait)
            })
            .unzip();
        runtime.block_on(warmups.answer(asked));
        waiting.into_iter().map(|mut wait| wait.try_recv().unwrap().unwrap()).collect()
    }

    fn count(allowed: &Allowed) -> u32 {
        match allowed {
            Allowed::Some { count, .. } => *count,
            _ => 0,
        }
    }

    #[test]
    fn what_was_allowed_counts_for_the_next_engine_and_what_came_back_does_not() {
        let dir = tempfile::tempdir().unwrap();
        let open = || Arc::new(Warmups::new(dir.path(), Arc::new(|what| panic!("{what}"))));
        let warmups = open();
        let said = answers(&warmups, &[asking("a", 1), asking("a", 1), asking("b", 1)]);
        assert_eq!(said.iter().map(count).collect::<Vec<_>>(), [1, 1, 1]);
        // As if it had been killed.
        let warmups = open();
        assert_eq!((0..9).map(|_| count(&answers(&warmups, &[asking("a", 1)])[0])).sum::<u32>(), 6);
        warmups.give_back(&[asking("a", 3)]);
        warmups.keep();
        let warmups = open();
        assert_eq!((0..9).map(|_| count(&answers(&warmups, &[asking("a", 1)])[0])).sum::<u32>(), 3);
    }

    #[test]
    fn the_first_question_of_an_address_does_not_wait_until_others_have_gathered() {
        let dir = tempfile::tempdir().unwrap();
        let gathers = Duration::from_secs(86_400);
        let warmups = Arc::new(Warmups { gathers, ..Warmups::new(dir.path(), Arc::new(|what| panic!("{what}"))) });
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        let ask = |asking| {
            let (answer, wait) = oneshot::channel();
            warmups.ask(asking, answer);
            wait
        };
        let from = |last| Asking { source: [192, 0, 2, last].into(), ..asking("a", 1) };
        runtime.block_on(async {
            let running = tokio::spawn(warmups.clone().run());
            for last in 1..5 {
                let answered = tokio::time::timeout(Duration::from_secs(60), ask(from(last))).await;
                assert_eq!(count(&answered.expect("at once").unwrap()), 1);
            }
            // The next of one of them gathers with others, until somebody else comes.
            let (mut later, first) = (ask(from(1)), ask(from(9)));
            assert!(matches!(later.try_recv(), Ok(None)));
            let answered = tokio::time::timeout(Duration::from_secs(60), async { (first.await, later.await) }).await;
            assert!(answered.is_ok(), "together");
            let waits = ask(from(2));
            assert!(tokio::time::timeout(Duration::from_millis(200), waits).await.is_err());
            running.abort();
        });
    }

    #[test]
    fn what_nobody_hears_of_is_not_used_and_questions_are_bounded() {
        let dir = tempfile::tempdir().unwrap();
        let warmups = Arc::new(Warmups::new(dir.path(), Arc::new(|what| panic!("{what}"))));
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        for _ in 0..20 {
            let (answer, gone) = oneshot::channel();
            drop(gone);
            runtime.block_on(warmups.answer(vec![(asking("a", 1), answer)]));
        }
        assert_eq!((0..9).map(|_| count(&answers(&warmups, &[asking("a", 1)])[0])).sum::<u32>(), 8, "none was lost");
        let mut waiting: Vec<_> = (0..WARMUP_ASKED + 1)
            .map(|_| {
                let (answer, wait) = oneshot::channel();
                warmups.ask(asking("b", 1), answer);
                wait
            })
            .collect();
        let mut last = waiting.pop().unwrap();
        assert!(matches!(last.try_recv(), Ok(Some(Allowed::Unknown(_)))));
        assert!(matches!(waiting[0].try_recv(), Ok(None)));
        // Those that have given up make room.
        waiting.truncate(9);
        let (answer, mut wait) = oneshot::channel();
        warmups.ask(asking("b", 1), answer);
        assert!(matches!(wait.try_recv(), Ok(None)));
        assert_eq!(warmups.asked.lock().unwrap().all.len(), 10);
    }

    #[test]
    fn what_cannot_be_written_down_is_not_allowed() {
        let dir = tempfile::tempdir().unwrap();
        let state = dir.path().join("state");
        std::fs::create_dir(&state).unwrap();
        let told = Arc::new(Mutex::new(String::new()));
        let heard = told.clone();
        let say: Say = Arc::new(move |what| *heard.lock().unwrap() = what.to_string());
        let warmups = Arc::new(Warmups::new(&state, say));
        std::fs::remove_dir(&state).unwrap();
        let said = answers(&warmups, &[asking("a", 1)]);
        assert!(matches!(&said[0], Allowed::Unknown(why) if why.contains("warmup.json cannot be written")), "{said:?}");
        assert!(told.lock().unwrap().contains("what warms up waits"));
        std::fs::create_dir(&state).unwrap();
        assert_eq!((0..9).map(|_| count(&answers(&warmups, &[asking("a", 1)])[0])).sum::<u32>(), 8, "none was lost");
    }
}
