//! A disk in memory that fails on purpose, and what it takes to run a queue on it in one thread.
#![allow(dead_code, missing_docs)]

use std::cell::{Cell, RefCell};
use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::future::{Future, pending, poll_fn};
use std::io;
use std::path::{Path, PathBuf};
use std::pin::Pin;
use std::rc::Rc;
use std::task::Poll;
use std::time::Duration;

use futures_lite::future::{block_on, or, yield_now};

use ringpost_io::{BLOCK_BYTES, Create, Disk, File, Writer};
use ringpost_queue::{
    Body, Flags, MessageId, NewEnvelope, NewMessage, Options, Queue, Report, StoredAction, SubmitError,
};

pub const DIR: &str = "/queue";

/// splitmix64 (Steele, Lea, Flood 2014).
#[derive(Clone)]
pub struct Random(pub u64);

impl Random {
    pub fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut mixed = self.0;
        mixed = (mixed ^ mixed >> 30).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ mixed >> 27).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^ mixed >> 31
    }

    pub fn below(&mut self, bound: u64) -> u64 {
        self.next() % bound.max(1)
    }

    pub fn one_in(&mut self, count: u64) -> bool {
        self.below(count) == 0
    }
}

/// What a failing write leaves on the disk.
#[derive(Clone, Copy, Debug)]
pub enum Leaves {
    Nothing,
    Some,
    All,
}

type Content = Rc<RefCell<Vec<u8>>>;
type Write = (Content, usize, Vec<u8>);

#[derive(Clone)]
pub struct MemDisk(Rc<State>);

pub struct State {
    files: RefCell<BTreeMap<PathBuf, Content>>,
    directories: RefCell<BTreeSet<PathBuf>>,
    in_flight: RefCell<BTreeMap<u64, Write>>,
    next_write: Cell<u64>,
    random: RefCell<Random>,
    /// One for each of the next writes.
    pub failures: RefCell<VecDeque<Option<Leaves>>>,
    /// Every write and creation fails.
    pub dead: Cell<bool>,
    pub capacity: Cell<u64>,
    pub writes: Cell<u64>,
    pub written_bytes: Cell<u64>,
    pub creations: Cell<u64>,
    pub reads: Cell<u64>,
    /// Polls that a write takes, at most.
    pub latency: Cell<u64>,
    pub read_only: Cell<bool>,
    /// What may rest while it is made rests for as long as it may.
    pub at_leisure: Cell<bool>,
}

pub struct MemFile {
    path: PathBuf,
    content: Content,
    disk: MemDisk,
}

pub struct MemWriter {
    temporary: PathBuf,
    content: Vec<u8>,
    disk: MemDisk,
}

impl std::ops::Deref for MemDisk {
    type Target = State;

    fn deref(&self) -> &State {
        &self.0
    }
}

impl MemDisk {
    pub fn new(seed: u64) -> Self {
        Self(Rc::new(State {
            files: RefCell::default(),
            directories: RefCell::default(),
            in_flight: RefCell::default(),
            next_write: Cell::new(0),
            random: RefCell::new(Random(seed)),
            failures: RefCell::default(),
            dead: Cell::new(false),
            capacity: Cell::new(u64::MAX),
            writes: Cell::new(0),
            written_bytes: Cell::new(0),
            creations: Cell::new(0),
            reads: Cell::new(0),
            latency: Cell::new(4),
            read_only: Cell::new(false),
            at_leisure: Cell::new(false),
        }))
    }

    /// The power goes: of each write in flight any part may have reached the disk.
    pub fn crash(&self) {
        for (_, (content, at, bytes)) in std::mem::take(&mut *self.in_flight.borrow_mut()) {
            self.tear(&content, at, &bytes);
        }
        self.failures.borrow_mut().clear();
        self.dead.set(false);
    }

    fn tear(&self, content: &Content, at: usize, bytes: &[u8]) {
        let mut random = self.random.borrow_mut();
        let mode = random.below(4);
        let cut = random.below(bytes.len() as u64 / 512 + 1) as usize;
        for (number, sector) in bytes.chunks(512).enumerate() {
            let reached = match mode {
                0 => false,
                1 => true,
                2 => number < cut,
                _ => random.one_in(2),
            };
            if reached {
                let at = at + number * 512;
                content.borrow_mut()[at..at + sector.len()].copy_from_slice(sector);
            }
        }
    }

    /// The bytes of a file.
    pub fn content(&self, path: &Path) -> Vec<u8> {
        self.files.borrow()[path].borrow().clone()
    }

