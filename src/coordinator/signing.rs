//! Signatures for handshakes: threads of the engine that may wait for the keyholder, so that no shard has to. And what
//! handshakes are made with, for each listener.

use std::cell::RefCell;
use std::collections::VecDeque;
use std::io;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Condvar, Mutex, OnceLock};
use std::time::{Duration, Instant};

use futures_channel::oneshot;
use futures_lite::future::block_on;
use ringpost_conf::{Config, Listener};
use ringpost_io::{Mailbox, Sender};
use ringpost_shard::Servers;
use ringpost_tls::{Certificate, Failure, Flight, KeyId, Offer, Rejected, Server, Signs};
use rustix::net::sockopt::{Timeout, set_socket_timeout};
use rustls::SignatureScheme;
use rustls::crypto::{CryptoProvider, aws_lc_rs};
use rustls::server::ProducesTickets;

use crate::certificates::{self, Identity};
use crate::encryption;
use crate::ipc::codec::Channel;
use crate::ipc::keyholder::{SignRequest, Signature};
use crate::limits::{HANDSHAKES_WAITING, SIGNATURE};

/// What came of a flight.
type Outcome = Result<ringpost_tls::Channel, Rejected>;

/// A flight, and where it goes on.
struct Job {
    flight: Flight,
    answer: oneshot::Sender<Outcome>,
}

/// The threads.
#[derive(Clone)]
pub struct Signers(Arc<Desk>);

struct Desk {
    threads: Vec<Sender<Job>>,
    /// Whose turn it is.
    next: AtomicUsize,
    waiting: AtomicUsize,
    lanes: Arc<Lanes>,
}

impl Signers {
    /// Starts so many threads, which end with the last copy of this.
    ///
    /// # Errors
    /// A thread cannot be had.
    pub fn start(count: usize) -> io::Result<Self> {
        let lanes = Arc::new(Lanes::new(count));
        let mut threads = Vec::new();
        for _ in 0..count {
            let (sender, jobs) = Mailbox::new(HANDSHAKES_WAITING);
            threads.push(sender);
            let lanes = lanes.clone();
            std::thread::Builder::new().name("signer".into()).spawn(move || work(&jobs, lanes))?;
        }
        Ok(Self(Arc::new(Desk { threads, next: AtomicUsize::new(0), waiting: AtomicUsize::new(0), lanes })))
    }

    /// A lane to the keyholder.
    pub fn connect(&self, lane: Channel) {
        self.0.lanes.add(lane);
    }

    /// Whether a handshake that begins now will have its signature in time.
    pub fn have_room(&self) -> bool {
        self.0.waiting.load(Ordering::Relaxed) < HANDSHAKES_WAITING
    }

    /// Takes a handshake's step on one of the threads.
    ///
    /// # Errors
    /// As [`Flight::complete`].
    pub async fn sign(&self, flight: Flight) -> Outcome {
        let (answer, wait) = oneshot::channel();
        let desk = &self.0;
        let turn = desk.next.fetch_add(1, Ordering::Relaxed) % desk.threads.len();
        let _waits = Waits::begin(&desk.waiting);
        let gone = || Rejected::silently(Failure::key("the thread that waits for signatures has ended"));
        if desk.threads[turn].send(Job { flight, answer }).await.is_err() {
            return Err(gone());
        }
        wait.await.unwrap_or_else(|_| Err(gone()))
    }
}

/// One that waits, as long as this lives: a client may give up at any time.
struct Waits<'c>(&'c AtomicUsize);

impl<'c> Waits<'c> {
    fn begin(count: &'c AtomicUsize) -> Self {
        count.fetch_add(1, Ordering::Relaxed);
        Self(count)
    }
}

impl Drop for Waits<'_> {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::Relaxed);
    }
}

fn work(jobs: &Mailbox<Job>, lanes: Arc<Lanes>) {
    OWN_LANE.with(|own| *own.borrow_mut() = Some(OwnLane { lanes, lane: None, number: 0, gave_up: false }));
    while let Some(Job { flight, answer }) = block_on(jobs.receive()) {
        // The client may have given up meanwhile.
        if !answer.is_canceled() {
            let _ = answer.send(flight.complete());
        }
    }
}

/// Lanes that no thread has taken yet. As many come each time that the keyholder is started.
struct Lanes {
    unused: Mutex<VecDeque<Channel>>,
    came: Condvar,
    count: usize,
}

impl Lanes {
    fn new(count: usize) -> Self {
        Self { unused: Mutex::default(), came: Condvar::new(), count }
    }

    fn add(&self, lane: Channel) {
        // A lane that cannot be bounded in time is as good as none; another comes with the next keyholder.
        let bounded = [Timeout::Recv, Timeout::Send].map(|which| set_socket_timeout(&lane, which, Some(SIGNATURE)));
        if bounded.iter().any(Result::is_err) {
            return;
        }
        let mut unused = self.unused.lock().expect("nobody panics with it");
        // Older ones are of a keyholder that is gone.
        while unused.len() >= self.count {
            unused.pop_front();
        }
        unused.push_back(lane);
        self.came.notify_all();
    }

