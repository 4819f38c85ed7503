//! S75: whatever stands between, or is at the other end, where encryption is demanded not one byte of MAIL, AUTH or DATA is
//! said in clear. The engine's own shard relays with each scheme to servers that do something else at each step of each
//! connection, as their seed decides, in the simulated network.

mod support;

use std::cell::{Cell, RefCell};
use std::io::{Read, Write};
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use rcgen::{BasicConstraints, CertificateParams, CertifiedIssuer, IsCa, KeyPair};
use ringpost_io::sim::{SimRuntime, SimStream, SimWorld};
use ringpost_io::{Class, Listener, Mailbox, Runtime, Stream};
use ringpost_shard::Start;
use ringpost_tls::Connector;
use rustls::crypto::aws_lc_rs;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::{RootCertStore, ServerConfig, ServerConnection};

/// Name and scheme of each relay. The first may speak in clear: so the test shows that it would see that.
const RELAYS: [(&str, &str); 5] = [
    ("open", "smtp://"),
    ("starttls", "smtp+tls://"),
    ("smtps", "smtps://"),
    ("ssl", "ssl://"),
    ("anybody", "smtp+tls://"),
];
/// Hosts of each.
const HOSTS: usize = 6;
/// Connections that must have been made where encryption is demanded.
const SCHEDULES: u64 = 10_000;
/// What is in the text of every message.
const MARK: &str = "nobody else may read this";
/// What must not be on the wire in clear.
const FORBIDDEN: [&str; 6] = ["MAIL FROM", "RCPT TO:", "DATA\r\n", "BDAT ", "AUTH ", MARK];

fn address(relay: usize, host: usize) -> IpAddr {
    Ipv4Addr::new(10, 0, 2 + relay as u8, host as u8 + 1).into()
}

/// Certificates: a good one, one for somebody else's name, one of an unknown authority.
struct Certificates([Arc<ServerConfig>; 3], RootCertStore);

impl Certificates {
    fn new() -> Self {
        let authority = || {
            let mut params = CertificateParams::new(Vec::new()).expect("no names");
            params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
            CertifiedIssuer::self_signed(params, KeyPair::generate().expect("a key")).expect("a certificate")
        };
        let (known, stranger) = (authority(), authority());
        let server = |authority: &CertifiedIssuer<'_, KeyPair>, name: &str| {
            let key = KeyPair::generate().expect("a key");
            let params = CertificateParams::new(vec![name.to_owned()]).expect("a name");
            let chain = vec![params.signed_by(&key, authority).expect("a certificate").der().clone()];
            let builder = ServerConfig::builder_with_provider(Arc::new(aws_lc_rs::default_provider()));
            let builder = builder.with_safe_default_protocol_versions().expect("versions").with_no_client_auth();
            let key = PrivateKeyDer::Pkcs8(key.serialize_der().into());
            Arc::new(builder.with_single_cert(chain, key).expect("they belong together"))
        };
        let mut roots = RootCertStore::empty();
        roots.add(CertificateDer::from(known.der().to_vec())).expect("an authority");
        Self([server(&known, "*.relay.sim"), server(&known, "elsewhere.sim"), server(&stranger, "*.relay.sim")], roots)
    }
}

/// What was seen.
#[derive(Default)]
struct Seen {
    /// Connections of relays that demand encryption, each of which went its own way.
    schedules: Cell<u64>,
    /// Messages that came encrypted there.
    encrypted: Cell<u64>,
    /// MAIL commands in clear of the relay that may.
    in_clear: Cell<u64>,
    /// What must not have been said.
    broken: RefCell<Vec<String>>,
}

/// Names of hosts: `hN.RELAY.relay.sim` is not in a certificate of `*.relay.sim`, hence `RELAYN.relay.sim`.
fn named(host: &str) -> Option<IpAddr> {
    let rest = host.strip_suffix(".relay.sim")?;
    let mut relays = RELAYS.iter().enumerate();
    relays.find_map(|(relay, (name, _))| Some(address(relay, rest.strip_prefix(name)?.parse().ok()?)))
}

