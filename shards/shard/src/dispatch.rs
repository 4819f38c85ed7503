//! A committed or due message gets on its way: relay, local or discard. Also the loop that takes what is due out of the
//! queue, as long as there is room in the air.

use std::cell::{Cell, RefCell};
use std::rc::Rc;
use std::sync::Arc;
use std::time::{Duration, Instant};

use ringpost_address::{split_address, strip_extension};
use ringpost_conf::expand::Way;
use ringpost_conf::{ActionKind, Patience};
use ringpost_io::{Class, Runtime, Signal};
use ringpost_perf::Counter;
use ringpost_queue::{Flags, MessageId, ReadError, State, Stored, StoredAction, StoredEnvelope};
use ringpost_routes::sender_key;
use ringpost_smtp::client::RemoteReply;
use ringpost_smtp::dsn::{OfRecipient, orcpt_of};

use crate::letter::{Delays, Outcome, Results};
use crate::local::{Addressee, Target};
use crate::reason::Progress;
use crate::settings::Settings;
use crate::shard::{Shard, World};
use crate::stock::{Place, Room};
use crate::target::{self, Aim};
use crate::{limits, local, reason, resolve, settle};

/// A message whose envelopes are claimed: in memory, and nobody else's to deliver.
pub(crate) struct Fresh {
    pub(crate) id: MessageId,
    /// From when its time counts: it was received or, if that is later, released (RFC 4865).
    pub(crate) received_ms: u64,
    pub(crate) sender: String,
    /// The tag of the session that it came by.
    pub(crate) tag: String,
    /// The client's name for the transaction (ENVID, RFC 3461), as it was told; else empty.
    pub(crate) envid: String,
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
    /// What the sender wants to be told of it, as the queue keeps it; usually nothing.
    pub(crate) request: Box<str>,
    /// Attempts before this one.
    pub(crate) attempts: u16,
    /// How far it has come, and since when; since its flight began, if that is not known better.
    pub(crate) progress: Cell<(Progress, Option<Instant>)>,
}

impl Envelope {
    /// A fresh one, for what the forward-path `path` has become, of which `request` is to be told.
    pub(crate) fn new(
        index: u16,
        recipient: &str,
        (path, request): (&str, OfRecipient<'_>),
        action: Option<usize>,
        way: Way,
    ) -> Self {
        let original = (recipient != path).then(|| path.to_owned());
        Self {
            index,
            recipient: recipient.to_owned(),
            original,
            action,
            way,
            request: request.to_text().into_boxed_str(),
            attempts: 0,
            progress: Cell::new((Progress::Begun, None)),
        }
    }

    /// One that was read back. `Err`: how it is to be delivered cannot be read.
    #[allow(clippy::result_large_err)]
    fn of_stored(stored: StoredEnvelope, settings: &Settings) -> Result<Self, Self> {
        let way = Way::parse(&stored.way);
        let is_clear = way.is_some();
        let envelope = Self {
            index: stored.index,
            action: action_of(&stored, settings),
            recipient: stored.recipient,
            original: (!stored.original.is_empty()).then_some(stored.original),
            way: way.unwrap_or(Way::Address),
            request: stored.request.into_boxed_str(),
            attempts: stored.attempts,
            progress: Cell::new((Progress::Begun, None)),
        };
        if is_clear { Ok(envelope) } else { Err(envelope) }
    }

    /// For whom it is, as local delivery wants to know.
    fn addressee(&self, delimiter: char) -> Addressee<'_> {
        let (local, _) = split_address(&self.recipient).unwrap_or((&self.recipient, ""));
        let extension =
            strip_extension(local, delimiter).map_or("", |name| &local[name.len() + delimiter.len_utf8()..]);
        Addressee { index: self.index, recipient: &self.recipient, original: self.original(), extension }
    }

    /// What the sender wants to be told of it.
    pub(crate) fn request(&self) -> OfRecipient<'_> {
        OfRecipient::parse(&self.request)
    }

    /// What the next server is to know of that: also whom the sender has written to, where the address has changed since.
    pub(crate) fn request_onward(&self) -> Option<String> {
        let request = self.request();
        let orcpt = self.original.as_deref().filter(|_| request.orcpt.is_empty()).and_then(orcpt_of);
        let onward = OfRecipient { orcpt: orcpt.as_deref().unwrap_or(request.orcpt), ..request };
        (!onward.is_empty()).then(|| onward.to_text())
    }

    /// Whether it goes to another server.
    pub(crate) fn leaves(&self, settings: &Settings) -> bool {
        let kind = self.action.and_then(|action| settings.config.actions.get(action)).map(|action| &action.kind);
        matches!((kind, &self.way), (Some(ActionKind::Relay(_)), Way::Address))
    }

    /// The forward-path that has led to it.
    pub(crate) fn original(&self) -> &str {
        self.original.as_deref().unwrap_or(&self.recipient)
    }
}

