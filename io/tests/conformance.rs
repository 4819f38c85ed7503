//! What every runtime promises. One suite; both worlds run all of it, the simulated one with many seeds.

use std::cell::Cell;
use std::future::Future;
use std::io::{self, Read, Write};
use std::net::{IpAddr, SocketAddr};
use std::os::unix::net::UnixListener;
use std::path::{Path, PathBuf};
use std::rc::Rc;
use std::time::Duration;

use ringpost_io::ring::{self, RingMesh, RingRuntime};
use ringpost_io::sim::{SimRuntime, SimWorld, unix_address};
use ringpost_io::{
    BLOCK_BYTES, Class, Create, Disk, File, Listener, Mesh, Peer, Runtime, Signal, Stream, Tree, Writer, sys,
};

const PATIENCE: Duration = Duration::from_secs(20);
const SEEDS: u64 = 20;
const SHARDS: usize = 3;
const BLOCK: u64 = BLOCK_BYTES as u64;

/// Where a test runs.
struct Place<R: Runtime> {
    runtime: R,
    listen: Box<dyn Fn() -> R::Listener>,
    /// Listens at a local socket.
    listen_unix: ListenUnix<R>,
    /// Takes one connection to this local socket and sends back what comes.
    echo_unix: fn(&R, &Path),
    /// A directory that exists and is empty.
    dir: PathBuf,
}

type ListenUnix<R> = Box<dyn Fn(&Path) -> <R as Runtime>::Listener>;

