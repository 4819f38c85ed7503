//! Sockets of this machine: mail by the local socket, whose users are known; what they leave while there is no server; and
//! whom the control socket obeys. Only root can be two users, and without two there is little to see.

use std::fs::{self, Permissions};
use std::io::{BufRead, BufReader, Write};
use std::os::unix::fs::{MetadataExt, PermissionsExt, symlink};
use std::os::unix::net::UnixStream;
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::{Command, Output, Stdio};
use std::time::Duration;

use rustix::process::geteuid;

use crate::support::mail::{rcpt, wait_for_all};
use crate::support::server::PROGRAM;
use crate::support::{Server, Setup, maildir, wait_until};

const GILLES: u32 = 61_001;
const ERIC: u32 = 61_002;
/// The server looks every ten seconds.
const PICKED_UP: Duration = Duration::from_secs(30);

/// Mail is taken from the local socket alone, and kept in one Maildir.
const RULES: &str = "action \"box\" maildir \"@DIR@/mail\" userbase { u = 0:0:/ }\n\
                     match from socket for any action \"box\"\n";

fn setup(rules: &str) -> Setup {
    let setup = Setup::new(rules);
    fs::set_permissions(setup.dir(), Permissions::from_mode(0o755)).expect("ours");
    setup
}

/// The program as another user, if we may be one.
fn as_user(uid: u32, state: &Path, arguments: &[&str], input: &str) -> Output {
    let mut command = Command::new(PROGRAM);
    command.arg("--state").arg(state).args(arguments).current_dir("/").uid(uid).gid(uid);
    let command = command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut child = command.spawn().expect("the program starts");
    // One that is refused at once does not read.
    let _ = child.stdin.take().expect("piped").write_all(input.as_bytes());
    child.wait_with_output().expect("it ends")
}

/// As whom a command of the shell is run; whether it succeeded.
fn shell(uid: u32, command: &str) -> bool {
    let mut shell = Command::new("sh");
    shell.args(["-c", command]).current_dir("/").uid(uid).gid(uid).stdout(Stdio::null()).stderr(Stdio::null());
    shell.status().expect("it runs").success()
}

fn succeeded(output: &Output) {
    assert!(output.status.success(), "{}: {}", output.status, String::from_utf8_lossy(&output.stderr));
}

/// The message with this subject.
fn message(server: &Server, subject: &str) -> String {
    let line = format!("\nSubject: {subject}\n");
    let is_it = |message: &[u8]| String::from_utf8_lossy(message).contains(&line);
    String::from_utf8(maildir::wait_for_message(&server.dir().join("mail"), subject, is_it)).expect("a text")
}

fn is_root() -> bool {
    let is_root = geteuid().is_root();
    if !is_root {
        eprintln!("only root can be two users");
    }
    is_root
}

#[test]
fn s139_who_submits_by_the_local_socket_is_known() {
    let server = setup(RULES).start();
    assert!(rcpt(&server, "u@d.example").starts_with("550 5.7.1"), "by TCP comes nobody");
    let uid = geteuid().as_raw();
    let mut users = vec![uid];
    if is_root() {
        users.extend([GILLES, ERIC]);
    }
    for uid in users {
        let subject = format!("of {uid}");
        let text = format!("Subject: {subject}\n\nhello\n");
        let output = match uid == geteuid().as_raw() {
            true => {
                let text = fs::write(server.dir().join("text"), text).map(|()| server.dir().join("text"));
                let input = fs::File::open(text.expect("written")).expect("there");
                let mut command = Command::new(PROGRAM);
                command.arg("--state").arg(&server.state).args(["sendmail", "u@d.example"]).stdin(input);
                command.output().expect("it runs")
            }
            false => as_user(uid, &server.state, &["sendmail", "u@d.example"], &text),
        };
        succeeded(&output);
        let message = message(&server, &subject);
        let hostname = message.split("\nReceived: by ").nth(1).and_then(|rest| rest.split(' ').next());
        let hostname = hostname.unwrap_or_else(|| panic!("{message}"));
        let field = format!("\nReceived: by {hostname} (Ringpost, from userid {uid})\n\twith ESMTP id ");
        assert!(message.contains(&field), "{message}");
        wait_until("the log says so, too", Duration::from_secs(5), || {
            server.printed().contains(&format!("connected from=socket uid={uid}\n"))
        });
    }
    // It is nobody else's: the queue, the control socket and what waits.
    assert_eq!(fs::metadata(server.state.join("smtp.sock")).expect("there").mode() & 0o777, 0o666);
    if is_root() {
        for name in ["queue", "spool", "control.sock", "drop"] {
            assert!(!shell(GILLES, &format!("ls {}/{name}/", server.state.display())), "{name}");
        }
        assert!(!shell(GILLES, &format!("ls {}", server.state.display())));
    }
}