    /// A lane, if one is there or comes until then.
    fn take(&self, deadline: Instant) -> Option<Channel> {
        let unused = self.unused.lock().expect("nobody panics with it");
        let left = deadline.saturating_duration_since(Instant::now());
        let waited = self.came.wait_timeout_while(unused, left, |unused| unused.is_empty());
        waited.expect("nobody panics with it").0.pop_front()
    }
}

/// A thread's lane.
struct OwnLane {
    lanes: Arc<Lanes>,
    lane: Option<Channel>,
    number: u64,
    /// One has waited in vain: those behind it fail at once, until there is a lane.
    gave_up: bool,
}

thread_local! {
    /// Only threads that may wait have one, so that a shard never does, whatever rustls asks of it.
    static OWN_LANE: RefCell<Option<OwnLane>> = const { RefCell::new(None) };
}

impl OwnLane {
    /// Asks the keyholder, and once more if that has been started again.
    fn sign(&mut self, key: u32, scheme: u16, transcript: &[u8]) -> Result<Vec<u8>, String> {
        self.number += 1;
        let request = SignRequest { number: self.number, key, scheme, transcript: transcript.to_vec() };
        let deadline = Instant::now() + if self.gave_up { Duration::ZERO } else { SIGNATURE };
        loop {
            let lane = self.lane.take().or_else(|| self.lanes.take(deadline));
            self.gave_up = lane.is_none();
            let lane = lane.ok_or("the keyholder is not there")?;
            match ask(&lane, &request) {
                Ok(outcome) => {
                    self.lane = Some(lane);
                    return outcome;
                }
                // It may be slow; whatever it says later has another number.
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                    self.lane = Some(lane);
                    return Err("the keyholder does not answer".to_owned());
                }
                Err(_) if Instant::now() < deadline => {}
                Err(error) => return Err(format!("the keyholder is gone: {error}")),
            }
        }
    }
}

fn ask(lane: &Channel, request: &SignRequest) -> io::Result<Result<Vec<u8>, String>> {
    lane.send(request)?;
    loop {
        let (Signature { number, outcome }, _) =
            lane.receive()?.ok_or_else(|| io::Error::from(io::ErrorKind::UnexpectedEof))?;
        if number == request.number {
            return Ok(outcome);
        }
    }
}

/// Every key is at the end of the asking thread's lane.
#[derive(Debug)]
struct Keyholder;

impl Signs for Keyholder {
    fn sign(&self, key: KeyId, scheme: SignatureScheme, transcript: &[u8]) -> Result<Vec<u8>, String> {
        OWN_LANE.with(|own| match &mut *own.borrow_mut() {
            Some(own) => own.sign(key.0, scheme.into(), transcript),
            None => Err("this thread must not wait for a signature".to_owned()),
        })
    }
}

/// Tickets, as soon as there are keys for them: the first randomness of a process takes the library some 40 ms, for which
/// nobody should have to wait when the server starts. Whoever comes before gets none.
#[derive(Debug, Default)]
struct Tickets(OnceLock<Arc<dyn ProducesTickets>>);

impl ProducesTickets for Tickets {
    fn enabled(&self) -> bool {
        self.0.get().is_some()
    }

    fn lifetime(&self) -> u32 {
        self.0.get().map_or(0, |tickets| tickets.lifetime())
    }

    fn encrypt(&self, plain: &[u8]) -> Option<Vec<u8>> {
        self.0.get()?.encrypt(plain)
    }

    fn decrypt(&self, cipher: &[u8]) -> Option<Vec<u8>> {
        self.0.get()?.decrypt(cipher)
    }
}

/// What makes handshakes of certificates.
pub struct Handshakes {
    provider: Arc<CryptoProvider>,
    /// One for all, so that a client may come back to another shard, and after a reload.
    tickets: Arc<dyn ProducesTickets>,
    holder: Arc<dyn Signs>,
}

impl Handshakes {
    /// Nothing is offered yet.
    ///
    /// # Errors
    /// A thread cannot be had.
    pub fn new() -> io::Result<Self> {
        let tickets = Arc::new(Tickets::default());
        let made = tickets.clone();
        let make = move || {
            // Without randomness there are no handshakes either, and so no need for tickets.
            if let Ok(ticketer) = aws_lc_rs::Ticketer::new() {
                let _ = made.0.set(ticketer);
            }
        };
        std::thread::Builder::new().name("tickets".into()).spawn(make)?;
        Ok(Self { provider: encryption::provider(), tickets, holder: Arc::new(Keyholder) })
    }

    /// What each listener's handshakes are made with.
    ///
    /// # Errors
    /// A certificate cannot be used.
    pub fn servers(&self, config: &Config, identities: &[Identity]) -> Result<Servers, String> {
        config.listeners.iter().map(|listener| self.server(listener, identities)).collect()
    }

