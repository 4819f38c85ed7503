//! Letters between our own processes: one packet each on a SOCK_SEQPACKET pair, `postcard` inside, at most one
//! descriptor alongside.

use std::cell::RefCell;
use std::fs::File;
use std::io::{self, Read, Write};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use ringpost_io::sys;
use serde::Serialize;
use serde::de::DeserializeOwned;
use zeroize::{Zeroize, Zeroizing};

use crate::limits::{LETTER_BYTES, TEXT_BYTES};

/// One end of a connection between two of our processes.
#[derive(Debug)]
pub struct Channel(OwnedFd);

thread_local! {
    /// Room for one letter: fresh zeros for each would cost as much as a signature's way there and back.
    static ROOM: RefCell<Vec<u8>> = const { RefCell::new(Vec::new()) };
}

impl Channel {
    /// Two connected ends.
    pub fn pair() -> io::Result<(Self, OwnedFd)> {
        let (ours, theirs) = sys::packet_pair()?;
        Ok((Self(ours), theirs))
    }

    /// The end that the supervisor gave this process as its standard input.
    pub fn inherited() -> io::Result<Self> {
        Ok(Self(io::stdin().as_fd().try_clone_to_owned()?))
    }

    /// An end that came as a descriptor.
    pub fn of(end: OwnedFd) -> Self {
        Self(end)
    }

    /// Whether this is such a channel at all, and not a terminal or a file.
    pub fn is_packets(&self) -> bool {
        rustix::net::sockopt::socket_type(&self.0).is_ok_and(|kind| kind == rustix::net::SocketType::SEQPACKET)
    }

    /// The same end once more, for another thread.
    pub fn try_clone(&self) -> io::Result<Self> {
        Ok(Self(self.0.try_clone()?))
    }

    /// Ends the connection, whoever else holds this end: the peer receives `None`.
    pub fn close(&self) {
        // The peer may have done so.
        let _ = rustix::net::shutdown(&self.0, rustix::net::Shutdown::Both);
    }

    /// Says that nothing more will be sent; the peer may still answer.
    pub fn hang_up(&self) {
        // The peer may have gone.
        let _ = rustix::net::shutdown(&self.0, rustix::net::Shutdown::Write);
    }

    /// Sends a letter. An error means that the peer is gone (or the letter too long, which the limits exclude).
    pub fn send<T: Serialize>(&self, letter: &T) -> io::Result<()> {
        self.send_with(letter, None)
    }

    /// Sends a letter and a copy of a descriptor.
    pub fn send_with<T: Serialize>(&self, letter: &T, descriptor: Option<BorrowedFd<'_>>) -> io::Result<()> {
        let bytes = postcard::to_stdvec(letter).map_err(io::Error::other)?;
        if bytes.len() > LETTER_BYTES {
            return Err(io::Error::new(io::ErrorKind::InvalidInput, "letter too long"));
        }
        sys::send(&self.0, &bytes, descriptor.as_slice())
    }

    /// Sends a letter with a secret in it, of which nothing is left behind here but what the caller has.
    pub fn send_secret<T: Serialize>(&self, letter: &T) -> io::Result<()> {
        // Room for all of it at once: what grows leaves its beginnings behind.
        let mut room = Zeroizing::new(vec![0; LETTER_BYTES]);
        let bytes = postcard::to_slice(letter, &mut room).map_err(io::Error::other)?;
        sys::send(&self.0, bytes, &[])
    }

    /// The next letter, which has a secret in it: nothing is left behind here but what the caller gets.
    pub fn receive_secret<T: DeserializeOwned>(&self) -> io::Result<Option<T>> {
        let letter = self.receive();
        ROOM.with_borrow_mut(Zeroize::zeroize);
        Ok(letter?.map(|(letter, _)| letter))
    }

    /// The next letter and the descriptor that came with it; `None` when the peer has ended.
    pub fn receive<T: DeserializeOwned>(&self) -> io::Result<Option<(T, Option<OwnedFd>)>> {
        ROOM.with_borrow_mut(|buffer| {
            buffer.resize(LETTER_BYTES, 0);
            let (length, descriptors) = sys::receive(&self.0, buffer)?;
            if length == 0 {
                return Ok(None);
            }
            let letter = postcard::from_bytes(&buffer[..length])
                .map_err(|error| io::Error::new(io::ErrorKind::InvalidData, error))?;
            Ok(Some((letter, descriptors.into_iter().next())))
        })
    }
}

