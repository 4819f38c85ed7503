//! What only the real world has: threads, rings, descriptors. The rest is in `tests/conformance.rs`.

use std::cell::Cell;
use std::io;
use std::net::SocketAddr;
use std::os::fd::AsFd;
use std::pin::pin;
use std::rc::Rc;
use std::time::Duration;

use super::*;
use crate::{BLOCK_BYTES, Create, Disk, File, Listener, Mesh, Stream, sys};

const PATIENCE: Duration = Duration::from_secs(20);

fn loopback() -> SocketAddr {
    SocketAddr::from(([127, 0, 0, 1], 0))
}

fn run_mesh<F>(shards: usize, letters_max: usize, run: fn(RingRuntime, RingMesh<u64>) -> F) -> Vec<u64>
where
    F: Future<Output = u64> + 'static,
{
    let options = Options { shards, mesh_letters_max: letters_max, ..Options::default() };
    let threads = run_shards(&options, |_| run).expect("io_uring works here");
    threads.into_iter().map(|thread| thread.join().expect("no panic")).collect()
}

#[test]
fn memory_to_register_fits_the_limit_and_its_bounds() {
    assert_eq!(io_memory_bytes(1, u64::MAX), 4 << 20);
    assert_eq!(io_memory_bytes(2, 8 << 20), (8 << 20) / 6);
    assert_eq!(io_memory_bytes(64, 8 << 20), 64 << 10);
    assert_eq!(io_memory_bytes(0, 0), 64 << 10);
}

#[test]
fn start_errors_name_the_cause() {
    let too_few = Options { shards: 2, cpus: Some(vec![0]), ..Options::default() };
    let error = run_shards::<(), _, _, _, _>(&too_few, |_| |_, _| async {}).err().expect("two on one");
    assert!(matches!(error, StartError::Shards { shards: 2, cpus: 1 }), "{error}");
    let absent = Options { cpus: Some(vec![100_000]), ..Options::default() };
    let error = run_shards::<(), _, _, _, _>(&absent, |_| |_, _| async {}).err().expect("no such CPU");
    assert!(matches!(error, StartError::Cpu { cpu: 100_000, .. }), "{error}");
}

#[test]
fn more_shards_than_cpus_run_unpinned_and_all_talk_to_all() {
    let shards = available_cpus().len() + 2;
    let sums = run_mesh(shards, 4, |_, mesh| async move {
        let everyone = 0..mesh.peers();
        for to in everyone.clone() {
            mesh.send(to, 1 << mesh.me()).await.expect("there");
        }
        let mut sum = 0;
        for _ in everyone {
            let (from, letter) = mesh.receive().await.expect("one from each");
            assert_eq!(letter, 1 << from);
            sum += letter;
        }
        mesh.close();
        assert_eq!(mesh.receive().await, None, "all have closed");
        assert_eq!(mesh.send(0, 0).await.expect_err("closed").kind(), io::ErrorKind::BrokenPipe);
        sum
    });
    assert_eq!(sums, vec![(1 << shards) - 1; shards]);
}

#[test]
fn a_full_ring_holds_its_senders_back_and_loses_nothing() {
    const LETTERS: u64 = 20_000;
    const SENDERS: u64 = 4;
    let sums = run_mesh(2, 8, |runtime, mesh| async move {
        if mesh.me() == 0 {
            for sender in 0..SENDERS {
                let mesh = mesh.clone();
                runtime.spawn(Class::Delivery, async move {
                    for number in 0..LETTERS / SENDERS {
                        mesh.send(1, sender << 32 | number).await.expect("it reads");
                    }
                    mesh.send(0, 0).await.expect("ourselves");
                });
            }
            for _ in 0..SENDERS {
                mesh.receive().await.expect("each of them");
            }
            return 0;
        }
        let mut next = [0; SENDERS as usize];
        for _ in 0..LETTERS {
            let (_, letter) = mesh.receive().await.expect("a letter");
            let (sender, number) = ((letter >> 32) as usize, letter & 0xffff_ffff);
            assert_eq!(number, next[sender], "in the order of each sender");
            next[sender] += 1;
        }
        next.iter().sum()
    });
    assert_eq!(sums, [0, LETTERS]);
}

