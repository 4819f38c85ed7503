//! A committed or due message gets on its way: relay, local or discard. Also the loop that takes what is due out of the
//! queue, as long as there is room in the air.

use std::cell::{Cell, RefCell};
use std::rc::Rc;
use std::sync::Arc;
use std::time::{Duration, Instant};

use ringpost_address::{split_address, strip_extension};
use ringpost_conf::ActionKind;
use ringpost_conf::expand::Way;
use ringpost_io::{Class, Runtime, Signal};
use ringpost_queue::{Flags, MessageId, Stored, StoredAction, StoredEnvelope};
use ringpost_smtp::client::RemoteReply;

use crate::letter::{Delays, Outcome, Results};
use crate::local::{Addressee, Target};
use crate::settings::Settings;
use crate::shard::{Shard, World};
use crate::target::{self, Aim};
use crate::{limits, local, resolve, settle};

/// A message whose envelopes are claimed: in memory, and nobody else's to deliver.
pub(crate) struct Fresh {
    pub(crate) id: MessageId,
    pub(crate) received_ms: u64,
    pub(crate) sender: String,
    /// The tag of the session that it came by.
    pub(crate) tag: String,
    pub(crate) envelopes: Rc<[Envelope]>,
    pub(crate) flags: Flags,
    pub(crate) body_bytes: u64,
    pub(crate) body: Option<Arc<[u8]>>,
}

/// One delivery of a message.
#[derive(Clone)]
pub(crate) struct Envelope {
    /// Its place in the message.
    pub(crate) index: u16,
    /// Whom it is for.
    pub(crate) recipient: String,
    /// The forward-path that has led to it, if that is another one.
    pub(crate) original: Option<String>,
    /// Number of the action in the configuration that the message is dispatched with; `None`: it is there no longer.
    pub(crate) action: Option<usize>,
    pub(crate) way: Way,
    /// Attempts before this one.
    pub(crate) attempts: u16,
}

impl Envelope {
    /// A fresh one, for what the forward-path `path` has become.
    pub(crate) fn new(index: u16, recipient: &str, path: &str, action: Option<usize>, way: Way) -> Self {
        let original = (recipient != path).then(|| path.to_owned());
        Self { index, recipient: recipient.to_owned(), original, action, way, attempts: 0 }
    }

    /// One that was read back. `None`: how it is made cannot be read.
    fn of_stored(stored: StoredEnvelope, settings: &Settings) -> Option<Self> {
        let action = match &stored.action {
            StoredAction::Reference(reference) => settings.outlines.find(reference),
            StoredAction::Number(number) => Some(usize::from(*number)),
        };
        Some(Self {
            index: stored.index,
            recipient: stored.recipient,
            original: (!stored.original.is_empty()).then_some(stored.original),
            action: action.filter(|action| *action < settings.config.actions.len()),
            way: Way::parse(&stored.way)?,
            attempts: stored.attempts,
        })
    }

    /// For whom it is, as local delivery wants to know.
    fn addressee(&self, delimiter: char) -> Addressee<'_> {
        let (local, _) = split_address(&self.recipient).unwrap_or((&self.recipient, ""));
        let extension =
            strip_extension(local, delimiter).map_or("", |name| &local[name.len() + delimiter.len_utf8()..]);
        Addressee { index: self.index, recipient: &self.recipient, original: self.original(), extension }
    }

    /// The forward-path that has led to it.
    pub(crate) fn original(&self) -> &str {
        self.original.as_deref().unwrap_or(&self.recipient)
    }
}

/// What must be remembered of a message while parts of it are in the air.
pub(crate) struct Flight {
    pub(crate) received_ms: u64,
    pub(crate) sender: String,
    pub(crate) flags: Flags,
    pub(crate) envelopes: Rc<[Envelope]>,
    /// The configuration that the numbers of actions belong to.
    pub(crate) settings: Rc<Settings>,
    /// Envelopes of which no result is known.
    pub(crate) open: usize,
    pub(crate) began: Instant,
    pub(crate) kept_bytes: usize,
}

