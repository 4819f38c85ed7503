//! One run: a world, its traffic, its faults, and the verdict.

use std::cell::{Cell, RefCell};
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use ringpost_io::sim::{Random, SimWorld};
use ringpost_io::{Class, Runtime};
use ringpost_perf::{Counter, Counters};
use ringpost_shard::{Overrides, Plant};

use crate::clients::{self, Campaign, Origin};
use crate::coordinator::{NOBODY_IS, NOBODY_LISTENS, receiver_address};
use crate::engine::{self, Engine, NODE, Site};
use crate::faults::Faults;
use crate::limits;
use crate::promises::{Broken, Disk, Ledger};
use crate::receivers::{self, Receivers};
use crate::watch::Watch;
use crate::weather::Weather;

/// What to run.
#[derive(Clone, Debug)]
pub struct Plan {
    /// Decides everything that happens.
    pub seed: u64,
    /// Virtual time of traffic and faults; then the queue gets the time to become empty.
    pub traffic: Duration,
    /// What may go wrong.
    pub faults: Faults,
    /// How long a message may stay queued.
    pub ttl: Ttl,
    /// Prints every event of the engine.
    pub trace: bool,
}

/// How long a message may stay queued. If that is less than the usual days, what expires is not lost, and it is judged that
/// all expires in time.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Ttl {
    /// As long as usual: all must arrive.
    Usual,
    /// This long, in whole seconds.
    Of(Duration),
    /// The seed decides: one or the other.
    Drawn,
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
    watch: Rc<Watch>,
    campaign: Rc<Campaign>,
    receivers: Rc<Receivers>,
    faults: Faults,
    weather: Weather,
    /// Limits that are in force.
    limits: Overrides,
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
        run.ledger.borrow_mut().seen(Broken::Stranded { envelopes: stranded });
    }
    run.watch.report().into_iter().for_each(|broken| run.ledger.borrow_mut().seen(broken));
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

/// The time that messages have in a world whose seed decides; `None`: days.
fn draw_ttl(random: &mut Random) -> Option<Duration> {
    let seconds = [5, 30, 90, 400, 1800];
    let chosen = random.index(2 * seconds.len());
    seconds.get(chosen).map(|seconds| Duration::from_secs(*seconds))
}

impl Run {
    fn new(plan: &Plan) -> Self {
        let world = SimWorld::new(plan.seed);
        let mut random = world.random();
        let ttl = match plan.ttl {
            Ttl::Usual => None,
            Ttl::Of(ttl) => Some(ttl),
            Ttl::Drawn => draw_ttl(&mut random),
        };
        let ledger = Rc::new(RefCell::new(Ledger::new(ttl.is_some())));
        let config = engine::config(ttl);
        let watch = Rc::new(Watch::new(ledger.clone(), config.queue.ttl));
        let (watching, clock) = (watch.clone(), world.clone());
        let site = Site {
            config,
            mood: Rc::default(),
            health: Rc::default(),
            ledger: ledger.clone(),
            plant: match plan.faults {
                Faults { no_generation: true, .. } => Plant::Queue(ringpost_queue::Plant::GenerationOutsideCrc),
                Faults { forgets_claims: true, .. } => Plant::Queue(ringpost_queue::Plant::ForgetsClaims),
                Faults { loses_wakes: true, .. } => Plant::LosesWakes,
                Faults { misses_expiry: true, .. } => Plant::MissesExpiry,
                _ => Plant::None,
            },
            trace: plan.trace,
            heard: Rc::new(move |event| watching.hear(&clock, event)),
            counters: Arc::new(Counters::default()),
        };
        let receivers = Rc::new(Receivers { ledger: ledger.clone(), manners: Cell::default() });
        for number in 0..limits::RECEIVERS {
            let runtime = world.node_at(&receiver(number), receiver_address(number));
            let listener = runtime.listen((receiver_address(number), 25).into()).expect("the node is alive");
            runtime.spawn(Class::Session, receivers::serve(runtime.clone(), listener, receivers.clone()));
        }
        // Where exchangers may point to by mistake.
        world.node_at("nobody listens", NOBODY_LISTENS.into());
        let away = world.node_at("nobody is", NOBODY_IS.into());
        let never_answers = away.listen((NOBODY_IS, 25).into()).expect("the node is alive");
        away.spawn(Class::Session, async move {
            std::future::pending::<()>().await;
            drop(never_answers);
        });
        let campaign = Rc::new(Campaign {
            ledger: ledger.clone(),
            next: Cell::new(0),
            over: Cell::new(false),
            ended: Cell::new(0),
        });
        let engine = start(&world, &site, &campaign);
        for number in 0..limits::CLIENTS {
            let runtime = world.node(&format!("client{number}"));
            let task = clients::submit(runtime.clone(), engine::ADDRESS, Origin::Afar, campaign.clone());
            runtime.spawn(Class::Session, task);
        }
        Self {
            world,
            random,
            site,
            engine,
            ledger,
            watch,
            campaign,
            receivers,
            faults: plan.faults,
            weather: Weather::default(),
            limits: Arc::from([]),
            ttl,
            crashes: 0,
        }
    }

