//! Signatures for handshakes: threads of the engine that may wait for the keyholder, so that no shard has to.

use std::cell::Cell;
use std::collections::VecDeque;
use std::io;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Condvar, Mutex, OnceLock};
use std::time::{Duration, Instant};

use futures_channel::oneshot;
use futures_lite::future::block_on;
use ringpost_io::sys::{Fiber, Stack, Step};
use ringpost_io::{Mailbox, Sender, ring, sys};
use ringpost_perf::{Counter, Counters};
use ringpost_tls::{Failure, Flight, KeyId, Rejected, Signs};
use rustix::net::sockopt::{Timeout, set_socket_timeout};
use rustls::SignatureScheme;
use rustls::crypto::aws_lc_rs;
use rustls::server::ProducesTickets;

use crate::ipc::codec::Channel;
use crate::ipc::keyholder::{SignRequest, SignRequests, Signature, Signatures};
use crate::limits::{
    ANSWER_WITHIN, HANDSHAKES_TOGETHER, HANDSHAKES_TOGETHER_BESIDE_MAIL, HANDSHAKES_WAITING, MAIL_IS_THERE, MAIL_LOOK,
    SIGNATURE, TRANSCRIPTS_BYTES,
};

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
    /// For while there is no mail; and those for while there is, who step back behind it.
    threads: [Vec<Sender<Job>>; 2],
    /// Whose turn it is.
    next: AtomicUsize,
    waiting: AtomicUsize,
    lanes: Arc<Lanes>,
    mail: Mail,
}

impl Signers {
    /// Starts twice so many threads, which end with the last copy of this.
    ///
    /// # Errors
    /// A thread cannot be had.
    pub fn start(count: usize) -> io::Result<Self> {
        let lanes = Arc::new(Lanes::new(2 * count));
        let ways = [(Step::One, HANDSHAKES_TOGETHER), (Step::Far, HANDSHAKES_TOGETHER_BESIDE_MAIL)];
        let mut threads = [Vec::new(), Vec::new()];
        for (threads, (step, together)) in threads.iter_mut().zip(ways) {
            for _ in 0..count {
                let (sender, jobs) = Mailbox::new(HANDSHAKES_WAITING);
                threads.push(sender);
                let lanes = lanes.clone();
                let work = move || {
                    // A flood of handshakes is to keep no session waiting.
                    let _ = sys::step_back(step);
                    work(&jobs, together, lanes);
                };
                std::thread::Builder::new().name("signer".into()).spawn(work)?;
            }
        }
        let (next, waiting) = (AtomicUsize::new(0), AtomicUsize::new(0));
        Ok(Self(Arc::new(Desk { threads, next, waiting, lanes, mail: Mail::default() })))
    }

    /// Gives way to mail, which these shards count.
    pub fn mind(&self, shards: Vec<Arc<Counters>>) {
        // Once is enough.
        let _ = self.0.mail.shards.set(shards);
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
        let threads = &desk.threads[usize::from(desk.mail.is_there())];
        let turn = desk.next.fetch_add(1, Ordering::Relaxed) % threads.len();
        let _waits = Waits::begin(&desk.waiting);
        let gone = || Rejected::silently(Failure::key("the thread that waits for signatures has ended"));
        if threads[turn].send(Job { flight, answer }).await.is_err() {
            return Err(gone());
        }
        wait.await.unwrap_or_else(|_| Err(gone()))
    }
}

/// Whether there is mail to give way to.
struct Mail {
    shards: OnceLock<Vec<Arc<Counters>>>,
    began: Instant,
    /// When that was looked at, in milliseconds since then.
    looked: AtomicU64,
    /// How many messages there had been.
    seen: AtomicU64,
    /// When that had grown.
    last: AtomicU64,
}

impl Default for Mail {
    fn default() -> Self {
        let [looked, seen, last] = std::array::from_fn(|_| AtomicU64::new(0));
        Self { shards: OnceLock::new(), began: Instant::now(), looked, seen, last }
    }
}

