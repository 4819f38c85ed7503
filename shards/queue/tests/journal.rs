//! The queue on a disk that keeps its word, on one that does not, and on one that is full.

mod support;

use std::path::{Path, PathBuf};
use std::time::Duration;

use futures_lite::future::{block_on, or, yield_now};

use ringpost_queue::{
    Body, Flags, MessageId, NewEnvelope, NewMessage, OpenError, Options, Queue, Space, State, Status, StoredAction,
    SubmitError, Told,
};
use support::{
    DIR, Leaves, MemDisk, after_polls, check, join_all, open, run_and_crash, run_and_stop, small, submit, text, until,
};

fn segment(slice: u16, slot: u16) -> PathBuf {
    Path::new(DIR).join(format!("slice-{slice:02}/{slot:05}.seg"))
}

fn ids(queue: &Queue<MemDisk>) -> Vec<MessageId> {
    let mut ids: Vec<MessageId> = queue.list().into_iter().map(|listed| listed.id).collect();
    ids.dedup();
    ids
}

#[test]
fn a_message_survives_a_crash_and_its_end_too() {
    let disk = MemDisk::new(1);
    let (queue, _) = open(&disk, 0, 1, &small());
    let (kept, gone) = run_and_crash(&disk, &queue, async {
        let kept = submit(&queue, &["a@example.org", "b@example.org"], 5000).await.expect("durable");
        let gone = submit(&queue, &["c@example.org"], 100).await.expect("durable");
        queue.settle(gone, 0, State::Delivered);
        queue.settle(kept, 1, State::Deferred { until_ms: 5_000_000, reply: "451 busy".into() });
        queue.flush().await;
        (kept, gone)
    });
    let (queue, report) = open(&disk, 0, 1, &small());
    assert_eq!((report.messages, report.envelopes, report.damage), (1, 2, vec![]));
    assert_eq!(ids(&queue), [kept]);
    check(&queue, kept, &["a@example.org", "b@example.org"], 5000);
    assert!(block_on(queue.load(gone)).is_err());
    let stored = block_on(queue.load(kept)).expect("there");
    let deferred = &stored.envelopes[1];
    assert_eq!((deferred.attempts, deferred.due_ms, deferred.last_reply.as_str()), (1, 5_000_000, "451 busy"));
    // What was in flight is due at once, what was deferred at its time.
    assert_eq!(queue.claim_due(2_000_000, 10), [(kept, vec![0])]);
    assert_eq!(queue.claim_due(2_000_000, 10), []);
    assert_eq!(queue.claim_due(5_000_000, 10), [(kept, vec![1])]);
}

#[test]
fn a_message_is_not_due_before_its_release_whatever_happens_to_the_server() {
    let disk = MemDisk::new(4865);
    let (queue, _) = open(&disk, 0, 1, &small());
    let id = queue.next_id();
    let (recipient, action) = ("a@example.org", "out#1");
    let envelopes = [NewEnvelope { recipient, action, ..NewEnvelope::default() }];
    let mut flags = Flags::EIGHTBIT;
    flags.set_priority(-4);
    let message = NewMessage {
        id,
        received_ms: 1_000,
        release_ms: Some(9_000),
        sender: "sender@example.org",
        envelopes: &envelopes,
        flags,
        tag: "in",
        envid: "id",
        head: b"",
        body: Body::Whole(&[b"Subject: x\r\n\r\n"]),
    };
    run_and_crash(&disk, &queue, async { queue.submit(message).await.expect("durable") });
    for stop in [true, false] {
        let (queue, report) = open(&disk, 0, 1, &small());
        assert_eq!((report.messages, report.damage), (1, vec![]));
        assert_eq!((queue.claim_due(8_999, 10), queue.next_due()), (vec![], Some(9_000)));
        let stored = block_on(queue.load(id)).expect("there");
        assert_eq!((stored.received_ms, stored.release_ms, stored.begins_ms()), (1_000, Some(9_000), 9_000));
        assert_eq!((stored.envid.as_str(), stored.flags, stored.flags.priority()), ("id", flags, -4));
        if stop {
            // The next start has a checkpoint.
            run_and_stop(&queue, async {});
        } else {
            assert_eq!(queue.claim_due(9_000, 10), [(id, vec![0])]);
        }
    }
}