impl Flight {
    /// Takes over the envelopes of a later flight of the same message.
    fn join(&mut self, later: Flight) {
        let is_new = |index: u16| later.envelopes.iter().any(|new| new.index == index);
        let mut envelopes: Vec<Envelope> = self.envelopes.iter().filter(|old| !is_new(old.index)).cloned().collect();
        if !Rc::ptr_eq(&self.settings, &later.settings) {
            // Their numbers are those of an older configuration: from now on they have no action of their own.
            envelopes.iter_mut().for_each(|old| old.action = None);
            self.settings = later.settings;
        }
        envelopes.extend(later.envelopes.iter().cloned());
        self.envelopes = envelopes.into();
        self.open += later.open;
        self.kept_bytes += later.kept_bytes;
    }
}

/// Sends a message on its way. Does not wait; what it cannot take now goes back to the queue. The numbers of its envelopes'
/// actions are those of `settings`.
pub(crate) fn dispatch<W: World>(shard: &Rc<Shard<W>>, settings: &Rc<Settings>, fresh: Fresh) {
    let in_air = shard.flights.borrow().len();
    let bytes = fresh.body.as_ref().map_or(0, |body| body.len());
    let crowded = in_air >= limits::FLIGHTS || shard.kept_bytes.get() + bytes > limits::KEPT_BODIES_BYTES;
    if crowded || shard.stopping.get() || settings.config.machinery.never_tries {
        let now_ms = shard.runtime.unix_ms();
        fresh.envelopes.iter().for_each(|envelope| shard.queue.release(fresh.id, envelope.index, now_ms));
        return;
    }
    shard.kept_bytes.set(shard.kept_bytes.get() + bytes);
    let flight = Flight {
        received_ms: fresh.received_ms,
        sender: fresh.sender.clone(),
        flags: fresh.flags,
        envelopes: fresh.envelopes.clone(),
        settings: settings.clone(),
        open: fresh.envelopes.len(),
        began: shard.runtime.now(),
        kept_bytes: bytes,
    };
    take_off(shard, fresh.id, flight);
    let fresh = Rc::new(fresh);
    let mut relays: Vec<(usize, Vec<(u16, &str)>)> = Vec::new();
    for envelope in fresh.envelopes.iter() {
        let kind = envelope.action.and_then(|number| settings.config.actions.get(number)).map(|action| &action.kind);
        match (kind, &envelope.way, envelope.action) {
            (Some(ActionKind::Discard), Way::Address, _) => {
                finish_at_once(shard, &fresh, envelope.index, "discard", Outcome::Delivered(discarded()));
            }
            (Some(ActionKind::Relay(_)), Way::Address, Some(number)) => {
                match relays.iter_mut().find(|(of, _)| *of == number) {
                    Some((_, list)) => list.push((envelope.index, &envelope.recipient)),
                    None => relays.push((number, vec![(envelope.index, &envelope.recipient)])),
                }
            }
            _ => deliver(shard, settings, &fresh, envelope),
        }
    }
    for (number, recipients) in relays {
        resolve::route(shard, settings, &fresh, number, &recipients);
    }
}

/// Some envelopes of a message may be due again while others are still in the air; then both are one flight.
fn take_off<W: World>(shard: &Shard<W>, id: MessageId, flight: Flight) {
    let mut flights = shard.flights.borrow_mut();
    match flights.get_mut(&id.0) {
        Some(earlier) => earlier.join(flight),
        None => {
            flights.insert(id.0, flight);
            shard.queue.pin(id);
        }
    }
}

