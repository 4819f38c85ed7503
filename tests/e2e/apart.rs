//! Row S140, where root starts the server and the system has the users for it: the engine is one of its own, and so is the
//! keyholder. What a server of root's has left is handed over. Only root can be three users.

use std::fs::{self, OpenOptions};
use std::io::Write;
use std::os::unix::fs::{MetadataExt, chown, symlink};
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::{Command, Output, Stdio};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use rustix::process::{Pid, Signal, geteuid, kill_process};

use crate::support::homes::{mode, someone};
use crate::support::mail::{rcpt, submit, wait_for_all};
use crate::support::server::PROGRAM;
use crate::support::{Server, Setup, Sink, cli, maildir, wait_until};

const SOON: Duration = Duration::from_secs(30);
const ENGINE: u32 = 61_003;
const KEYHOLDER: u32 = 61_004;

const RULES: &str = "action \"none\" discard\n\
                     action \"own\" maildir \"/var/vmail/%{dest.user}\"\n\
                     action \"home\" maildir \"~/Maildir\"\n\
                     action \"out\" relay host \"smtp://@SINK@\"\n\
                     match from any for domain none.example action \"none\"\n\
                     match from any for domain own.example action \"own\"\n\
                     match from any for domain home.example action \"home\"\n\
                     match from any for any action \"out\"\n";

fn only_root() -> bool {
    let root = geteuid().is_root();
    if !root {
        eprintln!("only root can be three users");
    }
    root
}

/// Who are the system's users, with `gilles`, who has a home.
fn users(dir: &Path, engine: bool, keyholder: bool) {
    let (uid, gid) = someone();
    let mut text = format!("gilles:x:{uid}:{gid}::/home/gilles:/bin/sh\n");
    for (name, uid, there) in [("ringpost", ENGINE, engine), ("ringpost-key", KEYHOLDER, keyholder)] {
        if there {
            text.push_str(&format!("{name}:x:{uid}:{uid}::/nonexistent:/usr/sbin/nologin\n"));
        }
    }
    fs::write(dir.join("root/etc/passwd"), text).expect("written");
}

fn setup(rules: &str, sink: &Sink) -> Setup {
    setup_to(rules, &sink.address.to_string())
}

/// Relaying to this host.
fn setup_to(rules: &str, host: &str) -> Setup {
    let setup = Setup::new(rules.replace("@SINK@", host)).with_users(&["gilles"]);
    users(setup.dir(), true, true);
    // As it is on a system: nobody but root makes directories there.
    mode(&setup.open("root/var"), 0o755);
    setup
}

/// A line of `/proc/PID/status`.
fn status(pid: Pid, field: &str) -> String {
    let status = fs::read_to_string(format!("/proc/{}/status", pid.as_raw_nonzero())).expect("it runs");
    let line = status.lines().find_map(|line| line.strip_prefix(field)?.strip_prefix(':'));
    line.expect("the field").split_whitespace().collect::<Vec<_>>().join(" ")
}

fn all_four(uid: u32) -> String {
    format!("{uid} {uid} {uid} {uid}")
}

/// Engine and keyholder are who they are to be, and have no power of root's.
fn are_apart(server: &Server) {
    assert_eq!(status(server.supervisor(), "Uid"), all_four(0));
    for (pid, uid) in [(server.engine(), ENGINE), (server.keyholder(), KEYHOLDER)] {
        assert_eq!((status(pid, "Uid"), status(pid, "Gid")), (all_four(uid), all_four(uid)));
        assert_eq!(status(pid, "Groups"), uid.to_string());
        for set in ["CapEff", "CapPrm", "CapInh", "CapAmb"] {
            assert_eq!(u64::from_str_radix(&status(pid, set), 16), Ok(0), "{set} of {uid}");
        }
        assert_eq!((status(pid, "NoNewPrivs"), status(pid, "Seccomp")), ("1".into(), "2".into()));
    }
}

fn owner(path: &Path) -> u32 {
    fs::symlink_metadata(path).unwrap_or_else(|error| panic!("{}: {error}", path.display())).uid()
}

fn one_in(dir: &Path) -> fs::Metadata {
    let entry = fs::read_dir(dir).unwrap_or_else(|error| panic!("{}: {error}", dir.display())).next();
    entry.expect("one").expect("an entry").metadata().expect("there")
}