#[test]
fn s119_all_that_arrives_during_a_write_is_one_write() {
    let disk = MemDisk::new(2);
    disk.latency.set(50);
    let (queue, _) = open(&disk, 0, 1, &Options::default());
    run_and_stop(&queue, async {
        submit(&queue, &["a@example.org"], 10).await.expect("durable");
        let before = disk.writes.get();
        let all = (0..200).map(|_| submit(&queue, &["a@example.org"], 4096)).collect();
        assert!(join_all(all).await.iter().all(Result::is_ok));
        assert!(disk.writes.get() - before <= 2, "{} writes", disk.writes.get() - before);
        // An idle system writes a single message at once, and once.
        let before = disk.writes.get();
        submit(&queue, &["a@example.org"], 10).await.expect("durable");
        assert_eq!(disk.writes.get() - before, 1);
    });
}

#[test]
fn s120_a_message_costs_no_file() {
    let disk = MemDisk::new(3);
    let (queue, _) = open(&disk, 0, 1, &Options::default());
    run_and_stop(&queue, async {
        submit(&queue, &["a@example.org"], 10).await.expect("durable");
        until("the spares are made", || queue.counts().segments.free >= 2).await;
        let (creations, writes) = (disk.creations.get(), disk.writes.get());
        for _ in 0..500 {
            let id = submit(&queue, &["a@example.org"], 1000).await.expect("durable");
            queue.settle(id, 0, State::Delivered);
        }
        assert_eq!((disk.creations.get(), disk.writes.get() - writes), (creations, 500));
    });
}

#[test]
fn a_segment_that_is_made_at_leisure_is_hurried_when_the_last_free_one_is_taken() {
    let disk = MemDisk::new(6);
    let (queue, _) = open(&disk, 0, 1, &small());
    run_and_stop(&queue, async {
        disk.at_leisure.set(true);
        for number in 0..200 {
            let durable = async {
                submit(&queue, &["a@example.org"], 4000).await.expect("durable");
                true
            };
            let patience = async {
                after_polls(10_000).await;
                false
            };
            assert!(or(durable, patience).await, "message {number} waits for a segment that is made at leisure");
        }
        disk.at_leisure.set(false);
    });
}

#[test]
fn messages_that_lie_side_by_side_are_read_back_together() {
    let disk = MemDisk::new(5);
    let (queue, _) = open(&disk, 0, 1, &Options::default());
    run_and_stop(&queue, async {
        let mut all = Vec::new();
        for number in 0..100 {
            // Every tenth has a text that does not travel with it.
            let bytes = if number % 10 == 9 { 9000 } else { 4000 };
            all.push((submit(&queue, &["a@example.org"], bytes).await.expect("durable"), bytes));
        }
        let (gone, _) = all.remove(50);
        queue.settle(gone, 0, State::Delivered);
        // As they come from the queue they may be in any order.
        let mut shuffled: Vec<(MessageId, usize)> = all.iter().rev().copied().collect();
        shuffled.rotate_left(17);
        let runs = queue.runs(shuffled, 8192);
        assert_eq!(runs.iter().map(Vec::len).sum::<usize>(), 99);
        assert!(runs.len() <= 4, "{} reads of 256 KiB for half a MiB", runs.len());
        let before = disk.reads.get();
        let mut found = Vec::new();
        for run in &runs {
            let ids: Vec<MessageId> = run.iter().map(|(id, _)| *id).collect();
            for ((id, bytes), loaded) in run.iter().zip(queue.load_run(&ids, 8192).await) {
                let (stored, body) = loaded.expect("it reads");
                assert_eq!((stored.id, stored.body_bytes), (*id, *bytes as u64));
                assert_eq!(stored.envelopes[0].recipient, "a@example.org");
                let expected = (*bytes <= 8192).then(|| text(*id, *bytes));
                assert_eq!(body.as_deref(), expected.as_deref(), "{id}");
                found.push((*id, *bytes));
            }
        }
        assert_eq!(disk.reads.get() - before, runs.len() as u64);
        found.sort();
        assert_eq!(found, all);
        // What has ended meanwhile is missed alone.
        let ids = [all[0].0, gone, all[1].0];
        let loaded = queue.load_run(&ids, 8192).await;
        let known: Vec<bool> = loaded.iter().map(Result::is_ok).collect();
        assert_eq!(known, [true, false, true]);
    });
}

