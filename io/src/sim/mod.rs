//! A world in one thread: virtual time, a network and disks that fail on purpose, and nothing that a seed does not decide.
//!
//! ```
//! use std::time::Duration;
//! use ringpost_io::sim::SimWorld;
//! use ringpost_io::{Class, Listener, Runtime, Stream};
//!
//! let world = SimWorld::new(42);
//! let server = world.node("server");
//! let listener = server.listen((server.ip(), 25).into()).unwrap();
//! let address = listener.local_addr();
//! server.spawn(Class::Session, async move {
//!     let (mut stream, _peer) = listener.accept().await.unwrap();
//!     stream.write_all(b"220 hello\r\n").await.unwrap();
//! });
//! let client = world.node("client");
//! let greeting = world.block_on(async {
//!     let mut stream = client.connect(address, None, Duration::from_secs(5)).await.unwrap();
//!     let mut text = Vec::new();
//!     while stream.read(&mut text, 1024).await.unwrap() > 0 {}
//!     text
//! });
//! assert_eq!(greeting, b"220 hello\r\n");
//! ```
//!
//! - A *node* is a process on a machine of its own: a name, an address, a disk. [`SimWorld::node`] gives a [`SimRuntime`]
//!   on it; ask again for each shard, and connect them by [`SimWorld::mesh`].
//! - [`SimWorld::crash`] ends a node at this instant: its tasks are dropped where they stand, its sockets reset, and its
//!   disk keeps, loses or tears what was not durable. `node` with the same name is its next life, with the same disk.
//! - Time: [`SimWorld::run_for`], [`SimWorld::run_until`], [`SimWorld::block_on`] let it pass. A poll costs one
//!   microsecond; when nothing is ready, time jumps. Nothing happens outside these calls. [`SimWorld::after`] arranges for
//!   something to be done in the middle of it, by nobody's task: crash, cut, fill a disk.
//! - The clock on the wall, [`SimWorld::unix_ms`], may be set forwards and backwards: [`SimWorld::set_wall_ahead_ms`].
//! - Faults: [`SimWorld::set_net`], [`SimWorld::cut`], [`SimDisk::set_faults`]; random ones are drawn from the seed.
//! - Two runs with one seed do the same things at the same times: [`SimWorld::fingerprint`] says so, provided that the code
//!   under test takes time and randomness from its runtime only, and does not go by the order of a hash map.

mod clock;
mod content;
mod disk;
mod mesh;
mod net;
mod random;
mod scheduler;
#[cfg(test)]
mod tests;

use std::cell::RefCell;
use std::future::Future;
use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::path::Path;
use std::rc::Rc;
use std::time::{Duration, Instant};

use clock::{Clock, Sleep};
use disk::Platter;
use futures_lite::future::{or, yield_now};
use net::Net;
use scheduler::{Owner, Scheduler};

use crate::{Class, Credentials, Runtime};

pub use clock::EPOCH_MS;
pub use disk::{DiskFaults, SimDisk, SimFile, SimWriter};
pub use mesh::SimMesh;
pub use net::{NetFaults, SimListener, SimStream};
pub use random::Random;
pub use scheduler::POLL_COST;

/// A simulated world. It ends when this value is dropped; clones are only handles on it.
pub struct SimWorld {
    world: Rc<World>,
    is_handle: bool,
}

struct World {
    seed: u64,
    clock: Rc<Clock>,
    scheduler: Scheduler,
    net: Net,
    random: RefCell<Random>,
    nodes: RefCell<Vec<Node>>,
}

struct Node {
    name: String,
    address: IpAddr,
    life: u64,
    platter: Rc<Platter>,
}

impl SimWorld {
    /// The world of this seed.
    pub fn new(seed: u64) -> Self {
        let mut random = Random::new(seed);
        let clock = Rc::new(Clock::new());
        let scheduler = Scheduler::new(clock.clone(), random.fork());
        let net = Net::new(random.fork());
        let world = World { seed, clock, scheduler, net, random: RefCell::new(random), nodes: RefCell::default() };
        Self { world: Rc::new(world), is_handle: false }
    }

    /// The seed.
    pub fn seed(&self) -> u64 {
        self.world.seed
    }