/// `ringpost sendmail` of another user.
fn sendmail(server: &Server, uid: u32, to: &str, subject: &str) -> Output {
    let mut command = Command::new(PROGRAM);
    command.arg("--state").arg(&server.state).args(["sendmail", to]).current_dir("/").uid(uid).gid(uid);
    let mut child = command.stdin(Stdio::piped()).stderr(Stdio::piped()).spawn().expect("it starts");
    let text = format!("Subject: {subject}\n\nhello\n");
    child.stdin.take().expect("piped").write_all(text.as_bytes()).expect("it reads");
    child.wait_with_output().expect("it ends")
}

/// What a start says that must not succeed.
fn refused(server: &Server) -> String {
    let path = |name: &str| server.dir().join(name).display().to_string();
    let output = Command::new(PROGRAM)
        .args(["serve", "--root", &path("root"), "--config", &path("ringpost.conf"), "--state"])
        .arg(&server.state)
        .output()
        .expect("it runs");
    assert!(!output.status.success());
    String::from_utf8_lossy(&output.stderr).into_owned()
}

#[test]
fn s140_engine_and_keyholder_are_users_of_their_own() {
    if !only_root() {
        return;
    }
    let sink = Sink::open();
    let mut server = setup(RULES, &sink).start();
    are_apart(&server);
    let root = server.dir().join("root");
    submit(&server, &["x@none.example", "bob@own.example", "gilles@home.example", "x@out.example"], "first");
    wait_for_all(&server);
    sink.wait_for(1, SOON);
    let (own, home) = (root.join("var/vmail/bob"), root.join("home/gilles/Maildir"));
    for (dir, uid) in [(&own, ENGINE), (&home, someone().0)] {
        let message = one_in(&dir.join("new"));
        assert_eq!((message.uid(), message.mode() & 0o777), (uid, 0o600), "{}", dir.display());
        assert_eq!(owner(dir), uid);
    }
    // The state directory is root's, and so is what is in it of the supervisor's.
    let about = fs::metadata(&server.state).expect("there");
    assert_eq!((about.uid(), about.gid(), about.mode() & 0o7777), (0, ENGINE, 0o1771));
    for (name, uid) in [
        ("queue", ENGINE),
        ("engine.lock", ENGINE),
        ("spool", 0),
        ("tls", 0),
        ("drop", 0),
        ("ringpost.lock", 0),
        ("smtp.sock", 0),
        ("control.sock", 0),
    ] {
        assert_eq!(owner(&server.state.join(name)), uid, "{name}");
    }
    // Administrators are root; other users bring mail, with a server and without one.
    server.stats();
    assert!(sendmail(&server, 61_009, "bob@own.example", "by the socket").status.success());
    wait_until("it is there", SOON, || maildir::messages(&own).len() == 2);
    server.tell(&["limit", "set", "domain:x.example", "rate=5/s"]);
    assert_eq!(owner(&server.state.join("limits.json")), ENGINE);

    // A new engine is the same user, and finds its queue.
    let (engine, keyholder) = (server.engine(), server.keyholder());
    kill_process(engine, Signal::KILL).expect("it runs");
    wait_until("there is another engine", SOON, || server.printed().contains("the engine runs again"));
    assert_ne!(server.engine(), engine);
    are_apart(&server);
    kill_process(keyholder, Signal::KILL).expect("it runs");
    wait_until("there is another keyholder", SOON, || server.printed().contains("the keyholder ended"));
    wait_until("it is ready", SOON, || status(server.keyholder(), "Seccomp") == "2");
    are_apart(&server);
    submit(&server, &["bob@own.example", "gilles@home.example", "x@out.example"], "second");
    wait_for_all(&server);
    assert_eq!((maildir::messages(&own).len(), maildir::messages(&home).len()), (3, 2));

    server.stop();
    // What the engine's user may have left behind does not become who listens there.
    for name in ["smtp.sock", "control.sock"] {
        let path = server.state.join(name);
        assert_eq!(owner(&path), 0, "{name}");
        let taken = Command::new("rm").arg(&path).uid(ENGINE).gid(ENGINE).stderr(Stdio::null()).status();
        assert!(!taken.expect("it runs").success() && path.exists(), "{name}");
    }
    assert!(sendmail(&server, 61_009, "bob@own.example", "by the drop").status.success());
    assert!(server.queue().is_empty(), "root reads it while nothing runs");
    server.start();
    wait_until("it is there", SOON, || maildir::messages(&own).len() == 4);
    let printed = server.printed();
    assert!(!printed.contains("not fully confined") && !printed.contains("run as root"), "{printed}");
}