/// Number of the action that a stored envelope was made for, if it is still there.
pub(crate) fn action_of(stored: &StoredEnvelope, settings: &Settings) -> Option<usize> {
    let action = match &stored.action {
        StoredAction::Reference(reference) => settings.outlines.find(reference),
        StoredAction::Number(number) => Some(usize::from(*number)),
    };
    action.filter(|action| *action < settings.config.actions.len())
}

/// What must be remembered of a message while parts of it are in the air.
pub(crate) struct Flight {
    pub(crate) received_ms: u64,
    pub(crate) sender: String,
    pub(crate) flags: Flags,
    /// As [`Fresh::envid`].
    pub(crate) envid: String,
    pub(crate) envelopes: Rc<[Envelope]>,
    /// The configuration that the numbers of actions belong to.
    pub(crate) settings: Rc<Settings>,
    /// Envelopes of which no result is known.
    pub(crate) open: usize,
    pub(crate) began: Instant,
    pub(crate) kept_bytes: usize,
}

impl Flight {
    fn of<W: World>(shard: &Shard<W>, settings: &Rc<Settings>, fresh: &Fresh) -> Self {
        Self {
            received_ms: fresh.received_ms,
            sender: fresh.sender.clone(),
            flags: fresh.flags,
            envid: fresh.envid.clone(),
            envelopes: fresh.envelopes.clone(),
            settings: settings.clone(),
            open: fresh.envelopes.len(),
            began: shard.runtime.now(),
            kept_bytes: fresh.body.as_ref().map_or(0, |body| body.len()),
        }
    }

