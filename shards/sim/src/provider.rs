//! A provider that takes so many messages a second, or bears so many connections, says 451 or 421 to the rest, and changes its
//! mind: the engine finds out how many, and again when that changes (docs/decisions/0015). Virtual time: minutes cost nothing.
//!
//! What "finds out" means. *Offered* is every MAIL, taken or not; *known* is a limit from its first refusal on.
//! - In every ten seconds, from the first message on, no more is offered than 1.2 times the limit. Of a limit that falls, from
//!   when it is known: what was right until then is under way. Of connections that become fewer, from two minutes later on:
//!   those that a provider has let in stay. Where a fifth of them is less than one, one more.
//! - What is taken in the last five minutes of each phase is at least 0.9 of what the limit allows, and of messages no more
//!   than 1.1 times the limit is offered.

mod server;

use std::cell::RefCell;
use std::fmt::{self, Display, Formatter};
use std::net::IpAddr;
use std::rc::Rc;
use std::sync::Arc;
use std::time::{Duration, Instant};

use ringpost_io::sim::{NetFaults, Random, SimRuntime, SimStream, SimWorld};
use ringpost_io::{Class, Runtime};
use ringpost_shard::{Event, Plant};

use self::server::{Over, Server, line, say};
use crate::coordinator::receiver_address;
use crate::engine::{self, ADDRESS, Engine, Site};
use crate::limits::{BACKLOG, PROVIDER_CLIENTS};

const MINUTE: Duration = Duration::from_secs(60);
const WINDOW: Duration = Duration::from_secs(10);
/// What is judged of a phase as settled: its end.
const SETTLED: Duration = Duration::from_secs(300);

/// What a provider limits.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Limited {
    /// Messages a second.
    Messages,
    /// Connections.
    Connections,
}

/// How a provider says that it has enough messages. Too many connections it always answers with 421 and their end.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Manner {
    /// `451 4.7.28` at MAIL.
    Later,
    /// `421 4.7.0` at MAIL, and the end of the connection.
    Farewell,
    /// Now this, now that.
    Both,
}

/// A provider and how it changes.
#[derive(Clone, Debug, PartialEq)]
pub struct Scenario {
    /// Decides everything that happens.
    pub seed: u64,
    /// What it limits.
    pub limited: Limited,
    /// How it says so.
    pub manner: Manner,
    /// The limits, and how long each is in force.
    pub phases: Vec<(f64, Duration)>,
    /// So many seconds' worth of messages it lets save up.
    pub saves: f64,
    /// How long it thinks about a message.
    pub thinks: Duration,
    /// Shortest and longest way of a segment there or back.
    pub latency: (Duration, Duration),
    /// Prints every event of the engine.
    pub trace: bool,
}

/// How a phase went.
#[derive(Clone, Debug, PartialEq)]
pub struct Phase {
    /// The limit.
    pub limit: f64,
    /// What was taken at its end, on average.
    pub taken: f64,
    /// The most that was offered in ten seconds that are judged; 0 if it was never met.
    pub most: f64,
    /// What is wrong with that; empty for a good loop.
    pub wrong: Vec<String>,
    /// What the engine has told of it.
    pub told: Vec<String>,
}

