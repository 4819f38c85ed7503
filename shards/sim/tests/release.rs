//! Messages that are held for later (RFC 4865), in virtual time.

mod support;

use std::rc::Rc;
use std::time::Duration;

use futures_channel::oneshot;
use ringpost_io::sim::SimWorld;
use ringpost_shard::Order;
use support::relay::{Dialogue, Engine, serve};

const HOUR: Duration = Duration::from_secs(3600);
/// How late a message may be.
const GRACE: Duration = Duration::from_secs(2);

/// Submits a message as a program of the engine's own host does.
fn submit(world: &Rc<SimWorld>, engine: &Engine, recipient: &str, parameter: &str) {
    let (runtime, clock, submitted) = (engine.runtime.clone(), world.clone(), engine.submitted.clone());
    let (recipient, parameter) = (recipient.to_owned(), parameter.to_owned());
    world.block_on(async move {
        let mut dialogue = Dialogue::open(&runtime).await;
        submitted.borrow_mut().insert(recipient.clone(), clock.elapsed());
        dialogue.say("EHLO here.sim\r\n", EHLO_LINES).await;
        dialogue.say(&format!("MAIL FROM:<a@here.sim>{parameter}\r\nRCPT TO:<{recipient}>\r\nDATA\r\n"), 3).await;
        dialogue.say("Subject: x\r\n\r\nhello\r\n.\r\n", 1).await;
    });
}

/// What the engine answers to EHLO on its own host.
const EHLO_LINES: usize = 11;

#[test]
fn a_message_is_delivered_when_it_is_released_and_not_before_whoever_is_impatient() {
    let world = Rc::new(SimWorld::new(4865));
    serve(&world, 0);
    // Its time to live begins with its release, and so does that after which its sender is told that it waits (4 h): whatever
    // else was sent would fail the engine's own check.
    let engine = Engine::start(&world, "queue ttl 1h\n");
    submit(&world, &engine, "later@s0.sim", &format!(" HOLDFOR={}", 5 * 3600));
    submit(&world, &engine, "until@s0.sim", " HOLDUNTIL=2026-01-01T14:00:00Z");
    submit(&world, &engine, "now@s0.sim", "");
    submit(&world, &engine, "past@s0.sim", " HOLDUNTIL=2020-01-01T00:00:00Z");
    world.run_for(HOUR);
    let (answer, _wait) = oneshot::channel();
    engine.orders.try_send(Order::Retry(answer)).unwrap_or_else(|_| panic!("the engine has ended"));
    world.run_for(HOUR * 7);
    let ends = engine.ends.borrow();
    let took = |recipient: &str| ends.iter().find(|(of, _)| of == recipient).expect("delivered").1;
    assert_eq!(ends.len(), 4);
    assert!(took("now@s0.sim") < GRACE && took("past@s0.sim") < GRACE, "{ends:?}");
    let later = took("later@s0.sim");
    assert!(later >= HOUR * 5 && later < HOUR * 5 + GRACE, "{ends:?}");
    // A simulated world begins at noon.
    let until = took("until@s0.sim");
    assert!(until < HOUR * 2 && until > HOUR * 2 - 10 * GRACE, "{ends:?}");
}
