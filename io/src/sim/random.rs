//! The only randomness of the simulated world: SplitMix64 (Steele, Lea and Flood, 2014). Small, and any seed will do.

use std::time::Duration;

/// A stream of random numbers that a seed determines.
#[derive(Clone, Debug)]
pub struct Random {
    state: u64,
}

impl Random {
    /// The stream of this seed.
    pub fn new(seed: u64) -> Self {
        Self { state: seed }
    }

    /// Another stream, which this one determines; what is drawn from one does not change the other.
    pub fn fork(&mut self) -> Self {
        Self::new(self.next_u64())
    }

    /// Any number.
    pub fn next_u64(&mut self) -> u64 {
        self.state = self.state.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut mixed = self.state;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^ (mixed >> 31)
    }

    /// A number below `bound`, which is not zero.
    pub fn below(&mut self, bound: u64) -> u64 {
        assert_ne!(bound, 0, "nothing is below zero");
        ((u128::from(self.next_u64()) * u128::from(bound)) >> 64) as u64
    }

    /// An index into something of this length, which is not zero.
    pub fn index(&mut self, length: usize) -> usize {
        self.below(length as u64) as usize
    }

    /// True with this probability, 0 to 1.
    pub fn chance(&mut self, probability: f64) -> bool {
        // The top 53 bits: all that a double can tell apart.
        let drawn = (self.next_u64() >> 11) as f64 / (1_u64 << 53) as f64;
        drawn < probability
    }

    /// A time between two, both included.
    pub fn between(&mut self, shortest: Duration, longest: Duration) -> Duration {
        let spread = longest.saturating_sub(shortest).as_nanos() as u64;
        shortest + Duration::from_nanos(self.below(spread.saturating_add(1).max(1)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_seed_determines_everything() {
        let (mut first, mut second) = (Random::new(7), Random::new(7));
        let mut fork = first.fork();
        let other = second.fork().next_u64();
        assert_eq!(fork.next_u64(), other);
        for _ in 0..100 {
            fork.next_u64();
            assert_eq!(first.next_u64(), second.next_u64());
        }
        assert_ne!(Random::new(8).next_u64(), Random::new(7).next_u64());
    }

    #[test]
    fn draws_stay_in_their_bounds() {
        let mut random = Random::new(0);
        let mut seen = [0_u32; 3];
        for _ in 0..3_000 {
            seen[random.index(3)] += 1;
        }
        assert!(seen.iter().all(|&count| (800..1_200).contains(&count)), "{seen:?}");
        assert!((0..1_000).all(|_| random.chance(1.0) && !random.chance(0.0)));
        let often = (0..10_000).filter(|_| random.chance(0.25)).count();
        assert!((2_200..2_800).contains(&often), "{often}");
        let (short, long) = (Duration::from_millis(1), Duration::from_millis(2));
        assert!((0..100).all(|_| (short..=long).contains(&random.between(short, long))));
        assert_eq!(random.between(long, long), long);
    }
}
