//! A thread that wakes every shard now and then, whether or not there is something to do.
//!
//! glommio 0.9 may put an executor to sleep although tasks are ready (io/src/ring/heartbeat.rs tells how), until the next
//! event comes. Timers of its own are among what may not run then, so the event has to come from outside. A task that
//! has been woken and did not run cannot be woken again; so there are several, woken in turn.

use std::time::Duration;

use ringpost_io::ring::RingRuntime;
use ringpost_io::{Class, Mailbox, Runtime, Sender};

/// Between two pulses of a shard: the longest that it may oversleep, beside what an idle shard's wakes cost (100 a second,
/// some 10 µs each).
const EVERY: Duration = Duration::from_millis(10);
/// Tasks of each shard that are woken in turn: so many pulses in a row must meet the defect before one is in vain.
const TASKS: usize = 6;

/// The receiving ends of one shard.
pub struct Pulses(Vec<Mailbox<()>>);

/// Starts the thread; it ends with the process.
///
/// # Errors
/// The thread cannot be had.
pub fn start(shards: usize) -> Result<Vec<Pulses>, String> {
    let (mut senders, mut receivers): (Vec<Vec<Sender<()>>>, Vec<Pulses>) = (Vec::new(), Vec::new());
    for _ in 0..shards {
        let (ends, mailboxes) = (0..TASKS).map(|_| Mailbox::new(1)).unzip();
        senders.push(ends);
        receivers.push(Pulses(mailboxes));
    }
    let beat = move || {
        for turn in (0..TASKS).cycle() {
            std::thread::sleep(EVERY);
            for shard in &senders {
                // Full: this task has been woken before and has not run yet.
                let _ = shard[turn].try_send(());
            }
        }
    };
    let thread = std::thread::Builder::new().name("pulse".into()).spawn(beat);
    thread.map(|_| receivers).map_err(|error| format!("cannot start the thread pulse: {error}"))
}

impl Pulses {
    /// Takes the pulses on the shard's executor.
    pub fn receive(self, runtime: &RingRuntime) {
        for mailbox in self.0 {
            runtime.spawn(Class::Background, async move { while mailbox.receive().await.is_some() {} });
        }
    }
}