#[test]
fn an_ended_queue_recycles_its_segments() {
    let disk = MemDisk::new(4);
    let (queue, _) = open(&disk, 0, 1, &small());
    run_and_stop(&queue, async {
        for _ in 0..300 {
            let id = submit(&queue, &["a@example.org"], 4000).await.expect("durable");
            queue.settle(id, 0, State::Delivered);
        }
        queue.flush().await;
        until("the segments are freed", || queue.counts().segments.active <= 2).await;
    });
    let files = disk.paths().len();
    assert!(files <= 12, "{files} files after 10 times a segment's bytes");
    let (queue, report) = open(&disk, 0, 1, &small());
    assert_eq!((queue.counts().messages, report.damage), (0, vec![]));
}

#[test]
fn an_eio_is_survived_by_writing_once_more_to_a_fresh_segment() {
    for leaves in [Leaves::Nothing, Leaves::Some, Leaves::All] {
        for seed in 0..20 {
            let disk = MemDisk::new(seed);
            let (queue, _) = open(&disk, 0, 1, &small());
            let before_and_after = run_and_crash(&disk, &queue, async {
                let before = submit(&queue, &["a@example.org"], 3000).await.expect("durable");
                disk.failures.borrow_mut().push_back(Some(leaves));
                let failed = submit(&queue, &["b@example.org"], 3000).await.expect("durable in the second segment");
                let after = submit(&queue, &["c@example.org"], 3000).await.expect("durable");
                check(&queue, before, &["a@example.org"], 3000);
                [before, failed, after]
            });
            let (queue, report) = open(&disk, 0, 1, &small());
            assert_eq!(report.damage, Vec::<String>::new(), "a torn batch that was rewritten is no corruption");
            assert_eq!(ids(&queue), before_and_after);
            check(&queue, before_and_after[1], &["b@example.org"], 3000);
        }
    }
}

#[test]
fn a_disk_that_fails_twice_is_answered_451_until_it_is_back() {
    for leaves in [Leaves::Nothing, Leaves::Some, Leaves::All] {
        let disk = MemDisk::new(7);
        let (queue, _) = open(&disk, 0, 1, &small());
        let (first, last) = run_and_crash(&disk, &queue, async {
            let first = submit(&queue, &["a@example.org", "b@example.org"], 3000).await.expect("durable");
            queue.settle(first, 0, State::Delivered);
            disk.failures.borrow_mut().extend([Some(leaves), Some(leaves)]);
            let all = (0..5).map(|_| submit(&queue, &["c@example.org"], 500)).collect();
            let all = join_all(all).await;
            assert!(all.iter().all(|result| *result == Err(SubmitError::Disk)), "{all:?}");
            assert_eq!((ids(&queue), queue.space()), (vec![first], Space::Low));
            assert_eq!(submit(&queue, &["c@example.org"], 500).await, Err(SubmitError::Disk));
            assert_eq!(queue.claim_due(u64::MAX, 10), [], "no delivery whose outcome could not be kept");
            until("the probe succeeds", || queue.space() == Space::Enough).await;
            let last = submit(&queue, &["d@example.org"], 500).await.expect("durable");
            queue.flush().await;
            (first, last)
        });
        let (queue, report) = open(&disk, 0, 1, &small());
        // Not even what reached the disk comes back: the next batch said that it was refused.
        assert_eq!((ids(&queue), report.damage), (vec![first, last], vec![]), "{leaves:?}");
        let stored = block_on(queue.load(first)).expect("there");
        assert_eq!(stored.envelopes[0].state, Status::Delivered, "the state of the failed batch was written later");
    }
}

#[test]
fn a_dead_disk_does_not_keep_the_program_from_stopping() {
    let disk = MemDisk::new(8);
    let (queue, _) = open(&disk, 0, 1, &small());
    run_and_stop(&queue, async {
        submit(&queue, &["a@example.org"], 3000).await.expect("durable");
        disk.dead.set(true);
        assert_eq!(submit(&queue, &["a@example.org"], 3000).await, Err(SubmitError::Disk));
        for _ in 0..500 {
            yield_now().await;
        }
        assert!(disk.paths().len() < 12, "probes leave nothing behind");
    });
}

