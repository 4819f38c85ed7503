//! The simulated network: TCP as programs see it. Bytes arrive late, in other pieces than they were sent in, and not at
//! all once a side is gone; buffers are bounded, so a reader that stops holds its writer back.

use std::cell::{Cell, RefCell};
use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::future::poll_fn;
use std::io;
use std::net::{IpAddr, SocketAddr};
use std::rc::{Rc, Weak};
use std::task::{Context, Poll, Waker};
use std::time::Duration;

use super::World;
use super::random::Random;
use super::scheduler::Owner;
use crate::{Credentials, Listener, Peer, Stream};

/// How the network behaves. The default is a good local one: no losses, but pieces and delays.
#[derive(Clone, Debug)]
pub struct NetFaults {
    /// Shortest and longest way of a segment, one way.
    pub latency: (Duration, Duration),
    /// Probability that a connection is refused though someone listens.
    pub refuse: f64,
    /// Probability that the first segment of a connection is lost, so that it takes another second, and again.
    pub lose_connect: f64,
    /// Probability, for each segment, that the connection is reset instead.
    pub reset: f64,
    /// Largest segment, in bytes; each is of random size up to that.
    pub segment_bytes_max: usize,
    /// Probability that a read gives less than is there.
    pub short_read: f64,
    /// Bytes under way and unread, in each direction, before a writer waits.
    pub buffer_bytes: usize,
}

impl Default for NetFaults {
    fn default() -> Self {
        Self {
            latency: (Duration::from_micros(50), Duration::from_millis(1)),
            refuse: 0.0,
            lose_connect: 0.0,
            reset: 0.0,
            segment_bytes_max: 16 << 10,
            short_read: 0.1,
            buffer_bytes: 128 << 10,
        }
    }
}

/// Connections that wait to be accepted; one more is not answered, and asks again.
const BACKLOG: usize = 128;
/// A segment that was lost comes after so long.
const RETRANSMIT: Duration = Duration::from_millis(200);
const CONNECT_AGAIN: Duration = Duration::from_secs(1);

pub(super) struct Net {
    pub(super) faults: RefCell<NetFaults>,
    random: RefCell<Random>,
    listeners: RefCell<BTreeMap<SocketAddr, Vec<Rc<Backlog>>>>,
    connections: RefCell<Vec<Weak<Connection>>>,
    cut: RefCell<BTreeSet<(usize, usize)>>,
    /// By how much longer the way between two nodes is.
    far: RefCell<BTreeMap<(usize, usize), Duration>>,
    next_port: Cell<u16>,
}

struct Backlog {
    owner: Owner,
    is_local: bool,
    waiting: RefCell<VecDeque<(SimStream, Peer)>>,
    acceptor: RefCell<Option<Waker>>,
}

struct Connection {
    world: Rc<World>,
    /// The side that has connected, and the one that has accepted.
    sides: [Side; 2],
    /// What each side has sent.
    pipes: [RefCell<Pipe>; 2],
}

struct Side {
    owner: Owner,
    /// Dropped, or its node has crashed.
    gone: Cell<bool>,
    /// Has learnt that the connection is no more.
    reset: Cell<bool>,
}

#[derive(Default)]
struct Pipe {
    under_way: VecDeque<Segment>,
    bytes_under_way: usize,
    last_due: Duration,
    arrived: VecDeque<u8>,
    finished: bool,
    reader: Option<Waker>,
    writer: Option<Waker>,
}

enum Segment {
    Bytes(Vec<u8>),
    End,
    Reset,
}

impl Net {
    pub(super) fn new(random: Random) -> Self {
        Self {
            faults: RefCell::default(),
            random: RefCell::new(random),
            listeners: RefCell::default(),
            connections: RefCell::default(),
            cut: RefCell::default(),
            far: RefCell::default(),
            next_port: Cell::new(FIRST_PORT),
        }
    }

    /// One way between two nodes; to nowhere, if there is no other.
    fn latency(&self, one: usize, other: Option<usize>) -> Duration {
        let (shortest, longest) = self.faults.borrow().latency;
        let far = other.and_then(|other| self.far.borrow().get(&(one.min(other), one.max(other))).copied());
        self.random.borrow_mut().between(shortest, longest) + far.unwrap_or_default()
    }

    fn chance(&self, probability: impl Fn(&NetFaults) -> f64) -> bool {
        let probability = probability(&self.faults.borrow());
        self.random.borrow_mut().chance(probability)
    }

