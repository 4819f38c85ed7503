//! Threads for what has no place on the ring: directories, renames, whole files.
//!
//! glommio's own pool wakes its executor in the way that `bell.rs` avoids. They are started beside the shard's thread and not
//! on it, or they would wait for disks on the shard's own CPU.

use std::io;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::rc::Rc;
use std::thread::Builder;

use crossbeam::channel::{Receiver, Sender, unbounded};

use crate::Mailbox;
use crate::limits::BLOCKING_THREADS;

type Job = Box<dyn FnOnce() + Send>;

/// The threads of one executor; they end when it drops this.
#[derive(Clone)]
pub(super) struct Blocking {
    /// Each waits for its answer, so callers bound it.
    jobs: Rc<Sender<Job>>,
}

/// The way to threads that run already, for the executor that will own them.
pub(super) struct Started(Sender<Job>);

/// Starts the threads, on the CPUs of the calling thread.
pub(super) fn start() -> io::Result<Started> {
    let (sender, jobs) = unbounded::<Job>();
    for number in 0..BLOCKING_THREADS {
        let jobs: Receiver<Job> = jobs.clone();
        Builder::new().name(format!("blocking-{number}")).spawn(move || {
            for job in jobs {
                // Its caller hears of it: the answer never comes.
                let _ = catch_unwind(AssertUnwindSafe(job));
            }
        })?;
    }
    Ok(Started(sender))
}

impl Started {
    /// For the executor's thread.
    pub(super) fn own(self) -> Blocking {
        Blocking { jobs: Rc::new(self.0) }
    }
}

impl Blocking {
    /// Runs it on one of the threads.
    pub(super) async fn run<T: Send + 'static>(
        &self,
        work: impl FnOnce() -> io::Result<T> + Send + 'static,
    ) -> io::Result<T> {
        let (sender, answer) = Mailbox::new(1);
        let job = move || {
            // Nobody waits any longer: then nobody misses it.
            let _ = sender.try_send(work());
        };
        let given = self.jobs.send(Box::new(job));
        given.map_err(|_| io::Error::other("the threads are gone"))?;
        answer.receive().await.unwrap_or_else(|| Err(io::Error::other("the thread panicked")))
    }
}
