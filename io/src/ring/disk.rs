//! Files. Segments are opened O_DIRECT and O_DSYNC, so that one write is durable when it returns and there is one error
//! to look at. Where a file system has no O_DIRECT, O_DSYNC through the page cache gives the same promise, slower.
//!
//! What has no place on the ring (directories, renames, whole files) runs on the executor's threads for what blocks.

use std::cell::Cell;
use std::fs::{self, File as StdFile};
use std::io::{self, Write};
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::rc::Rc;
use std::sync::Arc;
use std::time::Instant;

use glommio::io::DmaBuffer;
use rustix::fs::{AtFlags, CWD, FallocateFlags, Mode, OFlags, fallocate, fstat, fsync, openat, renameat, unlinkat};
use rustix::process::geteuid;

use super::blocking::Blocking;
use super::directories::Directories;
use super::reactor::{Reactor, outcome};
use super::timer;
use crate::limits::{PREWRITE_BYTES, READ_PIECE_BYTES};
use crate::{BLOCK_BYTES, Create, Disk, File, Tree, Writer};

/// Mail is its owner's alone: files …
const PRIVATE_FILE: Mode = Mode::RUSR.union(Mode::WUSR);
/// … and directories.
const PRIVATE_DIRECTORY: u32 = 0o700;

/// The real disk.
#[derive(Clone)]
pub struct RingDisk {
    buffered: Rc<Cell<bool>>,
    blocking: Blocking,
    directories: Rc<Directories>,
    reactor: Rc<Reactor>,
}

/// A file of fixed size.
pub struct RingFile {
    file: OwnedFd,
    bytes: u64,
    path: PathBuf,
    reactor: Rc<Reactor>,
}

/// A file that is being made. Dropped without a word it leaves the temporary file behind, to be overwritten next time.
pub struct RingWriter {
    blocking: Blocking,
    file: Arc<StdFile>,
    temporary: PathBuf,
}

impl RingDisk {
    pub(super) fn new(blocking: Blocking, reactor: Rc<Reactor>) -> Self {
        let directories = Rc::new(Directories::new(blocking.clone()));
        Self { buffered: Rc::default(), blocking, directories, reactor }
    }

    /// Whether some file was opened through the page cache because its file system has no O_DIRECT: slower, worth a line
    /// in the log.
    pub fn went_buffered(&self) -> bool {
        self.buffered.get()
    }

    /// Opens with these flags of open(2) besides O_DIRECT.
    async fn open_with(&self, path: &Path, flags: i32) -> io::Result<RingFile> {
        let target = path.to_owned();
        let open = move || match open_to_overwrite(&target, flags | libc::O_DIRECT) {
            // This file system does not have it.
            Err(error) if error.raw_os_error() == Some(libc::EINVAL) => Ok((open_to_overwrite(&target, flags)?, true)),
            other => Ok((other?, false)),
        };
        let (file, buffered) = self.blocking.run(open).await?;
        if buffered {
            self.buffered.set(true);
        }
        let bytes = fstat(&file)?.st_size as u64;
        Ok(RingFile { file, bytes, path: path.to_owned(), reactor: self.reactor.clone() })
    }

    /// Writes every block once, in small pieces, and rests after each for as long as it took while `may_rest` says so: the
    /// disk is for commits, whose writes wait behind such a piece.
    async fn prewrite(&self, path: &Path, bytes: u64, may_rest: Option<&Cell<bool>>) -> io::Result<()> {
        let file = self.open_with(path, 0).await?;
        let mut at = 0;
        while at < bytes {
            let began = Instant::now();
            let piece = PREWRITE_BYTES.min((bytes - at) as usize);
            all_of(piece, self.reactor.write_zeros(file.file.as_fd(), piece, at).await)?;
            at += piece as u64;
            if may_rest.is_some_and(Cell::get) {
                timer::sleep(&self.reactor.timers, began.elapsed()).await;
            }
        }
        Ok(())
    }
}

impl Disk for RingDisk {
    type File = RingFile;
    type Writer = RingWriter;

