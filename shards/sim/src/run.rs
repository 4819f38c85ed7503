//! One run: a world, its traffic, its faults, and the verdict.

use std::cell::{Cell, RefCell};
use std::net::SocketAddr;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use ringpost_io::sim::{DiskFaults, NetFaults, Random, SimWorld};
use ringpost_io::{Class, Runtime};
use ringpost_perf::{Counter, Counters};
use ringpost_queue::Plant;

use crate::clients::{self, Campaign};
use crate::coordinator::receiver_address;
use crate::engine::{self, Engine, NODE, Site};
use crate::faults::Faults;
use crate::limits;
use crate::promises::{Broken, Disk, Ledger};
use crate::receivers::{self, Manners, Receivers};

/// What to run.
#[derive(Clone, Debug)]
pub struct Plan {
    /// Decides everything that happens.
    pub seed: u64,
    /// Virtual time of traffic and faults; then the queue gets the time to become empty.
    pub traffic: Duration,
    /// What may go wrong.
    pub faults: Faults,
    /// How long a message may stay queued. With it, what expires is not lost, and it is judged that all expires in time.
    pub ttl: Option<Duration>,
    /// Prints every event of the engine.
    pub trace: bool,
}

/// What came of it.
#[derive(Clone, Debug)]
pub struct Outcome {
    /// The seed.
    pub seed: u64,
    /// Promises that were not kept; empty for a correct server.
    pub broken: Vec<Broken>,
    /// Messages that clients began.
    pub sent: u64,
    /// Of these, answered 250 for at least one recipient.
    pub acked: u64,
    /// Deliveries that arrived, repetitions too.
    pub delivered: u64,
    /// Times the engine was killed.
    pub crashes: u32,
    /// Virtual time that passed.
    pub elapsed: Duration,
    /// Times that the auditor of a shard has looked at all of its queue.
    pub audits: u64,
    /// Recipients that were given up since their time was over.
    pub expired: u64,
    /// The same for two runs of a seed, unless the program is not deterministic.
    pub fingerprint: u64,
}

struct Run {
    world: SimWorld,
    random: Random,
    site: Site,
    engine: Engine,
    ledger: Rc<RefCell<Ledger>>,
    campaign: Rc<Campaign>,
    receivers: Rc<Receivers>,
    faults: Faults,
    ttl: Option<Duration>,
    crashes: u32,
}

/// Runs one seed to its verdict.
pub fn run(plan: &Plan) -> Outcome {
    let mut run = Run::new(plan);
    run.traffic(plan.traffic);
    run.settle();
    let stranded = run.site.counters.get(Counter::AuditStranded);
    if stranded > 0 {
        run.ledger.borrow_mut().stranded(stranded);
    }
    if let Some(by) = run.site.overdue.get() {
        run.ledger.borrow_mut().outlived(by);
    }
    let ledger = run.ledger.borrow();
    let (sent, acked, delivered) = ledger.counts();
    Outcome {
        seed: plan.seed,
        broken: ledger.judge(),
        sent,
        acked,
        delivered,
        crashes: run.crashes,
        elapsed: run.world.elapsed(),
        audits: run.site.counters.get(Counter::AuditRounds),
        expired: ledger.expired(),
        fingerprint: run.world.fingerprint(),
    }
}

impl Run {
    fn new(plan: &Plan) -> Self {
        let world = SimWorld::new(plan.seed);
        let address = SocketAddr::from(([10, 0, 1, 1], 25));
        let site = Site {
            config: engine::config(address.ip(), plan.ttl),
            overdue: Rc::new(Cell::new(None)),
            counters: Arc::new(Counters::default()),
            address,
            names_fail_one_in: Rc::new(Cell::new(0)),
            plant: match plan.faults {
                Faults { no_generation: true, .. } => Plant::GenerationOutsideCrc,
                Faults { forgets_claims: true, .. } => Plant::ForgetsClaims,
                _ => Plant::None,
            },
            trace: plan.trace,
        };
        let ledger = Rc::new(RefCell::new(Ledger::new(plan.ttl.is_some())));
        let receivers = Rc::new(Receivers { ledger: ledger.clone(), manners: Cell::new(Manners::default()) });
        for number in 0..limits::RECEIVERS {
            let runtime = world.node_at(&format!("receiver{number}"), receiver_address(number));
            let listener = runtime.listen((receiver_address(number), 25).into()).expect("the node is alive");
            runtime.spawn(Class::Session, receivers::serve(runtime.clone(), listener, receivers.clone()));
        }
        let engine = Engine::start(&world, &site);
        let campaign = Rc::new(Campaign {
            ledger: ledger.clone(),
            next: Cell::new(0),
            over: Cell::new(false),
            ended: Cell::new(0),
        });
        for number in 0..limits::CLIENTS {
            let runtime = world.node(&format!("client{number}"));
            let task = clients::submit(runtime.clone(), vec![address], campaign.clone());
            runtime.spawn(Class::Session, task);
        }
        let random = world.random();
        Self {
            world,
            random,
            site,
            engine,
            ledger,
            campaign,
            receivers,
            faults: plan.faults,
            ttl: plan.ttl,
            crashes: 0,
        }
    }

