//! The rings between shards: one bounded single-producer ring for each ordered pair, and a shard's letters to itself.
//!
//! Each ring has a task on the reading side which moves its letters into one inbox. It is there because a glommio channel
//! stores another waker at every poll: one task that waits for all rings would pile them up on those that stay silent.

use std::cell::{Cell, RefCell};
use std::collections::VecDeque;
use std::future::{Future, poll_fn};
use std::io;
use std::pin::pin;
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::task::Poll;

use glommio::GlommioError;
use glommio::channels::shared_channel::{ConnectedSender, SharedReceiver, SharedSender, new_bounded};
use glommio::sync::Semaphore;

use super::RingRuntime;
use crate::{Class, Mesh, Runtime, Signal};

/// One shard's end of the mesh.
pub struct RingMesh<M: Send + 'static> {
    inner: Rc<Inner<M>>,
}

struct Inner<M: Send + 'static> {
    me: usize,
    peers: Vec<Peer<M>>,
    inbox: RefCell<VecDeque<(usize, M)>>,
    inbox_letters_max: usize,
    arrived: Signal,
    room: Signal,
    /// Rings from other shards that may still bring something, and one for ourselves.
    open: Cell<usize>,
    closed: Cell<bool>,
}

struct Peer<M: Send + 'static> {
    ring: RefCell<Ring<M>>,
    changed: Signal,
    /// Waiting for room is for one task at a time: the others wait for it.
    turn: Semaphore,
    /// Set by that shard when it reads no more. glommio does not end the wait for room of a ring nobody reads.
    deaf: Arc<AtomicBool>,
    /// What we set ourselves when we read no more.
    we_are_deaf: Arc<AtomicBool>,
}

enum Ring<M: Send + 'static> {
    Connecting,
    Open(Rc<ConnectedSender<M>>),
    Closed,
}

/// The ends of one shard, before it runs.
pub(super) struct Ends<M: Send + 'static> {
    me: usize,
    pairs: Vec<Option<Pair<M>>>,
    letters_max: usize,
}

struct Pair<M: Send + 'static> {
    sender: SharedSender<M>,
    receiver: SharedReceiver<M>,
    deaf: Arc<AtomicBool>,
    we_are_deaf: Arc<AtomicBool>,
}

/// Rings of `letters_max` letters between `shards` shards.
pub(super) fn ends<M: Send + 'static>(shards: usize, letters_max: usize) -> Vec<Ends<M>> {
    let mut ends: Vec<Ends<M>> =
        (0..shards).map(|me| Ends { me, pairs: (0..shards).map(|_| None).collect(), letters_max }).collect();
    for low in 0..shards {
        for high in low + 1..shards {
            let (up, up_end) = new_bounded(letters_max);
            let (down, down_end) = new_bounded(letters_max);
            let (deaf, we_are_deaf) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicBool::new(false)));
            ends[low].pairs[high] =
                Some(Pair { sender: up, receiver: down_end, deaf: deaf.clone(), we_are_deaf: we_are_deaf.clone() });
            ends[high].pairs[low] = Some(Pair { sender: down, receiver: up_end, deaf: we_are_deaf, we_are_deaf: deaf });
        }
    }
    ends
}

impl<M: Send + 'static> Ends<M> {
    /// Joins on the shard's own executor. Returns at once: letters wait for the other side.
    pub(super) fn join(self, runtime: &RingRuntime) -> RingMesh<M> {
        let mut pending = Vec::new();
        let peers = self.pairs.into_iter().enumerate().map(|(number, pair)| {
            let (deaf, we_are_deaf) = match pair {
                Some(pair) => {
                    pending.push((number, pair.sender, pair.receiver));
                    (pair.deaf, pair.we_are_deaf)
                }
                None => Default::default(),
            };
            Peer {
                ring: RefCell::new(Ring::Connecting),
                changed: Signal::new(),
                turn: Semaphore::new(1),
                deaf,
                we_are_deaf,
            }
        });
        let inner = Rc::new(Inner {
            me: self.me,
            peers: peers.collect(),
            inbox: RefCell::default(),
            inbox_letters_max: self.letters_max,
            arrived: Signal::new(),
            room: Signal::new(),
            open: Cell::new(1 + pending.len()),
            closed: Cell::new(false),
        });
        for (number, sender, receiver) in pending {
            let mesh = inner.clone();
            runtime.spawn(Class::Session, async move { mesh.connect(number, sender).await });
            let mesh = inner.clone();
            runtime.spawn(Class::Session, async move { mesh.forward(number, receiver).await });
        }
        RingMesh { inner }
    }
}