#[test]
fn a_full_disk_is_said_early_and_recovers() {
    let disk = MemDisk::new(9);
    disk.capacity.set(1 << 20);
    let (queue, _) = open(&disk, 0, 1, &small());
    let kept = run_and_crash(&disk, &queue, async {
        let mut kept = Vec::new();
        let mut low_at = None;
        let refused = loop {
            queue.check_space().await;
            if queue.space() == Space::Low && low_at.is_none() {
                low_at = Some(kept.len());
            }
            match submit(&queue, &["a@example.org"], 4000).await {
                Ok(id) => kept.push(id),
                Err(error) => break error,
            }
        };
        assert_eq!(refused, SubmitError::Full);
        let low_at = low_at.expect("low before full");
        assert!(kept.len() - low_at >= 10, "low at {low_at}, full at {}", kept.len());
        // States still find room, more of them than there are messages.
        for round in 0..3 {
            for id in &kept {
                queue.settle(*id, 0, State::Deferred { until_ms: 9_000_000 + round, reply: "452 full".into() });
            }
            queue.flush().await;
        }
        // Mail leaves, and then there is room again.
        for id in kept.drain(..kept.len() - 3) {
            queue.settle(id, 0, State::Delivered);
        }
        queue.flush().await;
        until("there is room again", || queue.space() == Space::Enough).await;
        kept.push(submit(&queue, &["a@example.org"], 4000).await.expect("durable"));
        kept
    });
    let (queue, _) = open(&disk, 0, 1, &small());
    assert_eq!(ids(&queue), kept);
    let stored = block_on(queue.load(kept[0])).expect("there");
    assert_eq!((stored.envelopes[0].attempts, stored.envelopes[0].last_reply.as_str()), (3, "452 full"));
}

#[test]
fn slices_follow_the_number_of_shards_and_nothing_moves() {
    let disk = MemDisk::new(10);
    let mut all = Vec::new();
    for me in 0..3 {
        let (queue, _) = open(&disk, me, 3, &small());
        all.push(run_and_stop(&queue, async { submit(&queue, &["a@example.org"], 2000).await.expect("durable") }));
    }
    assert_eq!(all.iter().map(|id| id.slice()).collect::<Vec<_>>(), [0, 1, 2]);
    let (queue, report) = open(&disk, 0, 1, &small());
    assert_eq!((report.slices, ids(&queue)), (3, all.clone()));
    run_and_stop(&queue, async {
        assert_eq!(queue.claim_due(2_000_000, 10).len(), 3);
        queue.settle(all[2], 0, State::Delivered);
        queue.settle(all[1], 0, State::Deferred { until_ms: 7, reply: "later".into() });
        all.push(submit(&queue, &["b@example.org"], 2000).await.expect("durable"));
    });
    for (me, expected) in [(0, vec![all[0], all[3]]), (1, vec![all[1]]), (2, vec![])] {
        let (queue, report) = open(&disk, me, 3, &small());
        assert_eq!((ids(&queue), report.slices), (expected.clone(), 1));
        expected.iter().for_each(|id| assert!(block_on(queue.load(*id)).is_ok()));
    }
}

#[test]
fn a_large_text_streams_ahead_of_its_message_and_an_abandoned_one_frees_its_space() {
    let disk = MemDisk::new(11);
    let (queue, _) = open(&disk, 0, 1, &small());
    let id = run_and_crash(&disk, &queue, async {
        let id = queue.next_id();
        let whole = text(id, 300_000);
        let mut abandoned = queue.begin_body();
        queue.append_chunk(&mut abandoned, &whole).await.expect("durable");
        let mut body = queue.begin_body();
        for piece in whole[500..290_000].chunks(70_000) {
            queue.append_chunk(&mut body, piece).await.expect("durable");
        }
        let live = queue.counts().bytes_live;
        assert!(live > 580_000, "{live}");
        drop(abandoned);
        assert!(queue.counts().bytes_live < live - 290_000);
        let message = NewMessage {
            id,
            received_ms: 1_000,
            release_ms: None,
            sender: "sender@example.org",
            envelopes: &[NewEnvelope {
                recipient: "a@example.org",
                original: "list-of-a@example.org",
                action: "out#1",
                way: "{\"user\":1}",
                request: support::asked(id).1,
            }],
            flags: Flags::EIGHTBIT,
            tag: "in",
            envid: support::asked(id).0,
            head: &whole[..500],
            body: Body::Chunks(body, &[&whole[290_000..]]),
        };
        queue.submit(message).await.expect("durable");
        // One in a single piece is divided by itself.
        let other = submit(&queue, &["a@example.org"], 100_000).await.expect("durable");
        check(&queue, other, &["a@example.org"], 100_000);
        queue.settle(other, 0, State::Delivered);
        queue.flush().await;
        id
    });
    let (queue, report) = open(&disk, 0, 1, &small());
    assert_eq!((ids(&queue), report.damage), (vec![id], vec![]));
    check(&queue, id, &["a@example.org"], 300_000);
}

