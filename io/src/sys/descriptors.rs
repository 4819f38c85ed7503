//! Letters between processes: SOCK_SEQPACKET keeps their bounds, SCM_RIGHTS carries descriptors along.

use std::io::{self, IoSlice, IoSliceMut};
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use rustix::net::{
    AddressFamily, RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, ReturnFlags, SendAncillaryBuffer,
    SendAncillaryMessage, SendFlags, SocketFlags, SocketType, recvmsg, sendmsg, socketpair,
};

use crate::limits::DESCRIPTORS_MAX;

/// Two connected sockets, for a process and its child. Closed on `execve` unless the starter passes one on.
pub fn packet_pair() -> io::Result<(OwnedFd, OwnedFd)> {
    Ok(socketpair(AddressFamily::UNIX, SocketType::SEQPACKET, SocketFlags::CLOEXEC, None)?)
}

/// Sends one letter and duplicates of these descriptors, at most [`DESCRIPTORS_MAX`]. It goes as a whole or not at all;
/// `WouldBlock` on a non-blocking socket whose buffer is full. An empty letter would look like the end of the connection,
/// and is refused.
pub fn send(socket: impl AsFd, bytes: &[u8], descriptors: &[BorrowedFd<'_>]) -> io::Result<()> {
    if bytes.is_empty() || descriptors.len() > DESCRIPTORS_MAX {
        return Err(io::Error::new(io::ErrorKind::InvalidInput, "an empty letter, or too many descriptors"));
    }
    let mut space = [MaybeUninit::uninit(); SPACE];
    let mut control = SendAncillaryBuffer::new(&mut space);
    if !descriptors.is_empty() && !control.push(SendAncillaryMessage::ScmRights(descriptors)) {
        return Err(io::Error::new(io::ErrorKind::InvalidInput, "too many descriptors"));
    }
    let sent = retry(|| sendmsg(&socket, &[IoSlice::new(bytes)], &mut control, SendFlags::NOSIGNAL))?;
    if sent == bytes.len() { Ok(()) } else { Err(io::ErrorKind::WriteZero.into()) }
}

/// Receives one letter into `buffer`: its length, zero when the peer has closed, and the descriptors that came with it.
/// One that does not fit is an error, and what of it was received is closed.
pub fn receive(socket: impl AsFd, buffer: &mut [u8]) -> io::Result<(usize, Vec<OwnedFd>)> {
    let mut space = [MaybeUninit::uninit(); SPACE];
    let mut control = RecvAncillaryBuffer::new(&mut space);
    let got = retry(|| recvmsg(&socket, &mut [IoSliceMut::new(buffer)], &mut control, RecvFlags::CMSG_CLOEXEC))?;
    let mut descriptors = Vec::new();
    for message in control.drain() {
        if let RecvAncillaryMessage::ScmRights(rights) = message {
            descriptors.extend(rights);
        }
    }
    if got.flags.intersects(ReturnFlags::TRUNC | ReturnFlags::CTRUNC) {
        return Err(io::Error::new(io::ErrorKind::InvalidData, "a letter larger than agreed"));
    }
    Ok((got.bytes, descriptors))
}

/// No descriptor but the standard three passes to programs that this process starts from now on, whoever opened it and
/// forgot to say so.
pub fn keep_descriptors() -> io::Result<()> {
    const FIRST: libc::c_uint = 3;
    // SAFETY: takes numbers, and changes flags of descriptors alone.
    if unsafe { libc::close_range(FIRST, libc::c_uint::MAX, libc::CLOSE_RANGE_CLOEXEC as libc::c_int) } == 0 {
        return Ok(());
    }
    // Before Linux 5.11 there is no such call: one by one.
    for entry in std::fs::read_dir("/proc/self/fd")? {
        let number = entry?.file_name().to_str().and_then(|name| name.parse::<i32>().ok());
        if let Some(number) = number.filter(|number| *number >= FIRST as i32) {
            // SAFETY: as before. Of a descriptor that is closed by now nothing is passed on.
            unsafe { libc::fcntl(number, libc::F_SETFD, libc::FD_CLOEXEC) };
        }
    }
    Ok(())
}

fn retry<T>(mut call: impl FnMut() -> rustix::io::Result<T>) -> io::Result<T> {
    loop {
        match call() {
            Err(rustix::io::Errno::INTR) => {}
            other => return other.map_err(io::Error::from),
        }
    }
}

const SPACE: usize = rustix::cmsg_space!(ScmRights(DESCRIPTORS_MAX));

#[cfg(test)]
mod tests {
    use std::fs::File;
    use std::io::{Read, Seek, Write};

    use super::*;

    #[test]
    fn a_letter_keeps_its_bounds_and_brings_its_descriptors() {
        let (ours, theirs) = packet_pair().unwrap();
        let mut file = tempfile::tempfile().unwrap();
        file.write_all(b"shared").unwrap();
        file.rewind().unwrap();
        send(&ours, b"first", &[file.as_fd(), ours.as_fd()]).unwrap();
        send(&ours, b"second", &[]).unwrap();

        let mut buffer = [0; 64];
        let (length, mut descriptors) = receive(&theirs, &mut buffer).unwrap();
        assert_eq!((&buffer[..length], descriptors.len()), (&b"first"[..], 2));
        let mut text = String::new();
        File::from(descriptors.remove(0)).read_to_string(&mut text).unwrap();
        assert_eq!(text, "shared");
        let (length, none) = receive(&theirs, &mut buffer).unwrap();
        assert_eq!((&buffer[..length], none.len()), (&b"second"[..], 0));

        drop((ours, descriptors));
        assert_eq!(receive(&theirs, &mut buffer).unwrap().0, 0, "closed");
    }

    #[test]
    fn what_does_not_fit_is_an_error() {
        let (ours, theirs) = packet_pair().unwrap();
        send(&ours, b"longer than that", &[]).unwrap();
        let error = receive(&theirs, &mut [0; 4]).unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::InvalidData);
        assert_eq!(send(&ours, b"", &[]).unwrap_err().kind(), io::ErrorKind::InvalidInput);
    }

    #[test]
    fn as_many_descriptors_as_agreed() {
        let (ours, theirs) = packet_pair().unwrap();
        send(&ours, b"x", &vec![ours.as_fd(); DESCRIPTORS_MAX]).unwrap();
        assert_eq!(receive(&theirs, &mut [0; 4]).unwrap().1.len(), DESCRIPTORS_MAX);
        let more = vec![ours.as_fd(); DESCRIPTORS_MAX + 1];
        assert_eq!(send(&ours, b"x", &more).unwrap_err().kind(), io::ErrorKind::InvalidInput);
    }

    #[test]
    fn what_was_left_open_does_not_pass_on() {
        let (ours, _theirs) = packet_pair().unwrap();
        rustix::io::fcntl_setfd(&ours, rustix::io::FdFlags::empty()).unwrap();
        keep_descriptors().unwrap();
        assert_eq!(rustix::io::fcntl_getfd(&ours).unwrap(), rustix::io::FdFlags::CLOEXEC);
    }
}
