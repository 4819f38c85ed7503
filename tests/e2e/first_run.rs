//! The first five minutes: started with nothing, spoken to by the programs that people have, byte for byte.

use std::fs;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};
use std::time::Duration;

use crate::support::server::PROGRAM;
use crate::support::text::{MARK, find, message, original, with_file_line_ends};
use crate::support::{Random, Server, Setup, maildir, ports, wait_until};

fn mailbox(server: &Server) -> PathBuf {
    server.state.join("Maildir")
}

/// Lines of a message that go wrong somewhere: 8-bit, dots, 998 bytes, trailing blanks, an empty one at the end.
fn awkward(key: &str) -> Vec<u8> {
    let mut text =
        format!("{MARK}{key}\r\nFrom: a@example.org\r\nTo: b@example.org\r\nSubject: gr\u{fc}\u{df}e\r\n\r\n")
            .into_bytes();
    for line in [".", "..", ".hidden", "gr\u{fc}\u{df}e \u{1f4ee}", "trailing \t ", "", "From here", "QUIT"] {
        text.extend_from_slice(line.as_bytes());
        text.extend_from_slice(b"\r\n");
    }
    text.extend_from_slice(&[0x80, 0xfe, 0xff, b'\r', b'\n']);
    text.extend_from_slice(&[b'.'; 998]);
    text.extend_from_slice(b"\r\n");
    text.extend_from_slice(&[0xe9; 998]);
    text.extend_from_slice(b"\r\n\r\n");
    text
}

fn run(command: &mut Command) -> Output {
    let output = command.output().unwrap_or_else(|error| panic!("{command:?}: {error}"));
    assert!(
        output.status.success(),
        "{command:?}: {}\n{}{}",
        output.status,
        String::from_utf8_lossy(&output.stdout),
        String::from_utf8_lossy(&output.stderr)
    );
    output
}

/// Runs a command with a file as its standard input.
fn fed(command: &mut Command, input: &Path) -> Output {
    run(command.stdin(fs::File::open(input).expect("the input")))
}

#[test]
fn what_it_prints_is_true_and_can_be_pasted() {
    let mut setup = Setup::quickstart().prepare();
    let took = setup.start();
    let server = setup;
    eprintln!("listening after {took:?}");
    // 100 ms are promised of the release build on a quiet machine; here the other tests run beside.
    assert!(took < Duration::from_secs(3), "listening after {took:?}");
    wait_until("the page is named", Duration::from_secs(5), || server.printed().contains("http://"));
    let printed = server.printed();
    for said in [
        server.smtp.to_string(),
        "Maildir".into(),
        format!("http://127.0.0.1:{}/", server.http),
        "ringpost-data".into(),
    ] {
        assert!(printed.contains(&said), "no {said:?} in:\n{printed}");
    }
    assert!(printed.contains("Ctrl-C"), "nothing on how to stop in:\n{printed}");
    assert!(printed.lines().count() <= 20, "too much to read:\n{printed}");

    fs::write(server.dir().join("README.md"), "read me\n").expect("written");
    let mut tried = 0;
    for line in printed.lines() {
        // A remark follows after several blanks.
        let command = line.trim().split("   ").next().unwrap_or("");
        if command.starts_with("swaks ") || command.starts_with("curl ") {
            run(Command::new("sh").arg("-c").arg(command).current_dir(server.dir()));
            tried += 1;
        }
    }
    assert!(tried >= 1, "no line to paste in:\n{printed}");
    wait_until("the pasted lines' messages", Duration::from_secs(10), || {
        maildir::messages(&mailbox(&server)).len() == tried
    });
}

#[test]
fn the_programs_that_people_have_submit_byte_for_byte() {
    let server = Setup::quickstart().start();
    let (port, dir) = (server.smtp.port().to_string(), server.dir());
    let input = |key: &str, line_end: &str| {
        let path = dir.join(key);
        let text = awkward(key);
        let text = if line_end == "\n" { with_file_line_ends(&text) } else { text };
        fs::write(&path, text).expect("written");
        path
    };

    // swaks takes escapes and %-tokens in its data; the awkward lines have none.
    let path = input("swaks", "\n");
    run(Command::new("swaks").args(["--server", "127.0.0.1", "--port", &port, "--from", "a@example.org"]).args([
        "--to",
        "you@example.org",
        "--data",
        &format!("@{}", path.display()),
    ]));

    let path = input("curl", "\r\n");
    run(Command::new("curl").args(["-sS", &format!("smtp://127.0.0.1:{port}/client.example")]).args([
        "--mail-from",
        "me@example.org",
        "--mail-rcpt",
        "you@example.org",
        "-T",
        &path.display().to_string(),
    ]));

    let path = input("smtplib", "\r\n");
    let script = "import smtplib, sys\n\
        s = smtplib.SMTP('127.0.0.1', int(sys.argv[1]))\n\
        s.sendmail('me@example.org', ['you@example.org'], open(sys.argv[2], 'rb').read(), ['body=8bitmime'])\n\
        s.quit()";
    run(Command::new("python3").args(["-c", script, &port]).arg(&path));

    let path = input("msmtp", "\n");
    fed(
        Command::new("msmtp").args(["--host=127.0.0.1", &format!("--port={port}"), "--from=me@example.org"]).args([
            "--auth=off",
            "--tls=off",
            "you@example.org",
        ]),
        &path,
    );

    for key in ["swaks", "curl", "smtplib", "msmtp"] {
        let received = maildir::wait_for_key(&mailbox(&server), key);
        let expected = with_file_line_ends(&awkward(key));
        // swaks ends its data with a line end of its own.
        let received = if key == "swaks" { received.trim_ascii_end() } else { &received[..] };
        let expected = if key == "swaks" { expected.trim_ascii_end() } else { &expected[..] };
        assert!(received == expected, "{key}:\n{}", String::from_utf8_lossy(received));
    }
}

