//! A simulated world in which nothing is known but the addresses of hosts, and nothing is delivered here.

pub mod relay;

use std::cell::{Cell, RefCell};
use std::net::IpAddr;
use std::path::{Path, PathBuf};
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use ringpost_conf::expand::{Told, User};
use ringpost_conf::tables::ServiceKind;
use ringpost_conf::{Config, Memory, Options, load};
use ringpost_io::sim::{SimMesh, SimRuntime, SimWorld, sixth};
use ringpost_io::{Mailbox, Runtime};
use ringpost_shard::{
    Allowed, Ask, Asking, Dane, Exchanger, Forwarding, HandOver, Handed, Handover, Ledger, Letter, MxAnswer,
    NameAnswer, Order, Said, Start, UserRecord, World,
};

/// The address of each host; each is its own mail exchanger, and that of the domains below it. Hosts of both families have an
/// IPv6 address, too, that is made of it: their names begin with `both`. And the ledger of what source addresses may send that
/// warm up.
pub struct Names {
    named: fn(&str) -> Option<IpAddr>,
    ledger: RefCell<Ledger>,
    runtime: SimRuntime,
    /// So many questions to the ledger are never answered.
    pub silent: Cell<u32>,
}

/// The host of a domain: of `d1.a.sim`, `a.sim`.
fn host(domain: &str) -> &str {
    domain.rmatch_indices('.').nth(1).map_or(domain, |(at, _)| &domain[at + 1..])
}

impl Ask for Names {
    async fn exchangers(&self, host: &str, tlsa_port: Option<u16>) -> MxAnswer {
        self.addresses(self::host(host), tlsa_port).await
    }

    async fn addresses(&self, host: &str, _: Option<u16>) -> MxAnswer {
        let Some(address) = (self.named)(host) else { return MxAnswer::NoSuchDomain };
        let six = match address {
            IpAddr::V4(address) if host.starts_with("both") => Some(sixth(address).into()),
            _ => None,
        };
        let (dane, addresses) = (Dane::Insecure("no DNS"), [address].into_iter().chain(six).collect());
        let host = Exchanger { preference: 1, name: host.into(), addresses, dane };
        MxAnswer::Hosts { hosts: vec![host], ttl: Duration::from_secs(60), missing: None }
    }

    async fn client_name(&self, _: IpAddr) -> NameAnswer {
        NameAnswer::None
    }

    async fn look_up(&self, _: &str, _: ServiceKind, _: Vec<String>) -> Said {
        Said::NotFound { age: Duration::ZERO }
    }

    async fn user(&self, _: &str) -> Said {
        Said::NotFound { age: Duration::ZERO }
    }

    async fn list(&self, _: &Path) -> Told {
        Told::NotFound
    }

    async fn allow(&self, asking: Asking) -> Allowed {
        if let Some(left) = self.silent.get().checked_sub(1) {
            self.silent.set(left);
            return std::future::pending().await;
        }
        self.ledger.borrow_mut().ask(&asking, self.runtime.unix_ms())
    }
}

impl HandOver for Names {
    type Text = Vec<u8>;

    fn text(&self) -> std::io::Result<Vec<u8>> {
        Ok(Vec::new())
    }

    async fn deliver(&self, _: Handover, _: Vec<u8>) -> Handed {
        Handed::temporary((4, 3, 0), "no supervisor in this world")
    }

    async fn forward(&self, _: UserRecord) -> Forwarding {
        Forwarding::NotThere
    }

    async fn list(&self, _: UserRecord, _: PathBuf) -> Forwarding {
        Forwarding::NotThere
    }
}

/// What an engine of one shard at this address is started with: it has no connector of its own, tells nobody of its events,
/// and knows the addresses that `named` says.
pub fn start(
    world: &SimWorld,
    runtime: &SimRuntime,
    at: IpAddr,
    named: fn(&str) -> Option<IpAddr>,
    config: Arc<Config>,
    orders: Mailbox<Order>,
) -> Start<Simulated> {
    let names = || Names { named, ledger: RefCell::default(), runtime: runtime.clone(), silent: Cell::new(0) };
    Start {
        near: None,
        runtime: runtime.clone(),
        mesh: world.mesh(1, 64).remove(0),
        ask: names(),
        hand: names(),
        connector: Default::default(),
        own: User { name: "ringpost".into(), uid: 1, gid: 1, home: "/".into(), in_table: false },
        listeners: vec![(runtime.listen((at, 25).into()).expect("the node is alive"), 0)],
        config,
        servers: Default::default(),
        state: "/state".into(),
        hostname: "engine.sim".into(),
        orders,
        limits: Default::default(),
        events: Rc::new(|_| ()),
        counters: Default::default(),
        backscatter: Default::default(),
        ready: Box::new(|opened| drop(opened.expect("an empty queue"))),
        plant: Default::default(),
    }
}

/// Of this text.
pub fn config(text: &str) -> Arc<Config> {
    let files = Memory::default().with("/ringpost.conf", text);
    let loaded = load(&files, Path::new("/ringpost.conf"), &Options::default());
    Arc::new(loaded.unwrap_or_else(|reports| panic!("{reports}")).0)
}

/// Its engine.
pub struct Simulated;

impl World for Simulated {
    type R = SimRuntime;
    type M = SimMesh<Letter>;
    type A = Names;
    type H = Names;
}
