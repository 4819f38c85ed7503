//! Notices of delay (`delayed`, RFC 3464 §2.3.3): what waits for long is told to its sender, at each age of `bounce
//! warn-interval` once, by a message that goes through the same queue.
//!
//! Nothing is armed for them: a task walks the index of the queue, which knows when each envelope came and how far its sender
//! was told. So they cost no memory, come whatever an envelope waits for, and follow the configuration of the moment. Of
//! several ages that have passed, the last is told of. The notice is durable before that is noted: a crash between the
//! two repeats it.

use std::cell::{Cell, RefCell};
use std::collections::BTreeMap;
use std::rc::Rc;
use std::time::Duration;

use futures_channel::oneshot;
use ringpost_io::{Class, Runtime};
use ringpost_queue::{Flags, Listed, MessageId, Space, Status, Told};

use crate::bounce::{self, About, Ending};
use crate::dispatch;
use crate::limits;
use crate::settings::Settings;
use crate::shard::{Shard, World};

/// Tells until the shard stops.
pub(crate) async fn run<W: World>(shard: Rc<Shard<W>>) {
    while !shard.stopping.get() {
        let pause = round(&shard).await;
        let stop = shard.stop.raised();
        if !shard.stopping.get() {
            shard.runtime.timeout(pause, stop).await;
        }
    }
}

/// Looks at every envelope once; returns how long nothing more is to be told.
async fn round<W: World>(shard: &Rc<Shard<W>>) -> Duration {
    let settings = shard.settings();
    let ages = &settings.config.bounce.warn_after;
    // What comes meanwhile is not seen before the next round.
    let mut pause = ages.first().map_or(limits::NOTICE_LOOK_MAX, |first| limits::NOTICE_LOOK_MAX.min(*first));
    let (mut from, mut looked) = (None, 0);
    loop {
        // No notice would leave, or be taken.
        let is_taken = shard.queue.is_writing() && shard.queue.space() == Space::Enough;
        if !shard.queue.fires() || !is_taken {
            return limits::NOTICE_LOOK_MAX;
        }
        let now_ms = shard.runtime.unix_ms();
        let mut due: Vec<MessageId> = Vec::new();
        from = shard.queue.walk(from, limits::NOTICE_STEP, |listed| {
            if !waits(&listed) {
                return;
            }
            let told = told_at(&listed, listed.received_ms, ages, now_ms);
            let next = told.unwrap_or(listed.told).next(ages);
            if let (Some(next), Some(came_ms)) = (next, listed.received_ms) {
                pause =
                    pause.min((Duration::from_millis(came_ms) + next).saturating_sub(Duration::from_millis(now_ms)));
            }
            let is_meant = told.is_some() || listed.received_ms.is_none();
            if is_meant && due.last() != Some(&listed.id) {
                due.push(listed.id);
            }
        });
        if !due.is_empty() && !tell_all(shard, &settings, due).await {
            // The others would fail alike.
            return limits::BOUNCE_AGAIN;
        }
        if from.is_none() || shard.stopping.get() {
            return pause.max(limits::NOTICE_LOOK);
        }
        looked += limits::NOTICE_STEP;
        match looked % limits::NOTICE_MESSAGES {
            0 => shard.runtime.sleep(limits::NOTICE_LOOK).await,
            _ => shard.runtime.yield_now().await,
        }
    }
}

/// How far the sender of an envelope is to be told now, if that is further than he was. `received_ms` is what is known of it.
fn told_at(listed: &Listed, received_ms: Option<u64>, ages: &[Duration], now_ms: u64) -> Option<Told> {
    let age = Duration::from_millis(now_ms.saturating_sub(received_ms?));
    listed.told.due(ages, age).filter(|_| waits(listed))
}

/// Whether it is tried on: what an administrator has to release is not.
fn waits(listed: &Listed) -> bool {
    matches!(listed.state, Status::Waiting | Status::InFlight)
}

/// Tells of these messages, of several at once. False: something could not be written.
async fn tell_all<W: World>(shard: &Rc<Shard<W>>, settings: &Rc<Settings>, due: Vec<MessageId>) -> bool {
    let writers = limits::NOTICES_AT_ONCE.min(due.len());
    let (due, fine) = (Rc::new(RefCell::new(due.into_iter())), Rc::new(Cell::new(true)));
    let mut waiting = Vec::new();
    for _ in 0..writers {
        let (task, settings, due, fine) = (shard.clone(), settings.clone(), due.clone(), fine.clone());
        let (done, wait) = oneshot::channel::<()>();
        waiting.push(wait);
        shard.spawn_counted(Class::Background, async move {
            while !task.stopping.get() && fine.get() {
                let Some(id) = due.borrow_mut().next() else { break };
                if !tell(&task, &settings, id).await {
                    fine.set(false);
                }
            }
            // The round is no longer wanted when nobody waits.
            let _ = done.send(());
        });
    }
    for writer in waiting {
        // A writer that is gone has told all that it took.
        let _ = writer.await;
    }
    fine.get()
}

/// Tells the sender of a message of all its recipients that wait, and notes it. False: that could not be written.
async fn tell<W: World>(shard: &Rc<Shard<W>>, settings: &Settings, id: MessageId) -> bool {
    let stored = match shard.queue.load(id).await {
        Ok(stored) => stored,
        // What cannot be read now is looked at again in the next round.
        Err(_) => return true,
    };
    let (ages, now_ms) = (&settings.config.bounce.warn_after, shard.runtime.unix_ms());
    let is_told = !stored.sender.is_empty() && !stored.flags.contains(Flags::BOUNCE);
    let mut notes = Vec::new();
    let mut delayed: BTreeMap<u64, Vec<(Ending, Told)>> = BTreeMap::new();
    for listed in shard.queue.stand(id) {
        let Some(told) = told_at(&listed, Some(stored.begins_ms()), ages, now_ms) else { continue };
        let Some(envelope) = stored.envelopes.get(usize::from(listed.index)) else { continue };
        let action = dispatch::action_of(envelope, settings);
        let until_ms = dispatch::expiry_ms(settings, action, &envelope.recipient, stored.begins_ms());
        let ending = Ending::delayed(envelope, until_ms);
        // What is given up now, or has just been, has another report.
        let is_over = until_ms <= now_ms || shard.reporting.borrow().contains(&(id.0, listed.index));
        match is_told && !is_over && ending.is_wanted() {
            true => delayed.entry(until_ms).or_default().push((ending, told)),
            false => notes.push((listed.index, told)),
        }
    }
    let about = About::of_stored(&stored);
    // All of one notice wait until the same time; mostly there is one.
    for group in delayed.values() {
        let endings: Vec<&Ending> = group.iter().map(|(ending, _)| ending).collect();
        if !bounce::write(shard, &about, &endings).await {
            return false;
        }
        for (ending, told) in group {
            shard.queue.note(id, ending.index, *told).await;
        }
    }
    for (index, told) in notes {
        shard.queue.note(id, index, told).await;
    }
    true
}
