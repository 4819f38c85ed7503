//! What it costs to have a message wait: 1,000,000 times, scattered over a day, are armed and fire in order, by the scheduler of
//! the queue. Prints nanoseconds of the processor for each, and bytes of memory. For measurements alone.
//!
//! `cargo run --release -p ringpost-bench --example timers [TIMERS]`

use std::hint::black_box;
use std::time::Duration;

use ringpost_queue::Backend;

const TIMERS: u64 = 1_000_000;
const DAY_MS: u64 = 86_400_000;

/// Time that this thread has had on a processor.
fn busy() -> Duration {
    let text = std::fs::read_to_string("/proc/thread-self/schedstat").expect("Linux");
    let nanoseconds = text.split(' ').next().and_then(|first| first.parse().ok()).expect("a number of nanoseconds");
    Duration::from_nanos(nanoseconds)
}

fn main() {
    let asked = std::env::args().nth(1).map(|asked| asked.parse().expect("a number of timers"));
    let timers: u64 = asked.unwrap_or(TIMERS);
    let due_ms = |number: u64| number.wrapping_mul(0x9e37_79b9_7f4a_7c15) % DAY_MS;
    let mut wheel = Backend::Wheel.make();

    let began = busy();
    (0..timers).for_each(|number| wheel.arm(due_ms(number), number));
    let arming = busy() - began;
    let bytes = wheel.memory_bytes() as u64 / timers.max(1);

    let began = busy();
    let (mut fired, mut last) = (0, 0);
    while let Some(next) = wheel.next() {
        let number = wheel.fire(next).expect("it is due");
        assert!(last <= next, "in order");
        (fired, last) = (fired + 1, black_box(next));
        black_box(number);
    }
    let firing = busy() - began;
    assert_eq!(fired, timers);

    let each = |time: Duration| time.as_nanos() / u128::from(timers.max(1));
    println!("{timers} timers: {} ns to arm one, {} ns to fire it, {bytes} bytes for each", each(arming), each(firing));
}
