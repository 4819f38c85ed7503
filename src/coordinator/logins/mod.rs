//! Logins of clients: whose turn it is (`pace.rs`), what a table or the system knows of the user, and whether the password
//! fits (`pool.rs`). A table that does not answer says nothing against anybody: that is *failed*, and not counted.

mod bearer;
mod pace;
mod pool;
mod scram;

use std::collections::HashMap;
use std::io;
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Instant;

use ringpost_conf::tables::{Credentials, Value, is_known_scheme};
use ringpost_shard::{Book, Login, Origin, Proceeding, Said, Verdict, claimed};
use ringpost_smtp::server::{Mechanism, Proof, Secret};
use tokio::sync::Semaphore;

use self::pace::{News, Pace, Place, Turn};
use self::pool::{Against, Pool};
use self::scram::{Bound, Scram};
use super::tables::{Service, Tables};
use crate::ipc::codec::Channel;
use crate::limits::{LOGIN_TURNED_AWAY, LOGINS};
use crate::passwords::{Checked, scram::Keys};

/// Judges logins.
pub struct Logins {
    pool: Pool,
    pace: Mutex<Pace>,
    places: Semaphore,
    /// A hash of each table, for users who are not in it: they cost as much time as those who are.
    samples: Mutex<HashMap<String, String>>,
    /// The system has not answered the last time: that is told once.
    system_fails: AtomicBool,
    warn: Box<dyn Fn(&str) + Send + Sync>,
}

/// What a login comes to, before it is counted.
enum Outcome {
    Right(String),
    Wrong,
    Failed(String),
}

/// A mechanism that is under way.
enum Underway {
    Scram(Box<Scram>),
    /// It has failed, and the client is told why before it hears so.
    Denied,
}

impl Logins {
    /// Starts so many threads that check passwords. `lane` leads to the system's users.
    ///
    /// # Errors
    /// A thread cannot be had.
    pub fn start(
        threads: usize,
        lane: Option<Channel>,
        warn: impl Fn(&str) + Send + Sync + 'static,
    ) -> io::Result<Self> {
        Ok(Self {
            pool: Pool::start(threads, lane)?,
            pace: Mutex::new(Pace::new()),
            places: Semaphore::new(LOGINS),
            samples: Mutex::default(),
            system_fails: AtomicBool::new(false),
            warn: Box::new(warn),
        })
    }

    /// Judges a login, or a step of one.
    pub async fn judge(&self, tables: &Tables, login: Login) -> Verdict {
        let Login { from, book, proof, binding, proceeding } = login;
        let Ok(_place) = self.places.try_acquire() else { return Verdict::Failed };
        match proof {
            Proof::Password { user, password } => {
                if let Some(verdict) = self.turned_away(from, &user).await {
                    return verdict;
                }
                let outcome = self.weigh(tables, book, &user, password).await;
                self.settle(from, &user, outcome)
            }
            Proof::First(mechanism @ (Mechanism::OAuthBearer | Mechanism::XOAuth2), text) => {
                self.bearer(tables, from, book, mechanism, text.reveal()).await
            }
            Proof::First(mechanism, text) => {
                let bound = Bound { binding, is_bound: mechanism == Mechanism::ScramSha256Plus };
                self.scram(tables, from, book, bound, text.reveal()).await
            }
            Proof::Next(text) => match proceeding.and_then(|state| state.0.downcast::<Underway>().ok()).map(|all| *all)
            {
                Some(Underway::Scram(scram)) => self.scram_ends(from, *scram, text.reveal()),
                Some(Underway::Denied) | None => Verdict::Refused,
            },
        }
    }

    /// Waits for its turn; the verdict if it will not have one.
    async fn turned_away(&self, from: Origin, user: &str) -> Option<Verdict> {
        let turn = self.pace().begin(Instant::now(), Place::of(from), user);
        match turn {
            Turn::Now => None,
            Turn::At(then) => {
                tokio::time::sleep_until(then.into()).await;
                None
            }
            Turn::Never => {
                tokio::time::sleep(LOGIN_TURNED_AWAY).await;
                Some(Verdict::TooMany)
            }
        }
    }

    async fn weigh(&self, tables: &Tables, book: Book, user: &str, password: Secret) -> Outcome {
        if let Book::Table { name, judges: true } = &book {
            return self.ask_judge(tables, name, user, password.reveal()).await;
        }
        if matches!(book, Book::System) {
            let checked = self.pool.check(password, Against::System(user.to_owned())).await;
            let did_fail = self.system_fails.swap(checked.is_err(), Ordering::Relaxed);
            return match checked {
                Ok(Checked::Right) => Outcome::Right(user.to_owned()),
                Ok(_) => Outcome::Wrong,
                Err(why) => {
                    if !did_fail {
                        (self.warn)(&format!("passwords of the system's users cannot be checked: {why}"));
                    }
                    Outcome::Failed(why)
                }
            };
        }
        let (entry, sample) = match self.entry(tables, book, user).await {
            Ok(found) => found,
            Err(why) => return Outcome::Failed(why),
        };
        let hash = entry.as_ref().map(|entry| entry.secret.reveal()).filter(|hash| is_known_scheme(hash));
        let (is_there, hash) = (hash.is_some(), hash.map_or(sample, str::to_owned));
        match self.pool.check(password, Against::Hash(hash)).await {
            Err(why) => Outcome::Failed(why),
            Ok(Checked::Right) if is_there => {
                Outcome::Right(entry.and_then(|entry| entry.user).unwrap_or_else(|| user.to_owned()))
            }
            Ok(Checked::Unusable(why)) if is_there => {
                (self.warn)(&format!("nobody can log in as {user:?}: its entry has {why}"));
                Outcome::Wrong
            }
            Ok(_) => Outcome::Wrong,
        }
    }

