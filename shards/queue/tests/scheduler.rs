//! One suite that all schedulers pass (`scheduler backend`): what is due and when, of how much at once, and what is not due
//! any more. Where one fires nothing, nothing is lost either, and the other goes on where it left off.

mod support;

use std::future::Future;
use std::pin::Pin;

use ringpost_queue::{Backend, MessageId, Options, Queue, State, Status};
use support::{MemDisk, open, run_and_crash, run_and_stop, submit};

const ALL: [Backend; 2] = [Backend::Wheel, Backend::Null];
/// All times here are after this.
const FIRST_MS: u64 = 2_000_000;

type Scenario<'a> = Pin<Box<dyn Future<Output = ()> + 'a>>;

/// Runs it with a queue of each backend, and of those that fire nothing once more: with another one from the middle on.
fn conform(scenario: impl for<'a> Fn(&'a Suite) -> Scenario<'a>) {
    for (backend, then) in ALL.iter().flat_map(|backend| ALL.map(|then| (*backend, then))) {
        let disk = MemDisk::new(125);
        let options = Options { scheduler: backend, ..support::small() };
        let (queue, _) = open(&disk, 0, 1, &options);
        let suite = Suite { queue: queue.clone(), then };
        run_and_stop(&queue, scenario(&suite));
    }
}

struct Suite {
    queue: Queue<MemDisk>,
    then: Backend,
}

impl Suite {
    /// Messages with so many recipients, which wait until these times.
    async fn wait(&self, messages: &[(usize, u64)]) -> Vec<MessageId> {
        let mut all = Vec::new();
        for (recipients, due_ms) in messages {
            let recipients = vec!["a@example.org"; *recipients];
            let id = submit(&self.queue, &recipients, 100).await.expect("durable");
            for index in 0..recipients.len() as u16 {
                let reply = "451 later".to_owned();
                self.queue.settle(id, index, State::Deferred { until_ms: *due_ms, reply });
            }
            all.push(id);
        }
        all
    }

    /// The other backend takes over.
    fn turn(&self) {
        self.queue.schedule_by(self.then);
    }

    /// What is taken by then, until about `max` envelopes, must be these; or nothing, where nothing is due.
    fn takes(&self, now_ms: u64, max: usize, wanted: &[MessageId]) {
        let got: Vec<MessageId> = self.queue.claim_due(now_ms, max).into_iter().map(|(id, _)| id).collect();
        assert_eq!(got, if self.queue.fires() { wanted } else { &[] }, "{:?} by {now_ms}", self.then);
        for id in got {
            (0..4).for_each(|index| self.queue.settle(id, index, State::Delivered));
        }
        if !self.queue.fires() {
            assert_eq!(self.queue.next_due(), None);
            wanted.iter().for_each(|id| assert!(self.queue.stand(*id).iter().all(|one| one.state == Status::Waiting)));
        }
    }
}

#[test]
fn s125_the_earliest_is_first_and_none_before_its_time() {
    conform(|suite| {
        Box::pin(async move {
            let ids = suite.wait(&[(1, FIRST_MS + 30), (1, FIRST_MS + 10), (1, FIRST_MS + 20)]).await;
            suite.turn();
            if suite.queue.fires() {
                assert_eq!(suite.queue.next_due(), Some(FIRST_MS + 10));
            }
            suite.takes(FIRST_MS + 9, 100, &[]);
            suite.takes(FIRST_MS + 20, 100, &[ids[1], ids[2]]);
            suite.takes(FIRST_MS + 29, 100, &[]);
            suite.takes(FIRST_MS + 30, 100, &[ids[0]]);
            suite.takes(u64::MAX, 100, &[]);
        })
    });
}

#[test]
fn s125_a_batch_is_as_large_as_is_asked_in_whole_messages() {
    conform(|suite| {
        Box::pin(async move {
            let ids = suite.wait(&[(3, FIRST_MS), (1, FIRST_MS + 1), (2, FIRST_MS + 2), (1, FIRST_MS + 3)]).await;
            suite.turn();
            suite.takes(FIRST_MS + 10, 0, &[]);
            suite.takes(FIRST_MS + 10, 1, &ids[..1]);
            suite.takes(FIRST_MS + 10, 2, &ids[1..3]);
            suite.takes(FIRST_MS + 10, 100, &ids[3..]);
        })
    });
}

#[test]
fn s125_what_was_removed_does_not_come_and_what_was_put_off_comes_later() {
    conform(|suite| {
        Box::pin(async move {
            let ids = suite.wait(&[(1, FIRST_MS); 4]).await;
            suite.turn();
            suite.queue.settle(ids[0], 0, State::Delivered);
            suite.queue.settle(ids[1], 0, State::Failed { reply: "550 no".into() });
            suite.queue.release(ids[2], 0, FIRST_MS + 500);
            suite.takes(FIRST_MS + 499, 100, &ids[3..]);
            suite.takes(FIRST_MS + 500, 100, &ids[2..3]);
            assert_eq!(suite.queue.stand(ids[0]).len() + suite.queue.stand(ids[1]).len(), 0);
        })
    });
}

#[test]
fn s125_what_is_suspended_stays_and_is_resumed_at_once_or_at_a_nearer_time() {
    conform(|suite| {
        Box::pin(async move {
            let day = FIRST_MS + 86_400_000;
            let ids = suite.wait(&[(1, day), (1, day + 1), (1, day + 2)]).await;
            suite.turn();
            suite.takes(day - 1, 100, &[]);
            assert!(suite.queue.hasten(ids[2], 0, FIRST_MS + 5));
            suite.takes(FIRST_MS + 5, 100, &ids[2..]);
            assert_eq!(suite.queue.make_due(FIRST_MS + 6), 2);
            suite.takes(FIRST_MS + 6, 100, &ids[..2]);
        })
    });
}

#[test]
fn s125_a_start_finds_what_waited_whatever_scheduled_it_before() {
    for (before, after) in ALL.iter().flat_map(|before| ALL.map(|after| (*before, after))) {
        let disk = MemDisk::new(126);
        let (queue, _) = open(&disk, 0, 1, &Options { scheduler: before, ..support::small() });
        let suite = Suite { queue: queue.clone(), then: before };
        let ids = run_and_crash(&disk, &queue, async {
            let ids = suite.wait(&[(1, FIRST_MS + 2), (1, FIRST_MS + 1)]).await;
            queue.flush().await;
            ids
        });
        drop((suite, queue));
        let (queue, report) = open(&disk, 0, 1, &Options { scheduler: after, ..support::small() });
        assert_eq!((report.messages, queue.list().len()), (2, 2), "{before:?} {after:?}");
        let suite = Suite { queue: queue.clone(), then: after };
        run_and_stop(&queue, async { suite.takes(FIRST_MS + 9, 9, &[ids[1], ids[0]]) });
    }
}