impl Scenario {
    /// The one of a seed.
    pub fn drawn(seed: u64) -> Self {
        let random = &mut Random::new(seed);
        let limited = if random.below(3) == 0 { Limited::Connections } else { Limited::Messages };
        let manner = [Manner::Later, Manner::Farewell, Manner::Both][random.index(3)];
        let between = |random: &mut Random, least: f64, most: f64| {
            // As likely between 5 and 10 as between 10 and 20.
            let part = random.below(10_001) as f64 / 10_000.0;
            least * (most / least).powf(part)
        };
        let (least, most) = match limited {
            Limited::Messages => (3.0, 50.0),
            Limited::Connections => (3.0, 30.0),
        };
        let mut limit = between(random, least, most);
        let mut phases = Vec::new();
        for number in 0..3 {
            let before = limit;
            if number > 0 {
                limit = (limit * between(random, 0.33, 3.0)).clamp(least, most);
            }
            if limited == Limited::Connections {
                limit = limit.round();
            }
            // It takes ten minutes to find twice as much, and more where it was lowered before.
            let rise = (limit / before - 1.0).max(0.0) * 13.0;
            phases.push((limit, MINUTE * 10 + MINUTE.mul_f64(rise)));
        }
        let thinks = match limited {
            Limited::Messages => Duration::from_millis(random.below(200)),
            Limited::Connections => Duration::from_millis(500 + random.below(1000)),
        };
        let away = Duration::from_millis(1 + random.below(20));
        let (saves, latency) = (1.0 + random.below(2) as f64, (away, away * 2));
        Self { seed, limited, manner, phases, saves, thinks, latency, trace: false }
    }
}

impl Display for Scenario {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        let unit = match self.limited {
            Limited::Messages => "messages/s",
            Limited::Connections => "connections",
        };
        let manner = match (self.limited, self.manner) {
            (Limited::Connections, _) | (_, Manner::Farewell) => "421",
            (_, Manner::Later) => "451",
            (_, Manner::Both) => "451 and 421",
        };
        write!(f, "{unit}, {manner}")
    }
}

impl Display for Phase {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        let percent = |part: f64| 100.0 * part / self.limit;
        write!(f, "of {:.1} taken {:.0}%, at most {:.0}%", self.limit, percent(self.taken), percent(self.most))
    }
}

/// Runs a scenario, and judges each of its phases.
pub fn run(scenario: &Scenario) -> Vec<Phase> {
    let world = SimWorld::new(scenario.seed);
    world.set_net(NetFaults { latency: scenario.latency, ..NetFaults::default() });
    let server = Server::new(world.node_at("provider", provider()), scenario);
    server.runtime.spawn(Class::Session, server.clone().serve());
    let shaping = match scenario.limited {
        Limited::Messages => "",
        Limited::Connections => "shaping default { connections 60, messages-per-connection 20 }\n",
    };
    let config = engine::configuration(&format!(
        "smtp limit max-mails 1000000\n{shaping}action out relay host \"smtp+notls://mx0.sim\"\n\
         match from any for any action out\n"
    ));
    let told: Rc<RefCell<Vec<String>>> = Rc::default();
    let (noted, clock) = (told.clone(), world.clone());
    let site = Site {
        config: Arc::new(config),
        mood: Rc::default(),
        health: Rc::default(),
        ledger: Rc::default(),
        plant: Plant::None,
        trace: scenario.trace,
        heard: Rc::new(move |event| {
            if let Event::Paced { .. } = event {
                noted.borrow_mut().push(format!("{:?} {event}", clock.elapsed()));
            }
        }),
        counters: Arc::default(),
    };
    let _engine = Engine::start(&world, &site);
    world.run_for(Duration::from_secs(1));
    for number in 0..PROVIDER_CLIENTS {
        let client = world.node(&format!("client{number}"));
        client.spawn(Class::Session, submit(client.clone(), server.clone()));
    }
    let mut phases = Vec::new();
    let mut before = 0.0;
    for (limit, time) in &scenario.phases {
        server.allow(*limit);
        let began = world.now();
        world.run_for(*time);
        let judge = match scenario.limited {
            Limited::Messages => judge_rate,
            Limited::Connections => judge_connections,
        };
        let falls = std::mem::replace(&mut before, *limit) > *limit;
        let (taken, most, wrong) = judge(&server, (*limit, falls), began, *time);
        phases.push(Phase { limit: *limit, taken, most, wrong, told: told.take() });
    }
    phases
}

fn provider() -> IpAddr {
    receiver_address(0)
}