    async fn create(&self, path: &Path, bytes: u64, how: Create<'_>) -> io::Result<RingFile> {
        aligned(0, bytes)?;
        let target = path.to_owned();
        self.blocking.run(move || reserve(&target, bytes)).await?;
        let filled = match how {
            Create::Prewritten => self.prewrite(path, bytes, None).await,
            Create::PrewrittenInRests(may_rest) => self.prewrite(path, bytes, Some(may_rest)).await,
            Create::Allocated => Ok(()),
        };
        let target = path.to_owned();
        match filled {
            Ok(()) => self.blocking.run(move || sync_file_and_directory(&target)).await?,
            Err(error) => {
                // Half a file is of no use, and would take the space that was short.
                let _ = self.blocking.run(move || fs::remove_file(target)).await;
                return Err(error);
            }
        }
        self.open(path).await
    }

    async fn open(&self, path: &Path) -> io::Result<RingFile> {
        self.open_with(path, libc::O_DSYNC).await
    }

    async fn list(&self, dir: &Path) -> io::Result<Vec<(String, u64)>> {
        let dir = dir.to_owned();
        self.blocking.run(move || list(&dir)).await
    }

    async fn make_dir(&self, dir: &Path) -> io::Result<()> {
        let dir = dir.to_owned();
        self.blocking.run(move || make_dir(&dir)).await
    }

    async fn make_tree(&self, dir: &Path, parts: &[&'static str]) -> io::Result<()> {
        let (above, target, parts) = (directory_of(dir).to_owned(), dir.to_owned(), parts.to_vec());
        // Many trees stand side by side: what is above them is synced for all that are made at the same time.
        let (above, _) = self.directories.enter(&above);
        self.blocking.run(move || make_tree(&target, &parts).and_then(|()| sync_directory(&target))).await?;
        above.sync().await
    }

    async fn remove(&self, path: &Path) -> io::Result<()> {
        let path = path.to_owned();
        self.blocking
            .run(move || {
                fs::remove_file(&path)?;
                sync_directory_of(&path)
            })
            .await
    }

    async fn free_bytes(&self, dir: &Path) -> io::Result<u64> {
        let dir = dir.to_owned();
        self.blocking
            .run(move || {
                let system = rustix::fs::statvfs(&dir)?;
                Ok(system.f_bavail.saturating_mul(system.f_frsize))
            })
            .await
    }

    async fn read_whole(&self, path: &Path) -> io::Result<Vec<u8>> {
        let path = path.to_owned();
        self.blocking.run(move || fs::read(path)).await
    }

    async fn writer(&self, temporary: &Path) -> io::Result<RingWriter> {
        let path = temporary.to_owned();
        let file = self.blocking.run(move || private_file(CWD, &path)).await?;
        Ok(RingWriter { blocking: self.blocking.clone(), file: Arc::new(file), temporary: temporary.to_owned() })
    }

    async fn publish(&self, temporary: &Path, path: &Path, bytes: Vec<u8>) -> io::Result<()> {
        let (temporary, target) = (temporary.to_owned(), path.to_owned());
        let (directory, alone) = self.directories.enter(directory_of(path));
        let renamed = self.blocking.run(move || {
            let directory = write_and_rename(&temporary, &target, &bytes)?;
            if alone { Ok(fsync(directory)?) } else { Ok(()) }
        });
        match (renamed.await, alone) {
            (Ok(()), false) => directory.sync().await,
            (ended, _) => ended,
        }
    }

    /// One trip for what is in the tree: the directory of the file is synced first, and with it a file system that keeps a
    /// journal has written all that was done before; the syncs that follow find little to do.
    async fn publish_in_tree(&self, tree: Tree<'_>, temporary: &Path, path: &Path, bytes: Vec<u8>) -> io::Result<()> {
        let (above, _) = self.directories.enter(directory_of(tree.dir));
        let (dir, parts) = (tree.dir.to_owned(), tree.parts.to_vec());
        let (temporary, target) = (temporary.to_owned(), path.to_owned());
        let made = self.blocking.run(move || {
            make_tree(&dir, &parts)?;
            fsync(write_and_rename(&temporary, &target, &bytes)?)?;
            sync_directory(&dir)
        });
        made.await?;
        above.sync().await
    }
}

impl File for RingFile {
    async fn write_durable(&self, at: u64, bytes: &[u8]) -> io::Result<()> {
        aligned(at, bytes.len() as u64)?;
        if at + bytes.len() as u64 > self.bytes {
            return Err(io::Error::new(io::ErrorKind::InvalidInput, "a write beyond the end of a file of fixed size"));
        }
        let mut buffer = glommio::allocate_dma_buffer(bytes.len());
        buffer.as_bytes_mut().copy_from_slice(bytes);
        all_of(bytes.len(), self.reactor.write(self.file.as_fd(), buffer, at).await)
    }

