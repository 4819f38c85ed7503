//! Maildirs of virtual users, which belong to this server's own: on the shard's ring, many at once. Each message is written
//! to `tmp/`, made durable and renamed into `new/`, so that a reader never sees half of it and a delivered one survives a
//! power cut.

use std::cell::RefCell;
use std::collections::HashMap;
use std::io;
use std::path::{Path, PathBuf};

use ringpost_io::{Disk, Runtime, Signal, Tree, Writer};
use ringpost_smtp::client::RemoteReply;

use super::text::{Lines, Pieces, head, unreadable};
use super::{Delivery, is_junk};
use crate::letter::Outcome;
use crate::limits;
use crate::shard::{Shard, World};

/// What a Maildir is made of.
const PARTS: [&str; 3] = ["tmp", "new", "cur"];
/// Its folder for junk.
const JUNK: &str = ".Junk";

/// Delivers one message.
pub(super) async fn deliver<W: World>(shard: &Shard<W>, delivery: &Delivery, dir: &Path, junk: bool) -> Outcome {
    let written = match junk && is_junk(shard, delivery).await {
        true => into_junk(shard, delivery, dir).await,
        false => into(shard, delivery, dir).await,
    };
    match written {
        Ok(()) => Outcome::Delivered(RemoteReply::local(250, (2, 0, 0), "delivered to mailbox")),
        Err(error) => {
            if let Some(outcome) = unreadable(&error) {
                return outcome;
            }
            // No room for anybody, or for this one (RFC 3463 §3.4, §3.3).
            let status = match error.kind() {
                io::ErrorKind::StorageFull => (4, 3, 1),
                io::ErrorKind::QuotaExceeded => (4, 2, 2),
                _ => (4, 3, 0),
            };
            Outcome::Transient(RemoteReply::local(451, status, format!("{}: {error}", dir.display())))
        }
    }
}

/// A folder is in a Maildir, which may have to be made first.
async fn into_junk<W: World>(shard: &Shard<W>, delivery: &Delivery, dir: &Path) -> io::Result<()> {
    make(shard, dir).await?;
    into(shard, delivery, &dir.join(JUNK)).await
}

async fn into<W: World>(shard: &Shard<W>, delivery: &Delivery, dir: &Path) -> io::Result<()> {
    let name = delivery.copy_name(&shard.hostname);
    let (temporary, new) = (dir.join("tmp").join(&name), dir.join("new").join(&name));
    if delivery.body.is_some() && !dir.ends_with(JUNK) {
        if shard.locals.known.must_make(dir).await {
            let written = write(shard, delivery, Some(dir), &temporary, &new).await;
            shard.locals.known.was_made(dir, written.is_ok());
            return written;
        }
    } else {
        make(shard, dir).await?;
    }
    match write(shard, delivery, None, &temporary, &new).await {
        Err(error) if error.kind() == io::ErrorKind::NotFound => {
            // Somebody has removed it.
            shard.locals.known.forget(dir);
            make(shard, dir).await?;
            write(shard, delivery, None, &temporary, &new).await
        }
        other => other,
    }
}

/// Maildirs that are known to be there, and durably so: a message in a directory that a power cut takes away is lost.
/// The first delivery makes it, those that come meanwhile wait for that, all others ask nobody.
#[derive(Default)]
pub(super) struct Known {
    dirs: RefCell<HashMap<PathBuf, State>>,
    made: Signal,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum State {
    There,
    BeingMade,
}

impl Known {
    fn forget(&self, dir: &Path) {
        let mut dirs = self.dirs.borrow_mut();
        if dirs.get(dir) == Some(&State::There) {
            dirs.remove(dir);
        }
    }

    /// True: it is the caller's to make.
    async fn must_make(&self, dir: &Path) -> bool {
        loop {
            let made = self.made.raised();
            let state = self.dirs.borrow().get(dir).copied();
            match state {
                Some(State::There) => return false,
                Some(State::BeingMade) => made.await,
                None => {
                    let mut dirs = self.dirs.borrow_mut();
                    if dirs.len() >= limits::KNOWN_MAILDIRS {
                        // Those in use are soon known again.
                        dirs.retain(|_, state| *state == State::BeingMade);
                    }
                    dirs.insert(dir.to_owned(), State::BeingMade);
                    return true;
                }
            }
        }
    }

    fn was_made(&self, dir: &Path, made: bool) {
        let mut dirs = self.dirs.borrow_mut();
        match made {
            true => drop(dirs.insert(dir.to_owned(), State::There)),
            false => drop(dirs.remove(dir)),
        }
        drop(dirs);
        self.made.raise();
    }
}

async fn make<W: World>(shard: &Shard<W>, dir: &Path) -> io::Result<()> {
    if !shard.locals.known.must_make(dir).await {
        return Ok(());
    }
    let made = make_anew(shard.runtime.disk(), dir).await;
    shard.locals.known.was_made(dir, made.is_ok());
    made
}

async fn make_anew(disk: &impl Disk, dir: &Path) -> io::Result<()> {
    disk.make_tree(dir, &PARTS).await?;
    if dir.ends_with(JUNK) {
        // What tells a folder of Maildir++ from the Maildir that it is in.
        disk.publish(&dir.join("tmp/maildirfolder"), &dir.join("maildirfolder"), Vec::new()).await?;
    }
    Ok(())
}

/// Writes it; into a Maildir that is to be made, if that is named.
async fn write<W: World>(
    shard: &Shard<W>,
    delivery: &Delivery,
    made: Option<&Path>,
    temporary: &Path,
    new: &Path,
) -> io::Result<()> {
    let disk = shard.runtime.disk();
    let mut lines = Lines::after(head(delivery));
    if let Some(body) = &delivery.body {
        lines.add(body);
        return match made {
            Some(dir) => disk.publish_in_tree(Tree { dir, parts: &PARTS }, temporary, new, lines.finish()).await,
            None => disk.publish(temporary, new, lines.finish()).await,
        };
    }
    let mut writer = disk.writer(temporary).await?;
    match fill(shard, delivery, lines, &mut writer).await {
        Ok(()) => writer.publish(new).await,
        Err(error) => {
            writer.discard().await;
            Err(error)
        }
    }
}

async fn fill<W: World>(
    shard: &Shard<W>,
    delivery: &Delivery,
    mut lines: Lines,
    writer: &mut impl Writer,
) -> io::Result<()> {
    let mut pieces = Pieces::of(delivery);
    while let Some(piece) = pieces.next(shard).await? {
        lines.add(&piece);
        writer.append(std::mem::take(&mut lines.out)).await?;
    }
    writer.append(lines.finish()).await
}