    /// A runtime on the node of this name, which is made if it is new, with the next address of 10.0.0.0/8.
    pub fn node(&self, name: &str) -> SimRuntime {
        let number = self.world.number(name).unwrap_or_else(|| self.make_node(name, None));
        self.runtime(number)
    }

    /// The same, at an address of one's choice if the node is new.
    pub fn node_at(&self, name: &str, address: IpAddr) -> SimRuntime {
        let number = self.world.number(name).unwrap_or_else(|| self.make_node(name, Some(address)));
        self.runtime(number)
    }

    fn make_node(&self, name: &str, address: Option<IpAddr>) -> usize {
        let mut nodes = self.world.nodes.borrow_mut();
        let number = nodes.len();
        let default = Ipv4Addr::from_bits(Ipv4Addr::new(10, 0, 0, 1).to_bits() + number as u32);
        let platter = Rc::new(Platter::new(self.world.random.borrow_mut().fork()));
        let address = address.unwrap_or(default.into());
        assert!(nodes.iter().all(|node| node.address != address), "two nodes at {address}");
        nodes.push(Node { name: name.to_owned(), address, life: 0, platter });
        number
    }

    fn runtime(&self, number: usize) -> SimRuntime {
        let nodes = self.world.nodes.borrow();
        let node = &nodes[number];
        let owner = (number, node.life);
        let disk = SimDisk::new(self.world.clone(), owner, node.platter.clone());
        let random = self.world.random.borrow_mut().fork();
        let place =
            Place { world: self.world.clone(), owner, address: node.address, random: RefCell::new(random), disk };
        SimRuntime { place: Rc::new(place) }
    }

    /// The disk of a node, alive or not.
    pub fn disk(&self, name: &str) -> SimDisk {
        self.node(name).disk().clone()
    }

    /// Ends a node at this instant; nothing happens to one that does not exist. May be called by one of its own tasks,
    /// which then ends at its next `await`.
    pub fn crash(&self, name: &str) {
        let Some(number) = self.world.number(name) else { return };
        let platter = {
            let mut nodes = self.world.nodes.borrow_mut();
            nodes[number].life += 1;
            nodes[number].platter.clone()
        };
        self.world.net.crash(number);
        platter.crash();
        self.world.scheduler.end(|(node, _)| node == number);
    }

    /// How many tasks of a node have not ended.
    pub fn tasks(&self, name: &str) -> usize {
        let number = self.world.number(name);
        self.world.scheduler.count(|(node, _)| Some(node) == number)
    }

    /// How the network behaves from now on.
    pub fn set_net(&self, faults: NetFaults) {
        *self.world.net.faults.borrow_mut() = faults;
    }

    /// Cuts the network between two nodes: connections hang, new ones get no answer.
    pub fn cut(&self, one: &str, other: &str) {
        self.with_both(one, other, Net::cut);
    }

    /// Undoes [`SimWorld::cut`]; what was under way arrives.
    pub fn heal(&self, one: &str, other: &str) {
        self.with_both(one, other, Net::heal);
    }

    /// Undoes every cut.
    pub fn heal_all(&self) {
        self.world.net.heal_all();
    }

    /// From now on whatever goes between two nodes takes so much longer, one way.
    pub fn set_far(&self, one: &str, other: &str, by: Duration) {
        if let (Some(one), Some(other)) = (self.world.number(one), self.world.number(other)) {
            self.world.net.set_far(one, other, by);
        }
    }

    fn with_both(&self, one: &str, other: &str, act: fn(&Net, usize, usize)) {
        if let (Some(one), Some(other)) = (self.world.number(one), self.world.number(other)) {
            act(&self.world.net, one, other);
        }
    }