    /// Phases of random length, each with its own faults, most of them ended by a crash.
    fn traffic(&mut self, time: Duration) {
        let end = self.world.elapsed() + time;
        while self.world.elapsed() < end {
            self.choose_faults();
            let phase = Duration::from_millis(200 + self.random.below(8_000));
            self.world.run_for(phase.min(end.saturating_sub(self.world.elapsed())));
            if self.engine.failure().is_some() {
                self.restart();
            } else if self.faults.crash {
                match self.random.below(4) {
                    0 => self.stop_in_order(),
                    1 => {}
                    _ => self.kill(),
                }
            }
        }
    }

    fn choose_faults(&mut self) {
        let Faults { disk, full, net, peers, names, lying_disk, .. } = self.faults;
        let mut draw = |one_in: u64| self.random.below(one_in) == 0;
        let mut disk_faults = DiskFaults { lie: lying_disk, ..DiskFaults::default() };
        if disk && draw(3) {
            disk_faults.fail_write = if draw(2) { 0.02 } else { 0.3 };
            disk_faults.fail_sync = if draw(2) { 0.02 } else { 0.0 };
            disk_faults.slow = 0.02;
            disk_faults.slow_by = Duration::from_millis(300);
        }
        if full && draw(6) {
            disk_faults.capacity_bytes = 4 << 20;
        }
        let mut net_faults = NetFaults::default();
        if net && draw(2) {
            net_faults.reset = 0.003;
            net_faults.refuse = 0.05;
            net_faults.lose_connect = 0.05;
            net_faults.segment_bytes_max = if draw(2) { 200 } else { 16 << 10 };
            net_faults.buffer_bytes = if draw(3) { 2 << 10 } else { 128 << 10 };
        }
        let mut manners = Manners::default();
        if peers && draw(2) {
            manners = Manners {
                refuse_recipient_one_in: 40,
                defer_recipient_one_in: 10,
                defer_message_one_in: 10,
                hang_up_one_in: 60,
            };
        }
        self.site.names_fail_one_in.set(if names && draw(3) { 3 } else { 0 });
        let bad = disk_faults.fail_write > 0.0 || disk_faults.capacity_bytes < DiskFaults::default().capacity_bytes;
        self.ledger.borrow_mut().disk(self.world.now(), if bad { Disk::Bad } else { Disk::Good });
        self.world.disk(NODE).set_faults(disk_faults);
        self.world.set_net(net_faults);
        self.receivers.manners.set(manners);
    }

    fn kill(&mut self) {
        self.ledger.borrow_mut().crashed(self.world.now());
        self.world.crash(NODE);
        self.crashes += 1;
        self.start_again();
    }

    /// As the supervisor does: Stop, wait, start.
    fn stop_in_order(&mut self) {
        self.engine.stop();
        let engine = &self.engine;
        if !self.world.run_until(Duration::from_secs(30), || engine.has_ended()) {
            // A disk that fails while the shard drains may keep it; the supervisor would kill it, too.
            self.crashes += 1;
            self.ledger.borrow_mut().crashed(self.world.now());
        } else if self.ledger.borrow().disk_is_bad() {
            // The last states could not be written. In order, and with a good disk, nothing is excused.
            self.ledger.borrow_mut().crashed(self.world.now());
        }
        self.world.crash(NODE);
        self.start_again();
    }

    fn restart(&mut self) {
        self.ledger.borrow_mut().crashed(self.world.now());
        self.world.crash(NODE);
        self.start_again();
    }

    fn start_again(&mut self) {
        let pause = Duration::from_millis(self.random.below(1_500));
        self.world.run_for(pause);
        self.engine = Engine::start(&self.world, &self.site);
    }

    /// No more faults and no more new mail: all that was answered must arrive.
    fn settle(&mut self) {
        self.faults = Faults { lying_disk: self.faults.lying_disk, ..Faults::NONE };
        self.choose_faults();
        self.campaign.over.set(true);
        let campaign = self.campaign.clone();
        self.world.run_until(limits::CLIENT_PATIENCE * 2, || campaign.ended.get() == limits::CLIENTS);
        // The last crash: what was answered must be on the disk, not only in memory.
        self.kill();
        self.world.run_for(Duration::from_secs(5));
        if let Some(why) = self.engine.failure() {
            self.ledger.borrow_mut().stuck(why);
            return;
        }
        if let Some(ttl) = self.ttl {
            // The last that was taken expires, then the bounces about it.
            self.world.run_for(ttl * 2 + limits::EXPIRY_GRACE * 4);
            self.ledger.borrow_mut().left(self.engine.queued(&self.world));
            return;
        }
        let ledger = self.ledger.clone();
        let deadline = self.world.elapsed() + limits::SETTLE;
        while !ledger.borrow().is_settled() && self.world.elapsed() < deadline {
            self.world.run_for(Duration::from_secs(30));
        }
        // Repetitions without excuse would come now.
        self.world.run_for(Duration::from_secs(1200));
    }
}