    /// Puts a file there, padded with zeros to so many bytes.
    pub fn put(&self, path: &Path, content: &[u8], bytes: usize) {
        let mut content = content.to_vec();
        content.resize(bytes, 0);
        self.files.borrow_mut().insert(path.to_owned(), Rc::new(RefCell::new(content)));
        self.directories.borrow_mut().extend(path.parent().map(Path::to_owned));
    }

    /// Changes a file behind everybody's back.
    pub fn corrupt(&self, path: &Path, at: usize, bytes: &[u8]) {
        self.files.borrow()[path].borrow_mut()[at..at + bytes.len()].copy_from_slice(bytes);
    }

    pub fn paths(&self) -> Vec<PathBuf> {
        self.files.borrow().keys().cloned().collect()
    }

    pub fn delete(&self, path: &Path) {
        self.files.borrow_mut().remove(path);
    }

    /// A copy that shares nothing.
    pub fn duplicate(&self) -> Self {
        let copy = Self::new(1);
        for (path, content) in &*self.files.borrow() {
            copy.files.borrow_mut().insert(path.clone(), Rc::new(RefCell::new(content.borrow().clone())));
        }
        *copy.directories.borrow_mut() = self.directories.borrow().clone();
        copy
    }

    fn used(&self) -> u64 {
        self.files.borrow().values().map(|content| content.borrow().len() as u64).sum()
    }

    async fn wait(&self) {
        let polls = self.random.borrow_mut().below(self.latency.get() + 1);
        for _ in 0..polls {
            yield_now().await;
        }
    }

    fn writable(&self) -> io::Result<()> {
        assert!(!self.read_only.get(), "nothing may be written");
        if self.dead.get() { Err(io::Error::other("dead")) } else { Ok(()) }
    }
}

impl Disk for MemDisk {
    type File = MemFile;
    type Writer = MemWriter;

    async fn create(&self, path: &Path, bytes: u64, how: Create<'_>) -> io::Result<MemFile> {
        assert_ne!(how, Create::Allocated, "an overwrite must not change metadata");
        self.creations.set(self.creations.get() + 1);
        let content = Content::default();
        let old = self.files.borrow_mut().insert(path.to_owned(), content.clone());
        assert!(old.is_none(), "{} is made twice", path.display());
        self.wait().await;
        if let Create::PrewrittenInRests(may_rest) = how {
            while self.at_leisure.get() && may_rest.get() {
                yield_now().await;
            }
        }
        self.writable()?;
        if self.used() + bytes > self.capacity.get() {
            return Err(io::ErrorKind::StorageFull.into());
        }
        content.borrow_mut().resize(bytes as usize, 0);
        Ok(MemFile { path: path.to_owned(), content, disk: self.clone() })
    }

    async fn open(&self, path: &Path) -> io::Result<MemFile> {
        let content = self.files.borrow().get(path).cloned().ok_or(io::ErrorKind::NotFound)?;
        Ok(MemFile { path: path.to_owned(), content, disk: self.clone() })
    }

    async fn list(&self, dir: &Path) -> io::Result<Vec<(String, u64)>> {
        let files = self.files.borrow();
        let directories = self.directories.borrow();
        let inside = |path: &Path| {
            let name = path.file_name().map(|name| name.to_string_lossy().into_owned());
            name.filter(|_| path.parent() == Some(dir))
        };
        let mut found: Vec<(String, u64)> = files
            .iter()
            .filter_map(|(path, content)| Some((inside(path)?, content.borrow().len() as u64)))
            .chain(directories.iter().filter_map(|path| Some((inside(path)?, 0))))
            .collect();
        found.sort();
        Ok(found)
    }

    async fn make_dir(&self, dir: &Path) -> io::Result<()> {
        assert!(!self.read_only.get(), "nothing may be written");
        self.directories.borrow_mut().insert(dir.to_owned());
        Ok(())
    }

    async fn remove(&self, path: &Path) -> io::Result<()> {
        self.wait().await;
        self.writable()?;
        self.files.borrow_mut().remove(path).map(drop).ok_or(io::ErrorKind::NotFound.into())
    }

    async fn free_bytes(&self, _: &Path) -> io::Result<u64> {
        Ok(self.capacity.get().saturating_sub(self.used()))
    }

    async fn read_whole(&self, path: &Path) -> io::Result<Vec<u8>> {
        self.files.borrow().get(path).map(|content| content.borrow().clone()).ok_or(io::ErrorKind::NotFound.into())
    }

    async fn writer(&self, temporary: &Path) -> io::Result<MemWriter> {
        self.writable()?;
        self.files.borrow_mut().insert(temporary.to_owned(), Content::default());
        Ok(MemWriter { temporary: temporary.to_owned(), content: Vec::new(), disk: self.clone() })
    }
}