impl Mail {
    fn is_there(&self) -> bool {
        let now = self.began.elapsed().as_millis() as u64;
        // Whoever looks at the same time sees the same, or a little less.
        if now.saturating_sub(self.looked.load(Ordering::Relaxed)) >= MAIL_LOOK.as_millis() as u64 {
            self.looked.store(now, Ordering::Relaxed);
            let shards = self.shards.get().into_iter().flatten();
            let count = shards.map(|one| one.get(Counter::MessagesReceived) + one.get(Counter::Delivered)).sum();
            if self.seen.swap(count, Ordering::Relaxed) != count {
                self.last.store(now, Ordering::Relaxed);
            }
        }
        let last = self.last.load(Ordering::Relaxed);
        last > 0 && now.saturating_sub(last) < MAIL_IS_THERE.as_millis() as u64
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

fn work(jobs: &Mailbox<Job>, together: usize, lanes: Arc<Lanes>) {
    let mut lane = OwnLane { lanes, lane: None, number: 0, gave_up: false };
    let mut round = Round::default();
    while let Some(first) = block_on(jobs.receive()) {
        let began = Instant::now();
        let mut next = Some(first);
        while let Some(job) = next {
            // The client may have given up meanwhile.
            if !job.answer.is_canceled() {
                round.begin(job);
            }
            let more = round.asking.len() + round.done.len() < together && began.elapsed() < ANSWER_WITHIN;
            next = if more { jobs.try_receive() } else { None };
        }
        // The way to the keyholder and back costs as much as a signature: one for all.
        while !round.asking.is_empty() {
            let (handshakes, requests): (Vec<_>, Vec<_>) = round.asking.drain(..).unzip();
            let signatures = lane.sign(requests);
            debug_assert_eq!(handshakes.len(), signatures.len(), "each is brought to its end");
            for (handshake, signature) in handshakes.into_iter().zip(signatures) {
                SIGNED.set(Some(signature));
                round.go_on(handshake);
            }
        }
        // And so does a turn of the shard.
        ring::wake_together(|| {
            for (answer, outcome) in round.done.drain(..) {
                let _ = answer.send(outcome);
            }
        });
    }
}

/// Flights that a thread takes together.
#[derive(Default)]
struct Round {
    /// They wait for signatures.
    asking: Vec<(Handshake, SignRequest)>,
    done: Vec<(oneshot::Sender<Outcome>, Outcome)>,
    /// Of those that have ended.
    stacks: Vec<Stack>,
}

/// A flight under way: a fiber, since the library wants the signature in the middle of a call.
struct Handshake {
    fiber: Fiber<Outcome>,
    answer: oneshot::Sender<Outcome>,
}

impl Round {
    fn begin(&mut self, Job { flight, answer }: Job) {
        match self.stacks.pop().map_or_else(Stack::new, Ok) {
            Ok(stack) => self.go_on(Handshake { fiber: Fiber::new(stack, move || flight.complete()), answer }),
            Err(error) => {
                let failure = Failure::key(format!("there is no memory for a handshake: {error}"));
                self.done.push((answer, Err(Rejected::silently(failure))));
            }
        }
    }

    /// Until its end, or until it wants a signature.
    fn go_on(&mut self, mut handshake: Handshake) {
        match (handshake.fiber.go_on(), WANTED.take()) {
            (None, Some(request)) => self.asking.push((handshake, request)),
            (None, None) => unreachable!("only `Keyholder::sign` pauses, and says what for"),
            (Some(outcome), _) => {
                self.done.push((handshake.answer, outcome));
                self.stacks.extend(handshake.fiber.into_stack());
            }
        }
    }
}

thread_local! {
    /// What the flight that has paused wants to have signed.
    static WANTED: Cell<Option<SignRequest>> = const { Cell::new(None) };
    /// The signature for the one that goes on.
    static SIGNED: Cell<Option<Signature>> = const { Cell::new(None) };
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

impl OwnLane {
    /// Signatures for all of them, in their order. Asks the keyholder, and once more if that has been started again.
    fn sign(&mut self, mut requests: Vec<SignRequest>) -> Vec<Signature> {
        let mut signatures = Vec::with_capacity(requests.len());
        while !requests.is_empty() {
            let rest = requests.split_off(in_one_letter(&requests));
            let count = requests.len();
            match self.ask(requests) {
                Ok(outcomes) => signatures.extend(outcomes),
                Err(why) => signatures.extend(std::iter::repeat_n(Err(why), count)),
            }
            requests = rest;
        }
        signatures
    }

    fn ask(&mut self, handshakes: Vec<SignRequest>) -> Result<Vec<Signature>, String> {
        self.number += 1;
        let requests = SignRequests { number: self.number, handshakes };
        let deadline = Instant::now() + if self.gave_up { Duration::ZERO } else { SIGNATURE };
        loop {
            let lane = self.lane.take().or_else(|| self.lanes.take(deadline));
            self.gave_up = lane.is_none();
            let lane = lane.ok_or("the keyholder is not there")?;
            match ask(&lane, &requests) {
                Ok(outcomes) if outcomes.len() == requests.handshakes.len() => {
                    self.lane = Some(lane);
                    return Ok(outcomes);
                }
                Ok(_) => return Err("the keyholder answers something else".to_owned()),
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

/// How many of them a letter takes, one at least.
fn in_one_letter(requests: &[SignRequest]) -> usize {
    let mut bytes = 0;
    let fit = requests.iter().take_while(|request| {
        bytes += request.transcript.len();
        bytes <= TRANSCRIPTS_BYTES
    });
    fit.count().max(1)
}

fn ask(lane: &Channel, requests: &SignRequests) -> io::Result<Vec<Signature>> {
    lane.send(requests)?;
    loop {
        let (Signatures { number, outcomes }, _) =
            lane.receive()?.ok_or_else(|| io::Error::from(io::ErrorKind::UnexpectedEof))?;
        if number == requests.number {
            return Ok(outcomes);
        }
    }
}

/// Every key is at the end of the asking thread's lane. Only threads with a lane make handshakes as fibers, so that a shard never
/// waits, whatever rustls asks of it.
#[derive(Debug)]
struct Keyholder;

impl Signs for Keyholder {
    fn sign(&self, key: KeyId, scheme: SignatureScheme, transcript: &[u8]) -> Result<Vec<u8>, String> {
        WANTED.set(Some(SignRequest { key: key.0, scheme: scheme.into(), transcript: transcript.to_vec() }));
        let signed = if sys::pause() { SIGNED.take() } else { None };
        WANTED.set(None);
        signed.unwrap_or_else(|| Err("this thread must not wait for a signature".to_owned()))
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

/// For other files of this room that make handshakes.
pub(super) fn keyholder() -> Arc<dyn Signs> {
    Arc::new(Keyholder)
}

/// One for all listeners, so that a client may come back to another shard, and after a reload.
///
/// # Errors
/// A thread cannot be had.
pub(super) fn tickets() -> io::Result<Arc<dyn ProducesTickets>> {
    let tickets = Arc::new(Tickets::default());
    let made = tickets.clone();
    let make = move || {
        // Without randomness there are no handshakes either, and so no need for tickets.
        if let Ok(ticketer) = aws_lc_rs::Ticketer::new() {
            let _ = made.0.set(ticketer);
        }
    };
    std::thread::Builder::new().name("tickets".into()).spawn(make)?;
    Ok(tickets)
}

#[cfg(test)]
mod tests {
    use ringpost_tls::Hello;
    use rustls::pki_types::pem::PemObject;
    use rustls::pki_types::{CertificateDer, ServerName};
    use rustls::{ClientConfig, ClientConnection, RootCertStore};

    use ringpost_conf::Config;
    use ringpost_tls::Server;

    use super::*;
    use crate::certificates::{Identity, Name};
    use crate::encryption;
    use crate::keyholder::keys::{self, Key};

    /// A server whose key is with `key`, and what a client says first.
    struct Scene {
        server: Server,
        client: Arc<ClientConfig>,
        hello: Vec<u8>,
        key: Key,
    }

    impl Scene {
        fn new() -> Self {
            let mut text = Vec::new();
            let certificate = keys::make("localhost", &mut text).unwrap();
            let der = CertificateDer::from_pem_slice(certificate.as_bytes()).unwrap();
            let config = Config::quickstart(std::path::Path::new("/x"), &Default::default());
            let identity = Identity {
                name: Name::SelfSigned("localhost".into()),
                listed: None,
                chain: vec![der.to_vec()],
                key: 7,
            };
            let handshakes = super::super::Handshakes::new(RootCertStore::empty()).unwrap();
            while !handshakes.tickets_are_ready() {
                std::thread::yield_now();
            }
            let servers = handshakes.servers(&config, &[identity], &[]).unwrap();
            let builder = ClientConfig::builder_with_provider(encryption::provider());
            let builder = builder.with_safe_default_protocol_versions().unwrap();
            let mut roots = RootCertStore::empty();
            roots.add(der).unwrap();
            let client = Arc::new(builder.with_root_certificates(roots).with_no_client_auth());
            let server = servers.listeners[0].clone().unwrap();
            let hello = Self::begin(&client).1;
            Self { server, client, hello, key: keys::parse(&text).unwrap() }
        }

        /// A client, and what it says first.
        fn begin(config: &Arc<ClientConfig>) -> (ClientConnection, Vec<u8>) {
            let name = ServerName::try_from("localhost").unwrap();
            let mut client = ClientConnection::new(config.clone(), name).unwrap();
            let mut hello = Vec::new();
            client.write_tls(&mut hello).unwrap();
            (client, hello)
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
                    let Ok(Some((SignRequests { number, handshakes }, _))) = theirs.receive() else { return };
                    theirs.send(&Signatures { number: 0, outcomes: vec![Err("too late".into())] }).unwrap();
                    let sign = |request: &SignRequest| {
                        assert_eq!(request.key, 7);
                        let signer = key.choose_scheme(&[SignatureScheme::from(request.scheme)]).unwrap();
                        Ok(signer.sign(&request.transcript).unwrap())
                    };
                    let outcomes = handshakes.iter().map(sign).collect();
                    theirs.send(&Signatures { number, outcomes }).unwrap();
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
    fn those_who_wait_together_are_signed_by_one_letter() {
        let scene = Scene::new();
        let signers = Signers::start(1).unwrap();
        let mut waiting: Vec<_> = (0..6).map(|_| Box::pin(signers.sign(scene.flight()))).collect();
        for one in &mut waiting {
            assert!(block_on(futures_lite::future::poll_once(one)).is_none(), "there is no lane");
        }
        // The first of them may be under way alone by now, the others wait behind it.
        signers.connect(scene.lane(2));
        for one in waiting {
            assert!(block_on(one).is_ok());
        }
    }

    #[test]
    fn there_is_mail_for_a_while_after_a_message() {
        let mail = Mail::default();
        let counters = Arc::new(Counters::new());
        assert!(!mail.is_there());
        assert!(mail.shards.set(vec![Arc::default(), counters.clone()]).is_ok());
        let within = Instant::now() + Duration::from_secs(60);
        let wait_for = |there| {
            while mail.is_there() != there {
                assert!(Instant::now() < within, "not {there} within a minute");
                std::thread::sleep(Duration::from_millis(5));
            }
        };
        wait_for(false);
        counters.add(Counter::MessagesReceived, 1);
        wait_for(true);
        wait_for(false);
        counters.add(Counter::Delivered, 1);
        wait_for(true);
    }

    #[test]
    fn a_letter_has_no_more_than_it_takes_and_one_at_least() {
        let request = |bytes| SignRequest { key: 0, scheme: 0, transcript: vec![0; bytes] };
        let of = |sizes: &[usize]| in_one_letter(&sizes.iter().map(|bytes| request(*bytes)).collect::<Vec<_>>());
        assert_eq!(of(&[130; 16]), 16);
        assert_eq!(of(&[40_000, 130, 40_000, 130]), 2);
        assert_eq!(of(&[TRANSCRIPTS_BYTES + 1, 130]), 1);
    }

    #[test]
    fn a_client_that_comes_again_needs_no_thread() {
        let scene = Scene::new();
        let signers = Signers::start(1).unwrap();
        signers.connect(scene.lane(1));
        let flight = |hello: &[u8]| Hello::new().receive(hello, &scene.server).unwrap_or_else(|_| panic!()).unwrap();
        let (mut client, hello) = Scene::begin(&scene.client);
        assert!(flight(&hello).resume().is_err(), "it has no ticket yet");
        let mut channel = block_on(signers.sign(flight(&hello))).unwrap_or_else(|_| panic!());
        // There, back, and the ticket.
        for _ in 0..2 {
            let (mut out, mut back) = (Vec::new(), Vec::new());
            channel.take_output(&mut out);
            client.read_tls(&mut &out[..]).unwrap();
            client.process_new_packets().unwrap();
            client.write_tls(&mut back).unwrap();
            channel.receive(&back, &mut Vec::new()).unwrap();
        }
        let (_, again) = Scene::begin(&scene.client);
        assert!(matches!(flight(&again).resume(), Ok(Ok(_))));
        // A ticket of somebody else is none.
        let stranger = Scene::new();
        let there = Hello::new().receive(&again, &stranger.server).unwrap_or_else(|_| panic!()).unwrap();
        assert!(there.resume().is_err());
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
