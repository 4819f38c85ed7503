//! A server of names for tests, by UDP and TCP: it counts what it is asked, keeps answers back until it is told, has answers
//! that are too long for a datagram, and can die.

use std::collections::{BTreeMap, BTreeSet};
use std::io::{Read, Write};
use std::net::{IpAddr, Ipv4Addr, SocketAddr, TcpListener, TcpStream, UdpSocket};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard};
use std::thread::JoinHandle;
use std::time::Duration;

/// How often its threads look whether they are still wanted.
const LOOK: Duration = Duration::from_millis(20);
/// TTL of every record.
const TTL: u32 = 60;

const CNAME: u16 = 5;
const SOA: u16 = 6;
const OPT: u16 = 41;

/// Types of records that it knows.
fn number(kind: &str) -> u16 {
    match kind {
        "A" => 1,
        "CNAME" => CNAME,
        "MX" => 15,
        "TXT" => 16,
        "AAAA" => 28,
        other => panic!("no records of type {other} here"),
    }
}

/// A question: name in lower case, type.
type Question = (String, u16);

#[derive(Default)]
struct State {
    records: BTreeMap<String, Vec<(u16, Vec<u8>)>>,
    asked: BTreeMap<Question, usize>,
    /// Questions that came by TCP.
    by_tcp: BTreeSet<Question>,
    /// Questions that came with EDNS.
    with_edns: BTreeSet<Question>,
    /// Names of which answers are kept back.
    held: BTreeSet<String>,
    /// Those that are.
    kept: Vec<(Question, SocketAddr, Vec<u8>)>,
    /// Names whose answers are too long for a datagram.
    long: BTreeSet<String>,
}

/// It, until it is dropped.
pub struct NameServer {
    address: SocketAddr,
    state: Arc<Mutex<State>>,
    socket: UdpSocket,
    over: Arc<AtomicBool>,
    threads: Vec<JoinHandle<()>>,
}

impl NameServer {
    /// With these records, a line each: `name TYPE data`, names whole and without a final dot. Other names do not exist.
    pub fn open(records: &str) -> Self {
        let (listener, socket) = sockets();
        let address = socket.local_addr().expect("an address");
        let mut state = State::default();
        // The root exists, and has nothing.
        state.records.insert(String::new(), Vec::new());
        for line in records.lines() {
            let words: Vec<&str> = line.split_whitespace().collect();
            let data = match words[1..] {
                ["A" | "AAAA", address] => match address.parse().expect("an address") {
                    IpAddr::V4(address) => address.octets().to_vec(),
                    IpAddr::V6(address) => address.octets().to_vec(),
                },
                ["MX", preference, host] => {
                    let preference: u16 = preference.parse().expect("a preference");
                    [&preference.to_be_bytes()[..], &wire(host)].concat()
                }
                ["CNAME", host] => wire(host),
                _ => panic!("not a record: {line}"),
            };
            state.records.entry(words[0].to_lowercase()).or_default().push((number(words[1]), data));
        }
        let (state, over) = (Arc::new(Mutex::new(state)), Arc::new(AtomicBool::new(false)));
        socket.set_read_timeout(Some(LOOK)).expect("set");
        listener.set_nonblocking(true).expect("set");
        let datagrams = {
            let (socket, state, over) = (socket.try_clone().expect("descriptors"), state.clone(), over.clone());
            std::thread::spawn(move || by_udp(&socket, &state, &over))
        };
        let streams = {
            let (state, over) = (state.clone(), over.clone());
            std::thread::spawn(move || by_tcp(&listener, &state, &over))
        };
        Self { address, state, socket, over, threads: vec![datagrams, streams] }
    }

    /// What `--dns` reads, so that a server asks this one.
    pub fn seam(&self) -> String {
        format!("$SERVER {}\n", self.address)
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().expect("no panic")
    }

