//! A host with addresses of both families is reached at whichever answers first (RFC 8305): the preferred one has a start of
//! [`limits::ATTEMPT_DELAY`], or until it fails. Who comes second is closed before a word is said on it.

use std::pin::pin;
use std::rc::Rc;

use futures_lite::future::or;
use ringpost_io::Runtime;
use ringpost_routes::Place;

use crate::greet::{self, Connected, Goal, Turn, Unopened};
use crate::limits;
use crate::shard::{Shard, World};

/// One of the two addresses.
#[derive(Clone, Copy)]
pub(crate) struct Runner<'a> {
    pub(crate) goal: Goal<'a>,
    pub(crate) place: &'a Place,
}

/// How one of them has done.
pub(crate) enum Ended {
    /// It was not begun.
    Unneeded,
    /// There is no source of its family that could have another connection now.
    Nowhere,
    /// It has failed.
    Failed(Unopened),
    /// The other one was there first.
    Outrun,
    /// It is the one.
    Won,
}

/// What came of both.
pub(crate) struct Raced<W: World> {
    /// The connection, if there is one.
    pub(crate) connected: Option<Connected<W>>,
    /// How the preferred one has done, and the other one.
    pub(crate) ended: [Ended; 2],
}

/// Connects to both. The breaker is told who begins, and is to be told how each has done.
pub(crate) async fn run<W: World>(shard: &Rc<Shard<W>>, [preferred, other]: [Runner<'_>; 2]) -> Raced<W> {
    let begin = |runner: Runner<'_>| shard.breaker.borrow_mut().begin(runner.place, shard.runtime.now());
    let mut ended = [Ended::Outrun, Ended::Unneeded];
    let mut connected = None;
    let mut note = |lane: usize, result: Option<Result<Connected<W>, Unopened>>| {
        ended[lane] = match result {
            None => Ended::Nowhere,
            Some(Err(unopened)) => Ended::Failed(unopened),
            Some(Ok(one)) => {
                connected = Some(one);
                Ended::Won
            }
        };
        matches!(ended[lane], Ended::Won)
    };
    {
        begin(preferred);
        let mut first = pin!(greet::connect(shard, preferred.goal, &[], Turn::Only));
        match shard.runtime.timeout(limits::ATTEMPT_DELAY, first.as_mut()).await {
            Some(result) => {
                if !note(0, result) {
                    begin(other);
                    note(1, greet::connect(shard, other.goal, &[], Turn::Only).await);
                }
            }
            None => {
                begin(other);
                let mut second = pin!(greet::connect(shard, other.goal, &[], Turn::Beside));
                let (one, two) = (async { (0, first.as_mut().await) }, async { (1, second.as_mut().await) });
                let (lane, result) = or(one, two).await;
                if !note(lane, result) {
                    let rest = if lane == 0 { second.await } else { first.await };
                    note(1 - lane, rest);
                } else if lane == 0 {
                    ended[1] = Ended::Outrun;
                }
            }
        }
    }
    // The second one stands for the connection from now on, and the first one holds nothing any more.
    if let (Ended::Won, Some((_, source, hold))) = (&ended[1], &mut connected) {
        *hold = Some(shard.routes.borrow_mut().hold(other.goal.route, *source));
    }
    Raced { connected, ended }
}
