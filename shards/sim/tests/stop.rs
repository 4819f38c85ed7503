//! The end of an engine of several shards: it waits for what is under way, and for nothing else.

mod support;

use std::cell::Cell;
use std::rc::Rc;
use std::time::Duration;

use ringpost_io::sim::SimWorld;
use ringpost_io::{Class, Mailbox, Runtime, Sender, Stream};
use ringpost_shard::{Letter, Order, Start};
use support::relay::{ENGINE, address, serve};

/// Much less than a shard waits for what does not come.
const AT_ONCE: Duration = Duration::from_secs(2);

/// Two shards; each listens at a port of its own.
struct Two {
    orders: Vec<Sender<Order>>,
    ended: Rc<Cell<usize>>,
}

impl Two {
    fn start(world: &Rc<SimWorld>) -> Self {
        let runtime = world.node_at("engine", ENGINE.into());
        let (mut all, ended) = (Vec::new(), Rc::<Cell<usize>>::default());
        for (number, mesh) in world.mesh::<Letter>(2, 64).into_iter().enumerate() {
            let (orders, mailbox) = Mailbox::new(8);
            all.push(orders);
            let text = format!("listen on {ENGINE} port 25\naction out relay\nmatch from any for any action out\n");
            let start = support::start(world, &runtime, ENGINE.into(), address, support::config(&text), mailbox);
            let listener = runtime.listen((ENGINE, 2500 + number as u16).into()).expect("the node is alive");
            let start = Start { mesh, listeners: vec![(listener, 0)], ..start };
            let ended = ended.clone();
            runtime.spawn(Class::Session, async move {
                drop(ringpost_shard::run(start).await);
                ended.set(ended.get() + 1);
            });
        }
        world.run_for(Duration::from_secs(1));
        Self { orders: all, ended }
    }

    fn stop(&self, number: usize) {
        self.orders[number].try_send(Order::Stop).unwrap_or_else(|_| panic!("it has ended"));
    }

    fn end_at_once(&self, world: &SimWorld) {
        assert!(world.run_until(AT_ONCE, || self.ended.get() == 2), "{} have ended", self.ended.get());
    }
}

/// A message of one recipient at each of eight sites, which both shards have some of.
fn submit(world: &Rc<SimWorld>, number: u16) {
    let runtime = world.node("client");
    world.block_on(async move {
        let to = (ENGINE, 2500 + number).into();
        let mut stream = runtime.connect(to, None, Duration::from_secs(30)).await.expect("it listens");
        let mut said = "HELO client.sim\r\nMAIL FROM:<a@s0.sim>\r\n".to_owned();
        said.extend((0..8).map(|site| format!("RCPT TO:<r@s{site}.sim>\r\n")));
        stream.write_all((said + "DATA\r\nSubject: x\r\n\r\nx\r\n.\r\n").as_bytes()).await.expect("it listens");
        let mut heard = Vec::new();
        while !String::from_utf8_lossy(&heard)
            .lines()
            .any(|line| line.starts_with("250 2.0.0") || line.contains("queued"))
        {
            assert!(stream.read(&mut heard, 4096).await.expect("an answer") > 0, "{}", String::from_utf8_lossy(&heard));
        }
    });
}

#[test]
fn shards_that_have_nothing_to_do_end_at_once_in_whatever_order() {
    for first in [0, 1] {
        let world = Rc::new(SimWorld::new(31));
        let two = Two::start(&world);
        two.stop(first);
        world.run_for(Duration::from_secs(1));
        two.stop(1 - first);
        two.end_at_once(&world);
    }
}

#[test]
fn a_shard_that_is_told_to_stop_gives_back_what_another_still_sends_it() {
    for first in [0, 1] {
        let world = Rc::new(SimWorld::new(32));
        (0..8).for_each(|number| serve(&world, number));
        let two = Two::start(&world);
        two.stop(first);
        world.run_for(Duration::from_secs(1));
        submit(&world, 1 - first as u16);
        world.run_for(Duration::from_secs(1));
        two.stop(1 - first);
        two.end_at_once(&world);
    }
}