#[test]
fn s139_the_local_socket_has_options_of_its_own() {
    let rules = "listen on socket tag mine mask-src\naction \"box\" maildir \"@DIR@/mail\" userbase { u = 0:0:/ }\n\
                 match from any tag mine for any action \"box\"\n";
    let mut server = setup(rules).start();
    let send = |subject: &str| {
        let text = server.dir().join("text");
        fs::write(&text, format!("Subject: {subject}\n\nhello\n")).expect("written");
        let mut command = Command::new(PROGRAM);
        command.arg("--state").arg(&server.state).args(["sendmail", "u@d.example"]);
        succeeded(&command.stdin(fs::File::open(&text).expect("there")).output().expect("it runs"));
    };
    send("masked");
    let text = message(&server, "masked");
    assert!(text.contains(" (Ringpost)\n\twith ESMTP id ") && !text.contains("userid"), "{text}");
    // A killed server leaves a socket behind, at which nobody answers: that is no server.
    server.kill9();
    assert!(server.state.join("smtp.sock").exists());
    let text = server.dir().join("text");
    fs::write(&text, "Subject: kept\n\nhello\n").expect("written");
    let mut command = Command::new(PROGRAM);
    command.arg("--state").arg(&server.state).args(["sendmail", "u@d.example"]);
    succeeded(&command.stdin(fs::File::open(&text).expect("there")).output().expect("it runs"));
    server.start();
    message(&server, "kept");
    server.stop();
    assert!(!server.state.join("smtp.sock").exists());
}

#[test]
fn s139_quickstart_has_a_local_socket() {
    let server = Setup::quickstart().start();
    let text = server.dir().join("text");
    fs::write(&text, "Subject: first\n\nhello\n").expect("written");
    let mut command = Command::new(PROGRAM);
    command.arg("--state").arg(&server.state).args(["sendmail", "u@d.example"]);
    succeeded(&command.stdin(fs::File::open(&text).expect("there")).output().expect("it runs"));
    let message = maildir::wait_for_message(&server.state.join("Maildir"), "it", |text| text.ends_with(b"\nhello\n"));
    let field = format!("Received: by localhost (Ringpost, from userid {})\n", geteuid().as_raw());
    assert!(String::from_utf8_lossy(&message).contains(&field), "{}", String::from_utf8_lossy(&message));
}

