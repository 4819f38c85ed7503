//! The simulated disk: a tree of files in memory, and what a crash leaves of it.
//!
//! What was answered `Ok` survives. Of the rest each block of 4 KiB is, at random, the old one, the new one, or new in some
//! of its sectors only, and each change of a name is done or not. That is what a disk with a write-back cache may do.

use std::cell::{Cell, RefCell};
use std::collections::{BTreeMap, BTreeSet};
use std::future::poll_fn;
use std::io;
use std::path::{Path, PathBuf};
use std::rc::Rc;
use std::task::{Poll, Waker};
use std::time::Duration;

use super::World;
use super::content::{Content, Fate};
use super::random::Random;
use super::scheduler::Owner;
use crate::{BLOCK_BYTES, Create, Disk, File, Writer};

/// What is wrong with a disk. The default: nothing.
#[derive(Clone, Debug)]
pub struct DiskFaults {
    /// Shortest and longest time of an operation.
    pub latency: (Duration, Duration),
    /// Probability that a write answers EIO; each of its blocks has reached the disk or not.
    pub fail_write: f64,
    /// Probability that a write, or making a file durable, answers EIO after the bytes have reached the cache: they can be
    /// read, and may be gone after a crash. What a failed fsync leaves.
    pub fail_sync: f64,
    /// Probability that a read answers EIO.
    pub fail_read: f64,
    /// Probability that one bit of what a read gives is wrong; the disk itself is right.
    pub corrupt_read: f64,
    /// Probability that an operation takes [`DiskFaults::slow_by`] longer.
    pub slow: f64,
    /// How much longer.
    pub slow_by: Duration,
    /// Bytes that all files together may have; beyond it ENOSPC.
    pub capacity_bytes: u64,
    /// Only for tests of tests: writes are answered `Ok` and lost in a crash, as if the fsync had been forgotten.
    pub lie: bool,
}

impl Default for DiskFaults {
    fn default() -> Self {
        Self {
            latency: (Duration::from_micros(50), Duration::from_micros(400)),
            fail_write: 0.0,
            fail_sync: 0.0,
            fail_read: 0.0,
            corrupt_read: 0.0,
            slow: 0.0,
            slow_by: Duration::from_secs(1),
            capacity_bytes: 1 << 40,
            lie: false,
        }
    }
}

/// What survives a node.
pub(super) struct Platter {
    random: RefCell<Random>,
    faults: RefCell<DiskFaults>,
    names: RefCell<BTreeMap<PathBuf, Rc<RefCell<Content>>>>,
    directories: RefCell<BTreeSet<PathBuf>>,
    under_way: RefCell<BTreeMap<u64, Operation>>,
    made: Cell<u64>,
    durable_writes: Cell<u64>,
}

/// A change that has not been answered.
enum Operation {
    Write { content: Rc<RefCell<Content>>, at: u64, bytes: Vec<u8> },
    Create { path: PathBuf, bytes: u64 },
    Remove { path: PathBuf },
    Append { content: Rc<RefCell<Content>>, bytes: Vec<u8> },
    Publish { from: PathBuf, to: PathBuf },
}

impl Platter {
    pub(super) fn new(random: Random) -> Self {
        Self {
            random: RefCell::new(random),
            faults: RefCell::default(),
            names: RefCell::default(),
            directories: RefCell::new(BTreeSet::from([PathBuf::new(), PathBuf::from("/")])),
            under_way: RefCell::default(),
            made: Cell::new(0),
            durable_writes: Cell::new(0),
        }
    }

    /// The machine loses its power.
    pub(super) fn crash(&self) {
        for operation in self.under_way.take().into_values() {
            self.interrupt(operation);
        }
        let mut random = self.random.borrow_mut();
        for content in self.names.borrow().values() {
            content.borrow_mut().crash(&mut random);
        }
    }