#[test]
fn s140_what_an_engine_of_roots_has_left_is_handed_over() {
    if !only_root() {
        return;
    }
    let mut sink = Sink::open();
    sink.close();
    let setup = setup(RULES, &sink);
    users(setup.dir(), true, false);
    let mut server = setup.start();
    assert_eq!(status(server.engine(), "Uid"), all_four(0));
    wait_until("it is told", SOON, || {
        server.printed().contains("run as root, with few of its powers: there is no user")
    });
    server.tell(&["limit", "set", "domain:x.example", "rate=5/s"]);
    submit(&server, &["x@out.example"], "first");
    server.stop();
    let queue = server.state.join("queue");
    assert_eq!(owner(&queue), 0);
    // Others of the directory are nobody's but root's, and stay that: a file beside ours, and what a link leads to.
    let (beside, outside) = (server.state.join("notes"), server.dir().join("outside"));
    for path in [&beside, &outside] {
        fs::write(path, "private").expect("written");
    }
    symlink(&outside, queue.join("link")).expect("a link");

    users(server.dir(), true, true);
    server.start();
    are_apart(&server);
    for path in [&queue, &server.state.join("limits.json"), &server.state.join("engine.lock")] {
        assert_eq!(owner(path), ENGINE, "{}", path.display());
    }
    for entry in fs::read_dir(&queue).expect("there").flatten().filter(|entry| entry.file_name() != "link") {
        assert_eq!(owner(&entry.path()), ENGINE, "{}", entry.path().display());
    }
    assert_eq!((owner(&beside), owner(&outside), owner(&queue.join("link"))), (0, 0, 0));
    assert!(server.tell(&["limit", "list"]).contains("x.example"), "the limit was kept");
    assert_eq!(server.queue().len(), 1, "so was the message");
    submit(&server, &["y@out.example"], "second");
    server.stop();

    // And back, and once more: what root's engine has made meanwhile is handed over, too.
    users(server.dir(), true, false);
    server.start();
    assert_eq!(status(server.engine(), "Uid"), all_four(0));
    submit(&server, &["z@out.example"], "third");
    server.stop();
    users(server.dir(), true, true);
    server.start();
    are_apart(&server);
    assert_eq!(server.queue().len(), 3);
    sink.reopen();
    // A host that has failed may be left alone for a while; this forgives it.
    wait_until("all is delivered", SOON, || {
        server.retry();
        server.queue().is_empty()
    });
    assert_eq!(sink.messages().len(), 3);
}

#[test]
fn s140_a_state_directory_that_cannot_be_shared_is_refused_with_the_reason() {
    if !only_root() {
        return;
    }
    let sink = Sink::open();
    let mut server = setup(RULES, &sink).prepare();
    // Nobody but root passes.
    mode(server.dir(), 0o700);
    let said = refused(&server);
    assert!(said.contains("the user ringpost does not get to the state directory"), "{said}");
    mode(server.dir(), 0o755);
    // A file of the queue's that has another name could be any file.
    let outside = server.dir().join("outside");
    fs::write(&outside, "private").expect("written");
    chown(server.state.join("queue"), Some(0), Some(0))
        .or_else(|_| fs::create_dir(server.state.join("queue")))
        .expect("a queue");
    fs::hard_link(&outside, server.state.join("queue/link")).expect("a link");
    let said = refused(&server);
    assert!(said.contains("queue: link: a file with 2 links"), "{said}");
    assert_eq!(owner(&outside), 0);
    fs::remove_file(server.state.join("queue/link")).expect("ours");
    // What must be root's may not have been made by somebody else.
    fs::remove_dir_all(server.state.join("tls")).expect("there");
    symlink(server.dir(), server.state.join("tls")).expect("a link");
    let said = refused(&server);
    assert!(said.contains("tls: it is there, and no directory"), "{said}");
    fs::remove_file(server.state.join("tls")).expect("ours");
    chown(&server.state, Some(ENGINE), None).expect("we are root");
    let said = refused(&server);
    assert!(
        said.contains("it belongs to user 61003, and the supervisor is root") && said.contains("chown -R root"),
        "{said}"
    );
    chown(&server.state, Some(0), None).expect("we are root");
    server.start();
    are_apart(&server);
}

