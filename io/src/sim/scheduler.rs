//! Runs the tasks of all nodes on one thread: a random one of those that are ready, then the next, and when none is ready
//! time jumps to the next event. The seed decides every choice, so it decides everything.

use std::cell::{Cell, RefCell};
use std::collections::BTreeMap;
use std::future::Future;
use std::pin::Pin;
use std::rc::Rc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::task::{Context, Poll, Wake, Waker};
use std::time::Duration;

use super::clock::{Clock, Event};
use super::random::Random;

/// What one poll of a task costs in virtual time: so a task that spins does not stop the clock.
pub const POLL_COST: Duration = Duration::from_micros(1);

pub(super) struct Scheduler {
    clock: Rc<Clock>,
    random: RefCell<Random>,
    tasks: RefCell<BTreeMap<u64, Task>>,
    ready: Arc<Mutex<Vec<u64>>>,
    made: Cell<u64>,
    polls: Cell<u64>,
    fingerprint: Cell<u64>,
}

struct Task {
    owner: Owner,
    /// Absent while it is polled.
    future: Option<Pin<Box<dyn Future<Output = ()>>>>,
    waker: Waker,
    alarm: Arc<Alarm>,
}

/// Whose task it is: a node's number and which of its lives.
pub(super) type Owner = (usize, u64);

/// The number of the future that [`Scheduler::block_on`] polls; it is nobody's task.
const OUTSIDE: u64 = 0;

struct Alarm {
    number: u64,
    /// Already among the ready ones.
    rung: AtomicBool,
    ready: Arc<Mutex<Vec<u64>>>,
}

impl Wake for Alarm {
    fn wake(self: Arc<Self>) {
        self.wake_by_ref();
    }

    fn wake_by_ref(self: &Arc<Self>) {
        if !self.rung.swap(true, Ordering::Relaxed) {
            self.ready.lock().expect("nobody panics with it").push(self.number);
        }
    }
}

/// What one step has done.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Step {
    /// Something happened.
    Done,
    /// The future of [`Scheduler::block_on`] is to be polled.
    Outside,
    /// Nothing is ready, and nothing will be before the limit.
    Idle,
}

impl Scheduler {
    pub(super) fn new(clock: Rc<Clock>, random: Random) -> Self {
        Self {
            clock,
            random: RefCell::new(random),
            tasks: RefCell::default(),
            ready: Arc::default(),
            made: Cell::new(OUTSIDE + 1),
            polls: Cell::new(0),
            fingerprint: Cell::new(0),
        }
    }

    pub(super) fn spawn(&self, owner: Owner, future: impl Future<Output = ()> + 'static) {
        let number = self.made.get();
        self.made.set(number + 1);
        let alarm = self.alarm(number);
        let waker = Waker::from(alarm.clone());
        waker.wake_by_ref();
        let task = Task { owner, future: Some(Box::pin(future)), waker, alarm };
        self.tasks.borrow_mut().insert(number, task);
    }

    /// Ends all tasks of which this is true. One that is just being polled ends after its poll.
    pub(super) fn end(&self, of: impl Fn(Owner) -> bool) {
        let ended: Vec<Task> = {
            let mut tasks = self.tasks.borrow_mut();
            let numbers: Vec<u64> =
                tasks.iter().filter(|(_, task)| of(task.owner)).map(|(&number, _)| number).collect();
            numbers.iter().filter_map(|number| tasks.remove(number)).collect()
        };
        // Their destructors may spawn and wake: nothing is borrowed here.
        drop(ended);
    }

    /// How many tasks of which this is true have not ended.
    pub(super) fn count(&self, of: impl Fn(Owner) -> bool) -> usize {
        self.tasks.borrow().values().filter(|task| of(task.owner)).count()
    }

    /// One event or one poll; time does not pass `until`.
    pub(super) fn step(&self, until: Duration) -> Step {
        if let Some(event) = self.clock.take_due() {
            match event {
                Event::Wake(waker) => waker.wake(),
                Event::Call(call) => call(),
            }
            return Step::Done;
        }
        let Some(number) = self.pick() else {
            return if self.clock.jump(until) { Step::Done } else { Step::Idle };
        };
        self.clock.pass(POLL_COST);
        self.note(number);
        if number == OUTSIDE {
            return Step::Outside;
        }
        self.poll(number);
        Step::Done
    }

    fn pick(&self) -> Option<u64> {
        let mut ready = self.ready.lock().expect("nobody panics with it");
        let count = ready.len();
        (count > 0).then(|| ready.swap_remove(self.random.borrow_mut().index(count)))
    }

    fn poll(&self, number: u64) {
        let (mut future, waker) = {
            let mut tasks = self.tasks.borrow_mut();
            let Some(task) = tasks.get_mut(&number) else { return };
            task.alarm.rung.store(false, Ordering::Relaxed);
            let future = task.future.take().expect("polled by one at a time");
            (future, task.waker.clone())
        };
        let ended = future.as_mut().poll(&mut Context::from_waker(&waker)).is_ready();
        let mut tasks = self.tasks.borrow_mut();
        let over = if ended {
            tasks.remove(&number)
        } else {
            match tasks.get_mut(&number) {
                Some(task) => {
                    task.future = Some(future);
                    return;
                }
                // Its node has crashed meanwhile, perhaps by its own doing.
                None => None,
            }
        };
        drop(tasks);
        drop((over, future));
    }

    /// Polls a future of the world outside together with all tasks, until it ends, time is up or all stands still.
    pub(super) fn block_on<T>(&self, future: impl Future<Output = T>, until: Duration) -> Option<T> {
        let mut future = std::pin::pin!(future);
        let alarm = self.alarm(OUTSIDE);
        let waker = Waker::from(alarm.clone());
        waker.wake_by_ref();
        while self.clock.elapsed() <= until {
            match self.step(until) {
                Step::Done => {}
                Step::Idle => break,
                Step::Outside => {
                    alarm.rung.store(false, Ordering::Relaxed);
                    if let Poll::Ready(value) = future.as_mut().poll(&mut Context::from_waker(&waker)) {
                        self.forget_outside();
                        return Some(value);
                    }
                }
            }
        }
        self.forget_outside();
        None
    }

    fn forget_outside(&self) {
        self.ready.lock().expect("nobody panics with it").retain(|&number| number != OUTSIDE);
    }

    fn alarm(&self, number: u64) -> Arc<Alarm> {
        Arc::new(Alarm { number, rung: AtomicBool::new(false), ready: self.ready.clone() })
    }

    fn note(&self, number: u64) {
        self.polls.set(self.polls.get() + 1);
        let mixed = Random::new(self.fingerprint.get() ^ number ^ (self.clock.elapsed().as_nanos() as u64)).next_u64();
        self.fingerprint.set(mixed);
    }

    pub(super) fn polls(&self) -> u64 {
        self.polls.get()
    }

    /// Equal after two runs only if both did the same things at the same times.
    pub(super) fn fingerprint(&self) -> u64 {
        self.fingerprint.get()
    }
}
