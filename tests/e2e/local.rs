//! Row S31: mail that ends here, through the whole server: Maildirs of many virtual users, killed in between; and two users
//! of one machine, one of whom plays games with links. Only root can be two users.

mod games;

use std::fs;
use std::os::unix::fs::{MetadataExt, symlink};
use std::path::{Path, PathBuf};
use std::time::Duration;

use rustix::fs::{AtFlags, CWD, Gid, Uid, chownat};
use rustix::process::{getegid, geteuid};

use crate::support::homes::mode;
use crate::support::mail::submit;
use crate::support::text::{MARK, message, original, with_file_line_ends};
use crate::support::wait::wait_for;
use crate::support::{Random, Server, Setup, maildir, wait_until};

const SOON: Duration = Duration::from_secs(30);

/// Forty users of a table who are the server's own, each with a Maildir.
fn virtual_users() -> Setup {
    let (uid, gid) = (geteuid().as_raw(), getegid().as_raw());
    let users: Vec<String> = (0..40).map(|number| format!("u{number} => u{number}:{uid}:{gid}:/")).collect();
    Setup::new(format!(
        "table users {{ {} }}\naction \"local\" maildir \"@DIR@/mail/%{{rcpt.user}}\" userbase <users>\n\
         match from any for any action \"local\"\n",
        users.join(", ")
    ))
}

fn boxes(server: &Server, count: usize) -> Vec<PathBuf> {
    (0..count).map(|number| server.dir().join(format!("mail/u{number}"))).collect()
}

#[test]
fn s31_every_virtual_user_has_every_message_once_and_whole() {
    let server = virtual_users().start();
    let mut random = Random::new(31);
    let users: Vec<String> = (0..40).map(|number| format!("u{number}@d.example")).collect();
    let mut sent: Vec<(String, Vec<u8>)> = Vec::new();
    let mut client = server.client();
    for round in 0..6 {
        // Small ones travel in memory, large ones are read back in pieces.
        let key = format!("key{round}");
        let text = message(&key, &mut random, if round == 5 { 300_000 } else { 2_000 });
        let to: Vec<&str> = users.iter().map(String::as_str).collect();
        assert_eq!(client.submit("s@source.example", &to, &text).code, 250);
        sent.push((key, with_file_line_ends(&text)));
    }
    let boxes = boxes(&server, 40);
    wait_until("all is delivered", SOON, || boxes.iter().all(|dir| maildir::messages(dir).len() == sent.len()));
    for dir in &boxes {
        assert_eq!(fs::read_dir(dir.join("tmp")).expect("there").count(), 0);
        let there = maildir::messages(dir);
        for (key, text) in &sent {
            let line = format!("{MARK}{key}\n");
            let mut of_key = there.iter().filter(|message| original(message).starts_with(line.as_bytes()));
            let one = of_key.next().unwrap_or_else(|| panic!("no {key} in {}", dir.display()));
            assert!(original(one) == text, "{key} in {} is not whole", dir.display());
            assert!(of_key.next().is_none(), "{key} twice in {}", dir.display());
        }
    }
}

#[test]
fn s31_a_kill_leaves_whole_messages_or_none() {
    let mut server = virtual_users().start();
    let mut random = Random::new(32);
    let mut texts = Vec::new();
    let mut client = server.client();
    for number in 0..60 {
        let text = message(&format!("k{number}"), &mut random, 20_000);
        let to = format!("u{}@d.example", number % 7);
        assert_eq!(client.submit("s@source.example", &[&to], &text).code, 250);
        texts.push(with_file_line_ends(&text));
    }
    server.kill9();
    let boxes = boxes(&server, 7);
    let all = || boxes.iter().flat_map(|dir| maildir::messages(dir)).collect::<Vec<_>>();
    let is_one = |message: &[u8]| texts.iter().any(|text| original(message) == text);
    assert!(all().iter().all(|message| is_one(message)), "half a message after the kill");
    server.start();
    wait_until("the rest comes after the start", SOON, || {
        let there = all();
        texts.iter().all(|text| there.iter().any(|message| original(message) == text))
    });
    assert!(all().iter().all(|message| is_one(message)));
}

const GILLES: u32 = 61_001;
const ERIC: u32 = 61_002;

fn give(path: &Path, uid: u32) {
    let (uid, gid) = (Uid::from_raw(uid), Gid::from_raw(uid));
    chownat(CWD, path, Some(uid), Some(gid), AtFlags::SYMLINK_NOFOLLOW).expect("we are root");
}

/// Two users of a table, their homes, and a spool where everybody may make files: the worst there is.
fn two_users() -> Setup {
    let users = format!("gilles => gilles:{GILLES}:{GILLES}:/home/gilles, eric => eric:{ERIC}:{ERIC}:/home/eric");
    let rules = format!(
        "table users {{ {users} }}\n\
         accept from any for domain box.example users <users> deliver to mbox\n\
         accept from any for domain dir.example users <users> deliver to maildir\n\
         accept from any for domain id.example users <users> deliver to mda \"sh -c 'id -u >> out; cat >> out'\"\n"
    );
    let setup = Setup::new(rules).root();
    mode(setup.dir(), 0o755);
    for (path, uid) in [("home/gilles", GILLES), ("home/eric", ERIC), ("var/mail", 0)] {
        let full = setup.dir().join("root").join(path);
        fs::create_dir_all(&full).expect("made");
        give(&full, uid);
        mode(&full, if uid == 0 { 0o1777 } else { 0o755 });
    }
    setup
}

