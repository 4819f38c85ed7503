//! Every wait for a server has a time of its own (RFC 5321 §4.5.3.2), and it is for the whole reply: who says nothing and who
//! says a byte now and then are given up at the same moment. The engine's own shard relays to servers that stop at each step,
//! in the simulated network, where minutes cost nothing.

mod support;

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::rc::Rc;
use std::sync::Arc;
use std::time::{Duration, Instant};

use ringpost_io::sim::{SimRuntime, SimStream, SimWorld};
use ringpost_io::{Class, Listener, Mailbox, Runtime, Stream};
use ringpost_shard::{DeliveryResult, Event, Start};
use ringpost_tls::Connector;
use rustls::RootCertStore;
use rustls::crypto::aws_lc_rs;

/// Where a server stops, how, and after how many seconds its mail is what: deferred for want of a reply within the time that
/// is meant for this step, or delivered by another connection.
const SERVERS: [(&str, Stop, u64, &str); 16] = [
    ("connect", Stop::Silent, 300, "no reply within 300 s"),
    ("connect", Stop::Drips, 300, "no reply within 300 s"),
    ("EHLO", Stop::Silent, 300, "no reply within 300 s"),
    ("EHLO", Stop::Drips, 300, "no reply within 300 s"),
    // What is offered and does not work is done without.
    ("STARTTLS", Stop::Silent, 300, "250 taken"),
    ("STARTTLS", Stop::Drips, 300, "250 taken"),
    ("handshake", Stop::Silent, 60, "250 taken"),
    ("MAIL", Stop::Silent, 300, "no reply within 300 s"),
    ("MAIL", Stop::Drips, 300, "no reply within 300 s"),
    ("RCPT", Stop::Silent, 300, "no reply within 300 s"),
    ("RCPT", Stop::Drips, 300, "no reply within 300 s"),
    ("DATA", Stop::Silent, 120, "no reply within 120 s"),
    ("DATA", Stop::Drips, 120, "no reply within 120 s"),
    ("dot", Stop::Silent, 600, "no reply within 600 s"),
    ("dot", Stop::Drips, 600, "no reply within 600 s"),
    ("group", Stop::Silent, 300, "no reply within 300 s"),
];

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Stop {
    Silent,
    /// A byte of a reply that does not end, every 40 s.
    Drips,
}

fn address(server: usize) -> IpAddr {
    Ipv4Addr::new(10, 0, 2, server as u8 + 1).into()
}

/// Names of hosts: `sN.sim`.
fn named(host: &str) -> Option<IpAddr> {
    let number = host.strip_suffix(".sim").and_then(|rest| rest.strip_prefix('s')?.parse().ok());
    number.map(address)
}

/// The connection is over.
struct Over;

/// One connection of a server.
struct Server {
    runtime: SimRuntime,
    stream: SimStream,
    step: &'static str,
    stop: Stop,
    input: Vec<u8>,
}

impl Server {
    async fn say(&mut self, text: &str) -> Result<(), Over> {
        self.stream.write_all(text.as_bytes()).await.map_err(|_| Over)
    }

    /// Says something, unless this is where it stops.
    async fn at(&mut self, step: &str, reply: &str) -> Result<(), Over> {
        if step != self.step {
            return self.say(reply).await;
        }
        if self.stop == Stop::Silent {
            self.runtime.sleep(Duration::from_secs(3600)).await;
            return Err(Over);
        }
        self.say("250-").await?;
        loop {
            self.say("x").await?;
            self.runtime.sleep(Duration::from_secs(40)).await;
        }
    }

    async fn line(&mut self) -> Result<String, Over> {
        loop {
            if let Some(end) = self.input.iter().position(|byte| *byte == b'\n') {
                let line: Vec<u8> = self.input.drain(..=end).collect();
                if self.step == "group" {
                    // What came along is lost.
                    self.input.clear();
                }
                return Ok(String::from_utf8_lossy(&line).trim_end().to_owned());
            }
            match self.stream.read(&mut self.input, 8192).await {
                Ok(count) if count > 0 => {}
                _ => return Err(Over),
            }
        }
    }

    async fn hold(&mut self) -> Result<(), Over> {
        self.at("connect", "220 mx.sim\r\n").await?;
        loop {
            let line = self.line().await?;
            match line.split([' ', ':']).next().unwrap_or_default() {
                "EHLO" if ["STARTTLS", "handshake"].contains(&self.step) => {
                    self.say("250-mx.sim\r\n250-STARTTLS\r\n250 PIPELINING\r\n").await?;
                }
                "EHLO" => self.at("EHLO", "250-mx.sim\r\n250 PIPELINING\r\n").await?,
                "STARTTLS" => {
                    self.at("STARTTLS", "220 go\r\n").await?;
                    self.at("handshake", "").await?;
                }
                "MAIL" => self.at("MAIL", "250 ok\r\n").await?,
                "RCPT" => self.at("RCPT", "250 ok\r\n").await?,
                "DATA" => {
                    self.at("DATA", "354 go\r\n").await?;
                    let mut text = std::mem::take(&mut self.input);
                    while !text.ends_with(b"\r\n.\r\n") {
                        match self.stream.read(&mut text, 8192).await {
                            Ok(count) if count > 0 => {}
                            _ => return Err(Over),
                        }
                    }
                    self.at("dot", "250 taken\r\n").await?;
                }
                _ => self.say("250 ok\r\n").await?,
            }
        }
    }
}

