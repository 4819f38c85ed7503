//! Letters between shards: every shard has one mailbox, a bounded queue of crossbeam's, which all others write to.

use std::cell::RefCell;
use std::io;
use std::rc::Rc;

use crate::{Mailbox, Mesh, Sender};

/// A letter and the number of the shard that sent it.
type Letter<M> = (usize, M);

/// One shard's end of the mesh.
pub struct RingMesh<M: Send + 'static> {
    inner: Rc<Inner<M>>,
}

struct Inner<M: Send + 'static> {
    me: usize,
    peers: usize,
    /// Taken when this shard reads no more.
    inbox: RefCell<Option<Rc<Mailbox<Letter<M>>>>>,
    /// Ways to every shard, this one too; empty once it has closed.
    outboxes: RefCell<Vec<Sender<Letter<M>>>>,
}

/// The end of one shard, before it runs.
pub(super) struct End<M: Send + 'static> {
    me: usize,
    inbox: Mailbox<Letter<M>>,
    outboxes: Vec<Sender<Letter<M>>>,
}

/// Mailboxes of `letters_max` letters for `shards` shards.
pub(super) fn ends<M: Send + 'static>(shards: usize, letters_max: usize) -> Vec<End<M>> {
    let (outboxes, inboxes): (Vec<_>, Vec<_>) = (0..shards).map(|_| Mailbox::new(letters_max)).unzip();
    inboxes.into_iter().enumerate().map(|(me, inbox)| End { me, inbox, outboxes: outboxes.clone() }).collect()
}

impl<M: Send + 'static> End<M> {
    /// For the shard's own thread.
    pub(super) fn join(self) -> RingMesh<M> {
        let inner = Inner {
            me: self.me,
            peers: self.outboxes.len(),
            inbox: RefCell::new(Some(Rc::new(self.inbox))),
            outboxes: RefCell::new(self.outboxes),
        };
        RingMesh { inner: Rc::new(inner) }
    }
}

impl<M: Send + 'static> RingMesh<M> {
    /// The executor ends: nobody will read here again, and who waits for room is told.
    pub(super) fn leave(&self) {
        self.close();
        *self.inner.inbox.borrow_mut() = None;
    }
}

impl<M: Send + 'static> Clone for RingMesh<M> {
    fn clone(&self) -> Self {
        Self { inner: self.inner.clone() }
    }
}

impl<M: Send + 'static> Mesh<M> for RingMesh<M> {
    fn me(&self) -> usize {
        self.inner.me
    }

    fn peers(&self) -> usize {
        self.inner.peers
    }

    async fn send(&self, to: usize, message: M) -> io::Result<()> {
        let gone = || io::Error::new(io::ErrorKind::BrokenPipe, "the shard at the other end is gone");
        let outbox = self.inner.outboxes.borrow().get(to).cloned().ok_or_else(gone)?;
        outbox.send((self.inner.me, message)).await.map_err(|_| gone())
    }

    async fn receive(&self) -> Option<(usize, M)> {
        let inbox = self.inner.inbox.borrow().clone()?;
        inbox.receive().await
    }

    fn close(&self) {
        self.inner.outboxes.borrow_mut().clear();
    }
}
