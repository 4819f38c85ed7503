//! Every game that one user can play with another's mail: `.forward`, mailbox and Maildir as a link, a hard link, a FIFO, a
//! thing of another kind, another's, in a home where everybody may write, and changed between check and use.

use std::collections::BTreeMap;
use std::fs;
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;

use rustix::fs::{CWD, Mode, RenameFlags, mkfifoat, renameat_with};
use rustix::process::geteuid;

use super::{ERIC, GILLES, SOON, give, mode, refused, submit, two_users};
use crate::support::{Server, maildir, wait_until};

/// What somebody puts where the mail goes.
type Trick = fn(&Place);

/// Where: what is tricked, and a file and a directory that it must not lead to.
struct Place {
    path: PathBuf,
    file: PathBuf,
    directory: PathBuf,
}

fn link_to_file(place: &Place) {
    symlink(&place.file, &place.path).expect("a link");
    give(&place.path, ERIC);
}

fn link_to_directory(place: &Place) {
    symlink(&place.directory, &place.path).expect("a link");
    give(&place.path, ERIC);
}

fn link_to_nothing(place: &Place) {
    symlink("/rp-canary", &place.path).expect("a link");
}

fn hard_link(place: &Place) {
    fs::hard_link(&place.file, &place.path).expect("a link");
}

fn fifo(place: &Place) {
    mkfifoat(CWD, &place.path, Mode::RWXU).expect("made");
    give(&place.path, GILLES);
}

fn directory_of_another(place: &Place) {
    for part in ["", "tmp", "new", "cur"] {
        let path = place.path.join(part);
        fs::create_dir(&path).expect("made");
        give(&path, ERIC);
        mode(&path, 0o777);
    }
}

fn file_of_another(place: &Place) {
    fs::write(&place.path, "").expect("written");
    give(&place.path, ERIC);
    mode(&place.path, 0o666);
}

/// A Maildir of the user's own with a part that leads elsewhere: his directory may have been everybody's for a while.
fn part_that_is_a_link(place: &Place) {
    fs::create_dir(&place.path).expect("made");
    give(&place.path, GILLES);
    symlink(place.directory.join("new"), place.path.join("new")).expect("a link");
}

fn part_of_another(place: &Place) {
    directory_of_another(place);
    give(&place.path, GILLES);
}

/// What is tricked, how, and what the reason must say.
const AGAINST_MAILBOXES: &[(Trick, &str)] = &[
    (link_to_file, "symbolic link"),
    (link_to_directory, "symbolic link"),
    (link_to_nothing, "symbolic link"),
    (hard_link, "hard link"),
    (fifo, "not a regular file"),
    (directory_of_another, "a directory"),
    (file_of_another, "belongs to user 61002"),
];

const AGAINST_MAILDIRS: &[(Trick, &str)] = &[
    (link_to_file, "Maildir: "),
    (link_to_directory, "belongs to user 61002"),
    (link_to_nothing, "Maildir: "),
    (hard_link, "Maildir: "),
    (fifo, "Maildir: "),
    (directory_of_another, "belongs to user 61002"),
    (file_of_another, "Maildir: "),
    (part_that_is_a_link, "Maildir/new: "),
    (part_of_another, "Maildir/tmp: belongs to user 61002"),
];

const AGAINST_FORWARDS: &[(Trick, &str)] = &[
    (link_to_file, "is a symbolic link"),
    (link_to_directory, "is a symbolic link"),
    (link_to_nothing, "is a symbolic link"),
    (hard_link, "has another name (a hard link)"),
    (fifo, "is not a regular file"),
    (directory_of_another, "belongs to user 61002"),
    (file_of_another, "belongs to user 61002"),
];

struct World {
    server: Server,
    home: PathBuf,
    file: PathBuf,
    directory: PathBuf,
}

impl World {
    /// Two users; a private file of gilles's, and a Maildir of eric's that everybody may write to.
    fn new() -> Self {
        let server = two_users().start();
        let root = server.dir().join("root");
        let (home, directory) = (root.join("home/gilles"), root.join("home/eric/trap"));
        let file = home.join("private");
        fs::write(&file, "private\n").expect("written");
        give(&file, GILLES);
        mode(&file, 0o600);
        for part in ["", "tmp", "new", "cur"] {
            fs::create_dir(directory.join(part)).expect("made");
            give(&directory.join(part), ERIC);
            mode(&directory.join(part), 0o777);
        }
        Self { server, home, file, directory }
    }

    fn place(&self, path: PathBuf) -> Place {
        Place { path, file: self.file.clone(), directory: self.directory.clone() }
    }

    fn nothing_was_harmed(&self, after: &str) {
        assert_eq!(fs::read_to_string(&self.file).expect("there"), "private\n", "{after}");
        for part in ["tmp", "new", "cur"] {
            let count = fs::read_dir(self.directory.join(part)).expect("there").count();
            assert_eq!(count, 0, "{after}: {part}");
        }
        assert!(!Path::new("/rp-canary").exists(), "{after}");
    }

    fn rcpt(&self, to: &str) -> String {
        let mut client = self.server.client();
        assert_eq!(client.say("MAIL FROM:<s@source.example>").code, 250);
        let reply = client.say(&format!("RCPT TO:<{to}>"));
        format!("{} {}", reply.code, reply.lines[0])
    }
}

