//! The process that alone has private keys (architecture promise 5). It has no network and no ring, opens no files, and its
//! memory cannot be read by the engine's user; it ends with its supervisor. Where root has started that, it is a user of its
//! own. Keys come in as open files (`keys.rs`), each
//! connection has a thread of its own, and all that the engine's get is signatures of handshakes (`sign.rs`).

pub mod keys;
mod sandbox;
mod sign;

use std::fs::File;
use std::io;
use std::os::fd::OwnedFd;
use std::sync::Arc;

use ringpost_io::sys::{self, Step};

use self::keys::Keys;
use crate::ipc::codec::Channel;
use crate::ipc::keyholder::{Custody, FromKeyholder, Kept, Lane, SignRequests, Signatures, ToKeyholder};

/// Runs until the supervisor closes the channel.
pub fn run(channel: &Channel) -> io::Result<()> {
    let Some((first, _)) = channel.receive::<ToKeyholder>()? else { return Ok(()) };
    let ToKeyholder::Start { parent, owner } = first else { return Err(out_of_turn()) };
    if let Some(owner) = owner {
        owner.take_over(&[owner.gid])?;
    }
    // A change of identity would undo both.
    sys::die_with_parent(parent)?;
    sys::hide_memory()?;
    sys::no_new_privileges()?;
    let lacking = sandbox::confine();
    if !lacking.is_empty() {
        eprintln!("ringpost: the keyholder is not fully confined: {}", lacking.join("; "));
    }
    channel.send(&FromKeyholder::Ready)?;
    let keys = Arc::new(Keys::default());
    while let Some((letter, descriptor)) = channel.receive::<ToKeyholder>()? {
        match letter {
            ToKeyholder::Start { .. } => return Err(out_of_turn()),
            ToKeyholder::Ping(number) => channel.send(&FromKeyholder::Pong(number))?,
            ToKeyholder::Lane(lane) => {
                let end =
                    descriptor.ok_or_else(|| io::Error::new(io::ErrorKind::InvalidData, "a lane without an end"))?;
                serve(lane, Channel::of(end), keys.clone())?;
            }
        }
    }
    Ok(())
}

fn out_of_turn() -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, "the first letter, and no other, says whose this process is")
}

/// A thread for each lane, which ends with it.
///
/// # Errors
/// There can be no other thread.
pub fn serve(lane: Lane, channel: Channel, keys: Arc<Keys>) -> io::Result<()> {
    let (name, work): (_, fn(&Channel, &Keys) -> io::Result<()>) = match lane {
        Lane::Custody => ("custody", custody),
        Lane::Signing => ("signing", signing),
    };
    std::thread::Builder::new().name(name.into()).spawn(move || {
        // Whoever is at the other end hears of it: the lane is closed.
        let _ = work(&channel, &keys);
    })?;
    Ok(())
}

fn custody(channel: &Channel, keys: &Keys) -> io::Result<()> {
    while let Some((order, file)) = channel.receive::<Custody>()? {
        channel.send(&obey(order, file, keys))?;
    }
    Ok(())
}

fn obey(order: Custody, file: Option<OwnedFd>, keys: &Keys) -> Kept {
    let file = file.map(File::from).ok_or_else(|| "there is no file alongside".to_owned());
    let outcome = match order {
        Custody::Hold { key, purpose } => {
            file.and_then(|mut file| keys.hold(key, purpose, &mut file)).map(Kept::PublicKey)
        }
        Custody::Make { hostname } => file.and_then(|mut file| keys::make(&hostname, &mut file)).map(Kept::Certificate),
        Custody::Keep(wanted) => {
            keys.keep(&wanted);
            Ok(Kept::Done)
        }
    };
    outcome.unwrap_or_else(Kept::Refused)
}

fn signing(channel: &Channel, keys: &Keys) -> io::Result<()> {
    // A flood of handshakes is to keep no session waiting.
    let _ = sys::step_back(Step::One);
    while let Some((SignRequests { number, handshakes }, _)) = channel.receive()? {
        let outcomes = handshakes.iter().map(|request| sign::sign(keys, request)).collect();
        channel.send(&Signatures { number, outcomes })?;
    }
    Ok(())
}
