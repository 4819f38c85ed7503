//! What sources that warm up may send: asked of the coordinator, which has the ledger of all shards, as the routes need it, and
//! given back where it is not used.

use std::rc::Rc;
use std::time::{Duration, Instant};

use ringpost_io::{Class, Runtime};
use ringpost_routes::{Allowed, Asking};

use crate::ask::Ask;
use crate::shard::{Shard, World};
use crate::{limits, outbound};

/// Asks for what the routes want to know; they go on with what they may meanwhile.
pub(crate) fn ask<W: World>(shard: &Rc<Shard<W>>) {
    if !shard.routes.borrow().has_asked() {
        return;
    }
    for asking in shard.routes.borrow_mut().take_asked() {
        let task_shard = shard.clone();
        shard.spawn_counted(Class::Delivery, async move {
            let answer = task_shard.runtime.timeout(limits::ALLOWED, task_shard.ask.allow(asking.clone())).await;
            let allowed = answer.unwrap_or_else(|| {
                tell(&task_shard);
                Allowed::Unknown("the ledger does not answer".into())
            });
            let now = task_shard.runtime.now();
            let until = until(&task_shard, &allowed, now);
            let woken = task_shard.routes.borrow_mut().allow(&asking, &allowed, until, now);
            woken.into_iter().for_each(|route| task_shard.idle.wake_all(route));
            outbound::open_connections(&task_shard);
        });
    }
}

/// The ledger does not answer: told once, and then not for a while, however many sites wait for it.
fn tell<W: World>(shard: &Shard<W>) {
    let now = shard.runtime.now();
    if shard.silence_told.get().is_none_or(|told| now >= told + limits::SILENCE_TOLD) {
        shard.silence_told.set(Some(now));
        shard.warn(
            "the ledger of warm-ups does not answer (is the disk of the state directory slow?); what warms up waits",
        );
    }
}

fn until<W: World>(shard: &Shard<W>, allowed: &Allowed, now: Instant) -> Instant {
    match allowed {
        Allowed::Some { until_ms, .. } | Allowed::Spent { until_ms, .. } => {
            now + Duration::from_millis(until_ms.saturating_sub(shard.runtime.unix_ms()))
        }
        Allowed::Freely | Allowed::Unknown(_) => now,
    }
}

/// Another configuration is in force: schedules may be others.
pub(crate) fn begin_anew<W: World>(shard: &Rc<Shard<W>>) {
    let unused = unused(shard);
    if !unused.is_empty() {
        let task_shard = shard.clone();
        shard.spawn_counted(Class::Delivery, async move { task_shard.ask.give_back(unused).await });
    }
}

/// The shard ends: the next one may use what this one has not.
pub(crate) async fn end<W: World>(shard: &Shard<W>) {
    let unused = unused(shard);
    if !unused.is_empty() {
        // Without an answer the day has so many less.
        shard.runtime.timeout(limits::GIVE_BACK, shard.ask.give_back(unused)).await;
    }
}

fn unused<W: World>(shard: &Shard<W>) -> Vec<Asking> {
    shard.routes.borrow_mut().give_back(shard.runtime.now())
}
