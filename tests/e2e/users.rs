//! Users: who exists, where their mail goes, and what their `.forward` makes of it. Run by root, each delivery is made as its
//! user; run by anybody else, as the caller, and the log says as whom it would have been.

use std::fs;
use std::io::{BufRead, BufReader, Write};
use std::os::unix::net::UnixListener;
use std::path::Path;
use std::time::Duration;

use crate::support::homes::{forward, give, mode, someone};
use crate::support::mail::{rcpt, submit, text, wait_for_all};
use crate::support::{Setup, Sink, cli, maildir, wait_until};

const SOON: Duration = Duration::from_secs(20);

fn rooted(rules: &str, users: &[&str]) -> Setup {
    Setup::new(rules).with_users(users)
}

/// What is in a file; nothing, if it is not there.
fn read(path: &Path) -> String {
    fs::read_to_string(path).unwrap_or_default()
}

#[test]
fn s06_primary_domains_have_the_system_s_users() {
    let rules = "accept for local deliver to mbox\naccept for domain any.example deliver to maildir\n";
    let setup = rooted(rules, &["gilles"]);
    let server = setup.start();
    submit(&server, &["gilles@localhost", "Gilles+list@any.example"], "primary");
    wait_for_all(&server);
    let mailbox = read(&server.dir().join("root/var/mail/gilles"));
    assert!(mailbox.starts_with("From s@source.example ") && mailbox.contains("hello primary"), "{mailbox}");
    assert_eq!(maildir::messages(&server.dir().join("root/home/gilles/Maildir")).len(), 1);
    assert!(rcpt(&server, "nobody-such@localhost").starts_with("550 5.1.1"));
    let conf = server.dir().join("ringpost.conf").display().to_string();
    let root = server.dir().join("root").display().to_string();
    let told = cli::succeed(&["explain", "--root", &root, "--config", &conf, "--rcpt", "gilles@localhost"]);
    let (uid, gid) = someone();
    let expected = format!(
        "delivery: action \"line-6\": mbox {root}/var/mail/gilles as gilles={uid}:{gid}:{root}/home/gilles for <gilles@localhost>"
    );
    assert!(told.contains(&expected), "{told}");
    assert!(told.contains(&format!("asked {root}/home/gilles/.forward: not found")), "{told}");
}

#[test]
fn s29_users_of_tables_have_their_own_mailboxes() {
    let (uid, gid) = someone();
    let rules = format!(
        "table one {{ vuser => vuser:{uid}:{gid}:/home/one }}\ntable two {{ vuser => {uid}:{gid}:/home/two }}\n\
         accept from any for domain poolp.org users <one> deliver to maildir\n\
         accept from any for domain opensmtpd.org users <two> deliver to maildir\n\
         accept from any for domain pool.ps deliver to maildir\n"
    );
    let setup = rooted(&rules, &["gilles"]);
    setup.home("one");
    setup.home("two");
    let server = setup.start();
    submit(&server, &["vuser@poolp.org", "vuser+x@opensmtpd.org", "VUSER@poolp.org"], "virtual");
    wait_for_all(&server);
    for name in ["one", "two"] {
        assert_eq!(maildir::messages(&server.dir().join(format!("root/home/{name}/Maildir"))).len(), 1, "{name}");
    }
    assert!(rcpt(&server, "gilles@poolp.org").starts_with("550 5.1.1"));
    assert!(rcpt(&server, "gilles@pool.ps").starts_with("250"));
    assert!(rcpt(&server, "vuser@pool.ps").starts_with("550 5.1.1"));
}