#[test]
fn a_shard_that_has_ended_is_an_error_to_those_who_write_to_it() {
    let refused = run_mesh(2, 2, |runtime, mesh| async move {
        if mesh.me() == 1 {
            mesh.receive().await.expect("the first");
            return 0;
        }
        let fill = async {
            for number in 0.. {
                if let Err(error) = mesh.send(1, number).await {
                    return error.kind();
                }
            }
            unreachable!("the ring holds two")
        };
        let kind = runtime.timeout(PATIENCE, fill).await.expect("it does not wait for ever");
        assert_eq!(kind, io::ErrorKind::BrokenPipe);
        1
    });
    assert_eq!(refused, [1, 0]);
}

#[test]
fn a_task_of_another_thread_is_woken() {
    let (sender, mailbox) = crate::Mailbox::new(4);
    let writer = std::thread::spawn(move || {
        for number in 0..1000_u64 {
            let mut letter = number;
            while let Err(back) = sender.try_send(letter) {
                letter = back;
                std::thread::yield_now();
            }
        }
    });
    let sum = run_single(|_| async move {
        let mut sum = 0;
        while let Some(letter) = mailbox.receive().await {
            sum += letter;
        }
        sum
    });
    writer.join().unwrap();
    assert_eq!(sum.unwrap(), 499_500);
}

#[test]
fn accepted_connections_do_not_delay_small_writes() {
    run_single(|runtime| async move {
        let listener = runtime.listener(sys::listen_socket(loopback(), 16, true).unwrap()).unwrap();
        let connected = runtime.connect(listener.local_addr(), None, PATIENCE).await.unwrap();
        let (accepted, peer) = listener.accept().await.unwrap();
        assert_eq!(peer.address(), Some(connected.local_addr()));
        assert_eq!(accepted.local_addr(), listener.local_addr());
        for stream in [&accepted, &connected] {
            assert!(rustix::net::sockopt::tcp_nodelay(stream.as_fd()).unwrap());
        }
    })
    .unwrap();
}

#[test]
fn a_dropped_listener_closes_whether_or_not_someone_waits() {
    run_single(|runtime| async move {
        for waits in [false, true] {
            let listener = runtime.listener(sys::listen_socket(loopback(), 16, false).unwrap()).unwrap();
            let address = listener.local_addr();
            if waits {
                assert!(runtime.timeout(Duration::from_millis(5), listener.accept()).await.is_none());
            }
            drop(listener);
            runtime.sleep(Duration::from_millis(5)).await;
            let refused = runtime.connect(address, None, PATIENCE).await.err().expect("nobody there");
            assert_eq!(refused.kind(), io::ErrorKind::ConnectionRefused);
        }
    })
    .unwrap();
}

#[test]
fn one_listener_serves_many_in_turn() {
    run_single(|runtime| async move {
        let listener = runtime.listener(sys::listen_socket(loopback(), 256, false).unwrap()).unwrap();
        let address = listener.local_addr();
        let served = Rc::new(std::cell::Cell::new(0));
        for _ in 0..200 {
            let (client_runtime, served) = (runtime.clone(), served.clone());
            runtime.spawn(Class::Delivery, async move {
                let mut stream = client_runtime.connect(address, None, PATIENCE).await.unwrap();
                let mut greeting = Vec::new();
                while stream.read(&mut greeting, 64).await.unwrap() > 0 {}
                assert_eq!(greeting, b"hello");
                served.set(served.get() + 1);
            });
        }
        for _ in 0..200 {
            let (mut stream, _) = listener.accept().await.unwrap();
            stream.write_all(b"hello").await.unwrap();
        }
        while served.get() < 200 {
            runtime.sleep(Duration::from_millis(1)).await;
        }
    })
    .unwrap();
}

