//! Errands of the engine: deliveries as other users, and the reading of their files. Each is done by a helper process of
//! its own (`errand.rs` is its life); here is who goes next, who takes too long, and what is told of it.
//!
//! A lane is a thread with a channel to the engine. So many helpers are under way at once, so many errands wait, and beyond
//! that the channel is not read: the engine waits, and in the end its clients do. When the engine is gone, helpers that
//! write finish, and programs are told to end: the mail is still in the queue, and would else come twice.

mod errand;
mod maildir;
mod mbox;
mod refusal;
mod trust;
mod verdict;

use std::collections::VecDeque;
use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::process::{Child, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use ringpost_conf::Machinery;
use ringpost_shard::{Forwarding, How};
use rustix::event::{PollFd, PollFlags, poll};

pub use self::errand::run;
pub use self::trust::Trust;
use super::programs::timespec;
use super::spawn::own_program;
use crate::ipc::codec::Channel;
use crate::ipc::supervisor::{Answer, Errand, Report, Work};
use crate::limits::{
    DELIVERIES, DELIVERIES_PER_USER, ERRANDS_WAITING, FORWARDS, HELPER, HELPER_READS, LANES_END, PROGRAM, PROGRAM_END,
};

/// How much a lane does at once.
#[derive(Clone, Copy, Debug)]
pub struct Bounds {
    at_once: usize,
    per_user: usize,
}

impl Bounds {
    /// Of deliveries, as `mda limit` has them.
    pub fn of(machinery: &Machinery) -> Self {
        let or = |limit: Option<u32>, default: usize| limit.map_or(default, |limit| limit as usize);
        let at_once = or(machinery.deliveries_max, DELIVERIES);
        Self { at_once, per_user: or(machinery.deliveries_per_user_max, DELIVERIES_PER_USER) }
    }
}

/// Bounds that a reload may change under a running lane.
#[derive(Clone, Debug)]
pub struct Bounded(Arc<[AtomicUsize; 2]>);

impl From<Bounds> for Bounded {
    fn from(Bounds { at_once, per_user }: Bounds) -> Self {
        Self(Arc::new([at_once.into(), per_user.into()]))
    }
}

impl Bounded {
    /// From the next errand on.
    pub fn set(&self, Bounds { at_once, per_user }: Bounds) {
        self.0[0].store(at_once, Ordering::Relaxed);
        self.0[1].store(per_user, Ordering::Relaxed);
    }

    fn get(&self) -> Bounds {
        Bounds { at_once: self.0[0].load(Ordering::Relaxed), per_user: self.0[1].load(Ordering::Relaxed) }
    }
}

/// Reading `.forward` files: beside the deliveries, for a client waits for each.
pub const FOR_FORWARDS: Bounds = Bounds { at_once: FORWARDS, per_user: FORWARDS };

/// A running lane. It ends when the engine's end of its channel is closed and its helpers have ended.
pub struct Lane(JoinHandle<()>);

impl Lane {
    /// Starts one that does what may be done; the engine's end of its channel.
    ///
    /// # Errors
    /// Out of descriptors or threads.
    pub fn start(bounds: impl Into<Bounded>, trust: Trust) -> io::Result<(Self, OwnedFd)> {
        Self::start_with(bounds.into(), trust, Box::new(start_helper))
    }

    fn start_with(bounds: Bounded, trust: Trust, start: Box<StartHelper>) -> io::Result<(Self, OwnedFd)> {
        let (ours, theirs) = Channel::pair()?;
        let (waiting, running) = (VecDeque::new(), Vec::new());
        let errands = Errands { engine: ours, open: true, waiting, running, bounds, trust, start };
        let thread = std::thread::Builder::new().name("errands".into()).spawn(move || errands.run())?;
        Ok((Self(thread), theirs))
    }

    /// Whether it has ended.
    pub fn has_ended(&self) -> bool {
        self.0.is_finished()
    }

    /// Waits for the ends of lanes whose engine is gone; not for ever.
    pub fn join(lanes: Vec<Self>) {
        let deadline = Instant::now() + LANES_END;
        while Instant::now() < deadline && !lanes.iter().all(Self::has_ended) {
            std::thread::sleep(Duration::from_millis(2));
        }
    }
}

/// Starts a helper with this as its standard input.
type StartHelper = dyn Fn(OwnedFd) -> io::Result<Child> + Send;

fn start_helper(channel: OwnedFd) -> io::Result<Child> {
    own_program("errand").stdin(Stdio::from(channel)).stdout(Stdio::null()).spawn()
}

/// What a lane's thread has.
struct Errands {
    engine: Channel,
    /// The engine is there.
    open: bool,
    waiting: VecDeque<(Errand, Option<OwnedFd>)>,
    running: Vec<Helper>,
    bounds: Bounded,
    trust: Trust,
    start: Box<StartHelper>,
}

struct Helper {
    errand: Errand,
    child: Child,
    channel: Channel,
    deadline: Instant,
}

impl Errands {
    fn run(mut self) {
        while self.open || !self.running.is_empty() {
            let Some((from_engine, helper)) = self.wait() else { continue };
            if let Some(index) = helper {
                self.hear(index);
            } else if from_engine {
                self.take();
            }
            self.end_late_ones();
            self.send_out();
        }
    }

    /// Waits for something to happen: whether the engine says something, and the first helper that does.
    fn wait(&self) -> Option<(bool, Option<usize>)> {
        let mut fds: Vec<PollFd<'_>> =
            self.running.iter().map(|helper| PollFd::from_borrowed_fd(helper.channel.as_fd(), PollFlags::IN)).collect();
        if self.open && self.waiting.len() < ERRANDS_WAITING {
            fds.push(PollFd::from_borrowed_fd(self.engine.as_fd(), PollFlags::IN));
        }
        let deadline = self.running.iter().map(|helper| helper.deadline).min();
        let time = deadline.map(|deadline| timespec(deadline.saturating_duration_since(Instant::now())));
        match poll(&mut fds, time.as_ref()) {
            Ok(_) => {}
            Err(rustix::io::Errno::INTR) => return None,
            Err(error) => {
                // Out of memory for a moment; without the pause this would be a busy loop.
                eprintln!("ringpost: errands: {error}");
                std::thread::sleep(Duration::from_millis(100));
                return None;
            }
        }
        let speaks = |fd: &PollFd<'_>| !fd.revents().is_empty();
        let helper = fds[..self.running.len()].iter().position(speaks);
        Some((fds.get(self.running.len()).is_some_and(speaks), helper))
    }

    /// The engine says something, or is gone.
    fn take(&mut self) {
        match self.engine.receive::<Errand>() {
            Ok(Some((errand, text))) => match self.trust.refusal(&errand.work) {
                Some(why) => self.tell(&errand, errand.work.failed(why), None),
                None => self.waiting.push_back((errand, text)),
            },
            gone => {
                if let Err(error) = gone {
                    eprintln!("ringpost: errands: the engine makes no sense: {error}");
                }
                self.open = false;
                self.waiting.clear();
                self.running.iter().for_each(|helper| helper.channel.hang_up());
            }
        }
    }

    /// Sends helpers out while there may be more. Whose turn it is: the first whose user has not too many out already.
    fn send_out(&mut self) {
        let bounds = self.bounds.get();
        while self.open && self.running.len() < bounds.at_once {
            let is_free = |errand: &Errand| {
                let uid = errand.work.user().uid;
                let of_user = self.running.iter().filter(|helper| helper.errand.work.user().uid == uid);
                of_user.count() < bounds.per_user
            };
            let Some(next) = self.waiting.iter().position(|(errand, _)| is_free(errand)) else { return };
            let Some((errand, text)) = self.waiting.remove(next) else { return };
            match self.begin(&errand, text) {
                Ok((child, channel)) => {
                    let deadline = Instant::now() + time_of(&errand.work);
                    self.running.push(Helper { errand, child, channel, deadline });
                }
                Err(error) => {
                    let why = format!("no helper can be started: {error}");
                    self.tell(&errand, errand.work.failed(&why), None);
                }
            }
        }
    }

    fn begin(&self, errand: &Errand, text: Option<OwnedFd>) -> io::Result<(Child, Channel)> {
        let (ours, theirs) = Channel::pair()?;
        // Before it runs: the letter waits for it.
        ours.send_with(errand, text.as_ref().map(|text| text.as_fd()))?;
        Ok(((self.start)(theirs)?, ours))
    }

    /// A helper reports, or has died. In both cases it is over with it: a user may have stopped what runs as him.
    fn hear(&mut self, index: usize) {
        let mut helper = self.running.swap_remove(index);
        let (answer, text) = match helper.channel.receive::<Report>() {
            Ok(Some((report, text))) if helper.errand.work.fits(&report.answer) => (report.answer, text),
            _ => (helper.errand.work.failed("its helper process died"), None),
        };
        bury(&mut helper.child);
        self.tell(&helper.errand, answer, text);
    }

    fn end_late_ones(&mut self) {
        let now = Instant::now();
        while let Some(late) = self.running.iter().position(|helper| helper.deadline <= now) {
            let mut helper = self.running.swap_remove(late);
            bury(&mut helper.child);
            self.tell(&helper.errand, helper.errand.work.failed("its helper process took too long"), None);
        }
    }

    fn tell(&self, errand: &Errand, answer: Answer, text: Option<OwnedFd>) {
        let text = text.filter(|_| matches!(answer, Answer::Forward(Forwarding::Text(_))));
        let report = Report { id: errand.id, answer };
        if self.open {
            // An engine that is gone tries it again when it is back.
            let _ = self.engine.send_with(&report, text.as_ref().map(|text| text.as_fd()));
        }
    }
}

/// How long a helper may take.
fn time_of(work: &Work) -> Duration {
    match work {
        Work::Deliver(handover) if matches!(handover.how, How::Program { .. }) => PROGRAM + PROGRAM_END + HELPER,
        Work::Deliver(_) => HELPER,
        Work::ReadForward(_) | Work::ReadList { .. } => HELPER_READS,
    }
}

fn bury(child: &mut Child) {
    // It may have ended by itself.
    let _ = child.kill();
    let _ = child.wait();
}

#[cfg(test)]
mod tests;
