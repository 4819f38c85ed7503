//! The process that `ringpost serve` is. It binds the sockets, starts the keyholder and the engine and starts them again
//! when they die, reads the configuration, and obeys signals. It never parses mail and never talks to the network.

mod banner;
mod belongings;
pub mod control;
mod custody;
pub mod delivery;
pub mod forward;
pub mod interfaces;
#[cfg(feature = "pam")]
pub mod modules;
mod passwords;
mod pickup;
mod programs;
mod resources;
pub mod sealed;
#[cfg(not(feature = "pam"))]
mod shadow;
mod shelf;
mod sockets;
mod spawn;
mod state;
pub mod users;
mod watch;

use std::io::IsTerminal;
use std::os::fd::AsFd;
use std::time::{Duration, Instant};

use crossbeam::channel::{Receiver, RecvTimeoutError, Sender, unbounded};
use ringpost_conf::Config;
use ringpost_io::sys::Room;
use signal_hook::consts::{SIGHUP, SIGINT, SIGTERM};

pub use self::banner::near;
use self::custody::{Custody, Tell};
use self::delivery::{Bounded, Bounds, Lane, Trust};
use self::pickup::Pickup;
use self::shelf::Shelf;
use self::sockets::Sockets;
use self::spawn::{Child, Role};
use self::state::StateDir;
pub use self::state::{control_path, local_path, lock_path};
use self::watch::Watch;
use crate::confinement;
use crate::encryption;
use crate::exit::{Code, Failure};
use crate::ipc::codec::{cut, to_memory};
use crate::ipc::engine::{FromEngine, Purpose, Summary, ToEngine};
use crate::ipc::keyholder::{self, FromKeyholder, ToKeyholder};
use crate::limits::{CERTIFICATES_AGAIN, LOOKUP_LANES, NOTES, PING, SETTLE, STOP, USER_LANES};
use crate::owners::Owners;
use crate::plan::{self, Plan, Wish};

/// What happens to the supervisor.
enum News {
    Signal(i32),
    Engine { generation: u64, letter: FromEngine },
    Keyholder { generation: u64, letter: FromKeyholder },
    Gone { role: Role, generation: u64 },
    TablesChanged,
}

struct Supervisor {
    wish: Wish,
    plan: Plan,
    config: Config,
    /// Held as long as this process lives.
    _state: StateDir,
    /// Whose engine and keyholder are.
    owners: Owners,
    sockets: Sockets,
    shards: usize,
    notes: Vec<String>,
    news: Receiver<News>,
    engine: Child,
    keyholder: Child,
    custody: Custody,
    shelf: Shelf,
    /// What does its errands; those of engines that are gone end by themselves.
    lanes: Vec<Lane>,
    /// How many deliveries they do at once.
    deliveries: Bounded,
    /// The engine has been ready once: from then on its failures are survived.
    was_ready: bool,
    failures_before_ready: u32,
    stopping: Option<Instant>,
    summary: Option<Summary>,
    pinged: u64,
    ping_answered: u64,
    ping_due: Instant,
    pickup: Pickup,
    on_terminal: bool,
    watch: Watch,
    /// What the engine was given to use when it was started; `None`: it is not confined.
    room: Option<Room>,
    /// The engine ends for another that may use more.
    renewing: bool,
    /// When the text files of tables are read again.
    tables_due: Option<Instant>,
    /// When certificates that could not be used are tried again.
    certificates_due: Option<Instant>,
}