/// Mail that ends here.
fn deliver<W: World>(shard: &Rc<Shard<W>>, settings: &Settings, fresh: &Rc<Fresh>, envelope: &Envelope) {
    let delimiter = settings.config.smtp.sub_address_delimiter;
    match target::aim(settings, &shard.own, fresh, envelope) {
        Ok(Aim::Known(target)) => local::deliver(shard, fresh, envelope.addressee(delimiter), target),
        Ok(Aim::Store { host, port, recipient }) => {
            let (task, fresh, index) = (shard.clone(), fresh.clone(), envelope.index);
            shard.spawn_counted(Class::Delivery, async move {
                let Some(envelope) = fresh.envelopes.iter().find(|one| one.index == index) else { return };
                match resolve::store(&task, &host, port).await {
                    Ok(store) => {
                        let target = Target::Lmtp { store, recipient };
                        local::deliver(&task, &fresh, envelope.addressee(delimiter), target);
                    }
                    Err(outcome) => finish_at_once(&task, &fresh, index, &host, outcome),
                }
            });
        }
        Err(reply) => finish_at_once(shard, fresh, envelope.index, "none", Outcome::Transient(reply)),
    }
}

fn finish_at_once<W: World>(shard: &Rc<Shard<W>>, fresh: &Fresh, index: u16, via: &str, outcome: Outcome) {
    settle::settle(
        shard,
        Results {
            message: fresh.id.0,
            recipients: vec![(index, outcome)],
            remote: via.to_owned(),
            link: None,
            delays: Delays::default(),
        },
    );
}

fn discarded() -> RemoteReply {
    RemoteReply::local(250, (2, 0, 0), "discarded as configured")
}

/// Takes due envelopes out of the queue until the shard stops.
pub(crate) async fn due_loop<W: World>(shard: Rc<Shard<W>>) {
    while !shard.stopping.get() {
        let changed = shard.queue.due_changed();
        let (changed, landed, stop) = (changed.raised(), shard.landed.raised(), shard.stop.raised());
        let in_air = shard.flights.borrow().len();
        let room = limits::FLIGHTS.saturating_sub(in_air);
        let never_tries = shard.settings().config.machinery.never_tries;
        let has_room =
            !never_tries && room > limits::FLIGHTS / 8 && shard.kept_bytes.get() < limits::KEPT_BODIES_BYTES / 2;
        if has_room {
            let now_ms = shard.runtime.unix_ms();
            let claimed = shard.queue.claim_due(now_ms, room.min(limits::CLAIM));
            if !claimed.is_empty() {
                take_up(&shard, claimed).await;
                shard.runtime.yield_now().await;
                continue;
            }
        }
        let wait = match shard.queue.next_due() {
            Some(due_ms) if has_room => Duration::from_millis(due_ms.saturating_sub(shard.runtime.unix_ms()).max(1)),
            _ => limits::DUE_WAIT,
        };
        let woken = futures_lite::future::or(futures_lite::future::or(changed, landed), stop);
        shard.runtime.timeout(wait.min(limits::DUE_WAIT), woken).await;
    }
}

/// Reads claimed messages back from the journal, several at a time, and dispatches them.
async fn take_up<W: World>(shard: &Rc<Shard<W>>, claimed: Vec<(MessageId, Vec<u16>)>) {
    let work = Rc::new(RefCell::new(claimed.into_iter()));
    let done = Rc::new((Cell::new(limits::LOAD_READERS), Signal::new()));
    for _ in 0..limits::LOAD_READERS {
        let (shard_of_task, work, done) = (shard.clone(), work.clone(), done.clone());
        shard.spawn_counted(Class::Delivery, async move {
            loop {
                let Some((id, indexes)) = work.borrow_mut().next() else { break };
                take_up_one(&shard_of_task, id, &indexes).await;
            }
            done.0.set(done.0.get() - 1);
            done.1.raise();
        });
    }
    loop {
        let raised = done.1.raised();
        if done.0.get() == 0 {
            return;
        }
        raised.await;
    }
}

