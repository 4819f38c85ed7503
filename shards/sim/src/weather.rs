//! What goes wrong in a phase of a run, drawn anew for each.

use std::sync::Arc;
use std::time::Duration;

use ringpost_conf::{Shaping, overrides};
use ringpost_io::sim::{DiskFaults, NetFaults, Random};

use crate::coordinator::{Mood, domain};
use crate::faults::Faults;
use crate::limits::{CLOCK_WRONG, DOMAINS, RECEIVERS};
use crate::programs::Health;
use crate::receivers::Manners;

/// A phase.
#[derive(Clone, Debug, Default)]
pub(crate) struct Weather {
    pub(crate) disk: DiskFaults,
    pub(crate) net: NetFaults,
    pub(crate) manners: Manners,
    pub(crate) mood: Mood,
    pub(crate) health: Health,
    /// Receivers that are black holes.
    pub(crate) away: [bool; RECEIVERS],
    /// By how many milliseconds the clock on the wall is wrong.
    pub(crate) ahead_ms: i64,
    /// Limits that an administrator has set; `None`: he does nothing.
    pub(crate) limits: Option<Arc<[Arc<Shaping>]>>,
}

impl Weather {
    /// The next phase after this one.
    pub(crate) fn next(&self, faults: Faults, random: &mut Random) -> Self {
        let mut next = Self { ahead_ms: if faults.clock { self.ahead_ms } else { 0 }, ..Self::default() };
        let mut draw = |one_in: u64| random.below(one_in) == 0;
        next.disk.lie = faults.lying_disk;
        if faults.disk && draw(3) {
            next.disk.fail_write = if draw(2) { 0.02 } else { 0.3 };
            next.disk.fail_sync = if draw(2) { 0.02 } else { 0.0 };
            next.disk.slow = 0.02;
            next.disk.slow_by = Duration::from_millis(300);
        }
        if faults.full && draw(6) {
            next.disk.capacity_bytes = 4 << 20;
        }
        if faults.net && draw(2) {
            next.net.reset = 0.003;
            next.net.refuse = 0.05;
            next.net.lose_connect = 0.05;
            next.net.segment_bytes_max = if draw(2) { 200 } else { 16 << 10 };
            next.net.buffer_bytes = if draw(3) { 2 << 10 } else { 128 << 10 };
            if draw(4) {
                next.net.latency = (Duration::from_millis(20), Duration::from_millis(400));
                next.net.segment_bytes_max = 16 << 10;
            }
        }
        if faults.hosts {
            for (away, was_away) in next.away.iter_mut().zip(self.away) {
                *away = if was_away { !draw(3) } else { draw(6) };
            }
        }
        if faults.peers && draw(2) {
            next.manners = Manners {
                refuse_recipient_one_in: 40,
                defer_recipient_one_in: 10,
                defer_message_one_in: 10,
                hang_up_one_in: 60,
                press_one_in: if draw(2) { 30 } else { 0 },
                silent_one_in: if draw(3) { 200 } else { 0 },
            };
        }
        if faults.names && draw(3) {
            next.mood = Mood {
                fails_one_in: if draw(2) { 3 } else { 0 },
                silent_one_in: if draw(2) { 3 } else { 0 },
                odd_one_in: if draw(2) { 2 } else { 0 },
            };
        }
        if faults.programs && draw(3) {
            next.health = Health { fails_one_in: 4, hangs_one_in: if draw(2) { 3 } else { 0 } };
        }
        if faults.clock && draw(5) {
            let wrong_ms = CLOCK_WRONG.as_millis() as u64;
            next.ahead_ms = match random.below(4) {
                0 => 0,
                // A little, as when a clock is set that has gone wrong by itself.
                1 => random.below(20_000) as i64 - 10_000,
                _ => random.below(2 * wrong_ms) as i64 - wrong_ms as i64,
            };
        }
        if faults.limits && random.below(3) == 0 {
            next.limits = Some((0..random.below(4)).map(|_| Arc::new(limit(random))).collect());
        }
        next
    }

    /// Whether the engine's disk does what it should.
    pub(crate) fn is_bad_for_disk(&self) -> bool {
        self.disk.fail_write > 0.0 || self.disk.capacity_bytes < DiskFaults::default().capacity_bytes
    }
}

fn limit(random: &mut Random) -> Shaping {
    let selector = match random.below(3) {
        0 => "default".to_owned(),
        1 => format!("domain:{}", domain(random.index(DOMAINS))),
        _ => format!("host:mx{}.sim", random.index(RECEIVERS)),
    };
    let all = [
        "connections=1",
        "rate=2/s",
        "rate=1/20s",
        "open-rate=1/s",
        "messages-per-connection=3",
        "recipients=1",
        "idle=1s",
    ];
    let setting = all[random.index(all.len())].to_owned();
    overrides::shaping(&selector, &[setting]).expect("as an administrator may write it")
}