/// Each test in both worlds.
macro_rules! conformance {
    ($($test:ident)*) => {
        mod on_the_ring {
            $(#[test] fn $test() { super::on_the_ring(super::$test); })*
            #[test] fn mesh() {
                let options = super::ring::Options { shards: super::SHARDS, ..Default::default() };
                let shards = super::ring::run_shards(&options, |_| {
                    |runtime: super::RingRuntime, mesh: super::RingMesh<String>| super::mesh(runtime, mesh)
                });
                for shard in shards.expect("io_uring works here") {
                    shard.join().expect("no panic");
                }
            }
        }
        mod simulated {
            $(#[test] fn $test() { super::simulated(super::$test); })*
            #[test] fn mesh() { super::simulated_mesh(); }
        }
    };
}

conformance! {
    echo echo_by_a_local_socket a_local_socket_knows_its_users closed_by_the_peer nobody_listens source_address many_connections
    sleep_and_timeout tasks_take_turns dropped_waits
    files_of_fixed_size reads_anywhere refuses_half_blocks creates_and_removes directories writers publications
}

fn on_the_ring<F: Future<Output = ()>>(test: fn(Place<RingRuntime>) -> F) {
    // A file system with O_DIRECT, if the build directory has one, and one without.
    for parent in [env!("CARGO_TARGET_TMPDIR"), "/dev/shm"] {
        let Ok(dir) = tempfile::tempdir_in(parent) else { continue };
        let run = ring::run_single(|runtime| {
            let listening = runtime.clone();
            let listen = move || {
                let socket = sys::listen_socket(SocketAddr::from(([127, 0, 0, 1], 0)), 512, true).expect("a free port");
                listening.listener(socket).expect("it listens")
            };
            let listening = runtime.clone();
            let listen_unix = move |path: &Path| {
                let socket = sys::listen_unix_socket(path, 16).expect("a free path");
                listening.listener(socket).expect("it listens")
            };
            let dir = dir.path().to_owned();
            let (listen, listen_unix) = (Box::new(listen), Box::new(listen_unix));
            test(Place { runtime, listen, listen_unix, echo_unix: ring_echo, dir })
        });
        run.expect("io_uring works here");
    }
}

fn simulated<F: Future<Output = ()>>(test: fn(Place<SimRuntime>) -> F) {
    for seed in 0..SEEDS {
        let world = SimWorld::new(seed);
        let runtime = world.node("one");
        let dir = PathBuf::from("/state");
        world.block_on(runtime.disk().make_dir(&dir)).expect("room");
        let listening = runtime.clone();
        let listen = move || listening.listen(SocketAddr::from(([127, 0, 0, 1], 0))).expect("a free port");
        let listening = runtime.clone();
        let listen_unix = move |path: &Path| listening.listen_unix(path).expect("a free path");
        let (listen, listen_unix) = (Box::new(listen), Box::new(listen_unix));
        world.block_on(test(Place { runtime, listen, listen_unix, echo_unix: sim_echo, dir }));
    }
}

fn ring_echo(_: &RingRuntime, path: &Path) {
    let listener = UnixListener::bind(path).expect("a free path");
    std::thread::spawn(move || {
        let (mut stream, _) = listener.accept().expect("it connects");
        let mut piece = [0; 1000];
        loop {
            let got = stream.read(&mut piece).expect("no reset");
            if got == 0 {
                return;
            }
            stream.write_all(&piece[..got]).expect("the client reads");
        }
    });
}

fn sim_echo(runtime: &SimRuntime, path: &Path) {
    let listener = runtime.listen(unix_address(path)).expect("a free path");
    runtime.spawn(Class::Session, async move {
        let (mut stream, _) = listener.accept().await.expect("it connects");
        let mut piece = Vec::new();
        while stream.read(&mut piece, 1000).await.expect("no reset") > 0 {
            stream.write_all(&piece).await.expect("the client reads");
            piece.clear();
        }
    });
}

fn simulated_mesh() {
    for seed in 0..SEEDS {
        let world = SimWorld::new(seed);
        for end in world.mesh::<String>(SHARDS, 4) {
            let runtime = world.node("one");
            runtime.clone().spawn(Class::Session, mesh(runtime, end));
        }
        assert!(world.run_until(PATIENCE, || world.tasks("one") == 0), "seed {seed}");
    }
}

async fn pair<R: Runtime>(place: &Place<R>) -> (R::Stream, R::Stream) {
    let listener = (place.listen)();
    let client = place.runtime.connect(listener.local_addr(), None, PATIENCE).await.expect("it listens");
    let (server, _) = listener.accept().await.expect("it connects");
    (client, server)
}

async fn read_all(stream: &mut impl Stream) -> Vec<u8> {
    let mut all = Vec::new();
    while stream.read(&mut all, 10_000).await.expect("no reset") > 0 {}
    all
}

async fn echo<R: Runtime>(place: Place<R>) {
    let (mut client, mut server) = pair(&place).await;
    // More than any buffer holds: reading and writing must go on side by side.
    let sent: Vec<u8> = (0..3_000_000_u32).map(|number| (number / 7) as u8).collect();
    let expected = sent.clone();
    let done = Rc::new(Cell::new(false));
    let written = done.clone();
    place.runtime.spawn(Class::Delivery, async move {
        client.write_all(&sent).await.expect("the peer reads");
        written.set(true);
    });
    let mut got = Vec::new();
    while got.len() < expected.len() {
        let before = got.len();
        let count = server.read(&mut got, 100_000).await.expect("no reset");
        assert_eq!(got.len() - before, count);
        assert!((1..=100_000).contains(&count));
    }
    assert!(got == expected, "the bytes, in their order");
    assert_eq!(server.read(&mut got, 1).await.expect("closed"), 0);
    assert!(done.get());
}

async fn echo_by_a_local_socket<R: Runtime>(place: Place<R>) {
    let path = place.dir.join("socket");
    let refused = place.runtime.connect_unix(&path, PATIENCE).await;
    assert!(refused.is_err(), "nobody is there");
    (place.echo_unix)(&place.runtime, &path);
    let mut client = place.runtime.connect_unix(&path, PATIENCE).await.expect("somebody is there");
    client.write_all(b"hello").await.expect("it reads");
    let mut got = Vec::new();
    while got.len() < 5 {
        assert!(client.read(&mut got, 100).await.expect("no reset") > 0);
    }
    assert_eq!(got, b"hello");
}

async fn a_local_socket_knows_its_users<R: Runtime>(place: Place<R>) {
    let path = place.dir.join("users");
    let listener = (place.listen_unix)(&path);
    for letter in [b"1", b"2", b"3"] {
        let mut client = place.runtime.connect_unix(&path, PATIENCE).await.expect("it listens");
        let (mut server, peer) = listener.accept().await.expect("it connects");
        let Peer::Process(user) = peer else { panic!("{peer:?}") };
        // The simulated user is 0; the real one is we.
        assert!(user.uid == 0 || user.uid == rustix::process::geteuid().as_raw(), "{user:?}");
        client.write_all(letter).await.expect("the peer reads");
        let mut heard = Vec::new();
        server.read(&mut heard, 16).await.expect("a letter");
        assert_eq!(heard, letter);
        drop(client);
        assert_eq!(read_all(&mut server).await, b"");
    }
}

async fn closed_by_the_peer<R: Runtime>(place: Place<R>) {
    let (client, mut server) = pair(&place).await;
    drop(client);
    let mut buffer = Vec::new();
    assert_eq!(server.read(&mut buffer, 10).await.expect("a clean end"), 0);
    assert_eq!(server.read(&mut buffer, 10).await.expect("still"), 0);
    // The first write may be lost unnoticed; the kernel learns of it by the answer.
    let refused = async {
        loop {
            if let Err(error) = server.write_all(b"hello?").await {
                return error.kind();
            }
            place.runtime.sleep(Duration::from_millis(1)).await;
        }
    };
    let kind = place.runtime.timeout(PATIENCE, refused).await.expect("it ends");
    assert!(matches!(kind, io::ErrorKind::BrokenPipe | io::ErrorKind::ConnectionReset), "{kind:?}");
}

async fn nobody_listens<R: Runtime>(place: Place<R>) {
    let listener = (place.listen)();
    let address = listener.local_addr();
    drop(listener);
    place.runtime.sleep(Duration::from_millis(2)).await;
    let error = place.runtime.connect(address, None, PATIENCE).await.err().expect("nobody is there");
    assert_eq!(error.kind(), io::ErrorKind::ConnectionRefused);
}

async fn source_address<R: Runtime>(place: Place<R>) {
    let listener = (place.listen)();
    let source = IpAddr::from([127, 0, 0, 9]);
    let client = place.runtime.connect(listener.local_addr(), Some(source), PATIENCE).await.expect("it listens");
    let (server, peer) = listener.accept().await.expect("it connects");
    assert_eq!((client.local_addr().ip(), peer), (source, Peer::Address(client.local_addr())));
    assert_eq!(server.local_addr(), listener.local_addr());
}

async fn many_connections<R: Runtime>(place: Place<R>) {
    const MANY: usize = 100;
    let listener = (place.listen)();
    let address = listener.local_addr();
    let (done, count) = (Signal::new(), Rc::new(Cell::new(0)));
    for number in 0..MANY {
        let (runtime, done, count) = (place.runtime.clone(), done.clone(), count.clone());
        place.runtime.spawn(Class::Delivery, async move {
            let mut stream = runtime.connect(address, None, PATIENCE).await.expect("it listens");
            stream.write_all(&[number as u8]).await.expect("the peer reads");
            assert_eq!(read_all(&mut stream).await, [number as u8]);
            count.set(count.get() + 1);
            done.raise();
        });
    }
    for _ in 0..MANY {
        let (mut stream, _) = listener.accept().await.expect("it connects");
        place.runtime.spawn(Class::Session, async move {
            let mut letter = Vec::new();
            stream.read(&mut letter, 1).await.expect("one byte");
            stream.write_all(&letter).await.expect("the peer reads");
        });
    }
    while count.get() < MANY {
        done.raised().await;
    }
}

async fn sleep_and_timeout<R: Runtime>(place: Place<R>) {
    let runtime = &place.runtime;
    let (before, unix_before) = (runtime.now(), runtime.unix_ms());
    runtime.sleep(Duration::from_millis(20)).await;
    assert!(runtime.now() - before >= Duration::from_millis(20));
    assert!(runtime.unix_ms() - unix_before >= 19);
    let short = Duration::from_millis(5);
    assert_eq!(runtime.timeout(short, std::future::pending::<()>()).await, None);
    assert_eq!(runtime.timeout(Duration::ZERO, async { 1 }).await, Some(1), "what is ready is not too late");
    assert_eq!(runtime.timeout(Duration::from_secs(3_600), async { 2 }).await, Some(2));
    let nested = runtime.timeout(PATIENCE, runtime.timeout(short, std::future::pending::<()>()));
    assert_eq!(nested.await, Some(None));
    let slow = async {
        for _ in 0..4 {
            runtime.sleep(short / 2).await;
        }
    };
    assert_eq!(runtime.timeout(short, slow).await, None, "wakes in between do not move the end");
    assert_ne!(runtime.random_u64(), runtime.random_u64());
}

async fn tasks_take_turns<R: Runtime>(place: Place<R>) {
    let stop = Rc::new(Cell::new(false));
    for class in [Class::Commit, Class::Session, Class::Delivery, Class::Background] {
        let (runtime, stop) = (place.runtime.clone(), stop.clone());
        place.runtime.spawn(class, async move {
            while !stop.get() {
                runtime.yield_now().await;
            }
        });
    }
    place.runtime.sleep(Duration::from_millis(5)).await;
    stop.set(true);
    place.runtime.sleep(Duration::from_millis(5)).await;
    assert_eq!(Rc::strong_count(&stop), 1, "all have ended");
}

/// Reads, accepts and connects that are given up half-way, as in every `or` with a stop flag, lose nothing.
async fn dropped_waits<R: Runtime>(place: Place<R>) {
    let listener = (place.listen)();
    let moment = Duration::from_millis(1);
    for _ in 0..3 {
        assert!(place.runtime.timeout(moment, listener.accept()).await.is_none());
    }
    let mut client = place.runtime.connect(listener.local_addr(), None, PATIENCE).await.expect("it listens");
    let (mut server, _) = listener.accept().await.expect("it connects");
    let mut buffer = Vec::new();
    for letter in b"abc" {
        assert!(place.runtime.timeout(moment, server.read(&mut buffer, 10)).await.is_none());
        client.write_all(&[*letter]).await.expect("the peer reads");
        assert_eq!(server.read(&mut buffer, 10).await.expect("no reset"), 1);
    }
    assert_eq!(buffer, b"abc");
}

async fn files_of_fixed_size<R: Runtime>(place: Place<R>) {
    let disk = place.runtime.disk();
    let (rests, hurries) = (Cell::new(true), Cell::new(false));
    let ways = [
        ("prewritten", Create::Prewritten),
        ("rested", Create::PrewrittenInRests(&rests)),
        ("hurried", Create::PrewrittenInRests(&hurries)),
        ("allocated", Create::Allocated),
    ];
    for (name, how) in ways {
        let path = place.dir.join(name);
        let bytes = 3 * 1024 * 1024 + BLOCK;
        let file = disk.create(&path, bytes, how).await.expect("room");
        assert_eq!((file.size(), file.path()), (bytes, path.clone()));
        let end = file.read(bytes - 5, 100).await.expect("readable");
        assert_eq!(end, [0; 5]);
        let batch: Vec<u8> = (0..40 * BLOCK).map(|at| (at % 251) as u8).collect();
        file.write_durable(2 * BLOCK, &batch).await.expect("written");
        file.write_durable(bytes - BLOCK, &[9; BLOCK_BYTES]).await.expect("written");
        drop(file);
        let file = disk.open(&path).await.expect("there");
        assert_eq!(file.size(), bytes);
        assert!(file.read(2 * BLOCK, batch.len()).await.expect("readable") == batch);
        assert_eq!(file.read(bytes - BLOCK - 1, 3).await.expect("readable"), [0, 9, 9]);
        assert!(file.read(0, bytes as usize + 1).await.expect("readable").len() == bytes as usize);
        assert_eq!(disk.read_whole(&path).await.expect("readable").len() as u64, bytes);
    }
}

async fn reads_anywhere<R: Runtime>(place: Place<R>) {
    let file =
        place.runtime.disk().create(&place.dir.join("file"), 200 * BLOCK, Create::Allocated).await.expect("room");
    let content: Vec<u8> = (0..200 * BLOCK).map(|at| (at / 3 % 256) as u8).collect();
    file.write_durable(0, &content).await.expect("written");
    for _ in 0..100 {
        let at = (place.runtime.random_u64() % (200 * BLOCK)) as usize;
        let len = (place.runtime.random_u64() % (150 * BLOCK)) as usize;
        let read = file.read(at as u64, len).await.expect("readable");
        assert!(read == content[at..content.len().min(at + len)], "{len} at {at}");
    }
    assert!(file.read(200 * BLOCK + 7, 7).await.expect("beyond the end is nothing").is_empty());
    assert!(file.read(7, 0).await.expect("nothing").is_empty());
}

async fn refuses_half_blocks<R: Runtime>(place: Place<R>) {
    let disk = place.runtime.disk();
    let file = disk.create(&place.dir.join("file"), 4 * BLOCK, Create::Allocated).await.expect("room");
    for (at, bytes) in [(0, 100), (100, BLOCK_BYTES), (0, 0), (4 * BLOCK, BLOCK_BYTES), (3 * BLOCK, 2 * BLOCK_BYTES)] {
        let error = file.write_durable(at, &vec![1; bytes]).await.expect_err("not blocks of the file");
        assert_eq!(error.kind(), io::ErrorKind::InvalidInput, "{bytes} at {at}");
    }
    assert_eq!(
        disk.create(&place.dir.join("odd"), 100, Create::Prewritten).await.err().map(|error| error.kind()),
        Some(io::ErrorKind::InvalidInput)
    );
    assert_eq!(file.read(0, 4 * BLOCK_BYTES).await.expect("readable"), vec![0; 4 * BLOCK_BYTES]);
}

async fn creates_and_removes<R: Runtime>(place: Place<R>) {
    let disk = place.runtime.disk();
    let path = place.dir.join("file");
    let file = disk.create(&path, BLOCK, Create::Prewritten).await.expect("room");
    file.write_durable(0, &[1; BLOCK_BYTES]).await.expect("written");
    let error = disk.create(&path, BLOCK, Create::Prewritten).await.err().expect("it exists");
    assert_eq!(error.kind(), io::ErrorKind::AlreadyExists);
    assert_eq!(file.read(0, 1).await.expect("readable"), [1], "an existing file is left alone");
    disk.remove(&path).await.expect("there");
    assert_eq!(file.read(0, 1).await.expect("open files stay"), [1]);
    for gone in [disk.remove(&path).await.err(), disk.open(&path).await.err(), disk.read_whole(&path).await.err()] {
        assert_eq!(gone.expect("it is gone").kind(), io::ErrorKind::NotFound);
    }
    let nowhere = disk.create(&place.dir.join("no/such/dir"), BLOCK, Create::Allocated).await.err();
    assert_eq!(nowhere.expect("no directory").kind(), io::ErrorKind::NotFound);
    assert!(disk.free_bytes(&place.dir).await.expect("known") > 0);
}

async fn directories<R: Runtime>(place: Place<R>) {
    let disk = place.runtime.disk();
    let dir = place.dir.join("queue");
    assert_eq!(disk.list(&dir).await.expect("an absent one is empty"), []);
    disk.make_dir(&dir.join("slice-01")).await.expect("made with its parent");
    disk.make_dir(&dir.join("slice-01")).await.expect("made once more");
    for name in ["10.seg", "09.seg"] {
        disk.create(&dir.join(name), 2 * BLOCK, Create::Allocated).await.expect("room");
    }
    let expected = [("09.seg", 2 * BLOCK), ("10.seg", 2 * BLOCK), ("slice-01", 0)];
    let expected: Vec<_> = expected.iter().map(|(name, bytes)| (name.to_string(), *bytes)).collect();
    assert_eq!(disk.list(&dir).await.expect("there"), expected);
}

async fn writers<R: Runtime>(place: Place<R>) {
    let disk = place.runtime.disk();
    let (temporary, path) = (place.dir.join("tmp"), place.dir.join("checkpoint"));
    let names =
        async |dir: &Path| disk.list(dir).await.expect("there").into_iter().map(|(name, _)| name).collect::<Vec<_>>();
    for round in 0..2_u8 {
        let mut writer = disk.writer(&temporary).await.expect("room");
        writer.append(vec![round; 5_000]).await.expect("written");
        writer.append(vec![100; 3]).await.expect("written");
        if round == 0 {
            assert_eq!(names(&place.dir).await, ["tmp"]);
        }
        writer.publish(&path).await.expect("published");
        assert_eq!(names(&place.dir).await, ["checkpoint"]);
        let content = disk.read_whole(&path).await.expect("there");
        assert_eq!((content.len(), content[4_999], &content[5_000..]), (5_003, round, &[100; 3][..]));
    }
    let mut writer = disk.writer(&temporary).await.expect("room");
    writer.append(vec![1]).await.expect("written");
    writer.discard().await;
    assert_eq!(names(&place.dir).await, ["checkpoint"]);
}

/// Runs on every shard.
async fn mesh<R: Runtime, M: Mesh<String>>(runtime: R, mesh: M) {
    assert_eq!(mesh.peers(), SHARDS);
    let sender = mesh.clone();
    runtime.spawn(Class::Delivery, async move {
        for round in 0..50 {
            for to in 0..SHARDS {
                sender.send(to, format!("{} to {to}: {round}", sender.me())).await.expect("it reads");
            }
        }
        sender.close();
    });
    let mut rounds = [0; SHARDS];
    while let Some((from, letter)) = mesh.receive().await {
        assert_eq!(letter, format!("{from} to {}: {}", mesh.me(), rounds[from]));
        rounds[from] += 1;
    }
    assert_eq!(rounds, [50; SHARDS]);
}

/// Whole files, many at once into the same directories: each is there, whole, and no temporary one is left.
async fn publications<R: Runtime>(place: Place<R>) {
    let disk = place.runtime.disk().clone();
    let dirs: Vec<PathBuf> = ["a", "b"].iter().map(|name| place.dir.join(name)).collect();
    for dir in &dirs {
        disk.make_dir(dir).await.expect("room");
    }
    let ended = Rc::new((Cell::new(0), Signal::new()));
    for number in 0..100 {
        let (disk, ended, dir) = (disk.clone(), ended.clone(), dirs[number % 7 % 2].clone());
        let temporary = place.dir.join(format!("{number}.tmp"));
        place.runtime.spawn(Class::Delivery, async move {
            let bytes = format!("text {number}").into_bytes();
            disk.publish(&temporary, &dir.join(number.to_string()), bytes).await.expect("room");
            ended.0.set(ended.0.get() + 1);
            ended.1.raise();
        });
    }
    while ended.0.get() < 100 {
        place.runtime.timeout(PATIENCE, ended.1.raised()).await.expect("all end");
    }
    let mut names = Vec::new();
    for dir in &dirs {
        for (name, _) in disk.list(dir).await.expect("a directory") {
            let text = disk.read_whole(&dir.join(&name)).await.expect("a file");
            assert_eq!(text, format!("text {name}").into_bytes());
            names.push(name);
        }
    }
    assert_eq!(names.len(), 100);
    let left = disk.list(&place.dir).await.expect("a directory");
    assert!(left.iter().all(|(name, _)| !name.ends_with("tmp")), "{left:?}");

    disk.make_tree(&place.dir.join("deep/er/tree"), &["x", "y"]).await.expect("room");
    disk.make_tree(&place.dir.join("deep/er/tree"), &["x", "z"]).await.expect("it is there already");
    let made = disk.list(&place.dir.join("deep/er/tree")).await.expect("a directory");
    assert_eq!(made.iter().map(|(name, _)| name.as_str()).collect::<Vec<_>>(), ["x", "y", "z"]);
    let tree = Tree { dir: &place.dir.join("other/tree"), parts: &["x", "y"] };
    for text in ["first", "second"] {
        let path = tree.dir.join("y").join(text);
        disk.publish_in_tree(tree, &tree.dir.join("x/t"), &path, text.into()).await.expect("room");
        assert_eq!(disk.read_whole(&path).await.expect("a file"), text.as_bytes());
    }
    assert!(disk.list(&tree.dir.join("x")).await.expect("a directory").is_empty());

    let nowhere = place.dir.join("no/such/file");
    let error = disk.publish(&nowhere, &place.dir.join("x"), Vec::new()).await.expect_err("no directory");
    assert_eq!(error.kind(), io::ErrorKind::NotFound);
    let temporary = place.dir.join("t");
    disk.publish(&temporary, &nowhere, b"x".to_vec()).await.expect_err("no directory to go to");
}
