//! The text of a copy as a file has it: LF line ends, after the fields that only final delivery knows (RFC 5321 §4.4).

use std::io;

use ringpost_queue::ReadError;

use super::Delivery;
use crate::letter::Outcome;
use crate::limits;
use crate::shard::{Shard, World};

/// The fields in front. Addresses were checked when they came in; should one hold a line end all the same, it must not
/// become a field.
pub(super) fn head(delivery: &Delivery) -> Vec<u8> {
    let mut head = format!("Return-Path: <{}>\n", clean(&delivery.sender));
    if delivery.original != delivery.recipient {
        head += &format!("X-Original-To: {}\n", clean(&delivery.original));
    }
    head += &format!("Delivered-To: {}\n", clean(&delivery.recipient));
    head.into_bytes()
}

fn clean(address: &str) -> String {
    address.chars().map(|c| if c.is_control() { '?' } else { c }).collect()
}

/// Reads a text piece by piece, as the journal has it: with CRLF.
pub(super) struct Pieces<'d> {
    delivery: &'d Delivery,
    at: u64,
}

impl<'d> Pieces<'d> {
    pub(super) fn of(delivery: &'d Delivery) -> Self {
        Self { delivery, at: 0 }
    }

    /// The next; `None` at the end.
    pub(super) async fn next<W: World>(&mut self, shard: &Shard<W>) -> io::Result<Option<Vec<u8>>> {
        let left = self.delivery.body_bytes - self.at;
        if left == 0 {
            return Ok(None);
        }
        let piece = match &self.delivery.body {
            Some(body) => body.to_vec(),
            None => {
                let len = left.min(limits::BODY_PIECE_BYTES) as usize;
                shard.queue.read_body(self.delivery.id, self.at, len).await.map_err(io::Error::other)?
            }
        };
        if piece.is_empty() {
            // There is less of it than was written.
            return Err(io::Error::other(ReadError::Damaged));
        }
        self.at = self.delivery.body_bytes.min(self.at + piece.len() as u64);
        Ok(Some(piece))
    }
}

/// What becomes of a delivery whose text cannot be read, if that is what the error says.
pub(super) fn unreadable(error: &io::Error) -> Option<Outcome> {
    let of_queue = error.get_ref()?.downcast_ref::<ReadError>()?;
    Some(Outcome::unreadable(of_queue))
}

/// CRLF becomes LF, across pieces; a CR alone stays.
pub(super) struct Lines {
    pub(super) out: Vec<u8>,
    pending_cr: bool,
}

impl Lines {
    pub(super) fn after(head: Vec<u8>) -> Self {
        Self { out: head, pending_cr: false }
    }

    pub(super) fn add(&mut self, piece: &[u8]) {
        self.out.reserve(piece.len());
        for part in piece.split_inclusive(|byte| *byte == b'\n') {
            if self.pending_cr && part != b"\n" {
                self.out.push(b'\r');
            }
            self.pending_cr = false;
            match part {
                [line @ .., b'\r', b'\n'] => {
                    self.out.extend_from_slice(line);
                    self.out.push(b'\n');
                }
                [line @ .., b'\r'] => {
                    self.out.extend_from_slice(line);
                    self.pending_cr = true;
                }
                line => self.out.extend_from_slice(line),
            }
        }
    }

    pub(super) fn finish(mut self) -> Vec<u8> {
        if self.pending_cr {
            self.out.push(b'\r');
        }
        self.out
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_the_queue_cannot_read_is_told_apart_from_what_the_mailbox_cannot_write() {
        let outcome = unreadable(&io::Error::other(ReadError::Damaged));
        assert!(
            matches!(&outcome, Some(Outcome::Unreadable(reply)) if reply.text().ends_with("its record is damaged"))
        );
        assert!(unreadable(&io::Error::other("something else")).is_none());
        assert!(unreadable(&io::ErrorKind::StorageFull.into()).is_none());
    }

    #[test]
    fn line_ends_are_the_same_however_the_text_is_cut() {
        let text = b"a\r\n\r\nb\rc\r\n.\r\nlast\r";
        for cut in 0..=text.len() {
            let mut lines = Lines::after(Vec::new());
            lines.add(&text[..cut]);
            lines.add(&text[cut..]);
            assert_eq!(lines.finish(), b"a\n\nb\rc\n.\nlast\r", "cut at {cut}");
        }
    }
}