#[test]
fn what_is_too_large_or_has_no_recipient_is_refused() {
    let disk = MemDisk::new(12);
    let (queue, _) = open(&disk, 0, 1, &small());
    run_and_stop(&queue, async {
        let long = "a".repeat(70_000);
        assert_eq!(submit(&queue, &[&long], 10).await, Err(SubmitError::TooLarge));
        assert_eq!(submit(&queue, &[], 10).await, Err(SubmitError::TooLarge));
        let many = vec!["somebody@example.org"; 2000];
        assert_eq!(submit(&queue, &many, 10).await, Err(SubmitError::TooLarge), "more than a batch of this size holds");
    });
    assert_eq!(block_on(submit(&queue, &["a@example.org"], 10)), Err(SubmitError::Stopped));
}

#[test]
fn a_few_stuck_messages_move_to_a_cold_segment() {
    let disk = MemDisk::new(13);
    let (queue, _) = open(&disk, 0, 1, &small());
    let stuck = run_and_crash(&disk, &queue, async {
        let mut stuck = Vec::new();
        for number in 0..400 {
            let bytes = if number % 100 == 0 { 20_000 } else { 3000 };
            let id = submit(&queue, &["a@example.org"], bytes).await.expect("durable");
            if number % 20 == 0 {
                stuck.push((id, bytes));
                queue.settle(id, 0, State::Deferred { until_ms: 9_000_000, reply: format!("451 for {number}") });
                if number % 40 == 0 {
                    queue.note(id, 0, told(4)).await;
                }
            } else {
                queue.settle(id, 0, State::Delivered);
            }
            queue.check_space().await;
        }
        queue.flush().await;
        until("it is compact", || {
            let counts = queue.counts();
            counts.segments.active + counts.segments.cold <= 2 * counts.bytes_live.div_ceil(128 << 10) + 4
        })
        .await;
        assert!(queue.counts().segments.cold > 0);
        stuck
    });
    let (queue, report) = open(&disk, 0, 1, &small());
    assert_eq!(report.damage, Vec::<String>::new());
    assert_eq!(ids(&queue), stuck.iter().map(|(id, _)| *id).collect::<Vec<_>>());
    for (number, listed) in queue.list().into_iter().enumerate() {
        let expected = if number % 2 == 0 { told(4) } else { Told::NOTHING };
        assert_eq!((listed.told, listed.received_ms, listed.due_ms), (expected, Some(1_000), 9_000_000));
    }
    for (number, (id, bytes)) in stuck.into_iter().enumerate() {
        check(&queue, id, &["a@example.org"], bytes);
        let stored = block_on(queue.load(id)).expect("there");
        assert_eq!(stored.envelopes[0].last_reply, format!("451 for {}", number * 20));
        assert_eq!(stored.envelopes[0].attempts, 1);
    }
}

/// That the sender was told at this age.
fn told(hours: u64) -> Told {
    let age = Duration::from_secs(hours * 3600);
    Told::NOTHING.due(&[age], age).expect("it is more than nothing")
}