impl Writer for MemWriter {
    async fn append(&mut self, bytes: Vec<u8>) -> io::Result<()> {
        self.disk.wait().await;
        self.disk.writable()?;
        self.content.extend(bytes);
        Ok(())
    }

    async fn publish(self, path: &Path) -> io::Result<()> {
        self.disk.wait().await;
        self.disk.writable()?;
        self.disk.files.borrow_mut().remove(&self.temporary);
        self.disk.files.borrow_mut().insert(path.to_owned(), Rc::new(RefCell::new(self.content)));
        Ok(())
    }

    async fn discard(self) {
        self.disk.files.borrow_mut().remove(&self.temporary);
    }
}

impl File for MemFile {
    async fn write_durable(&self, at: u64, bytes: &[u8]) -> io::Result<()> {
        let disk = &self.disk;
        assert!(at.is_multiple_of(BLOCK_BYTES as u64) && bytes.len().is_multiple_of(BLOCK_BYTES) && !bytes.is_empty());
        assert!(at as usize + bytes.len() <= self.content.borrow().len(), "beyond the end");
        disk.writes.set(disk.writes.get() + 1);
        disk.written_bytes.set(disk.written_bytes.get() + bytes.len() as u64);
        let number = disk.next_write.replace(disk.next_write.get() + 1);
        disk.in_flight.borrow_mut().insert(number, (self.content.clone(), at as usize, bytes.to_vec()));
        disk.wait().await;
        disk.in_flight.borrow_mut().remove(&number);
        let failure = disk.failures.borrow_mut().pop_front().flatten();
        let failure = if disk.dead.get() { Some(Leaves::Nothing) } else { failure };
        let all = || self.content.borrow_mut()[at as usize..at as usize + bytes.len()].copy_from_slice(bytes);
        disk.writable().or_else(|error| if disk.dead.get() { Ok(()) } else { Err(error) })?;
        match failure {
            None => {
                all();
                return Ok(());
            }
            Some(Leaves::Nothing) => {}
            Some(Leaves::Some) => disk.tear(&self.content, at as usize, bytes),
            Some(Leaves::All) => all(),
        }
        Err(io::Error::other("EIO"))
    }

    async fn read(&self, at: u64, len: usize) -> io::Result<Vec<u8>> {
        self.disk.reads.set(self.disk.reads.get() + 1);
        self.disk.wait().await;
        let content = self.content.borrow();
        let end = (at as usize + len).min(content.len());
        Ok(content.get(at as usize..end).unwrap_or_default().to_vec())
    }

    fn size(&self) -> u64 {
        self.content.borrow().len() as u64
    }

    fn path(&self) -> PathBuf {
        self.path.clone()
    }
}

/// Small segments, so that a test sees many of them.
pub fn small() -> Options {
    Options {
        segment_bytes: 128 << 10,
        batch_bytes_max: 32 << 10,
        reserve_bytes: 128 << 10,
        checkpoint_bytes: 256 << 10,
        ..Options::default()
    }
}

pub fn open(disk: &MemDisk, me: usize, shards: usize, options: &Options) -> (Queue<MemDisk>, Report) {
    let opened = block_on(Queue::open(disk.clone(), Path::new(DIR), me, shards, options.clone(), 1_000_000));
    opened.expect("it opens")
}

/// A second of sleep is some polls of everybody.
pub async fn sleep(time: Duration) {
    for _ in 0..(time.as_millis() / 10).clamp(1, 20) {
        yield_now().await;
    }
}

/// Runs the queue until the scenario ends; then the power goes.
pub fn run_and_crash<T>(disk: &MemDisk, queue: &Queue<MemDisk>, scenario: impl Future<Output = T>) -> T {
    let result = block_on(or(
        async {
            queue.run_with(sleep).await;
            pending().await
        },
        scenario,
    ));
    disk.crash();
    result
}

/// Runs the queue until the scenario ends, then stops it in order.
pub fn run_and_stop<T>(queue: &Queue<MemDisk>, scenario: impl Future<Output = T>) -> T {
    let both = futures_lite::future::zip(queue.run_with(sleep), async {
        let result = scenario.await;
        queue.stop();
        result
    });
    block_on(both).1
}

/// Ends when it has been polled so many times.
pub async fn after_polls(count: u64) {
    let mut left = count;
    poll_fn(|_| {
        left = left.saturating_sub(1);
        if left == 0 { Poll::Ready(()) } else { Poll::Pending }
    })
    .await;
}

/// Waits until the condition holds; a test that waits too long has failed.
pub async fn until(what: &str, mut condition: impl FnMut() -> bool) {
    for _ in 0..200_000 {
        if condition() {
            return;
        }
        yield_now().await;
    }
    panic!("it never happened that {what}");
}

