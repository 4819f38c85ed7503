//! Maildir deliveries, on the shard's own ring: a bounded number at once, each written to `tmp/`, made durable and renamed
//! into `new/`, so that a reader never sees half a message and a delivered one survives a power cut.

use std::io;
use std::path::{Path, PathBuf};
use std::rc::Rc;
use std::sync::Arc;

use ringpost_conf::{FormatValues, Maildir};
use ringpost_io::{Class, Disk, Runtime, Writer};
use ringpost_perf::Stage;
use ringpost_queue::MessageId;
use ringpost_smtp::client::RemoteReply;

use crate::dispatch::{Envelope, Fresh};
use crate::letter::{Delays, Outcome, Results};
use crate::shard::{Shard, World};
use crate::{limits, settle};

/// A delivery that waits for its turn.
pub(crate) struct Delivery {
    id: MessageId,
    index: u16,
    recipient: String,
    sender: String,
    dir: PathBuf,
    received_ms: u64,
    body_bytes: u64,
    body: Option<Arc<[u8]>>,
}

/// Delivers when it is this delivery's turn.
pub(crate) fn deliver<W: World>(shard: &Rc<Shard<W>>, fresh: &Fresh, envelope: &Envelope, maildir: &Maildir) {
    let (id, index) = (fresh.id.to_string(), envelope.index);
    let values = FormatValues {
        sender: &fresh.sender,
        recipient: envelope.original(),
        destination: &envelope.recipient,
        tag: &fresh.tag,
        message_id: &id,
        envelope_id: &id,
        delimiter: shard.settings().config.smtp.sub_address_delimiter,
        ..FormatValues::default()
    };
    let dir = match maildir.path.expand_path(&values) {
        Ok(dir) => dir,
        Err(error) => {
            // An address that makes no path names no mailbox, today or tomorrow.
            let reply = RemoteReply::local(550, (5, 1, 3), format!("no mailbox path for this address: {error}"));
            return finish(shard, fresh.id, index, Outcome::Permanent(reply), Delays::default());
        }
    };
    shard.locals.waiting.borrow_mut().push_back(Delivery {
        id: fresh.id,
        index,
        recipient: envelope.recipient.clone(),
        sender: fresh.sender.clone(),
        dir,
        received_ms: fresh.received_ms,
        body_bytes: fresh.body_bytes,
        body: fresh.body.clone(),
    });
    start(shard);
}

fn start<W: World>(shard: &Rc<Shard<W>>) {
    let locals = &shard.locals;
    while locals.running.get() < limits::LOCAL_DELIVERIES {
        let Some(delivery) = locals.waiting.borrow_mut().pop_front() else { return };
        locals.running.set(locals.running.get() + 1);
        let task_shard = shard.clone();
        shard.spawn_counted(Class::Delivery, async move {
            one(&task_shard, delivery).await;
            task_shard.locals.running.set(task_shard.locals.running.get() - 1);
            start(&task_shard);
        });
    }
}

async fn one<W: World>(shard: &Rc<Shard<W>>, delivery: Delivery) {
    let began = shard.runtime.now();
    let outcome = if shard.stopping.get() {
        Outcome::Untried
    } else {
        match write(shard, &delivery).await {
            Ok(()) => Outcome::Delivered(RemoteReply::local(250, (2, 0, 0), "delivered to mailbox")),
            Err(error) => {
                Outcome::Transient(RemoteReply::local(451, (4, 3, 0), format!("{}: {error}", delivery.dir.display())))
            }
        }
    };
    let talk = shard.runtime.now() - began;
    shard.stages.record(Stage::Local, talk);
    finish(shard, delivery.id, delivery.index, outcome, Delays { talk, ..Delays::default() });
}

fn finish<W: World>(shard: &Rc<Shard<W>>, id: MessageId, index: u16, outcome: Outcome, delays: Delays) {
    let recipients = vec![(index, outcome)];
    settle::settle(shard, Results { message: id.0, recipients, remote: "maildir".into(), delays });
}

async fn write<W: World>(shard: &Shard<W>, delivery: &Delivery) -> io::Result<()> {
    let disk = shard.runtime.disk();
    // Unique without asking anybody: an envelope is delivered by one shard only, and again only under its own name.
    let host = shard.hostname.replace(['/', ':'], "_");
    let name = format!("{}.{}_{}.{host}", delivery.received_ms / 1000, delivery.id, delivery.index);
    let (temporary, new) = (delivery.dir.join("tmp").join(&name), delivery.dir.join("new").join(&name));
    let mut writer = match disk.writer(&temporary).await {
        Ok(writer) => writer,
        Err(error) if error.kind() == io::ErrorKind::NotFound => {
            make(disk, &delivery.dir).await?;
            disk.writer(&temporary).await?
        }
        Err(error) => return Err(error),
    };
    match fill(shard, delivery, &mut writer).await {
        Ok(()) => writer.publish(&new).await,
        Err(error) => {
            writer.discard().await;
            Err(error)
        }
    }
}

async fn make(disk: &impl Disk, dir: &Path) -> io::Result<()> {
    // `tmp` last: another delivery that finds it there needs the others as well.
    for part in ["new", "cur", "tmp"] {
        disk.make_dir(&dir.join(part)).await?;
    }
    Ok(())
}

/// The message with the line ends of a file, after what only final delivery knows (RFC 5321 §4.4).
async fn fill<W: World>(shard: &Shard<W>, delivery: &Delivery, writer: &mut impl Writer) -> io::Result<()> {
    let head = format!("Return-Path: <{}>\nDelivered-To: {}\n", delivery.sender, delivery.recipient);
    let mut lines = Lines { out: head.into_bytes(), pending_cr: false };
    if let Some(body) = &delivery.body {
        lines.add(body);
        return writer.append(lines.finish()).await;
    }
    let mut at = 0;
    while at < delivery.body_bytes {
        let len = (delivery.body_bytes - at).min(limits::BODY_PIECE_BYTES);
        let piece = shard.queue.read_body(delivery.id, at, len as usize).await.map_err(io::Error::other)?;
        if piece.is_empty() {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        at += piece.len() as u64;
        lines.add(&piece);
        writer.append(std::mem::take(&mut lines.out)).await?;
    }
    writer.append(lines.finish()).await
}

/// CRLF becomes LF, across pieces; a CR alone stays.
struct Lines {
    out: Vec<u8>,
    pending_cr: bool,
}

impl Lines {
    fn add(&mut self, piece: &[u8]) {
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

    fn finish(mut self) -> Vec<u8> {
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
    fn line_ends_are_the_same_however_the_text_is_cut() {
        let text = b"a\r\n\r\nb\rc\r\n.\r\nlast\r";
        for cut in 0..=text.len() {
            let mut lines = Lines { out: Vec::new(), pending_cr: false };
            lines.add(&text[..cut]);
            lines.add(&text[cut..]);
            assert_eq!(lines.finish(), b"a\n\nb\rc\n.\nlast\r", "cut at {cut}");
        }
    }
}