/// Runs a server until it is told to stop.
///
/// # Errors
/// When it cannot start, or did not end in order.
pub fn run(wish: Wish) -> Result<(), Failure> {
    let plan = Plan::read(&wish)?;
    let (config, warnings) = plan.config().map_err(plan::broken)?;
    for warning in warnings {
        eprintln!("{warning}");
    }
    let owners = Owners::find(plan.root.as_deref())
        .map_err(|error| Failure::new(Code::TryLater, format!("whose engine and keyholder are to be: {error}")))?;
    let state = StateDir::open(&plan.state, &owners)?;
    let shards = plan::shards(&config, ringpost_io::ring::available_cpus().len());
    let mut notes = resources::raise(shards)?;
    notes.extend(owners.note().map(|why| format!("{why}; docs/confinement.md says more")));
    let sockets = Sockets::bind(&plan, &config, shards, &owners)?;
    let (sender, news) = unbounded();
    watch_signals(sender.clone())?;
    let watch = Watch::start(sender.clone())?;
    for problem in watch.follow(&config) {
        eprintln!("ringpost: {problem}");
    }
    let mut supervisor = Supervisor {
        deliveries: Bounds::of(&config.machinery).into(),
        engine: Child::new(Role::Engine, sender.clone()),
        keyholder: Child::new(Role::Keyholder, sender),
        custody: Custody::default(),
        shelf: Shelf::default(),
        on_terminal: std::io::stderr().is_terminal(),
        wish,
        plan,
        config,
        _state: state,
        owners,
        sockets,
        shards,
        notes,
        news,
        lanes: Vec::new(),
        was_ready: false,
        failures_before_ready: 0,
        stopping: None,
        summary: None,
        pinged: 0,
        ping_answered: 0,
        ping_due: Instant::now() + PING,
        pickup: Pickup::default(),
        watch,
        room: None,
        renewing: false,
        tables_due: None,
        certificates_due: None,
    };
    let result = supervisor.supervise();
    supervisor.engine.end_now();
    supervisor.keyholder.end();
    supervisor.sockets.remove_names();
    Lane::join(supervisor.lanes);
    result
}

fn watch_signals(news: Sender<News>) -> Result<(), Failure> {
    let mut signals = signal_hook::iterator::Signals::new([SIGTERM, SIGINT, SIGHUP])?;
    std::thread::Builder::new().name("signals".into()).spawn(move || {
        for signal in signals.forever() {
            if news.send(News::Signal(signal)).is_err() {
                return;
            }
        }
    })?;
    Ok(())
}

impl Supervisor {
    fn supervise(&mut self) -> Result<(), Failure> {
        self.start_keyholder()?;
        // Both processes make themselves ready at the same time.
        self.engine.start()?;
        let taken = self.custody.take_up(&self.config, &self.plan.state, &self.plan.identities, Tell::All);
        let taken = taken.map_err(plan::broken)?;
        self.look_again();
        (self.plan.identities, self.plan.authorities) = (taken.identities, taken.authorities);
        self.plan.roots = encryption::system_certificates();
        self.notes.extend(taken.notes);
        self.equip_engine()?;
        loop {
            match self.news.recv_timeout(self.wait()) {
                Ok(News::Signal(SIGHUP)) if !self.terminal_is_gone() => self.reload(),
                Ok(News::Signal(_)) if self.stopping.is_some() => {
                    return Err(Failure::new(Code::TryLater, "stopped at once; what was in flight is delivered again"));
                }
                Ok(News::Signal(_)) if self.stop() => return Ok(()),
                Ok(News::Engine { generation, letter }) if self.engine.is(generation) => self.engine_says(letter)?,
                Ok(News::Keyholder { generation, letter }) if self.keyholder.is(generation) => {
                    self.keyholder_says(letter);
                }
                Ok(News::Gone { role: Role::Engine, generation }) if self.engine.is(generation) => {
                    if self.engine_ended()? {
                        return Ok(());
                    }
                }
                Ok(News::Gone { role: Role::Keyholder, generation }) if self.keyholder.is(generation) => {
                    let how = self.keyholder.bury();
                    if self.stopping.is_none() {
                        eprintln!("ringpost: the keyholder ended ({how}) and is started again");
                    }
                }
                // Somebody may still be writing to it, or to another.
                Ok(News::TablesChanged) => self.tables_due = Some(Instant::now() + SETTLE),
                // A stop that has begun, or news of a child that has been replaced.
                Ok(_) | Err(RecvTimeoutError::Timeout) => {}
                Err(RecvTimeoutError::Disconnected) => {
                    return Err(Failure::new(Code::Software, "the supervisor has lost its own threads"));
                }
            }
            self.look_after()?;
        }
    }

    fn wait(&self) -> Duration {
        let dues = [Some(self.ping_due), self.pickup.due(), self.engine.due(), self.keyholder.due()];
        let dues = dues.into_iter().chain([self.stopping, self.tables_due, self.certificates_due]);
        let first = dues.flatten().min().unwrap_or(self.ping_due);
        first.saturating_duration_since(Instant::now()).max(Duration::from_millis(1))
    }

