//! Relays that speak LMTP, by TCP and by a local socket: each recipient has a result of its own.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::TcpListener;
use std::os::unix::net::UnixListener;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use crate::support::{Setup, wait_until};

const SOON: Duration = Duration::from_secs(30);

/// The lines of all dialogues.
type Heard = Arc<Mutex<Vec<String>>>;

/// Takes mail for everybody but `full@…`, who gets a 452 when the message has come, as the last of the recipients.
fn store<S: Read + Write>(stream: S, heard: &Heard) -> std::io::Result<()> {
    let mut stream = BufReader::new(stream);
    let mut recipients = Vec::new();
    let say = |stream: &mut BufReader<S>, text: &str| stream.get_mut().write_all(text.as_bytes());
    say(&mut stream, "220 store.example\r\n")?;
    loop {
        let mut line = String::new();
        if stream.read_line(&mut line)? == 0 {
            return Ok(());
        }
        heard.lock().expect("no panic").push(line.trim_end().to_owned());
        match line.split([' ', '\r']).next().unwrap_or_default() {
            "LHLO" => say(&mut stream, "250-store.example\r\n250 PIPELINING\r\n")?,
            "MAIL" => say(&mut stream, "250 ok\r\n")?,
            "RCPT" => {
                recipients.push(line.contains("<full@"));
                say(&mut stream, "250 ok\r\n")?;
            }
            "DATA" => {
                say(&mut stream, "354 go\r\n")?;
                while line != ".\r\n" {
                    line.clear();
                    stream.read_line(&mut line)?;
                }
                for is_full in recipients.drain(..) {
                    say(&mut stream, if is_full { "452 4.2.2 full\r\n" } else { "250 2.0.0 kept\r\n" })?;
                }
            }
            "QUIT" => return say(&mut stream, "221 bye\r\n"),
            _ => say(&mut stream, "500 what\r\n")?,
        }
    }
}

#[test]
fn s74_lmtp_relays_by_tcp_and_by_a_socket() {
    let (by_tcp, by_socket) = (Heard::default(), Heard::default());
    let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
    let port = listener.local_addr().expect("bound").port();
    let setup = Setup::new(
        "action tcp relay host lmtp://127.0.0.1:@LMTP@\naction socket relay host \"lmtp://@DIR@/lmtp.sock\"\n\
         match for domain tcp.example action tcp\nmatch for domain socket.example action socket\n",
    )
    .with("@LMTP@", port);
    let local = UnixListener::bind(setup.dir().join("lmtp.sock")).expect("bound");
    let heard = by_tcp.clone();
    // Threads end with the test's process.
    std::thread::spawn(move || {
        for stream in listener.incoming().flatten() {
            let heard = heard.clone();
            std::thread::spawn(move || store(stream, &heard));
        }
    });
    let heard = by_socket.clone();
    std::thread::spawn(move || {
        for stream in local.incoming().flatten() {
            let heard = heard.clone();
            std::thread::spawn(move || store(stream, &heard));
        }
    });
    let server = setup.start();
    for (domain, heard) in [("tcp", &by_tcp), ("socket", &by_socket)] {
        let to = ["one", "full", "two"].map(|user| format!("{user}@{domain}.example"));
        let reply = server.client().submit(
            "s@source.example",
            &to.each_ref().map(String::as_str),
            b"Subject: x\r\n\r\nhello\r\n",
        );
        assert_eq!(reply.code, 250, "{reply:?}");
        wait_until(&format!("one waits: {domain}"), SOON, || {
            let queue = server.queue();
            let waits = |one: &&crate::support::cli::Listed| one.recipient.ends_with(&format!("{domain}.example"));
            let waiting: Vec<_> = queue.iter().filter(waits).collect();
            matches!(&waiting[..], [one] if one.recipient == to[1] && one.reason.contains("452 4.2.2 full"))
        });
        let heard = heard.lock().expect("no panic").clone();
        assert!(heard[0].starts_with("LHLO ") && !heard.iter().any(|line| line.starts_with("EHLO")), "{heard:?}");
        assert_eq!(heard.iter().filter(|line| line.starts_with("MAIL")).count(), 1, "one transaction: {heard:?}");
    }
    wait_until("the log says where", SOON, || {
        server.printed().contains("relay=") && server.printed().contains("lmtp.sock")
    });
}
