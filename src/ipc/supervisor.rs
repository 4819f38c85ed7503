//! Errands: what the engine has the supervisor do as another user, and the supervisor a helper process. The same letters
//! go both ways, so that the supervisor reads of them no more than it must.
//!
//! A delivery's text comes alongside as a file in memory; so does, on the way back, the text of a `.forward`.

use std::fs::File;
use std::io::{self, Read, Seek, Write};
use std::os::fd::OwnedFd;
use std::path::PathBuf;

use ringpost_shard::{Forwarding, Handed, Handover, UserRecord};
use rustix::fs::{MemfdFlags, SealFlags, fcntl_add_seals, fcntl_get_seals, memfd_create};
use serde::{Deserialize, Serialize};

/// To the supervisor, and on to a helper.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Errand {
    /// Number of the answer, chosen by who asks.
    pub id: u64,
    /// What is to be done.
    pub work: Work,
}

/// What is to be done.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Work {
    /// Deliver the text that is alongside.
    Deliver(Handover),
    /// Read the `.forward` in this user's home.
    ReadForward(UserRecord),
    /// Read a list that a `.forward` includes.
    ReadList {
        /// Whose `.forward`.
        user: UserRecord,
        /// The list, absolute.
        path: PathBuf,
    },
}

impl Work {
    /// The user whose rights it needs.
    pub fn user(&self) -> &UserRecord {
        match self {
            Self::Deliver(handover) => &handover.user,
            Self::ReadForward(user) | Self::ReadList { user, .. } => user,
        }
    }

    /// The answer when nobody can be sent.
    pub fn failed(&self, why: &str) -> Answer {
        match self {
            Self::Deliver(_) => Answer::Delivery(Handed::temporary((4, 3, 0), why)),
            Self::ReadForward(_) | Self::ReadList { .. } => Answer::Forward(Forwarding::Failed(why.to_owned())),
        }
    }

    /// Whether this is an answer to it at all: a helper works as its user, so what it says is a stranger's word.
    pub fn fits(&self, answer: &Answer) -> bool {
        matches!(self, Self::Deliver(_)) == matches!(answer, Answer::Delivery(_))
    }
}

/// From a helper, and back to the engine.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Report {
    /// Number of the errand.
    pub id: u64,
    /// How it went.
    pub answer: Answer,
}

/// How an errand went.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Answer {
    /// Of a delivery.
    Delivery(Handed),
    /// Of a reading; its text is alongside and not in here.
    Forward(Forwarding),
}

/// What the system says of a user: his record, `name:uid:gid:home`, or that there is none; or why it cannot say.
pub type UserAnswer = Result<Option<String>, String>;

/// A file in memory, empty.
///
/// # Errors
/// Out of descriptors or memory.
pub fn memory() -> io::Result<File> {
    Ok(memfd_create("ringpost", MemfdFlags::CLOEXEC | MemfdFlags::ALLOW_SEALING)?.into())
}

/// Nobody can change it any more, whoever gets it, and it is read from its start.
///
/// # Errors
/// It is no file in memory.
pub fn seal(mut file: File) -> io::Result<OwnedFd> {
    file.rewind()?;
    fcntl_add_seals(&file, SealFlags::SEAL | SealFlags::SHRINK | SealFlags::GROW | SealFlags::WRITE)?;
    Ok(file.into())
}

/// A short text as a file in memory.
///
/// # Errors
/// Out of descriptors or memory.
pub fn text_to_memory(text: &str) -> io::Result<OwnedFd> {
    let mut file = memory()?;
    file.write_all(text.as_bytes())?;
    seal(file)
}

/// Reads a text of at most `bytes_max` bytes; what comes alongside a stranger's word may be anything.
///
/// # Errors
/// Too long, not UTF-8, or no sealed file in memory.
pub fn text_from_memory(descriptor: OwnedFd, bytes_max: u64) -> io::Result<String> {
    // Anything but a file in memory might keep its reader waiting: a pipe, or a file system of somebody's own.
    let seals = fcntl_get_seals(&descriptor).unwrap_or(SealFlags::empty());
    if !seals.contains(SealFlags::WRITE | SealFlags::GROW) {
        return Err(io::Error::new(io::ErrorKind::InvalidData, "not a sealed file"));
    }
    let file = File::from(descriptor);
    let mut text = String::new();
    let read = (&file).take(bytes_max + 1).read_to_string(&mut text)?;
    if read as u64 > bytes_max {
        return Err(io::Error::new(io::ErrorKind::InvalidData, "too long"));
    }
    Ok(text)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_sealed_text_can_be_read_and_not_changed() {
        let sealed = text_to_memory("text\n").unwrap();
        let mut writer = File::from(sealed.try_clone().unwrap());
        assert!(writer.write_all(b"x").is_err());
        assert!(writer.set_len(0).is_err());
        assert_eq!(text_from_memory(sealed, 5).unwrap(), "text\n");
    }

    #[test]
    fn foreign_texts_are_bounded() {
        let error = |descriptor: OwnedFd| text_from_memory(descriptor, 4).unwrap_err().kind();
        assert_eq!(error(text_to_memory("12345").unwrap()), io::ErrorKind::InvalidData);
        let mut file = memory().unwrap();
        file.write_all(b"\xff\xfe").unwrap();
        assert_eq!(error(seal(file).unwrap()), io::ErrorKind::InvalidData);
        let (reader, _writer) = rustix::pipe::pipe().unwrap();
        assert_eq!(error(reader), io::ErrorKind::InvalidData, "a pipe would keep us waiting");
        assert_eq!(error(memory().unwrap().into()), io::ErrorKind::InvalidData, "it may still grow");
    }
}
