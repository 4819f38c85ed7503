//! Hosts with addresses of both families, in virtual time: whichever answers first gets the mail (RFC 8305), and it is
//! remembered which one that was.

mod support;

use std::net::IpAddr;
use std::rc::Rc;
use std::time::Duration;

use ringpost_io::sim::{NetFaults, SimWorld, sixth};
use support::relay::{ENGINE, Engine, Message, Seen, Told, Visit, address, serve_at};

const HOST: &str = "both0.sim";
/// The nodes of its addresses.
const FOUR: &str = "four";
const SIX: &str = "six";
/// Well above the way there and back, well below the start that IPv6 has.
const AT_ONCE: Duration = Duration::from_millis(100);
/// The start that IPv6 has, and what is needed besides.
const DELAYED: std::ops::Range<Duration> = Duration::from_millis(250)..Duration::from_millis(350);
/// A connection without work is closed in this time.
const IDLE: Duration = Duration::from_secs(10);

struct Site {
    world: Rc<SimWorld>,
    engine: Engine,
    four: Seen,
    six: Seen,
    sent: usize,
}

impl Site {
    /// The host and, before the first message, what is wrong with the way there.
    fn start(told: Told<'_>, spoil: impl FnOnce(&SimWorld)) -> Self {
        let world = Rc::new(SimWorld::new(8305));
        let (four, six) = addresses();
        let (four, six) = (serve_at(&world, FOUR, four), serve_at(&world, SIX, six));
        let engine = Engine::start_as(&world, told);
        spoil(&world);
        Self { world, engine, four, six, sent: 0 }
    }

    /// Sends some messages at once and waits until all have arrived and their connections are closed. How long it took each.
    fn send(&mut self, count: usize) -> Vec<Duration> {
        let message = |number| {
            let (sender, recipient) = (format!("a@s{number}.example"), format!("r{number}@d{number}.{HOST}"));
            Message { at: Duration::ZERO, sender, recipient }
        };
        let messages: Vec<Message> = (self.sent..self.sent + count).map(message).collect();
        self.engine.submit(&self.world, &messages, count);
        let before = self.sent;
        self.sent += count;
        let ends = self.engine.ends.clone();
        let all = self.sent;
        assert!(self.world.run_until(Duration::from_secs(120), || ends.borrow().len() == all), "{:?}", ends.borrow());
        self.world.run_for(IDLE);
        let ends = self.engine.ends.borrow();
        ends[before..].iter().map(|(_, took)| *took).collect()
    }

    /// Connections by IPv4 and by IPv6, and those of each on which something was said.
    fn seen(&self) -> [(usize, usize); 2] {
        [&self.four, &self.six].map(|seen| {
            let seen = seen.borrow();
            (seen.len(), seen.iter().filter(|visit| visit.lines > 0).count())
        })
    }

    /// So many connections on which something is said there are at once, at both addresses together.
    fn most_at_once(&self) -> usize {
        let (four, six) = (self.four.borrow(), self.six.borrow());
        let visits: Vec<&Visit> = four.iter().chain(six.iter()).collect();
        let is_open =
            |one: &Visit, when| one.began.is_some_and(|began| began <= when) && one.left.is_none_or(|left| left > when);
        let open_at = |when| visits.iter().filter(|one| is_open(one, when)).count();
        visits.iter().filter_map(|visit| visit.began).map(open_at).max().unwrap_or(0)
    }
}

fn addresses() -> (IpAddr, IpAddr) {
    let Some(IpAddr::V4(four)) = address(HOST) else { panic!("it has one") };
    (four.into(), sixth(four).into())
}

#[test]
fn ipv6_goes_first_and_ipv4_is_left_alone_while_that_is_quick() {
    let mut site = Site::start(Told::default(), |world| world.set_far("engine", SIX, Duration::from_millis(20)));
    let took = site.send(1);
    assert!(took[0] < Duration::from_millis(250), "{took:?}");
    site.send(3);
    let [four, six] = site.seen();
    assert_eq!(four, (0, 0));
    assert!(six.0 > 1 && six.0 == six.1, "{six:?}");
    assert_eq!(site.six.borrow()[0].from, IpAddr::from(sixth(ENGINE)));
}

#[test]
fn a_black_hole_costs_one_connection_a_quarter_of_a_second_and_is_remembered_for_ten_minutes() {
    let mut site = Site::start(Told::default(), |world| world.cut("engine", SIX));
    let took = site.send(1);
    assert!(DELAYED.contains(&took[0]), "{took:?}");
    let took = site.send(1);
    assert!(took[0] < AT_ONCE, "{took:?}");
    assert_eq!(site.seen(), [(2, 2), (0, 0)]);
    site.world.run_for(Duration::from_secs(600));
    let took = site.send(1);
    assert!(DELAYED.contains(&took[0]), "it has another chance: {took:?}");
    site.world.heal("engine", SIX);
    site.world.run_for(Duration::from_secs(600));
    site.send(1);
    assert_eq!(site.seen(), [(3, 3), (1, 1)], "and works");
    let took = site.send(1);
    assert!(took[0] < AT_ONCE, "{took:?}");
    assert_eq!(site.seen(), [(3, 3), (2, 2)]);
}

