//! Hosts with addresses of both families (RFC 8305): a working one gets the mail, whatever the other one does.

use std::net::{SocketAddr, TcpStream};
use std::os::fd::OwnedFd;
use std::time::Duration;

use rustix::io::Errno;
use rustix::net::{AddressFamily, SocketFlags, SocketType, bind, connect, listen, socket_with, sockopt};

use crate::support::text::MARK;
use crate::support::{Script, Server, Setup, Sink, wait_until};

const SOON: Duration = Duration::from_secs(60);
const BY_MX: &str = "action \"mx\" relay\nmatch for any action \"mx\"\n";

/// An address that answers no handshake, until it is dropped: its listener takes nobody, and its queue is full.
struct BlackHole {
    _sockets: Vec<OwnedFd>,
}

impl BlackHole {
    fn open(address: SocketAddr) -> Self {
        let family = if address.is_ipv4() { AddressFamily::INET } else { AddressFamily::INET6 };
        let socket =
            |flags| socket_with(family, SocketType::STREAM, SocketFlags::CLOEXEC | flags, None).expect("a socket");
        let listener = socket(SocketFlags::empty());
        sockopt::set_socket_reuseaddr(&listener, true).expect("set");
        bind(&listener, &address).expect("the address is free");
        listen(&listener, 0).expect("it listens");
        let mut sockets = vec![listener];
        for _ in 0..3 {
            let client = socket(SocketFlags::NONBLOCK);
            match connect(&client, &address) {
                Ok(()) | Err(Errno::INPROGRESS) => sockets.push(client),
                Err(error) => panic!("{address}: {error}"),
            }
        }
        let unheard = TcpStream::connect_timeout(&address, Duration::from_millis(300));
        assert!(unheard.is_err(), "it is no black hole");
        Self { _sockets: sockets }
    }
}

fn submit(server: &Server, number: usize) {
    let text = format!("{MARK}{number}\r\n\r\nhello\r\n");
    let reply = server.client().submit("a@source.example", &["b@both.example"], text.as_bytes());
    assert_eq!(reply.code, 250, "{reply:?}");
}

/// The lines about faults of an address.
fn faults(server: &Server, address: &str) -> Vec<String> {
    let (printed, address) = (server.printed(), format!(" address={address} "));
    let lines = printed.lines().filter(|line| line.contains("smtp-out: host=") && line.contains(&address));
    lines.map(str::to_owned).collect()
}

/// A server, and the two addresses of the only exchanger that there is.
fn start(conf: &str) -> (Server, SocketAddr, SocketAddr) {
    let (setup, port) = Setup::new(format!("{conf}{BY_MX}"))
        .zone("both.example MX 10 mx.both.example\nmx.both.example A 127.3.9.1\nmx.both.example AAAA ::1\n");
    let four = SocketAddr::from(([127, 3, 9, 1], port));
    let six = format!("[::1]:{port}").parse().expect("an address");
    (setup.start(), four, six)
}

fn one_each() -> Script {
    Script { one_each: true, ..Script::default() }
}

#[test]
fn where_ipv6_is_a_black_hole_mail_goes_by_ipv4_and_the_host_has_no_fault() {
    let (server, four, six) = start("");
    let _hole = BlackHole::open(six);
    let sink = Sink::open_at(four);
    sink.script(one_each());
    for number in 1..=3 {
        submit(&server, number);
        sink.wait_for(number, SOON);
    }
    wait_until("nothing is left", SOON, || server.queue().is_empty());
    assert_eq!((server.metric("envelopes_deferred"), server.metric("outbound_failures")), (0, 0));
    assert!(faults(&server, "::1").is_empty(), "{}", server.printed());
    let hosts = server.tell(&["show", "hosts"]);
    let is_outdone =
        |address: &str| hosts.lines().any(|row| row.contains(address) && row.contains(", IPv4 first for "));
    assert!(is_outdone(&six.to_string()) && !is_outdone(&four.to_string()), "{hosts}");
}

#[test]
fn where_ipv6_is_refused_mail_goes_by_ipv4_and_the_log_says_so() {
    let (server, four, _) = start("");
    let sink = Sink::open_at(four);
    sink.script(one_each());
    submit(&server, 1);
    sink.wait_for(1, SOON);
    wait_until("it is told", SOON, || faults(&server, "::1").iter().any(|line| line.contains("is tried")));
    submit(&server, 2);
    sink.wait_for(2, SOON);
    assert_eq!(faults(&server, "::1").len(), 1, "IPv4 goes first now: {}", server.printed());
    assert_eq!((server.metric("envelopes_deferred"), server.metric("outbound_failures")), (0, 0));
}

#[test]
fn ipv6_goes_first_unless_the_source_or_the_shape_has_none() {
    for (conf, is_ipv4) in [("", false), ("shaping default { inet4 }\n", true)] {
        let (server, four, six) = start(conf);
        let (four, six) = (Sink::open_at(four), Sink::open_at(six));
        submit(&server, 1);
        let (one, other) = if is_ipv4 { (&four, &six) } else { (&six, &four) };
        one.wait_for(1, SOON);
        assert_eq!(other.connections(), 0, "{conf}");
    }
}