    async fn read(&self, at: u64, len: usize) -> io::Result<Vec<u8>> {
        let end = self.bytes.min(at.saturating_add(len as u64));
        let mut wanted = Vec::with_capacity(end.saturating_sub(at) as usize);
        let mut place = at;
        while place < end {
            let start = place - place % BLOCK_BYTES as u64;
            let piece = READ_PIECE_BYTES.min((end - start) as usize).next_multiple_of(BLOCK_BYTES);
            let buffer = glommio::allocate_dma_buffer(piece);
            let (result, buffer) = self.reactor.read(self.file.as_fd(), buffer, start).await;
            let from = (place - start) as usize;
            let until = outcome(result)?.min((end - start) as usize);
            if until <= from {
                // Somebody has cut the file.
                return Err(io::ErrorKind::UnexpectedEof.into());
            }
            wanted.extend_from_slice(&buffer.expect("it was given").as_bytes()[from..until]);
            place = start + until as u64;
        }
        Ok(wanted)
    }

    fn size(&self) -> u64 {
        self.bytes
    }

    fn path(&self) -> PathBuf {
        self.path.clone()
    }
}

impl Writer for RingWriter {
    async fn append(&mut self, bytes: Vec<u8>) -> io::Result<()> {
        let file = self.file.clone();
        self.blocking.run(move || (&*file).write_all(&bytes)).await
    }

    async fn publish(self, path: &Path) -> io::Result<()> {
        let path = path.to_owned();
        self.blocking
            .run(move || {
                self.file.sync_all()?;
                fs::rename(&self.temporary, &path)?;
                sync_directory_of(&path)
            })
            .await
    }

