//! Letters that wait for room on a ring. The task that reads a shard's ring must never wait for another ring, or two
//! shards that write to each other would stand still for ever; so it puts its letters here, and one task for each
//! peer carries them off. Bounded by the messages that may be on their way ([`limits::FLIGHTS`](crate::limits::FLIGHTS)).

use std::cell::RefCell;
use std::collections::VecDeque;

use ringpost_io::{Mesh, Signal};

use crate::letter::Letter;

pub(crate) struct Outbox {
    peers: Vec<(RefCell<VecDeque<Letter>>, Signal)>,
}

impl Outbox {
    pub(crate) fn new(peers: usize) -> Self {
        Self { peers: (0..peers).map(|_| Default::default()).collect() }
    }

    pub(crate) fn post(&self, to: usize, letter: Letter) {
        let (letters, signal) = &self.peers[to];
        letters.borrow_mut().push_back(letter);
        signal.raise();
    }

    /// Carries letters to one peer, until that is gone (which happens only when the process ends).
    pub(crate) async fn carry(&self, mesh: &impl Mesh<Letter>, to: usize) {
        let (letters, signal) = &self.peers[to];
        loop {
            let more = signal.raised();
            let next = letters.borrow_mut().pop_front();
            match next {
                Some(letter) => {
                    if mesh.send(to, letter).await.is_err() {
                        return;
                    }
                }
                None => more.await,
            }
        }
    }
}