    fn port(&self) -> u16 {
        let port = self.next_port.get();
        self.next_port.set(port.checked_add(1).unwrap_or(FIRST_PORT));
        port
    }

    pub(super) fn set_far(&self, one: usize, other: usize, by: Duration) {
        self.far.borrow_mut().insert((one.min(other), one.max(other)), by);
    }

    pub(super) fn cut(&self, one: usize, other: usize) {
        self.cut.borrow_mut().insert((one.min(other), one.max(other)));
    }

    pub(super) fn heal(&self, one: usize, other: usize) {
        self.cut.borrow_mut().remove(&(one.min(other), one.max(other)));
    }

    pub(super) fn heal_all(&self) {
        self.cut.borrow_mut().clear();
    }

    fn is_cut(&self, one: usize, other: usize) -> bool {
        self.cut.borrow().contains(&(one.min(other), one.max(other)))
    }

    /// Resets every connection of a node and closes its listeners.
    pub(super) fn crash(&self, node: usize) {
        let connections: Vec<_> = self.connections.borrow().iter().filter_map(Weak::upgrade).collect();
        for connection in connections {
            for side in [0, 1] {
                if connection.sides[side].owner.0 == node {
                    connection.leave(side, Segment::Reset);
                }
            }
        }
        let closed: Vec<_> =
            self.listeners.borrow().values().flatten().filter(|l| l.owner.0 == node).cloned().collect();
        self.listeners.borrow_mut().values_mut().for_each(|at| at.retain(|listener| listener.owner.0 != node));
        drop(closed);
    }

    /// Ends everything; what that drops may still call here.
    pub(super) fn clear(&self) {
        drop(self.listeners.take());
        drop(self.connections.take());
    }

    /// `is_local`: the address stands for the path of a local socket.
    pub(super) fn listen(
        world: &Rc<World>,
        owner: Owner,
        address: SocketAddr,
        is_local: bool,
    ) -> io::Result<SimListener> {
        let net = &world.net;
        let mut address = address;
        if address.port() == 0 {
            address.set_port(net.port());
        }
        let mut listeners = net.listeners.borrow_mut();
        let there = listeners.entry(address).or_default();
        // These two mean something else on each node.
        let everywhere = address.ip().is_loopback() || address.ip().is_unspecified();
        if !everywhere && there.iter().any(|other| other.owner != owner) {
            return Err(io::ErrorKind::AddrInUse.into());
        }
        let backlog = Rc::new(Backlog { owner, is_local, waiting: RefCell::default(), acceptor: RefCell::default() });
        there.push(backlog.clone());
        Ok(SimListener { world: world.clone(), address, backlog })
    }

    /// A listener for this address, as the node sees it: its own for loopback, the owner's of the address otherwise.
    fn find(world: &World, from: usize, to: SocketAddr) -> Option<Rc<Backlog>> {
        let listeners = world.net.listeners.borrow();
        let owner = if to.ip().is_loopback() { Some(from) } else { world.owner_of(to.ip()) };
        let any = match to.ip() {
            IpAddr::V4(_) => SocketAddr::from(([0, 0, 0, 0], to.port())),
            IpAddr::V6(_) => SocketAddr::from(([0_u16; 8], to.port())),
        };
        let exact = listeners.get(&to).into_iter().flatten();
        let exact = exact.filter(|listener| !to.ip().is_loopback() || listener.owner.0 == from);
        let general = listeners.get(&any).into_iter().flatten().filter(|listener| Some(listener.owner.0) == owner);
        let mut found: Vec<_> = exact.collect();
        if found.is_empty() {
            found = general.collect();
        }
        // Several shards listen side by side: each gets its share.
        (!found.is_empty()).then(|| found[world.net.random.borrow_mut().index(found.len())].clone())
    }

