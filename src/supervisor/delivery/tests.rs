//! Lanes with real helpers: this test program started once more, as the server starts its own program. Run by root they
//! become users whom nobody else has; else they stay who they are, and what needs two users is left out.

use std::fs::{self, File, Permissions};
use std::io::Write;
use std::os::unix::fs::{MetadataExt, PermissionsExt, chown, symlink};
use std::path::{Path, PathBuf};
use std::process::Command;

use ringpost_conf::Machinery;
use ringpost_shard::{Handed, Handover, UserRecord};
use rustix::process::{Pid, Signal, getegid, geteuid, kill_process};
use tempfile::TempDir;

use super::*;
use crate::ipc::supervisor::{memory, seal, text_from_memory};
use crate::limits::FORWARD_BYTES;

/// Not a test: what the helpers of the others run.
#[test]
#[ignore = "the helper's part in the tests beside"]
fn helper() {
    run(&Channel::inherited().unwrap()).unwrap();
}

fn start_this_test_program(channel: OwnedFd) -> io::Result<Child> {
    Command::new("/proc/self/exe")
        .args(["--exact", "supervisor::delivery::tests::helper", "--ignored", "--nocapture", "--test-threads=1"])
        .stdin(Stdio::from(channel))
        .stdout(Stdio::null())
        .spawn()
}

/// A lane, its engine, and a directory that its users may look into.
struct World {
    engine: Channel,
    lane: Lane,
    dir: TempDir,
    asked: u64,
}

impl World {
    fn new(bounds: Bounds) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let trust = Trust::new(dir.path().join("spool"), None);
        let (lane, engine) = Lane::start_with(bounds.into(), trust, Box::new(start_this_test_program)).unwrap();
        mode(dir.path(), 0o755);
        Self { engine: Channel::of(engine), lane, dir, asked: 0 }
    }

    /// A user with a home.
    fn user(&self, name: &str, uid: u32) -> UserRecord {
        let home = self.dir.path().join(name);
        fs::create_dir(&home).unwrap();
        let (uid, gid) = match geteuid().is_root() {
            true => (uid, uid + 100),
            false => (geteuid().as_raw(), getegid().as_raw()),
        };
        give(&home, uid, gid);
        UserRecord { name: name.into(), uid, gid, home, in_table: false }
    }

    fn ask(&mut self, user: &UserRecord, how: How, text: &str) {
        let mut file = memory().unwrap();
        file.write_all(text.as_bytes()).unwrap();
        let work = Work::Deliver(Handover {
            user: user.clone(),
            how,
            sender: "s@a.test".into(),
            recipient: format!("{}@d.test", user.name),
            extension: String::new(),
            original: "o@d.test".into(),
            copy: format!("1.{}_0.host", self.asked),
        });
        self.asked += 1;
        let errand = Errand { id: self.asked, work };
        self.engine.send_with(&errand, Some(seal(file).unwrap().as_fd())).unwrap();
    }

    fn answer(&self) -> (u64, Handed) {
        match self.engine.receive::<Report>().unwrap().expect("the lane lives").0 {
            Report { id, answer: Answer::Delivery(handed) } => (id, handed),
            other => panic!("{other:?}"),
        }
    }

    fn deliver(&mut self, user: &UserRecord, how: How, text: &str) -> Handed {
        self.ask(user, how, text);
        let (id, handed) = self.answer();
        assert_eq!(id, self.asked);
        handed
    }

    fn shell(&mut self, user: &UserRecord, script: &str) -> Handed {
        self.deliver(user, shell(script), "the text\n")
    }

    fn forward(&self, user: &UserRecord) -> Forwarding {
        self.read(Work::ReadForward(user.clone()))
    }

    fn list(&self, user: &UserRecord, path: &Path) -> Forwarding {
        self.read(Work::ReadList { user: user.clone(), path: path.to_owned() })
    }

    fn read(&self, work: Work) -> Forwarding {
        self.engine.send(&Errand { id: 7, work }).unwrap();
        let (report, text) = self.engine.receive::<Report>().unwrap().expect("the lane lives");
        match report {
            Report { id: 7, answer: Answer::Forward(Forwarding::Text(_)) } => {
                Forwarding::Text(text_from_memory(text.expect("alongside"), FORWARD_BYTES).unwrap())
            }
            Report { id: 7, answer: Answer::Forward(other) } => other,
            other => panic!("{other:?}"),
        }
    }

    /// The engine goes; the lane must follow.
    fn end(self) {
        drop(self.engine);
        self.lane.0.join().unwrap();
    }
}

fn shell(script: &str) -> How {
    How::Program { arguments: vec!["sh".into(), "-c".into(), script.into()] }
}

