//! Listeners for proxies (`proxy-v2`): who the client is stands in front of the dialogue, and counts only if a proxy says it.

use std::io::{ErrorKind, Read, Write};
use std::net::{Ipv4Addr, SocketAddr, TcpStream};
use std::os::unix::fs::PermissionsExt;
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use crate::support::client::Client;
use crate::support::database::sqlite;
use crate::support::tls::{self, Encrypted};
use crate::support::{Server, Setup, Sink, ports, wait_until};

const SOON: Duration = Duration::from_secs(30);

/// The signature of version 2, and its words for a client that came by TCP, by IPv4.
const VERSION_2: &[u8] = b"\r\n\r\n\0\r\nQUIT\n\x21\x11\0\x0c";

/// In version 2: this client, who has connected to 192.0.2.99.
fn header(client: [u8; 4]) -> Vec<u8> {
    [VERSION_2, &client, &[192, 0, 2, 99, 0x30, 0x39, 0, 25]].concat()
}

fn at(port: u16) -> SocketAddr {
    (Ipv4Addr::LOCALHOST, port).into()
}

/// A connection on which these bytes are the first.
fn begun(port: u16, first: &[u8]) -> Client {
    let mut client = Client::connect(at(port));
    client.send(first);
    client
}

/// Whether the server closes it without a word.
fn is_closed(port: u16, first: &[u8]) -> bool {
    let mut stream = TcpStream::connect(at(port)).expect("it listens");
    stream.set_read_timeout(Some(SOON)).expect("set");
    stream.write_all(first).expect("written");
    let mut said = Vec::new();
    // What was not read may make it a reset.
    let _ = stream.read_to_end(&mut said);
    said.is_empty()
}

struct World {
    server: Server,
    sink: Sink,
    /// Proxies of loopback, of 192.0.2.1 alone, and with TLS from the first byte.
    near: u16,
    far: u16,
    secure: u16,
}

fn world() -> World {
    let (near, far, secure) = (ports::free(), ports::free(), ports::free());
    let sink = Sink::open();
    let rules = format!(
        "pki mx cert @DIR@/mx.crt key @DIR@/mx.key\n\
         listen on 127.0.0.1 port {near} proxy-v2\n\
         listen on 127.0.0.1 port {far} proxy-v2 {{ 192.0.2.1 }}\n\
         listen on 127.0.0.1 port {secure} proxy-v2 smtps pki mx\n\
         action out relay host smtp://{}\n\
         match from src {{ 192.0.2.7, 2001:db8::7, 127.0.0.9 }} for any action out\n\
         match from local for domain local.example action out\n",
        sink.address
    );
    let setup = Setup::new(rules);
    tls::pair(setup.dir(), "mx", &["mx.example"], &rcgen::PKCS_ECDSA_P256_SHA256);
    World { server: setup.start(), sink, near, far, secure }
}

/// The reply to RCPT.
fn rcpt(client: &mut Client, to: &str) -> u16 {
    client.expect("220");
    for said in ["EHLO client.example", "MAIL FROM:<s@source.example>"] {
        assert_eq!(client.say(said).code, 250);
    }
    client.say(&format!("RCPT TO:<{to}>")).code
}