#[test]
fn postfix_smtp_source_submits() {
    let peers =
        PathBuf::from(std::env::var_os("RINGPOST_PEERS").expect("RINGPOST_PEERS: run ./test, which unpacks them"));
    let server = Setup::quickstart().start();
    let library = peers.join("postfix/usr/lib/postfix");
    let source = peers.join("postfix/usr/sbin/smtp-source");
    for options in [["-s", "5", "-m", "100", "-l", "4096"], ["-d", "-d", "-m", "50", "-l", "70000"]] {
        run(Command::new(&source)
            .env("LD_LIBRARY_PATH", &library)
            .args(options)
            .args(["-f", "me@example.org", "-t", "you@example.org"])
            .arg(format!("inet:{}", server.smtp)));
    }
    wait_until("150 messages", Duration::from_secs(30), || maildir::messages(&mailbox(&server)).len() == 150);
}

#[test]
fn empty_tiny_and_large_bodies_arrive_byte_for_byte() {
    let server = Setup::quickstart().start();
    let mut client = server.client();
    let mut random = Random::new(7);
    let mut sent = vec![
        ("empty", format!("{MARK}empty\r\nSubject: nothing\r\n\r\n").into_bytes()),
        ("no-separator", format!("{MARK}no-separator\r\nSubject: nothing\r\n").into_bytes()),
        ("one-dot", format!("{MARK}one-dot\r\n\r\n.\r\n").into_bytes()),
        ("20-mib", message("20-mib", &mut random, 20 << 20)),
    ];
    for (key, text) in &sent {
        assert_eq!(client.submit("me@example.org", &["you@example.org"], text).code, 250, "{key}");
    }
    let text = message("chunked", &mut random, 3 << 20);
    assert_eq!(client.submit_chunked("me@example.org", &["you@example.org"], &text, 100_001).code, 250);
    sent.push(("chunked", text));
    for (key, text) in sent {
        let received = maildir::wait_for_key(&mailbox(&server), key);
        assert!(
            received == with_file_line_ends(&text),
            "{key} has changed ({} bytes of {})",
            received.len(),
            text.len()
        );
    }
    // Nothing at all: what arrives is what the server writes above it.
    assert_eq!(client.submit("me@example.org", &["void@example.org"], b"").code, 250);
    let received = maildir::wait_for_message(&mailbox(&server), "void", |text| find(text, b"To: void@").is_some());
    assert_eq!(original(&received), &received[..]);
    assert!(received.ends_with(b"\n"), "{:?}", String::from_utf8_lossy(&received));
}

#[test]
fn what_it_writes_above_a_message_tells_the_truth() {
    let server = Setup::quickstart().start();
    let mut client = server.client();
    let reply = client.submit("me@example.org", &["you@example.org"], format!("{MARK}trace\r\n\r\nhi\r\n").as_bytes());
    let id = reply.lines[0].rsplit(' ').next().expect("an id").to_owned();
    let text = maildir::wait_for_message(&mailbox(&server), "trace", |text| find(text, b"trace").is_some());
    let text = String::from_utf8(text).expect("UTF-8");
    let above = text.split(MARK).next().expect("something above");
    assert!(above.starts_with("Return-Path: <me@example.org>\nDelivered-To: you@example.org\n"), "{above}");
    for said in [
        "Received: from client.example",
        "127.0.0.1",
        "ESMTP",
        &id,
        "for <you@example.org>",
        "\nDate: ",
        "\nMessage-ID: <",
    ] {
        assert!(above.contains(said), "no {said:?} in:\n{above}");
    }
}

