//! Bounces and notices of delay in virtual time: when mail is given up, who is told and how often, and that servers do not
//! bounce at each other for ever.
//! Engines as in production, and servers beside them that refuse or take everything.

mod support;

use std::cell::{Cell, RefCell};
use std::collections::BTreeSet;
use std::net::{IpAddr, Ipv4Addr};
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use futures_channel::oneshot;
use ringpost_conf::Config;
use ringpost_io::sim::{DiskFaults, SimStream, SimWorld};
use ringpost_io::{Class, Listener, Mailbox, Runtime, Sender, Stream};
use ringpost_perf::{Counter, Counters};
use ringpost_shard::{Event, Order, Start};

/// Hosts by name; the position gives the address.
const HOSTS: [&str; 6] = ["a.sim", "b.sim", "refuses.sim", "defers.sim", "takes.sim", "slow.sim"];
const HOUR: Duration = Duration::from_secs(3600);
const DAY: Duration = Duration::from_secs(86_400);
/// How late a message may be given up, or a notice sent.
const GRACE: Duration = Duration::from_secs(60);

fn address(name: &str) -> Option<IpAddr> {
    let place = HOSTS.iter().position(|host| *host == name)?;
    Some(Ipv4Addr::new(10, 0, 1, place as u8 + 1).into())
}

/// An engine of one shard.
struct Engine {
    orders: Sender<Order>,
    counters: Arc<Counters>,
    warnings: Rc<RefCell<Vec<String>>>,
}

impl Engine {
    fn start(world: &SimWorld, name: &str, rules: &str) -> Self {
        let at = address(name).expect("a host");
        let config = config(at, rules);
        let runtime = world.node_at(name, at);
        let (orders, mailbox) = Mailbox::new(8);
        let counters = Arc::new(Counters::default());
        let warnings = Rc::<RefCell<Vec<String>>>::default();
        let told = warnings.clone();
        let start = Start {
            hostname: name.into(),
            events: Rc::new(move |event| {
                if let Event::Warning(text) = event {
                    told.borrow_mut().push((*text).to_owned());
                }
            }),
            counters: counters.clone(),
            ..support::start(world, &runtime, at, address, config, mailbox)
        };
        runtime.spawn(Class::Session, async move { drop(ringpost_shard::run(start).await) });
        world.run_for(Duration::from_secs(1));
        Self { orders, counters, warnings }
    }

    /// Follows other rules from now on.
    fn reload(&self, rules: &str) {
        let (answer, _) = oneshot::channel();
        let order = Order::Reload(config(address(HOSTS[0]).expect("a host"), rules), Default::default(), answer);
        self.orders.try_send(order).unwrap_or_else(|_| panic!("the engine has ended"));
    }

    fn queued(&self, world: &SimWorld) -> u64 {
        let (answer, mut wait) = oneshot::channel();
        self.orders.try_send(Order::Stats(answer)).unwrap_or_else(|_| panic!("the engine has ended"));
        world.run_for(Duration::from_secs(1));
        wait.try_recv().expect("the engine lives").expect("it has answered").queue.messages
    }
}

fn config(at: IpAddr, rules: &str) -> Arc<Config> {
    let text = format!("listen on {at} port 25\n{rules}");
    support::config(&text)
}

/// What came to a server that takes everything: when, and the text.
type Taken = Rc<RefCell<Vec<(Duration, String)>>>;

/// A server that answers every RCPT so; with 250 it notes the texts.
fn serve(world: &Rc<SimWorld>, name: &str, verdict: &'static str) -> Taken {
    serve_with(world, name, &Rc::new(Cell::new(verdict)), Duration::ZERO)
}

