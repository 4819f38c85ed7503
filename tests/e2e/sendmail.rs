//! Row S139: mail from the command line, as programs have sent it for forty years; with the server, and without.

use std::fs;
use std::io::Write;
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};
use std::time::Duration;

use crate::support::server::PROGRAM;
use crate::support::{Server, Setup, Sink, maildir, wait_until};

/// The server looks every ten seconds.
const PICKED_UP: Duration = Duration::from_secs(25);

fn fed(command: &mut Command, input: &[u8]) -> Output {
    let mut child = command
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .expect("the program starts");
    // One that refuses its command line does not read.
    let _ = child.stdin.take().expect("piped").write_all(input);
    child.wait_with_output().expect("it ends")
}

fn sendmail(state: &Path, arguments: &[&str], input: &[u8]) -> Output {
    fed(Command::new(PROGRAM).arg("--state").arg(state).arg("sendmail").args(arguments), input)
}

fn code(output: &Output) -> i32 {
    output.status.code().expect("no signal")
}

fn errors(output: &Output) -> String {
    String::from_utf8_lossy(&output.stderr).into_owned()
}

fn mailbox(server: &Server) -> PathBuf {
    server.state.join("Maildir")
}

fn message_for(server: &Server, recipient: &str) -> String {
    let line = format!("Delivered-To: {recipient}\n");
    let is_for = |message: &[u8]| String::from_utf8_lossy(message).contains(&line);
    String::from_utf8_lossy(&maildir::wait_for_message(&mailbox(server), recipient, is_for)).into_owned()
}

fn spooled(state: &Path) -> usize {
    let Ok(entries) = fs::read_dir(state.join("spool")) else { return 0 };
    entries
        .filter(|entry| entry.as_ref().is_ok_and(|entry| entry.path().extension().is_some_and(|e| e == "mail")))
        .count()
}

/// Each of these users has a Maildir, whatever the domain.
fn with_users(names: &[&str]) -> Server {
    let (uid, gid) = (rustix::process::geteuid().as_raw(), rustix::process::getegid().as_raw());
    let users: Vec<String> = names.iter().map(|name| format!("{name} => {name}:{uid}:{gid}:/")).collect();
    let rules = format!(
        "table users {{ {} }}\naction \"local\" maildir \"@DIR@/mail/%{{rcpt.user}}\" userbase <users>\n\
         match from any for any action \"local\"\n",
        users.join(", ")
    );
    Setup::new(rules).start()
}

#[test]
fn s139_what_programs_send_arrives() {
    let server = with_users(&["one", "two", "hidden", "gilles"]);
    let message_of = |name: &str| {
        let dir = server.dir().join("mail").join(name);
        String::from_utf8(maildir::wait_for_message(&dir, name, |_| true)).expect("a text")
    };
    // As cron, mail(1) and scripts do it.
    let text = b"To: One <one@example.org>, two@example.org\nBcc: hidden@example.org\nSubject: x\n\nhello\n";
    let output = sendmail(&server.state, &["-t", "-oi", "-f", "me@example.org", "-F", "My Self"], text);
    assert_eq!(code(&output), 0, "{}", errors(&output));
    for recipient in ["one", "two", "hidden"] {
        let message = message_of(recipient);
        assert!(message.starts_with("Return-Path: <me@example.org>\n"), "{message}");
        assert!(
            message.contains("From: \"My Self\" <me@example.org>\n") && message.contains("Message-ID: <"),
            "{message}"
        );
        assert!(message.ends_with("To: One <one@example.org>, two@example.org\nSubject: x\n\nhello\n"), "{message}");
        assert!(!message.contains("hidden") || recipient == "hidden", "{message}");
    }
    // A name alone is the server's, and so is the sender.
    let output = sendmail(&server.state, &["gilles"], b"just a line\n");
    assert_eq!(code(&output), 0, "{}", errors(&output));
    let message = message_of("gilles");
    assert!(message.contains("\nDelivered-To: gilles@") && message.ends_with("\n\njust a line\n"), "{message}");
    assert_eq!(spooled(&server.state), 0, "nothing was left over");
}

