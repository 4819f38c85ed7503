//! That the world is deterministic, and that its faults are the ones a real machine has.

use std::cell::{Cell, RefCell};
use std::io;
use std::net::SocketAddr;
use std::path::Path;
use std::rc::Rc;
use std::time::Duration;

use super::*;
use crate::{BLOCK_BYTES, Create, Disk, File, Listener, Mesh, Stream, Writer};

const PATIENCE: Duration = Duration::from_secs(60);

/// Answers whatever comes, in as many connections as come.
fn serve_echo(server: &SimRuntime) -> SocketAddr {
    let listener = server.listen((server.ip(), 0).into()).unwrap();
    let address = listener.local_addr();
    let runtime = server.clone();
    server.spawn(Class::Session, async move {
        while let Ok((mut stream, _)) = listener.accept().await {
            runtime.spawn(Class::Session, async move {
                let mut buffer = Vec::new();
                while let Ok(1..) = stream.read(&mut buffer, 4096).await {
                    if stream.write_all(&std::mem::take(&mut buffer)).await.is_err() {
                        break;
                    }
                }
            });
        }
    });
    address
}

/// Sends and reads back `bytes` bytes; how many came.
async fn ask_echo(client: &SimRuntime, address: SocketAddr, bytes: usize) -> io::Result<usize> {
    let mut stream = client.connect(address, None, PATIENCE).await?;
    let mut back = Vec::new();
    let mut sent = 0;
    while back.len() < bytes {
        let piece = 3_000.min(bytes - sent);
        stream.write_all(&vec![sent as u8; piece]).await?;
        sent += piece;
        while back.len() < sent {
            if stream.read(&mut back, 64 << 10).await? == 0 {
                return Ok(back.len());
            }
        }
    }
    Ok(back.len())
}

fn busy_world(seed: u64) -> (u64, Duration, Vec<bool>) {
    let world = SimWorld::new(seed);
    world.set_net(NetFaults { reset: 0.01, refuse: 0.05, lose_connect: 0.1, ..NetFaults::default() });
    let address = serve_echo(&world.node("server"));
    let outcomes = Rc::new(RefCell::new(Vec::new()));
    for number in 0..20 {
        let (client, outcomes) = (world.node(&format!("client {number}")), outcomes.clone());
        let runtime = client.clone();
        client.spawn(Class::Delivery, async move {
            let asked = ask_echo(&runtime, address, 30_000).await;
            outcomes.borrow_mut().push(matches!(asked, Ok(30_000)));
        });
    }
    assert!(world.run_until(PATIENCE, || outcomes.borrow().len() == 20));
    let outcomes = outcomes.take();
    (world.fingerprint(), world.elapsed(), outcomes)
}

#[test]
fn a_seed_decides_everything() {
    let first = busy_world(1);
    assert_eq!(busy_world(1), first);
    assert_ne!(busy_world(2).0, first.0);
    assert!(first.2.contains(&true), "some work: {:?}", first.2);
    assert!((0..10).any(|seed| busy_world(seed).2.contains(&false)), "the faults bite");
}

#[test]
fn time_jumps_and_is_the_same_for_all() {
    let world = SimWorld::new(3);
    let node = world.node("one");
    let (before, unix_before) = (node.now(), node.unix_ms());
    world.block_on(node.sleep(Duration::from_secs(4 * 24 * 3600)));
    assert!(node.now() - before >= Duration::from_secs(4 * 24 * 3600));
    assert!(node.unix_ms() - unix_before >= 4 * 24 * 3600 * 1000);
    assert_eq!(unix_before, EPOCH_MS);
    assert_eq!(world.block_on(node.timeout(Duration::from_secs(1), node.sleep(Duration::from_secs(2)))), None);
    assert_eq!(world.block_on(node.timeout(Duration::from_secs(2), async { 5 })), Some(5));
    assert!(world.is_idle(), "dropped timers leave nothing");
    let (now, right_ms) = (node.now(), node.unix_ms());
    for ahead_ms in [3_600_000, -3_600_000, 0] {
        world.set_wall_ahead_ms(ahead_ms);
        assert_eq!(
            (node.now(), node.unix_ms() as i64),
            (now, right_ms as i64 + ahead_ms),
            "only the clock on the wall"
        );
    }
}