    /// What becomes of a change that nobody was told about.
    fn interrupt(&self, operation: Operation) {
        let done = self.random.borrow_mut().chance(0.5);
        match operation {
            Operation::Write { content, at, bytes } => {
                content.borrow_mut().write(at, &bytes, || Fate::Volatile { surely_lost: false });
            }
            Operation::Create { path, bytes } if done => {
                let reached = if self.random.borrow_mut().chance(0.5) { bytes } else { 0 };
                self.names.borrow_mut().insert(path, Rc::new(RefCell::new(Content::zeros(reached))));
            }
            Operation::Remove { path } if done => drop(self.names.borrow_mut().remove(&path)),
            Operation::Publish { from, to } if done => {
                // The name is changed after the content is durable, or it would not be worth much.
                if let Ok(content) = self.content(&from) {
                    content.borrow_mut().settle(self.faults.borrow().lie);
                }
                self.rename(&from, to);
            }
            Operation::Append { content, bytes } => content.borrow_mut().append(&bytes),
            Operation::Create { .. } | Operation::Remove { .. } | Operation::Publish { .. } => {}
        }
    }

    /// Carries out a change; what its caller is told.
    fn perform(&self, operation: Operation) -> io::Result<()> {
        let faults = self.faults.borrow().clone();
        match operation {
            Operation::Write { content, at, bytes } => self.write(&faults, &content, at, &bytes),
            Operation::Create { path, bytes } => {
                self.make_room(&faults, bytes)?;
                self.parent_exists(&path)?;
                let mut names = self.names.borrow_mut();
                if names.contains_key(&path) {
                    return Err(io::ErrorKind::AlreadyExists.into());
                }
                names.insert(path, Rc::new(RefCell::new(Content::zeros(bytes))));
                Ok(())
            }
            Operation::Remove { path } => match self.names.borrow_mut().remove(&path) {
                Some(_) => Ok(()),
                None => Err(io::ErrorKind::NotFound.into()),
            },
            Operation::Append { content, bytes } => {
                self.make_room(&faults, bytes.len() as u64)?;
                if self.random.borrow_mut().chance(faults.fail_write) {
                    return Err(broken());
                }
                content.borrow_mut().append(&bytes);
                Ok(())
            }
            Operation::Publish { from, to } => {
                self.parent_exists(&to)?;
                if self.random.borrow_mut().chance(faults.fail_sync) {
                    return Err(broken());
                }
                let content = self.content(&from)?;
                content.borrow_mut().settle(faults.lie);
                self.rename(&from, to);
                Ok(())
            }
        }
    }

    fn write(&self, faults: &DiskFaults, content: &RefCell<Content>, at: u64, bytes: &[u8]) -> io::Result<()> {
        let mut random = self.random.borrow_mut();
        let mut content = content.borrow_mut();
        if random.chance(faults.fail_write) {
            content.write(at, bytes, || if random.chance(0.5) { Fate::Durable } else { Fate::Absent });
            return Err(broken());
        }
        if random.chance(faults.fail_sync) {
            content.write(at, bytes, || Fate::Volatile { surely_lost: false });
            return Err(broken());
        }
        let fate = if faults.lie { Fate::Volatile { surely_lost: true } } else { Fate::Durable };
        content.write(at, bytes, || fate);
        self.durable_writes.set(self.durable_writes.get() + 1);
        Ok(())
    }

    fn rename(&self, from: &Path, to: PathBuf) {
        let mut names = self.names.borrow_mut();
        if let Some(content) = names.remove(from) {
            names.insert(to, content);
        }
    }

    fn content(&self, path: &Path) -> io::Result<Rc<RefCell<Content>>> {
        self.names.borrow().get(path).cloned().ok_or_else(|| io::ErrorKind::NotFound.into())
    }

    fn parent_exists(&self, path: &Path) -> io::Result<()> {
        let there = path.parent().is_none_or(|parent| self.directories.borrow().contains(parent));
        if there { Ok(()) } else { Err(io::ErrorKind::NotFound.into()) }
    }

    fn used_bytes(&self) -> u64 {
        self.names.borrow().values().map(|content| content.borrow().bytes()).sum()
    }

    fn make_room(&self, faults: &DiskFaults, bytes: u64) -> io::Result<()> {
        if self.used_bytes().saturating_add(bytes) > faults.capacity_bytes {
            return Err(io::Error::from_raw_os_error(libc::ENOSPC));
        }
        Ok(())
    }

    fn latency(&self) -> Duration {
        let faults = self.faults.borrow();
        let mut random = self.random.borrow_mut();
        let usual = random.between(faults.latency.0, faults.latency.1);
        if random.chance(faults.slow) { usual + faults.slow_by } else { usual }
    }
}

