//! `mda limit` and `scheduler backend`: how much is done at once, and whether anything is.

use std::fs::{self, Permissions};
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::time::Duration;

use rustix::process::{getegid, geteuid};

use crate::support::server::{LISTENERS, SMALL};
use crate::support::text::MARK;
use crate::support::{Server, Setup, Sink, wait_until};

const SOON: Duration = Duration::from_secs(30);

/// A message to each of these users.
fn send(server: &Server, users: &[&str]) {
    let mut client = server.client();
    for user in users {
        let text = format!("{MARK}x\r\n\r\nhello\r\n");
        assert_eq!(client.submit("s@source.example", &[&format!("{user}@d.example")], text.as_bytes()).code, 250);
    }
}

/// How many programs ran at the same time, by the lines that they wrote; and how many have ended.
fn overlap(log: &Path) -> (usize, usize) {
    let (mut running, mut most, mut ended) = (0, 0, 0);
    for line in fs::read_to_string(log).unwrap_or_default().lines() {
        match line {
            "begin" => running += 1,
            _ => (running, ended) = (running - 1, ended + 1),
        }
        most = most.max(running);
    }
    (most, ended)
}

#[test]
fn mda_limit_bounds_the_programs_that_run_at_once() {
    // Programs are not run as root.
    let (uid, gid) = match geteuid().is_root() {
        true => (23_456, 23_457),
        false => (geteuid().as_raw(), getegid().as_raw()),
    };
    let users = ["u0", "u1", "u2", "u3", "u4"];
    let table: Vec<String> = users.iter().map(|user| format!("{user} => {user}:{uid}:{gid}:/")).collect();
    let rules = |limit: &str| {
        format!(
            "{SMALL}{LISTENERS}{limit}\ntable users {{ {} }}\n\
             action \"local\" mda \"sh -c 'echo begin >>@DIR@/out/programs; sleep 0.1; echo end >>@DIR@/out/programs'\" userbase <users>\n\
             match from any for any action \"local\"\n",
            table.join(", ")
        )
    };
    let setup = Setup::whole(rules("mda limit max-session 1"));
    let (dir, out) = (setup.dir().to_owned(), setup.dir().join("out"));
    fs::create_dir(&out).expect("made");
    for (path, mode) in [(&dir, 0o755), (&out, 0o777)] {
        fs::set_permissions(path, Permissions::from_mode(mode)).expect("changed");
    }
    let server = setup.start();
    let log = out.join("programs");
    send(&server, &users);
    wait_until("all have ended", SOON, || overlap(&log).1 == 5);
    assert_eq!(overlap(&log).0, 1, "one at a time");

    fs::remove_file(&log).expect("removed");
    server.configure(&rules("mda limit max-session 5 max-session-per-user 2"));
    server.tell(&["reload"]);
    send(&server, &users);
    wait_until("all have ended", SOON, || overlap(&log).1 == 5);
    assert_eq!(overlap(&log).0, 2, "all are one user of the system");
}

#[test]
fn scheduler_backend_null_tries_nothing_until_it_is_taken_away() {
    let sink = Sink::open();
    let rules = |backend: &str| {
        let to = sink.address;
        format!(
            "{SMALL}{LISTENERS}{backend}\naction \"out\" relay host \"smtp://{to}\"\nmatch for any action \"out\"\n"
        )
    };
    let server = Setup::whole(rules("scheduler backend null")).start();
    send(&server, &["a", "b", "c"]);
    server.retry();
    assert_eq!(server.queue().len(), 3);
    assert!(server.queue().iter().all(|one| one.attempts == 0 && one.reason.is_empty()));
    assert_eq!(sink.connections(), 0);
    server.configure(&rules("scheduler backend wheel"));
    server.tell(&["reload"]);
    sink.wait_for(3, SOON);
    wait_until("nothing is left", SOON, || server.queue().is_empty());
}