#[test]
fn s139_awkward_texts_are_safe() {
    let server = Setup::quickstart().start();
    let mut text = b"Subject: x\n\n.\n..\nFrom here\n.hidden\n10%\r20%\r\n".to_vec();
    text.extend_from_slice(&[0, 0x80, 0xff, b'\n', b'.', b'\n', b'e', b'n', b'd']);
    let output = sendmail(&server.state, &["-i", "whole@example.org"], &text);
    assert_eq!(code(&output), 0, "{}", errors(&output));
    let message = maildir::wait_for_message(&mailbox(&server), "it", |message| message.ends_with(b".\nend\n"));
    let expected = b"Subject: x\n\n.\n..\nFrom here\n.hidden\n10%\n20%\n\x00\x80\xff\n.\nend\n";
    assert!(message.ends_with(expected), "{}", String::from_utf8_lossy(&message));
    // Without -i a dot ends it, as at a terminal.
    let output = sendmail(&server.state, &["cut@example.org"], b"Subject: x\n\nhere\n.\nnot here\n");
    assert_eq!(code(&output), 0, "{}", errors(&output));
    assert!(message_for(&server, "cut@example.org").ends_with("\nhere\n"));
}

#[test]
fn s139_refusals_and_mistakes_have_their_codes() {
    let rules = "action \"none\" discard\nmatch for domain \"ok.example\" action \"none\"\n";
    let server = Setup::new(rules).start();
    let output = sendmail(&server.state, &["a@ok.example", "b@elsewhere.example"], b"x\n");
    assert!([67, 77].contains(&code(&output)), "{}: {}", code(&output), errors(&output));
    assert!(errors(&output).starts_with("send-mail: b@elsewhere.example: 550 5."), "{}", errors(&output));
    wait_until("the other one is delivered", Duration::from_secs(10), || server.metric("messages_received") == 1);
    assert_eq!(code(&sendmail(&server.state, &["-t"], b"Subject: x\n\n")), 65, "no recipients");
    assert_eq!(code(&sendmail(&server.state, &[], b"Subject: x\n\n")), 64);
    assert_eq!(code(&sendmail(&server.state, &["-k", "a@ok.example"], b"x\n")), 64);
    let output = sendmail(&server.dir().join("nowhere"), &["a@ok.example"], b"x\n");
    assert_eq!(code(&output), 75, "{}", errors(&output));
}

#[test]
fn s139_without_a_server_messages_wait_and_are_sent_when_it_starts() {
    let mut server = Setup::quickstart().start();
    server.stop();
    for name in ["first", "second"] {
        let output = sendmail(&server.state, &["-v", &format!("{name}@example.org")], b"Subject: x\n\nkept\n");
        assert_eq!(code(&output), 0, "{}", errors(&output));
        assert!(errors(&output).contains("kept until the server takes it"), "{}", errors(&output));
    }
    assert_eq!(spooled(&server.state), 2);
    server.start();
    message_for(&server, "first@example.org");
    message_for(&server, "second@example.org");
    wait_until("the spool is empty", PICKED_UP, || spooled(&server.state) == 0);
    assert_eq!(maildir::messages(&mailbox(&server)).len(), 2, "each once");

    // While it runs: what is put there then is found, too.
    server.stop();
    sendmail(&server.state, &["third@example.org"], b"Subject: x\n\nkept\n");
    let aside = server.dir().join("aside");
    fs::rename(server.state.join("spool"), &aside).expect("moved");
    server.start();
    fs::rename(&aside, server.state.join("spool")).expect("moved back");
    wait_until("it is picked up", PICKED_UP, || spooled(&server.state) == 0);
    message_for(&server, "third@example.org");
}