/// The same, which thinks so long before each answer, and may answer otherwise in time.
fn serve_with(world: &Rc<SimWorld>, name: &str, verdict: &Rc<Cell<&'static str>>, thinks: Duration) -> Taken {
    let (at, verdict) = (address(name).expect("a host"), verdict.clone());
    let (runtime, taken, clock) = (world.node_at(name, at), Taken::default(), world.clone());
    let listener = runtime.listen((at, 25).into()).expect("the node is alive");
    let (spawner, noted) = (runtime.clone(), taken.clone());
    runtime.spawn(Class::Session, async move {
        while let Ok((mut stream, _)) = listener.accept().await {
            let (noted, clock, verdict, timer) = (noted.clone(), clock.clone(), verdict.clone(), spawner.clone());
            spawner.spawn(Class::Session, async move {
                let (mut raw, mut text) = (Vec::new(), None::<String>);
                let mut said = "220 mx.sim\r\n";
                loop {
                    if !said.is_empty() && !thinks.is_zero() {
                        timer.sleep(thinks).await;
                    }
                    if !said.is_empty() && stream.write_all(said.as_bytes()).await.is_err() {
                        return;
                    }
                    let Some(line) = line(&mut stream, &mut raw).await else { return };
                    said = match (&mut text, line.as_str()) {
                        (Some(_), ".\r\n") => {
                            noted.borrow_mut().push((clock.elapsed(), text.take().unwrap_or_default()));
                            "250 taken\r\n"
                        }
                        (Some(text), _) => {
                            text.push_str(&line);
                            ""
                        }
                        (None, "DATA\r\n") => {
                            text = Some(String::new());
                            "354 go\r\n"
                        }
                        (None, _) if line.starts_with("RCPT") => verdict.get(),
                        (None, _) => "250 ok\r\n",
                    };
                }
            });
        }
    });
    taken
}

async fn line(stream: &mut SimStream, raw: &mut Vec<u8>) -> Option<String> {
    loop {
        if let Some(end) = raw.iter().position(|byte| *byte == b'\n') {
            return Some(String::from_utf8_lossy(&raw.drain(..=end).collect::<Vec<u8>>()).into_owned());
        }
        stream.read(raw, 8192).await.ok().filter(|count| *count > 0)?;
    }
}

/// Submits a message to the first engine.
fn submit(world: &SimWorld, sender: &str, recipient: &str) {
    submit_to(world, sender, &[(recipient, "")]);
}

/// The same to several recipients, each with parameters.
fn submit_to(world: &SimWorld, sender: &str, recipients: &[(&str, &str)]) {
    submit_text(world, sender, recipients, "text\r\n");
}

/// The same with this text below the header.
fn submit_text(world: &SimWorld, sender: &str, recipients: &[(&str, &str)], text: &str) {
    let runtime = world.node("client");
    world.block_on(async move {
        let to = (address(HOSTS[0]).expect("a host"), 25).into();
        let mut stream = runtime.connect(to, None, Duration::from_secs(30)).await.expect("the engine listens");
        let mut raw = Vec::new();
        let mut commands = vec![String::new(), "EHLO client.sim\r\n".to_owned(), format!("MAIL FROM:<{sender}>\r\n")];
        commands.extend(recipients.iter().map(|(to, asks)| format!("RCPT TO:<{to}>{asks}\r\n")));
        commands.extend(["DATA\r\n".to_owned(), format!("Subject: what was sent\r\n\r\n{text}.\r\n")]);
        for said in commands {
            stream.write_all(said.as_bytes()).await.expect("the engine listens");
            let mut answer = line(&mut stream, &mut raw).await.expect("an answer");
            while answer.as_bytes().get(3) == Some(&b'-') {
                answer = line(&mut stream, &mut raw).await.expect("the rest of it");
            }
            assert!(answer.starts_with(['2', '3']), "{said}{answer}");
        }
    });
}

