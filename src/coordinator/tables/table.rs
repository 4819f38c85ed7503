//! One table: what is known of it, who waits for what, and when its backend may be asked.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::{Duration, Instant};

use ringpost_shard::Said;
use tokio::sync::{Semaphore, oneshot};

use super::backend::Opened;
use super::cache::{Cache, Question};
use super::events::Event;
use super::figures::{Counts, Figures};
use super::health::{Change, Health};
use super::limits::{ENTRY_LOG, KEY_BYTES, VALUE_BYTES, WAITING};
use super::service::Service;
use super::settings::Problem;
use super::{Declared, Surroundings};

/// Why a backend gave no answer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Trouble {
    /// It cannot be reached, or cannot work: the next key would fare no better.
    Backend(String),
    /// There is something wrong with what it has of this key.
    Entry(String),
    /// Our own bounds: it was not asked.
    Busy(String),
}

/// What a backend says: the text of the row, or that there is none.
pub type Looked = Result<Option<String>, Trouble>;

/// See the module.
pub struct Table {
    declared: Declared,
    opened: Opened,
    places: Arc<Semaphore>,
    events: Arc<dyn Fn(&Event) + Send + Sync>,
    state: Mutex<State>,
}

struct State {
    cache: Cache,
    health: Health,
    counts: Counts,
    /// Questions under way, and who waits for their answers.
    flights: HashMap<Question, Vec<oneshot::Sender<Said>>>,
    entry_logged: Option<Instant>,
    entry_left_out: u64,
}

/// What becomes of a lookup.
enum Turn {
    Answered(Said),
    Wait(oneshot::Receiver<Said>),
    Ask(oneshot::Receiver<Said>),
}

impl Table {
    /// Reads the backend's configuration.
    pub fn new(declared: Declared, surroundings: &Surroundings) -> Result<Self, Vec<Problem>> {
        let opened = Opened::new(&declared, surroundings)?;
        let places = Arc::new(Semaphore::new(opened.places(declared.pool)));
        let state = State {
            cache: Cache::default(),
            health: Health::default(),
            counts: Counts::new(),
            flights: HashMap::new(),
            entry_logged: None,
            entry_left_out: 0,
        };
        Ok(Self { declared, opened, places, events: surroundings.events.clone(), state: Mutex::new(state) })
    }

    /// As it was declared.
    pub fn declared(&self) -> &Declared {
        &self.declared
    }

    /// Its name.
    pub fn name(&self) -> &str {
        &self.declared.name
    }

    /// See [`super::Tables::lookup`].
    pub async fn lookup(self: &Arc<Self>, question: Question) -> Said {
        if question.key.len() > KEY_BYTES {
            return Said::Wrong(format!("a key of {} bytes, {KEY_BYTES} are the most", question.key.len()));
        }
        if self.opened.provides(question.service) == Some(false) {
            return Said::Wrong(self.opened.cannot(question.service));
        }
        let wait = match self.turn(&question, Instant::now()) {
            Turn::Answered(answer) => return answer,
            Turn::Wait(wait) => wait,
            Turn::Ask(wait) => {
                // On its own, so that it goes on for the others when who began it has gone away.
                let flight = Flight { table: self.clone(), question };
                tokio::spawn(flight.run());
                wait
            }
        };
        wait.await.unwrap_or_else(|_| Said::Failed("the lookup was lost".into()))
    }

    /// See [`super::Tables::provides`].
    pub async fn provides(&self, service: Service) -> Result<bool, String> {
        match self.opened.provides(service) {
            Some(known) => Ok(known),
            None => self.opened.ask_provides(service).await,
        }
    }

    /// See [`super::Tables::check`].
    pub async fn check(&self) -> Vec<Problem> {
        self.opened.check().await
    }

    /// See [`super::Tables::update`].
    pub async fn update(&self) -> Result<(), String> {
        {
            let mut state = self.state();
            state.cache.clear();
            state.health.try_now(Instant::now());
        }
        tokio::time::timeout(self.declared.timeout, self.opened.update()).await.unwrap_or_else(|_| Err(self.too_slow()))
    }

    /// See [`super::Tables::figures`].
    pub fn figures(&self) -> Figures {
        let state = self.state();
        let counts = &state.counts;
        Figures {
            name: self.declared.name.clone(),
            backend: self.declared.backend.to_string(),
            services: self.opened.services().into_iter().map(|service| service.name().to_owned()).collect(),
            failing: state.health.is_down().then(|| state.health.reason().to_owned()),
            kept: state.cache.len() as u64,
            waiting: state.flights.len() as u64,
            connections: self.opened.connections(),
            tally: counts.tally,
            latency: counts.latency(),
        }
    }

    /// From what is known, with others, or by asking.
    fn turn(&self, question: &Question, now: Instant) -> Turn {
        let mut state = self.state();
        let state = &mut *state;
        if let Some(kept) = state.cache.get(question) {
            let time = if kept.value.is_some() { self.declared.cache } else { self.declared.negative };
            let age = now.saturating_duration_since(kept.at);
            if age < time {
                let said = says(kept.value.clone(), age);
                state.counts.tally.hits += 1;
                return Turn::Answered(said);
            }
        }
        let (answer, wait) = oneshot::channel();
        if let Some(waiting) = state.flights.get_mut(question) {
            state.counts.tally.joined += 1;
            waiting.push(answer);
            return Turn::Wait(wait);
        }
        if !state.health.may_ask(now, self.declared.timeout) {
            state.counts.tally.failures += 1;
            let reason = format!("not asked, since it fails: {}", state.health.reason());
            return Turn::Answered(self.old_or_failed(state, question, now, reason));
        }
        if state.flights.len() >= WAITING + self.opened.places(self.declared.pool) {
            state.counts.tally.failures += 1;
            let reason = format!("{WAITING} lookups wait already");
            return Turn::Answered(self.old_or_failed(state, question, now, reason));
        }
        state.counts.tally.asked += 1;
        state.flights.insert(question.clone(), vec![answer]);
        Turn::Ask(wait)
    }