/// Waits for a delivery that is refused for now, and gives its reason.
fn refused(server: &Server, to: &str, key: &str) -> String {
    let before: Vec<String> = server.queue().into_iter().map(|listed| listed.id).collect();
    submit(server, &[to], key);
    wait_for("it is deferred, with a reason", SOON, || {
        let new = server.queue().into_iter().find(|listed| !before.contains(&listed.id))?;
        (new.state == "deferred" && !new.reason.is_empty()).then_some(new.reason)
    })
}

#[test]
fn s31_each_users_mail_is_his_own() {
    if !geteuid().is_root() {
        eprintln!("only root can be two users");
        return;
    }
    let server = two_users().start();
    let root = server.dir().join("root");
    for (name, uid) in [("gilles", GILLES), ("eric", ERIC)] {
        for domain in ["box", "dir", "id"] {
            submit(&server, &[&format!("{name}@{domain}.example")], domain);
        }
        wait_until("all is delivered", SOON, || server.queue().is_empty());
        let home = root.join("home").join(name);
        let mailbox = root.join("var/mail").join(name);
        let of_maildir = maildir::messages(&home.join("Maildir"));
        assert_eq!(of_maildir.len(), 1);
        for path in [&mailbox, &home.join("Maildir/new"), &home.join("out")] {
            let about = fs::metadata(path).expect("it is there");
            assert_eq!((about.uid(), about.mode() & 0o077), (uid, 0), "{}", path.display());
        }
        let out = fs::read_to_string(home.join("out")).expect("a text");
        assert!(out.starts_with(&format!("{uid}\nReturn-Path: <s@source.example>\n")), "{out}");
        wait_until("it is told", SOON, || server.printed().contains(&format!("relay=mbox as={uid}:{uid} ")));
    }
}

#[test]
fn s31_links_of_another_user_lead_nowhere() {
    if !geteuid().is_root() {
        eprintln!("only root can be two users");
        return;
    }
    let server = two_users().start();
    let root = server.dir().join("root");
    let (home, mailbox) = (root.join("home/gilles"), root.join("var/mail/gilles"));
    let private = home.join("private");
    fs::write(&private, "private\n").expect("written");
    give(&private, GILLES);
    mode(&private, 0o600);

    symlink(&private, &mailbox).expect("a link");
    give(&mailbox, ERIC);
    let reason = refused(&server, "gilles@box.example", "symlink");
    assert!(reason.contains("symbolic link"), "{reason}");
    fs::remove_file(&mailbox).expect("there");
    fs::hard_link(&private, &mailbox).expect("a link");
    let reason = refused(&server, "gilles@box.example", "hardlink");
    assert!(reason.contains("hard link"), "{reason}");
    fs::remove_file(&mailbox).expect("there");
    fs::write(&mailbox, "").expect("written");
    give(&mailbox, ERIC);
    mode(&mailbox, 0o666);
    let reason = refused(&server, "gilles@box.example", "others");
    assert!(reason.contains("belongs to user 61002"), "{reason}");
    assert_eq!(fs::read_to_string(&mailbox).expect("a text"), "", "nothing was written to it");

    // A `.forward` that is somebody else's: the client is told to come again.
    let forward = root.join("home/eric/.forward");
    let rcpt = |to: &str| {
        let mut client = server.client();
        assert_eq!(client.say("MAIL FROM:<s@source.example>").code, 250);
        let reply = client.say(&format!("RCPT TO:<{to}>"));
        format!("{} {}", reply.code, reply.lines[0])
    };
    symlink(&private, &forward).expect("a link");
    give(&forward, ERIC);
    assert!(rcpt("eric@dir.example").starts_with("451 4.2.4"), "{}", rcpt("eric@dir.example"));
    fs::remove_file(&forward).expect("there");
    fs::write(&forward, "gilles@dir.example\n").expect("written");
    give(&forward, GILLES);
    assert!(rcpt("eric@dir.example").starts_with("451 4.2.4"), "{}", rcpt("eric@dir.example"));
    fs::remove_file(&forward).expect("there");
    assert!(rcpt("eric@dir.example").starts_with("250"));

    // What could be mended was: nothing is lost.
    fs::remove_file(&mailbox).expect("there");
    server.retry();
    wait_until("the rest is delivered", SOON, || server.queue().is_empty());
    let text = fs::read_to_string(&mailbox).expect("a text");
    assert_eq!(text.matches("\nSubject: ").count(), 3, "{text}");
    assert_eq!(fs::read_to_string(&private).expect("a text"), "private\n");
}