pub async fn join_all<T>(futures: Vec<impl Future<Output = T>>) -> Vec<T> {
    let mut all: Vec<Pin<Box<dyn Future<Output = T> + '_>>> = Vec::new();
    for future in futures {
        all.push(Box::pin(future));
    }
    let mut results: Vec<Option<T>> = all.iter().map(|_| None).collect();
    poll_fn(|context| {
        for (future, result) in all.iter_mut().zip(&mut results) {
            if result.is_none()
                && let Poll::Ready(value) = future.as_mut().poll(context)
            {
                *result = Some(value);
            }
        }
        if results.iter().all(Option::is_some) { Poll::Ready(()) } else { Poll::Pending }
    })
    .await;
    results.into_iter().flatten().collect()
}

/// A text that cannot be mistaken for another's.
pub fn text(id: MessageId, bytes: usize) -> Vec<u8> {
    let mut random = Random(id.0 ^ 0x5151);
    let mut text = format!("Subject: {id}\r\n\r\n").into_bytes();
    while text.len() < bytes {
        text.extend_from_slice(&random.next().to_le_bytes());
    }
    text.truncate(bytes);
    text
}

/// Submits a message to these recipients, with a text of so many bytes.
pub async fn submit(queue: &Queue<MemDisk>, recipients: &[&str], bytes: usize) -> Result<MessageId, SubmitError> {
    let id = queue.next_id();
    submit_as(queue, id, recipients, bytes).await
}

pub async fn submit_as(
    queue: &Queue<MemDisk>,
    id: MessageId,
    recipients: &[&str],
    bytes: usize,
) -> Result<MessageId, SubmitError> {
    let whole = text(id, bytes);
    let (head, body) = whole.split_at(bytes / 8);
    let originals: Vec<String> = recipients.iter().map(|path| original(path)).collect();
    let envelopes = recipients.iter().zip(&originals);
    let envelopes: Vec<NewEnvelope<'_>> = envelopes
        .map(|(recipient, original)| NewEnvelope {
            recipient,
            original,
            action: "out#1",
            way: "{\"user\":1}",
            request: asked(id).1,
        })
        .collect();
    let pieces: Vec<&[u8]> = body.chunks(1000).collect();
    queue
        .submit(NewMessage {
            id,
            received_ms: 1_000,
            release_ms: None,
            sender: "sender@example.org",
            envelopes: &envelopes,
            flags: Flags::EIGHTBIT,
            tag: "in",
            envid: asked(id).0,
            head,
            body: Body::Whole(&pieces),
        })
        .await
}

/// What the sender of this message wants to be told: every other one wants nothing. Of the transaction, of a recipient.
pub fn asked(id: MessageId) -> (&'static str, &'static str) {
    if id.number().is_multiple_of(2) { ("", "") } else { ("id+2B1", "NOTIFY=SUCCESS ORCPT=rfc822;a@b") }
}

fn original(recipient: &str) -> String {
    format!("list-of-{recipient}")
}

/// The message is there with all that `submit` gave it.
pub fn check(queue: &Queue<MemDisk>, id: MessageId, recipients: &[&str], bytes: usize) {
    let stored = block_on(queue.load(id)).unwrap_or_else(|error| panic!("{id}: {error}"));
    let found: Vec<&str> = stored.envelopes.iter().map(|envelope| envelope.recipient.as_str()).collect();
    assert_eq!(found, recipients);
    for (number, envelope) in stored.envelopes.iter().enumerate() {
        assert_eq!(usize::from(envelope.index), number);
        assert_eq!(envelope.original, original(&envelope.recipient));
        assert_eq!(envelope.action, StoredAction::Reference("out#1".into()));
        assert_eq!(envelope.way, "{\"user\":1}");
        assert_eq!(envelope.request, asked(id).1);
    }
    assert_eq!(stored.envid, asked(id).0);
    assert_eq!((stored.sender.as_str(), stored.tag.as_str(), stored.received_ms), ("sender@example.org", "in", 1_000));
    assert_eq!((stored.flags, stored.body_bytes), (Flags::EIGHTBIT, bytes as u64));
    let body = block_on(queue.read_body(id, 0, bytes + 10)).expect("it reads");
    assert!(body == text(id, bytes), "the text of {id} has changed");
    let middle = block_on(queue.read_body(id, bytes as u64 / 3, bytes / 2)).expect("it reads");
    assert!(middle == text(id, bytes)[bytes / 3..bytes / 3 + bytes / 2], "a part of {id} has changed");
}