fn mode(path: &Path, mode: u32) {
    fs::set_permissions(path, Permissions::from_mode(mode)).unwrap();
}

fn give(path: &Path, uid: u32, gid: u32) {
    rustix::fs::chownat(
        rustix::fs::CWD,
        path,
        Some(rustix::fs::Uid::from_raw(uid)),
        Some(rustix::fs::Gid::from_raw(gid)),
        rustix::fs::AtFlags::SYMLINK_NOFOLLOW,
    )
    .unwrap();
}

fn delivered(handed: &Handed) -> &str {
    match handed {
        Handed::Delivered { text } => text,
        other => panic!("{other:?}"),
    }
}

fn temporary(handed: Handed) -> String {
    match handed {
        Handed::Temporary { text, .. } => text,
        other => panic!("{other:?}"),
    }
}

/// A spool as Debian has it: its group may write, users may not. Of an ordinary user: his own.
fn spool(world: &World) -> PathBuf {
    let spool = world.dir.path().join("spool");
    fs::create_dir(&spool).unwrap();
    if geteuid().is_root() {
        give(&spool, 0, 61_900);
        mode(&spool, 0o2775);
    }
    spool
}

#[test]
fn mail_is_the_users_own() {
    let mut world = World::new(Bounds::of(&Machinery::default()));
    let gilles = world.user("gilles", 61_001);
    let spool = spool(&world);
    for _ in 0..2 {
        delivered(&world.deliver(&gilles, How::Mbox { spool: spool.clone() }, "Subject: x\n\nFrom me\n"));
    }
    let text = fs::read_to_string(spool.join("gilles")).unwrap();
    assert_eq!(text.matches("From s@a.test ").count(), 2);
    assert_eq!(text.matches("\n>From me\n\n").count(), 2);
    let about = fs::metadata(spool.join("gilles")).unwrap();
    assert_eq!((about.uid(), about.mode() & 0o007), (gilles.uid, 0));
    if geteuid().is_root() {
        assert_eq!((about.gid(), about.mode() & 0o777), (61_900, 0o660), "as Debian has mailboxes");
    }
    let maildir = gilles.home.join("Maildir");
    delivered(&world.deliver(&gilles, How::Maildir { path: maildir.clone(), junk: false }, "x\n"));
    let files: Vec<_> = fs::read_dir(maildir.join("new")).unwrap().map(|entry| entry.unwrap()).collect();
    assert_eq!(files.len(), 1);
    let about = files[0].metadata().unwrap();
    assert_eq!((about.uid(), about.gid(), about.mode() & 0o077), (gilles.uid, gilles.gid, 0));
    let path = gilles.home.join("archive");
    delivered(&world.deliver(&gilles, How::File { path: path.clone() }, "x\n"));
    assert_eq!(fs::metadata(&path).unwrap().uid(), gilles.uid);
    delivered(&world.deliver(&gilles, How::File { path: "/dev/null".into() }, "x\n"));
    world.end();
}

#[test]
fn programs_run_as_the_user_and_at_home() {
    let mut world = World::new(Bounds::of(&Machinery::default()));
    let gilles = world.user("gilles", 61_001);
    let handed = world.shell(&gilles, "cat; id -u; id -g; id -G; pwd; umask; echo $USER $SENDER $RECIPIENT");
    let (uid, gid, home) = (gilles.uid, gilles.gid, gilles.home.display());
    let said = delivered(&handed);
    assert!(said.starts_with(&format!("delivered to sh; it said: the text {uid} {gid} ")), "{said}");
    assert!(said.ends_with(&format!("{home} 0077 gilles s@a.test gilles@d.test")), "{said}");
    if geteuid().is_root() {
        assert!(said.contains(&format!("{gid} {gid} {home}")), "no groups of others: {said}");
        let secret = world.dir.path().join("secret");
        fs::write(&secret, "secret").unwrap();
        mode(&secret, 0o600);
        let handed = world.shell(&gilles, &format!("cat {}", secret.display()));
        assert!(matches!(&handed, Handed::Permanent { output, .. } if output.contains("denied")), "{handed:?}");
    }
    assert!(matches!(world.shell(&gilles, "exit 75"), Handed::Temporary { status: (4, 3, 0), .. }));
    let handed = world.shell(&gilles, "echo nobody here; exit 67");
    assert!(matches!(&handed, Handed::Permanent { status: (5, 1, 1), output, .. } if output == "nobody here"));
    let handed = world.deliver(&gilles, How::Program { arguments: vec!["no-such-program".into()] }, "");
    assert!(matches!(handed, Handed::Temporary { status: (4, 3, 5), .. }), "{handed:?}");
    // Nothing is split, and no shell sees it.
    let arguments = vec!["printf".into(), "%s".into(), "$(id) ; `id` a b".into()];
    let handed = world.deliver(&gilles, How::Program { arguments }, "");
    assert!(delivered(&handed).ends_with("it said: $(id) ; `id` a b"), "{handed:?}");
    world.end();
}