    /// What is due by the clock.
    fn look_after(&mut self) -> Result<(), Failure> {
        let now = Instant::now();
        if let Some(deadline) = self.stopping {
            if now >= deadline {
                return Err(Failure::new(
                    Code::TryLater,
                    format!("the engine did not stop within {} s and was ended", STOP.as_secs()),
                ));
            }
            return Ok(());
        }
        if self.keyholder.due().is_some_and(|due| due <= now) {
            self.start_keyholder()?;
        }
        if self.engine.due().is_some_and(|due| due <= now) {
            self.start_engine()?;
        }
        if self.tables_due.is_some_and(|due| due <= now) {
            self.tables_due = None;
            self.read_tables(None);
            self.renew_certificates();
        }
        if self.certificates_due.is_some_and(|due| due <= now) {
            self.renew_certificates();
        }
        self.pickup.look(&self.plan.state);
        if now >= self.ping_due {
            self.ping_due = now + PING;
            self.ping();
        }
        Ok(())
    }

    fn start_keyholder(&mut self) -> Result<(), Failure> {
        self.keyholder.start()?;
        (self.pinged, self.ping_answered) = (0, 0);
        self.keyholder
            .tell(&ToKeyholder::Start { parent: std::process::id(), owner: self.owners.keyholder().cloned() });
        for problem in self.custody.connect(&self.keyholder) {
            eprintln!("ringpost: {problem}");
        }
        self.shelf.connect(&self.keyholder)?;
        self.link_engine_and_keyholder()
    }

    /// Lanes between the two, once both run: a process that has been started again needs them anew.
    fn link_engine_and_keyholder(&self) -> Result<(), Failure> {
        if !self.engine.is_running() || !self.keyholder.is_running() {
            return Ok(());
        }
        for _ in 0..plan::signing_lanes(ringpost_io::ring::available_cpus().len()) {
            let (ours, theirs) = ringpost_io::sys::packet_pair()?;
            self.keyholder.hand(&ToKeyholder::Lane(keyholder::Lane::Signing), theirs.as_fd());
            self.engine.give(Purpose::Signing, ours.as_fd());
        }
        Ok(())
    }

    fn ping(&mut self) {
        if self.pinged > self.ping_answered {
            eprintln!("ringpost: the keyholder has not answered for {} s and is ended", PING.as_secs());
            self.keyholder.kill();
            return;
        }
        self.pinged += 1;
        self.keyholder.tell(&ToKeyholder::Ping(self.pinged));
    }

    fn keyholder_says(&mut self, letter: FromKeyholder) {
        match letter {
            FromKeyholder::Ready => {}
            FromKeyholder::Pong(number) => self.ping_answered = number,
        }
    }

    fn start_engine(&mut self) -> Result<(), Failure> {
        self.engine.start()?;
        self.equip_engine()
    }

    /// Gives a new engine all that it needs, and has it begin.
    fn equip_engine(&mut self) -> Result<(), Failure> {
        let plan = to_memory(&self.plan)?;
        self.engine.give(Purpose::Plan, plan.as_fd());
        for (purpose, socket) in self.sockets.all() {
            self.engine.give(purpose, socket);
        }
        self.lanes.retain(|lane| !lane.has_ended());
        let forwards = delivery::FOR_FORWARDS.into();
        for (purpose, bounds) in [(Purpose::Deliveries, self.deliveries.clone()), (Purpose::Forwards, forwards)] {
            let trust = Trust::new(self.config.mail_spool(), self.owners.keyholder());
            let (lane, end) = Lane::start(bounds, trust)?;
            self.engine.give(purpose, end.as_fd());
            self.lanes.push(lane);
        }
        self.shelf.follow(&self.plan.sources, self.plan.root.as_deref());
        for _ in 0..LOOKUP_LANES {
            self.engine.give(Purpose::Certificates, self.shelf.lane()?.as_fd());
        }
        self.engine.give(Purpose::Passwords, passwords::start(self.plan.root.as_deref())?.as_fd());
        for _ in 0..USER_LANES {
            let end = users::serve(self.plan.root.clone())?;
            self.engine.give(Purpose::Users, end.as_fd());
        }
        self.room = confinement::room(&self.plan, &self.config).ok();
        self.link_engine_and_keyholder()?;
        if let Some(engine) = self.owners.engine() {
            belongings::make_places(&self.config, engine);
        }
        self.engine.tell(&ToEngine::Start { parent: std::process::id(), owner: self.owners.engine().cloned() });
        Ok(())
    }

