//! Mail that ends here: Maildirs of virtual users on the shard's own ring (`maildir.rs`), mailboxes and programs of system
//! users by way of the supervisor (`handed.rs`), mail stores by LMTP (`lmtp.rs`). Each of the three has its own bound, and
//! within it mailboxes, users and stores take turns (`turns.rs`): a program that hangs delays no Maildir. What waits for its
//! turn behind one that hangs is given up when its time is over, as it is at a route.

mod handed;
mod lmtp;
mod maildir;
mod text;
mod turns;

use std::cell::{Cell, RefCell};
use std::collections::HashMap;
use std::path::PathBuf;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Instant;

use ringpost_conf::Machinery;
use ringpost_io::{Class, Runtime};
use ringpost_message::{headers, spam};
use ringpost_perf::Stage;
use ringpost_queue::{Flags, MessageId};

pub use self::lmtp::Store;
use self::turns::{Bounds, Turns};
use crate::dispatch::{self, Fresh};
use crate::handover::{How, UserRecord};
use crate::letter::{Delays, Outcome, Results};
use crate::shard::{Shard, World};
use crate::{limits, settle};

/// Where one recipient's copy goes: what the action says, with everything expanded.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Target {
    /// A Maildir of this server's own user.
    Maildir {
        /// The directory.
        dir: PathBuf,
        /// What a filter has marked as spam goes to its folder `.Junk`.
        junk: bool,
    },
    /// As another user; of a Maildir its `junk` says whether spam is to be told apart.
    User {
        /// Who.
        user: UserRecord,
        /// How.
        how: How,
    },
    /// To a mail store.
    Lmtp {
        /// Where it is.
        store: Store,
        /// The address that is told to it.
        recipient: String,
    },
}

/// Whose copy it is.
#[derive(Clone, Copy, Debug)]
pub struct Addressee<'a> {
    /// Index of the envelope.
    pub index: u16,
    /// The address after expansion.
    pub recipient: &'a str,
    /// The address of the RCPT command.
    pub original: &'a str,
    /// The sub-address of `recipient`, without its delimiter.
    pub extension: &'a str,
}

/// A delivery that waits for its turn, or has it.
pub(crate) struct Delivery {
    id: MessageId,
    index: u16,
    recipient: String,
    original: String,
    extension: String,
    sender: String,
    target: Target,
    received_ms: u64,
    /// If it still waits for its turn then, it is given up: in milliseconds since the epoch.
    until_ms: u64,
    /// When it came here.
    ready: Instant,
    flags: Flags,
    body_bytes: u64,
    body: Option<Arc<[u8]>>,
}

impl Delivery {
    /// Unique without asking anybody: an envelope is delivered by one shard only, and again only under its own name.
    fn copy_name(&self, hostname: &str) -> String {
        let host = hostname.replace(['/', ':'], "_");
        format!("{}.{}_{}.{host}", self.received_ms / 1000, self.id, self.index)
    }

    /// For the log: how, and as whom.
    fn via(&self) -> String {
        match &self.target {
            Target::Maildir { .. } => "maildir".into(),
            Target::User { user, how } => format!("{} as={}:{}", how.name(), user.uid, user.gid),
            Target::Lmtp { store, .. } => format!("lmtp:{store}"),
        }
    }
}

/// Local deliveries of a shard, by the way they go.
pub(crate) struct Locals {
    maildirs: RefCell<Turns<PathBuf, Delivery>>,
    known: maildir::Known,
    users: RefCell<Turns<(String, u32), Delivery>>,
    stores: RefCell<Turns<Store, Delivery>>,
    /// A task is about to look at the stores.
    stores_start: Cell<bool>,
    away: RefCell<HashMap<Store, lmtp::Away>>,
}

impl Default for Locals {
    fn default() -> Self {
        let bounds = |at_once, per_kind, bytes| Bounds { at_once, per_kind, bytes };
        Self {
            maildirs: RefCell::new(Turns::new(bounds(limits::MAILDIRS, limits::PER_MAILDIR, u64::MAX))),
            known: maildir::Known::default(),
            users: RefCell::new(Turns::new(bounds(limits::HANDED, limits::HANDED_PER_USER, limits::HANDED_BYTES))),
            stores: RefCell::new(Turns::new(bounds(limits::STORE_CONNECTIONS, limits::PER_STORE, u64::MAX))),
            stores_start: Cell::new(false),
            away: RefCell::default(),
        }
    }
}

impl Locals {
    /// The configuration is new. The supervisor keeps to `mda limit`; it must get as many as that allows.
    pub(crate) fn follow(&self, machinery: &Machinery) {
        let at_least = |bound: usize, limit: Option<u32>| bound.max(limit.map_or(0, |limit| limit as usize));
        let at_once = at_least(limits::HANDED, machinery.deliveries_max);
        let per_user = at_least(limits::HANDED_PER_USER, machinery.deliveries_per_user_max);
        self.users.borrow_mut().allow(at_once, per_user);
    }
}

/// Delivers when it is this delivery's turn.
pub(crate) fn deliver<W: World>(shard: &Rc<Shard<W>>, fresh: &Fresh, to: Addressee<'_>, target: Target) {
    let delivery = Delivery {
        id: fresh.id,
        index: to.index,
        recipient: to.recipient.to_owned(),
        original: to.original.to_owned(),
        extension: to.extension.to_owned(),
        sender: fresh.sender.clone(),
        target: target.clone(),
        received_ms: fresh.received_ms,
        until_ms: until_ms(shard, fresh.id, to.index),
        ready: shard.runtime.now(),
        flags: fresh.flags,
        body_bytes: fresh.body_bytes,
        body: fresh.body.clone(),
    };
    let (locals, bytes) = (&shard.locals, fresh.body_bytes);
    match target {
        Target::Maildir { dir, .. } => {
            locals.maildirs.borrow_mut().push(dir, bytes, delivery);
            start_maildirs(shard);
        }
        Target::User { user, .. } => {
            locals.users.borrow_mut().push((user.name, user.uid), bytes, delivery);
            start_users(shard);
        }
        Target::Lmtp { store, .. } => match lmtp::pause(shard, &store) {
            Some(outcome) => finish(shard, &delivery, outcome, Delays::default()),
            None => {
                locals.stores.borrow_mut().push(store, bytes, delivery);
                start_stores_soon(shard);
            }
        },
    }
}