#[test]
fn s28_forward_is_followed_if_it_can_be_trusted() {
    let sink = Sink::open();
    let rules = format!(
        "action in maildir\naction out relay host \"smtp+notls://{}\"\n\
         match for domain poolp.org action in\nmatch for any action out\n",
        sink.address
    );
    let setup = rooted(&rules, &["gilles", "eric"]);
    let (gilles, eric) = (setup.dir().join("root/home/gilles"), setup.dir().join("root/home/eric"));
    forward(&gilles, "x@away.example, gilles\n");
    let server = setup.start();
    submit(&server, &["gilles@poolp.org"], "both");
    wait_for_all(&server);
    assert_eq!(sink.wait_for(1, SOON)[0].to, ["x@away.example"]);
    assert_eq!(maildir::messages(&gilles.join("Maildir")).len(), 1);
    // A program, a file and a list, all of the user's.
    let list = eric.join("list");
    fs::write(&list, "y@away.example\n").expect("written");
    give(&list);
    let out = eric.join("out");
    let command = format!("\"|/bin/sh -c 'cat >> {} && id -u >> {0}'\"", out.display());
    forward(&eric, &format!("{command}\n/home/eric/copy\n:include:/home/eric/list\n"));
    submit(&server, &["eric@poolp.org"], "more");
    wait_for_all(&server);
    assert!(read(&out).contains("hello more") && read(&out).ends_with(&format!("{}\n", someone().0)), "{}", read(&out));
    assert!(read(&eric.join("copy")).contains("hello more"));
    assert_eq!(sink.wait_for(2, SOON)[1].to, ["y@away.example"]);
    // Others may have written it: the user can mend that, and no mail is lost.
    for wrong in [0o666, 0o664] {
        mode(&gilles.join(".forward"), wrong);
        assert!(rcpt(&server, "gilles@poolp.org").starts_with("451 4.2.4"), "{wrong:o}");
    }
    wait_until("it is logged", SOON, || server.printed().contains("others may write to"));
    mode(&gilles.join(".forward"), 0o600);
    mode(&gilles, 0o1755);
    assert!(rcpt(&server, "gilles@poolp.org").starts_with("451 4.2.4"), "sticky");
    mode(&gilles, 0o755);
    assert!(rcpt(&server, "gilles@poolp.org").starts_with("250"));
    fs::remove_file(eric.join("list")).expect("removed");
    assert!(rcpt(&server, "eric@poolp.org").starts_with("451 4.2.4"), "a list that is not there");
}

#[test]
fn s22_formats_in_aliases_become_no_arguments_of_their_own() {
    let (uid, gid) = someone();
    let rules = format!(
        "table users {{ gilles => {uid}:{gid}:/home/gilles }}\n\
         action in maildir alias {{ logs => \"/var/mail/archive-%{{rcpt.domain}}\" }} userbase <users>\n\
         action sink maildir virtual {{ \"@\" => \"|/bin/sh -c 'echo \\\"$#:$1:$2\\\" >> @DIR@/root/var/mail/args' sh %{{rcpt}} %{{sender.user[0:1]}}\" }}\n\
         match for domain poolp.org action in\nmatch for domain args.example action sink\n"
    );
    let setup = rooted(&rules, &["gilles"]);
    let server = setup.start();
    submit(&server, &["logs@poolp.org"], "logs");
    wait_for_all(&server);
    assert!(read(&server.dir().join("root/var/mail/archive-poolp.org")).contains("hello logs"));
    let mut client = server.client();
    let reply = client.submit("s@source.example", &["\"$(touch x) y\"@args.example"], b"Subject: x\r\n\r\nx\r\n");
    assert_eq!(reply.code, 250, "{reply:?}");
    wait_for_all(&server);
    let args = read(&server.dir().join("root/var/mail/args"));
    assert_eq!(args, "2::::touch:x::y:@args.example:s\n");
}

#[test]
fn s31_programs_with_a_wrapper_and_a_fixed_user() {
    let (uid, gid) = someone();
    let rules = format!(
        "mda wrapper note \"/bin/sh -c 'echo wrapped >> @DIR@/root/home/vmail/out; exec \\\"$@\\\"' sh %{{mda}}\"\n\
         table users {{ vmail => {uid}:{gid}:/home/vmail }}\n\
         action in mda \"/bin/sh -c 'cat >> @DIR@/root/home/vmail/out; echo %{{dest.user}} >> @DIR@/root/home/vmail/out'\" \
         user vmail userbase <users> wrapper note\nmatch for domain poolp.org action in\n"
    );
    let setup = rooted(&rules, &[]);
    setup.home("vmail");
    let server = setup.start();
    submit(&server, &["anybody@poolp.org"], "mda");
    wait_for_all(&server);
    let out = read(&server.dir().join("root/home/vmail/out"));
    assert!(out.starts_with("wrapped\n") && out.contains("hello mda") && out.ends_with("anybody\n"), "{out}");
}