#[test]
fn s139_other_users_leave_mail_while_there_is_no_server() {
    if !is_root() {
        return;
    }
    let mut server = setup(RULES).start();
    server.stop();
    let drop = server.state.join("drop");
    assert_eq!(fs::metadata(&drop).expect("made").mode() & 0o7777, 0o1733);
    for uid in [GILLES, ERIC] {
        let text = format!("Subject: of {uid}\n\nkept\n");
        succeeded(&as_user(uid, &server.state, &["sendmail", "-f", "s@y.example", "u@d.example"], &text));
    }
    let left: Vec<_> = fs::read_dir(&drop).expect("ours").map(|entry| entry.expect("an entry").path()).collect();
    assert_eq!(left.len(), 2);
    // Nobody lists it; nobody reads, replaces or removes what is another's, not even by its name.
    assert!(!shell(ERIC, &format!("ls {}", drop.display())));
    for path in &left {
        let about = fs::metadata(path).expect("there");
        assert_eq!(about.mode() & 0o777, 0o600);
        let other = if about.uid() == GILLES { ERIC } else { GILLES };
        for command in ["cat", "rm -f", "mv /dev/null", "touch"] {
            assert!(!shell(other, &format!("{command} {}", path.display())), "{command}");
        }
        let moved = path.with_extension("moved");
        assert!(!shell(other, &format!("mv {} {}", path.display(), moved.display())));
    }
    // What is no message of the user's own is not taken for one: a link of either kind, a pipe.
    let private = server.dir().join("private");
    fs::copy(&left[0], &private).expect("copied");
    symlink(&private, drop.join("symlink.mail")).expect("a link");
    fs::hard_link(&private, drop.join("link.mail")).expect("a link");
    assert!(shell(ERIC, &format!("mkfifo {}/pipe.mail", drop.display())));
    server.start();
    for uid in [GILLES, ERIC] {
        let message = message(&server, &format!("of {uid}"));
        assert!(message.contains(&format!(" (Ringpost, from userid {uid})\n")), "{message}");
        assert!(message.starts_with("Return-Path: <s@y.example>\n"), "{message}");
    }
    wait_until("all is picked up", PICKED_UP, || fs::read_dir(&drop).expect("ours").count() == 0);
    wait_for_all(&server);
    assert_eq!(maildir::messages(&server.dir().join("mail")).len(), 2, "each once, and nothing else");
    let bad = fs::read_dir(server.state.join("spool")).expect("made").flatten();
    assert_eq!(bad.filter(|entry| entry.path().extension().is_some_and(|end| end == "bad")).count(), 3);
    wait_until("it is told", PICKED_UP, || server.printed().contains("a file with 2 links"));
}

#[test]
fn the_control_socket_obeys_whom_the_configuration_says() {
    let rules = format!("control socket \"@DIR@/run/ctl\" group {ERIC} mode 0660\n{RULES}");
    let setup = setup(&rules);
    fs::create_dir(setup.dir().join("run")).expect("made");
    if !is_root() {
        return;
    }
    let mut server = setup.start();
    let socket = fs::metadata(server.dir().join("run/ctl")).expect("there");
    assert_eq!((socket.mode() & 0o777, socket.gid()), (0o660, ERIC));
    server.stats();
    succeeded(&as_user(ERIC, &server.state, &["stats"], ""));
    let refused = as_user(GILLES, &server.state, &["stats"], "");
    assert_eq!(refused.status.code(), Some(77), "{}", String::from_utf8_lossy(&refused.stderr));
    server.stop();
    assert!(!server.dir().join("run/ctl").exists() && fs::symlink_metadata(server.state.join("control.sock")).is_err());
    // Without a word about it, it is the server's own.
    server.configure(&format!("listen on 127.0.0.1 port @SMTP@\n{RULES}"));
    server.start();
    assert_eq!(as_user(ERIC, &server.state, &["stats"], "").status.code(), Some(77));
}

#[test]
fn the_control_socket_answers_one_question_after_the_other() {
    let server = Setup::discard().start();
    let mut stream = UnixStream::connect(server.state.join("control.sock")).expect("it listens");
    let mut lines = BufReader::new(stream.try_clone().expect("a descriptor")).lines();
    let mut line = || lines.next().expect("an answer").expect("a line");
    for _ in 0..3 {
        stream.write_all(b"\"door\"\n").expect("written");
        assert!(line().starts_with("{\"door\":"));
        assert_eq!(line(), "{\"done\":\"\"}");
    }
    stream.write_all(b"\"door\"\n\"list\"\nnonsense\n").expect("written");
    let answers: Vec<String> = (0..4).map(|_| line()).collect();
    assert!(answers[2] == "{\"done\":\"\"}" && answers[3].starts_with("{\"error\":\"not a request"), "{answers:?}");
    assert!(lines.next().is_none(), "what follows nonsense is not read");
}