#[test]
fn the_client_is_whom_the_proxy_names() {
    let World { server, sink, near, far, secure } = world();
    // It has five seconds; the others go on meanwhile.
    let mut slow = TcpStream::connect(at(near)).expect("it listens");
    slow.write_all(&VERSION_2[..9]).expect("written");
    let v1 = |client: &str| format!("PROXY TCP4 {client} 192.0.2.99 12345 25\r\n").into_bytes();
    let v6 = b"PROXY TCP6 2001:db8::7 2001:db8::99 12345 25\r\n".to_vec();
    for (first, to, code) in [
        (header([192, 0, 2, 7]), "a@b.example", 250),
        (header([192, 0, 2, 8]), "a@b.example", 550),
        // Nor is somebody local because the proxy is.
        (header([192, 0, 2, 8]), "a@local.example", 550),
        (v1("192.0.2.7"), "a@b.example", 250),
        (v1("192.0.2.8"), "a@b.example", 550),
        (v6, "a@b.example", 250),
    ] {
        assert_eq!(rcpt(&mut begun(near, &first), to), code, "{}", String::from_utf8_lossy(&first));
    }
    // A proxy that looks after us speaks for itself.
    let local = b"\r\n\r\n\0\r\nQUIT\n\x20\0\0\0";
    assert_eq!(rcpt(&mut begun(near, local), "a@local.example"), 250);
    // What comes with the header is the client's.
    let mut client = begun(near, &[&header([192, 0, 2, 7])[..], b"EHLO early.example\r\n"].concat());
    client.expect("220");
    client.expect("250");
    let reply = client.submit("s@source.example", &["a@b.example"], b"Subject: x\r\n\r\nhello\r\n");
    assert_eq!(reply.code, 250, "{reply:?}");
    wait_until("it is there", SOON, || sink.count() == 1);
    let text = sink.messages()[0].text.clone().expect("it is small");
    let text = String::from_utf8_lossy(&text).into_owned();
    assert!(text.contains("[192.0.2.7]") && !text.contains("127.0.0.1"), "{text}");
    // Before TLS, too.
    let mut stream = TcpStream::connect(at(secure)).expect("it listens");
    stream.write_all(&header([192, 0, 2, 7])).expect("written");
    let mut encrypted = Encrypted::behind(stream, "mx.example").expect("a handshake");
    for said in ["EHLO client.example", "MAIL FROM:<s@source.example>", "RCPT TO:<a@b.example>"] {
        assert!(encrypted.say(said).starts_with("250"), "{said}");
    }
    wait_until("it is told", SOON, || server.printed().contains("tls from=192.0.2.7"));
    assert!(server.printed().contains(" connected from=192.0.2.7"));
    // Without a header nobody is greeted.
    for first in [&b"EHLO client.example\r\n"[..], b"PROXY UNKNOWN\r\n\r\n", b"\r\n\r\n\0\r\nQUIT\n\x21\x31\0\0"] {
        assert!(is_closed(near, first), "{first:?}");
    }
    wait_until("it is told", SOON, || server.printed().contains("why=\"no PROXY header\""));
    // Strangers, in a burst: each shard says so once.
    (0..20).for_each(|_| assert!(is_closed(far, &header([192, 0, 2, 7]))));
    wait_until("it is told", SOON, || server.printed().contains("only proxies may connect here"));
    let printed = server.printed();
    let told = printed.lines().filter(|line| line.contains("only proxies may connect here")).count();
    assert!((1..=2).contains(&told), "{told}: {printed}");
    slow.set_read_timeout(Some(SOON)).expect("set");
    assert_eq!(slow.read(&mut [0]).unwrap_or(0), 0, "it was waited for long enough");
    wait_until("it is told", SOON, || server.printed().contains("takes too long for its PROXY header"));
}

struct Haproxy(Child);

impl Drop for Haproxy {
    fn drop(&mut self) {
        // It may have ended by itself, which the test has noticed.
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

#[test]
fn haproxy_is_understood_in_both_versions() {
    let World { server, sink: _sink, near, .. } = world();
    let (first, second) = (ports::free(), ports::free());
    let part = |name: &str, port: u16, how: &str| {
        format!("listen {name}\n  bind 127.0.0.1:{port}\n  server us 127.0.0.1:{near} {how}\n")
    };
    let config = format!(
        "global\n  maxconn 100\ndefaults\n  mode tcp\n  timeout connect 5s\n  timeout client 30s\n  timeout server 30s\n{}{}",
        part("one", first, "send-proxy"),
        part("two", second, "send-proxy-v2"),
    );
    let path = server.dir().join("haproxy.cfg");
    std::fs::write(&path, config).expect("written");
    let mut command = Command::new("haproxy");
    command.args(["-db", "-f"]).arg(&path).stdout(Stdio::null()).stderr(Stdio::null());
    let _haproxy = Haproxy(command.spawn().expect("haproxy, from the package of that name"));
    wait_until("haproxy listens", SOON, || TcpStream::connect(at(second)).is_ok());
    for port in [first, second] {
        let before = server.printed().matches("connected from=127.0.0.9").count();
        let output = Command::new("swaks")
            .args(["--server", &format!("127.0.0.1:{port}"), "--local-interface", "127.0.0.9"])
            .args(["--from", "s@source.example", "--to", "a@b.example", "--quit-after", "RCPT"])
            .output()
            .expect("swaks runs");
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stdout));
        let count = || server.printed().matches("connected from=127.0.0.9").count();
        wait_until("it is told", SOON, || count() > before);
    }
}