fn remove(path: &Path) {
    match path.symlink_metadata() {
        Ok(about) if about.is_dir() => fs::remove_dir_all(path).expect("removed"),
        Ok(_) => fs::remove_file(path).expect("removed"),
        Err(_) => {}
    }
}

fn only_root() -> bool {
    let root = geteuid().is_root();
    if !root {
        eprintln!("only root can be two users");
    }
    root
}

#[test]
fn s31_no_trick_with_a_mailbox_or_a_maildir_leads_elsewhere() {
    if !only_root() {
        return;
    }
    let world = World::new();
    let mailbox = world.server.dir().join("root/var/mail/gilles");
    for (to, path, tricks) in [
        ("gilles@box.example", mailbox, AGAINST_MAILBOXES),
        ("gilles@dir.example", world.home.join("Maildir"), AGAINST_MAILDIRS),
    ] {
        for (number, (trick, expected)) in tricks.iter().enumerate() {
            let key = format!("{to} {number}");
            trick(&world.place(path.clone()));
            let reason = refused(&world.server, to, &key);
            assert!(reason.contains(expected), "{key}: {reason}");
            world.nothing_was_harmed(&key);
            remove(&path);
        }
    }
    // Nothing of it is lost.
    world.server.retry();
    wait_until("all is delivered", SOON, || world.server.queue().is_empty());
    assert_eq!(maildir::messages(&world.home.join("Maildir")).len(), AGAINST_MAILDIRS.len());
}

#[test]
fn s28_no_trick_with_a_forward_is_believed() {
    if !only_root() {
        return;
    }
    let world = World::new();
    let path = world.home.join(".forward");
    for (number, (trick, expected)) in AGAINST_FORWARDS.iter().enumerate() {
        trick(&world.place(path.clone()));
        let reply = world.rcpt("gilles@box.example");
        assert!(reply.starts_with("451 4.2.4"), "{number}: {reply}");
        wait_until("the reason is logged", SOON, || world.server.printed().contains(expected));
        world.nothing_was_harmed(&number.to_string());
        remove(&path);
    }
    // A good one, in a home that is not.
    fs::write(&path, "eric@box.example\n").expect("written");
    give(&path, GILLES);
    mode(&path, 0o644);
    assert!(world.rcpt("gilles@box.example").starts_with("250"));
    for (owner, bits) in [(GILLES, 0o777), (GILLES, 0o775), (ERIC, 0o755), (ERIC, 0o777)] {
        give(&world.home, owner);
        mode(&world.home, bits);
        let reply = world.rcpt("gilles@box.example");
        assert!(reply.starts_with("451 4.2.4"), "{owner} {bits:o}: {reply}");
    }
    give(&world.home, GILLES);
    mode(&world.home, 0o755);
    assert!(world.rcpt("gilles@box.example").starts_with("250"));
}

/// Exchanges what has the two names, until it is told to stop.
fn exchange(one: &Path, other: &Path, stop: &AtomicBool) {
    while !stop.load(Ordering::Relaxed) {
        renameat_with(CWD, one, CWD, other, RenameFlags::EXCHANGE).expect("both are there");
        thread::yield_now();
    }
}

#[test]
fn s31_what_changes_between_check_and_use_leads_nowhere() {
    if !only_root() {
        return;
    }
    let world = World::new();
    let root = world.server.dir().join("root");
    // Where everybody may write, so that the one may exchange what is the other's.
    let mut pairs: BTreeMap<PathBuf, PathBuf> = BTreeMap::new();
    let mailbox = root.join("var/mail/gilles");
    fs::write(&mailbox, "").expect("written");
    give(&mailbox, GILLES);
    mode(&mailbox, 0o600);
    pairs.insert(mailbox, root.join("var/mail/trick"));
    submit(&world.server, &["gilles@dir.example"], "first");
    wait_until("there is a Maildir", SOON, || world.server.queue().is_empty());
    pairs.insert(world.home.join("Maildir"), world.home.join("trick"));
    for (path, trick) in &pairs {
        let target = match path.is_dir() {
            true => world.directory.clone(),
            false => world.file.clone(),
        };
        symlink(target, trick).expect("a link");
    }
    let stop = AtomicBool::new(false);
    thread::scope(|scope| {
        for (path, trick) in &pairs {
            scope.spawn(|| exchange(path, trick, &stop));
        }
        for number in 0..30 {
            submit(&world.server, &["gilles@box.example"], &format!("box{number}"));
            submit(&world.server, &["gilles@dir.example"], &format!("dir{number}"));
        }
        wait_until("each has been tried", SOON, || world.server.queue().iter().all(|one| one.state == "deferred"));
        stop.store(true, Ordering::Relaxed);
    });
    world.nothing_was_harmed("the exchange");
    for (path, trick) in &pairs {
        if path.symlink_metadata().expect("there").is_symlink() {
            renameat_with(CWD, path, CWD, trick, RenameFlags::EXCHANGE).expect("both are there");
        }
        fs::remove_file(trick).expect("a link");
    }
    world.server.retry();
    wait_until("all is delivered", SOON, || world.server.queue().is_empty());
    assert_eq!(maildir::messages(&world.home.join("Maildir")).len(), 31);
    let text = fs::read_to_string(root.join("var/mail/gilles")).expect("a text");
    assert_eq!(text.matches("\nSubject: box").count(), 30);
    world.nothing_was_harmed("the end");
}