/// Mail that is always deferred is given up after the time of its action, with one bounce each, and not later than a minute.
#[test]
fn s98_one_bounce_when_the_time_of_the_action_is_over() {
    for (ttl, given_up) in [("", DAY * 4), (" ttl 5h", HOUR * 5)] {
        let world = Rc::new(SimWorld::new(98));
        serve(&world, "defers.sim", "451 4.3.0 not now\r\n");
        let taken = serve(&world, "takes.sim", "250 ok\r\n");
        let rules = format!(
            "action late relay host \"smtp://defers.sim\"{ttl}\naction out relay host \"smtp://takes.sim\"\n\
             match from any for domain \"late.sim\" action late\nmatch from any for domain \"sender.sim\" action out\n"
        );
        let engine = Engine::start(&world, "a.sim", &rules);
        let sent = world.elapsed();
        submit(&world, "s@sender.sim", "r@late.sim");
        world.run_for(DAY * 8);
        let taken = taken.borrow();
        let failed: Vec<_> = taken.iter().filter(|(_, text)| text.contains("\r\nAction: failed\r\n")).collect();
        let [(at, text)] = failed[..] else { panic!("{taken:#?}") };
        let waited = *at - sent;
        assert!(waited >= given_up && waited <= given_up + GRACE, "{ttl}: after {waited:?}");
        for part in
            ["\r\nStatus: 4.4.7\r\n", "Final-Recipient: rfc822;r@late.sim\r\n", "\r\nSubject: what was sent\r\n"]
        {
            assert!(text.replace("rfc822; ", "rfc822;").contains(part), "{part:?} is not in\n{text}");
        }
        assert_eq!(engine.queued(&world), 0);
        assert_eq!(engine.counters.get(Counter::BouncesDropped), 0);
    }
}

/// Rules by which mail for `late.sim` goes to the host of this name, and reports go to their senders.
fn rules(late: &str, settings: &str) -> String {
    format!(
        "{settings}action late relay host \"smtp://{late}\"\naction out relay host \"smtp://takes.sim\"\n\
         match from any for domain \"late.sim\" action late\nmatch from any for domain \"sender.sim\" action out\n"
    )
}

/// When the reports of this action came, counted from `since`.
fn reported(taken: &Taken, action: &str, since: Duration) -> Vec<Duration> {
    let taken = taken.borrow();
    let of_action = taken.iter().filter(|(_, text)| text.contains(&format!("\r\nAction: {action}\r\n")));
    of_action.map(|(at, _)| *at - since).collect()
}

fn came_at(times: &[Duration], expected: &[Duration]) {
    let fits = |(at, expected): (&Duration, &Duration)| *at >= *expected && *at <= *expected + GRACE;
    assert!(times.len() == expected.len() && times.iter().zip(expected).all(fits), "{times:?}, not {expected:?}");
}

#[test]
fn s99_one_notice_after_four_hours_for_all_recipients() {
    let world = Rc::new(SimWorld::new(99));
    serve(&world, "defers.sim", "451 4.3.0 not now\r\n");
    let taken = serve(&world, "takes.sim", "250 ok\r\n");
    let engine = Engine::start(&world, "a.sim", &rules("defers.sim", ""));
    let sent = world.elapsed();
    submit_to(&world, "s@sender.sim", &[("one@late.sim", ""), ("two@late.sim", " NOTIFY=DELAY")]);
    world.run_for(HOUR * 4 - GRACE);
    assert_eq!(taken.borrow().len(), 0);
    world.run_for(DAY * 3);
    came_at(&reported(&taken, "delayed", sent), &[HOUR * 4]);
    let text = taken.borrow()[0].1.clone();
    for part in [
        "\r\nFinal-Recipient: rfc822; one@late.sim\r\nAction: delayed\r\nStatus: 4.3.0\r\n",
        "\r\nFinal-Recipient: rfc822; two@late.sim\r\nAction: delayed\r\n",
        "\r\nDiagnostic-Code: smtp; 451 4.3.0 not now\r\n",
        "\r\nWill-Retry-Until: ",
        "You need not do anything,\r\nnor send it again: it is tried until ",
        "\r\nSubject: what was sent\r\n",
    ] {
        assert!(text.contains(part), "{part:?} is not in\n{text}");
    }
    let counts = [Counter::DelayNotices, Counter::Bounced].map(|of| engine.counters.get(of));
    assert_eq!((taken.borrow().len(), counts, engine.queued(&world)), (1, [1, 0], 1));
}