    async fn ask(&self, question: &Question) -> Looked {
        let deadline = Instant::now() + self.declared.timeout;
        let until = tokio::time::Instant::from_std(deadline);
        let Ok(place) = tokio::time::timeout_at(until, self.places.clone().acquire_owned()).await else {
            return Err(Trouble::Busy(format!(
                "no connection was free within {} s",
                self.declared.timeout.as_secs_f32()
            )));
        };
        let place = place.map_err(|_| Trouble::Busy("the table is closed".into()))?;
        let began = Instant::now();
        let asked = tokio::time::timeout_at(until, self.opened.ask(question, deadline, place)).await;
        self.state().counts.took(began.elapsed());
        match asked {
            Ok(Ok(Some(value))) if value.len() > VALUE_BYTES => {
                Err(Trouble::Entry(format!("a value of {} bytes, {VALUE_BYTES} are the most", value.len())))
            }
            Ok(looked) => looked,
            Err(_) => Err(Trouble::Backend(self.too_slow())),
        }
    }

    fn too_slow(&self) -> String {
        format!("no answer within {} s", self.declared.timeout.as_secs_f32())
    }

    /// Takes note of what came of a question; what those who wait for it are told.
    fn settle(&self, question: &Question, looked: Looked, now: Instant) -> Said {
        let mut state = self.state();
        let state = &mut *state;
        match looked {
            Ok(value) => {
                let counter =
                    if value.is_some() { &mut state.counts.tally.found } else { &mut state.counts.tally.not_found };
                *counter += 1;
                self.tell(state.health.answered(now));
                if question.service.is_kept() && self.opened.is_kept(question.service) {
                    state.cache.insert(question.clone(), value.clone(), now);
                }
                says(value, Duration::ZERO)
            }
            Err(trouble) => {
                state.counts.tally.failures += 1;
                match trouble {
                    Trouble::Backend(reason) => {
                        let change = state.health.failed(now, &reason);
                        if change.is_some() {
                            // It may be a connection whose other end is gone without a word.
                            self.opened.reset();
                        }
                        self.tell(change);
                        self.old_or_failed(state, question, now, reason)
                    }
                    Trouble::Busy(reason) => self.old_or_failed(state, question, now, reason),
                    Trouble::Entry(reason) => {
                        // The backend works.
                        self.tell(state.health.answered(now));
                        self.log_entry(state, question, &reason, now);
                        Said::Wrong(reason)
                    }
                }
            }
        }
    }

    /// What was found before, if it may still be given. "Not found" may not: it would turn mail away for good.
    fn old_or_failed(&self, state: &mut State, question: &Question, now: Instant, reason: String) -> Said {
        if question.service.may_be_stale()
            && let Some(kept) = state.cache.get(question)
            && let Some(value) = &kept.value
            && now.saturating_duration_since(kept.at) < self.declared.stale
        {
            let said = says(Some(value.clone()), now.saturating_duration_since(kept.at));
            state.counts.tally.stale += 1;
            return said;
        }
        Said::Failed(reason)
    }

    fn log_entry(&self, state: &mut State, question: &Question, reason: &str, now: Instant) {
        if state.entry_logged.is_some_and(|at| now.saturating_duration_since(at) < ENTRY_LOG) {
            state.entry_left_out += 1;
            return;
        }
        state.entry_logged = Some(now);
        (self.events)(&Event::BadEntry {
            table: self.declared.name.clone(),
            service: question.service,
            key: question.key.clone(),
            reason: reason.to_owned(),
            more: std::mem::take(&mut state.entry_left_out),
        });
    }

    fn tell(&self, change: Option<Change>) {
        let table = self.declared.name.clone();
        match change {
            None => {}
            Some(Change::Fails(reason)) => {
                (self.events)(&Event::Fails { table, backend: self.declared.backend.to_string(), reason });
            }
            Some(Change::Works(after)) => (self.events)(&Event::Works { table, after }),
        }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().expect("nobody panics with it")
    }
}

fn says(value: Option<String>, age: Duration) -> Said {
    value.map_or(Said::NotFound { age }, |text| Said::Found { text, age })
}

/// A question on its way. However it ends, those who wait are told.
struct Flight {
    table: Arc<Table>,
    question: Question,
}

impl Flight {
    async fn run(self) {
        let looked = self.table.ask(&self.question).await;
        let said = self.table.settle(&self.question, looked, Instant::now());
        for waiting in self.land() {
            // Who has gone away needs no answer.
            let _ = waiting.send(said.clone());
        }
    }

    fn land(&self) -> Vec<oneshot::Sender<Said>> {
        self.table.state().flights.remove(&self.question).unwrap_or_default()
    }
}

impl Drop for Flight {
    fn drop(&mut self) {
        // Empty, unless it was broken off: then their senders end with this, and they hear that it was lost.
        drop(self.land());
    }
}