#[test]
fn s139_what_is_refused_later_comes_back_to_its_sender() {
    let rules = "action \"local\" maildir \"@DIR@/mail/%{rcpt.user}\" userbase { me = 0:0:/, you = 0:0:/ }\n\
                 match for domain \"ok.example\" action \"local\"\n";
    let mut server = Setup::new(rules).start();
    server.stop();
    let arguments = ["-f", "me@ok.example", "you@ok.example", "x@elsewhere.example"];
    let output = sendmail(&server.state, &arguments, b"Subject: mine\n\nkept\n");
    assert_eq!(code(&output), 0, "{}", errors(&output));
    server.start();
    let mail = server.dir().join("mail");
    maildir::wait_for_message(&mail.join("you"), "the message", |text| text.ends_with(b"Subject: mine\n\nkept\n"));
    let report = maildir::wait_for_message(&mail.join("me"), "a report", |text| text.starts_with(b"Return-Path: <>\n"));
    let report = String::from_utf8_lossy(&report);
    assert!(report.contains("x@elsewhere.example") && report.contains("550"), "{report}");
    wait_until("the spool is empty", PICKED_UP, || spooled(&server.state) == 0);
}

#[test]
fn s139_a_sender_is_told_what_he_has_asked_for() {
    let mut server = with_users(&["me", "you"]);
    let mail = server.dir().join("mail");
    let report = |what: &str| {
        let text = maildir::wait_for_message(&mail.join("me"), what, |text| text.starts_with(b"Return-Path: <>\n"));
        String::from_utf8(text).expect("a text")
    };
    let arguments = ["-f", "me@example.org", "-N", "success", "-R", "hdrs", "-V", "number 7", "you@example.org"];
    let output = sendmail(&server.state, &arguments, b"Subject: mine\n\nsecret\n");
    assert_eq!(code(&output), 0, "{}", errors(&output));
    let told = report("a report of success");
    assert!(told.contains("\nOriginal-Envelope-Id: number 7\n") && told.contains("\nAction: delivered\n"), "{told}");
    assert!(!told.contains("secret"), "{told}");
    // What waits for the server asks the same, and is not reported by whoever hands it over, either.
    fs::remove_dir_all(mail.join("me")).expect("there");
    server.stop();
    for (when, recipient) in [("never", "nobody-here@elsewhere.example"), ("success", "you@example.org")] {
        let output = sendmail(&server.state, &["-f", "me@example.org", "-N", when, recipient], b"Subject: x\n\ny\n");
        assert_eq!(code(&output), 0, "{}", errors(&output));
    }
    server.start();
    assert!(report("a report of success").contains("\nAction: delivered\n"));
    wait_until("the spool is empty", PICKED_UP, || spooled(&server.state) == 0);
    assert_eq!(maildir::messages(&mail.join("me")).len(), 1, "nothing of the other");
}

#[test]
fn s139_each_recipient_has_a_return_path_of_its_own_where_that_is_asked_for() {
    let sink = Sink::open();
    let mut server = Setup::relay_to(sink.address).start();
    let send = |state: &Path, arguments: &[&str]| {
        let all: Vec<&str> = arguments.iter().chain(&["-f", "list@a.example", "joe@b.example"]).copied().collect();
        let output = sendmail(state, &all, b"Subject: x\n\ny\n");
        assert_eq!(code(&output), 0, "{}", errors(&output));
    };
    send(&server.state, &["-XV"]);
    send(&server.state, &["-V", "number 7"]);
    // As Postfix had it once; and kept while there is no server.
    server.stop();
    send(&server.state, &["-V+="]);
    server.start();
    let mut paths: Vec<String> = sink.wait_for(3, PICKED_UP).into_iter().map(|one| one.from).collect();
    paths.sort();
    assert_eq!(paths, ["list+joe=b.example@a.example", "list+joe=b.example@a.example", "list@a.example"]);
    let output = sendmail(&server.state, &["-XV-=", "-f", "list@a.example", "joe@b.example"], b"x\n");
    assert!(code(&output) == 65 && errors(&output).contains("XVERP"), "{}", errors(&output));
}