async fn serve(runtime: SimRuntime, number: usize) {
    let listener = runtime.listen(SocketAddr::new(address(number), 25)).expect("the node is alive");
    let (step, stop, ..) = SERVERS[number];
    loop {
        let Ok((stream, _)) = listener.accept().await else { return };
        let mut server = Server { runtime: runtime.clone(), stream, step, stop, input: Vec::new() };
        // The client's leaving is what this is about.
        runtime.spawn(Class::Session, async move { drop(server.hold().await) });
    }
}

/// Submits a message for every server.
async fn submit(runtime: SimRuntime) {
    let stream = runtime.connect(([10, 0, 1, 1], 25).into(), None, Duration::from_secs(30)).await;
    let mut stream = stream.expect("the engine listens");
    let mut heard = Vec::new();
    let mut commands = vec![String::new(), "EHLO client.sim\r\n".to_owned()];
    for number in 0..SERVERS.len() {
        commands.push("MAIL FROM:<>\r\n".to_owned());
        commands.push(format!("RCPT TO:<r@s{number}.sim>\r\n"));
        commands.push("DATA\r\n".to_owned());
        commands.push("Subject: x\r\n\r\nhello\r\n.\r\n".to_owned());
    }
    for said in commands {
        stream.write_all(said.as_bytes()).await.expect("the engine listens");
        heard.clear();
        while !heard.ends_with(b"\n")
            || heard.split(|byte| *byte == b'\n').rev().nth(1).is_none_or(|line| line[3] == b'-')
        {
            assert!(stream.read(&mut heard, 4096).await.expect("an answer") > 0);
        }
        assert!(matches!(heard[0], b'2' | b'3'), "{said}{}", String::from_utf8_lossy(&heard));
    }
}

/// How an attempt ended, and when.
type Ends = BTreeMap<String, Vec<(Instant, DeliveryResult, String)>>;

#[test]
fn s90_each_wait_for_a_server_has_a_deadline_of_its_own_however_it_dribbles() {
    let world = SimWorld::new(7);
    let mut text = "listen on 10.0.1.1 port 25\n".to_owned();
    for number in 0..SERVERS.len() {
        text += &format!("action a{number} relay host \"smtp://s{number}.sim\"\n");
        text += &format!("match from any for domain \"s{number}.sim\" action a{number}\n");
        let runtime = world.node_at(&format!("mx{number}"), address(number));
        runtime.spawn(Class::Session, serve(runtime.clone(), number));
    }
    let connector = Connector::new(Arc::new(aws_lc_rs::default_provider()), RootCertStore::empty());
    let runtime = world.node_at("engine", [10, 0, 1, 1].into());
    let ends: Rc<RefCell<Ends>> = Rc::default();
    let (noted, clock) = (ends.clone(), runtime.clone());
    let (_orders, orders) = Mailbox::new(8);
    let start = Start {
        connector: connector.expect("a connector"),
        events: Rc::new(move |event| {
            if let Event::Delivery { recipient, result, reply, .. } = event {
                let reply = reply.map_or_else(String::new, ToString::to_string);
                noted.borrow_mut().entry((*recipient).to_owned()).or_default().push((clock.now(), *result, reply));
            }
        }),
        ..support::start(&world, &runtime, [10, 0, 1, 1].into(), named, support::config(&text), orders)
    };
    runtime.spawn(Class::Session, async move { drop(ringpost_shard::run(start).await) });
    let client = world.node("client");
    world.run_for(Duration::from_secs(1));
    let began = world.now();
    world.block_on(submit(client));
    world.run_for(Duration::from_secs(1000));

    let ends = ends.borrow();
    for (number, (step, stop, seconds, said)) in SERVERS.iter().enumerate() {
        let ended = &ends[&format!("r@s{number}.sim")];
        let (at, _, reply) = &ended[0];
        let after = at.duration_since(began).as_secs();
        assert!(reply.contains(said), "{step}, {stop:?}: {ended:?}");
        assert!((*seconds..seconds + 10).contains(&after), "{step}, {stop:?}: after {after} s: {ended:?}");
    }
    // The server that loses the commands of a group hears them one by one the next time.
    let (_, result, _) = &ends[&format!("r@s{}.sim", SERVERS.len() - 1)][1];
    assert_eq!(*result, DeliveryResult::Ok);
}