#[test]
fn s100_what_a_sender_was_told_survives_a_crash_a_checkpoint_and_later_states() {
    let disk = MemDisk::new(20);
    let (queue, _) = open(&disk, 0, 1, &small());
    let stand = |queue: &Queue<MemDisk>| {
        let all = queue.list();
        all.iter().map(|listed| (listed.index, listed.told, listed.attempts, listed.due_ms)).collect::<Vec<_>>()
    };
    let id = run_and_crash(&disk, &queue, async {
        let id = submit(&queue, &["a@example.org", "b@example.org", "c@example.org"], 300).await.expect("durable");
        queue.settle(id, 0, State::Deferred { until_ms: 5_000_000, reply: "451 busy".into() });
        // Of one whose state is not durable yet, and of one that is still in flight.
        queue.note(id, 0, told(4)).await;
        queue.note(id, 1, told(4)).await;
        // What ends meanwhile has ended.
        queue.settle(id, 2, State::Delivered);
        queue.note(id, 2, told(4)).await;
        assert_eq!(stand(&queue), [(0, told(4), 1, 5_000_000), (1, told(4), 0, 1_000)]);
        queue.flush().await;
        id
    });
    let (queue, report) = open(&disk, 0, 1, &small());
    assert_eq!((report.messages, report.envelopes, report.damage), (1, 2, vec![]));
    assert_eq!(stand(&queue), [(0, told(4), 1, 5_000_000), (1, told(4), 0, 0)]);
    assert_eq!(block_on(queue.load(id)).expect("there").envelopes[0].last_reply, "451 busy");
    run_and_stop(&queue, async {
        assert_eq!(queue.claim_due(5_000_000, 10), [(id, vec![0, 1])]);
        queue.settle(id, 0, State::Deferred { until_ms: 6_000_000, reply: "451 still busy".into() });
        queue.note(id, 0, told(24)).await;
        queue.note(id, 0, told(4)).await;
        queue.settle(id, 1, State::Deferred { until_ms: 7_000_000, reply: "451 busy, too".into() });
    });
    for _ in 0..2 {
        // The first start replays, or reads what `run_and_stop` has left; the second reads a checkpoint in any case.
        let (queue, _) = open(&disk, 0, 1, &small());
        assert_eq!(stand(&queue), [(0, told(24), 2, 6_000_000), (1, told(4), 1, 7_000_000)]);
        let stored = block_on(queue.load(id)).expect("there");
        let replies: Vec<&str> = stored.envelopes.iter().map(|one| one.last_reply.as_str()).collect();
        assert_eq!(replies[..2], ["451 still busy", "451 busy, too"]);
        run_and_stop(&queue, async {});
    }
}

#[test]
fn a_pinned_message_can_be_read_beyond_its_end() {
    let disk = MemDisk::new(14);
    let (queue, _) = open(&disk, 0, 1, &small());
    run_and_stop(&queue, async {
        let id = submit(&queue, &["a@example.org"], 3000).await.expect("durable");
        queue.pin(id);
        queue.settle(id, 0, State::Delivered);
        for _ in 0..200 {
            let other = submit(&queue, &["a@example.org"], 3000).await.expect("durable");
            queue.settle(other, 0, State::Delivered);
        }
        queue.flush().await;
        check(&queue, id, &["a@example.org"], 3000);
        assert_eq!(ids(&queue), []);
        queue.unpin(id);
        assert!(queue.load(id).await.is_err());
    });
}

#[test]
fn corruption_in_the_middle_is_reported_and_the_rest_salvaged() {
    let disk = MemDisk::new(15);
    let (queue, _) = open(&disk, 0, 1, &small());
    let all = run_and_crash(&disk, &queue, async {
        let mut all = Vec::new();
        for _ in 0..6 {
            all.push(submit(&queue, &["a@example.org"], 3000).await.expect("durable"));
        }
        all
    });
    let path = segment(0, 0);
    let whole = disk.content(&path);
    for (at, lost) in [(4096 + 100, 0), (3 * 4096 + 7, 2), (5 * 4096 + 4000, 4)] {
        disk.corrupt(&path, at, &[whole[at] ^ 0xff]);
        let (queue, report) = open(&disk, 0, 1, &small());
        let mut expected = all.clone();
        // The byte at 5 * 4096 + 4000 is padding: nothing is lost by it.
        if at % 4096 < 3500 {
            expected.remove(lost);
        }
        assert_eq!(report.damage.len(), usize::from(at % 4096 < 3500), "{:?}", report.damage);
        assert_eq!(ids(&queue), expected);
        disk.corrupt(&path, at, &[whole[at]]);
    }
    // The last one is a torn tail as far as anybody can tell.
    disk.corrupt(&path, 6 * 4096 + 70, &[whole[6 * 4096 + 70] ^ 1]);
    let (queue, report) = open(&disk, 0, 1, &small());
    assert_eq!((ids(&queue).len(), report.damage.len(), report.torn), (5, 0, 1));
    // Its damaged segment is not written again, also when all in it has ended.
    disk.corrupt(&path, 6 * 4096 + 70, &[whole[6 * 4096 + 70]]);
    disk.corrupt(&path, 2 * 4096 + 70, &[whole[2 * 4096 + 70] ^ 1]);
    let damaged = disk.content(&path);
    let (queue, _) = open(&disk, 0, 1, &small());
    run_and_stop(&queue, async {
        for id in ids(&queue) {
            queue.settle(id, 0, State::Delivered);
        }
        for _ in 0..100 {
            let id = submit(&queue, &["a@example.org"], 3000).await.expect("durable");
            queue.settle(id, 0, State::Delivered);
        }
    });
    assert!(disk.content(&path) == damaged);
}

