//! What the processes of a running server may still do: keyholder and engine from inside, by a debugger's hand where that is
//! allowed, and by what the kernel says of them.

use std::fs;
use std::path::Path;
use std::time::Duration;

use rustix::process::Pid;

use crate::support::authority::{Authority, Kind};
use crate::support::secure_sink::{Offer, SecureSink};
use crate::support::{Server, Setup, wait_until};
use crate::tables::matrix;

const SOON: Duration = Duration::from_secs(30);
/// CAP_DAC_OVERRIDE and CAP_IPC_LOCK.
const ENGINE_POWERS: u64 = 1 << 1 | 1 << 14;

/// A line of `/proc/PID/task/TID/status` of every thread.
fn of_all_threads(pid: Pid, field: &str) -> Vec<String> {
    let threads = fs::read_dir(format!("/proc/{}/task", pid.as_raw_nonzero())).expect("it runs");
    let line = |thread: std::io::Result<fs::DirEntry>| {
        let status = fs::read_to_string(thread.ok()?.path().join("status")).ok()?;
        let line = status.lines().find(|line| line.starts_with(&format!("{field}:")))?.to_owned();
        Some(line.split_once(':')?.1.trim().to_owned())
    };
    threads.filter_map(line).collect()
}

fn powers(pid: Pid) -> Vec<u64> {
    let all = of_all_threads(pid, "CapEff").into_iter().chain(of_all_threads(pid, "CapPrm"));
    all.map(|hex| u64::from_str_radix(&hex, 16).expect("a number")).collect()
}

#[test]
fn s140_keyholder_and_engine_keep_what_they_need_and_no_more() {
    let server = Setup::discard().start();
    let (engine, keyholder) = (server.engine(), server.keyholder());
    for pid in [engine, keyholder] {
        let threads = of_all_threads(pid, "Seccomp");
        assert!(!threads.is_empty() && threads.iter().all(|mode| mode == "2"), "{threads:?}");
        assert!(of_all_threads(pid, "NoNewPrivs").iter().all(|is| is == "1"));
    }
    assert!(of_all_threads(engine, "Seccomp").len() > 3, "shards, coordinator and helpers are all threads of it");
    assert_eq!(powers(keyholder).iter().fold(0, |all, one| all | one), 0);
    let kept = powers(engine).iter().fold(0, |all, one| all | one);
    assert_eq!(kept & !ENGINE_POWERS, 0, "{kept:x}");
    // Descriptors of files: nothing but channels and standard error, which is the log.
    let open = fs::read_dir(format!("/proc/{}/fd", keyholder.as_raw_nonzero())).expect("it runs");
    for descriptor in open.filter_map(Result::ok) {
        let Ok(target) = fs::read_link(descriptor.path()) else { continue };
        let target = target.display().to_string();
        let known = target.starts_with("socket:") || target.ends_with("/log") || target == "/dev/null";
        assert!(known || target.starts_with("/memfd:") || target.starts_with("pipe:"), "{target}");
    }
    assert!(!server.printed().contains("not fully confined"), "{}", server.printed());
    // It works all the same.
    assert_eq!(server.client().submit("a@b.example", &["c@d.example"], b"Subject: x\r\n\r\nx\r\n").code, 250);
}

/// Where the system gives huge pages unasked, each would hold a few hundred bytes of the allocator's.
#[test]
fn no_process_takes_huge_pages() {
    let server = Setup::discard().start();
    for pid in [server.supervisor(), server.engine(), server.keyholder()] {
        // There is no such line where the kernel has no huge pages.
        let given = of_all_threads(pid, "THP_enabled");
        assert!(given.iter().all(|is| is == "0"), "{given:?}");
    }
}

/// All that the engine could be made to open: a list that an alias includes is read by the engine itself.
#[test]
fn s140_the_engine_opens_nothing_that_the_configuration_does_not_name() {
    let elsewhere = tempfile::tempdir_in(env!("CARGO_TARGET_TMPDIR")).expect("a directory");
    fs::write(elsewhere.path().join("list"), "a@b.example\n").expect("written");
    let lists = "create table t (k text, v text);";
    let setup = Setup::new(
        "table t sqlite:@DIR@/t.conf\naction in maildir \"@DIR@/mail/%{dest.user}\" virtual <t>\n\
         match from any for domain in.example action in\n",
    );
    let database = setup.dir().join("t.sqlite");
    crate::support::database::sqlite(&database, lists);
    for (key, path) in [
        ("near", setup.dir().join("near")),
        ("far", elsewhere.path().join("list")),
        ("shadow", "/etc/shadow".into()),
        ("passwd", "/etc/passwd".into()),
    ] {
        let row = format!("insert into t values ('{key}@in.example', ':include:{}')", path.display());
        crate::support::database::sqlite(&database, &row);
    }
    fs::write(setup.dir().join("near"), "a@b.example\n").expect("written");
    let conf = format!("dbpath {}\nquery_alias select v from t where k = ?\n", database.display());
    fs::write(setup.dir().join("t.conf"), conf).expect("written");
    let server = setup.start();
    let rcpt = |name: &str| {
        let mut client = server.client();
        assert_eq!(client.say("MAIL FROM:<s@source.example>").code, 250);
        client.say(&format!("RCPT TO:<{name}@in.example>"))
    };
    // What the directory of the configuration has is found; the address in it is nobody's here.
    assert_eq!(rcpt("near").code, 550, "{:?}", rcpt("near"));
    for name in ["far", "shadow", "passwd"] {
        assert_eq!(rcpt(name).code, 451, "{name}: {:?}", rcpt(name));
    }
}