#[test]
fn many_connections_at_once_to_a_black_hole_wait_no_longer() {
    let mut site = Site::start(Told::default(), |world| world.cut("engine", SIX));
    let took = site.send(30);
    assert!(took.iter().all(|took| *took < Duration::from_secs(1)), "{took:?}");
}

#[test]
fn where_ipv6_is_refused_ipv4_does_not_wait() {
    let mut site = Site::start(Told::default(), |world| world.crash(SIX));
    for _ in 0..2 {
        let took = site.send(1);
        assert!(took[0] < AT_ONCE, "{took:?}");
    }
    assert_eq!(site.seen(), [(2, 2), (0, 0)]);
}

#[test]
fn who_comes_second_is_closed_before_a_word_is_said() {
    let mut site = Site::start(Told::default(), |world| world.set_far("engine", SIX, Duration::from_millis(200)));
    let took = site.send(1);
    assert!(DELAYED.contains(&took[0]), "{took:?}");
    assert_eq!(site.seen(), [(1, 1), (1, 0)]);
    site.send(1);
    assert_eq!(site.seen(), [(2, 2), (1, 0)], "it is remembered");
    // What is remembered is no more than who goes first.
    site.world.set_far("engine", FOUR, Duration::from_millis(400));
    site.send(1);
    assert_eq!(site.seen()[1], (2, 1), "{:?}", site.seen());
}

#[test]
fn where_neither_answers_the_attempt_fails_once_after_the_time_of_both() {
    let told = Told { settings: "shaping default { connect-timeout 5s }\n", may_defer: true, ..Told::default() };
    let mut site = Site::start(told, |world| {
        world.cut("engine", FOUR);
        world.cut("engine", SIX);
    });
    let (world, deferred) = (site.world.clone(), site.engine.deferred.clone());
    world.after(Duration::from_secs(7), move |world| {
        assert_eq!(deferred.get(), 1, "not one after the other");
        world.heal_all();
    });
    site.send(1);
    assert_eq!(site.engine.deferred.get(), 1);
    assert_eq!(site.seen(), [(0, 0), (1, 1)]);
}

#[test]
fn a_family_without_a_source_or_that_a_shape_leaves_out_is_not_tried() {
    let source = format!("src {ENGINE}");
    let of_one_family = Told { relay: &source, ..Told::default() };
    let shaped = Told { settings: "shaping default { inet4 }\n", ..Told::default() };
    for told in [of_one_family, shaped] {
        let mut site = Site::start(told, |world| world.set_far("engine", SIX, Duration::from_millis(1)));
        let took = site.send(1);
        assert!(took[0] < AT_ONCE, "{took:?}");
        assert_eq!(site.seen(), [(1, 1), (0, 0)]);
    }
    let told = Told { settings: "shaping default { inet6 }\n", ..Told::default() };
    let mut site = Site::start(told, |world| world.set_far("engine", SIX, Duration::from_millis(200)));
    site.send(1);
    assert_eq!(site.seen(), [(0, 0), (1, 1)], "it is waited for");
}

/// Both attempts are one connection to the site, and each is one of its source's.
#[test]
fn limits_count_two_attempts_as_one_connection() {
    let sources = format!("src {{ {ENGINE}, {} }}", sixth(ENGINE));
    for (settings, most) in [("connections 1", 1), ("connections-per-source 1", 2), ("connections-per-source 2", 4)] {
        let settings = format!("shaping default {{ {settings}, messages-per-connection 1 }}\n");
        let told = Told { relay: &sources, settings: &settings, ..Told::default() };
        let mut site = Site::start(told, |world| {
            world.set_far("engine", SIX, Duration::from_millis(200));
            // So that no farewell is overtaken by the next greeting.
            let latency = (Duration::from_micros(500), Duration::from_micros(500));
            world.set_net(NetFaults { latency, ..NetFaults::default() });
        });
        site.send(12);
        let [(four, of_four), (six, of_six)] = site.seen();
        assert_eq!(of_four + of_six, 12, "{settings}: one for each message");
        assert!(four + six <= 12 + most, "{settings}: no more than those who came second besides: {four}, {six}");
        assert!((1..=most).contains(&site.most_at_once()), "{settings}: {}", site.most_at_once());
    }
}