    fn server(&self, listener: &Listener, identities: &[Identity]) -> Result<Option<Server>, String> {
        let mut offer = Offer::new();
        for name in certificates::names(listener) {
            for identity in identities.iter().filter(|identity| identity.name == name) {
                let certificate = Certificate::parse(identity.chain.clone()).map_err(|failure| failure.text)?;
                offer.add(&certificate, KeyId(identity.key), self.holder.clone());
            }
        }
        if offer.is_empty() {
            return Ok(None);
        }
        let server = Server::new(self.provider.clone(), offer, self.tickets.clone());
        server.map(Some).map_err(|failure| failure.text)
    }
}

#[cfg(test)]
mod tests {
    use ringpost_tls::Hello;
    use rustls::pki_types::pem::PemObject;
    use rustls::pki_types::{CertificateDer, ServerName};
    use rustls::{ClientConfig, ClientConnection, RootCertStore};

    use super::*;
    use crate::certificates::Name;
    use crate::keyholder::keys::{self, Key};

    /// A server whose key is with `key`, and what a client says first.
    struct Scene {
        server: Server,
        hello: Vec<u8>,
        key: Key,
    }

    impl Scene {
        fn new() -> Self {
            let mut text = Vec::new();
            let certificate = keys::make("localhost", &mut text).unwrap();
            let der = CertificateDer::from_pem_slice(certificate.as_bytes()).unwrap();
            let config = Config::quickstart(std::path::Path::new("/x"), &Default::default());
            let identity = Identity { name: Name::SelfSigned("localhost".into()), chain: vec![der.to_vec()], key: 7 };
            let servers = Handshakes::new().unwrap().servers(&config, &[identity]).unwrap();
            let builder = ClientConfig::builder_with_provider(encryption::provider());
            let builder = builder.with_safe_default_protocol_versions().unwrap();
            let client = builder.with_root_certificates(RootCertStore::empty()).with_no_client_auth();
            let name = ServerName::try_from("localhost").unwrap();
            let mut client = ClientConnection::new(Arc::new(client), name).unwrap();
            let mut hello = Vec::new();
            client.write_tls(&mut hello).unwrap();
            Self { server: servers[0].clone().unwrap(), hello, key: keys::parse(&text).unwrap() }
        }

        fn flight(&self) -> Flight {
            Hello::new().receive(&self.hello, &self.server).unwrap_or_else(|_| panic!()).unwrap()
        }

        /// The other end of a lane, which answers so many requests, each after an old answer, and closes it.
        fn lane(&self, answers: usize) -> Channel {
            let (ours, theirs) = Channel::pair().unwrap();
            let (theirs, key) = (Channel::of(theirs), self.key.clone());
            std::thread::spawn(move || {
                for _ in 0..answers {
                    let Ok(Some((request, _))) = theirs.receive::<SignRequest>() else { return };
                    assert_eq!(request.key, 7);
                    let signer = key.choose_scheme(&[SignatureScheme::from(request.scheme)]).unwrap();
                    theirs.send(&Signature { number: 0, outcome: Err("too late".into()) }).unwrap();
                    let outcome = Ok(signer.sign(&request.transcript).unwrap());
                    theirs.send(&Signature { number: request.number, outcome }).unwrap();
                }
            });
            ours
        }
    }

    #[test]
    fn a_lane_that_breaks_is_replaced_and_old_answers_are_passed_over() {
        let scene = Scene::new();
        let signers = Signers::start(1).unwrap();
        signers.connect(scene.lane(2));
        for _ in 0..2 {
            assert!(block_on(signers.sign(scene.flight())).is_ok());
        }
        // The next comes when the handshake waits already.
        let (later, lane) = (signers.clone(), scene.lane(1));
        std::thread::spawn(move || {
            while later.0.waiting.load(Ordering::Relaxed) == 0 {
                std::thread::yield_now();
            }
            later.connect(lane);
        });
        assert!(block_on(signers.sign(scene.flight())).is_ok());
        assert_eq!(signers.0.waiting.load(Ordering::Relaxed), 0);
    }

    #[test]
    fn a_thread_that_must_not_wait_is_refused() {
        let refused = Scene::new().flight().complete().map(|_| ()).unwrap_err();
        assert_eq!(refused.failure, Failure::key("this thread must not wait for a signature"));
    }

    #[test]
    fn only_so_many_wait_and_those_who_give_up_make_room() {
        let scene = Scene::new();
        // Nobody has a lane, so that the first keeps all others waiting.
        let signers = Signers::start(1).unwrap();
        let mut waiting: Vec<_> = (0..HANDSHAKES_WAITING).map(|_| Box::pin(signers.sign(scene.flight()))).collect();
        for (number, one) in waiting.iter_mut().enumerate() {
            assert!(signers.have_room(), "after {number}");
            assert!(block_on(futures_lite::future::poll_once(one)).is_none());
        }
        assert!(!signers.have_room());
        waiting.pop();
        assert!(signers.have_room());
        drop(waiting);
        assert_eq!(signers.0.waiting.load(Ordering::Relaxed), 0);
    }
}