#[test]
fn s139_other_names_and_modes() {
    let mut server = Setup::quickstart().start();
    let named = |name: &str| {
        let path = server.dir().join(name);
        symlink(PROGRAM, &path).expect("a link");
        path
    };
    let (as_sendmail, as_mailq) = (named("sendmail"), named("mailq"));
    // Under NoNewPrivileges, where programs with set-uid or set-gid fail.
    let mut command = Command::new("setpriv");
    command.arg("--no-new-privs").arg(&as_sendmail).arg("named@example.org");
    let output = fed(command.env("RINGPOST_STATE", &server.state), b"x\n");
    assert_eq!(code(&output), 0, "{}", errors(&output));
    message_for(&server, "named@example.org");

    let dialogue = b"EHLO here\r\nMAIL FROM:<s@example.org>\r\nRCPT TO:<bs@example.org>\r\nDATA\r\nSubject: x\r\n\r\n.\r\nQUIT\r\n";
    let output = sendmail(&server.state, &["-bs"], dialogue);
    let said = String::from_utf8_lossy(&output.stdout).into_owned();
    assert!(said.starts_with("220 ") && said.contains("\r\n354 ") && said.contains("\r\n221 "), "{said}");
    message_for(&server, "bs@example.org");

    wait_until("all is delivered", Duration::from_secs(10), || server.queue().is_empty());
    let lists: [(&Path, &[&str]); 2] = [(&as_mailq, &[]), (&as_sendmail, &["-bp"])];
    for (program, arguments) in lists {
        let output = Command::new(program).args(arguments).env("RINGPOST_STATE", &server.state).output();
        assert_eq!(String::from_utf8_lossy(&output.expect("it runs").stdout), "Mail queue is empty\n");
    }
    assert_eq!(code(&sendmail(&server.state, &["-q"], b"")), 0);
    server.stop();
    assert_eq!(code(&sendmail(&server.state, &["-q"], b"")), 69);
    let output = sendmail(&server.state, &["-bs"], b"QUIT\r\n");
    assert_eq!((code(&output), &output.stdout[..4]), (75, &b"421 "[..]));
}

#[test]
fn mailq_prints_the_columns_that_scripts_read_with_the_server_and_without() {
    let rules = "action \"out\" relay host \"smtp+notls://127.0.0.1:1\"\nmatch from any for any action \"out\"\n";
    let mut server = Setup::new(rules).start();
    let to = ["one@x.example", "two@x.example"];
    let output = sendmail(&server.state, &[&["-f", "s@y.example"], &to[..]].concat(), b"Subject: x\n\nwaits\n");
    assert_eq!(code(&output), 0, "{}", errors(&output));
    wait_until("it is deferred", Duration::from_secs(20), || {
        server.queue().iter().filter(|one| one.state == "deferred" && !one.reason.is_empty()).count() == 2
    });
    let mailq = |state: &Path| {
        let output = Command::new(PROGRAM).arg("--state").arg(state).arg("mailq").output().expect("it runs");
        assert_eq!(code(&output), 0, "{}", errors(&output));
        String::from_utf8(output.stdout).expect("a text")
    };
    let listed = mailq(&server.state);
    let lines: Vec<&str> = listed.lines().collect();
    assert_eq!(lines[0], "----Queue ID----- --Size-- ---Arrival Time---- --Sender/Recipient------");
    let words: Vec<&str> = lines[1].split_ascii_whitespace().collect();
    assert_eq!((words.len(), words[0], words[6]), (7, server.queue()[0].id.as_str(), "s@y.example"), "{listed}");
    assert!(lines[2].trim_start().starts_with('(') && lines[2].ends_with(')'), "{listed}");
    assert_eq!((lines[3].trim(), lines[4].trim()), ("one@x.example", "two@x.example"), "{listed}");
    assert_eq!((lines[5], lines[6]), ("", "-- 0 Kbytes in 1 Request."), "{listed}");
    server.stop();
    let stopped = mailq(&server.state);
    assert_eq!(stopped.lines().filter(|line| line.contains("@x.example")).count(), 2, "{stopped}");
    assert!(stopped.contains("s@y.example") && stopped.ends_with("\n-- 0 Kbytes in 1 Request.\n"), "{stopped}");
}