/// How long an envelope in the air may wait for its turn here.
fn until_ms<W: World>(shard: &Shard<W>, id: MessageId, index: u16) -> u64 {
    let flights = shard.flights.borrow();
    let expiry_ms = flights.get(&id.0).and_then(|flight| {
        let envelope = flight.envelope(index)?;
        Some(dispatch::expiry_ms(&flight.settings, envelope.action, &envelope.recipient, flight.received_ms))
    });
    expiry_ms.map_or(u64::MAX, dispatch::until_ms)
}

/// Gives up what has waited for its turn until its time was over.
pub(crate) async fn sweep<W: World>(shard: &Rc<Shard<W>>) {
    let locals = &shard.locals;
    give_up_late(shard, &locals.maildirs).await;
    give_up_late(shard, &locals.users).await;
    give_up_late(shard, &locals.stores).await;
}

async fn give_up_late<W: World, K: Clone + Eq + std::hash::Hash>(
    shard: &Rc<Shard<W>>,
    turns: &RefCell<Turns<K, Delivery>>,
) {
    let kinds = turns.borrow().waiting();
    for kind in kinds {
        let (now_ms, now) = (shard.runtime.unix_ms(), shard.runtime.now());
        let is_late = |delivery: &Delivery| delivery.until_ms <= now_ms && now - delivery.ready >= limits::SWEEP;
        let late = turns.borrow_mut().take_late(&kind, is_late);
        late.iter().for_each(|delivery| finish(shard, delivery, Outcome::Untried, Delays::default()));
        shard.runtime.yield_now().await;
    }
}

fn start_maildirs<W: World>(shard: &Rc<Shard<W>>) {
    while let Some((dir, bytes, delivery)) = next(&shard.locals.maildirs) {
        let task = shard.clone();
        shard.spawn_counted(Class::Delivery, async move {
            if let Target::Maildir { dir, junk } = &delivery.target {
                timed(&task, &delivery, maildir::deliver(&task, &delivery, dir, *junk)).await;
            }
            task.locals.maildirs.borrow_mut().done(&dir, bytes);
            start_maildirs(&task);
        });
    }
}

fn start_users<W: World>(shard: &Rc<Shard<W>>) {
    while let Some((name, bytes, delivery)) = next(&shard.locals.users) {
        let task = shard.clone();
        shard.spawn_counted(Class::Delivery, async move {
            if let Target::User { user, how } = &delivery.target {
                timed(&task, &delivery, handed::deliver(&task, &delivery, user, how)).await;
            }
            task.locals.users.borrow_mut().done(&name, bytes);
            start_users(&task);
        });
    }
}

/// Not at once: the other recipients of the message come right behind, and go with it.
fn start_stores_soon<W: World>(shard: &Rc<Shard<W>>) {
    if !shard.locals.stores_start.replace(true) {
        let task = shard.clone();
        shard.spawn_counted(Class::Delivery, async move {
            task.locals.stores_start.set(false);
            start_stores(&task);
        });
    }
}

fn start_stores<W: World>(shard: &Rc<Shard<W>>) {
    while let Some((store, bytes, first)) = next(&shard.locals.stores) {
        let message = lmtp::gather(&mut shard.locals.stores.borrow_mut(), &store, first);
        let task = shard.clone();
        shard.spawn_counted(Class::Delivery, async move {
            lmtp::carry(&task, &store, message).await;
            task.locals.stores.borrow_mut().done(&store, bytes);
            start_stores(&task);
        });
    }
}

/// The borrow ends before the work begins.
fn next<K: Clone + Eq + std::hash::Hash, T>(turns: &RefCell<Turns<K, T>>) -> Option<(K, u64, T)> {
    turns.borrow_mut().next()
}

async fn timed<W: World>(shard: &Rc<Shard<W>>, delivery: &Delivery, work: impl Future<Output = Outcome>) {
    let began = shard.runtime.now();
    let outcome = if shard.stopping.get() { Outcome::Untried } else { work.await };
    let talk = shard.runtime.now() - began;
    shard.stages.record(Stage::Local, talk);
    finish(shard, delivery, outcome, Delays { talk, ..Delays::default() });
}

fn finish<W: World>(shard: &Rc<Shard<W>>, delivery: &Delivery, outcome: Outcome, delays: Delays) {
    let (message, recipients) = (delivery.id.0, vec![(delivery.index, outcome)]);
    settle::settle(
        shard,
        Results { message, recipients, remote: delivery.via(), site: None, link: None, delays, taken: None },
    );
}

/// Whether a filter has marked the message as spam. A text that cannot be read now is not looked at: it will not be
/// delivered now either.
async fn is_junk<W: World>(shard: &Shard<W>, delivery: &Delivery) -> bool {
    match &delivery.body {
        Some(body) => spam::is_marked(headers::of_message(body)),
        None => {
            let start = shard.queue.read_body(delivery.id, 0, limits::BOUNCED_HEADER_BYTES).await;
            start.is_ok_and(|start| spam::is_marked(headers::of_message(&start)))
        }
    }
}

#[cfg(test)]
mod tests;
