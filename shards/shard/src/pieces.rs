//! Pieces of large texts that are read for the routes that send them. A message for many sites is read once: who asks while a
//! piece is being read waits for it, and what was read is kept for the next one, as long as there is room and the message is
//! on its way.

use std::cell::RefCell;
use std::collections::{HashMap, VecDeque};
use std::rc::Rc;
use std::sync::Arc;

use futures_channel::oneshot;
use ringpost_perf::Counter;
use ringpost_queue::MessageId;

use crate::limits;
use crate::shard::{Shard, World};

/// A piece as rings carry it: nothing is copied.
pub(crate) type Piece = Arc<Vec<u8>>;

/// Message and place in its text.
type Key = (u64, u64);

/// What a shard has read of its own messages.
#[derive(Debug, Default)]
pub(crate) struct Pieces {
    known: RefCell<HashMap<Key, Known>>,
    /// Those that were read, oldest first.
    order: RefCell<VecDeque<Key>>,
    bytes: RefCell<usize>,
}

#[derive(Debug)]
enum Known {
    /// It is being read; these wait.
    Coming(Vec<oneshot::Sender<Option<Piece>>>),
    Read(Piece),
}

impl Pieces {
    /// The message is not on its way any more.
    pub(crate) fn forget(&self, message: u64) {
        self.order.borrow_mut().retain(|key| key.0 != message || !self.drop_piece(*key));
    }

    /// A piece that may be wanted again; the oldest make room for it.
    fn keep(&self, key: Key, piece: Piece) {
        if piece.len() > limits::KEPT_PIECES_BYTES {
            return;
        }
        let mut order = self.order.borrow_mut();
        while *self.bytes.borrow() + piece.len() > limits::KEPT_PIECES_BYTES
            && let Some(oldest) = order.pop_front()
        {
            self.drop_piece(oldest);
        }
        *self.bytes.borrow_mut() += piece.len();
        order.push_back(key);
        self.known.borrow_mut().insert(key, Known::Read(piece));
    }

    fn drop_piece(&self, key: Key) -> bool {
        let mut known = self.known.borrow_mut();
        let Some(Known::Read(piece)) = known.get(&key) else { return false };
        *self.bytes.borrow_mut() -= piece.len();
        known.remove(&key);
        true
    }
}

/// A piece of one of our messages. `None`: it cannot be read now, which has been said.
pub(crate) async fn read<W: World>(shard: &Rc<Shard<W>>, id: MessageId, at: u64, len: usize) -> Option<Piece> {
    let key = (id.0, at);
    let waits = {
        let mut known = shard.pieces.known.borrow_mut();
        match known.get_mut(&key) {
            Some(Known::Read(piece)) => return Some(piece.clone()),
            Some(Known::Coming(waiting)) => {
                let (answer, wait) = oneshot::channel();
                waiting.push(answer);
                Some(wait)
            }
            None => {
                known.insert(key, Known::Coming(Vec::new()));
                None
            }
        }
    };
    if let Some(wait) = waits {
        return wait.await.ok().flatten();
    }
    shard.counters.add(Counter::BodyPieces, 1);
    let read = shard.queue.read_body(id, at, len).await;
    if let Err(error) = &read {
        shard.warn(&format!("queue: cannot read the text of message {id}: {error}"));
    }
    let piece = read.ok().map(Arc::new);
    let waiting = shard.pieces.known.borrow_mut().remove(&key);
    if let Some(Known::Coming(waiting)) = waiting {
        // Whoever has gone meanwhile does not want it any more.
        waiting.into_iter().for_each(|answer| drop(answer.send(piece.clone())));
    }
    let is_for_many = shard.flights.borrow().get(&id.0).is_some_and(|flight| flight.open > 1);
    if let Some(piece) = &piece
        && is_for_many
    {
        shard.pieces.keep(key, piece.clone());
    }
    piece
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_kept_is_bounded_and_forgotten_with_its_message() {
        let pieces = Pieces::default();
        let quarter = || Arc::new(vec![0; limits::KEPT_PIECES_BYTES / 4]);
        (0..3).for_each(|at| pieces.keep((1, at), quarter()));
        (0..3).for_each(|at| pieces.keep((2, at), quarter()));
        let mut known: Vec<Key> = pieces.known.borrow().keys().copied().collect();
        known.sort_unstable();
        assert_eq!(known, [(1, 2), (2, 0), (2, 1), (2, 2)], "the oldest have made room");
        pieces.forget(2);
        assert_eq!((pieces.known.borrow().len(), *pieces.bytes.borrow()), (1, limits::KEPT_PIECES_BYTES / 4));
        pieces.forget(1);
        assert_eq!((pieces.order.borrow().len(), *pieces.bytes.borrow()), (0, 0));
        pieces.keep((3, 0), Arc::new(vec![0; limits::KEPT_PIECES_BYTES + 1]));
        assert!(pieces.known.borrow().is_empty(), "too large to be kept");
    }
}
