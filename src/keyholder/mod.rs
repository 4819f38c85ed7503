//! The process that alone will hold private keys (architecture promise 5). It has no files, no network, no ring; its
//! memory cannot be read by the engine's user, and it ends with its supervisor. Until TLS comes, it answers that it lives.

use std::io;

use ringpost_io::sys;

use crate::ipc::codec::Channel;
use crate::ipc::keyholder::{FromKeyholder, ToKeyholder};

/// Runs until the supervisor closes the channel.
pub fn run(channel: &Channel) -> io::Result<()> {
    sys::hide_memory()?;
    sys::no_new_privileges()?;
    while let Some((letter, _)) = channel.receive::<ToKeyholder>()? {
        match letter {
            ToKeyholder::Start { parent } => {
                sys::die_with_parent(parent)?;
                channel.send(&FromKeyholder::Ready)?;
            }
            ToKeyholder::Ping(number) => channel.send(&FromKeyholder::Pong(number))?,
        }
    }
    Ok(())
}