fn configuration() -> String {
    let mut text = "listen on 10.0.1.1 port 25\naction lost discard\n".to_owned();
    for (name, scheme) in RELAYS {
        let tls = if name == "anybody" { " tls no-verify" } else { "" };
        for host in 0..HOSTS {
            text += &format!("action \"{name}{host}\" relay host \"{scheme}{name}{host}.relay.sim\"{tls}\n");
            text += &format!("match from any for domain \"{name}{host}.sim\" action \"{name}{host}\"\n");
        }
    }
    // Bounces to the sender.
    text + "match from any for any action lost\n"
}

/// A connection of a server: it behaves worse than any server, and writes down all that comes before its own handshake.
struct Server {
    runtime: SimRuntime,
    stream: SimStream,
    certificates: Rc<Certificates>,
    /// Everything that has come on the wire.
    raw: Vec<u8>,
    used: usize,
}

/// The connection is over.
struct Over;

impl Server {
    fn draw(&self, count: u64) -> u64 {
        self.runtime.random_u64() % count
    }

    async fn say(&mut self, text: &[u8]) -> Result<(), Over> {
        self.stream.write_all(text).await.map_err(|_| Over)
    }

    async fn hear(&mut self) -> Result<(), Over> {
        let read = self.stream.read(&mut self.raw, 8192);
        match self.runtime.timeout(Duration::from_secs(400), read).await {
            Some(Ok(count)) if count > 0 => Ok(()),
            _ => Err(Over),
        }
    }

    async fn line(&mut self) -> Result<String, Over> {
        loop {
            if let Some(end) = self.raw[self.used..].iter().position(|byte| *byte == b'\n') {
                let line = String::from_utf8_lossy(&self.raw[self.used..self.used + end]).trim_end().to_owned();
                self.used += end + 1;
                return Ok(line);
            }
            self.hear().await?;
        }
    }

    /// A dialogue in clear, which takes all that it is given. `Ok`: a handshake follows.
    async fn in_clear(&mut self) -> Result<(), Over> {
        match self.draw(14) {
            0 => return Err(Over),
            1 => self.say(b"421 4.3.2 not now\r\n").await?,
            2 => self.say(b"554 no\r\n").await?,
            3 => self.say(b"\x16\x03\x01 what?\r\n").await?,
            4 => self.runtime.sleep(Duration::from_secs(700)).await,
            5 => self.say(b"220-mx.sim\r\n220 STARTTLS\r\n250-mx.sim\r\n250 PIPELINING\r\n").await?,
            _ => self.say(b"220 mx.sim ESMTP\r\n").await?,
        }
        let mut in_data = false;
        loop {
            let line = self.line().await?;
            if in_data {
                if line == "." {
                    in_data = false;
                    self.say(b"250 thank you\r\n").await?;
                }
                continue;
            }
            match line.split([' ', ':']).next().unwrap_or_default() {
                "EHLO" => match self.draw(12) {
                    0 => return Err(Over),
                    // Stripped.
                    1 | 2 => self.say(b"250-mx.sim\r\n250 PIPELINING\r\n").await?,
                    3 => self.say(b"250-mx.sim\r\n250 XXXXXXXX\r\n").await?,
                    4 => self.say(b"500 5.5.1 what?\r\n").await?,
                    5 => self.say(b"250-mx.sim\r\n250 AUTH PLAIN LOGIN\r\n").await?,
                    _ => self.say(b"250-mx.sim\r\n250-PIPELINING\r\n250-AUTH PLAIN\r\n250 STARTTLS\r\n").await?,
                },
                "STARTTLS" => match self.draw(16) {
                    0 | 1 => self.say(b"454 4.7.0 not now\r\n").await?,
                    2 => self.say(b"501 5.5.4 no\r\n").await?,
                    3 => self.say(b"250 mx.sim\r\n").await?,
                    4 => self.say(b"220 go\r\n250-mx.sim\r\n250 PIPELINING\r\n").await?,
                    5 => self.say(b"220-go\r\n").await?,
                    6 => return Err(Over),
                    // And goes on in clear, whatever comes.
                    7 => self.say(b"220 go\r\n").await?,
                    8 => self.runtime.sleep(Duration::from_secs(700)).await,
                    _ => {
                        self.say(b"220 go\r\n").await?;
                        return Ok(());
                    }
                },
                "DATA" => {
                    in_data = true;
                    self.say(b"354 go\r\n").await?;
                }
                "QUIT" => return Err(Over),
                _ => self.say(b"250 ok\r\n").await?,
            }
            if self.draw(20) == 0 {
                return Err(Over);
            }
        }
    }