/// A simulated disk as one life of its node sees it.
#[derive(Clone)]
pub struct SimDisk {
    world: Rc<World>,
    owner: Owner,
    platter: Rc<Platter>,
}

impl SimDisk {
    pub(super) fn new(world: Rc<World>, owner: Owner, platter: Rc<Platter>) -> Self {
        Self { world, owner, platter }
    }

    /// What is wrong with it from now on, in this life and the next.
    pub fn set_faults(&self, faults: DiskFaults) {
        *self.platter.faults.borrow_mut() = faults;
    }

    /// What is wrong with it.
    pub fn faults(&self) -> DiskFaults {
        self.platter.faults.borrow().clone()
    }

    /// Inverts one bit of a file, as it is on the disk; an error if there is no such place.
    pub fn corrupt(&self, path: &Path, at: u64) -> io::Result<()> {
        let content = self.platter.content(path)?;
        let mut content = content.borrow_mut();
        if at >= content.bytes() {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        content.invert(at);
        Ok(())
    }

    /// All files and their sizes in bytes, by path.
    pub fn files(&self) -> Vec<(PathBuf, u64)> {
        self.platter.names.borrow().iter().map(|(path, content)| (path.clone(), content.borrow().bytes())).collect()
    }

    /// How many times [`File::write_durable`] has answered `Ok`, in all lives.
    pub fn durable_writes(&self) -> u64 {
        self.platter.durable_writes.get()
    }

    async fn wait(&self) -> io::Result<()> {
        self.world.sleep(self.platter.latency()).await;
        if self.world.is_alive(self.owner) { Ok(()) } else { Err(super::crashed()) }
    }

    /// Starts a change; the disk goes on with it even if nobody waits for the answer any more.
    async fn change(&self, operation: Operation) -> io::Result<()> {
        if !self.world.is_alive(self.owner) {
            return Err(super::crashed());
        }
        let platter = self.platter.clone();
        let number = platter.made.get();
        platter.made.set(number + 1);
        platter.under_way.borrow_mut().insert(number, operation);
        let answer: Rc<RefCell<Answer>> = Rc::default();
        let told = answer.clone();
        self.world.clock.call_after(self.platter.latency(), move || {
            // Gone if the node has crashed meanwhile: then nobody is told anything.
            let operation = platter.under_way.borrow_mut().remove(&number);
            let Some(operation) = operation else { return };
            let result = platter.perform(operation);
            let waker = {
                let mut told = told.borrow_mut();
                told.result = Some(result);
                told.waker.take()
            };
            waker.into_iter().for_each(Waker::wake);
        });
        poll_fn(|context| {
            let mut answer = answer.borrow_mut();
            match answer.result.take() {
                Some(result) => Poll::Ready(result),
                None => {
                    answer.waker = Some(context.waker().clone());
                    Poll::Pending
                }
            }
        })
        .await
    }

    async fn read_content(&self, content: &RefCell<Content>, at: u64, len: usize) -> io::Result<Vec<u8>> {
        self.wait().await?;
        let faults = self.faults();
        let mut random = self.platter.random.borrow_mut();
        if random.chance(faults.fail_read) {
            return Err(broken());
        }
        let mut bytes = content.borrow().read(at, len);
        if !bytes.is_empty() && random.chance(faults.corrupt_read) {
            let wrong = random.index(bytes.len());
            bytes[wrong] ^= 1 << random.below(8);
        }
        Ok(bytes)
    }
}

#[derive(Default)]
struct Answer {
    result: Option<io::Result<()>>,
    waker: Option<Waker>,
}

impl Disk for SimDisk {
    type File = SimFile;
    type Writer = SimWriter;

    async fn create(&self, path: &Path, bytes: u64, _how: Create<'_>) -> io::Result<SimFile> {
        whole_blocks(0, bytes)?;
        self.change(Operation::Create { path: path.to_owned(), bytes }).await?;
        self.open(path).await
    }

    async fn open(&self, path: &Path) -> io::Result<SimFile> {
        self.wait().await?;
        let content = self.platter.content(path)?;
        let bytes = content.borrow().bytes();
        Ok(SimFile { disk: self.clone(), content, bytes, path: path.to_owned() })
    }