    /// A mesh between the shards of one node; each pair holds `letters_max` letters.
    pub fn mesh<M: 'static>(&self, shards: usize, letters_max: usize) -> Vec<SimMesh<M>> {
        mesh::ends(shards, letters_max)
    }

    /// Arranges for a call in the middle of things: `time` from now, outside all nodes.
    pub fn after(&self, time: Duration, call: impl FnOnce(&SimWorld) + 'static) {
        let handle = self.clone();
        self.world.clock.call_after(time, move || call(&handle));
    }

    /// Lets this much time pass.
    pub fn run_for(&self, time: Duration) {
        let until = self.elapsed() + time;
        while self.elapsed() < until && self.world.scheduler.step(until) != scheduler::Step::Idle {}
        self.world.clock.jump_to(until);
    }

    /// Lets time pass until this is true, which is asked after every step, but no longer than `limit`; whether it is true.
    pub fn run_until(&self, limit: Duration, mut is_true: impl FnMut() -> bool) -> bool {
        let until = self.elapsed() + limit;
        loop {
            if is_true() {
                return true;
            }
            if self.elapsed() >= until || self.world.scheduler.step(until) == scheduler::Step::Idle {
                return false;
            }
        }
    }

    /// Runs a future of nobody's together with the world. Panics if the world stands still before that has ended: nothing
    /// is ready and nothing is due.
    pub fn block_on<T>(&self, future: impl Future<Output = T>) -> T {
        let ended = self.world.scheduler.block_on(future, Duration::MAX);
        ended.unwrap_or_else(|| panic!("seed {}: the world stands still at {:?}", self.seed(), self.elapsed()))
    }

    /// The same for at most `limit`; `None` if the future has not ended by then, or never will.
    pub fn block_on_within<T>(&self, limit: Duration, future: impl Future<Output = T>) -> Option<T> {
        self.world.scheduler.block_on(future, self.elapsed() + limit)
    }

    /// Whether nothing is arranged for any time: no timer runs and nothing is under way.
    pub fn is_idle(&self) -> bool {
        self.world.clock.is_idle()
    }

    /// Time since the beginning.
    pub fn elapsed(&self) -> Duration {
        self.world.clock.elapsed()
    }

    /// Virtual time.
    pub fn now(&self) -> Instant {
        self.world.clock.now()
    }

    /// Milliseconds since 1970; a world begins at [`EPOCH_MS`].
    pub fn unix_ms(&self) -> u64 {
        self.world.clock.unix_ms()
    }

    /// Sets the clock on the wall, which all nodes read by [`Runtime::unix_ms`]: from now on it is so many milliseconds ahead
    /// of the right time, or behind it. What is due in virtual time is not concerned.
    pub fn set_wall_ahead_ms(&self, ms: i64) {
        self.world.clock.set_wall_ahead_ms(ms);
    }

    /// A stream of random numbers of its own, for a scenario.
    pub fn random(&self) -> Random {
        self.world.random.borrow_mut().fork()
    }

    /// Polls so far.
    pub fn polls(&self) -> u64 {
        self.world.scheduler.polls()
    }

    /// Equal for two runs only if they did the same things at the same times.
    pub fn fingerprint(&self) -> u64 {
        self.world.scheduler.fingerprint()
    }
}

impl Clone for SimWorld {
    fn clone(&self) -> Self {
        Self { world: self.world.clone(), is_handle: true }
    }
}

impl Drop for SimWorld {
    fn drop(&mut self) {
        if self.is_handle {
            return;
        }
        // Tasks hold the world and it holds them. What they drop may arrange and spawn more.
        for _ in 0..3 {
            self.world.nodes.borrow_mut().iter_mut().for_each(|node| node.life += 1);
            self.world.scheduler.end(|_| true);
            self.world.net.clear();
            drop(self.world.clock.clear());
        }
    }
}

impl World {
    fn number(&self, name: &str) -> Option<usize> {
        self.nodes.borrow().iter().position(|node| node.name == name)
    }

    fn owner_of(&self, address: IpAddr) -> Option<usize> {
        self.nodes.borrow().iter().position(|node| node.address == address)
    }

    fn is_alive(&self, (node, life): Owner) -> bool {
        self.nodes.borrow()[node].life == life
    }

    fn sleep(&self, time: Duration) -> Sleep {
        Sleep::new(&self.clock, time)
    }
}

/// One executor of a simulated node. After a crash it does nothing any more.
#[derive(Clone)]
pub struct SimRuntime {
    place: Rc<Place>,
}

struct Place {
    world: Rc<World>,
    owner: Owner,
    address: IpAddr,
    random: RefCell<Random>,
    disk: SimDisk,
}

impl SimRuntime {
    /// The node's address.
    pub fn ip(&self) -> IpAddr {
        self.place.address
    }

    /// Whether its node has not crashed since this runtime was made.
    pub fn is_alive(&self) -> bool {
        self.place.world.is_alive(self.place.owner)
    }

