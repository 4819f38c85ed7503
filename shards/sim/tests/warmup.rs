//! An engine whose source addresses warm up, over several days of virtual time: each day takes what it may, what is left waits
//! with a reason (the auditor looks on), and nothing is lost or given up for it.

mod support;

use std::rc::Rc;
use std::time::Duration;

use ringpost_io::sim::SimWorld;
use support::relay::{Engine, Message, Told, serve};

const DAY: Duration = Duration::from_secs(86_400);

#[test]
fn s78_each_day_of_a_warm_up_sends_what_it_may_and_the_rest_waits_for_the_next() {
    let world = Rc::new(SimWorld::new(17));
    (0..2).for_each(|number| serve(&world, number));
    let engine = Engine::start(&world, "warmup slow { 5/d, 10/d, 8/h }\nshaping default { warmup slow, idle 1s }\n");
    let mail = |number: usize, site: usize| Message {
        at: Duration::ZERO,
        // Nobody is told that it waits.
        sender: String::new(),
        recipient: format!("r{number}@d{number}.s{site}.sim"),
    };
    // Forty for one site, seven for another.
    let messages: Vec<Message> = (0..47).map(|number| mail(number, usize::from(number >= 40))).collect();
    engine.submit(&world, &messages, 4);
    let delivered = |site: &str| engine.ends.borrow().iter().filter(|(to, _)| to.ends_with(site)).count();
    world.run_for(Duration::from_secs(3600));
    assert_eq!((delivered("s0.sim"), delivered("s1.sim")), (5, 5), "the first day");
    let to_midnight = DAY - Duration::from_millis(world.unix_ms() % DAY.as_millis() as u64);
    world.run_for(to_midnight - Duration::from_secs(1));
    assert_eq!((delivered("s0.sim"), delivered("s1.sim")), (5, 5), "the first day to its end");
    world.run_for(Duration::from_secs(120));
    assert_eq!((delivered("s0.sim"), delivered("s1.sim")), (15, 7), "the second, soon after its beginning");
    world.run_for(DAY);
    assert_eq!(delivered("s0.sim"), 23, "the first hour of the third");
    world.run_for(Duration::from_secs(3600));
    assert_eq!(delivered("s0.sim"), 31);
    world.run_for(DAY);
    assert_eq!(delivered("s0.sim"), 40, "there is nothing left");
}

#[test]
fn a_ledger_that_does_not_answer_is_asked_again() {
    let world = Rc::new(SimWorld::new(18));
    serve(&world, 0);
    let settings = "warmup slow { 5/d }\nshaping default { warmup slow, idle 1s }\n";
    let engine = Engine::start_as(&world, Told { settings, silent: 2, ..Told::default() });
    let message = Message { at: Duration::ZERO, sender: String::new(), recipient: "r0@d0.s0.sim".into() };
    engine.submit(&world, &[message], 1);
    world.run_for(Duration::from_secs(10));
    assert_eq!(engine.ends.borrow().len(), 0, "it is waited for");
    world.run_for(Duration::from_secs(120));
    assert_eq!(engine.ends.borrow().len(), 1);
}