    /// The handshake; it ends at the latest when the caller gives up.
    pub(super) async fn connect(
        world: Rc<World>,
        owner: Owner,
        to: SocketAddr,
        source: IpAddr,
        user: Credentials,
    ) -> io::Result<SimStream> {
        let net = &world.net;
        loop {
            let there = world.owner_of(to.ip());
            world.sleep(net.latency(owner.0, there)).await;
            if net.chance(|faults| faults.refuse) {
                return Err(io::ErrorKind::ConnectionRefused.into());
            }
            let Some(listener) = Self::find(&world, owner.0, to) else {
                return Err(io::ErrorKind::ConnectionRefused.into());
            };
            let lost = net.is_cut(owner.0, listener.owner.0) || net.chance(|faults| faults.lose_connect);
            if lost || listener.waiting.borrow().len() >= BACKLOG {
                world.sleep(CONNECT_AGAIN).await;
                continue;
            }
            let from = SocketAddr::new(source, net.port());
            let (ours, theirs) = Connection::make(&world, [owner, listener.owner], [from, to]);
            let peer = if listener.is_local { Peer::Process(user) } else { Peer::Address(from) };
            listener.waiting.borrow_mut().push_back((theirs, peer));
            wake(&mut listener.acceptor.borrow_mut());
            world.sleep(net.latency(owner.0, there)).await;
            return Ok(ours);
        }
    }
}

/// A simulated listening socket.
pub struct SimListener {
    world: Rc<World>,
    address: SocketAddr,
    backlog: Rc<Backlog>,
}

impl Listener for SimListener {
    type Stream = SimStream;

    async fn accept(&self) -> io::Result<(SimStream, Peer)> {
        poll_fn(|context| {
            let next = self.backlog.waiting.borrow_mut().pop_front();
            match next {
                Some(accepted) => Poll::Ready(Ok(accepted)),
                None => {
                    *self.backlog.acceptor.borrow_mut() = Some(context.waker().clone());
                    Poll::Pending
                }
            }
        })
        .await
    }

    fn local_addr(&self) -> SocketAddr {
        self.address
    }
}

impl Drop for SimListener {
    fn drop(&mut self) {
        if let Some(at) = self.world.net.listeners.borrow_mut().get_mut(&self.address) {
            at.retain(|other| !Rc::ptr_eq(other, &self.backlog));
        }
        // Those who wait in it are reset.
        let waiting = self.backlog.waiting.take();
        for (stream, _) in &waiting {
            stream.connection.leave(stream.side, Segment::Reset);
        }
    }
}

/// One side of a simulated connection.
pub struct SimStream {
    connection: Rc<Connection>,
    side: usize,
    local: SocketAddr,
}

impl Stream for SimStream {
    async fn read(&mut self, buffer: &mut Vec<u8>, max: usize) -> io::Result<usize> {
        poll_fn(|context| self.connection.poll_read(self.side, context, buffer, max)).await
    }

    async fn write_all(&mut self, bytes: &[u8]) -> io::Result<()> {
        let mut left = bytes;
        while !left.is_empty() {
            let sent = poll_fn(|context| self.connection.poll_write(self.side, context, left)).await?;
            left = &left[sent..];
        }
        Ok(())
    }

    fn local_addr(&self) -> SocketAddr {
        self.local
    }
}

impl Drop for SimStream {
    fn drop(&mut self) {
        // As the kernel does: what the peer has said and nobody has read makes the goodbye a rude one.
        let unread = !self.connection.pipes[1 - self.side].borrow().arrived.is_empty();
        self.connection.leave(self.side, if unread { Segment::Reset } else { Segment::End });
    }
}

impl Connection {
    fn make(world: &Rc<World>, owners: [Owner; 2], addresses: [SocketAddr; 2]) -> (SimStream, SimStream) {
        let sides = owners.map(|owner| Side { owner, gone: Cell::new(false), reset: Cell::new(false) });
        let connection = Rc::new(Self { world: world.clone(), sides, pipes: Default::default() });
        let mut all = world.net.connections.borrow_mut();
        if all.len().is_power_of_two() {
            all.retain(|other| other.strong_count() > 0);
        }
        all.push(Rc::downgrade(&connection));
        let side = |side: usize| SimStream { connection: connection.clone(), side, local: addresses[side] };
        (side(0), side(1))
    }

    fn poll_read(
        &self,
        side: usize,
        context: &Context<'_>,
        buffer: &mut Vec<u8>,
        max: usize,
    ) -> Poll<io::Result<usize>> {
        let net = &self.world.net;
        let mut pipe = self.pipes[1 - side].borrow_mut();
        let mut there = pipe.arrived.len().min(max);
        if there > 1 && net.chance(|faults| faults.short_read) {
            there = 1 + net.random.borrow_mut().index(there - 1);
        }
        if there > 0 || max == 0 {
            buffer.extend(pipe.arrived.drain(..there));
            wake(&mut pipe.writer);
            return Poll::Ready(Ok(there));
        }
        if self.sides[side].reset.get() {
            return Poll::Ready(Err(io::ErrorKind::ConnectionReset.into()));
        }
        if pipe.finished {
            return Poll::Ready(Ok(0));
        }
        pipe.reader = Some(context.waker().clone());
        Poll::Pending
    }