#[test]
fn a_lost_superblock_or_checkpoint_costs_no_message() {
    let disk = MemDisk::new(16);
    let (queue, _) = open(&disk, 0, 1, &small());
    let all = run_and_stop(&queue, async {
        let mut all = Vec::new();
        for _ in 0..120 {
            all.push(submit(&queue, &["a@example.org"], 3000).await.expect("durable"));
        }
        all
    });
    let checkpoint = Path::new(DIR).join("slice-00/index.ckpt");
    assert!(disk.paths().contains(&checkpoint));
    let used: Vec<PathBuf> = disk.paths().into_iter().filter(|path| disk.content(path)[..4] == *b"RPs1").collect();
    assert!(used.len() >= 3);
    for lost in [vec![used[0].clone()], vec![checkpoint.clone()], vec![checkpoint, used[1].clone()]] {
        let copy = disk.duplicate();
        for path in &lost {
            copy.corrupt(path, 0, &[0xaa; 70]);
        }
        let (queue, report) = open(&copy, 0, 1, &small());
        assert_eq!(report.damage.len(), lost.len(), "{:?}", report.damage);
        assert_eq!(ids(&queue), all, "{lost:?}");
        all.iter().for_each(|id| check(&queue, *id, &["a@example.org"], 3000));
    }
    // A segment that is gone is not silently dropped.
    disk.delete(&used[0]);
    let (queue, report) = open(&disk, 0, 1, &small());
    assert!(report.damage.iter().any(|line| line.contains("missing")), "{:?}", report.damage);
    assert!(ids(&queue).len() < all.len());
}

#[test]
fn a_journal_of_a_later_version_is_refused() {
    let disk = MemDisk::new(17);
    let (queue, _) = open(&disk, 0, 1, &small());
    run_and_crash(&disk, &queue, async { submit(&queue, &["a@example.org"], 10).await.expect("durable") });
    let opened = |disk: &MemDisk| block_on(Queue::open(disk.clone(), Path::new(DIR), 0, 1, small(), 0)).map(|_| ());
    // A record kind that nobody knows, under a checksum that is right.
    let other = disk.duplicate();
    let mut batch = other.content(&segment(0, 0))[4096..8192].to_vec();
    batch[64] = 200;
    batch[4..8].fill(0);
    let length = u32::from_le_bytes(batch[8..12].try_into().expect("four")) as usize;
    let crc = crc32c::crc32c(&batch[..length]);
    batch[4..8].copy_from_slice(&crc.to_le_bytes());
    other.corrupt(&segment(0, 0), 4096, &batch);
    let error = opened(&other).expect_err("refused");
    assert!(matches!(error, OpenError::Version { .. }) && error.to_string().contains("200"), "{error}");
    // A superblock of another version.
    let mut block = disk.content(&segment(0, 0))[..72].to_vec();
    block[8] = 2;
    block[4..8].fill(0);
    let crc = crc32c::crc32c(&block);
    block[4..8].copy_from_slice(&crc.to_le_bytes());
    disk.corrupt(&segment(0, 0), 0, &block);
    assert!(matches!(opened(&disk), Err(OpenError::Version { .. })));
}