#[test]
fn another_users_games_with_links_are_refused() {
    if !geteuid().is_root() {
        return;
    }
    let mut world = World::new(Bounds::of(&Machinery::default()));
    let (gilles, eric) = (world.user("gilles", 61_001), world.user("eric", 61_002));
    let private = gilles.home.join("private");
    fs::write(&private, "private\n").unwrap();
    give(&private, gilles.uid, gilles.gid);
    mode(&private, 0o600);
    // The worst spool there is: everybody may make files in it.
    let spool = world.dir.path().join("spool");
    fs::create_dir(&spool).unwrap();
    mode(&spool, 0o1777);
    let mbox = || How::Mbox { spool: spool.clone() };
    let mailbox = spool.join("gilles");
    let by_eric = |path: &Path| give(path, eric.uid, eric.gid);

    // Gilles' mail to Eric's file, and through Eric's link to one of Gilles' own.
    fs::write(&mailbox, "").unwrap();
    by_eric(&mailbox);
    mode(&mailbox, 0o666);
    assert!(temporary(world.deliver(&gilles, mbox(), "x\n")).contains("belongs to user 61002"));
    fs::remove_file(&mailbox).unwrap();
    symlink(&private, &mailbox).unwrap();
    by_eric(&mailbox);
    assert!(temporary(world.deliver(&gilles, mbox(), "x\n")).contains("symbolic link"));
    fs::remove_file(&mailbox).unwrap();
    fs::hard_link(&private, &mailbox).unwrap();
    assert!(temporary(world.deliver(&gilles, mbox(), "x\n")).contains("hard link"));
    fs::remove_file(&mailbox).unwrap();
    // A link to nowhere must not make a file there either.
    symlink(gilles.home.join("made"), &mailbox).unwrap();
    assert!(temporary(world.deliver(&gilles, mbox(), "x\n")).contains("symbolic link"));
    assert!(!gilles.home.join("made").exists());
    fs::remove_file(&mailbox).unwrap();

    // Eric's own mail to what is Gilles', by a link or by name: he has not the rights.
    symlink(&private, eric.home.join("box")).unwrap();
    assert!(
        temporary(world.deliver(&eric, How::File { path: eric.home.join("box") }, "x\n")).contains("symbolic link")
    );
    let direct = world.deliver(&eric, How::File { path: private.clone() }, "x\n");
    assert!(temporary(direct).contains("denied"));
    mode(&private, 0o666);
    let writable = world.deliver(&eric, How::File { path: private.clone() }, "x\n");
    assert!(temporary(writable).contains("belongs to user 61001"));

    // A Maildir that Eric has made where Gilles' was to be, and one behind Eric's link.
    let maildir = spool.join("Maildir");
    let deliver = |world: &mut World, user: &UserRecord| {
        temporary(world.deliver(user, How::Maildir { path: maildir.clone(), junk: false }, "x\n"))
    };
    for part in ["", "tmp", "new", "cur"] {
        fs::create_dir(maildir.join(part)).unwrap();
        by_eric(&maildir.join(part));
        mode(&maildir.join(part), 0o777);
    }
    assert!(deliver(&mut world, &gilles).contains("belongs to user 61002"));
    assert_eq!(fs::read_dir(maildir.join("new")).unwrap().count(), 0);
    fs::remove_dir_all(&maildir).unwrap();
    symlink(&gilles.home, &maildir).unwrap();
    assert!(deliver(&mut world, &eric).contains("belongs to user 61001"));
    assert_eq!(fs::read_to_string(&private).unwrap(), "private\n");
    world.end();
}