#[test]
#[should_panic(expected = "seed 9: the world stands still")]
fn a_standstill_names_the_seed() {
    SimWorld::new(9).block_on(std::future::pending::<()>());
}

#[test]
fn running_ends_at_its_limit() {
    let world = SimWorld::new(4);
    let node = world.node("one");
    let runtime = node.clone();
    node.spawn(Class::Background, async move {
        loop {
            runtime.yield_now().await;
        }
    });
    world.run_for(Duration::from_millis(5));
    assert_eq!(world.elapsed(), Duration::from_millis(5));
    assert!(!world.run_until(Duration::from_millis(5), || false));
    assert_eq!(world.block_on_within(Duration::from_millis(5), std::future::pending::<()>()), None);
    assert!(world.elapsed() < Duration::from_millis(16));
}

#[test]
fn a_crash_ends_tasks_and_resets_connections() {
    struct Noise(Rc<Cell<u32>>);
    impl Drop for Noise {
        fn drop(&mut self) {
            self.0.set(self.0.get() + 1);
        }
    }
    let world = SimWorld::new(5);
    let server = world.node("server");
    let address = serve_echo(&server);
    let dropped = Rc::new(Cell::new(0));
    let noise = Noise(dropped.clone());
    server.spawn(Class::Background, async move {
        std::future::pending::<()>().await;
        drop(noise);
    });
    let client = world.node("client");
    let error = world.block_on(async {
        let mut stream = client.connect(address, None, PATIENCE).await.unwrap();
        stream.write_all(b"x").await.unwrap();
        let mut buffer = Vec::new();
        stream.read(&mut buffer, 10).await.unwrap();
        world.crash("server");
        stream.read(&mut buffer, 10).await.unwrap_err()
    });
    assert_eq!(error.kind(), io::ErrorKind::ConnectionReset);
    assert_eq!((dropped.get(), world.tasks("server")), (1, 0));
    let refused = world.block_on(client.connect(address, None, PATIENCE)).err().expect("nobody there");
    assert_eq!(refused.kind(), io::ErrorKind::ConnectionRefused);

    assert!(!server.is_alive() && server.listen(address).is_err());
    server.spawn(Class::Background, async { unreachable!("a dead node runs nothing") });
    let again = world.node("server");
    assert_eq!(again.ip(), server.ip());
    let address = serve_echo(&again);
    assert_eq!(world.block_on(ask_echo(&client, address, 100)).unwrap(), 100);
}

#[test]
fn a_node_may_crash_itself_and_time_may_crash_it() {
    let world = SimWorld::new(6);
    let node = world.node("one");
    let handle = world.clone();
    node.spawn(Class::Session, async move {
        handle.crash("one");
        std::future::pending::<()>().await;
    });
    world.after(Duration::from_secs(1), |world| world.crash("two"));
    let two = world.node("two");
    let runtime = two.clone();
    two.spawn(Class::Session, async move { runtime.sleep(Duration::from_secs(2)).await });
    world.run_for(Duration::from_millis(1_500));
    assert_eq!((world.tasks("one"), world.tasks("two")), (0, 0));
}

#[test]
fn the_end_of_the_world_frees_it() {
    let alive = Rc::new(());
    {
        let world = SimWorld::new(7);
        let server = world.node("server");
        let address = serve_echo(&server);
        for runtime in [server, world.node("client")] {
            let (alive, task_runtime) = (alive.clone(), runtime.clone());
            runtime.spawn(Class::Session, async move {
                let _stream = task_runtime.connect(address, None, PATIENCE).await;
                task_runtime.sleep(PATIENCE).await;
                drop(alive);
            });
        }
        world.run_for(Duration::from_secs(1));
        assert_eq!(Rc::strong_count(&alive), 3);
    }
    assert_eq!(Rc::strong_count(&alive), 1);
}

