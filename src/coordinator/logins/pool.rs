//! Threads that check passwords: a hash is slow on purpose, and the supervisor may be, so nobody else waits for it.

use std::io;
use std::sync::Arc;
use std::sync::Mutex;

use crossbeam::channel::{Receiver, Sender, TrySendError, bounded};
use ringpost_smtp::server::Secret;
use rustix::net::sockopt::{Timeout, set_socket_timeout};
use tokio::sync::oneshot;
use zeroize::Zeroize;

use crate::ipc::codec::Channel;
use crate::ipc::passwords::{Found, SystemLogin, SystemVerdict};
use crate::limits::{LOGINS, SYSTEM_LOGIN};
use crate::passwords::{self, Checked};

/// The threads. They end with this.
pub struct Pool(Sender<Job>);

struct Job {
    password: Secret,
    against: Against,
    answer: oneshot::Sender<Result<Checked, String>>,
}

/// What a password is held against.
pub enum Against {
    /// A hash.
    Hash(String),
    /// What the system has of this user.
    System(String),
}

/// The way to the supervisor, one question at a time.
struct System {
    lane: Option<Channel>,
    number: u64,
}

impl Pool {
    /// Starts so many threads.
    ///
    /// # Errors
    /// A thread cannot be had.
    pub fn start(threads: usize, lane: Option<Channel>) -> io::Result<Self> {
        if let Some(lane) = &lane {
            for which in [Timeout::Recv, Timeout::Send] {
                set_socket_timeout(lane, which, Some(SYSTEM_LOGIN))?;
            }
        }
        let (sender, jobs) = bounded(LOGINS);
        let system = Arc::new(Mutex::new(System { lane, number: 0 }));
        for _ in 0..threads.max(1) {
            let (jobs, system) = (jobs.clone(), system.clone());
            std::thread::Builder::new().name("passwords".into()).spawn(move || work(&jobs, &system))?;
        }
        Ok(Self(sender))
    }

    /// Checks a password.
    ///
    /// # Errors
    /// Nobody can say, and why.
    pub async fn check(&self, password: Secret, against: Against) -> Result<Checked, String> {
        let (answer, wait) = oneshot::channel();
        match self.0.try_send(Job { password, against, answer }) {
            Ok(()) => wait.await.unwrap_or_else(|_| Err("the thread that checks passwords has ended".into())),
            Err(TrySendError::Full(_)) => Err(format!("{LOGINS} passwords wait to be checked")),
            Err(TrySendError::Disconnected(_)) => Err("the threads that check passwords have ended".into()),
        }
    }
}

fn work(jobs: &Receiver<Job>, system: &Mutex<System>) {
    for Job { password, against, answer } in jobs {
        // The client may have given up meanwhile.
        if answer.is_closed() {
            continue;
        }
        let checked = match against {
            Against::Hash(hash) => Ok(passwords::check(password.reveal(), &hash)),
            Against::System(user) => system.lock().expect("nobody panics with it").ask(user, password.reveal()),
        };
        let _ = answer.send(checked);
    }
}

impl System {
    fn ask(&mut self, user: String, password: &str) -> Result<Checked, String> {
        self.number += 1;
        let lane = self.lane.as_ref().ok_or("there is no way to the system's users")?;
        let gone = |error: io::Error| format!("the supervisor does not answer: {error}");
        let mut letter = SystemLogin { number: self.number, user, password: password.to_owned() };
        let sent = lane.send_secret(&letter);
        letter.password.zeroize();
        sent.map_err(gone)?;
        loop {
            let said = lane.receive::<SystemVerdict>().map_err(gone)?;
            let (SystemVerdict { number, found }, _) = said.ok_or("the supervisor has hung up")?;
            // One that came too late is not the answer to this.
            if number == self.number {
                return match found {
                    Found::Right => Ok(Checked::Right),
                    Found::Wrong => Ok(Checked::Wrong),
                    Found::Failed(why) => Err(why),
                };
            }
        }
    }
}
