//! The rings between simulated shards.

use std::cell::{Cell, RefCell};
use std::collections::VecDeque;
use std::io;
use std::rc::Rc;

use crate::{Mesh, Signal};

/// One simulated shard's end of the mesh.
pub struct SimMesh<M: 'static> {
    end: Rc<End<M>>,
}

struct End<M> {
    me: usize,
    shards: Rc<Vec<Shard<M>>>,
    letters_max: usize,
}

struct Shard<M> {
    inbox: RefCell<VecDeque<(usize, M)>>,
    /// Letters of each sender among them.
    waiting: RefCell<Vec<usize>>,
    arrived: Signal,
    room: Signal,
    /// Sends no more.
    closed: Cell<bool>,
    /// Reads no more.
    deaf: Cell<bool>,
}

/// The ends of a new mesh; a sender waits when `letters_max` of its letters to one shard are unread.
pub(super) fn ends<M: 'static>(shards: usize, letters_max: usize) -> Vec<SimMesh<M>> {
    let all = (0..shards).map(|_| Shard {
        inbox: RefCell::default(),
        waiting: RefCell::new(vec![0; shards]),
        arrived: Signal::new(),
        room: Signal::new(),
        closed: Cell::new(false),
        deaf: Cell::new(false),
    });
    let all = Rc::new(all.collect::<Vec<_>>());
    (0..shards).map(|me| SimMesh { end: Rc::new(End { me, shards: all.clone(), letters_max }) }).collect()
}

impl<M> End<M> {
    fn close(&self) {
        self.shards[self.me].closed.set(true);
        self.shards.iter().for_each(|shard| shard.arrived.raise());
    }
}

impl<M> Drop for End<M> {
    fn drop(&mut self) {
        self.close();
        let shard = &self.shards[self.me];
        shard.deaf.set(true);
        shard.room.raise();
    }
}

impl<M: 'static> Clone for SimMesh<M> {
    fn clone(&self) -> Self {
        Self { end: self.end.clone() }
    }
}

impl<M: 'static> Mesh<M> for SimMesh<M> {
    fn me(&self) -> usize {
        self.end.me
    }

    fn peers(&self) -> usize {
        self.end.shards.len()
    }

    async fn send(&self, to: usize, message: M) -> io::Result<()> {
        let end = &self.end;
        let shard = &end.shards[to];
        loop {
            let room = shard.room.raised();
            if end.shards[end.me].closed.get() || shard.deaf.get() {
                return Err(io::Error::new(io::ErrorKind::BrokenPipe, "the shard at the other end is gone"));
            }
            if shard.waiting.borrow()[end.me] < end.letters_max {
                break;
            }
            room.await;
        }
        shard.waiting.borrow_mut()[end.me] += 1;
        shard.inbox.borrow_mut().push_back((end.me, message));
        shard.arrived.raise();
        Ok(())
    }

    async fn receive(&self) -> Option<(usize, M)> {
        let shard = &self.end.shards[self.end.me];
        loop {
            let arrived = shard.arrived.raised();
            let letter = shard.inbox.borrow_mut().pop_front();
            if let Some((from, message)) = letter {
                shard.waiting.borrow_mut()[from] -= 1;
                shard.room.raise();
                return Some((from, message));
            }
            if self.end.shards.iter().all(|shard| shard.closed.get()) {
                return None;
            }
            arrived.await;
        }
    }

    fn close(&self) {
        self.end.close();
    }
}