#[test]
fn a_reader_that_stops_holds_its_writer_back() {
    let world = SimWorld::new(8);
    world.set_net(NetFaults { buffer_bytes: 10_000, ..NetFaults::default() });
    let (server, client) = (world.node("server"), world.node("client"));
    let listener = server.listen((server.ip(), 25).into()).unwrap();
    world.block_on(async {
        let mut writer = client.connect(listener.local_addr(), None, PATIENCE).await.unwrap();
        let (mut reader, peer) = listener.accept().await.unwrap();
        assert_eq!((peer.address(), writer.local_addr().ip()), (Some(writer.local_addr()), client.ip()));
        let bytes = vec![1; 25_000];
        let stuck = client.timeout(Duration::from_secs(5), writer.write_all(&bytes)).await;
        assert!(stuck.is_none());
        let mut buffer = Vec::new();
        while buffer.len() < 10_000 {
            reader.read(&mut buffer, 700).await.unwrap();
        }
        assert_eq!(buffer.len(), 10_000);
        writer.write_all(b"there is room").await.unwrap();
        drop(writer);
        let mut rest = Vec::new();
        while reader.read(&mut rest, 700).await.unwrap() > 0 {}
        assert_eq!(rest, b"there is room");
        reader.write_all(b"to nobody").await.unwrap();
        server.sleep(Duration::from_secs(1)).await;
        assert_eq!(reader.write_all(b"again").await.unwrap_err().kind(), io::ErrorKind::ConnectionReset);
    });
}

#[test]
fn a_cut_network_hangs_and_heals() {
    let world = SimWorld::new(10);
    let address = serve_echo(&world.node("server"));
    let client = world.node("client");
    world.block_on(async {
        let mut stream = client.connect(address, None, PATIENCE).await.unwrap();
        world.cut("server", "client");
        let silence = client.connect(address, None, Duration::from_secs(20)).await.err().expect("no answer");
        assert_eq!(silence.kind(), io::ErrorKind::TimedOut);
        stream.write_all(b"are you there").await.unwrap();
        let mut buffer = Vec::new();
        assert!(client.timeout(PATIENCE, stream.read(&mut buffer, 100)).await.is_none());
        world.heal("server", "client");
        while buffer.len() < 13 {
            stream.read(&mut buffer, 100).await.unwrap();
        }
        assert_eq!(buffer, b"are you there");
    });
}

#[test]
fn shards_share_a_port_and_loopback_is_one_s_own() {
    let world = SimWorld::new(11);
    let loopback = SocketAddr::from(([127, 0, 0, 1], 25));
    let everywhere = SocketAddr::from(([0, 0, 0, 0], 25));
    let (one, two) = (world.node("one"), world.node("two"));
    let shards: Vec<_> = (0..2).map(|_| world.node("one").listen(everywhere).unwrap()).collect();
    let other = two.listen(everywhere).expect("its own 0.0.0.0");
    assert_eq!(world.node("three").listen((one.ip(), 26).into()).map(|l| l.local_addr().port()).unwrap(), 26);
    world.block_on(async {
        for _ in 0..40 {
            one.connect(loopback, None, PATIENCE).await.unwrap();
            one.connect((one.ip(), 25).into(), None, PATIENCE).await.unwrap();
        }
        two.connect(loopback, None, PATIENCE).await.unwrap();
        other.accept().await.unwrap();
        let mut counts = [0, 0];
        for (shard, count) in shards.iter().zip(&mut counts) {
            while one.timeout(Duration::from_millis(1), shard.accept()).await.is_some() {
                *count += 1;
            }
        }
        assert_eq!(counts[0] + counts[1], 80);
        assert!(counts.iter().all(|&count| count > 20), "{counts:?}");
    });
}

fn block(byte: u8) -> Vec<u8> {
    vec![byte; BLOCK_BYTES]
}

/// Writes 1 to block 0 and waits, writes 2 to blocks 1 to 4 and crashes before the answer; the five blocks after that.
fn crash_amid_a_write(seed: u64, faults: DiskFaults) -> Vec<Vec<u8>> {
    let world = SimWorld::new(seed);
    let node = world.node("one");
    let path = Path::new("/queue/1.seg");
    world.block_on(async {
        node.disk().make_dir(path.parent().unwrap()).await.unwrap();
        let file = node.disk().create(path, 8 * BLOCK_BYTES as u64, Create::Prewritten).await.unwrap();
        node.disk().set_faults(faults);
        file.write_durable(0, &block(1)).await.unwrap();
        let four = block(2).repeat(4);
        let unanswered = file.write_durable(BLOCK_BYTES as u64, &four);
        assert!(node.timeout(Duration::from_micros(10), unanswered).await.is_none());
        world.crash("one");
        assert!(node.disk().open(path).await.is_err(), "the dead read nothing");
    });
    let again = world.node("one");
    world.block_on(async {
        let file = again.disk().open(path).await.unwrap();
        assert_eq!((file.size(), file.path().as_path()), (8 * BLOCK_BYTES as u64, path));
        let all = file.read(0, 5 * BLOCK_BYTES).await.unwrap();
        all.chunks(BLOCK_BYTES).map(<[u8]>::to_vec).collect()
    })
}