    async fn discard(self) {
        // What cannot be removed is emptied when the name is used again.
        let _ = self.blocking.run(move || fs::remove_file(self.temporary)).await;
    }
}

fn open_to_overwrite(path: &Path, flags: i32) -> io::Result<OwnedFd> {
    let file = StdFile::options().read(true).write(true).custom_flags(flags).open(path)?;
    Ok(file.into())
}

fn all_of(bytes: usize, (result, _): (i32, Option<DmaBuffer>)) -> io::Result<()> {
    match outcome(result)? {
        written if written == bytes => Ok(()),
        written => Err(io::Error::new(io::ErrorKind::WriteZero, format!("{written} of {bytes} bytes written"))),
    }
}

fn aligned(at: u64, bytes: u64) -> io::Result<()> {
    let block = BLOCK_BYTES as u64;
    if bytes == 0 || !bytes.is_multiple_of(block) || !at.is_multiple_of(block) {
        return Err(io::Error::new(io::ErrorKind::InvalidInput, format!("{bytes} bytes at {at} are not whole blocks")));
    }
    Ok(())
}

/// Makes the file with its space. An existing one is left as it is: it may hold somebody's mail.
fn reserve(path: &Path, bytes: u64) -> io::Result<()> {
    let file = StdFile::options().read(true).write(true).create_new(true).open(path)?;
    let reserved = match fallocate(&file, FallocateFlags::empty(), 0, bytes) {
        Err(rustix::io::Errno::OPNOTSUPP) => file.set_len(bytes),
        other => other.map_err(io::Error::from),
    };
    if reserved.is_err() {
        let _ = fs::remove_file(path);
    }
    reserved
}

fn sync_file_and_directory(path: &Path) -> io::Result<()> {
    StdFile::open(path)?.sync_all()?;
    sync_directory_of(path)
}

/// By descriptors of both directories: a link in their place is not followed, nor one that has the file's name. The
/// directory that the file is in then.
fn write_and_rename(temporary: &Path, path: &Path, bytes: &[u8]) -> io::Result<OwnedFd> {
    let (from, to) = (own_directory(directory_of(temporary))?, own_directory(directory_of(path))?);
    let (made, name) = (name_of(temporary)?, name_of(path)?);
    let mut file = private_file(&from, made.as_ref())?;
    let written = file.write_all(bytes).and_then(|()| file.sync_all());
    let renamed = written.and_then(|()| Ok(renameat(&from, made, &to, name)?));
    if renamed.is_err() {
        // If it cannot be removed, either, it is emptied when the name is used again.
        let _ = unlinkat(&from, made, AtFlags::empty());
    }
    renamed.map(|()| to)
}

/// An empty file in a directory; a link that has its name is not followed.
fn private_file(directory: impl AsFd, name: &Path) -> io::Result<StdFile> {
    let flags = OFlags::WRONLY | OFlags::CREATE | OFlags::TRUNC | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    Ok(openat(directory, name, flags, PRIVATE_FILE)?.into())
}

fn own_directory(path: &Path) -> io::Result<OwnedFd> {
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    let directory = openat(CWD, path, flags, Mode::empty())?;
    // Where everybody may make one, this may be somebody's trap. Root works in the directories of others.
    let (owner, own) = (fstat(&directory)?.st_uid, geteuid().as_raw());
    if owner != own && own != 0 {
        let what = format!("{} belongs to user {owner}, not {own}", path.display());
        return Err(io::Error::new(io::ErrorKind::PermissionDenied, what));
    }
    Ok(directory)
}

fn name_of(path: &Path) -> io::Result<&std::ffi::OsStr> {
    path.file_name().ok_or_else(|| io::Error::new(io::ErrorKind::InvalidInput, "a path without a name"))
}

fn sync_directory_of(path: &Path) -> io::Result<()> {
    sync_directory(directory_of(path))
}

fn directory_of(path: &Path) -> &Path {
    path.parent().filter(|dir| !dir.as_os_str().is_empty()).unwrap_or(Path::new("."))
}

pub(super) fn sync_directory(dir: &Path) -> io::Result<()> {
    StdFile::open(dir)?.sync_all()
}

fn list(dir: &Path) -> io::Result<Vec<(String, u64)>> {
    let entries = match fs::read_dir(dir) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
        other => other?,
    };
    let mut found = Vec::new();
    for entry in entries {
        let entry = entry?;
        match entry.metadata() {
            Ok(about) => {
                let bytes = if about.is_file() { about.len() } else { 0 };
                found.push((entry.file_name().to_string_lossy().into_owned(), bytes));
            }
            Err(error) if error.kind() == io::ErrorKind::NotFound => {}
            Err(error) => return Err(error),
        }
    }
    found.sort();
    Ok(found)
}

fn make_dir(dir: &Path) -> io::Result<()> {
    if dir.is_dir() || dir.as_os_str().is_empty() {
        return Ok(());
    }
    if let Some(parent) = dir.parent() {
        make_dir(parent)?;
    }
    match fs::create_dir(dir) {
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists && dir.is_dir() => {}
        other => other?,
    }
    sync_directory_of(dir)
}

/// The last step, a sync of the directory above, is the caller's.
fn make_tree(dir: &Path, parts: &[&'static str]) -> io::Result<()> {
    make_dir(directory_of(dir))?;
    for made in std::iter::once(dir.to_owned()).chain(parts.iter().map(|part| dir.join(part))) {
        match fs::DirBuilder::new().mode(PRIVATE_DIRECTORY).create(&made) {
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists && made.is_dir() => {}
            other => other?,
        }
    }
    Ok(())
}
