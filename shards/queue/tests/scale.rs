//! Many messages: what they cost in memory, and how soon a start has them all.

mod support;

use std::collections::BTreeSet;
use std::time::Instant;

use ringpost_queue::limits::ENVELOPE_MEMORY_BYTES_MAX;
use ringpost_queue::{Options, State};
use support::{MemDisk, join_all, open, run_and_crash, run_and_stop, submit};

#[test]
fn s123_s124_a_hundred_thousand_deferred_messages() {
    let disk = MemDisk::new(1);
    let (queue, _) = open(&disk, 0, 1, &Options { segment_bytes: 8 << 20, ..Options::default() });
    run_and_crash(&disk, &queue, async {
        for round in 0..1000 {
            let all = (0..100).map(|_| submit(&queue, &["somebody@example.org"], 300)).collect();
            for (number, id) in join_all(all).await.into_iter().enumerate() {
                let until_ms = 2_000_000 + (round * 100 + number as u64) * 10;
                queue.settle(id.expect("durable"), 0, State::Deferred { until_ms, reply: "451 later".into() });
            }
        }
        queue.flush().await;
    });
    let per_envelope = queue.memory_bytes() / 100_000;
    assert!(per_envelope <= ENVELOPE_MEMORY_BYTES_MAX, "{per_envelope}");
    // The bound is 200; this keeps what has been reached.
    assert!(per_envelope <= 120, "{per_envelope}");
    drop(queue);
    for _ in 0..2 {
        let (queue, report) = open(&disk, 0, 1, &Options { segment_bytes: 8 << 20, ..Options::default() });
        assert_eq!((report.messages, report.damage), (100_000, vec![]));
        let listed = queue.list();
        let distinct: BTreeSet<_> = listed.iter().map(|listed| listed.id).collect();
        assert_eq!((listed.len(), distinct.len()), (100_000, 100_000), "each once");
        assert!(listed.iter().all(|listed| listed.attempts == 1));
        assert!(queue.memory_bytes() / 100_000 <= 120, "{}", queue.memory_bytes() / 100_000);
        assert_eq!(queue.counts().deferred, 100_000);
        // The second start has a checkpoint.
        run_and_stop(&queue, async {});
    }
}

/// Not a test of correctness: prints how long a start takes. `cargo test --release -- --ignored --nocapture million`
#[test]
#[ignore = "a measurement, minutes long"]
fn a_million_messages_start() {
    let disk = MemDisk::new(1);
    let (queue, _) = open(&disk, 0, 1, &Options::default());
    run_and_stop(&queue, async {
        for _ in 0..2000 {
            let all = (0..500).map(|_| submit(&queue, &["somebody@example.org"], 300)).collect();
            for id in join_all(all).await {
                let reply = "451 later".into();
                queue.settle(id.expect("durable"), 0, State::Deferred { until_ms: 2_000_000, reply });
            }
        }
    });
    drop(queue);
    let checkpoint = std::path::Path::new(support::DIR).join("slice-00/index.ckpt");
    for with in ["with its checkpoint", "without"] {
        let began = Instant::now();
        let (queue, report) = open(&disk, 0, 1, &Options::default());
        println!(
            "{} messages ready {with} in {:?}, {} bytes each",
            report.messages,
            began.elapsed(),
            queue.memory_bytes() / 1_000_000
        );
        if with == "with its checkpoint" {
            disk.delete(&checkpoint);
        }
    }
}