    /// What a table has of a user, and a hash for whoever it does not have.
    async fn entry(&self, tables: &Tables, book: Book, user: &str) -> Result<(Option<Credentials>, String), String> {
        let (entry, sample) = match book {
            Book::Entry { entry, sample } => (entry, sample.map(|hash| hash.reveal().to_owned())),
            Book::Table { name, .. } => {
                let keys = [user.to_owned()];
                let entry = match tables.lookup_first(&name, Service::Credentials, keys).await {
                    Said::Found { text, .. } => {
                        Some(Credentials::parse(&text).map_err(|error| format!("the entry is {error}"))?)
                    }
                    Said::NotFound { .. } => None,
                    Said::Failed(why) | Said::Wrong(why) => return Err(why),
                };
                let mut samples = self.samples.lock().expect("nobody panics with it");
                match &entry {
                    Some(entry) if is_known_scheme(entry.secret.reveal()) => {
                        samples.insert(name, entry.secret.reveal().to_owned());
                        (Some(entry.clone()), None)
                    }
                    _ => (entry, samples.get(&name).cloned()),
                }
            }
            Book::System => (None, None),
        };
        Ok((entry, sample.unwrap_or_else(|| NOBODY.to_owned())))
    }

    /// A backend that judges for itself.
    async fn ask_judge(&self, tables: &Tables, table: &str, user: &str, password: &str) -> Outcome {
        match tables.lookup_first(table, Service::Auth, [format!("{user}:{password}")]).await {
            Said::Found { .. } => Outcome::Right(user.to_owned()),
            Said::NotFound { .. } => Outcome::Wrong,
            Said::Failed(why) | Said::Wrong(why) => Outcome::Failed(why),
        }
    }

    /// Counts it, and tells an administrator what he should know.
    fn settle(&self, from: Origin, user: &str, outcome: Outcome) -> Verdict {
        let place = Place::of(from);
        match outcome {
            Outcome::Right(record) => {
                self.pace().accepted(place, user);
                Verdict::Accepted { user: record, last: None }
            }
            Outcome::Wrong => {
                let news = self.pace().refused(place, user);
                match news {
                    News::Failed => (self.warn)(&format!("login failed from={from} user={user:?}")),
                    News::Slowed => (self.warn)(&format!(
                        "logins slowed from={from} user={user:?}: too many have failed, and what follows is not logged"
                    )),
                    News::Nothing => {}
                }
                Verdict::Refused
            }
            // The table itself has told why, once.
            Outcome::Failed(why) => {
                self.pace().undo(place, user);
                tracing::debug!("a login cannot be judged: {why}");
                Verdict::Failed
            }
        }
    }

    async fn bearer(&self, tables: &Tables, from: Origin, book: Book, mechanism: Mechanism, text: &str) -> Verdict {
        let (Some(user), Some(token)) = (claimed(mechanism, text), bearer::token(text)) else {
            return Verdict::Refused;
        };
        if user.is_empty() || user.contains(|c: char| c == ':' || c.is_control()) || token.is_empty() {
            return Verdict::Refused;
        }
        if let Some(verdict) = self.turned_away(from, &user).await {
            return verdict;
        }
        let outcome = match &book {
            Book::Table { name, judges: true } => self.ask_judge(tables, name, &user, token).await,
            _ => Outcome::Wrong,
        };
        match self.settle(from, &user, outcome) {
            Verdict::Refused => Verdict::Challenge {
                text: bearer::DENIED.to_owned(),
                proceeding: Proceeding(Box::new(Underway::Denied)),
            },
            verdict => verdict,
        }
    }

    async fn scram(&self, tables: &Tables, from: Origin, book: Book, bound: Bound, text: &str) -> Verdict {
        let Some(user) = claimed(Mechanism::ScramSha256, text) else { return Verdict::Refused };
        if let Some(verdict) = self.turned_away(from, &user).await {
            return verdict;
        }
        let (entry, sample) = match self.entry(tables, book, &user).await {
            Ok(found) => found,
            Err(why) => return self.settle(from, &user, Outcome::Failed(why)),
        };
        let keys = entry.as_ref().and_then(|entry| Keys::parse(entry.secret.reveal()));
        let iterations = Keys::parse(&sample).map(|keys| keys.iterations);
        let record = entry.and_then(|entry| entry.user);
        match Scram::begin(text, user.clone(), record, keys, iterations, bound) {
            Some((scram, text)) => {
                Verdict::Challenge { text, proceeding: Proceeding(Box::new(Underway::Scram(Box::new(scram)))) }
            }
            None => self.settle(from, &user, Outcome::Wrong),
        }
    }

    fn scram_ends(&self, from: Origin, scram: Scram, text: &str) -> Verdict {
        let user = scram.user.clone();
        match scram.end(text) {
            Some((record, last)) => match self.settle(from, &user, Outcome::Right(record)) {
                Verdict::Accepted { user, .. } => Verdict::Accepted { user, last: Some(last) },
                verdict => verdict,
            },
            None => self.settle(from, &user, Outcome::Wrong),
        }
    }

    fn pace(&self) -> std::sync::MutexGuard<'_, Pace> {
        self.pace.lock().expect("nobody panics with it")
    }
}

/// As `ringpost hash` makes them, for a table that has shown nobody yet.
const NOBODY: &str =
    "$argon2id$v=19$m=19456,t=2,p=1$c29tZXNhbHRzb21lc2FsdA$CTFhFdXPJO1aFaMaO6Mm5c8y7cJHAph8ArZWb2GRPPc";

#[cfg(test)]
mod tests;