    /// A handshake, which may go wrong in every way, and the dialogue behind it. `Ok`: messages that were taken.
    async fn encrypted(&mut self) -> Result<u64, Over> {
        let certificate = match self.draw(8) {
            0 => 1,
            1 => 2,
            _ => 0,
        };
        match self.draw(14) {
            0 => return Err(Over),
            1 => self.say(b"250 ok\r\n250 ok\r\n354 go\r\n250 ok\r\n").await?,
            // handshake_failure, and more in clear.
            2 => self.say(b"\x15\x03\x03\x00\x02\x02\x28250 ok\r\n").await?,
            3 => {
                self.hear().await?;
                let noise: Vec<u8> = (0..200).map(|_| self.draw(256) as u8).collect();
                self.say(&noise).await?;
            }
            _ => {}
        }
        let config = self.certificates.0[certificate].clone();
        let mut tls = ServerConnection::new(config).expect("a good configuration");
        let (mut plain, mut taken, mut in_data) = (Vec::new(), 0, false);
        tls.writer().write_all(if self.used == 0 { b"220 mx.sim\r\n" } else { b"" }).expect("it has room");
        let mut at = self.raw.len().min(self.used);
        loop {
            let mut out = Vec::new();
            while tls.wants_write() {
                tls.write_tls(&mut out).expect("a vector takes everything");
            }
            if !out.is_empty() && self.draw(12) == 0 {
                // Cut off, changed, or with something else in between.
                match self.draw(3) {
                    0 => {
                        let end = self.draw(out.len() as u64) as usize;
                        self.say(&out[..end]).await?;
                        return Err(Over);
                    }
                    1 => {
                        let place = self.draw(out.len() as u64) as usize;
                        out[place] ^= 1;
                    }
                    _ => self.say(b"250 ok\r\n").await?,
                }
            }
            self.say(&out).await?;
            while at == self.raw.len() {
                self.hear().await?;
            }
            let mut new = &self.raw[at..];
            at = self.raw.len();
            while !new.is_empty() {
                tls.read_tls(&mut new).map_err(|_| Over)?;
                let state = tls.process_new_packets().map_err(|_| Over)?;
                let start = plain.len();
                plain.resize(start + state.plaintext_bytes_to_read(), 0);
                tls.reader().read_exact(&mut plain[start..]).map_err(|_| Over)?;
            }
            while let Some(end) = plain.iter().position(|byte| *byte == b'\n') {
                let line: Vec<u8> = plain.drain(..=end).collect();
                let reply: &[u8] = match line.get(..4).unwrap_or_default() {
                    _ if in_data && line == b".\r\n" => {
                        in_data = false;
                        taken += 1;
                        b"250 taken\r\n"
                    }
                    _ if in_data => continue,
                    b"DATA" => {
                        in_data = true;
                        b"354 go\r\n"
                    }
                    b"QUIT" => return Ok(taken),
                    b"EHLO" => b"250-mx.sim\r\n250 PIPELINING\r\n",
                    _ => b"250 ok\r\n",
                };
                tls.writer().write_all(reply).expect("it has room");
            }
            if taken > 0 && self.draw(2) == 0 {
                // The reply leaves, and the connection ends without a word.
                let mut out = Vec::new();
                while tls.wants_write() {
                    tls.write_tls(&mut out).expect("a vector takes everything");
                }
                self.say(&out).await?;
                return Ok(taken);
            }
        }
    }
}

/// Serves one address for ever.
async fn serve(
    runtime: SimRuntime,
    at: SocketAddr,
    relay: usize,
    implicit: bool,
    certificates: Rc<Certificates>,
    seen: Rc<Seen>,
) {
    let listener = runtime.listen(at).expect("the node is alive");
    loop {
        let Ok((stream, _)) = listener.accept().await else { return };
        let (certificates, seen, runtime) = (certificates.clone(), seen.clone(), runtime.clone());
        runtime.clone().spawn(Class::Session, async move {
            let mut server = Server { runtime, stream, certificates, raw: Vec::new(), used: 0 };
            // At the port for SMTPS somebody may speak in clear, too.
            let at_once = implicit && server.draw(12) > 0;
            let begun = if at_once { Ok(()) } else { server.in_clear().await };
            let taken = match begun {
                Ok(()) => server.encrypted().await.unwrap_or(0),
                Err(Over) => 0,
            };
            judge(relay, &server.raw, taken, &seen);
        });
    }
}