    fn engine_says(&mut self, letter: FromEngine) -> Result<(), Failure> {
        match letter {
            FromEngine::WantsStop if self.stopping.is_some() => {}
            FromEngine::Ready(ready) => {
                for line in &ready.damage {
                    eprintln!("ringpost: queue: {line}");
                }
                if self.was_ready {
                    eprintln!("ringpost: the engine runs again, {} messages in the queue", ready.messages);
                } else {
                    banner::print(&self.plan, &self.config, &self.sockets, &ready, &self.notes);
                }
                self.was_ready = true;
                self.pickup.begin();
                self.engine.is_well();
            }
            FromEngine::Failed(why) if self.was_ready => eprintln!("ringpost: the engine cannot start: {why}"),
            FromEngine::Failed(why) => return Err(Failure::new(Code::System, why)),
            FromEngine::WantsReload => self.reload(),
            FromEngine::WantsTable(name) => self.read_tables(Some(&name)),
            // The engine runs, for it has just said so: the end comes with its last letter.
            FromEngine::WantsStop => _ = self.stop(),
            FromEngine::Stopped(summary) => self.summary = Some(summary),
        }
        Ok(())
    }

    /// Whether that was the end.
    fn engine_ended(&mut self) -> Result<bool, Failure> {
        let how = self.engine.bury();
        if std::mem::take(&mut self.renewing) && self.stopping.is_none() {
            self.summary = None;
            self.start_engine()?;
            return Ok(false);
        }
        if self.stopping.is_some() {
            return match self.summary.take() {
                Some(summary) => {
                    banner::farewell(&self.plan, &summary);
                    Ok(true)
                }
                None => Err(Failure::new(Code::Software, format!("the engine ended ({how}) before all was said"))),
            };
        }
        if !self.was_ready {
            self.failures_before_ready += 1;
            if self.failures_before_ready >= 3 {
                return Err(Failure::new(
                    Code::Software,
                    format!("the engine ended ({how}) three times before it was ready"),
                ));
            }
        }
        let pause = self.engine.due().map_or(0.0, |due| due.saturating_duration_since(Instant::now()).as_secs_f64());
        eprintln!("ringpost: the engine ended ({how}); the queue is safe, it is started again in {pause:.1} s");
        Ok(false)
    }

    /// Begins to stop; whether there is nothing to wait for.
    fn stop(&mut self) -> bool {
        self.stopping = Some(Instant::now() + STOP);
        self.pickup.end();
        // What has not been accepted by now is refused by the kernel, not left waiting.
        self.sockets.close();
        self.engine.tell(&ToEngine::Stop);
        !self.engine.is_running()
    }

    /// Reads the configuration again; the engine gets it, or the report and nothing changes.
    fn reload(&mut self) {
        let read = Plan::read(&self.wish).and_then(|plan| match plan.config() {
            Ok((config, warnings)) => Ok((plan, config, warnings)),
            Err(report) => Err(plan::broken(report)),
        });
        let read = read.and_then(|(mut plan, config, mut notes)| {
            let taken = self.custody.take_up(&config, &plan.state, &self.plan.identities, Tell::All);
            self.look_again();
            let taken = taken.map_err(plan::broken)?;
            (plan.identities, plan.authorities) = (taken.identities, taken.authorities);
            plan.roots = encryption::system_certificates();
            notes.extend(taken.notes);
            Ok((plan, config, notes))
        });
        if self.custody.is_cut_off() {
            // Its end is on its way as news, and then it is started again.
            self.keyholder.kill();
        }
        let (plan, config, mut notes) = match read {
            Ok(read) => read,
            Err(failure) => {
                self.engine.tell(&ToEngine::ReloadRefused(cut(failure.text)));
                return;
            }
        };
        notes.extend(self.sockets.differences(&plan, &config));
        if plan::shards(&config, ringpost_io::ring::available_cpus().len()) != self.shards {
            notes.push("the number of shards changes at the next start".into());
        }
        notes.extend(self.watch.follow(&config));
        if let Some(why) = self.needs_another_engine(&plan, &config) {
            (self.plan, self.config, self.renewing) = (plan, config, true);
            self.deliveries.set(Bounds::of(&self.config.machinery));
            return self.engine.tell(&ToEngine::Renew(cut(why)));
        }
        self.hand_on(plan, config, &reload_with(notes));
    }