#[test]
fn an_answered_write_survives_and_an_unanswered_one_may_not() {
    let (mut old, mut new, mut torn, mut mixed) = (0, 0, 0, 0);
    for seed in 0..200 {
        let blocks = crash_amid_a_write(seed, DiskFaults::default());
        assert_eq!(blocks[0], block(1), "seed {seed}");
        let kinds: Vec<_> = blocks[1..].iter().map(|b| b.iter().filter(|&&byte| byte == 2).count()).collect();
        old += kinds.iter().filter(|&&kind| kind == 0).count();
        new += kinds.iter().filter(|&&kind| kind == BLOCK_BYTES).count();
        torn += kinds.iter().filter(|&&kind| kind % BLOCK_BYTES != 0).count();
        mixed += u32::from(kinds.iter().any(|kind| kind != &kinds[0]));
    }
    assert!(old > 100 && new > 100 && torn > 100 && mixed > 100, "{old} {new} {torn} {mixed}");
}

#[test]
fn a_lying_disk_loses_what_it_promised() {
    let lost = crash_amid_a_write(1, DiskFaults { lie: true, ..DiskFaults::default() });
    assert_eq!(lost[0], block(0));
}

#[test]
fn errors_leave_the_disk_in_doubt() {
    let world = SimWorld::new(12);
    let node = world.node("one");
    world.block_on(async {
        let file = node.disk().create(Path::new("/a"), 64 * BLOCK_BYTES as u64, Create::Allocated).await.unwrap();
        node.disk().set_faults(DiskFaults { fail_sync: 1.0, ..DiskFaults::default() });
        let error = file.write_durable(0, &block(1)).await.unwrap_err();
        assert_eq!(error.raw_os_error(), Some(libc::EIO));
        assert_eq!(file.read(0, 2).await.unwrap(), [1, 1], "in the cache");
        node.disk().set_faults(DiskFaults { fail_write: 1.0, ..DiskFaults::default() });
        let many = block(3).repeat(32);
        file.write_durable(32 * BLOCK_BYTES as u64, &many).await.unwrap_err();
        let written = file.read(32 * BLOCK_BYTES as u64, 32 * BLOCK_BYTES).await.unwrap();
        let written = written.iter().filter(|&&byte| byte == 3).count() / BLOCK_BYTES;
        assert!((1..32).contains(&written), "{written} of 32");
        node.disk().set_faults(DiskFaults { fail_read: 1.0, ..DiskFaults::default() });
        file.read(0, 1).await.unwrap_err();
        node.disk().set_faults(DiskFaults { corrupt_read: 1.0, ..DiskFaults::default() });
        assert_ne!(file.read(8 * BLOCK_BYTES as u64, 64).await.unwrap(), [0; 64]);
        node.disk().set_faults(DiskFaults::default());
        assert_eq!(file.read(8 * BLOCK_BYTES as u64, 64).await.unwrap(), [0; 64]);
        node.disk().corrupt(Path::new("/a"), 8 * BLOCK_BYTES as u64 + 5).unwrap();
        assert_ne!(file.read(8 * BLOCK_BYTES as u64, 64).await.unwrap(), [0; 64]);
        assert_eq!(node.disk().durable_writes(), 0);
    });
}