    /// Listens at an address of any kind, whoever's it is; port 0 is any free one. Several runtimes of a node may listen at
    /// the same, as with SO_REUSEPORT: each connection goes to one of them at random.
    pub fn listen(&self, address: SocketAddr) -> io::Result<SimListener> {
        if !self.is_alive() {
            return Err(crashed());
        }
        Net::listen(&self.place.world, self.place.owner, address, false)
    }

    /// Listens at a local socket; of those who connect, their process and user are known.
    pub fn listen_unix(&self, path: &Path) -> io::Result<SimListener> {
        if !self.is_alive() {
            return Err(crashed());
        }
        Net::listen(&self.place.world, self.place.owner, unix_address(path), true)
    }

    /// [`Runtime::connect_unix`] as this process and user; that one is user 0.
    pub async fn connect_unix_as(&self, path: &Path, user: Credentials, time: Duration) -> io::Result<SimStream> {
        self.connect_as(unix_address(path), None, user, time).await
    }

    async fn connect_as(
        &self,
        to: SocketAddr,
        source: Option<IpAddr>,
        user: Credentials,
        time: Duration,
    ) -> io::Result<SimStream> {
        if !self.is_alive() {
            return Err(crashed());
        }
        let own = match (self.place.address, to.ip()) {
            (_, to) if to.is_loopback() => to,
            (IpAddr::V4(own), IpAddr::V6(_)) => sixth(own).into(),
            (own, _) => own,
        };
        let source = source.unwrap_or(own);
        let connecting = Net::connect(self.place.world.clone(), self.place.owner, to, source, user);
        self.timeout(time, connecting).await.unwrap_or_else(|| Err(io::ErrorKind::TimedOut.into()))
    }

    fn superuser(&self) -> Credentials {
        Credentials { pid: self.place.owner.0 as u32 + 1, uid: 0, gid: 0 }
    }
}

impl Runtime for SimRuntime {
    type Listener = SimListener;
    type Stream = SimStream;
    type Disk = SimDisk;

    fn now(&self) -> Instant {
        self.place.world.clock.now()
    }

    fn unix_ms(&self) -> u64 {
        self.place.world.clock.unix_ms()
    }

    fn random_u64(&self) -> u64 {
        self.place.random.borrow_mut().next_u64()
    }

    fn spawn(&self, _class: Class, task: impl Future<Output = ()> + 'static) {
        if self.is_alive() {
            self.place.world.scheduler.spawn(self.place.owner, task);
        }
    }

    async fn sleep(&self, time: Duration) {
        self.place.world.sleep(time).await;
    }

    async fn timeout<T>(&self, time: Duration, future: impl Future<Output = T>) -> Option<T> {
        let over = async {
            self.place.world.sleep(time).await;
            None
        };
        or(async { Some(future.await) }, over).await
    }

    async fn yield_now(&self) {
        yield_now().await;
    }

    async fn connect(&self, to: SocketAddr, source: Option<IpAddr>, time: Duration) -> io::Result<SimStream> {
        self.connect_as(to, source, self.superuser(), time).await
    }

    async fn connect_unix(&self, path: &Path, time: Duration) -> io::Result<SimStream> {
        self.connect_unix_as(path, self.superuser(), time).await
    }

    fn disk(&self) -> &SimDisk {
        &self.place.disk
    }
}

/// Where a node comes from whose address is this, if it connects to an IPv6 address.
pub fn sixth(address: Ipv4Addr) -> Ipv6Addr {
    Ipv6Addr::from((0xfd << 120) | u128::from(address.to_bits()))
}

/// Where a simulated server listens whose local socket has this path: a loopback address, so that each node has its own.
pub fn unix_address(path: &Path) -> SocketAddr {
    let hash = path
        .as_os_str()
        .as_encoded_bytes()
        .iter()
        .fold(0xcbf2_9ce4_u32, |hash, byte| (hash ^ u32::from(*byte)).wrapping_mul(0x0100_0193));
    let [a, b, c, d] = hash.to_be_bytes();
    SocketAddr::from(([127, 255, a, b], u16::from_be_bytes([c, d]) | 1))
}

fn crashed() -> io::Error {
    io::Error::other("this node has crashed")
}