    /// The envelope with this index; usually it stands there.
    pub(crate) fn envelope(&self, index: u16) -> Option<&Envelope> {
        let there = self.envelopes.get(usize::from(index)).filter(|of| of.index == index);
        there.or_else(|| self.envelopes.iter().find(|of| of.index == index))
    }

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
    let (in_air, bounds) = (in_air(shard), shard.stock.bounds());
    let bytes = fresh.body.as_ref().map_or(0, |body| body.len());
    if shard.stopping.get() || !shard.queue.fires() {
        let now_ms = shard.runtime.unix_ms();
        for envelope in fresh.envelopes.iter() {
            let expiry_ms = expiry_ms(settings, envelope.action, &envelope.recipient, fresh.received_ms);
            shard.queue.release(fresh.id, envelope.index, now_ms.min(expiry_ms));
        }
        return;
    }
    if in_air.messages >= bounds.messages || in_air.bytes + bytes > bounds.bytes {
        let now_ms = shard.runtime.unix_ms();
        let until = |envelope: &Envelope| expiry_ms(settings, envelope.action, &envelope.recipient, fresh.received_ms);
        // What has no time left is not set aside: it has its last attempt, or is given up at once.
        if fresh.envelopes.iter().all(|envelope| until(envelope) > now_ms) {
            let sender = sender_key(&fresh.sender, fresh.flags.priority());
            for envelope in fresh.envelopes.iter() {
                shard.queue.park(fresh.id, envelope.index, until(envelope));
                shard.stock.wait_for_room(Place::new(fresh.id, envelope.index, sender, fresh.body_bytes));
            }
            return;
        }
    }
    shard.kept_bytes.set(shard.kept_bytes.get() + bytes);
    take_off(shard, fresh.id, Flight::of(shard, settings, &fresh));
    let fresh = Rc::new(fresh);
    let mut relays: Vec<(usize, Vec<(u16, &str)>)> = Vec::new();
    for envelope in fresh.envelopes.iter() {
        let kind = envelope.action.and_then(|number| settings.config.actions.get(number)).map(|action| &action.kind);
        match (kind, &envelope.way, envelope.action) {
            (Some(ActionKind::Discard), Way::Address, _) => {
                finish_at_once(shard, &fresh, [envelope.index], "discard", &Outcome::Delivered(discarded()));
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

/// Sends a message on its way once those that became durable with it are answered: somebody waits for an answer, nobody for
/// this. Their sessions are ready already, and run before a task that is made now.
pub(crate) fn after_replies<W: World>(shard: &Rc<Shard<W>>, settings: &Rc<Settings>, fresh: Fresh) {
    let is_first = shard.accepted.borrow().is_empty();
    shard.accepted.borrow_mut().push_back((settings.clone(), fresh));
    if is_first {
        let task = shard.clone();
        shard.spawn_counted(Class::Session, async move {
            loop {
                let Some((settings, fresh)) = task.accepted.borrow_mut().pop_front() else { return };
                dispatch(&task, &settings, fresh);
                task.runtime.yield_now().await;
            }
        });
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
    reason::mark(shard, fresh.id, std::iter::once(envelope.index), Progress::Local, None);
    let delimiter = settings.config.smtp.sub_address_delimiter;
    match target::aim(settings, &shard.own, shard.near.as_deref(), fresh, envelope) {
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
                    Err(outcome) => finish_at_once(&task, &fresh, [index], &host, &outcome),
                }
            });
        }
        Err(reply) => finish_at_once(shard, fresh, [envelope.index], "none", &Outcome::Transient(reply)),
    }
}

fn finish_at_once<W: World>(
    shard: &Rc<Shard<W>>,
    fresh: &Fresh,
    indexes: impl IntoIterator<Item = u16>,
    via: &str,
    outcome: &Outcome,
) {
    settle::settle(
        shard,
        Results {
            message: fresh.id.0,
            recipients: indexes.into_iter().map(|index| (index, outcome.clone())).collect(),
            remote: via.to_owned(),
            site: None,
            link: None,
            delays: Delays::default(),
            taken: None,
        },
    );
}

fn discarded() -> RemoteReply {
    RemoteReply::local(250, (2, 0, 0), "discarded as configured")
}

/// What is on its way from this shard.
pub(crate) fn in_air<W: World>(shard: &Shard<W>) -> Room {
    Room { messages: shard.flights.borrow().len(), bytes: shard.kept_bytes.get() }
}

/// How many messages may still be taken up; 0: others have to land first. A sixteenth of the room is left to new mail.
pub(crate) fn room<W: World>(shard: &Shard<W>) -> usize {
    let (in_air, bounds) = (in_air(shard), shard.stock.bounds());
    let free = bounds.messages.saturating_sub(in_air.messages);
    match free > bounds.messages / 16 && in_air.bytes < bounds.bytes / 16 * 15 {
        true => free,
        false => 0,
    }
}

/// Takes what is due out of the queue, and what has waited for its route, until the shard stops.
pub(crate) async fn due_loop<W: World>(shard: Rc<Shard<W>>) {
    while !shard.stopping.get() {
        let changed = shard.queue.due_changed();
        let (changed, landed, stop) = (changed.raised(), shard.landed.raised(), shard.stop.raised());
        let settings = shard.settings();
        let fires = shard.queue.fires();
        let room = if fires { room(&shard) } else { 0 };
        let now_ms = shard.runtime.unix_ms();
        let at_once = settings.at_once.min(room);
        let mut claimed = Vec::new();
        if at_once > 0 {
            claimed = shard.stock.next(at_once, in_air(&shard), |id, index| shard.queue.unpark(id, index));
            claimed.extend(shard.queue.claim_due(now_ms, at_once));
        } else if fires {
            // There is no room; but nothing stays due for long without its deadline being watched: it is set aside.
            let overdue_ms = now_ms.saturating_sub(limits::OVERDUE.as_millis() as u64);
            claimed = shard.queue.claim_due(overdue_ms, settings.at_once);
        }
        let is_empty = claimed.is_empty();
        if !is_empty {
            take_up(&shard, claimed).await;
            shard.runtime.yield_now().await;
            if at_once > 0 {
                continue;
            }
        }
        let wait = match shard.queue.next_due() {
            _ if !is_empty => limits::OVERDUE_LOOK,
            Some(due_ms) if at_once > 0 => Duration::from_millis(due_ms.saturating_sub(now_ms).max(1)),
            Some(due_ms) if fires => limits::OVERDUE.max(Duration::from_millis(due_ms.saturating_sub(now_ms))),
            _ => limits::DUE_WAIT,
        };
        let woken = futures_lite::future::or(futures_lite::future::or(changed, landed), stop);
        shard.runtime.timeout(wait.min(limits::DUE_WAIT), woken).await;
    }
}

/// Reads claimed messages back from the journal, those that lie side by side together, and dispatches them.
async fn take_up<W: World>(shard: &Rc<Shard<W>>, claimed: Vec<(MessageId, Vec<u16>)>) {
    let runs = shard.queue.runs(claimed, limits::READ_BACK_BYTES as u32);
    let readers = limits::LOAD_READERS.min(runs.len());
    let ids: Vec<u64> = runs.iter().flatten().map(|(id, _)| id.0).collect();
    shard.reading.borrow_mut().extend(&ids);
    let work = Rc::new(RefCell::new(runs.into_iter()));
    let done = Rc::new((Cell::new(readers), Signal::new()));
    for _ in 0..readers {
        let (shard_of_task, work, done) = (shard.clone(), work.clone(), done.clone());
        shard.spawn_counted(Class::Delivery, async move {
            loop {
                let Some(run) = work.borrow_mut().next() else { break };
                take_up_run(&shard_of_task, run).await;
            }
            done.0.set(done.0.get() - 1);
            done.1.raise();
        });
    }
    loop {
        let raised = done.1.raised();
        if done.0.get() == 0 {
            let mut reading = shard.reading.borrow_mut();
            for id in &ids {
                reading.remove(id);
            }
            return;
        }
        raised.await;
    }
}

async fn take_up_run<W: World>(shard: &Rc<Shard<W>>, run: Vec<(MessageId, Vec<u16>)>) {
    let ids: Vec<MessageId> = run.iter().map(|(id, _)| *id).collect();
    let loaded = shard.queue.load_run(&ids, limits::READ_BACK_BYTES as u32).await;
    for (number, ((id, indexes), loaded)) in run.into_iter().zip(loaded).enumerate() {
        match loaded {
            Ok((stored, body)) => take_up_one(shard, (id, &indexes), stored, Ok(body)),
            Err(error) => unreadable(shard, id, &indexes, &error).await,
        }
        if number % limits::TAKEN_UP_IN_TURN == limits::TAKEN_UP_IN_TURN - 1 {
            shard.runtime.yield_now().await;
        }
    }
}

/// Dispatches these envelopes of a message, with its text if that was read; or has them fail for now, since it cannot be.
fn take_up_one<W: World>(
    shard: &Rc<Shard<W>>,
    (id, indexes): (MessageId, &[u16]),
    stored: Stored,
    text: Result<Option<Arc<[u8]>>, Outcome>,
) {
    // Whoever has made it due: an administrator who has all tried again, or a clock.
    if let Some(at_ms) = stored.release_ms.filter(|at_ms| *at_ms > shard.runtime.unix_ms()) {
        return indexes.iter().for_each(|index| shard.queue.release(id, *index, at_ms));
    }
    let settings = shard.settings();
    let received_ms = stored.begins_ms();
    let Stored { flags, body_bytes, sender, tag, envid, envelopes: stored, .. } = stored;
    let chosen = stored.into_iter().filter(|envelope| indexes.contains(&envelope.index));
    let (mut envelopes, mut unclear) = (Vec::with_capacity(indexes.len()), Vec::new());
    for stored in chosen {
        match Envelope::of_stored(stored, &settings) {
            Ok(envelope) => envelopes.push(envelope),
            Err(envelope) => unclear.push(envelope),
        }
    }
    let fresh = |envelopes: Vec<Envelope>, body| {
        let (sender, tag, envid, envelopes) = (sender.clone(), tag.clone(), envid.clone(), envelopes.into());
        Fresh { id, received_ms, sender, tag, envid, envelopes, flags, body_bytes, body }
    };
    if !unclear.is_empty() {
        let outcome = Outcome::unreadable("how it is to be delivered is written in a way that is not known here");
        fail(shard, &settings, &fresh(unclear, None), &outcome);
    }
    if !envelopes.is_empty() {
        match text {
            Ok(body) => dispatch(shard, &settings, fresh(envelopes, body)),
            Err(outcome) => fail(shard, &settings, &fresh(envelopes, None), &outcome),
        }
    }
}

/// A message could not be read as a whole. What is known of it without its text says how long it may wait, and whom to tell;
/// without that it waits as long as any.
async fn unreadable<W: World>(shard: &Rc<Shard<W>>, id: MessageId, indexes: &[u16], error: &ReadError) {
    shard.warn(&format!("queue: cannot read message {id}: {error}"));
    match shard.queue.load(id).await {
        Ok(stored) => take_up_one(shard, (id, indexes), stored, Err(Outcome::unreadable(error))),
        Err(error) => {
            let (now_ms, longest) = (shard.runtime.unix_ms(), shard.settings().config.longest_ttl());
            let received_ms = shard.queue.stand(id).iter().find_map(|listed| listed.received_ms);
            let expiry_ms = received_ms.map(|at_ms| at_ms.saturating_add(longest.as_millis() as u64));
            let later_ms = now_ms + limits::UNREADABLE.as_millis() as u64;
            if expiry_ms.is_none_or(|expiry_ms| now_ms < expiry_ms) {
                let until_ms = expiry_ms.map_or(later_ms, |expiry_ms| later_ms.min(expiry_ms));
                return indexes.iter().for_each(|index| shard.queue.release(id, *index, until_ms));
            }
            shard.warn(&format!(
                "queue: MAIL IS LOST: message {id} is given up, and nobody can be told, for its sender and recipients cannot be \
                 read either: {error}"
            ));
            shard.counters.add(Counter::Failed, indexes.len() as u64);
            shard.counters.add(Counter::BouncesDropped, 1);
            indexes.iter().for_each(|index| shard.queue.settle(id, *index, State::Expired));
        }
    }
}

/// All envelopes of a message come to the same end, without an attempt.
fn fail<W: World>(shard: &Rc<Shard<W>>, settings: &Rc<Settings>, fresh: &Fresh, outcome: &Outcome) {
    take_off(shard, fresh.id, Flight::of(shard, settings, fresh));
    finish_at_once(shard, fresh, fresh.envelopes.iter().map(|envelope| envelope.index), "none", outcome);
}

/// How an envelope of this action to this recipient waits.
pub(crate) fn patience<'s>(settings: &'s Settings, action: Option<usize>, recipient: &str) -> Patience<'s> {
    settings.config.patience(action, split_address(recipient).map_or("", |(_, domain)| domain))
}