#[test]
fn a_full_disk_says_so() {
    let world = SimWorld::new(13);
    let node = world.node("one");
    let disk = world.disk("one");
    disk.set_faults(DiskFaults { capacity_bytes: 10 * BLOCK_BYTES as u64, ..DiskFaults::default() });
    world.block_on(async {
        let eight = 8 * BLOCK_BYTES as u64;
        node.disk().create(Path::new("/a"), eight, Create::Prewritten).await.unwrap();
        assert_eq!(node.disk().free_bytes(Path::new("/")).await.unwrap(), 2 * BLOCK_BYTES as u64);
        let error = node.disk().create(Path::new("/b"), eight, Create::Prewritten).await.err().unwrap();
        assert_eq!(error.kind(), io::ErrorKind::StorageFull);
        let mut writer = node.disk().writer(Path::new("/c")).await.unwrap();
        writer.append(vec![0; 2 * BLOCK_BYTES]).await.unwrap();
        assert_eq!(writer.append(vec![0]).await.unwrap_err().kind(), io::ErrorKind::StorageFull);
        writer.discard().await;
        node.disk().remove(Path::new("/a")).await.unwrap();
        assert_eq!(disk.files(), []);
    });
}

#[test]
fn a_crash_leaves_published_files_whole_and_names_old_or_new() {
    let (mut published, mut temporary) = (0, 0);
    for seed in 0..100 {
        let world = SimWorld::new(seed);
        let node = world.node("one");
        world.block_on(async {
            let mut first = node.disk().writer(Path::new("/t")).await.unwrap();
            first.append(vec![1; 10_000]).await.unwrap();
            first.publish(Path::new("/f")).await.unwrap();
            let mut second = node.disk().writer(Path::new("/t")).await.unwrap();
            second.append(vec![2; 9_000]).await.unwrap();
            let unanswered = second.publish(Path::new("/f"));
            assert!(node.timeout(Duration::from_micros(10), unanswered).await.is_none());
            world.crash("one");
        });
        let again = world.node("one");
        let found = world.block_on(again.disk().read_whole(Path::new("/f"))).unwrap();
        match found.first() {
            Some(1) => assert_eq!(found, vec![1; 10_000]),
            _ => {
                assert_eq!(found, vec![2; 9_000], "seed {seed}");
                published += 1;
            }
        }
        temporary += usize::from(again.disk().files().iter().any(|(path, _)| path == Path::new("/t")));
    }
    assert!((20..80).contains(&published), "{published}");
    assert_eq!(published + temporary, 100);
}

#[test]
fn slow_disks_are_slow() {
    let world = SimWorld::new(14);
    let node = world.node("one");
    node.disk().set_faults(DiskFaults { slow: 1.0, slow_by: Duration::from_secs(30), ..DiskFaults::default() });
    world.block_on(node.disk().list(Path::new("/"))).unwrap();
    assert!(world.elapsed() >= Duration::from_secs(30));
}

#[test]
fn a_mesh_waits_for_room_and_ends() {
    let world = SimWorld::new(15);
    let node = world.node("one");
    let mut ends = world.mesh::<u32>(2, 3);
    let (two, one) = (ends.pop().unwrap(), ends.pop().unwrap());
    assert_eq!((one.me(), two.me(), one.peers()), (0, 1, 2));
    world.block_on(async {
        for number in 0..3 {
            one.send(1, number).await.unwrap();
        }
        assert!(node.timeout(Duration::from_secs(1), one.send(1, 3)).await.is_none());
        one.send(0, 7).await.unwrap();
        for number in 0..3 {
            assert_eq!(two.receive().await, Some((0, number)));
        }
        one.close();
        assert!(one.send(1, 4).await.is_err());
        assert!(node.timeout(Duration::from_secs(1), two.receive()).await.is_none(), "it is open itself");
        drop(two);
        assert_eq!(one.receive().await, Some((0, 7)));
        assert_eq!(one.receive().await, None);
    });
}

#[test]
fn users_of_a_local_socket_are_told_apart() {
    let world = SimWorld::new(7);
    let server = world.node("server");
    let path = std::path::Path::new("/state/smtp.sock");
    let listener = server.listen_unix(path).unwrap();
    let user = crate::Credentials { pid: 9, uid: 1000, gid: 100 };
    let (first, second) = world.block_on(async {
        let _one = server.connect_unix_as(path, user, Duration::from_secs(1)).await.unwrap();
        let first = listener.accept().await.unwrap().1;
        let _other = server.connect_unix(path, Duration::from_secs(1)).await.unwrap();
        (first, listener.accept().await.unwrap().1)
    });
    assert_eq!(first, crate::Peer::Process(user));
    assert!(matches!(second, crate::Peer::Process(root) if root.uid == 0), "{second:?}");
}