#[test]
fn s99_who_is_not_to_be_told_gets_no_notice() {
    let world = Rc::new(SimWorld::new(100));
    serve(&world, "defers.sim", "451 4.3.0 not now\r\n");
    let taken = serve(&world, "takes.sim", "250 ok\r\n");
    let engine = Engine::start(&world, "a.sim", &rules("defers.sim", "bounce warn-interval 1h, 2h\n"));
    let sent = world.elapsed();
    submit(&world, "", "null@late.sim");
    for asks in [" NOTIFY=NEVER", " NOTIFY=FAILURE", " NOTIFY=SUCCESS,FAILURE"] {
        submit_to(&world, "s@sender.sim", &[("silent@late.sim", asks)]);
    }
    submit_to(&world, "s@sender.sim", &[("silent@late.sim", " NOTIFY=FAILURE"), ("told@late.sim", " NOTIFY=DELAY")]);
    world.run_for(HOUR * 3);
    came_at(&reported(&taken, "delayed", sent), &[HOUR, HOUR * 2]);
    for (_, text) in taken.borrow().iter() {
        assert!(text.contains("told@late.sim") && !text.contains("silent@late.sim"), "{text}");
    }
    assert_eq!((engine.counters.get(Counter::DelayNotices), engine.queued(&world)), (2, 5));
}

/// A server so slow that its mail waits at its route, in the air, for longer than the interval; and one that cannot be reached.
#[test]
fn s99_what_was_never_refused_has_its_notice_too() {
    let world = Rc::new(SimWorld::new(103));
    let took = serve_with(&world, "slow.sim", &Rc::new(Cell::new("250 ok\r\n")), Duration::from_secs(90));
    let taken = serve(&world, "takes.sim", "250 ok\r\n");
    let settings = "shaping default { connections 1 }\nbounce warn-interval 30m\n\
                    action down relay host \"smtp://defers.sim\"\nmatch from any for domain \"down.sim\" action down\n";
    let engine = Engine::start(&world, "a.sim", &rules("slow.sim", settings));
    let sent = world.elapsed();
    // Each takes 6 minutes.
    (0..8).for_each(|number| submit(&world, &format!("s{number}@sender.sim"), &format!("r{number}@late.sim")));
    submit(&world, "unreachable@sender.sim", "r@down.sim");
    world.run_for(HOUR);
    let notices = reported(&taken, "delayed", sent);
    let untried = taken.borrow().iter().filter(|(_, text)| text.contains("Status: 4.0.0\r\n")).count();
    assert_eq!(took.borrow().len(), 8);
    let late = took.borrow().iter().filter(|(at, _)| *at - sent > HOUR / 2).count();
    assert!((1..8).contains(&late) && untried == late && notices.len() == late + 1, "{late} {untried} {notices:?}");
    came_at(&notices, &vec![HOUR / 2; late + 1]);
    assert_eq!(engine.queued(&world), 1, "the one for the host that cannot be reached");
}

#[test]
fn s100_each_notice_once_also_across_crashes_then_the_bounce() {
    let world = Rc::new(SimWorld::new(104));
    serve(&world, "defers.sim", "451 4.3.0 not now\r\n");
    let taken = serve(&world, "takes.sim", "250 ok\r\n");
    let rules = rules("defers.sim", "bounce warn-interval 4h, 1d, 2d\n");
    let mut engine = Engine::start(&world, "a.sim", &rules);
    let sent = world.elapsed();
    submit(&world, "s@sender.sim", "r@late.sim");
    for _ in 0..25 {
        // The first one just after the first notice has come.
        world.run_for(HOUR * 4 + Duration::from_secs(5));
        world.crash("a.sim");
        engine = Engine::start(&world, "a.sim", &rules);
    }
    came_at(&reported(&taken, "delayed", sent), &[HOUR * 4, DAY, DAY * 2]);
    came_at(&reported(&taken, "failed", sent), &[DAY * 4]);
    assert_eq!((taken.borrow().len(), engine.queued(&world)), (4, 0));
}