#[test]
fn forward_files_are_read_as_their_user() {
    let world = World::new(FOR_FORWARDS);
    let gilles = world.user("gilles", 61_001);
    let path = gilles.home.join(".forward");
    assert_eq!(world.forward(&gilles), Forwarding::NotThere);
    let long = "x@y.test\n".repeat(7000);
    fs::write(&path, &long).unwrap();
    mode(&path, 0o600);
    give(&path, gilles.uid, gilles.gid);
    assert_eq!(world.forward(&gilles), Forwarding::Text(long), "nearly 64 KiB, more than a letter holds");
    if geteuid().is_root() {
        let eric = world.user("eric", 61_002);
        let reason = |user: &UserRecord| match world.forward(user) {
            Forwarding::Unsafe(why) | Forwarding::Failed(why) => why,
            other => panic!("{other:?}"),
        };
        // Eric points his at Gilles' private one.
        symlink(&path, eric.home.join(".forward")).unwrap();
        assert!(reason(&eric).contains("symbolic link"));
        fs::remove_file(eric.home.join(".forward")).unwrap();
        fs::hard_link(&path, eric.home.join(".forward")).unwrap();
        assert!(reason(&eric).contains("denied"), "he cannot even open it");
        assert!(reason(&gilles).contains("hard link"), "a second name makes it suspicious to its owner, too");
        mode(&path, 0o644);
        assert!(reason(&eric).contains("belongs to user 61001"));
        fs::remove_file(eric.home.join(".forward")).unwrap();
        chown(&path, Some(0), Some(0)).unwrap();
        assert!(reason(&gilles).contains("belongs to user 0"));
        // A home that its user cannot enter says nothing of what is in it.
        chown(&gilles.home, Some(0), Some(0)).unwrap();
        mode(&gilles.home, 0o700);
        assert!(matches!(world.forward(&gilles), Forwarding::Failed(_)));
    }
    world.end();
}

#[test]
fn root_runs_no_programs_and_writes_no_files() {
    if !geteuid().is_root() {
        return;
    }
    let mut world = World::new(Bounds::of(&Machinery::default()));
    let root = UserRecord { name: "root".into(), uid: 0, gid: 0, home: world.dir.path().to_owned(), in_table: false };
    assert!(temporary(world.shell(&root, "id")).contains("root"));
    let path = world.dir.path().join("file");
    assert!(temporary(world.deliver(&root, How::File { path: path.clone() }, "x\n")).contains("root"));
    assert!(!path.exists());
    let elsewhere = How::Mbox { spool: world.dir.path().to_owned() };
    assert!(temporary(world.deliver(&root, elsewhere, "x\n")).contains("elsewhere than where mailboxes are"));
    assert!(!world.dir.path().join("root").exists());
    let spool = spool(&world);
    delivered(&world.deliver(&root, How::Mbox { spool }, "x\n"));
    world.end();
}

#[test]
fn root_reads_its_own_forward_and_lists_that_everybody_may_read() {
    if !geteuid().is_root() {
        return;
    }
    let world = World::new(FOR_FORWARDS);
    let home = world.dir.path().join("home");
    let root = UserRecord { name: "root".into(), uid: 0, gid: 0, home: home.clone(), in_table: false };
    fs::create_dir(&home).unwrap();
    let (forward, list) = (home.join(".forward"), home.join("list"));
    for path in [&forward, &list] {
        fs::write(path, "gilles\n").unwrap();
        mode(path, 0o600);
    }
    mode(&home, 0o755);
    let text = || Forwarding::Text("gilles\n".into());
    assert_eq!(world.forward(&root), text());
    let refused = |path: &Path| {
        let found = world.list(&root, path);
        assert!(matches!(&found, Forwarding::Failed(why) if why.contains("readable by everybody")), "{found:?}");
    };
    refused(&list);
    mode(&list, 0o644);
    assert_eq!(world.list(&root, &list), text());
    // As root's own is, on most systems.
    mode(&home, 0o700);
    refused(&list);
    assert_eq!(world.forward(&root), text());
    // Others' are their own affair.
    let gilles = world.user("gilles", 61_001);
    let own = gilles.home.join("list");
    fs::write(&own, "gilles\n").unwrap();
    mode(&own, 0o600);
    give(&own, gilles.uid, gilles.gid);
    assert_eq!(world.list(&gilles, &own), text());
    // The group comes from a table, and would open what is root's.
    let intruder = UserRecord { gid: 0, in_table: true, ..gilles };
    assert!(matches!(world.list(&intruder, &own), Forwarding::Failed(why) if why.contains("with the group root")));
    world.end();
}

#[test]
fn one_users_hanging_programs_leave_room_for_others() {
    let mut world = World::new(Bounds { at_once: 3, per_user: 2 });
    let (gilles, eric) = (world.user("gilles", 61_001), world.user("eric", 61_002));
    let gate = world.dir.path().join("gate");
    rustix::fs::mkfifoat(rustix::fs::CWD, &gate, rustix::fs::Mode::from_raw_mode(0o666)).unwrap();
    mode(&gate, 0o666);
    let wait = shell(&format!("read x < {}", gate.display()));
    for _ in 0..3 {
        world.ask(&gilles, wait.clone(), "");
    }
    if geteuid().is_root() {
        // The fourth in the queue, but the third to be sent out.
        world.ask(&eric, shell("true"), "");
        assert_eq!(world.answer().0, 4);
    }
    let mut ended = Vec::new();
    // One end for all: were it closed after a line, every program that waits would see the end of the file.
    let mut open_gate = File::options().read(true).write(true).open(&gate).unwrap();
    for _ in 0..3 {
        writeln!(open_gate, "go").unwrap();
        ended.push(world.answer().0);
    }
    ended.sort_unstable();
    assert_eq!(ended, [1, 2, 3]);
    world.end();
}