#[test]
fn a_table_that_must_be_asked_says_who_is_a_proxy() {
    let port = ports::free();
    let setup = Setup::new(format!(
        "table proxies sqlite:@DIR@/proxies.conf cache 0s negative 0s\nlisten on 127.0.0.1 port {port} proxy-v2 <proxies>\n\
         action none discard\nmatch from src 192.0.2.7 for any action none\nmatch from local for any action none\n"
    ));
    let database = setup.dir().join("proxies.db");
    let query = "query_netaddr SELECT network FROM proxies WHERE network = ?;\n";
    std::fs::write(setup.dir().join("proxies.conf"), format!("dbpath {}\n{query}", database.display()))
        .expect("written");
    sqlite(&database, "CREATE TABLE proxies (network TEXT); INSERT INTO proxies VALUES ('127.0.0.0/24');");
    let _server = setup.start();
    assert_eq!(rcpt(&mut begun(port, &header([192, 0, 2, 7])), "a@b.example"), 250);
    assert_eq!(rcpt(&mut begun(port, &header([192, 0, 2, 8])), "a@b.example"), 550);
    // Each shard asks anew.
    let all_closed = || (0..12).all(|_| is_closed(port, &header([192, 0, 2, 7])));
    sqlite(&database, "DELETE FROM proxies;");
    wait_until("nobody is a proxy", SOON, all_closed);
    // Nor is anybody while it fails, of whom it has not said so before.
    sqlite(&database, "ALTER TABLE proxies RENAME TO gone;");
    assert!(all_closed());
    sqlite(&database, "ALTER TABLE gone RENAME TO proxies; INSERT INTO proxies VALUES ('127.0.0.1');");
    wait_until("it answers again", SOON, || !is_closed(port, &[&header([192, 0, 2, 7])[..], b"QUIT\r\n"].concat()));
}

#[test]
fn a_table_of_proxies_that_does_not_answer_keeps_no_place_of_a_session_for_long() {
    let port = ports::free();
    // It says what it knows, and then nothing.
    let helper = "#!/bin/sh\nwhile IFS= read -r line; do\n    case $line in\n    \
                  'config|ready') printf 'register|netaddr\\nregister|ready\\n' ;;\n    esac\ndone\n";
    let setup = Setup::new(format!(
        "table proxies proc:@DIR@/silent pool 1 timeout 5m\nlisten on 127.0.0.1 port {port} proxy-v2 <proxies>\n\
         action none discard\nmatch from any for any action none\n"
    ));
    let path = setup.dir().join("silent");
    std::fs::write(&path, helper).expect("written");
    std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o755)).expect("ours");
    let server = setup.start();
    let mut stream = TcpStream::connect(at(port)).expect("it listens");
    stream.write_all(&header([192, 0, 2, 7])).expect("written");
    stream.set_read_timeout(Some(Duration::from_secs(60))).expect("set");
    // What was not read may make it a reset.
    let closed =
        stream.read(&mut [0]).map_or_else(|error| error.kind() == ErrorKind::ConnectionReset, |count| count == 0);
    assert!(closed, "long before the table has had its time");
    wait_until("it is told", SOON, || {
        server.printed().contains("the table of proxies (`proxy-v2`) does not answer in time")
    });
}