#[test]
fn s100_what_was_missed_while_nothing_ran_is_one_notice_and_none_follows_delivery() {
    let world = Rc::new(SimWorld::new(105));
    let verdict = Rc::new(Cell::new("451 4.3.0 not now\r\n"));
    let took = serve_with(&world, "defers.sim", &verdict, Duration::ZERO);
    let taken = serve(&world, "takes.sim", "250 ok\r\n");
    let rules = rules("defers.sim", "bounce warn-interval 1h, 4h, 1d, 3d\n");
    let _first = Engine::start(&world, "a.sim", &rules);
    let sent = world.elapsed();
    submit(&world, "s@sender.sim", "r@late.sim");
    world.run_for(HOUR * 2);
    world.crash("a.sim");
    world.run_for(DAY);
    let engine = Engine::start(&world, "a.sim", &rules);
    world.run_for(HOUR);
    came_at(&reported(&taken, "delayed", sent), &[HOUR, HOUR * 26]);
    verdict.set("250 ok\r\n");
    world.run_for(DAY * 3);
    assert_eq!((took.borrow().len(), taken.borrow().len(), engine.queued(&world)), (1, 2, 0));
}

/// Whenever the power goes, a notice comes at least once and at most twice; when it was noted, once.
#[test]
fn s100_a_crash_in_the_middle_of_a_notice_repeats_it_at_most_once() {
    let mut repeated = 0;
    for moment in 0..40 {
        let world = Rc::new(SimWorld::new(200 + moment));
        serve(&world, "defers.sim", "451 4.3.0 not now\r\n");
        let taken = serve(&world, "takes.sim", "250 ok\r\n");
        let rules = rules("defers.sim", "bounce warn-interval 10m\n");
        let _first = Engine::start(&world, "a.sim", &rules);
        submit(&world, "s@sender.sim", "r@late.sim");
        let due = world.elapsed() + Duration::from_secs(595);
        // A message is on its way when its notice is made: it is noted within a fraction of a second after that.
        world.run_until(Duration::from_secs(700), || {
            world.elapsed() >= due && !taken.borrow().is_empty() || world.elapsed() >= due + Duration::from_secs(60)
        });
        world.run_for(Duration::from_millis(3 * moment));
        world.crash("a.sim");
        let _second = Engine::start(&world, "a.sim", &rules);
        world.run_for(HOUR);
        // The same notice may be delivered twice, as any message after a crash.
        let notice = |text: &str| text.lines().find(|line| line.starts_with("Message-ID: ")).map(str::to_owned);
        let count = taken.borrow().iter().map(|(_, text)| notice(text)).collect::<BTreeSet<_>>().len();
        assert!((1..=2).contains(&count), "{moment}: {count}");
        assert!(count == 1 || moment < 30, "it was noted by then");
        repeated += count - 1;
    }
    assert!(repeated > 0, "none of the crashes was between the notice and its note");
}

#[test]
fn s100_a_reload_changes_when_waiting_mail_is_told_of() {
    let world = Rc::new(SimWorld::new(106));
    serve(&world, "defers.sim", "451 4.3.0 not now\r\n");
    let taken = serve(&world, "takes.sim", "250 ok\r\n");
    let engine = Engine::start(&world, "a.sim", &rules("defers.sim", ""));
    let sent = world.elapsed();
    submit(&world, "s@sender.sim", "r@late.sim");
    world.run_for(HOUR);
    engine.reload(&rules("defers.sim", "bounce warn-interval 2h, 6h\n"));
    world.run_for(HOUR * 2);
    came_at(&reported(&taken, "delayed", sent), &[HOUR * 2]);
    engine.reload(&rules("defers.sim", "bounce warn-interval 1h, 5h\n"));
    world.run_for(HOUR * 9);
    came_at(&reported(&taken, "delayed", sent), &[HOUR * 2, HOUR * 5]);
}

/// Two servers that each take mail for their own domain and then cannot deliver it: the bounce of the one fails at the other,
/// which tells nobody.
#[test]
fn s101_servers_that_bounce_at_each_other_come_to_rest() {
    let world = Rc::new(SimWorld::new(101));
    serve(&world, "refuses.sim", "550 5.1.1 no such user\r\n");
    let rules = |own: &str, other: &str| {
        format!(
            "action home relay host \"smtp://refuses.sim\"\naction away relay host \"smtp://{other}\"\n\
             match from any for domain \"{own}\" action home\nmatch from any for domain \"{other}\" action away\n"
        )
    };
    let one = Engine::start(&world, "a.sim", &rules("a.sim", "b.sim"));
    let two = Engine::start(&world, "b.sim", &rules("b.sim", "a.sim"));
    submit(&world, "nobody@b.sim", "nobody@a.sim");
    world.run_for(DAY * 8);
    let counts = |engine: &Engine| {
        [Counter::MessagesReceived, Counter::Bounced, Counter::BouncesDropped].map(|of| engine.counters.get(of))
    };
    assert_eq!((counts(&one), counts(&two)), ([1, 1, 0], [1, 0, 1]));
    assert_eq!((one.queued(&world), two.queued(&world)), (0, 0));
}