    fn poll_write(self: &Rc<Self>, side: usize, context: &Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        let net = &self.world.net;
        if self.sides[side].reset.get() {
            return Poll::Ready(Err(io::ErrorKind::ConnectionReset.into()));
        }
        if net.chance(|faults| faults.reset) {
            self.send(side, Segment::Reset);
            self.send(1 - side, Segment::Reset);
            // These bytes are lost. Nothing may follow them, or the peer would read a text with a hole.
            self.sides[side].reset.set(true);
            return Poll::Ready(Ok(bytes.len()));
        }
        let (buffer_bytes, segment_bytes_max) = {
            let faults = net.faults.borrow();
            (faults.buffer_bytes, faults.segment_bytes_max.max(1))
        };
        let mut pipe = self.pipes[side].borrow_mut();
        let room = buffer_bytes.saturating_sub(pipe.bytes_under_way + pipe.arrived.len());
        if room == 0 {
            pipe.writer = Some(context.waker().clone());
            return Poll::Pending;
        }
        drop(pipe);
        let segment = 1 + net.random.borrow_mut().index(segment_bytes_max);
        let sent = bytes.len().min(room).min(segment);
        self.send(side, Segment::Bytes(bytes[..sent].to_vec()));
        Poll::Ready(Ok(sent))
    }

    /// Puts a segment on its way; none overtakes another.
    fn send(self: &Rc<Self>, side: usize, segment: Segment) {
        let mut pipe = self.pipes[side].borrow_mut();
        if let Segment::Bytes(bytes) = &segment {
            pipe.bytes_under_way += bytes.len();
        }
        pipe.under_way.push_back(segment);
        let now = self.world.clock.elapsed();
        let [one, other] = &self.sides;
        let due = pipe.last_due.max(now + self.world.net.latency(one.owner.0, Some(other.owner.0)));
        pipe.last_due = due;
        drop(pipe);
        self.arrange_arrival(side, due - now);
    }

    fn arrange_arrival(self: &Rc<Self>, side: usize, after: Duration) {
        let connection = self.clone();
        self.world.clock.call_after(after, move || connection.arrive(side));
    }

    fn arrive(self: &Rc<Self>, side: usize) {
        let other = 1 - side;
        if self.world.net.is_cut(self.sides[0].owner.0, self.sides[1].owner.0) {
            self.arrange_arrival(side, RETRANSMIT);
            return;
        }
        let mut pipe = self.pipes[side].borrow_mut();
        let Some(segment) = pipe.under_way.pop_front() else { return };
        match segment {
            Segment::Bytes(bytes) => {
                pipe.bytes_under_way -= bytes.len();
                if self.sides[other].gone.get() {
                    wake(&mut pipe.writer);
                    drop(pipe);
                    self.send(other, Segment::Reset);
                    return;
                }
                pipe.arrived.extend(bytes);
            }
            Segment::End => pipe.finished = true,
            Segment::Reset => {
                // What was under way both ways is lost with the connection; what has arrived can be read.
                pipe.under_way.clear();
                pipe.bytes_under_way = 0;
                self.sides[other].reset.set(true);
                drop(pipe);
                wake(&mut self.pipes[other].borrow_mut().writer);
                pipe = self.pipes[side].borrow_mut();
            }
        }
        wake(&mut pipe.reader);
    }

    /// A side goes, saying so once.
    fn leave(self: &Rc<Self>, side: usize, goodbye: Segment) {
        if self.sides[side].gone.replace(true) {
            return;
        }
        let mut theirs = self.pipes[1 - side].borrow_mut();
        theirs.arrived.clear();
        wake(&mut theirs.writer);
        drop(theirs);
        if self.sides[side].reset.get() {
            return;
        }
        if matches!(goodbye, Segment::Reset) {
            self.sides[side].reset.set(true);
            let mut ours = self.pipes[side].borrow_mut();
            ours.under_way.clear();
            ours.bytes_under_way = 0;
        }
        self.send(side, goodbye);
    }
}

fn wake(slot: &mut Option<Waker>) {
    if let Some(waker) = slot.take() {
        waker.wake();
    }
}

const FIRST_PORT: u16 = 32_768;