#[test]
fn s140_a_reload_that_names_other_places_has_another_engine_started() {
    let rules =
        |place: &str| format!("action in maildir \"{place}/%{{dest.user}}\"\nmatch from any for any action in\n");
    let setup = Setup::new(rules("@DIR@/one"));
    let head = crate::support::server::SMALL.to_owned() + crate::support::server::LISTENERS;
    let server = setup.start();
    let other = tempfile::tempdir_in(env!("CARGO_TARGET_TMPDIR")).expect("a directory");
    let first = server.engine();
    let reload = |place: &str| {
        server.configure(&format!("{head}{}", rules(place)));
        server.tell(&["reload"])
    };
    let arrives = |maildir: &Path| {
        let reply = server.client().submit("a@b.example", &["gilles@d.example"], b"Subject: x\r\n\r\nx\r\n");
        assert_eq!(reply.code, 250);
        crate::support::maildir::wait_for_message(&maildir.join("gilles"), "a copy", |_| true);
    };
    let said = reload("@DIR@/one/deeper");
    assert!(said.contains("reloaded"), "{said}");
    arrives(&server.dir().join("one/deeper"));
    assert_eq!(server.engine(), first);
    let said = reload(&other.path().display().to_string());
    assert!(said.contains("started again") && said.contains(&other.path().display().to_string()), "{said}");
    wait_until("there is another engine", SOON, || server.engine() != first);
    arrives(other.path());
    assert!(!server.printed().contains("the engine ended"), "{}", server.printed());
    // A helper's table: not confined, and back again.
    let second = server.engine();
    let table = matrix::helped_domains(server.dir()) + "match from any for domain <t> reject\n";
    server.configure(&format!("{head}{table}{}", rules("@DIR@/one")));
    assert!(server.tell(&["reload"]).contains("not confined"));
    wait_until("there is another engine", SOON, || server.engine() != second);
    wait_until("it is told", SOON, || server.printed().contains("the engine is not fully confined: it starts"));
    assert!(of_all_threads(server.engine(), "Seccomp").iter().all(|mode| mode == "0"));
}

/// A server to which mail goes only with a certificate that `bundle` vouches for.
fn verifying(bundle: &Path) -> (Server, u16) {
    let rules = "action a relay host smtp+tls://mx.a.example\nmatch for domain a.example action a\n\
                 action b relay host smtp+tls://mx.b.example\nmatch for domain b.example action b\n";
    let (setup, port) = Setup::new(rules).zone("mx.a.example. A 127.1.2.1\nmx.b.example. A 127.1.2.2\n");
    (setup.environment("SSL_CERT_FILE", &bundle.display().to_string()).start(), port)
}

#[test]
fn s68_authorities_are_known_in_confinement_and_a_changed_bundle_counts_after_a_reload() {
    let (first, second) = (Authority::new(), Authority::new());
    let elsewhere = tempfile::tempdir_in(env!("CARGO_TARGET_TMPDIR")).expect("a directory");
    let bundle = elsewhere.path().join("bundle.pem");
    fs::write(&bundle, first.pem()).expect("written");
    let (server, port) = verifying(&bundle);
    let submit = |domain: &str| {
        let to = format!("r@{domain}.example");
        assert_eq!(server.client().submit("a@b.example", &[&to], b"Subject: x\r\n\r\nx\r\n").code, 250);
    };
    let known = first.server("mx.a.example", Kind::Good);
    let sink = SecureSink::open(([127, 1, 2, 1], port).into(), Offer::StartTls, known);
    submit("a");
    wait_until("it is there", SOON, || sink.messages().len() == 1);
    // For this one another authority vouches.
    let strange = second.server("mx.b.example", Kind::Good);
    let sink = SecureSink::open(([127, 1, 2, 2], port).into(), Offer::StartTls, strange);
    submit("b");
    wait_until("it waits for a certificate", SOON, || {
        server.queue().iter().any(|one| one.reason.contains("certificate"))
    });
    fs::write(&bundle, second.pem()).expect("written");
    server.tell(&["reload"]);
    server.retry();
    wait_until("it is there", SOON, || sink.messages().len() == 1);
}