impl AsFd for Channel {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.0.as_fd()
    }
}

/// A value too large for a letter, as a file in memory whose descriptor travels.
pub fn to_memory<T: Serialize>(value: &T) -> io::Result<OwnedFd> {
    let bytes = postcard::to_stdvec(value).map_err(io::Error::other)?;
    let file = rustix::fs::memfd_create("ringpost", rustix::fs::MemfdFlags::CLOEXEC)?;
    let mut file = File::from(file);
    file.write_all(&bytes)?;
    Ok(file.into())
}

/// Reads what [`to_memory`] wrote.
pub fn from_memory<T: DeserializeOwned>(descriptor: OwnedFd) -> io::Result<T> {
    let mut file = File::from(descriptor);
    io::Seek::rewind(&mut file)?;
    let mut bytes = Vec::new();
    file.read_to_end(&mut bytes)?;
    postcard::from_bytes(&bytes).map_err(|error| io::Error::new(io::ErrorKind::InvalidData, error))
}

/// A text, cut so that it fits a letter.
pub fn cut(mut text: String) -> String {
    if text.len() > TEXT_BYTES {
        let end = (0..=TEXT_BYTES).rev().find(|at| text.is_char_boundary(*at)).unwrap_or(0);
        text.truncate(end);
        text.push('…');
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn letters_and_descriptors_cross() {
        let (ours, theirs) = Channel::pair().unwrap();
        let theirs = Channel(theirs);
        let memory = to_memory(&vec!["a long list".to_owned(); 10_000]).unwrap();
        ours.send_with(&(7_u32, "text".to_owned()), Some(memory.as_fd())).unwrap();
        ours.send(&(8_u32, String::new())).unwrap();
        let (letter, descriptor) = theirs.receive::<(u32, String)>().unwrap().unwrap();
        assert_eq!(letter, (7, "text".to_owned()));
        let list: Vec<String> = from_memory(descriptor.unwrap()).unwrap();
        assert_eq!(list.len(), 10_000);
        let (letter, descriptor) = theirs.receive::<(u32, String)>().unwrap().unwrap();
        assert_eq!((letter.0, descriptor.is_none()), (8, true));
        let elsewhere = ours.try_clone().unwrap();
        ours.close();
        drop(elsewhere);
        assert!(theirs.receive::<(u32, String)>().unwrap().is_none());
    }

    #[test]
    fn nonsense_is_an_error_and_long_texts_are_cut() {
        let (ours, theirs) = Channel::pair().unwrap();
        ours.send(&0xffff_ffff_u32).unwrap();
        assert!(Channel(theirs).receive::<String>().is_err());
        assert!(ours.send(&vec![0_u8; LETTER_BYTES + 1]).is_err());
        let text = cut("ä".repeat(TEXT_BYTES));
        assert!(text.len() < LETTER_BYTES && text.ends_with("ä…"));
    }

    #[test]
    fn nothing_of_a_secret_is_left_behind() {
        let (ours, theirs) = Channel::pair().unwrap();
        let theirs = Channel(theirs);
        let left = || {
            ROOM.with_borrow_mut(|room| {
                // What was there and is not counted any more.
                room.resize(LETTER_BYTES, 0);
                room.windows(6).any(|bytes| bytes == b"s3cret")
            })
        };
        ours.send(&"s3cret").unwrap();
        theirs.receive::<String>().unwrap();
        assert!(left());
        ours.send_secret(&"s3cret").unwrap();
        assert_eq!(theirs.receive_secret::<String>().unwrap().unwrap(), "s3cret");
        assert!(!left());
        assert!(ours.send_secret(&"x".repeat(LETTER_BYTES)).is_err());
        // Also where it makes no sense.
        ours.send(&"s3cret").unwrap();
        assert!(theirs.receive_secret::<(String, u64)>().is_err());
        assert!(!left());
        drop(ours);
        assert!(theirs.receive_secret::<String>().unwrap().is_none());
    }
}