async fn take_up_one<W: World>(shard: &Rc<Shard<W>>, id: MessageId, indexes: &[u16]) {
    match load(shard, id).await {
        Ok((stored, body)) => {
            let settings = shard.settings();
            let Stored { received_ms, flags, body_bytes, sender, tag, envelopes: stored, .. } = stored;
            let chosen = stored.into_iter().filter(|envelope| indexes.contains(&envelope.index));
            let mut envelopes = Vec::with_capacity(indexes.len());
            for stored in chosen {
                let index = stored.index;
                match Envelope::of_stored(stored, &settings) {
                    Some(envelope) => envelopes.push(envelope),
                    None => {
                        shard.warn(&format!("queue: cannot understand envelope {index} of message {id}; it is kept"));
                        let later = shard.runtime.unix_ms() + limits::UNREADABLE.as_millis() as u64;
                        shard.queue.release(id, index, later);
                    }
                }
            }
            if !envelopes.is_empty() {
                let envelopes = envelopes.into();
                let fresh = Fresh { id, received_ms, sender, tag, envelopes, flags, body_bytes, body };
                dispatch(shard, &settings, fresh);
            }
        }
        Err(error) => {
            shard.warn(&format!("queue: cannot read message {id}: {error}; trying again later"));
            let later = shard.runtime.unix_ms() + limits::UNREADABLE.as_millis() as u64;
            indexes.iter().for_each(|index| shard.queue.release(id, *index, later));
        }
    }
}

async fn load<W: World>(
    shard: &Shard<W>,
    id: MessageId,
) -> Result<(Stored, Option<Arc<[u8]>>), ringpost_queue::ReadError> {
    let (stored, text) = shard.queue.load_with_text(id, limits::TRAVELLING_BODY_BYTES as u32).await?;
    Ok((stored, text.map(Arc::from)))
}

/// The time that a message of this action may stay queued.
pub(crate) fn ttl(settings: &Settings, action: Option<usize>) -> Duration {
    let own = action.and_then(|action| settings.config.actions.get(action)).map(|action| action.ttl);
    own.unwrap_or(settings.config.queue.ttl)
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use ringpost_conf::{Config, Quickstart};

    use super::*;

    fn flight(settings: &Rc<Settings>, indexes: &[u16], attempts: u16) -> Flight {
        let envelope = |index: &u16| Envelope {
            attempts,
            ..Envelope::new(*index, "b@sink.example", "b@sink.example", Some(0), Way::Address)
        };
        Flight {
            received_ms: 1,
            sender: String::new(),
            flags: Flags::default(),
            envelopes: indexes.iter().map(envelope).collect(),
            settings: settings.clone(),
            open: indexes.len(),
            began: Instant::now(),
            kept_bytes: 10,
        }
    }

    #[test]
    fn a_later_flight_of_a_message_joins_the_one_in_the_air() {
        let config = || Arc::new(Config::quickstart(Path::new("state"), &Quickstart::default()));
        let settings = Rc::new(Settings::new(config(), &Default::default(), "host.example"));
        // Envelope 1 was refused for now, and is due again while 0 is still in the air.
        let mut both = flight(&settings, &[0, 1], 0);
        both.open = 1;
        both.join(flight(&settings, &[1, 2], 1));
        assert_eq!((both.open, both.kept_bytes), (3, 20));
        let known: Vec<(u16, u16, Option<usize>)> =
            both.envelopes.iter().map(|one| (one.index, one.attempts, one.action)).collect();
        assert_eq!(known, [(0, 0, Some(0)), (1, 1, Some(0)), (2, 1, Some(0))]);
        both.join(flight(&Rc::new(Settings::new(config(), &Default::default(), "host.example")), &[3], 0));
        let actions: Vec<Option<usize>> = both.envelopes.iter().map(|one| one.action).collect();
        assert_eq!(actions, [None, None, None, Some(0)], "numbers of a configuration that has been replaced");
    }
}