/// A mail store that takes everything; what it was told.
fn mail_store(listener: &UnixListener) -> Vec<String> {
    let (stream, _) = listener.accept().expect("a client");
    let (mut lines, mut out) = (BufReader::new(stream.try_clone().expect("cloned")), stream);
    let (mut told, mut recipients, mut in_data) = (Vec::new(), 0, false);
    out.write_all(b"220 store\r\n").expect("said");
    loop {
        let mut line = String::new();
        if lines.read_line(&mut line).expect("read") == 0 {
            return told;
        }
        let line = line.trim_end();
        let verb = line.get(..4).unwrap_or(line).to_ascii_uppercase();
        let reply = match (in_data, verb.as_str()) {
            (true, _) if line == "." => {
                in_data = false;
                "250 2.0.0 stored\r\n".repeat(std::mem::take(&mut recipients))
            }
            (true, _) => continue,
            (_, "DATA") => {
                in_data = true;
                "354 go\r\n".into()
            }
            (_, "QUIT") => {
                // It may not wait for the answer.
                let _ = out.write_all(b"221 bye\r\n");
                return told;
            }
            _ => {
                recipients += usize::from(verb == "RCPT");
                told.push(line.to_owned());
                "250 ok\r\n".into()
            }
        };
        out.write_all(reply.as_bytes()).expect("said");
    }
}

#[test]
fn s31_a_mail_store_is_told_users_or_addresses() {
    let (uid, gid) = someone();
    for (option, expected) in [("", "RCPT TO:<gilles>"), ("rcpt-to", "RCPT TO:<Gilles+x@poolp.org>")] {
        let rules = format!(
            "table users {{ gilles => {uid}:{gid}:/home/gilles }}\n\
             action in lmtp \"/run/lmtp.sock\" {option} userbase <users>\nmatch for domain poolp.org action in\n"
        );
        let setup = rooted(&rules, &["gilles"]);
        let listener = UnixListener::bind(setup.open("root/run").join("lmtp.sock")).expect("bound");
        let server = setup.start();
        submit(&server, &["Gilles+x@poolp.org"], "lmtp");
        let told = mail_store(&listener);
        assert!(told.iter().any(|line| line == expected), "{told:?}");
        assert!(told[0].starts_with("LHLO "), "{told:?}");
        wait_for_all(&server);
        assert!(rcpt(&server, "eric@poolp.org").starts_with("550 5.1.1"));
    }
}

/// What was answered 250 does not depend on a table that has changed since.
#[test]
fn a_delivery_that_waits_knows_its_user_after_a_crash() {
    let (uid, gid) = someone();
    let rules = |users: &str| {
        format!(
            "table users {{ {users} }}\naction in lmtp \"/run/lmtp.sock\" userbase <users>\nmatch for any action in\n"
        )
    };
    let setup = rooted(&rules(&format!("gilles => {uid}:{gid}:/home/gilles")), &["gilles"]);
    let run = setup.open("root/run");
    let mut server = setup.start();
    submit(&server, &["gilles@poolp.org"], "wait");
    wait_until("it is deferred", SOON, || server.queue().iter().any(|one| one.state == "deferred"));
    server.kill9();
    let head = format!("{}{}", crate::support::server::SMALL, crate::support::server::LISTENERS);
    server.configure(&format!("{head}{}", rules("eric => 1:1:/home/eric")));
    let listener = UnixListener::bind(run.join("lmtp.sock")).expect("bound");
    server.start();
    server.retry();
    let told = mail_store(&listener);
    assert!(told.iter().any(|line| line == "RCPT TO:<gilles>"), "{told:?}");
    wait_for_all(&server);
    assert!(rcpt(&server, "gilles@poolp.org").starts_with("550 5.1.1"));
}

#[test]
fn what_a_program_says_when_it_refuses_reaches_the_sender() {
    let rules = "accept from any for domain back.example deliver to maildir\n\
                 accept from any for domain prog.example deliver to mda \"sh -c 'i=0; while [ $i -lt 60 ]; do \
                 echo line $i of what went wrong; i=$(expr $i + 1); done; exit 67'\"\n";
    let server = rooted(rules, &["gilles"]).start();
    let reply = server.client().submit("gilles@back.example", &["gilles@prog.example"], &text("said"));
    assert_eq!(reply.code, 250, "{reply:?}");
    let dir = server.dir().join("root/home/gilles/Maildir");
    let report = maildir::wait_for_message(&dir, "a report", |text| text.starts_with(b"Return-Path: <>\n"));
    let report = String::from_utf8_lossy(&report).into_owned();
    assert!(report.contains("Status: 5.1.1\n") && report.contains("no such user"), "{report}");
    assert!(report.contains("    It said:\n      line 0 of what went wrong\n      line 1 of"), "{report}");
    assert!(report.contains("\n      line 59 of what went wrong\n"), "more than a reply holds: {report}");
    wait_until("the log has it, too", SOON, || server.printed().contains("it said: line 0 of what went wrong line 1"));
}