    /// How often it was asked for this.
    pub fn asked(&self, name: &str, kind: &str) -> usize {
        self.state().asked.get(&(name.to_owned(), number(kind))).copied().unwrap_or(0)
    }

    /// Whether it was asked for this by TCP.
    pub fn asked_by_tcp(&self, name: &str, kind: &str) -> bool {
        self.state().by_tcp.contains(&(name.to_owned(), number(kind)))
    }

    /// Whether whoever asked for this has said that he takes more than 512 bytes (RFC 6891).
    pub fn asked_with_edns(&self, name: &str, kind: &str) -> bool {
        self.state().with_edns.contains(&(name.to_owned(), number(kind)))
    }

    /// Answers about these names are kept back from now on.
    pub fn hold(&self, names: &[&str]) {
        self.state().held.extend(names.iter().map(|name| (*name).to_owned()));
    }

    /// Names of which answers are kept back now.
    pub fn held(&self) -> BTreeSet<String> {
        self.state().kept.iter().map(|((name, _), ..)| name.clone()).collect()
    }

    /// Gives all answers that it has kept back.
    pub fn release(&self) {
        let mut state = self.state();
        state.held.clear();
        for (_, peer, answer) in state.kept.drain(..) {
            // Whoever asked may be gone.
            let _ = self.socket.send_to(&answer, peer);
        }
    }

    /// Answers about this name do not fit into a datagram.
    pub fn is_long(&self, name: &str) {
        self.state().long.insert(name.to_owned());
    }

    /// Nobody is there any more; its port stays taken, so that nobody else answers there.
    pub fn close(&mut self) {
        self.over.store(true, Ordering::Release);
        self.threads.drain(..).for_each(|thread| thread.join().expect("no panic"));
    }
}

impl Drop for NameServer {
    fn drop(&mut self) {
        self.over.store(true, Ordering::Release);
    }
}

/// A port that is free for both.
fn sockets() -> (TcpListener, UdpSocket) {
    loop {
        let socket = UdpSocket::bind((Ipv4Addr::LOCALHOST, 0)).expect("a socket");
        if let Ok(listener) = TcpListener::bind(socket.local_addr().expect("an address")) {
            return (listener, socket);
        }
    }
}

fn by_udp(socket: &UdpSocket, state: &Mutex<State>, over: &AtomicBool) {
    let mut bytes = [0; 2048];
    while !over.load(Ordering::Acquire) {
        let Ok((len, peer)) = socket.recv_from(&mut bytes) else { continue };
        let Some((question, asked)) = question(&bytes[..len]) else { continue };
        let mut state = state.lock().expect("no panic");
        state.note(&question, &bytes[..len]);
        let answer = state.answer(&question, asked, true);
        if state.held.contains(&question.0) {
            state.kept.push((question, peer, answer));
        } else {
            // Whoever asked may be gone.
            let _ = socket.send_to(&answer, peer);
        }
    }
}

fn by_tcp(listener: &TcpListener, state: &Mutex<State>, over: &AtomicBool) {
    while !over.load(Ordering::Acquire) {
        match listener.accept() {
            // One after the other will do for a test.
            Ok((stream, _)) => drop(converse(stream, state)),
            Err(_) => std::thread::sleep(LOOK),
        }
    }
}

/// Questions with their length before them (RFC 1035 §4.2.2), until there are no more.
fn converse(mut stream: TcpStream, state: &Mutex<State>) -> std::io::Result<()> {
    stream.set_nonblocking(false)?;
    stream.set_read_timeout(Some(Duration::from_secs(1)))?;
    loop {
        let mut length = [0; 2];
        stream.read_exact(&mut length)?;
        let mut bytes = vec![0; u16::from_be_bytes(length).into()];
        stream.read_exact(&mut bytes)?;
        let Some((question, asked)) = question(&bytes) else { return Ok(()) };
        let answer = {
            let mut state = state.lock().expect("no panic");
            state.note(&question, &bytes);
            state.by_tcp.insert(question.clone());
            state.answer(&question, asked, false)
        };
        stream.write_all(&(answer.len() as u16).to_be_bytes())?;
        stream.write_all(&answer)?;
    }
}