#[test]
fn looking_at_a_stopped_queue_writes_nothing() {
    let disk = MemDisk::new(18);
    let (queue, _) = open(&disk, 1, 2, &small());
    let id = run_and_crash(&disk, &queue, async { submit(&queue, &["a@example.org"], 1000).await.expect("durable") });
    disk.read_only.set(true);
    let (queue, report) = block_on(ringpost_queue::inspect::read_only(disk.clone(), Path::new(DIR))).expect("it opens");
    let messages = block_on(ringpost_queue::inspect::messages(&queue));
    assert_eq!((report.messages, messages.len(), messages[0].0), (1, 1, id));
    assert!(messages[0].1.as_ref().is_ok_and(|stored| stored.envelopes[0].recipient == "a@example.org"));
    check(&queue, id, &["a@example.org"], 1000);
    let nothing = MemDisk::new(1);
    nothing.read_only.set(true);
    let (queue, _) = block_on(ringpost_queue::inspect::read_only(nothing, Path::new(DIR))).expect("it opens");
    assert_eq!(queue.list(), []);
}

#[test]
fn held_and_released_envelopes_come_back_as_they_should() {
    let disk = MemDisk::new(19);
    let (queue, _) = open(&disk, 0, 1, &small());
    let id = run_and_stop(&queue, async {
        let id = submit(&queue, &["a@example.org", "b@example.org", "c@example.org"], 10).await.expect("durable");
        queue.settle(id, 0, State::Held);
        queue.settle(id, 1, State::Failed { reply: "550 no".into() });
        let changed = queue.due_changed();
        let changed = changed.raised();
        queue.release(id, 2, 3_000_000);
        or(changed, after_polls(5)).await;
        assert_eq!((queue.next_due(), queue.claim_due(2_999_999, 9)), (Some(3_000_000), vec![]));
        assert_eq!(queue.make_due(5), 1);
        assert_eq!(queue.claim_due(5, 9), [(id, vec![2])]);
        queue.release(id, 2, 3_000_000);
        queue.settle(id, 1, State::Delivered);
        id
    });
    let (queue, _) = open(&disk, 0, 1, &small());
    let states: Vec<_> = queue.list().iter().map(|listed| (listed.index, listed.state, listed.attempts)).collect();
    assert_eq!(states, [(0, Status::Held, 0), (2, Status::Waiting, 0)]);
    assert_eq!(block_on(queue.load(id)).expect("there").envelopes[1].last_reply, "550 no");
}

/// Written before actions were known by reference: two messages, of which one has ended and one has a deferred envelope.
#[test]
fn an_old_journal_still_replays() {
    let disk = MemDisk::new(1);
    disk.put(&segment(0, 0), include_bytes!("fixtures/journal/actions-by-number.seg"), 128 << 10);
    let (queue, report) = open(&disk, 0, 1, &small());
    assert_eq!((report.messages, report.envelopes, report.damage), (1, 2, vec![]));
    let id = ids(&queue)[0];
    assert!(queue.list().iter().all(|listed| listed.told == Told::NOTHING && listed.received_ms.is_some()));
    let stored = block_on(queue.load(id)).expect("there");
    let found: Vec<_> = stored.envelopes.iter().map(|one| (one.recipient.as_str(), one.action.clone())).collect();
    let expected = [("a@example.org", StoredAction::Number(0)), ("b@example.org", StoredAction::Number(1))];
    assert_eq!(found, expected);
    assert!(stored.envelopes.iter().all(|one| one.original.is_empty() && one.way.is_empty()));
    assert_eq!((stored.envelopes[1].attempts, stored.envelopes[1].last_reply.as_str()), (1, "451 busy"));
    assert!(block_on(queue.read_body(id, 0, 1000)).expect("it reads") == text(id, 700));
    // New mail joins it, and what it says stays.
    let new = run_and_stop(&queue, async {
        let new = submit(&queue, &["d@example.org"], 100).await.expect("durable");
        assert_eq!(queue.claim_due(2_000_000, 10), [(id, vec![0])]);
        queue.settle(id, 0, State::Delivered);
        new
    });
    drop(queue);
    let (queue, report) = open(&disk, 0, 1, &small());
    assert_eq!((report.messages, report.envelopes, report.damage), (2, 2, vec![]));
    check(&queue, new, &["d@example.org"], 100);
    assert_eq!(block_on(queue.load(id)).expect("there").envelopes[1].action, StoredAction::Number(1));
}