#[test]
fn nothing_about_an_idle_connection_fills_its_buffer() {
    run_single(|runtime| async move {
        let listener = runtime.listener(sys::listen_socket(loopback(), 16, false).unwrap()).unwrap();
        let mut client = runtime.connect(listener.local_addr(), None, PATIENCE).await.unwrap();
        let (mut server, _) = listener.accept().await.unwrap();
        let mut buffer = Vec::new();
        assert!(runtime.timeout(Duration::from_millis(5), server.read(&mut buffer, 1 << 20)).await.is_none());
        assert_eq!(buffer.capacity(), 0);
        client.write_all(b"NOOP\r\n").await.unwrap();
        assert_eq!(server.read(&mut buffer, 2).await.unwrap(), 2);
        assert_eq!(server.read(&mut buffer, 100).await.unwrap(), 4);
        assert_eq!(buffer, b"NOOP\r\n");
    })
    .unwrap();
}

/// A new file of `blocks` blocks.
async fn some_file(runtime: &RingRuntime, dir: &Path, blocks: u64) -> RingFile {
    let path = dir.join("journal");
    runtime.disk().create(&path, blocks * BLOCK_BYTES as u64, Create::Prewritten).await.expect("room for a file")
}

#[test]
fn a_durable_write_that_nobody_waits_for_any_more_is_done_all_the_same() {
    let dir = tempfile::tempdir_in(".").expect("a directory");
    let here = dir.path().to_owned();
    let ended = run_single(|runtime| async move {
        let file = Rc::new(some_file(&runtime, &here, 65).await);
        for block in 0..64_u64 {
            let bytes = vec![block as u8 + 1; BLOCK_BYTES];
            let mut write = pin!(file.write_durable(block * BLOCK_BYTES as u64, &bytes));
            // One look gives it to the kernel; most have not ended by then.
            let _ = futures_lite::future::poll_once(&mut write).await;
        }
        file.write_durable(64 * BLOCK_BYTES as u64, &[65; BLOCK_BYTES]).await.expect("and one that is waited for");
        runtime.sleep(Duration::from_millis(50)).await;
        for block in 0..65_u64 {
            let read = file.read(block * BLOCK_BYTES as u64, BLOCK_BYTES).await.expect("it is there");
            assert!(read.iter().all(|byte| u64::from(*byte) == block + 1), "block {block} holds {}", read[0]);
        }
    });
    ended.expect("io_uring works here");
}

#[test]
fn durable_writes_of_many_tasks_end_while_connections_talk() {
    const TASKS: usize = 40;
    const WRITES: usize = 50;
    let dir = tempfile::tempdir_in(".").expect("a directory");
    let here = dir.path().to_owned();
    let ended = run_single(|runtime| async move {
        let file = Rc::new(some_file(&runtime, &here, TASKS as u64).await);
        let done = Rc::new(Cell::new(0));
        for task in 0..TASKS {
            let (file, done) = (file.clone(), done.clone());
            runtime.spawn(Class::Commit, async move {
                for turn in 0..WRITES {
                    let bytes = vec![(task + turn) as u8; BLOCK_BYTES];
                    file.write_durable((task * BLOCK_BYTES) as u64, &bytes).await.expect("written");
                    done.set(done.get() + 1);
                }
            });
        }
        let listener = runtime.listener(sys::listen_socket(loopback(), 16, false).unwrap()).unwrap();
        let mut client = runtime.connect(listener.local_addr(), None, PATIENCE).await.expect("it listens");
        let (mut server, _) = listener.accept().await.expect("it comes");
        let mut exchanges = 0;
        while done.get() < TASKS * WRITES {
            client.write_all(b"ping").await.expect("open");
            server.read(&mut Vec::new(), 16).await.expect("open");
            exchanges += 1;
            assert!(exchanges < 10_000_000, "{} of {} writes", done.get(), TASKS * WRITES);
        }
        for task in 0..TASKS {
            let read = file.read((task * BLOCK_BYTES) as u64, BLOCK_BYTES).await.expect("it is there");
            assert_eq!(read[0], (task + WRITES - 1) as u8);
        }
        let beyond = file.write_durable((TASKS * BLOCK_BYTES) as u64, &[0; BLOCK_BYTES]).await;
        assert_eq!(beyond.expect_err("beyond the end").kind(), io::ErrorKind::InvalidInput);
    });
    ended.expect("io_uring works here");
}