    /// Phases of random length, each with its own faults, most of them ended by a crash.
    fn traffic(&mut self, time: Duration) {
        let end = self.world.elapsed() + time;
        while self.world.elapsed() < end {
            self.change_weather();
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

    fn change_weather(&mut self) {
        self.weather = self.weather.next(self.faults, &mut self.random);
        let weather = &self.weather;
        self.trace(|| format!("{weather:?}"));
        self.site.mood.set(weather.mood);
        self.site.health.set(weather.health);
        self.receivers.manners.set(weather.manners);
        let is_or_was_bad = weather.is_bad_for_disk() || self.ledger.borrow().disk_is_bad();
        if is_or_was_bad {
            self.watch.runs(self.world.elapsed() + limits::DISK_RECOVERY);
        }
        let disk = if weather.is_bad_for_disk() { Disk::Bad } else { Disk::Good };
        self.ledger.borrow_mut().disk(self.world.now(), disk);
        self.world.disk(NODE).set_faults(weather.disk.clone());
        self.world.set_net(weather.net.clone());
        self.world.heal_all();
        self.world.cut(NODE, "nobody is");
        for (number, _) in weather.away.iter().enumerate().filter(|(_, away)| **away) {
            self.world.cut(NODE, &receiver(number));
        }
        if weather.ahead_ms != self.watch.wall.ahead_ms() {
            self.ledger.borrow_mut().clock_showed(self.world.unix_ms());
            self.watch.wall.set(&self.world, weather.ahead_ms);
        }
        if let Some(limits) = weather.limits.clone() {
            let changed = self.limits.iter().chain(limits.iter()).cloned().collect();
            self.limits = limits;
            self.engine.limit(&self.world, &self.limits, &changed);
        }
    }

    /// Says what happens to the engine, between its own events.
    fn trace(&self, what: impl FnOnce() -> String) {
        if self.site.trace {
            eprintln!("{} -- {}", self.world.unix_ms(), what());
        }
    }

    fn kill(&mut self) {
        self.trace(|| "it is killed".into());
        self.ledger.borrow_mut().crashed(self.world.now());
        self.world.crash(NODE);
        self.crashes += 1;
        self.start_again();
    }

    /// As the supervisor does: Stop, wait, start.
    fn stop_in_order(&mut self) {
        self.trace(|| "it is stopped".into());
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
        self.trace(|| "it is started".into());
        self.limits = Arc::from([]);
        self.watch.runs(self.world.elapsed());
        self.engine = start(&self.world, &self.site, &self.campaign);
    }

    /// No more new mail. Where messages have little time, things go on to go wrong outside until all have expired; then no
    /// more faults: all that was answered must arrive.
    fn settle(&mut self) {
        self.faults = self.faults.outside();
        self.change_weather();
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
            let end = self.world.elapsed() + ttl + limits::HELD + limits::EXPIRY_GRACE;
            while self.world.elapsed() < end {
                self.change_weather();
                self.watch_for(limits::LOOK);
            }
        }
        self.faults = self.faults.planted();
        self.change_weather();
        self.engine.limit(&self.world, &Arc::from([]), &self.limits);
        self.watch.calm(self.world.elapsed());
        if let Some(ttl) = self.ttl {
            // The last that was taken expires by a clock that may have been wrong, then the bounces about it.
            let rest = ttl * 2 + limits::HELD + limits::CLOCK_WRONG + limits::EXPIRY_GRACE * 4;
            self.watch_while(rest, |run| run.engine.queued(&run.world) > 0);
            self.ledger.borrow_mut().left(self.engine.queued(&self.world));
            return;
        }
        self.watch_while(limits::SETTLE, |run| !run.ledger.borrow().is_settled());
        // Repetitions without excuse would come now.
        self.world.run_for(Duration::from_secs(1200));
    }

    /// Lets time pass, looking at the queue now and then, as long as this is so.
    fn watch_while(&mut self, most: Duration, goes_on: impl Fn(&Self) -> bool) {
        let end = self.world.elapsed() + most;
        while self.world.elapsed() < end && goes_on(self) {
            self.watch_for(limits::LOOK);
        }
    }

    fn watch_for(&self, time: Duration) {
        self.world.run_for(time);
        let looked = self.world.elapsed();
        if let Some(all) = self.engine.why(&self.world) {
            self.watch.look(looked, &all);
        }
    }
}

fn receiver(number: usize) -> String {
    format!("receiver{number}")
}

/// A life of the engine, and a client on its own host, which ends with it.
fn start(world: &SimWorld, site: &Site, campaign: &Rc<Campaign>) -> Engine {
    let engine = Engine::start(world, site);
    let runtime = world.node(NODE);
    let task = clients::submit(runtime.clone(), engine::ADDRESS, Origin::Here, campaign.clone());
    runtime.spawn(Class::Session, task);
    engine
}