    /// What the engine may use was settled when it was started. Why a plan that names more, or less than it can be confined
    /// with, is for another one.
    fn needs_another_engine(&self, plan: &Plan, config: &Config) -> Option<String> {
        let again = "the engine is started again with the new configuration";
        match (&self.room, confinement::room(plan, config)) {
            (None, Ok(_)) => Some(format!("{again}, with which it can be confined")),
            (Some(_), Err(why)) => Some(format!("{again}, not confined: {why}")),
            (Some(given), Ok(wanted)) => {
                confinement::lacks(given, &wanted).map(|place| format!("{again}, which names {}", place.display()))
            }
            (None, Err(_)) => None,
        }
    }

    /// Reads text files of tables again, the named one or those that are watched; the rest of the configuration stays as it
    /// was read.
    fn read_tables(&mut self, name: Option<&str>) {
        let outcome = self.plan.with_tables_read_again(&self.config, name).and_then(|(plan, tables)| {
            let (config, _) = plan.config()?;
            Ok((plan, config, tables))
        });
        match outcome {
            Ok((_, _, tables)) if tables.is_empty() => {}
            Ok((plan, config, tables)) => {
                self.hand_on(plan, config, &ToEngine::TablesRead(tables));
                // Entries of a list of certificates may name others now.
                self.watch.follow(&self.config).iter().for_each(|problem| eprintln!("ringpost: {problem}"));
                self.renew_certificates();
            }
            Err(report) => self.engine.tell(&ToEngine::ReloadRefused(cut(report))),
        }
    }

    /// Takes up certificates that have been renewed. As long as they do not fit each other, those that are there stay.
    fn renew_certificates(&mut self) {
        if self.custody.has_news(&self.config, &self.plan.state) {
            self.take_up_renewed();
        }
        self.look_again();
        if self.custody.is_cut_off() {
            self.keyholder.kill();
        }
    }

    fn take_up_renewed(&mut self) {
        let taken = self.custody.take_up(&self.config, &self.plan.state, &self.plan.identities, Tell::News);
        let renewed = taken.and_then(|taken| {
            let mut plan = self.plan.clone();
            (plan.identities, plan.authorities) = (taken.identities, taken.authorities);
            let (config, _) = plan.config()?;
            Ok((plan, config, taken.notes))
        });
        match renewed {
            Ok((plan, config, mut notes)) => {
                notes.insert(0, "certificates have been renewed".into());
                self.hand_on(plan, config, &reload_with(notes));
            }
            Err(why) => eprintln!("ringpost: certificates have changed, and the old ones stay in use: {why}"),
        }
    }

    /// Certificates that cannot be used may be usable in a while, and no file says so.
    fn look_again(&mut self) {
        let again = || Instant::now() + CERTIFICATES_AGAIN;
        self.certificates_due = self.custody.is_incomplete().then(again);
    }

    /// From now on this plan holds, here and in the engine, which is told so by `letter`.
    fn hand_on(&mut self, plan: Plan, config: Config, letter: &ToEngine) {
        self.shelf.follow(&plan.sources, plan.root.as_deref());
        match to_memory(&plan) {
            Ok(memory) => {
                self.engine.give(Purpose::Plan, memory.as_fd());
                self.engine.tell(letter);
                (self.plan, self.config) = (plan, config);
                self.deliveries.set(Bounds::of(&self.config.machinery));
            }
            Err(error) => self.engine.tell(&ToEngine::ReloadRefused(error.to_string())),
        }
    }

    /// SIGHUP also comes when the terminal of a server in the foreground is closed: then it means stop.
    fn terminal_is_gone(&self) -> bool {
        self.on_terminal && !std::io::stderr().is_terminal()
    }
}

/// As many notes, and as much of each, as a letter holds.
fn reload_with(notes: Vec<String>) -> ToEngine {
    ToEngine::Reload { notes: notes.into_iter().take(NOTES).map(cut_line).collect() }
}

fn cut_line(mut line: String) -> String {
    line.truncate(line.floor_char_boundary(500));
    line
}