/// Every ten seconds from then on until `end`, and of what happens in them the most.
fn most_in(from: Instant, end: Instant, of: impl Fn(Instant) -> f64) -> f64 {
    let mut most = 0.0_f64;
    let mut window = from;
    while window + WINDOW <= end {
        most = most.max(of(window));
        window += WINDOW / 5;
    }
    most
}

fn judge_rate(server: &Server, (limit, falls): (f64, bool), began: Instant, time: Duration) -> (f64, f64, Vec<String>) {
    let end = began + time;
    let (offered, taken) = server.rates(end - SETTLED, SETTLED);
    let known = server.first_refusal_since(began);
    // One that its own slowness keeps from being met may yet be used.
    let most = server.most_offered((known.filter(|_| falls).unwrap_or(began), end), WINDOW);
    let mut wrong = Vec::new();
    if known.is_none() && taken < 0.9 * limit {
        wrong.push(format!("a limit of {limit:.1} a second was never met"));
    }
    if most > 1.2 * limit {
        wrong.push(format!("{most:.1} a second were offered, of {limit:.1}"));
    }
    if taken < 0.9 * limit {
        wrong.push(format!("{taken:.2} a second were taken at last, of {limit:.1}"));
    }
    if offered > 1.1 * limit {
        wrong.push(format!("{offered:.2} a second were offered at last, of {limit:.1}"));
    }
    (taken, most, wrong)
}

fn judge_connections(
    server: &Server,
    (limit, falls): (f64, bool),
    began: Instant,
    time: Duration,
) -> (f64, f64, Vec<String>) {
    let end = began + time;
    let (mean, _) = server.crowds(end - SETTLED, SETTLED);
    let Some(known) = server.first_refusal_since(began) else {
        return (mean, 0.0, vec![format!("a limit of {limit} connections was never met; there were {mean:.2}")]);
    };
    let from = if falls { known + 2 * MINUTE } else { began };
    let most = most_in(from, end, |window| server.crowds(window, WINDOW).1 as f64);
    let mut wrong = Vec::new();
    if most > (1.2 * limit).max(limit + 1.0) {
        wrong.push(format!("there were {most} connections, of {limit}"));
    }
    if mean < 0.9 * limit {
        wrong.push(format!("there were {mean:.2} connections at last, of {limit}"));
    }
    (mean, most, wrong)
}

/// Keeps [`BACKLOG`] messages in the queue, together with the other clients.
async fn submit(runtime: SimRuntime, server: Rc<Server>) {
    loop {
        // A client that had nothing to send for long is sent away, and comes again.
        let _ = session(&runtime, &server).await;
    }
}

async fn session(runtime: &SimRuntime, server: &Server) -> Result<(), Over> {
    let stream = runtime.connect(ADDRESS, None, Duration::from_secs(30)).await;
    let (mut stream, mut input) = (stream.expect("the engine listens"), Vec::new());
    exchange(&mut stream, &mut input, "", 1).await?;
    exchange(&mut stream, &mut input, "HELO client.sim\r\n", 1).await?;
    loop {
        while server.submitted.get() >= server.taken.get() + BACKLOG {
            runtime.sleep(Duration::from_millis(100)).await;
        }
        exchange(&mut stream, &mut input, "MAIL FROM:<>\r\nRCPT TO:<r@mx.sim>\r\nDATA\r\n", 3).await?;
        server.submitted.set(server.submitted.get() + 1);
        exchange(&mut stream, &mut input, "Subject: x\r\n\r\nhello\r\n.\r\n", 1).await?;
    }
}

/// Says something and hears so many lines.
async fn exchange(stream: &mut SimStream, input: &mut Vec<u8>, said: &str, lines: usize) -> Result<(), Over> {
    say(stream, said).await?;
    for _ in 0..lines {
        let heard = line(stream, input).await?;
        if heard.starts_with("421") {
            return Err(Over);
        }
        assert!(heard.starts_with(['2', '3']), "{said}{heard}");
    }
    Ok(())
}