#[test]
fn a_helper_that_dies_is_a_delivery_that_failed_for_now() {
    let mut world = World::new(Bounds::of(&Machinery::default()));
    let gilles = world.user("gilles", 61_001);
    // The program's parent is the helper.
    let handed = world.shell(&gilles, "kill -9 $PPID");
    assert!(temporary(handed).contains("helper process died"));
    // Stopped by its user it holds nobody up, and is killed when its time is over.
    let pid = world.dir.path().join("pid");
    fs::write(&pid, "").unwrap();
    give(&pid, gilles.uid, gilles.gid);
    let stop = format!(
        "echo $PPID > {}; kill -STOP $PPID; while grep -h ^State: /proc/$PPID/task/*/status | grep -qv T; do :; done",
        pid.display()
    );
    world.ask(&gilles, shell(&stop), "");
    world.ask(&gilles, shell("true"), "");
    let (id, handed) = world.answer();
    assert_eq!(id, 3);
    delivered(&handed);
    wait_until(|| fs::read_to_string(&pid).is_ok_and(|pid| pid.ends_with('\n')));
    let stopped = fs::read_to_string(&pid).unwrap().trim().parse().ok().and_then(Pid::from_raw).expect("a number");
    kill_process(stopped, Signal::KILL).unwrap();
    let (id, handed) = world.answer();
    assert_eq!(id, 2);
    assert!(temporary(handed).contains("helper process died"));
    world.end();
}

#[test]
fn when_the_engine_goes_programs_end_and_writers_finish() {
    let mut world = World::new(Bounds { at_once: 3, per_user: 3 });
    let gilles = world.user("gilles", 61_001);
    let spool = spool(&world);
    let lock = spool.join("gilles.lock");
    fs::write(&lock, std::process::id().to_string()).unwrap();
    let mark = world.dir.path().join("mark");
    fs::write(&mark, "").unwrap();
    give(&mark, gilles.uid, gilles.gid);
    world.ask(&gilles, shell(&format!("echo began > {0}; sleep 1000", mark.display())), "");
    world.ask(&gilles, How::Mbox { spool: spool.clone() }, "x\n");
    wait_until(|| fs::read_to_string(&mark).is_ok_and(|text| text == "began\n"));
    let World { engine, lane, dir, .. } = world;
    drop(engine);
    // It waits for the lock, and for nobody else.
    fs::remove_file(&lock).unwrap();
    lane.0.join().unwrap();
    assert!(fs::read_to_string(spool.join("gilles")).unwrap().ends_with("\nx\n\n"));
    drop(dir);
}

fn wait_until(mut condition: impl FnMut() -> bool) {
    let deadline = Instant::now() + Duration::from_secs(30);
    while !condition() {
        assert!(Instant::now() < deadline, "not in time");
        std::thread::yield_now();
    }
}

#[test]
fn what_makes_no_sense_ends_the_lane_and_nothing_else() {
    let world = World::new(Bounds::of(&Machinery::default()));
    world.engine.send(&"not an errand").unwrap();
    let World { engine, lane, .. } = world;
    lane.0.join().unwrap();
    drop(engine);
}

#[test]
fn a_record_that_is_no_user_is_refused_and_a_text_must_come_along() {
    let mut world = World::new(Bounds::of(&Machinery::default()));
    let gilles = world.user("gilles", 61_001);
    let wrong = UserRecord { name: "../etc/passwd".into(), ..gilles.clone() };
    let spool = spool(&world);
    assert!(temporary(world.deliver(&wrong, How::Mbox { spool: spool.clone() }, "x\n")).contains("user record"));
    let errand = Errand {
        id: 9,
        work: Work::Deliver(Handover {
            user: gilles,
            how: How::Mbox { spool },
            sender: String::new(),
            recipient: "x@y".into(),
            extension: String::new(),
            original: "x@y".into(),
            copy: "1.a_0.h".into(),
        }),
    };
    world.engine.send(&errand).unwrap();
    assert!(temporary(world.answer().1).contains("lost"));
    world.end();
}
