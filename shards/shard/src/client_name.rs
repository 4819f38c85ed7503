//! What a client is called, for `match from rdns`: asked of the coordinator when a rule needs it, and kept for its TTL. A name
//! counts only if it has the client's address, too; that the DNS fails is temporary.

use std::net::IpAddr;
use std::rc::Rc;
use std::time::{Duration, Instant};

use ringpost_conf::ReverseName;
use ringpost_conf::expand::Told;
use ringpost_io::Runtime;

use crate::ask::{Ask, NameAnswer};
use crate::limits;
use crate::shard::{Shard, World};

/// The name, if it is known already.
pub(crate) fn known<W: World>(shard: &Shard<W>, address: IpAddr) -> Option<Rc<NameAnswer>> {
    shard.client_names.get(shard.runtime.now(), &address)
}

/// As rules are told.
pub(crate) fn fact(known: Option<&NameAnswer>) -> ReverseName<'_> {
    match known {
        None => ReverseName::NotAsked,
        Some(NameAnswer::Known { name, .. }) => ReverseName::Known(name),
        Some(NameAnswer::None) => ReverseName::None,
        Some(NameAnswer::Temporary(_)) => ReverseName::Failed,
    }
}

/// The name, asked for if need be; by `deadline` at the latest.
pub(crate) async fn find<W: World>(shard: &Shard<W>, address: IpAddr, deadline: Instant) -> Told {
    let now = shard.runtime.now();
    let answer = match known(shard, address) {
        Some(answer) => answer,
        None => {
            let left = deadline.saturating_duration_since(now).max(Duration::from_millis(1));
            let asked = shard.runtime.timeout(left, shard.ask.client_name(address)).await;
            let answer = Rc::new(asked.unwrap_or_else(|| NameAnswer::Temporary("no answer in time".to_owned())));
            let ttl = match &*answer {
                NameAnswer::Known { ttl, .. } => (*ttl).clamp(limits::DNS_TTL_MIN, limits::DNS_TTL_MAX),
                NameAnswer::None => limits::DNS_NEGATIVE_TTL,
                NameAnswer::Temporary(_) => limits::DNS_FAILURE_TTL,
            };
            shard.client_names.keep(shard.runtime.now(), address, answer.clone(), ttl);
            answer
        }
    };
    match &*answer {
        NameAnswer::Known { name, .. } => Told::Found(name.clone()),
        NameAnswer::None => Told::NotFound,
        NameAnswer::Temporary(why) => Told::Failed(why.clone()),
    }
}
