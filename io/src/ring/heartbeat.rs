//! Keeps a glommio executor from sleeping while tasks are ready.
//!
//! The defect (0.9.0, `LocalExecutor::run`): when anything sits in the completion queue of the latency ring before the first
//! task of a turn has run (the preemption timer, because the thread was not scheduled for that long, or a notification
//! from another thread that came late), the turn ends with nothing run. The loop takes that for "nothing to do"
//! and goes to sleep, if no new event stops it, until the next event comes. That may be a client's timeout of five minutes; two
//! shards that wrote to each other stood still like that after some thousands of letters, a shard under `strace` after
//! some hundred commands.
//!
//! The remedy: a timer that is due keeps it from sleeping. So the preemption timer is longer than the interval between two
//! beats of a busy executor: by the time it can fire too early, a beat is due. Two tasks beat out of step, because one that has
//! just been woken is itself among the tasks that do not run. Notifications that interrupt are avoided altogether
//! (`Latency::NotImportant`); the rest is rare, and over at the next beat. An idle executor beats slowly. Both beats may
//! themselves be among what does not run; whoever runs a server wakes its executors from outside as well.

use std::cell::Cell;
use std::rc::Rc;
use std::time::Duration;

use super::timer;

/// After so long glommio ends a turn to look at the rings, though tasks are ready.
pub(super) const PREEMPT: Duration = Duration::from_secs(2);

/// Between two beats: while tasks run, and while hardly any do.
const BEATS: [(Duration, Duration); 2] =
    [(Duration::from_millis(7), Duration::from_millis(40)), (Duration::from_millis(9), Duration::from_millis(70))];

/// So many tasks in one interval are nothing but the beats themselves, and a timer or two.
const IDLE_TASKS_MAX: u64 = 8;

const _: () = assert!(BEATS[0].0.as_millis() < PREEMPT.as_millis() && BEATS[1].0.as_millis() < PREEMPT.as_millis());

/// Starts the beats of this executor. They end with it.
pub(super) fn start() {
    let busy = Rc::new(Cell::new(true));
    for (number, (fast, slow)) in BEATS.into_iter().enumerate() {
        let busy = busy.clone();
        let beats = async move {
            loop {
                timer::sleep(if busy.get() { fast } else { slow }).await;
                // Reading the statistics begins them anew: only one of us may.
                if number == 0 {
                    busy.set(glommio::executor().executor_stats().tasks_executed() > IDLE_TASKS_MAX);
                }
            }
        };
        glommio::spawn_local(beats).detach();
    }
}