/// A sender to whom no rule leads cannot be told; that is counted, and the message is gone.
#[test]
fn s101_a_bounce_that_leads_nowhere_is_dropped_and_counted() {
    let world = Rc::new(SimWorld::new(102));
    serve(&world, "refuses.sim", "550 5.1.1 no such user\r\n");
    let rules = "action home relay host \"smtp://refuses.sim\"\nmatch from any for domain \"a.sim\" action home\n";
    let engine = Engine::start(&world, "a.sim", rules);
    submit(&world, "s@elsewhere.sim", "r@a.sim");
    world.run_for(HOUR);
    assert_eq!([Counter::Bounced, Counter::BouncesDropped].map(|of| engine.counters.get(of)), [0, 1]);
    assert_eq!(engine.queued(&world), 0);
}

/// A flood with forged reverse-paths: their owners have no more than the limits say, in each hour, and nothing stays behind.
#[test]
fn s101_a_flood_of_strangers_sends_others_a_bounded_number_of_reports() {
    let world = Rc::new(SimWorld::new(107));
    serve(&world, "refuses.sim", "550 5.1.1 no such user\r\n");
    let taken = serve(&world, "takes.sim", "250 ok\r\n");
    let engine =
        Engine::start(&world, "a.sim", &rules("refuses.sim", "bounce limit per-sender 3/h per-domain 5/h total 5/h\n"));
    let counts = || [Counter::Bounced, Counter::BouncesWithheld].map(|of| engine.counters.get(of));
    let flood = || (0..20).for_each(|n| submit(&world, &format!("victim{}@sender.sim", n % 2), "r@late.sim"));
    flood();
    world.run_for(Duration::from_secs(60));
    assert_eq!((counts(), taken.borrow().len()), ([5, 15], 5));
    world.run_for(HOUR * 2);
    flood();
    world.run_for(Duration::from_secs(60));
    assert_eq!((counts(), taken.borrow().len(), engine.queued(&world)), ([10, 30], 10, 0));
    // Notices of delay are such reports, too.
    engine.reload(&rules("defers.sim", "bounce warn-interval 1h\nbounce limit per-sender 1/h\n"));
    serve(&world, "defers.sim", "451 4.3.0 not now\r\n");
    (0..3).for_each(|_| submit(&world, "other@sender.sim", "r@late.sim"));
    world.run_for(HOUR * 2);
    assert_eq!((counts(), reported(&taken, "delayed", Duration::ZERO).len()), ([10, 32], 1));
}

/// A report that the disk did not take counts for nothing, and is sent when it can be.
#[test]
fn s101_a_report_that_could_not_be_queued_does_not_count_against_its_limit() {
    let world = Rc::new(SimWorld::new(108));
    let refuses = Rc::new(Cell::new("550 5.1.1 no such user\r\n"));
    serve_with(&world, "refuses.sim", &refuses, Duration::from_secs(2));
    let taken = serve(&world, "takes.sim", "250 ok\r\n");
    let engine = Engine::start(&world, "a.sim", &rules("refuses.sim", "bounce limit per-sender 1/h\n"));
    submit(&world, "victim@sender.sim", "r@late.sim");
    let disk = world.disk("a.sim");
    disk.set_faults(DiskFaults { fail_write: 1.0, ..DiskFaults::default() });
    world.run_for(Duration::from_secs(40));
    assert_eq!(taken.borrow().len(), 0, "it cannot be made");
    disk.set_faults(DiskFaults::default());
    world.run_for(HOUR / 2);
    let counts = [Counter::Bounced, Counter::BouncesWithheld].map(|of| engine.counters.get(of));
    assert_eq!((counts, taken.borrow().len(), engine.queued(&world)), ([1, 0], 1, 0));
}

