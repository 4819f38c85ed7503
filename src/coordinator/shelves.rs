//! The engine's side of certificates of tables: which names are known and until when, and who asks the supervisor for others.
//! A handshake waits for its own name alone.

use std::collections::{HashMap, VecDeque};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use futures_channel::oneshot;
use ringpost_conf::{Config, PkiSource};
use ringpost_tls::{Certificate, KeyId, Shelf, Signs};
use rustix::net::sockopt::{Timeout, set_socket_timeout};

use super::log::Log;
use super::signing;
use crate::ipc::codec::Channel;
use crate::ipc::shelf::{Found, Wanted};
use crate::limits::{CERTIFICATES_WAITING, LOOKUP_WAIT, NAMES_KNOWN};

/// All of them.
#[derive(Clone)]
pub struct Shelves(Arc<Room>);

struct Room {
    holder: Arc<dyn Signs>,
    by_pki: Mutex<HashMap<String, Place>>,
    known: Mutex<Known>,
    jobs: crossbeam::channel::Sender<Job>,
}

/// A `pki … from`.
#[derive(Clone)]
struct Place {
    shelf: Shelf,
    table: String,
    /// How long what was found is believed, and that there is nothing.
    believed: [Duration; 2],
}

/// Until when a name of a `pki` is known.
#[derive(Default)]
struct Known {
    until: HashMap<(String, String), Instant>,
    order: VecDeque<(String, String)>,
}

struct Job {
    pki: String,
    name: String,
    done: oneshot::Sender<()>,
}

impl Shelves {
    /// Empty ones. Each lane to the supervisor has a thread, which ends with it.
    ///
    /// # Errors
    /// A thread cannot be had.
    pub fn start(lanes: Vec<Channel>, log: &Log) -> std::io::Result<Self> {
        let (jobs, arriving) = crossbeam::channel::bounded::<Job>(CERTIFICATES_WAITING);
        let (by_pki, known) = (Mutex::default(), Mutex::default());
        let shelves = Self(Arc::new(Room { holder: signing::keyholder(), by_pki, known, jobs }));
        for lane in lanes {
            set_socket_timeout(&lane, Timeout::Recv, Some(LOOKUP_WAIT))?;
            let (shelves, arriving, log) = (shelves.clone(), arriving.clone(), log.clone());
            std::thread::Builder::new().name("certificates".into()).spawn(move || {
                for Job { pki, name, done } in arriving {
                    let going_on = shelves.work(&lane, &pki, &name, &log);
                    // The client may have given up.
                    let _ = done.send(());
                    if !going_on {
                        return;
                    }
                }
            })?;
        }
        Ok(shelves)
    }

    /// The shelf of each `pki` that is in a table.
    pub fn follow(&self, config: &Config) {
        let mut by_pki = lock(&self.0.by_pki);
        let before = std::mem::take(&mut *by_pki);
        for pki in &config.pkis {
            let PkiSource::Table(table) = &pki.source else { continue };
            let options = config.tables[table.0 as usize].options;
            let table = config.table_name(*table).to_owned();
            let shelf = before.get(&pki.name).filter(|place| place.table == table).map(|place| place.shelf.clone());
            let believed = [options.cache, options.negative];
            by_pki.insert(pki.name.clone(), Place { shelf: shelf.unwrap_or_default(), table, believed });
        }
        *lock(&self.0.known) = Known::default();
    }

    /// What is found for a `pki`.
    pub fn shelf(&self, pki: &str) -> Option<Shelf> {
        lock(&self.0.by_pki).get(pki).map(|place| place.shelf.clone())
    }

    /// The keyholder has been started again, and has no key of a table.
    pub fn forget(&self) {
        lock(&self.0.by_pki).values().for_each(|place| place.shelf.clear());
        *lock(&self.0.known) = Known::default();
    }

    /// Returns when all is known of a name that can be known of it now.
    pub async fn find(&self, pki: &str, name: &str) {
        let name = name.to_ascii_lowercase();
        if lock(&self.0.known).has(pki, &name, Instant::now()) {
            return;
        }
        let (done, wait) = oneshot::channel();
        // Where too many are asked for, what is known must do.
        if self.0.jobs.try_send(Job { pki: pki.to_owned(), name, done }).is_ok() {
            let _ = wait.await;
        }
    }

    /// False: the supervisor is gone, or does not answer in time, and then what it says is about something else.
    fn work(&self, lane: &Channel, pki: &str, name: &str, log: &Log) -> bool {
        // Another may have asked for the same meanwhile.
        if lock(&self.0.known).has(pki, name, Instant::now()) {
            return true;
        }
        let Some(Place { shelf, table, believed }) = lock(&self.0.by_pki).get(pki).cloned() else { return true };
        let wanted = Wanted { table: table.clone(), name: name.to_owned(), known: shelf.get(name) };
        let Ok(Some((found, _))) = lane.send(&wanted).and_then(|()| lane.receive::<Found>()) else { return false };
        let [found_for, nothing_for] = believed;
        let time = match found {
            Found::New { chain, key } => match Certificate::parse(chain) {
                Ok(certificate) => {
                    shelf.put(name, &certificate, KeyId(key), self.0.holder.clone());
                    found_for
                }
                Err(why) => {
                    log.warn(&format_args!("table <{table}>: the certificate of {name}: {why}"));
                    nothing_for
                }
            },
            Found::Same => found_for,
            Found::Nothing => {
                shelf.remove(name);
                nothing_for
            }
            // What is known stays: a table that fails is not one that has nothing.
            Found::Failed(why) => {
                log.warn(&format_args!("table <{table}>: the certificate of {name}: {why}"));
                nothing_for
            }
        };
        lock(&self.0.known).take(pki, name, Instant::now() + time);
        true
    }
}

impl Known {
    fn has(&self, pki: &str, name: &str, now: Instant) -> bool {
        self.until.get(&(pki.to_owned(), name.to_owned())).is_some_and(|until| *until > now)
    }

    fn take(&mut self, pki: &str, name: &str, until: Instant) {
        let key = (pki.to_owned(), name.to_owned());
        if self.until.insert(key.clone(), until).is_none() {
            self.order.push_back(key);
        }
        if self.order.len() > NAMES_KNOWN
            && let Some(oldest) = self.order.pop_front()
        {
            self.until.remove(&oldest);
        }
    }
}

fn lock<T>(mutex: &Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