/// How often this thread has gone to sleep.
fn sleeps() -> i64 {
    // SAFETY: zeros are a valid `rusage`, which the kernel fills in.
    let mut usage: libc::rusage = unsafe { std::mem::zeroed() };
    // SAFETY: the structure is our own, for the time of the call.
    assert_eq!(unsafe { libc::getrusage(libc::RUSAGE_THREAD, &mut usage) }, 0);
    usage.ru_nvcsw
}

#[test]
fn an_executor_with_nothing_to_do_sleeps_until_it_has() {
    run_single(|runtime| async move {
        let listener = runtime.listener(sys::listen_socket(loopback(), 16, false).unwrap()).unwrap();
        runtime.spawn(Class::Session, async move {
            let _ = listener.accept().await;
        });
        let before = sleeps();
        runtime.sleep(Duration::from_millis(300)).await;
        let slept = sleeps() - before;
        assert!((1..10).contains(&slept), "it slept {slept} times");
    })
    .unwrap();
}

#[test]
fn more_may_wait_in_one_turn_than_the_ring_has_entries() {
    const PAIRS: usize = crate::limits::RING_DEPTH as usize + 20;
    run_single(|runtime| async move {
        let served = Rc::new(Cell::new(0));
        let mut peers = Vec::new();
        for _ in 0..PAIRS {
            let (ours, peer) = std::os::unix::net::UnixStream::pair().expect("descriptors");
            let (mut ours, served) = (runtime.stream(ours.into()), served.clone());
            peers.push(peer);
            runtime.spawn(Class::Session, async move {
                let mut got = Vec::new();
                assert_eq!(ours.read(&mut got, 16).await.expect("open"), 4);
                ours.write_all(&got).await.expect("open");
                served.set(served.get() + 1);
            });
        }
        runtime.sleep(Duration::from_millis(1)).await;
        for peer in &mut peers {
            io::Write::write_all(peer, b"ping").expect("open");
        }
        while served.get() < PAIRS {
            runtime.sleep(Duration::from_millis(1)).await;
        }
        for peer in &mut peers {
            let mut back = [0; 4];
            io::Read::read_exact(peer, &mut back).expect("open");
            assert_eq!(&back, b"ping");
        }
    })
    .unwrap();
}

#[test]
fn a_connection_that_is_dropped_while_it_waits_is_closed_for_its_peer() {
    run_single(|runtime| async move {
        let listener = runtime.listener(sys::listen_socket(loopback(), 16, false).unwrap()).unwrap();
        for _ in 0..3 {
            let mut client = runtime.connect(listener.local_addr(), None, PATIENCE).await.unwrap();
            let (mut server, _) = listener.accept().await.unwrap();
            let mut nothing = Vec::new();
            assert!(runtime.timeout(Duration::from_millis(2), server.read(&mut nothing, 16)).await.is_none());
            drop(server);
            let end = runtime.timeout(PATIENCE, client.read(&mut Vec::new(), 16)).await.expect("it is told");
            assert_eq!(end.expect("no reset"), 0);
        }
    })
    .unwrap();
}

#[test]
fn tasks_that_compute_let_in_what_has_come() {
    run_single(|runtime| async move {
        let (ours, mut peer) = std::os::unix::net::UnixStream::pair().expect("descriptors");
        let mut ours = runtime.stream(ours.into());
        let seen = Rc::new(Cell::new(false));
        for class in [Class::Commit, Class::Session, Class::Background] {
            let (runtime, seen) = (runtime.clone(), seen.clone());
            runtime.clone().spawn(class, async move {
                while !seen.get() {
                    runtime.yield_now().await;
                }
            });
        }
        let writer = std::thread::spawn(move || io::Write::write_all(&mut peer, b"here").expect("open"));
        let mut got = Vec::new();
        ours.read(&mut got, 16).await.expect("open");
        seen.set(true);
        writer.join().expect("no panic");
        assert_eq!(got, b"here");
    })
    .unwrap();
}