/// The question of a message, and the message up to its end.
fn question(message: &[u8]) -> Option<(Question, &[u8])> {
    let (mut labels, mut at) = (Vec::new(), 12);
    loop {
        let length = usize::from(*message.get(at)?);
        let label = message.get(at + 1..at + 1 + length)?;
        at += 1 + length;
        if length == 0 {
            break;
        }
        labels.push(String::from_utf8_lossy(label).to_lowercase());
    }
    let kind = message.get(at..at + 2)?;
    Some(((labels.join("."), u16::from_be_bytes([kind[0], kind[1]])), message.get(..at + 4)?))
}

impl State {
    fn note(&mut self, question: &Question, message: &[u8]) {
        *self.asked.entry(question.clone()).or_default() += 1;
        // The root's name, then the type: the only record beside the question.
        let is_edns = message[10..12] != [0, 0] && message.windows(3).any(|three| three == [0, 0, OPT as u8]);
        if is_edns {
            self.with_edns.insert(question.clone());
        }
    }

    fn answer(&self, (name, kind): &Question, asked: &[u8], is_datagram: bool) -> Vec<u8> {
        let (mut owner, mut answers, mut exists) = (name.clone(), Vec::new(), false);
        while let Some(records) = self.records.get(&owner) {
            exists = true;
            let wanted = records.iter().filter(|(of, _)| of == kind);
            answers.extend(wanted.map(|(of, data)| (owner.clone(), *of, data.clone())));
            let Some((_, alias)) = records.iter().find(|(of, _)| *of == CNAME && *kind != CNAME) else { break };
            answers.push((owner.clone(), CNAME, alias.clone()));
            owner = plain(alias);
        }
        let truncated = is_datagram && self.long.contains(name);
        if truncated {
            answers.clear();
        }
        // An answer to a question that wanted recursion; RFC 1035 §4.1.1.
        let flags = 0x8580 | if truncated { 0x0200 } else { 0 } | if exists { 0 } else { 3 };
        let nothing = answers.is_empty() && !truncated;
        let counts = [1, answers.len() as u16, u16::from(nothing), 0];
        let mut bytes = asked[..2].to_vec();
        bytes.extend(u16::to_be_bytes(flags));
        counts.iter().for_each(|count| bytes.extend(count.to_be_bytes()));
        bytes.extend(&asked[12..]);
        if nothing {
            // For how long there is nothing (RFC 2308 §3).
            let times: Vec<u8> = [1, 60, 60, 60, TTL].iter().flat_map(|time: &u32| time.to_be_bytes()).collect();
            answers.push((String::new(), SOA, [wire("ns.test"), wire("admin.test"), times].concat()));
        }
        for (owner, kind, data) in answers {
            bytes.extend(wire(&owner));
            bytes.extend([kind.to_be_bytes(), [0, 1]].concat());
            bytes.extend(TTL.to_be_bytes());
            bytes.extend((data.len() as u16).to_be_bytes());
            bytes.extend(data);
        }
        bytes
    }
}

/// A name as messages have it.
fn wire(name: &str) -> Vec<u8> {
    let labels = name.split('.').filter(|label| !label.is_empty());
    let mut bytes: Vec<u8> = labels.flat_map(|label| [&[label.len() as u8], label.as_bytes()].concat()).collect();
    bytes.push(0);
    bytes
}

/// The name that [`wire`] has written.
fn plain(wire: &[u8]) -> String {
    let (mut labels, mut at) = (Vec::new(), 0);
    while wire[at] != 0 {
        let end = at + 1 + usize::from(wire[at]);
        labels.push(String::from_utf8_lossy(&wire[at + 1..end]).to_lowercase());
        at = end;
    }
    labels.join(".")
}
