//! How often the disk and the kernel are asked, counted from outside.

use std::fs;
use std::mem::MaybeUninit;
use std::os::fd::OwnedFd;
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::Duration;

use ringpost_bench::source;
use rustix::fs::inotify;
use rustix::process::{Pid, Signal, kill_process};

use crate::support::{Server, Setup, wait_until};

/// More than that many opened, created, renamed or removed files under load are a habit, not an event.
const FILE_EVENTS: usize = 40;

fn load(server: &Server, connections: u32, messages: u64) -> source::Summary {
    let options = source::Options { connections, messages: Some(messages), ..source::Options::to(server.smtp) };
    let summary = source::run(&options).expect("the source runs");
    assert_eq!((summary.accepted, summary.refused, summary.dropped), (messages, 0, 0), "{summary:?}");
    summary
}

#[test]
fn s119_many_messages_share_a_commit_and_one_has_its_own() {
    let server = Setup::discard().start();
    let messages = 4000;
    let summary = load(&server, 200, messages);
    wait_until("all are counted", Duration::from_secs(5), || server.metric("messages_received") == messages);
    let commits = server.metric("commits");
    eprintln!("{commits} commits for {messages} messages, {:.0} messages/s", summary.rate);
    assert!(commits < messages / 2, "{commits} commits for {messages} messages of 200 sessions");
    assert!(commits > 0);

    // A message that comes alone is a batch of its own; how its delivery went is written with the next one, or soon after.
    for number in 1..=5 {
        let reply = server.client().submit("a@source.example", &["b@sink.example"], b"Subject: alone\r\n\r\n");
        assert_eq!(reply.code, 250);
        wait_until("it is counted", Duration::from_secs(5), || server.metric("messages_received") == messages + number);
    }
    let alone = server.metric("commits") - commits;
    assert!((5..=12).contains(&alone), "{alone} commits for 5 messages alone");
}

/// What happens to the files of a directory tree from now on, whoever asks for it: system call or ring.
struct Watch(OwnedFd);

impl Watch {
    fn tree(dir: &Path) -> Self {
        let watch = inotify::init(inotify::CreateFlags::CLOEXEC | inotify::CreateFlags::NONBLOCK).expect("inotify");
        let mut dirs = vec![dir.to_owned()];
        while let Some(dir) = dirs.pop() {
            let events = inotify::WatchFlags::OPEN
                | inotify::WatchFlags::CREATE
                | inotify::WatchFlags::DELETE
                | inotify::WatchFlags::MOVE;
            inotify::add_watch(&watch, &dir, events).expect("a watch");
            let entries = fs::read_dir(&dir).expect("readable").map(|entry| entry.expect("entry").path());
            dirs.extend(entries.filter(|path| path.is_dir()));
        }
        let watch = Self(watch);
        // Looking for the directories was an event of its own.
        watch.events();
        watch
    }

    fn events(&self) -> Vec<String> {
        let mut buffer = [MaybeUninit::uninit(); 64 * 1024];
        let mut reader = inotify::Reader::new(&self.0, &mut buffer);
        let mut events = Vec::new();
        while let Ok(event) = reader.next() {
            events.push(format!("{:?} {:?}", event.events(), event.file_name().unwrap_or_default()));
        }
        events
    }
}

/// Calls by name, from the table that `strace -c` writes.
fn calls(table: &str) -> Vec<(String, u64)> {
    let rows = table.lines().filter_map(|line| {
        let words: Vec<&str> = line.split_whitespace().collect();
        let count = words.get(3)?.parse().ok()?;
        (words.len() >= 5 && *words.last()? != "total").then(|| ((*words.last().expect("a name")).to_owned(), count))
    });
    rows.collect()
}

fn is_traced(pid: Pid) -> bool {
    let status = fs::read_to_string(format!("/proc/{}/status", pid.as_raw_nonzero())).unwrap_or_default();
    status.lines().any(|line| line.strip_prefix("TracerPid:").is_some_and(|tracer| tracer.trim() != "0"))
}

#[test]
fn s120_no_file_is_opened_renamed_or_removed_for_a_message() {
    let server = Setup::discard().start();
    let messages = 4000;
    // What happens once, has happened.
    load(&server, 16, 500);
    let engine = server.engine();
    let (output, ring_before) = (server.dir().join("strace"), server.metric("ring_operations"));
    let mut strace = Command::new("strace")
        .args(["-f", "-c", "-o", &output.display().to_string(), "-p", &engine.as_raw_nonzero().to_string()])
        .stderr(Stdio::null())
        .spawn()
        .expect("strace runs");
    wait_until("strace has attached", Duration::from_secs(10), || is_traced(engine));
    let watch = Watch::tree(&server.state);
    load(&server, 16, messages);
    let events = watch.events();
    kill_process(Pid::from_child(&strace), Signal::INT).expect("it runs");
    strace.wait().expect("a child");
    let table = fs::read_to_string(&output).expect("the table");
    let calls = calls(&table);
    let total: u64 = calls.iter().map(|(_, count)| count).sum();
    let ring = server.metric("ring_operations") - ring_before;
    eprintln!(
        "{:.2} system calls and {:.2} ring operations a message; {} file events",
        total as f64 / messages as f64,
        ring as f64 / messages as f64,
        events.len()
    );
    assert!(total > 0, "{table}");
    assert!(events.len() <= FILE_EVENTS, "{} events: {:?}", events.len(), &events[..FILE_EVENTS]);
    let on_names = ["open", "creat", "rename", "unlink", "link", "mkdir", "rmdir", "truncate", "stat"];
    for (name, count) in &calls {
        let named = on_names.iter().any(|word| name.contains(word));
        assert!(!named || *count <= FILE_EVENTS as u64, "{count} × {name}\n{table}");
        let synced = name.contains("sync");
        assert!(!synced || *count < messages / 2, "{count} × {name}\n{table}");
    }
    assert!(total + ring <= 12 * messages, "{total} system calls, {ring} ring operations\n{table}");
}