impl<M: Send + 'static> Inner<M> {
    async fn connect(&self, number: usize, sender: SharedSender<M>) {
        let sender = sender.connect().await;
        let peer = &self.peers[number];
        if !self.closed.get() {
            *peer.ring.borrow_mut() = Ring::Open(Rc::new(sender));
        }
        peer.changed.raise();
    }

    /// Moves letters from a ring to the inbox until the other side has closed.
    async fn forward(&self, from: usize, receiver: SharedReceiver<M>) {
        let receiver = receiver.connect().await;
        while let Some(letter) = receiver.recv().await {
            self.deliver(from, letter).await;
        }
        self.one_less();
    }

    async fn deliver(&self, from: usize, letter: M) {
        loop {
            let room = self.room.raised();
            if self.inbox.borrow().len() < self.inbox_letters_max {
                break;
            }
            room.await;
        }
        self.inbox.borrow_mut().push_back((from, letter));
        self.arrived.raise();
    }

    fn one_less(&self) {
        self.open.set(self.open.get() - 1);
        self.arrived.raise();
    }

    /// The way to a peer, once both sides are there.
    async fn sender(&self, to: usize) -> io::Result<Rc<ConnectedSender<M>>> {
        let peer = &self.peers[to];
        loop {
            let changed = peer.changed.raised();
            match &*peer.ring.borrow() {
                Ring::Open(sender) => return Ok(sender.clone()),
                Ring::Closed => return Err(gone()),
                Ring::Connecting => {}
            }
            changed.await;
        }
    }

    async fn send_to_peer(&self, to: usize, message: M) -> io::Result<()> {
        let peer = &self.peers[to];
        let sender = self.sender(to).await?;
        let _turn = peer.turn.acquire_permit(1).await.map_err(super::plain)?;
        let message = match sender.try_send(message) {
            Ok(()) => return Ok(()),
            Err(GlommioError::WouldBlock(glommio::ResourceType::Channel(message))) => message,
            Err(_) => return Err(gone()),
        };
        let mut sending = pin!(sender.send(message));
        poll_fn(|context| {
            if peer.deaf.load(Ordering::Acquire) {
                return Poll::Ready(Err(gone()));
            }
            sending.as_mut().poll(context).map(|sent| sent.map_err(|_| gone()))
        })
        .await
    }
}

impl<M: Send + 'static> RingMesh<M> {
    /// The executor ends: tasks of this mesh that still wait will never run again, so the others must not wait for them.
    pub(super) fn leave(&self) {
        self.close();
        for peer in &self.inner.peers {
            peer.we_are_deaf.store(true, Ordering::Release);
        }
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
        self.inner.peers.len()
    }

    async fn send(&self, to: usize, message: M) -> io::Result<()> {
        if self.inner.closed.get() {
            return Err(gone());
        }
        if to == self.inner.me {
            self.inner.deliver(to, message).await;
            return Ok(());
        }
        self.inner.send_to_peer(to, message).await
    }

    async fn receive(&self) -> Option<(usize, M)> {
        let inner = &self.inner;
        loop {
            let arrived = inner.arrived.raised();
            let letter = {
                let mut inbox = inner.inbox.borrow_mut();
                let was_full = inbox.len() >= inner.inbox_letters_max;
                let letter = inbox.pop_front();
                drop(inbox);
                if was_full {
                    inner.room.raise();
                }
                letter
            };
            match letter {
                Some(letter) => return Some(letter),
                None if inner.open.get() == 0 => return None,
                None => arrived.await,
            }
        }
    }

    fn close(&self) {
        if self.inner.closed.replace(true) {
            return;
        }
        for peer in &self.inner.peers {
            if let Ring::Open(sender) = peer.ring.replace(Ring::Closed) {
                sender.close();
            }
            peer.changed.raise();
        }
        self.inner.one_less();
    }
}

fn gone() -> io::Error {
    io::Error::new(io::ErrorKind::BrokenPipe, "the shard at the other end is gone")
}
