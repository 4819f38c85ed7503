//! Certificates of tables for the engine. Each lane is a thread that does one at a time: a process looks it up
//! (`crate::lookup`), and its key, which comes as an open file, is held by the keyholder. Nothing of a key is read here.

use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::process::CommandExt;
use std::process::Stdio;
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use ringpost_conf::tables::{Keys, ServiceKind};
use ringpost_tls::Certificate;
use rustix::net::sockopt::{Timeout, set_socket_timeout};

use super::spawn::{Child, own_program};
use crate::coordinator::tables::Declared;
use crate::ipc::codec::{Channel, to_memory};
use crate::ipc::keyholder::{Custody as Order, FIRST_FOUND, Kept, KeyPurpose, Lane, ToKeyholder};
use crate::ipc::shelf::{Found, Seen, Task, Wanted};
use crate::limits::{CUSTODY, LOOKUP_GRACE, LOOKUP_PROCESS};

/// What all lanes share; it outlives engines and keyholders.
#[derive(Clone, Debug, Default)]
pub struct Shelf(Arc<Shared>);

#[derive(Debug, Default)]
struct Shared {
    custody: Mutex<Option<Channel>>,
    /// How many keys were given numbers.
    count: AtomicU32,
    /// The tables in force, and below which directory they are.
    tables: Mutex<(Vec<Declared>, Option<std::path::PathBuf>)>,
}

impl Shelf {
    /// The tables that certificates are looked up in from now on.
    pub fn follow(&self, tables: &[Declared], root: Option<&std::path::Path>) {
        *lock(&self.0.tables) = (tables.to_vec(), root.map(std::path::Path::to_owned));
    }

    /// A keyholder has been started, and has none of the keys.
    ///
    /// # Errors
    /// Out of descriptors.
    pub fn connect(&self, keyholder: &Child) -> io::Result<()> {
        let (ours, theirs) = Channel::pair()?;
        set_socket_timeout(&ours, Timeout::Recv, Some(CUSTODY))?;
        keyholder.hand(&ToKeyholder::Lane(Lane::Custody), theirs.as_fd());
        *lock(&self.0.custody) = Some(ours);
        Ok(())
    }

    /// Starts a lane, which ends with the engine; the engine's end of its channel.
    ///
    /// # Errors
    /// Out of descriptors or threads.
    pub fn lane(&self) -> io::Result<OwnedFd> {
        let (ours, theirs) = Channel::pair()?;
        let shelf = self.clone();
        std::thread::Builder::new().name("certificates".into()).spawn(move || {
            while let Ok(Some((wanted, _))) = ours.receive::<Wanted>() {
                let found = shelf.find(&wanted).unwrap_or_else(Found::Failed);
                if ours.send(&found).is_err() {
                    return;
                }
            }
        })?;
        Ok(theirs)
    }

    fn find(&self, wanted: &Wanted) -> Result<Found, String> {
        let (table, root) = {
            let tables = lock(&self.0.tables);
            let table = tables.0.iter().find(|table| table.name == wanted.table).cloned();
            (table.ok_or("the table is not in the configuration any more")?, tables.1.clone())
        };
        let wait = (table.timeout + LOOKUP_GRACE).min(LOOKUP_PROCESS);
        let keys = Keys::new(ServiceKind::Cert, &wanted.name, '+').map(|key| key.as_str().to_owned()).collect();
        let task = Task { table, root, keys, known: wanted.known.clone() };
        let (seen, key) = look_up(&task, wait).map_err(|error| format!("the lookup has failed: {error}"))?;
        let (chain, key) = match (seen, key) {
            (Seen::New(chain), Some(key)) => (chain, key),
            (Seen::New(_), None) => return Err("the key was lost on its way".to_owned()),
            (Seen::Same, _) => return Ok(Found::Same),
            (Seen::Nothing, _) => return Ok(Found::Nothing),
            (Seen::Failed(why), _) => return Err(why),
        };
        let certificate = Certificate::parse(chain.clone()).map_err(|failure| failure.text)?;
        let number = FIRST_FOUND + self.0.count.fetch_add(1, Ordering::Relaxed) % FIRST_FOUND;
        let public_key = self.hold(number, &key)?;
        match certificate.public_key() == public_key {
            true => Ok(Found::New { chain, key: number }),
            false => Err("its key does not belong to its certificate".to_owned()),
        }
    }

    fn hold(&self, key: u32, file: &OwnedFd) -> Result<Vec<u8>, String> {
        let mut lane = lock(&self.0.custody);
        let open = lane.as_ref().ok_or("the keyholder is being started")?;
        rustix::fs::seek(file, rustix::fs::SeekFrom::Start(0)).map_err(|error| error.to_string())?;
        let order = Order::Hold { key, purpose: KeyPurpose::TlsServer };
        match open.send_with(&order, Some(file.as_fd())).and_then(|()| open.receive::<Kept>()) {
            Ok(Some((Kept::PublicKey(public_key), _))) => Ok(public_key),
            Ok(Some((Kept::Refused(why), _))) => Err(why),
            _ => {
                // What it says from now on would be about something else.
                *lane = None;
                Err("the keyholder does not answer".to_owned())
            }
        }
    }
}

/// Has a process do it, which is ended if it takes too long.
fn look_up(task: &Task, wait: Duration) -> io::Result<(Seen, Option<OwnedFd>)> {
    let (ours, theirs) = Channel::pair()?;
    set_socket_timeout(&ours, Timeout::Recv, Some(wait))?;
    let mut child = own_program("lookup");
    child.stdin(Stdio::from(theirs)).stdout(Stdio::null()).process_group(0);
    let mut child = child.spawn()?;
    let letter = to_memory(task)?;
    let answer = ours.send_with(&std::process::id(), Some(letter.as_fd())).and_then(|()| ours.receive::<Seen>());
    // It may have ended by itself, which it does when it has answered.
    if answer.is_err() {
        let _ = child.kill();
    }
    let _ = child.wait();
    answer?.ok_or_else(|| io::Error::new(io::ErrorKind::UnexpectedEof, "it has ended without an answer"))
}

fn lock<T>(mutex: &Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