/// What a disk does not give back any more expires as all mail does. Who sent it is told, unless that cannot be read either: then
/// the log says what is lost. Nothing stays for ever, and nothing goes without a word.
#[test]
fn s98_mail_that_cannot_be_read_is_given_up_at_its_time_and_told_of() {
    let mut without_text = 0;
    for (seed, fail_read) in [(109, 1.0), (110, 0.6), (111, 0.4)] {
        let world = Rc::new(SimWorld::new(seed));
        serve(&world, "defers.sim", "451 4.3.0 not now\r\n");
        let taken = serve(&world, "takes.sim", "250 ok\r\n");
        let engine = Engine::start(&world, "a.sim", &rules("defers.sim", "queue ttl 2h\n"));
        (0..20).for_each(|number| submit(&world, &format!("s{number}@sender.sim"), "r@late.sim"));
        world.disk("a.sim").set_faults(DiskFaults { fail_read, ..DiskFaults::default() });
        world.run_for(HOUR * 2 - Duration::from_secs(60));
        assert_eq!(engine.queued(&world), 20, "{fail_read}: their time is not over");
        world.run_for(HOUR / 4);
        let lost = engine.warnings.borrow().iter().filter(|text| text.contains("nobody can be told")).count();
        let taken = taken.borrow();
        let reports = || taken.iter().filter(|(_, text)| text.contains("\r\nAction: failed\r\n"));
        assert_eq!((reports().count() + lost, engine.queued(&world)), (20, 0), "{fail_read}");
        assert_eq!(lost == 20, fail_read == 1.0, "{lost}");
        assert_eq!([Counter::Failed, Counter::BouncesDropped].map(|of| engine.counters.get(of)), [20, lost as u64]);
        for (_, text) in reports() {
            let is_lost = text.contains("The text of your message is lost on this server");
            assert_ne!(is_lost, text.contains("\r\nSubject: what was sent\r\n"), "{text}");
            without_text += usize::from(is_lost);
        }
    }
    assert!(without_text > 0, "some could not be read when they were reported");
}

/// A large text is read only on its way out. What its sender is told is not where somebody else finds the reason.
#[test]
fn s98_a_large_text_that_cannot_be_read_is_lost_with_a_reason_for_its_sender_and_one_for_the_log() {
    let world = Rc::new(SimWorld::new(112));
    let takes = Rc::new(Cell::new("250 ok\r\n"));
    let relay = serve_with(&world, "slow.sim", &takes, Duration::from_secs(2));
    let taken = serve(&world, "takes.sim", "250 ok\r\n");
    let engine = Engine::start(&world, "a.sim", &rules("slow.sim", "queue ttl 2h\n"));
    submit_text(&world, "s@sender.sim", &[("r@late.sim", "")], &"0123456789\r\n".repeat(30_000));
    world.run_for(Duration::from_secs(1));
    // Its time is over before it is to be sent.
    world.disk("a.sim").set_faults(DiskFaults { fail_read: 1.0, ..DiskFaults::default() });
    world.set_wall_ahead_ms(HOUR.as_millis() as i64 * 2);
    world.run_for(Duration::from_secs(60));
    let warned = |what: &str| engine.warnings.borrow().iter().filter(|text| text.contains(what)).count();
    let all = ["MAIL IS LOST", "cannot read the text of message", "the disk does not read: "].map(warned);
    assert_eq!(all, [1; 3], "{:?}", engine.warnings.borrow());
    let taken = taken.borrow();
    let [(_, report)] = &taken[..] else { panic!("one report: {taken:?}") };
    let unfolded = report.split_whitespace().collect::<Vec<_>>().join(" ");
    let reason = "the message cannot be read on this server: its disk does not give the text back";
    assert!(unfolded.contains(reason) && !unfolded.contains("the log"), "{report}");
    assert!(relay.borrow().is_empty());
}