#[test]
fn s140_tls_reports_are_sent_by_the_drop() {
    if !only_root() {
        return;
    }
    let zone = "_smtp._tls.wants.example TXT \"v=TLSRPTv1; rua=mailto:tls@reports.example\"\n";
    let (setup, port) = setup_to(RULES, "127.5.0.90").zone(zone);
    let sink = Sink::open_at(([127, 5, 0, 90], port).into());
    let mut server = setup.prepare();
    // What an engine of root's has counted.
    let day = SystemTime::now().duration_since(UNIX_EPOCH).expect("it is later").as_secs() / 86_400;
    let counts = r#"[{"policy": "sts", "good": 1, "failed": 0, "failures": []}]"#;
    let counted = format!(r#"{{"today": {{"number": {day}, "domains": {{"wants.example": {counts}}}}}, "over": []}}"#);
    let place = server.state.join("tlsrpt");
    fs::create_dir_all(&place).expect("made");
    fs::write(place.join("current.json"), counted).expect("written");
    server.start();
    are_apart(&server);
    let said = server.tell(&["tls-report", "--end-day"]);
    assert!(said.contains("1 report is written"), "{said}");
    // It is looked there now and then, and at the start.
    server.stop();
    server.start();
    let mail = sink.wait_for(1, SOON).remove(0);
    assert_eq!(mail.to, ["tls@reports.example"]);
    assert!(mail.from.starts_with("postmaster@"), "{}", mail.from);
    let printed = server.printed();
    assert!(!printed.contains("the TLS report"), "{printed}");
}

#[test]
fn s140_what_the_engines_user_does_not_get_to_is_named_and_waits() {
    if !only_root() {
        return;
    }
    let sink = Sink::open();
    let first = "match from any for domain none";
    let rule = format!("match from any for domain <lists> action \"none\"\n{first}");
    let rules = format!("table lists db:/etc/mail/lists.db\n{}", RULES.replacen(first, &rule, 1));
    let setup = setup(&rules, &sink);
    let text = setup.put("root/etc/mail/lists", "listed.example\n").display().to_string();
    let database = setup.dir().join("root/etc/mail/lists.db");
    cli::succeed(&["makemap", "-t", "set", "-o", &database.display().to_string(), &text]);
    mode(&database, 0o600);
    let vmail = setup.open("root/var/vmail");
    mode(&vmail, 0o700);
    let server = setup.start();
    for said in
        ["lists.db: Permission denied", "for the user ringpost: table <lists> fails", "vmail: Permission denied"]
    {
        wait_until(said, SOON, || server.printed().contains(said));
    }
    assert!(rcpt(&server, "x@listed.example").starts_with("451"), "{}", rcpt(&server, "x@listed.example"));
    chown(&database, None, Some(ENGINE)).expect("we are root");
    mode(&database, 0o640);
    wait_until("the table answers", SOON, || rcpt(&server, "x@listed.example").starts_with("250"));
    submit(&server, &["bob@own.example"], "own");
    wait_until("it waits, with a reason", SOON, || {
        server.queue().iter().any(|one| one.reason.contains("ermission denied"))
    });
    chown(&vmail, Some(ENGINE), Some(ENGINE)).expect("we are root");
    server.retry();
    wait_until("it is delivered", SOON, || maildir::messages(&vmail.join("bob")).len() == 1);
}

#[test]
fn s140_check_says_whose_the_processes_of_the_installed_server_would_be() {
    if !only_root() {
        return;
    }
    let setup = Setup::discard().with_users(&["gilles"]);
    let path = setup.put("root/etc/ringpost/ringpost.conf", "listen on 127.0.0.1 port 2525\n");
    let rule = "action \"none\" discard\nmatch for any action \"none\"\n";
    OpenOptions::new().append(true).open(path).and_then(|mut file| file.write_all(rule.as_bytes())).expect("written");
    let root = setup.dir().join("root").display().to_string();
    let said = || String::from_utf8(cli::run(&["check", "--root", &root]).stderr).expect("a text");
    assert!(
        said().starts_with("note: engine and keyholder run as root, with few of its powers: there are no users"),
        "{}",
        said()
    );
    users(setup.dir(), true, true);
    assert_eq!(said(), "");
}