/// When such an envelope is given up, in milliseconds since the epoch.
pub(crate) fn expiry_ms(settings: &Settings, action: Option<usize>, recipient: &str, received_ms: u64) -> u64 {
    received_ms.saturating_add(patience(settings, action, recipient).ttl.as_millis() as u64)
}

/// When an envelope that still waits for its last attempt is given up without, in milliseconds since the epoch; but whatever
/// that is, it waits for [`limits::SWEEP`].
pub(crate) fn until_ms(expiry_ms: u64) -> u64 {
    expiry_ms.saturating_add(limits::LAST_ATTEMPT.as_millis() as u64)
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use ringpost_conf::{Config, Quickstart};

    use super::*;

    fn flight(settings: &Rc<Settings>, indexes: &[u16], attempts: u16) -> Flight {
        let envelope = |index: &u16| Envelope {
            attempts,
            ..Envelope::new(*index, "b@sink.example", ("b@sink.example", OfRecipient::default()), Some(0), Way::Address)
        };
        Flight {
            received_ms: 1,
            sender: String::new(),
            flags: Flags::default(),
            envid: String::new(),
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
        let settings = Rc::new(Settings::new(config(), &Default::default(), "host.example", 1));
        // Envelope 1 was refused for now, and is due again while 0 is still in the air.
        let mut both = flight(&settings, &[0, 1], 0);
        both.open = 1;
        both.join(flight(&settings, &[1, 2], 1));
        assert_eq!((both.open, both.kept_bytes), (3, 20));
        let known: Vec<(u16, u16, Option<usize>)> =
            both.envelopes.iter().map(|one| (one.index, one.attempts, one.action)).collect();
        assert_eq!(known, [(0, 0, Some(0)), (1, 1, Some(0)), (2, 1, Some(0))]);
        both.join(flight(&Rc::new(Settings::new(config(), &Default::default(), "host.example", 1)), &[3], 0));
        let actions: Vec<Option<usize>> = both.envelopes.iter().map(|one| one.action).collect();
        assert_eq!(actions, [None, None, None, Some(0)], "numbers of a configuration that has been replaced");
    }
}
