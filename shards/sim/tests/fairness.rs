//! Who waits for whom on the way out, in virtual time, where the times of two runs can be compared.

mod support;

use std::rc::Rc;
use std::time::Duration;

use ringpost_io::sim::SimWorld;
use ringpost_io::{Class, Runtime};
use support::relay::{Dialogue, Engine, Message, serve};

/// Two senders and one site that takes ten messages a second: of the first there are 10,000, most of which wait at home for
/// the route to have room.
#[test]
fn one_with_ten_thousand_messages_does_not_delay_one_with_a_single_one() {
    let world = Rc::new(SimWorld::new(6));
    serve(&world, 0);
    let engine =
        Engine::start(&world, "shaping slow host \"s0.sim\" { rate 10/s }\nscheduler limit max-inflight 1000\n");
    let one = |sender: &str, number: usize, at| {
        let (sender, recipient) = (sender.to_owned(), format!("r{number}@d{number}.s0.sim"));
        Message { at, sender, recipient }
    };
    let mut messages: Vec<Message> =
        (0..10_000).map(|number| one(&format!("list-{number}@bulk.sim"), number, Duration::ZERO)).collect();
    let last = Duration::from_secs(200);
    messages.push(one("a@single.sim", 10_000, last));
    engine.submit(&world, &messages, 8);
    world.run_for(last);
    let before = engine.ends.borrow().len();
    assert_eq!(engine.submitted.borrow().len(), 10_000, "all of the first sender's are in");
    world.run_for(Duration::from_secs(5));
    let ends = engine.ends.borrow();
    let after = ends[before..].iter().position(|(recipient, _)| recipient.starts_with("r10000@"));
    assert!(before < 3000 && after.is_some_and(|after| after < 6), "{before}, {after:?}, {}", ends.len());
}

/// What the engine answers to EHLO on its own host.
const EHLO_LINES: usize = 11;

/// Programs of the engine's own host submit messages of one sender with this priority, a recipient each.
fn submit_here(world: &Rc<SimWorld>, engine: &Engine, priority: i8, numbers: std::ops::Range<usize>, clients: usize) {
    for client in 0..clients {
        let (runtime, clock, submitted) = (engine.runtime.clone(), world.clone(), engine.submitted.clone());
        let its = numbers.clone().skip(client).step_by(clients);
        engine.runtime.spawn(Class::Session, async move {
            let mut dialogue = Dialogue::open(&runtime).await;
            dialogue.say("EHLO here.sim\r\n", EHLO_LINES).await;
            for number in its {
                let recipient = format!("r{number}@d{number}.s0.sim");
                submitted.borrow_mut().insert(recipient.clone(), clock.elapsed());
                let mail =
                    format!("MAIL FROM:<a@here.sim> MT-PRIORITY={priority}\r\nRCPT TO:<{recipient}>\r\nDATA\r\n");
                dialogue.say(&mail, 3).await;
                dialogue.say("Subject: x\r\n\r\nhello\r\n.\r\n", 1).await;
            }
        });
    }
}

/// One sender and one site that takes ten messages a second: 10,000 that are not urgent wait, most of them at home; then
/// comes one that is, and then more of these than the site can take, so that the others would wait for long.
#[test]
fn what_is_urgent_does_not_wait_behind_what_is_not_which_does_not_starve() {
    let world = Rc::new(SimWorld::new(6710));
    serve(&world, 0);
    let engine =
        Engine::start(&world, "shaping slow host \"s0.sim\" { rate 10/s }\nscheduler limit max-inflight 1000\n");
    submit_here(&world, &engine, -4, 0..10_000, 8);
    world.run_for(Duration::from_secs(200));
    let before = engine.ends.borrow().len();
    assert_eq!(
        (engine.submitted.borrow().len(), before < 3000),
        (10_000, true),
        "all of them are in: {before} are out"
    );
    submit_here(&world, &engine, 4, 10_000..10_001, 1);
    world.run_for(Duration::from_secs(5));
    let is_urgent = |recipient: &str| recipient[1..].starts_with("10") && recipient.find('@') == Some(6);
    let first = engine.ends.borrow()[before..].iter().position(|(recipient, _)| is_urgent(recipient));
    assert!(first.is_some_and(|first| first < 6), "{first:?}");
    submit_here(&world, &engine, 9, 10_001..11_000, 8);
    world.run_for(Duration::from_secs(20));
    let before = engine.ends.borrow().len();
    world.run_for(Duration::from_secs(32));
    let ends = engine.ends.borrow();
    let urgent = ends[before..].iter().filter(|(recipient, _)| is_urgent(recipient)).count();
    let other = ends.len() - before - urgent;
    assert!(urgent > 10 * other && other >= 10, "{urgent} urgent ones, {other} others");
}

/// The median of how long it takes to the sites but the first, of which half of the mail is for and which takes 10 a second;
/// `all`: that half is there.
fn median_of_the_others(envelopes: usize, sites: usize, all: bool) -> Duration {
    let world = Rc::new(SimWorld::new(6));
    (0..sites).for_each(|site| serve(&world, site));
    let engine =
        Engine::start(&world, "shaping slow host \"s0.sim\" { rate 10/s }\nscheduler limit max-inflight 2000\n");
    let domains = sites * 50;
    let message = |number: usize| {
        // Every second one is for the first site; the others go round.
        let site = if number.is_multiple_of(2) { 0 } else { 1 + number / 2 % (sites - 1) };
        let recipient = format!("r{number}@d{}.s{site}.sim", number % domains);
        let sender = format!("a@d{}.example", number % 7);
        Message { at: Duration::from_millis(number as u64), sender, recipient }
    };
    let messages: Vec<Message> = (0..envelopes).filter(|number| all || number % 2 == 1).map(message).collect();
    engine.submit(&world, &messages, 16);
    let others = envelopes / 2;
    let is_other = |recipient: &str| !recipient.ends_with(".s0.sim");
    let delivered = || engine.ends.borrow().iter().filter(|(recipient, _)| is_other(recipient)).count();
    let most = Duration::from_millis(envelopes as u64) + Duration::from_secs(60);
    let began = world.elapsed();
    while delivered() < others {
        assert!(world.elapsed() - began < most, "{} of {others} after {most:?}", delivered());
        world.run_for(Duration::from_secs(1));
    }
    let mut took: Vec<Duration> =
        engine.ends.borrow().iter().filter(|(recipient, _)| is_other(recipient)).map(|(_, took)| *took).collect();
    took.sort_unstable();
    took[took.len() / 2]
}

/// Half of the mail is for a site that takes 10 a second: to the others it goes as if that were not there. With
/// `RINGPOST_FAIR_ENVELOPES=1000000` of the size that is promised.
#[test]
fn a_throttled_site_with_half_of_the_mail_does_not_delay_the_others() {
    let asked = std::env::var("RINGPOST_FAIR_ENVELOPES").ok();
    let envelopes = asked.map_or(6_000, |asked| asked.parse().expect("RINGPOST_FAIR_ENVELOPES is a number"));
    let sites = if envelopes > 100_000 { 200 } else { 50 };
    let [with, without] = [true, false].map(|all| median_of_the_others(envelopes, sites, all));
    println!("{envelopes} envelopes for {} domains on {sites} sites: median {with:?}, {without:?} without", sites * 50);
    assert!(with.abs_diff(without) * 10 <= without, "median {with:?}, {without:?} without the throttled site");
}