fn judge(relay: usize, raw: &[u8], taken: u64, seen: &Seen) {
    let said = FORBIDDEN.iter().find(|word| raw.windows(word.len()).any(|window| window == word.as_bytes()));
    if relay == 0 {
        seen.in_clear.set(seen.in_clear.get() + u64::from(said.is_some()));
        return;
    }
    seen.schedules.set(seen.schedules.get() + 1);
    seen.encrypted.set(seen.encrypted.get() + taken);
    if let Some(word) = said {
        seen.broken.borrow_mut().push(format!("{}: {word:?}: {:?}", RELAYS[relay].0, String::from_utf8_lossy(raw)));
    }
}

/// Submits a message for every host of every relay.
async fn submit(runtime: SimRuntime) {
    let stream = runtime.connect(([10, 0, 1, 1], 25).into(), None, Duration::from_secs(30)).await;
    let mut stream = stream.expect("the engine listens");
    let mut heard = Vec::new();
    let mut commands = vec!["EHLO client.sim\r\n".to_owned()];
    for (name, _) in RELAYS {
        for host in 0..HOSTS {
            commands.push("MAIL FROM:<s@source.sim>\r\n".to_owned());
            commands.push(format!("RCPT TO:<r@{name}{host}.sim>\r\n"));
            commands.push("DATA\r\n".to_owned());
            commands.push(format!("Subject: x\r\n\r\n{MARK}\r\n.\r\n"));
        }
    }
    for said in [String::new()].into_iter().chain(commands) {
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

/// One world: messages are tried again until they are delivered or two days have passed.
fn world(seed: u64, certificates: &Rc<Certificates>, connector: &Connector, seen: &Rc<Seen>) {
    let world = SimWorld::new(seed);
    let config = support::config(&configuration());
    for relay in 0..RELAYS.len() {
        for host in 0..HOSTS {
            let runtime = world.node_at(&format!("mx{relay}-{host}"), address(relay, host));
            for port in [25, 465] {
                let at = SocketAddr::new(address(relay, host), port);
                let task = serve(runtime.clone(), at, relay, port == 465, certificates.clone(), seen.clone());
                runtime.spawn(Class::Session, task);
            }
        }
    }
    let runtime = world.node_at("engine", [10, 0, 1, 1].into());
    let (_orders, orders) = Mailbox::new(8);
    let start = Start {
        connector: connector.clone(),
        ..support::start(&world, &runtime, [10, 0, 1, 1].into(), named, config, orders)
    };
    runtime.spawn(Class::Session, async move { drop(ringpost_shard::run(start).await) });
    let client = world.node("client");
    world.run_for(Duration::from_secs(1));
    world.block_on(submit(client));
    world.run_for(Duration::from_secs(2 * 86_400));
}

#[test]
fn s75_nothing_is_said_in_clear_over_ten_thousand_schedules_of_faults() {
    let certificates = Rc::new(Certificates::new());
    let connector =
        Connector::new(Arc::new(aws_lc_rs::default_provider()), certificates.1.clone()).expect("a connector");
    let seen = Rc::new(Seen::default());
    let mut seed = 0;
    while seen.schedules.get() < SCHEDULES {
        seed += 1;
        world(seed, &certificates, &connector, &seen);
        assert!(seen.broken.borrow().is_empty(), "seed {seed}: {:#?}", seen.broken.borrow());
        assert!(seed < 1000, "only {} schedules", seen.schedules.get());
    }
    let (in_clear, encrypted) = (seen.in_clear.get(), seen.encrypted.get());
    assert!(in_clear > seed, "the relay that may speak in clear did so {in_clear} times in {seed} worlds");
    assert!(encrypted > seed * 10, "{encrypted} messages were taken encrypted in {seed} worlds");
}