#[test]
fn the_page_and_the_metrics_answer() {
    let server = Setup::quickstart().start();
    let mut client = server.client();
    for key in ["a", "b", "c"] {
        assert_eq!(
            client.submit("me@example.org", &["you@example.org"], format!("{MARK}{key}\r\n\r\n").as_bytes()).code,
            250
        );
    }
    wait_until("three deliveries", Duration::from_secs(10), || maildir::messages(&mailbox(&server)).len() == 3);
    let page = server.get("/");
    assert!(page.contains("<html") && page.to_lowercase().contains("ringpost"), "{page}");
    assert!(!page.contains("src=\"http") && !page.contains("href=\"http"), "the page asks others:\n{page}");
    let metrics = server.get("/metrics");
    let mut names = 0;
    for line in metrics.lines().filter(|line| !line.starts_with('#') && !line.is_empty()) {
        let (name, value) = line.rsplit_once(' ').unwrap_or_else(|| panic!("not a sample: {line:?}"));
        assert!(name.starts_with("ringpost_"), "{line:?}");
        assert!(value.parse::<f64>().is_ok(), "{line:?}");
        names += 1;
    }
    assert!(names > 20, "{metrics}");
    let metrics = server.get_as("/metrics", "application/openmetrics-text");
    assert!(metrics.ends_with("\n# EOF\n"), "OpenMetrics ends so:\n{metrics}");
    wait_until("three messages counted", Duration::from_secs(2), || server.metric("messages_received") == 3);
    let stats = server.stats();
    assert!(stats.is_object(), "{stats}");
    let table = server.tell(&["stats"]);
    for stage in ["commit", "total"] {
        assert!(table.to_lowercase().contains(stage), "no {stage} in:\n{table}");
    }
}

/// Starts a second server that must give up, and returns what it says.
fn refused(server: &Server, args: &[&str]) -> String {
    let mut command = Command::new(PROGRAM);
    command.args(["serve", "--page", "off"]).args(args).current_dir(server.dir()).stdin(Stdio::null());
    let mut child = command.stdout(Stdio::piped()).stderr(Stdio::piped()).process_group(0).spawn().expect("it starts");
    wait_until("the second gives up", Duration::from_secs(10), || child.try_wait().expect("a child").is_some());
    let output = child.wait_with_output().expect("its output");
    assert!(!output.status.success());
    assert_ne!(output.status.code(), Some(101), "a panic is no explanation");
    format!("{}{}", String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr))
}

#[test]
fn a_second_instance_is_refused_by_name() {
    let server = Setup::quickstart().start();
    let port = ports::free();
    let said =
        refused(&server, &["--listen", &format!("127.0.0.1:{port}"), "--state", &server.state.display().to_string()]);
    let pid = server.supervisor().as_raw_nonzero().to_string();
    assert!(said.contains(&pid), "no {pid} in:\n{said}");
    assert!(said.contains("ringpost-data"), "{said}");
    // The first is not disturbed.
    assert_eq!(server.client().say("NOOP").code, 250);
}

#[test]
fn a_busy_port_is_named() {
    let server = Setup::quickstart().start();
    let address = server.smtp.to_string();
    let said = refused(&server, &["--listen", &address, "--state", "elsewhere"]);
    assert!(said.contains(&address), "{said}");
    let said = said.to_lowercase();
    assert!(said.contains("in use") || said.contains("taken"), "{said}");
}

#[test]
fn a_state_directory_that_cannot_be_written_is_named() {
    let server = Setup::quickstart().start();
    // Root may write anywhere but below a file, and in /proc.
    fs::write(server.dir().join("file"), "").expect("written");
    let port = ports::free();
    for state in ["file/state", "/proc/state"] {
        let said = refused(&server, &["--listen", &format!("127.0.0.1:{port}"), "--state", state]);
        assert!(said.contains(state), "no {state} in:\n{said}");
    }
}

#[test]
fn too_little_locked_memory_is_named_and_lived_with_where_it_can_be() {
    let shell = format!("ulimit -l 64; exec {PROGRAM} serve --listen 127.0.0.1:{} --page off", ports::free());
    let dir = tempfile::tempdir().expect("a directory");
    let output = Command::new("sh").args(["-c", &shell]).current_dir(dir.path()).output().expect("sh runs");
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(!output.status.success(), "{said}");
    assert!(said.contains("RLIMIT_MEMLOCK") && said.contains("64 KiB"), "{said}");

    let server = Setup::quickstart().locked_memory(1024).start();
    wait_until("it says so", Duration::from_secs(5), || server.printed().contains("RLIMIT_MEMLOCK"));
    let text = message("small-rings", &mut Random::new(4), 3 << 20);
    assert_eq!(server.client().submit("me@example.org", &["you@example.org"], &text).code, 250);
    assert!(maildir::wait_for_key(&mailbox(&server), "small-rings") == with_file_line_ends(&text));
}