    async fn list(&self, dir: &Path) -> io::Result<Vec<(String, u64)>> {
        self.wait().await?;
        let name = |path: &Path| {
            let inside = path.parent() == Some(dir);
            inside.then(|| path.file_name().map(|name| name.to_string_lossy().into_owned())).flatten()
        };
        let names = self.platter.names.borrow();
        let files = names.iter().filter_map(|(path, content)| Some((name(path)?, content.borrow().bytes())));
        let directories = self.platter.directories.borrow();
        let directories = directories.iter().filter_map(|path| Some((name(path)?, 0)));
        let mut found: Vec<_> = files.chain(directories).collect();
        found.sort();
        Ok(found)
    }

    async fn make_dir(&self, dir: &Path) -> io::Result<()> {
        self.wait().await?;
        self.platter.directories.borrow_mut().extend(dir.ancestors().map(Path::to_owned));
        Ok(())
    }

    async fn remove(&self, path: &Path) -> io::Result<()> {
        self.change(Operation::Remove { path: path.to_owned() }).await
    }

    async fn free_bytes(&self, _dir: &Path) -> io::Result<u64> {
        self.wait().await?;
        Ok(self.faults().capacity_bytes.saturating_sub(self.platter.used_bytes()))
    }

    async fn read_whole(&self, path: &Path) -> io::Result<Vec<u8>> {
        let content = self.platter.content(path)?;
        let bytes = content.borrow().bytes();
        self.read_content(&content, 0, bytes as usize).await
    }

    async fn writer(&self, temporary: &Path) -> io::Result<SimWriter> {
        self.wait().await?;
        self.platter.parent_exists(temporary)?;
        let content = Rc::new(RefCell::new(Content::zeros(0)));
        self.platter.names.borrow_mut().insert(temporary.to_owned(), content.clone());
        Ok(SimWriter { disk: self.clone(), content, temporary: temporary.to_owned() })
    }
}

/// A file of fixed size on a simulated disk.
pub struct SimFile {
    disk: SimDisk,
    content: Rc<RefCell<Content>>,
    bytes: u64,
    path: PathBuf,
}

impl File for SimFile {
    async fn write_durable(&self, at: u64, bytes: &[u8]) -> io::Result<()> {
        whole_blocks(at, bytes.len() as u64)?;
        if at + bytes.len() as u64 > self.bytes {
            return Err(io::Error::new(io::ErrorKind::InvalidInput, "a write beyond the end of a file of fixed size"));
        }
        let content = self.content.clone();
        self.disk.change(Operation::Write { content, at, bytes: bytes.to_vec() }).await
    }

    async fn read(&self, at: u64, len: usize) -> io::Result<Vec<u8>> {
        self.disk.read_content(&self.content, at, len).await
    }

    fn size(&self) -> u64 {
        self.bytes
    }

    fn path(&self) -> PathBuf {
        self.path.clone()
    }
}

/// A file that is being made on a simulated disk.
pub struct SimWriter {
    disk: SimDisk,
    content: Rc<RefCell<Content>>,
    temporary: PathBuf,
}

impl Writer for SimWriter {
    async fn append(&mut self, bytes: Vec<u8>) -> io::Result<()> {
        self.disk.change(Operation::Append { content: self.content.clone(), bytes }).await
    }

    async fn publish(self, path: &Path) -> io::Result<()> {
        let from = self.temporary.clone();
        self.disk.change(Operation::Publish { from, to: path.to_owned() }).await
    }

    async fn discard(self) {
        // Like the real one, it tells nobody if that does not work.
        let _ = self.disk.change(Operation::Remove { path: self.temporary.clone() }).await;
    }
}

fn broken() -> io::Error {
    io::Error::from_raw_os_error(libc::EIO)
}

fn whole_blocks(at: u64, bytes: u64) -> io::Result<()> {
    let block = BLOCK_BYTES as u64;
    if bytes == 0 || !bytes.is_multiple_of(block) || !at.is_multiple_of(block) {
        return Err(io::Error::new(io::ErrorKind::InvalidInput, format!("{bytes} bytes at {at} are not whole blocks")));
    }
    Ok(())
}
